//! How the records of the `Store` and `Broker` traits are written into frames: their fields, one after the other. How
//! numbers, texts and lists are written is told in `wire`.

use bytes::{Buf, Bytes, BytesMut};
use tollgate::proto::{
    BrokerError, Commit, CommitOutcome, DeduplicationId, DeduplicationKey, Delivery, EndpointName, EntryKey,
    EntryRead, Incarnation, ItemName, ItemValue, LimitExceeded, LoadRequest, LoadedPartition, MessageId,
    OutgoingMessage, PartitionKey, Receipt, RecordWrite, ScanCursor, ScanPage, ScannedPartition, Sequence,
    SessionMark, Settlement, StoreAlias, StoreError, StoreLimits, TokenRef, Verdict, Version,
};

use super::wire::{Garbled, Wire, put_text};

macro_rules! names {
    ($($name:ident,)*) => {$(
        impl Wire for $name {
            fn put(&self, to: &mut BytesMut) {
                put_text(self.as_str(), to);
            }

            fn take(from: &mut Bytes) -> Result<Self, Garbled> {
                let bytes = <Bytes as Wire>::take(from)?;
                let name = std::str::from_utf8(&bytes).map_err(|_| Garbled("text"))?;
                Self::new(name).map_err(|_| Garbled(stringify!($name)))
            }
        }
    )*};
}

names!(EndpointName, PartitionKey, StoreAlias, ItemName, DeduplicationKey,);

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Wire for $name {
            fn put(&self, to: &mut BytesMut) {
                let Self { $($field),* } = self;
                $($field.put(to);)*
            }

            fn take(from: &mut Bytes) -> Result<Self, Garbled> {
                $(let $field = Wire::take(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    )*};
}

structs! {
    StoreLimits { transaction_items_max, transaction_bytes_max, item_bytes_max, read_batch_max, delete_batch_max }
    LoadRequest { partition, items, records }
    LoadedPartition { control, items, records, session }
    EntryRead { token, sessions }
    Commit { partition, expected, version, control, items, entries, deleted_entries, records, now_ms }
    RecordWrite { key, response, expires_at_ms }
    ScanPage { partitions, next }
    ScannedPartition { partition, control, entries, records, items }
    Sequence { incarnation, counter }
    EntryKey { sequence, index }
    TokenRef { store, partition, entry }
    SessionMark { store, scope, position, token }
    OutgoingMessage { endpoint, partition, message_id, deduplication_id, envelope, headers, delay }
    Delivery { envelope, receipt, delivery_count }
    Settlement { receipt, verdict }
}

macro_rules! ids {
    ($($name:ident: $what:literal),* $(,)?) => {$(
        impl Wire for $name {
            fn put(&self, to: &mut BytesMut) {
                to.extend_from_slice(self.as_bytes());
            }

            fn take(from: &mut Bytes) -> Result<Self, Garbled> {
                let (bytes, rest) = from.split_first_chunk().ok_or(Garbled($what))?;
                let (id, length) = (Self::from_bytes(*bytes), from.len() - rest.len());
                from.advance(length);
                Ok(id)
            }
        }
    )*};
}

ids!(MessageId: "message id", DeduplicationId: "deduplication id");

impl Wire for Incarnation {
    fn put(&self, to: &mut BytesMut) {
        self.0.put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        u64::take(from).map(Self)
    }
}

impl Wire for Version {
    fn put(&self, to: &mut BytesMut) {
        self.sequence().put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        Sequence::take(from).map(Self::from_sequence)
    }
}

impl Wire for ScanCursor {
    fn put(&self, to: &mut BytesMut) {
        self.0.put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        <Bytes as Wire>::take(from).map(Self)
    }
}

impl Wire for ItemValue {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Json(_) => 0_u8,
            Self::Binary(_) => 1,
        }
        .put(to);
        self.bytes().put(to);
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(Self::Json(Wire::take(from)?)),
            1 => Ok(Self::Binary(Wire::take(from)?)),
            _ => Err(Garbled("item value")),
        }
    }
}

impl Wire for Receipt {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Number(number) => {
                0_u8.put(to);
                number.put(to);
            }
            Self::Text(text) => {
                1_u8.put(to);
                put_text(text, to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(Self::Number(Wire::take(from)?)),
            1 => Ok(Self::Text(String::take(from)?.into())),
            _ => Err(Garbled("receipt")),
        }
    }
}

