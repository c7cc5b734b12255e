//! The id under which a request is stored and executed: 128 bits, so that nobody guesses another's.

use std::fmt;
use std::str::FromStr;

/// The id of a request, drawn at random by its client.
///
/// ```
/// use tollgate_http::RequestId;
///
/// let id: RequestId = "0190f3d2-5f0e-7c3a-9d53-8b1c6a2f4e77".parse()?;
/// assert_eq!(id.to_string(), "0190f3d25f0e7c3a9d538b1c6a2f4e77");
/// assert!("order-1".parse::<RequestId>().is_err());
/// # Ok::<(), tollgate_http::InvalidRequestId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId([u8; 16]);

/// A text that is no request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 128 random bits, as 32 hexadecimal digits or as a UUID with its hyphens")]
pub struct InvalidRequestId;

impl RequestId {
    /// Draws one from the operating system's source of randomness.
    ///
    /// # Panics
    /// If the operating system has none.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("an operating system has a source of randomness");
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, InvalidRequestId> {
        let digits: Vec<u8> = match text.len() {
            32 => text.bytes().collect(),
            36 => {
                let is_hyphen = |place| matches!(place, 8 | 13 | 18 | 23);
                if text.bytes().enumerate().any(|(place, byte)| is_hyphen(place) != (byte == b'-')) {
                    return Err(InvalidRequestId);
                }
                text.bytes().filter(|byte| *byte != b'-').collect()
            }
            _ => return Err(InvalidRequestId),
        };
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(InvalidRequestId);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).map_err(|_| InvalidRequestId)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_as_a_uuid() {
        let id = RequestId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        let text = id.to_string().to_uppercase();
        let uuid =
            format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        assert_eq!(uuid.parse(), Ok(id));
        assert_ne!(RequestId::random(), id);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "0".repeat(33);
        let hyphens = "-".repeat(32);
        let misplaced = "0190f3d25-f0e-7c3a-9d53-8b1c6a2f4e77";
        let wide = "é".repeat(16);
        for text in ["", "order-1", &long, &hyphens, misplaced, &wide, "+1".repeat(16).as_str()] {
            assert_eq!(text.parse::<RequestId>(), Err(InvalidRequestId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_of_its_digits_or_none(text in ".{0,40}|[0-9a-fA-F-]{32,36}") {
            if let Ok(id) = text.parse::<RequestId>() {
                prop_assert_eq!(id.to_string(), text.replace('-', "").to_lowercase());
            }
        }

        #[test]
        fn all_bytes_come_back(bytes: [u8; 16]) {
            let id = RequestId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.as_bytes(), &bytes);
        }
    }
}
