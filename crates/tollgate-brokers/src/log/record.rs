//! How messages and dead letters are written into the recovery log, byte by byte. Numbers are little endian;
//! the key of a record is its number, 8 bytes, big endian, so that recovery reads messages in the order they
//! were sent.
//!
//! ```text
//! message      format (1) | opening (4) | deliveries (4) | due (8) | length (2) | endpoint | envelope
//! dead letter  format (1) | deliveries (4) | length (2) | endpoint | length (4) | reason | envelope
//! ```
//!
//! `opening` says during which opening of the log the record was written: every unclean end since counts as
//! one delivery. `due` is the time of the first delivery in milliseconds since the Unix epoch, 0 if at once.

use std::num::NonZeroU64;

use bytes::Bytes;
use tollgate_proto::EndpointName;

use crate::in_process::DeadLetter;
use crate::in_process::messages::LogNumber;

/// The first byte of every record.
const FORMAT: u8 = 1;

/// A message as the log keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MessageRecord {
    pub(crate) opening: u32,
    pub(crate) delivery_count: u32,
    pub(crate) due_ms: u64,
    pub(crate) endpoint: EndpointName,
    pub(crate) envelope: Bytes,
}

impl MessageRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let endpoint = self.endpoint.as_str();
        let mut bytes = Vec::with_capacity(19 + endpoint.len() + self.envelope.len());
        bytes.push(FORMAT);
        bytes.extend(self.opening.to_le_bytes());
        bytes.extend(self.delivery_count.to_le_bytes());
        bytes.extend(self.due_ms.to_le_bytes());
        put_endpoint(&mut bytes, endpoint);
        bytes.extend_from_slice(&self.envelope);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Rest(bytes);
        rest.format()?;
        Ok(Self {
            opening: u32::from_le_bytes(rest.array()?),
            delivery_count: u32::from_le_bytes(rest.array()?),
            due_ms: u64::from_le_bytes(rest.array()?),
            endpoint: rest.endpoint()?,
            envelope: Bytes::copy_from_slice(rest.0),
        })
    }
}

/// Writes a dead letter.
pub(crate) fn encode_dead_letter(endpoint: &EndpointName, letter: &DeadLetter) -> Vec<u8> {
    let (endpoint, reason) = (endpoint.as_str(), letter.reason.as_str());
    let mut bytes = Vec::with_capacity(11 + endpoint.len() + reason.len() + letter.envelope.len());
    bytes.push(FORMAT);
    bytes.extend(letter.delivery_count.to_le_bytes());
    put_endpoint(&mut bytes, endpoint);
    let length = u32::try_from(reason.len()).expect("a reason for a person is shorter than 4 GB");
    bytes.extend(length.to_le_bytes());
    bytes.extend_from_slice(reason.as_bytes());
    bytes.extend_from_slice(&letter.envelope);
    bytes
}

/// Reads what [`encode_dead_letter`] wrote.
pub(crate) fn decode_dead_letter(bytes: &[u8]) -> Result<(EndpointName, DeadLetter), String> {
    let mut rest = Rest(bytes);
    rest.format()?;
    let delivery_count = u32::from_le_bytes(rest.array()?);
    let endpoint = rest.endpoint()?;
    let length = u32::from_le_bytes(rest.array()?) as usize;
    let reason = rest.text(length)?.to_owned();
    Ok((endpoint, DeadLetter { envelope: Bytes::copy_from_slice(rest.0), reason, delivery_count }))
}

/// The key of a record.
pub(crate) fn key(number: LogNumber) -> [u8; 8] {
    number.0.get().to_be_bytes()
}

/// The number that a key stands for.
pub(crate) fn number(key: &[u8]) -> Result<LogNumber, String> {
    let bytes = key.try_into().map_err(|_| format!("a key has {} bytes instead of 8", key.len()))?;
    let number = NonZeroU64::new(u64::from_be_bytes(bytes)).ok_or("there is a record number 0")?;
    Ok(LogNumber(number))
}

fn put_endpoint(bytes: &mut Vec<u8>, endpoint: &str) {
    let length = u16::try_from(endpoint.len()).expect("endpoint names have 255 bytes at most");
    bytes.extend(length.to_le_bytes());
    bytes.extend_from_slice(endpoint.as_bytes());
}

/// What of a record has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let missing = || format!("it ends {} bytes too early", length - self.0.len());
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(missing)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(length)?).map_err(|error| error.to_string())
    }

    fn endpoint(&mut self) -> Result<EndpointName, String> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        EndpointName::new(self.text(length)?).map_err(|error| error.to_string())
    }

    fn format(&mut self) -> Result<(), String> {
        match self.array()? {
            [FORMAT] => Ok(()),
            [other] => Err(format!("its format is {other}, and this version reads {FORMAT}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> MessageRecord {
        MessageRecord {
            opening: 3,
            delivery_count: 2,
            due_ms: 1_700_000_000_000,
            endpoint: EndpointName::new("orders").unwrap(),
            envelope: Bytes::from_static(b"envelope"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(MessageRecord::decode(&message().encode()), Ok(message()));
        let endpoint = EndpointName::new("orders").unwrap();
        let letter = DeadLetter {
            envelope: Bytes::from_static(b"envelope"),
            reason: "no such customer".into(),
            delivery_count: 5,
        };
        assert_eq!(decode_dead_letter(&encode_dead_letter(&endpoint, &letter)), Ok((endpoint, letter)));
        let seven = LogNumber(NonZeroU64::new(7).unwrap());
        assert_eq!(number(&key(seven)), Ok(seven));
    }

    #[test]
    fn a_record_that_is_cut_short_or_of_another_format_is_refused_with_its_reason() {
        let bytes = message().encode();
        assert_eq!(MessageRecord::decode(&bytes[..20]), Err("it ends 5 bytes too early".into()));
        let newer = [&[9], &bytes[1..]].concat();
        assert_eq!(MessageRecord::decode(&newer), Err("its format is 9, and this version reads 1".into()));
    }
}
