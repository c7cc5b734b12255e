//! A group: the requests that share one sync. It decides each request on the state that the ones before it in the group
//! leave, and collects what changes. It writes nothing and answers nobody: [`crate::writer`] does.

use tokio::sync::oneshot;
use tollgate_proto::{
    Commit, CommitOutcome, DeduplicationKey, PartitionKey, StoreAlias, StoreError, TokenRef, Version,
};

use crate::layout::{self, Space};
use crate::tables::{Changes, Tables};

/// Where an answer is awaited. Whoever waits may have been cancelled: then nobody hears it, and nothing is lost by that.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that may be given once the group is durable.
pub(crate) enum Answer {
    Commit {
        partition: PartitionKey,
        outcome: CommitOutcome,
        reply: Reply<CommitOutcome>,
    },
    Deletion {
        reply: Reply<()>,
    },
    Expiry {
        records: u64,
        reply: Reply<u64>,
    },
    #[cfg(feature = "bench-internals")]
    Plain {
        written: bool,
        reply: Reply<bool>,
    },
}

/// Requests that become durable together.
#[derive(Default)]
pub(crate) struct Group {
    changes: Changes,
    bytes: usize,
    answers: Vec<Answer>,
}

impl Group {
    /// Keys and values in it, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn into_parts(self) -> (Changes, Vec<Answer>) {
        (self.changes, self.answers)
    }

    /// Decides a commit. If the state can't be read, it is answered now and the others are not affected.
    pub(crate) fn commit(
        &mut self,
        alias: &StoreAlias,
        tables: &Tables,
        commit: Commit,
        reply: Reply<CommitOutcome>,
    ) {
        let outcome = match self.decide(alias, tables, &commit) {
            Ok(outcome) => outcome,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let partition = commit.partition.clone();
        if matches!(outcome, CommitOutcome::Committed { .. }) {
            self.take(commit);
        }
        self.answers.push(Answer::Commit { partition, outcome, reply });
    }

    pub(crate) fn delete(&mut self, tokens: Vec<TokenRef>, reply: Reply<()>) {
        for token in tokens {
            self.remove(Space::Entries, layout::entry_key(&token.partition, token.entry));
        }
        self.answers.push(Answer::Deletion { reply });
    }

    /// Deletes those of the records that are still expired: one may have been created anew since it was found so.
    pub(crate) fn expire(
        &mut self,
        alias: &StoreAlias,
        tables: &Tables,
        keys: Vec<Vec<u8>>,
        now_ms: u64,
        reply: Reply<u64>,
    ) {
        let mut records = 0;
        for key in keys {
            match self.newest(alias, tables, Space::Records, key, is_expired(now_ms)) {
                Ok((key, Some(true))) => {
                    self.remove(Space::Records, key);
                    records += 1;
                }
                Ok(_) => {}
                // What was collected so far is right all the same.
                Err(error) => return drop(reply.send(Err(error))),
            }
        }
        self.answers.push(Answer::Expiry { records, reply });
    }

    /// Decides a write of plain records: all or nothing.
    #[cfg(feature = "bench-internals")]
    pub(crate) fn write_plain(
        &mut self,
        alias: &StoreAlias,
        tables: &Tables,
        writes: Vec<crate::plain_records::PlainWrite>,
        reply: Reply<bool>,
    ) {
        let mut written = true;
        for write in &writes {
            let key = layout::item_key(&write.partition, &write.name);
            let holds = |value: &[u8]| write.condition.holds(Some(value));
            match self.newest(alias, tables, Space::Items, key, holds) {
                Ok((_, held)) => written &= held.unwrap_or_else(|| write.condition.holds(None)),
                Err(error) => return drop(reply.send(Err(error))),
            }
        }
        for write in writes.into_iter().filter(|_| written) {
            let key = layout::item_key(&write.partition, &write.name);
            match write.value {
                Some(value) => self.put(Space::Items, key, value.into()),
                None => self.remove(Space::Items, key),
            }
        }
        self.answers.push(Answer::Plain { written, reply });
    }

    fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.changes.insert((space, key), Some(value));
    }

    fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.bytes += key.len();
        self.changes.insert((space, key), None);
    }

    fn decide(
        &self,
        alias: &StoreAlias,
        tables: &Tables,
        commit: &Commit,
    ) -> Result<CommitOutcome, StoreError> {
        if self.version(alias, tables, &commit.partition)? != commit.expected {
            return Ok(CommitOutcome::Conflict);
        }
        let mut existing: Vec<DeduplicationKey> = Vec::new();
        for record in &commit.records {
            let key = layout::record_key(&commit.partition, &record.key);
            let (_, is_expired) =
                self.newest(alias, tables, Space::Records, key, is_expired(commit.now_ms))?;
            if is_expired == Some(false) {
                existing.push(record.key.clone());
            }
        }
        if existing.is_empty() {
            Ok(CommitOutcome::Committed { session: None })
        } else {
            Ok(CommitOutcome::RecordsExist(existing))
        }
    }

    fn version(
        &self,
        alias: &StoreAlias,
        tables: &Tables,
        partition: &PartitionKey,
    ) -> Result<Option<Version>, StoreError> {
        let read = |value: &[u8]| layout::version_of(value).ok_or(value.len());
        match self.newest(alias, tables, Space::Control, layout::control_key(partition), read)? {
            (_, None) => Ok(None),
            (_, Some(Ok(version))) => Ok(Some(version)),
            (_, Some(Err(bytes))) => Err(StoreError::Corrupt {
                store: alias.clone(),
                partition: partition.clone(),
                what: "the control record".into(),
                reason: format!("it has {bytes} bytes and no version"),
            }),
        }
    }

    /// What `read` makes of the value that a key has after everything that is in the group; and the key back.
    fn newest<T>(
        &self,
        alias: &StoreAlias,
        tables: &Tables,
        space: Space,
        key: Vec<u8>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<(Vec<u8>, Option<T>), StoreError> {
        let place = (space, key);
        if let Some(value) = self.changes.get(&place) {
            return Ok((place.1, value.as_deref().map(read)));
        }
        let unavailable =
            |error: fjall::Error| StoreError::Unavailable { store: alias.clone(), reason: error.to_string() };
        let stored = tables.newest(space, &place.1).map_err(unavailable)?;
        Ok((place.1, stored.as_deref().map(read)))
    }

    fn take(&mut self, commit: Commit) {
        let Commit { partition, version, control, items, entries, deleted_entries, records, .. } = commit;
        self.put(Space::Control, layout::control_key(&partition), layout::control_value(version, &control));
        for (name, value) in items {
            let key = layout::item_key(&partition, &name);
            match value {
                Some(value) => self.put(Space::Items, key, layout::item_value_bytes(&value)),
                None => self.remove(Space::Items, key),
            }
        }
        for (entry, bytes) in entries {
            self.put(Space::Entries, layout::entry_key(&partition, entry), bytes.into());
        }
        for entry in deleted_entries {
            self.remove(Space::Entries, layout::entry_key(&partition, entry));
        }
        for record in records {
            let value = layout::record_value(record.expires_at_ms, &record.response);
            self.put(Space::Records, layout::record_key(&partition, &record.key), value);
        }
    }
}

/// A record too short to say when it expires never does: a damaged one must not let a duplicate through.
fn is_expired(now_ms: u64) -> impl Fn(&[u8]) -> bool {
    move |value| layout::record(value).is_some_and(|(expires_at_ms, _)| expires_at_ms <= now_ms)
}
