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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn whatever_was_stored_is_read_or_damaged_and_never_more_than_it_is(bytes: Vec<u8>, head: String, body: Vec<u8>) {
            let any = Bytes::from(bytes);
            if let Ok((head, body)) = decode::<String>("frame", &any) {
                // JSON may be written in many ways, but whatever was read is in there.
                prop_assert!(body.len() + 4 <= any.len());
                prop_assert_eq!(decode::<String>("frame", &encode(&head, &body)).unwrap(), (head, body));
            }
            let frame = encode(&head, &body);
            prop_assert_eq!(decode::<String>("frame", &frame).unwrap(), (head, Bytes::from(body)));
        }

        #[test]
        fn a_stored_response_with_any_bytes_in_it_is_read_or_damaged(place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            use crate::stored_response::{Response, StoredResponse};
            let response = Response::new(http::StatusCode::OK, "text/plain", "some content");
            let stored = StoredResponse::inline("incarnation".to_owned(), &response).encode();
            let mut bytes = stored.to_vec();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(read) = StoredResponse::decode(&bytes.into()) {
                // A status that is none is an error of the server, and no panic.
                prop_assert!(read.head.status().as_u16() >= 100);
            }
        }
    }
}
