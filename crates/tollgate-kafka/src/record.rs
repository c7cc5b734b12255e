//! A message as Kafka carries it: what of it is ours, and in which headers it stands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use tollgate_proto::OutgoingMessage;

/// The message's deterministic id.
const ID: &str = "tollgate-message-id";

/// How often the message was delivered before this copy of it was produced. Kafka itself counts nothing.
const DELIVERIES: &str = "tollgate-deliveries";

/// When the message is due, in milliseconds since 1970.
const NOT_BEFORE: &str = "tollgate-not-before";

/// Why the message was put aside.
const REASON: &str = "tollgate-dead-letter-reason";

const OURS: [&str; 4] = [ID, DELIVERIES, NOT_BEFORE, REASON];

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// A message that came, or is to be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) envelope: Bytes,
    /// The destination partition, by which Kafka chooses its own.
    pub(super) key: Vec<u8>,
    id: String,
    /// Those that are not ours.
    others: Vec<(String, Vec<u8>)>,
    /// How often it was delivered before.
    pub(super) deliveries: u32,
    not_before_ms: Option<u64>,
}

impl Record {
    /// A message on its first way.
    pub(super) fn first(message: OutgoingMessage) -> Self {
        let others = message.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        let record = Self {
            envelope: message.envelope,
            key: message.partition.as_str().as_bytes().to_vec(),
            id: message.message_id.to_string(),
            others,
            deliveries: 0,
            not_before_ms: None,
        };
        record.due_after(message.delay)
    }

    /// Reads what Kafka delivered.
    pub(super) fn read(message: &BorrowedMessage<'_>) -> Self {
        let mut record = Self {
            envelope: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            key: message.key().unwrap_or_default().to_vec(),
            id: String::new(),
            others: Vec::new(),
            deliveries: 0,
            not_before_ms: None,
        };
        for Header { key, value } in message.headers().into_iter().flat_map(Headers::iter) {
            let value = value.unwrap_or_default();
            let text = || std::str::from_utf8(value).unwrap_or_default();
            match key {
                ID => text().clone_into(&mut record.id),
                DELIVERIES => record.deliveries = text().parse().unwrap_or(0),
                NOT_BEFORE => record.not_before_ms = text().parse().ok(),
                REASON => {}
                other => record.others.push((other.to_owned(), value.to_vec())),
            }
        }
        record
    }

    /// The same, due after a while, which is counted from the next millisecond: never too early.
    #[must_use]
    pub(super) fn due_after(mut self, delay: Duration) -> Self {
        let delay_ms = u64::try_from(delay.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        self.not_before_ms = (delay_ms > 0).then(|| now_ms().saturating_add(delay_ms).saturating_add(1));
        self
    }

    /// How long it is still too early, if it is.
    pub(super) fn early_by(&self) -> Option<Duration> {
        let left = self.not_before_ms?.checked_sub(now_ms())?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Its headers, with the reason if it is put aside.
    pub(super) fn headers(&self, reason: Option<&str>) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(self.others.len() + OURS.len());
        for (key, value) in &self.others {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers = headers.insert(Header { key: ID, value: Some(&self.id) });
        if self.deliveries > 0 {
            headers = headers.insert(Header { key: DELIVERIES, value: Some(&self.deliveries.to_string()) });
        }
        if let Some(due) = self.not_before_ms {
            headers = headers.insert(Header { key: NOT_BEFORE, value: Some(&due.to_string()) });
        }
        if let Some(reason) = reason {
            let end =
                (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|end| reason.is_char_boundary(*end));
            headers = headers.insert(Header { key: REASON, value: Some(&reason[..end.unwrap_or(0)]) });
        }
        headers
    }

    #[cfg(test)]
    pub(super) fn of_test(not_before_ms: Option<u64>) -> Self {
        let (envelope, key, id, others) = (Bytes::new(), Vec::new(), String::new(), Vec::new());
        Self { envelope, key, id, others, deliveries: 0, not_before_ms }
    }
}

/// Decides about delays only, never about what is processed.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
