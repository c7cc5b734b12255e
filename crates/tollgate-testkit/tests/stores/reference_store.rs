//! A store of maps behind one lock, just large enough to keep every promise, and able to break one of them on demand: that
//! is how the conformance suite is shown to notice. It is for the testkit's own tests and for nothing else.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tollgate_proto::{
    BoxFuture, Commit, CommitOutcome, EntryKey, EntryRead, LoadRequest, LoadedPartition, PartitionKey,
    ScanCursor, ScanPage, ScannedPartition, SessionMark, Store, StoreAlias, StoreError, StoreLimits,
    TokenRef,
};
use tollgate_proto::{DeduplicationKey, ItemName, ItemValue, Version};

/// One broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    IsUnusable,
    InventsControlRecords,
    DropsItemsThatACommitDoesNotName,
    IgnoresTheVersion,
    ComparesOnlyTheCounter,
    ChecksTheVersionOutsideTheLock,
    CommitsInTwoSteps,
    OverwritesAnExistingPartition,
    CreatesAPartitionThatWasExpected,
    LeavesEntriesOfAFailedCommit,
    AppliesHalf,
    ForgetsDeletedItems,
    ForgetsDeletedEntriesOfACommit,
    ForgetsDeletions,
    DeletesAfterTheAnswer,
    DeletionRaisesTheVersion,
    DeletionOfAMissingEntryFails,
    IgnoresTheIndexOfEntries,
    TakesForeignTokens,
    ReadsTheStateBefore,
    LoadsInTwoSteps,
    TakesEmptyForAbsent,
    TurnsJsonIntoBinary,
    IgnoresRecords,
    NamesEveryRecord,
    NeverForgetsRecords,
    LosesResponses,
    ExpiresEverything,
    LooksAtRecordsFirst,
    MixesPartitionsUpToANul,
    MixesItemNamesByCase,
    ShortensDeduplicationKeys,
    AnswersInReverse,
    TruncatesBatches,
    ScansOnlyOnePage,
    ScansCountDeletedEntries,
    IgnoresLimitsOfItems,
    IgnoresLimitsOfBytes,
    IgnoresItemLimits,
    CommitsBeyondTheLimitAndRefuses,
    RefusesAtTheLimit,
}

#[derive(Clone, Default)]
struct Partition {
    control: Option<(Version, Bytes)>,
    items: BTreeMap<ItemName, ItemValue>,
    entries: BTreeMap<EntryKey, Bytes>,
    deleted: Vec<EntryKey>,
    records: BTreeMap<DeduplicationKey, (Bytes, u64)>,
}

/// The store.
pub struct ReferenceStore {
    alias: StoreAlias,
    flaw: Flaw,
    partitions: Mutex<BTreeMap<PartitionKey, Partition>>,
    /// What [`Flaw::ReadsTheStateBefore`] shows.
    before: Mutex<BTreeMap<PartitionKey, Partition>>,
}

/// Small, so that every limit is tried out quickly; each can be hit before the others.
const LIMITS: StoreLimits = StoreLimits {
    transaction_items_max: 40,
    transaction_bytes_max: 64 * 1024,
    item_bytes_max: 16 * 1024,
    read_batch_max: 20,
    delete_batch_max: 10,
};