impl Wire for Verdict {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Acknowledge => 0_u8.put(to),
            Self::Retry { after } => {
                1_u8.put(to);
                after.put(to);
            }
            Self::DeadLetter { reason } => {
                2_u8.put(to);
                reason.put(to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(Self::Acknowledge),
            1 => Ok(Self::Retry { after: Wire::take(from)? }),
            2 => Ok(Self::DeadLetter { reason: Wire::take(from)? }),
            _ => Err(Garbled("verdict")),
        }
    }
}

impl Wire for CommitOutcome {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Committed { session } => {
                0_u8.put(to);
                session.put(to);
            }
            Self::Conflict => 1_u8.put(to),
            Self::RecordsExist(keys) => {
                2_u8.put(to);
                keys.put(to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        match u8::take(from)? {
            0 => Ok(Self::Committed { session: Wire::take(from)? }),
            1 => Ok(Self::Conflict),
            2 => Ok(Self::RecordsExist(Wire::take(from)?)),
            _ => Err(Garbled("commit outcome")),
        }
    }
}

/// A limit, as its number and what stands in it. `None`: a limit that is newer than this room.
fn limit_parts(limit: &LimitExceeded) -> Option<(u8, &str, usize, usize)> {
    match limit {
        LimitExceeded::ItemBytes { item, bytes, max } => Some((0, item, *bytes, *max)),
        LimitExceeded::TransactionItems { items, max } => Some((1, "", *items, *max)),
        LimitExceeded::TransactionBytes { bytes, max } => Some((2, "", *bytes, *max)),
        _ => None,
    }
}

fn take_limit(from: &mut Bytes) -> Result<LimitExceeded, Garbled> {
    let variant = u8::take(from)?;
    let item = String::take(from)?;
    let found = usize::take(from)?;
    let max = usize::take(from)?;
    match variant {
        0 => Ok(LimitExceeded::ItemBytes { item, bytes: found, max }),
        1 => Ok(LimitExceeded::TransactionItems { items: found, max }),
        2 => Ok(LimitExceeded::TransactionBytes { bytes: found, max }),
        _ => Err(Garbled("limit")),
    }
}

/// The alias in an error whose variant this room does not know.
const UNKNOWN_ALIAS: &str = "served";

fn put_misconfigured(store: &StoreAlias, reason: &str, to: &mut BytesMut) {
    4_u8.put(to);
    store.put(to);
    put_text(reason, to);
}

impl Wire for StoreError {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Throttled { store, partition, retry_after } => {
                0_u8.put(to);
                store.put(to);
                partition.put(to);
                retry_after.put(to);
            }
            Self::Unavailable { store, reason } => {
                1_u8.put(to);
                store.put(to);
                reason.put(to);
            }
            Self::OutcomeUnknown { store, partition, reason } => {
                2_u8.put(to);
                store.put(to);
                partition.put(to);
                reason.put(to);
            }
            Self::TooLarge { store, partition, limit } => match limit_parts(limit) {
                Some((variant, item, found, max)) => {
                    3_u8.put(to);
                    store.put(to);
                    partition.put(to);
                    variant.put(to);
                    put_text(item, to);
                    found.put(to);
                    max.put(to);
                }
                None => put_misconfigured(store, &limit.to_string(), to),
            },
            Self::Misconfigured { store, reason } => put_misconfigured(store, reason, to),
            Self::Corrupt { store, partition, what, reason } => {
                5_u8.put(to);
                store.put(to);
                partition.put(to);
                what.put(to);
                reason.put(to);
            }
            Self::ForeignToken { store, token } => {
                6_u8.put(to);
                store.put(to);
                token.put(to);
            }
            newer => {
                let store = StoreAlias::new(UNKNOWN_ALIAS).expect("the constant is a valid alias");
                put_misconfigured(&store, &newer.to_string(), to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        let variant = u8::take(from)?;
        let store = StoreAlias::take(from)?;
        match variant {
            0 => {
                let partition = Wire::take(from)?;
                Ok(Self::Throttled { store, partition, retry_after: Wire::take(from)? })
            }
            1 => Ok(Self::Unavailable { store, reason: Wire::take(from)? }),
            2 => {
                let partition = Wire::take(from)?;
                Ok(Self::OutcomeUnknown { store, partition, reason: Wire::take(from)? })
            }
            3 => {
                let partition = Wire::take(from)?;
                Ok(Self::TooLarge { store, partition, limit: take_limit(from)? })
            }
            4 => Ok(Self::Misconfigured { store, reason: Wire::take(from)? }),
            5 => {
                let (partition, what) = (Wire::take(from)?, Wire::take(from)?);
                Ok(Self::Corrupt { store, partition, what, reason: Wire::take(from)? })
            }
            6 => Ok(Self::ForeignToken { store, token: Wire::take(from)? }),
            _ => Err(Garbled("store error")),
        }
    }
}

impl Wire for BrokerError {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Unavailable { endpoint, reason } => {
                0_u8.put(to);
                endpoint.put(to);
                reason.put(to);
            }
            Self::Full { endpoint, capacity } => {
                1_u8.put(to);
                endpoint.put(to);
                capacity.put(to);
            }
            Self::Misconfigured { endpoint, reason } => {
                2_u8.put(to);
                endpoint.put(to);
                reason.put(to);
            }
            Self::Closed { endpoint } => {
                3_u8.put(to);
                endpoint.put(to);
            }
            newer => {
                let endpoint = EndpointName::new(UNKNOWN_ALIAS).expect("the constant is a valid name");
                Self::Misconfigured { endpoint, reason: newer.to_string() }.put(to);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, Garbled> {
        let variant = u8::take(from)?;
        let endpoint = EndpointName::take(from)?;
        match variant {
            0 => Ok(Self::Unavailable { endpoint, reason: Wire::take(from)? }),
            1 => Ok(Self::Full { endpoint, capacity: Wire::take(from)? }),
            2 => Ok(Self::Misconfigured { endpoint, reason: Wire::take(from)? }),
            3 => Ok(Self::Closed { endpoint }),
            _ => Err(Garbled("broker error")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Writes, reads back, and compares what can be said of both.
    fn assert_travels<T: Wire + std::fmt::Debug>(value: &T) {
        let mut written = BytesMut::new();
        value.put(&mut written);
        let mut written = written.freeze();
        let read = T::take(&mut written).unwrap();
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
        assert!(written.is_empty(), "{} bytes are left of {value:?}", written.len());
    }

    #[test]
    fn every_error_of_a_store_arrives_as_what_it_was() {
        let store = StoreAlias::new("main").unwrap();
        let partition = PartitionKey::new("order/1").unwrap();
        let sequence = Sequence { incarnation: Incarnation(7), counter: 3 };
        let token = TokenRef {
            store: store.clone(),
            partition: partition.clone(),
            entry: EntryKey { sequence, index: 2 },
        };
        let limits = [
            LimitExceeded::ItemBytes { item: "item a".into(), bytes: 5, max: 4 },
            LimitExceeded::TransactionItems { items: 101, max: 100 },
            LimitExceeded::TransactionBytes { bytes: 9, max: 8 },
        ];
        for limit in limits {
            assert_travels(&StoreError::TooLarge {
                store: store.clone(),
                partition: partition.clone(),
                limit,
            });
        }
        let reason = || "because".to_owned();
        assert_travels(&StoreError::Throttled {
            store: store.clone(),
            partition: Some(partition.clone()),
            retry_after: Some(Duration::from_millis(20)),
        });
        assert_travels(&StoreError::Unavailable { store: store.clone(), reason: reason() });
        assert_travels(&StoreError::OutcomeUnknown {
            store: store.clone(),
            partition: partition.clone(),
            reason: reason(),
        });
        assert_travels(&StoreError::Misconfigured { store: store.clone(), reason: reason() });
        assert_travels(&StoreError::Corrupt {
            store: store.clone(),
            partition,
            what: "item".into(),
            reason: reason(),
        });
        assert_travels(&StoreError::ForeignToken { store, token });
    }

    #[test]
    fn every_error_receipt_and_verdict_of_a_broker_arrives_as_what_it_was() {
        let endpoint = EndpointName::new("orders").unwrap();
        assert_travels(&BrokerError::Unavailable { endpoint: endpoint.clone(), reason: "because".into() });
        assert_travels(&BrokerError::Full { endpoint: endpoint.clone(), capacity: 7 });
        assert_travels(&BrokerError::Misconfigured { endpoint: endpoint.clone(), reason: "because".into() });
        assert_travels(&BrokerError::Closed { endpoint });
        assert_travels(&Receipt::Number(9));
        assert_travels(&Receipt::Text("receipt".into()));
        assert_travels(&Verdict::Acknowledge);
        assert_travels(&Verdict::Retry { after: Duration::from_micros(3) });
        assert_travels(&Verdict::DeadLetter { reason: "poison".into() });
    }
}
