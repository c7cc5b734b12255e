//! How requests and responses are stored as one item: four bytes with the length of a JSON head (little endian), the head, and
//! the body as it is. What a head says is decided where it is declared.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not a frame.
#[derive(Debug, thiserror::Error)]
#[error("a stored {what} is damaged: {reason}; restore it from a backup")]
pub(crate) struct DamagedFrame {
    what: &'static str,
    reason: String,
}

pub(crate) fn encode(head: &impl Serialize, body: &[u8]) -> Bytes {
    let head = serde_json::to_vec(head).expect("heads are structs of texts and numbers");
    let length = u32::try_from(head.len()).expect("heads are bounded by the limits of HTTP's headers");
    [&length.to_le_bytes()[..], &head, body].concat().into()
}

/// The body is a slice of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &Bytes,
) -> Result<(T, Bytes), DamagedFrame> {
    let damaged = |reason: &str| DamagedFrame { what, reason: reason.to_owned() };
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("it is cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let head = rest.get(..length).ok_or_else(|| damaged("its head is cut off"))?;
    let head = serde_json::from_slice(head).map_err(|error| damaged(&error.to_string()))?;
    Ok((head, bytes.slice(4 + length..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_one_that_is_cut_off_is_damaged() {
        let frame = encode(&"head", b"body");
        let (head, body): (String, Bytes) = decode("frame", &frame).unwrap();
        assert_eq!((head.as_str(), &*body), ("head", &b"body"[..]));
        for end in 0..4 + "\"head\"".len() {
            assert!(decode::<String>("frame", &frame.slice(..end)).is_err(), "{end}");
        }
    }
}