impl ReferenceStore {
    pub fn new(flaw: Flaw) -> Self {
        let alias = StoreAlias::new("reference").expect("a valid alias");
        Self { alias, flaw, partitions: Mutex::default(), before: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, key: &PartitionKey) -> PartitionKey {
        match self.flaw {
            Flaw::MixesPartitionsUpToANul => {
                let text = key.as_str().split('\0').next().filter(|text| !text.is_empty());
                PartitionKey::new(text.unwrap_or("nul")).expect("a part of a valid key")
            }
            _ => key.clone(),
        }
    }

    fn item(&self, name: &ItemName) -> ItemName {
        match self.flaw {
            Flaw::MixesItemNamesByCase => {
                ItemName::new(name.as_str().to_lowercase()).expect("as long as before")
            }
            _ => name.clone(),
        }
    }

    fn record(&self, key: &DeduplicationKey) -> DeduplicationKey {
        match self.flaw {
            Flaw::ShortensDeduplicationKeys => {
                let text: String = key.as_str().chars().take(255).collect();
                DeduplicationKey::new(text).expect("not longer than before")
            }
            _ => key.clone(),
        }
    }

    fn check_limits(&self, commit: &Commit) -> Result<(), StoreError> {
        let limits = match self.flaw {
            Flaw::IgnoresLimitsOfItems => StoreLimits { transaction_items_max: usize::MAX, ..LIMITS },
            Flaw::IgnoresLimitsOfBytes => StoreLimits { transaction_bytes_max: usize::MAX, ..LIMITS },
            Flaw::IgnoresItemLimits => StoreLimits { item_bytes_max: usize::MAX, ..LIMITS },
            Flaw::RefusesAtTheLimit => StoreLimits { transaction_items_max: 39, ..LIMITS },
            _ => LIMITS,
        };
        commit.check(&limits, 32).map_err(|limit| StoreError::TooLarge {
            store: self.alias.clone(),
            partition: commit.partition.clone(),
            limit,
        })
    }

    fn version_matches(&self, known: Option<Version>, expected: Option<Version>) -> bool {
        let counter = |version: Option<Version>| version.map(|version| version.sequence().counter);
        match self.flaw {
            Flaw::IgnoresTheVersion | Flaw::ChecksTheVersionOutsideTheLock => {
                known.is_some() == expected.is_some()
            }
            Flaw::ComparesOnlyTheCounter => counter(known) == counter(expected),
            Flaw::OverwritesAnExistingPartition => expected.is_none() || known == expected,
            Flaw::CreatesAPartitionThatWasExpected => known.is_none() || known == expected,
            _ => known == expected,
        }
    }

    fn commit_now(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let checked = self.check_limits(&commit);
        if checked.is_err() && self.flaw != Flaw::CommitsBeyondTheLimitAndRefuses {
            return checked.map(|()| CommitOutcome::Conflict);
        }
        let mut partitions = self.lock();
        let key = self.key(&commit.partition);
        if self.flaw == Flaw::ReadsTheStateBefore {
            *self.before.lock().unwrap_or_else(PoisonError::into_inner) = partitions.clone();
        }
        let known = partitions.get(&key).cloned().unwrap_or_default();
        let mut next = known.clone();
        let existing = self.existing_records(&known, &commit);
        if self.flaw == Flaw::LooksAtRecordsFirst && !existing.is_empty() {
            return Ok(CommitOutcome::RecordsExist(existing));
        }
        if !self.version_matches(known.control.as_ref().map(|(version, _)| *version), commit.expected) {
            match self.flaw {
                Flaw::LeavesEntriesOfAFailedCommit => next.entries.extend(commit.entries),
                Flaw::AppliesHalf => {
                    let first =
                        commit.items.into_iter().find_map(|(name, value)| value.map(|value| (name, value)));
                    next.items.extend(first);
                }
                _ => {}
            }
            partitions.insert(key, next);
            return Ok(CommitOutcome::Conflict);
        }
        if !existing.is_empty() {
            return Ok(CommitOutcome::RecordsExist(existing));
        }
        next.control = Some((commit.version, commit.control));
        if self.flaw == Flaw::DropsItemsThatACommitDoesNotName {
            next.items.clear();
        }
        for (name, value) in commit.items {
            match value {
                Some(value) => drop(next.items.insert(self.item(&name), self.stored(value))),
                None if self.flaw == Flaw::ForgetsDeletedItems => {}
                None => drop(next.items.remove(&self.item(&name))),
            }
        }
        next.entries.extend(commit.entries.into_iter().map(|(key, entry)| (self.entry(key), entry)));
        if self.flaw != Flaw::ForgetsDeletedEntriesOfACommit {
            next.entries.retain(|key, _| !commit.deleted_entries.contains(key));
        }
        for record in commit.records {
            let response = if self.flaw == Flaw::LosesResponses { Bytes::new() } else { record.response };
            next.records.insert(self.record(&record.key), (response, record.expires_at_ms));
        }
        partitions.insert(key, next);
        checked.map(|()| CommitOutcome::Committed { session: None })
    }

    fn existing_records(&self, known: &Partition, commit: &Commit) -> Vec<DeduplicationKey> {
        let exists = |key: &DeduplicationKey| match known.records.get(&self.record(key)) {
            Some((_, expires_at_ms)) => {
                self.flaw == Flaw::NeverForgetsRecords || *expires_at_ms > commit.now_ms
            }
            None => false,
        };
        let all = || commit.records.iter().map(|record| record.key.clone());
        match self.flaw {
            Flaw::IgnoresRecords => vec![],
            Flaw::NamesEveryRecord if all().any(|key| exists(&key)) => all().collect(),
            _ => all().filter(|key| exists(key)).collect(),
        }
    }

    fn stored(&self, value: ItemValue) -> ItemValue {
        match (self.flaw, value) {
            (Flaw::TurnsJsonIntoBinary, ItemValue::Json(bytes)) => ItemValue::Binary(bytes),
            (_, value) => value,
        }
    }

    fn entry(&self, key: EntryKey) -> EntryKey {
        if self.flaw == Flaw::IgnoresTheIndexOfEntries { EntryKey { index: 0, ..key } } else { key }
    }

    fn load_now(&self, request: LoadRequest, control: Option<Bytes>) -> LoadedPartition {
        let partitions = match self.flaw {
            Flaw::ReadsTheStateBefore => self.before.lock().unwrap_or_else(PoisonError::into_inner),
            _ => self.lock(),
        };
        let partition = partitions.get(&self.key(&request.partition)).cloned().unwrap_or_default();
        let is_kept = |value: &ItemValue| self.flaw != Flaw::TakesEmptyForAbsent || !value.bytes().is_empty();
        let item = |name: ItemName| {
            let value = partition.items.get(&self.item(&name)).filter(|value| is_kept(value)).cloned();
            (name, value)
        };
        let record = |key: DeduplicationKey| {
            let response = partition.records.get(&self.record(&key)).map(|(response, _)| response.clone());
            (key, response)
        };
        let control = control.or_else(|| (self.flaw == Flaw::InventsControlRecords).then(Bytes::new));
        LoadedPartition {
            control: control.or_else(|| partition.control.as_ref().map(|(_, control)| control.clone())),
            items: request.items.into_iter().map(item).collect(),
            records: request.records.into_iter().map(record).collect(),
            session: None,
        }
    }

    fn delete_now(&self, token: &TokenRef) -> Result<Option<SessionMark>, StoreError> {
        self.refuse_foreign(token)?;
        let mut partitions = self.lock();
        let Some(partition) = partitions.get_mut(&self.key(&token.partition)) else { return Ok(None) };
        match self.flaw {
            Flaw::ForgetsDeletions => {}
            _ if partition.entries.remove(&self.entry(token.entry)).is_some() => {
                partition.deleted.push(token.entry);
                if self.flaw == Flaw::DeletionRaisesTheVersion {
                    partition.control =
                        partition.control.take().map(|(version, control)| (version.next(), control));
                }
            }
            Flaw::DeletionOfAMissingEntryFails => return Err(self.unavailable("there is no such entry")),
            _ => {}
        }
        Ok(None)
    }

    fn refuse_foreign(&self, token: &TokenRef) -> Result<(), StoreError> {
        if token.store == self.alias || self.flaw == Flaw::TakesForeignTokens {
            return Ok(());
        }
        Err(StoreError::ForeignToken { store: self.alias.clone(), token: token.clone() })
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { store: self.alias.clone(), reason: reason.into() }
    }

    /// The end of every batched operation.
    fn answers<T>(&self, mut answers: Vec<T>) -> Vec<T> {
        match self.flaw {
            Flaw::AnswersInReverse => answers.reverse(),
            Flaw::TruncatesBatches => answers.truncate(8),
            _ => {}
        }
        answers
    }
}

impl Store for ReferenceStore {
    fn alias(&self) -> &StoreAlias {
        &self.alias
    }

