//! What the messages of one burst have added up to, before it is committed in one transaction.

use bytes::Bytes;

use super::HandlerInput;
use super::incoming::{Incoming, RequestDeduplication, Tokenless};
use crate::codec;
use crate::completion::CleanUp;
use crate::control_record::{Origin, OutputRange};
use crate::ids::{AttemptId, DeduplicationKey, EffectName};
use crate::limits::{LimitExceeded, StoreLimits};
use crate::outbox_entry::OutboxEntry;
use crate::partition_view::Items;
use crate::side_effect::AttachedEffect;
use crate::store::RecordWrite;
use crate::unit_of_work::UnitOfWork;

/// Bytes that a store may need around an item for keys and attribute names: an estimate on the safe side, because the
/// store's own check comes too late for anything but a refusal.
const ITEM_OVERHEAD_BYTES: usize = 256;

/// Items that a commit writes besides those counted here: the control record.
const FIXED_ITEMS: usize = 1;

/// Bytes kept free for the control record.
const CONTROL_RECORD_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fold {
    pub(super) members: Vec<Member>,
    pub(super) changes: Items,
    pub(super) entries: Vec<(OutboxEntry, Bytes)>,
    /// Wake-ups that change the version so that a stalled attempt can't commit any more.
    pub(super) fencing: Vec<usize>,
    /// Side effects of lost or failed attempts, to be deleted after the commit.
    pub(super) clean_ups: Vec<CleanUp>,
    change_bytes: usize,
    entry_bytes: usize,
    record_bytes: usize,
}

/// One message of a fold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) slot: usize,
    pub(super) origin: Origin,
    pub(super) outputs: OutputRange,
    pub(super) record: Option<RecordWrite>,
    /// The side effects that the message carried.
    pub(super) carried: Vec<AttachedEffect>,
    /// The side effects that its handler registered: they stay when this is committed.
    pub(super) registered: Vec<EffectName>,
}

/// What a handler that succeeded has done.
pub(super) struct Effort<'a> {
    pub(super) work: UnitOfWork,
    pub(super) registered: &'a [EffectName],
}

impl Fold {
    /// Adds the changes of one message, or nothing if they do not fit any more.
    pub(super) fn try_add(
        &mut self,
        slot: usize,
        incoming: &Incoming,
        input: &HandlerInput,
        effort: Effort<'_>,
        attempt: AttemptId,
        limits: &StoreLimits,
    ) -> Result<(), LimitExceeded> {
        let Effort { work, registered } = effort;
        let record = record_of(incoming, &work);
        let encoded: Vec<Bytes> = work.outgoing.iter().map(codec::encode_entry).collect();
        let added = self.measure(&work, &encoded, record.as_ref(), limits)?;

        let count = u32::try_from(encoded.len()).expect("the transaction's limits are far below 2^32 items");
        let first =
            u32::try_from(self.entries.len()).expect("the transaction's limits are far below 2^32 items");
        self.entries.extend(work.outgoing.into_iter().zip(encoded));
        self.changes.apply(work.changes);
        self.change_bytes = added.changes;
        self.entry_bytes += added.entries;
        self.record_bytes += added.records;
        let message_id = input.message_id;
        let token = match incoming {
            Incoming::Message { envelope, .. } => envelope.token(),
            Incoming::Request(_) | Incoming::WakeUp { .. } => None,
        };
        let origin = match token {
            Some(token) => Origin::Token { token: token.clone(), message_id },
            None => Origin::Attempt { attempt, message_id },
        };
        let carried = input.effects.clone();
        let (outputs, registered) = (OutputRange { first, count }, registered.to_vec());
        self.members.push(Member { slot, origin, outputs, record, carried, registered });
        Ok(())
    }

    fn measure(
        &self,
        work: &UnitOfWork,
        encoded: &[Bytes],
        record: Option<&RecordWrite>,
        limits: &StoreLimits,
    ) -> Result<Added, LimitExceeded> {
        let fits = |item: &dyn Fn() -> String, size: usize| {
            let bytes = size.saturating_add(ITEM_OVERHEAD_BYTES);
            if bytes > limits.item_bytes_max {
                return Err(LimitExceeded::ItemBytes { item: item(), bytes, max: limits.item_bytes_max });
            }
            Ok(bytes)
        };
        let mut change_bytes = self.change_bytes;
        let mut new_changes = 0;
        for (name, value) in work.changes.iter() {
            let size = value.as_ref().map_or(0, |value| value.bytes().len());
            // An item that an earlier message of the fold wrote too is counted twice: on the safe side.
            change_bytes += fits(&|| format!("item {name}"), size + name.as_str().len())?;
            new_changes += usize::from(self.changes.get(name).is_none());
        }
        let mut entry_bytes = 0;
        for (entry, bytes) in work.outgoing.iter().zip(encoded) {
            let name = || format!("outgoing message {} of type {}", entry.message_id, entry.message_type);
            entry_bytes += fits(&name, bytes.len())?;
        }
        let record_bytes = match record {
            Some(record) => fits(&|| format!("the response to {}", record.key), record.response.len())?,
            None => 0,
        };
        let records = self.members.iter().filter(|member| member.record.is_some()).count();
        let items = FIXED_ITEMS
            + self.changes.len()
            + new_changes
            + self.entries.len()
            + encoded.len()
            + records
            + usize::from(record.is_some());
        if items > limits.transaction_items_max {
            return Err(LimitExceeded::TransactionItems { items, max: limits.transaction_items_max });
        }
        let bytes = CONTROL_RECORD_BYTES
            + change_bytes
            + self.entry_bytes
            + entry_bytes
            + self.record_bytes
            + record_bytes;
        if bytes > limits.transaction_bytes_max {
            return Err(LimitExceeded::TransactionBytes { bytes, max: limits.transaction_bytes_max });
        }
        Ok(Added { changes: change_bytes, entries: entry_bytes, records: record_bytes })
    }

    /// Forgets everything but what has to be cleaned up in any case.
    pub(super) fn clear(&mut self) {
        let clean_ups = std::mem::take(&mut self.clean_ups);
        *self = Self { clean_ups, ..Self::default() };
    }
}

struct Added {
    changes: usize,
    entries: usize,
    records: usize,
}

/// The deduplication record that is created with the commit, for what has no token.
fn record_of(incoming: &Incoming, work: &UnitOfWork) -> Option<RecordWrite> {
    match incoming {
        Incoming::Message { envelope, tokenless: Tokenless::ByIdentity { expires_at_ms } }
            if envelope.token().is_none() =>
        {
            Some(RecordWrite {
                key: DeduplicationKey::of_message(&envelope.to.endpoint, envelope.message_id),
                response: Bytes::new(),
                expires_at_ms: *expires_at_ms,
            })
        }
        Incoming::Request(request) => match &request.deduplication {
            RequestDeduplication::ByKey { key, expires_at_ms } => Some(RecordWrite {
                key: key.clone(),
                response: work.response.clone(),
                expires_at_ms: *expires_at_ms,
            }),
            RequestDeduplication::ByState => None,
        },
        Incoming::Message { .. } | Incoming::WakeUp { .. } => None,
    }
}
