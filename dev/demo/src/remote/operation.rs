//! What a client can ask a server to do, and the numbers by which frames name it.

use tollgate::proto::EndpointName;

use bytes::{Bytes, BytesMut};

use super::wire::{Garbled, Wire};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// One call of a trait.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Wire for Operation {
            fn put(&self, to: &mut BytesMut) {
                match self {
                    $(Self::$name => $number as u8,)*
                }
                .put(to);
            }

            fn take(from: &mut Bytes) -> Result<Self, Garbled> {
                match u8::take(from)? {
                    $($number => Ok(Self::$name),)*
                    _ => Err(Garbled("operation")),
                }
            }
        }
    };
}

operations! {
    /// Nobody waits for the call of this number any more. It has no answer.
    Cancel = 0,
    /// The store's alias and limits.
    Describe = 1,
    /// `Store::verify`.
    Verify = 2,
    /// `Store::load`.
    Load = 3,
    /// `Store::read_entries`.
    ReadEntries = 4,
    /// `Store::commit`.
    Commit = 5,
    /// `Store::delete_entries`.
    DeleteEntries = 6,
    /// `Store::scan`.
    Scan = 7,
    /// `Store::expire`.
    Expire = 8,
    /// `Broker::send`.
    Send = 9,
    /// `Broker::receive`.
    Receive = 10,
    /// `Broker::settle`.
    Settle = 11,
    /// How many messages an endpoint's queue holds: no part of the `Broker` trait, but the demo has to know.
    Depth = 12,
}

/// What is in an endpoint's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that nobody has acknowledged.
    pub left: usize,
    /// Dead letters.
    pub dead: usize,
}

impl Wire for QueueDepth {
    fn put(&self, to: &mut BytesMut) {
        self.left.put(to);
        self.dead.put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Ok(Self { left: Wire::take(from)?, dead: Wire::take(from)? })
    }
}

impl std::iter::Sum for QueueDepth {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { left: sum.left + one.left, dead: sum.dead + one.dead })
    }
}

/// Tells an endpoint's depth.
pub type DepthOf = dyn Fn(&EndpointName) -> QueueDepth + Send + Sync;
