//! How values are written into frames: little endian, numbers in full, texts and lists preceded by their length, an enum
//! by the number of its variant. Both ends are of one build, so nothing here has a version and nothing is stored. Which
//! records there are is told in `records`.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A value that can travel.
pub trait Wire: Sized {
    /// Writes it.
    fn put(&self, to: &mut BytesMut);

    /// Reads it back and takes it off the front.
    ///
    /// # Errors
    /// If something else was written there.
    fn take(from: &mut Bytes) -> Result<Self, Garbled>;
}

/// What was received is not what should have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end sent something that is no {0}: are both of one build?")]
pub struct Garbled(pub &'static str);

/// How many elements of a list are reserved on the word of its length alone; further ones as they are found.
const LIST_RESERVED_MAX: usize = 1024;

/// Takes so many bytes off the front.
fn split(from: &mut Bytes, count: usize, what: &'static str) -> Result<Bytes, Garbled> {
    if from.len() < count { Err(Garbled(what)) } else { Ok(from.split_to(count)) }
}

impl Wire for () {
    fn put(&self, _to: &mut BytesMut) {}

    fn take(_from: &mut Bytes) -> Result<Self, Garbled> {
        Ok(())
    }
}

impl Wire for u8 {
    fn put(&self, to: &mut BytesMut) {
        to.put_u8(*self);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Ok(split(from, 1, "byte")?.get_u8())
    }
}

impl Wire for u32 {
    fn put(&self, to: &mut BytesMut) {
        to.put_u32_le(*self);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Ok(split(from, size_of::<Self>(), "number")?.get_u32_le())
    }
}

impl Wire for u64 {
    fn put(&self, to: &mut BytesMut) {
        to.put_u64_le(*self);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Ok(split(from, size_of::<Self>(), "number")?.get_u64_le())
    }
}

impl Wire for usize {
    fn put(&self, to: &mut BytesMut) {
        (*self as u64).put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        // No limit that a store declares means none at all on a smaller machine as well.
        Ok(Self::try_from(u64::take(from)?).unwrap_or(Self::MAX))
    }
}

impl Wire for Duration {
    fn put(&self, to: &mut BytesMut) {
        self.as_secs().put(to);
        self.subsec_nanos().put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        let seconds = u64::take(from)?;
        let nanos = u32::take(from)?;
        Self::from_secs(seconds).checked_add(Self::from_nanos(nanos.into())).ok_or(Garbled("duration"))
    }
}

impl Wire for Bytes {
    fn put(&self, to: &mut BytesMut) {
        self.len().put(to);
        to.put_slice(self);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        let length = usize::take(from)?;
        split(from, length, "run of bytes")
    }
}

impl Wire for String {
    fn put(&self, to: &mut BytesMut) {
        put_text(self, to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Self::from_utf8(<Bytes as Wire>::take(from)?.into()).map_err(|_| Garbled("text"))
    }
}

/// Writes a text that is only borrowed.
pub fn put_text(text: &str, to: &mut BytesMut) {
    text.len().put(to);
    to.put_slice(text.as_bytes());
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut BytesMut) {
        match self {
            None => 0_u8.put(to),
            Some(value) => {
                1_u8.put(to);
                value.put(to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(None),
            1 => Ok(Some(T::take(from)?)),
            _ => Err(Garbled("option")),
        }
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Ok(value) => {
                0_u8.put(to);
                value.put(to);
            }
            Err(error) => {
                1_u8.put(to);
                error.put(to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(Ok(T::take(from)?)),
            1 => Ok(Err(E::take(from)?)),
            _ => Err(Garbled("result")),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut BytesMut) {
        self.len().put(to);
        for element in self {
            element.put(to);
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        let length = usize::take(from)?;
        let mut list = Self::with_capacity(length.min(LIST_RESERVED_MAX));
        for _ in 0..length {
            list.push(T::take(from)?);
        }
        Ok(list)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, to: &mut BytesMut) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_cut_off_anywhere_is_an_error_and_not_a_panic() {
        let value =
            vec![(String::from("text"), Some(Bytes::from_static(b"bytes"))), (String::new(), None::<Bytes>)];
        let mut written = BytesMut::new();
        value.put(&mut written);
        Duration::from_millis(1500).put(&mut written);
        let whole = written.freeze();
        let mut rest = whole.clone();
        assert_eq!(Vec::<(String, Option<Bytes>)>::take(&mut rest), Ok(value));
        assert_eq!(Duration::take(&mut rest), Ok(Duration::from_millis(1500)));
        assert!(rest.is_empty());
        for length in 0..whole.len() {
            let mut cut = whole.slice(..length);
            let read = Vec::<(String, Option<Bytes>)>::take(&mut cut).and_then(|_| Duration::take(&mut cut));
            assert!(read.is_err(), "{length} bytes of {}", whole.len());
        }
    }

    #[test]
    fn a_list_that_claims_to_be_endless_is_an_error_and_takes_no_memory() {
        let mut written = BytesMut::new();
        u64::MAX.put(&mut written);
        assert_eq!(Vec::<u64>::take(&mut written.freeze()), Err(Garbled("number")));
    }
}