    fn limits(&self) -> StoreLimits {
        LIMITS
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            match self.flaw {
                Flaw::IsUnusable => Err(self.unavailable("it is unusable")),
                _ => Ok(()),
            }
        })
    }

    fn load(&self, requests: Vec<LoadRequest>) -> BoxFuture<'_, Vec<Result<LoadedPartition, StoreError>>> {
        Box::pin(async move {
            let mut loaded = Vec::new();
            for request in requests {
                let control = if self.flaw == Flaw::LoadsInTwoSteps {
                    let control =
                        self.load_now(LoadRequest { items: vec![], ..request.clone() }, None).control;
                    tokio::task::yield_now().await;
                    control
                } else {
                    None
                };
                loaded.push(Ok(self.load_now(request, control)));
            }
            self.answers(loaded)
        })
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(async move {
            let read = |read: EntryRead| {
                self.refuse_foreign(&read.token)?;
                let partitions = self.lock();
                let partition = partitions.get(&self.key(&read.token.partition));
                Ok(partition
                    .and_then(|partition| partition.entries.get(&self.entry(read.token.entry)).cloned()))
            };
            self.answers(reads.into_iter().map(read).collect())
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, StoreError>> {
        Box::pin(async move {
            if self.flaw == Flaw::ChecksTheVersionOutsideTheLock {
                let known = self.lock().get(&commit.partition).and_then(|known| known.control.clone());
                tokio::task::yield_now().await;
                if known.map(|(version, _)| version) != commit.expected {
                    return Ok(CommitOutcome::Conflict);
                }
            }
            if self.flaw == Flaw::CommitsInTwoSteps {
                let (expected, version) = (commit.expected, commit.version);
                let first = Commit { items: vec![], ..commit.clone() };
                let outcome = self.commit_now(first);
                tokio::task::yield_now().await;
                if !matches!(outcome, Ok(CommitOutcome::Committed { .. })) || expected.is_none() {
                    return outcome;
                }
                return self.commit_now(Commit { expected: Some(version), ..commit });
            }
            self.commit_now(commit)
        })
    }

    fn delete_entries(
        &self,
        tokens: Vec<TokenRef>,
    ) -> BoxFuture<'_, Vec<Result<Option<SessionMark>, StoreError>>> {
        Box::pin(async move {
            let answers = tokens.into_iter().map(|token| {
                if self.flaw == Flaw::DeletesAfterTheAnswer {
                    // It never comes to it: the process ends between the answer and the deletion.
                    return self.refuse_foreign(&token).map(|()| None);
                }
                self.delete_now(&token)
            });
            self.answers(answers.collect())
        })
    }

    fn scan(&self, cursor: Option<ScanCursor>, limit: usize) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move {
            let partitions = self.lock();
            let after = cursor.map(|ScanCursor(key)| String::from_utf8_lossy(&key).into_owned());
            let rest = partitions.iter().filter(|(key, _)| Some(key.as_str()) > after.as_deref());
            let mut page = ScanPage::default();
            for (key, partition) in rest {
                if page.partitions.len() == limit {
                    let last = page.partitions.last().map(|last| last.partition.to_string());
                    page.next = last
                        .map(|key| ScanCursor(key.into()))
                        .filter(|_| self.flaw != Flaw::ScansOnlyOnePage);
                    break;
                }
                let is_flawed = self.flaw == Flaw::ScansCountDeletedEntries;
                let deleted = if is_flawed { &partition.deleted[..] } else { &[] };
                page.partitions.push(ScannedPartition {
                    partition: key.clone(),
                    control: partition.control.as_ref().map(|(_, control)| control.clone()),
                    entries: partition.entries.keys().copied().chain(deleted.iter().copied()).collect(),
                    records: partition.records.len() as u64,
                    items: partition.items.keys().cloned().collect(),
                });
            }
            Ok(page)
        })
    }

    fn expire(&self, now_ms: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut expired = 0;
            for partition in self.lock().values_mut() {
                let before: HashSet<_> = partition.records.keys().cloned().collect();
                partition.records.retain(|_, (_, at)| self.flaw != Flaw::ExpiresEverything && *at > now_ms);
                expired += (before.len() - partition.records.len()) as u64;
            }
            Ok(expired)
        })
    }
}
