//! A partition as a check sees it: a key that nobody else uses, the version it has, and short ways to commit, load, read
//! and delete that fail loudly when the store answers with an error. No check and no promise lives here.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::codec::encode_control;
use tollgate_proto::{
    AttemptId, Commit, CommitOutcome, ControlRecord, DeduplicationKey, EntryKey, EntryRead, Incarnation,
    ItemName, ItemValue, LoadRequest, LoadedPartition, PartitionKey, RecordWrite, Store, StoreError,
    TokenRef, Version,
};

/// A time at which no record of the checks has expired, but those that are meant to: 2026, in milliseconds.
pub(super) const NOW_MS: u64 = 1_780_000_000_000;

/// A time at which records of the checks don't expire: a year after [`NOW_MS`].
pub(super) const FAR_MS: u64 = NOW_MS + 365 * 24 * 60 * 60 * 1000;

/// One partition under test.
#[derive(Clone)]
pub struct Partition {
    /// The store by which it is seen.
    pub store: Arc<dyn Store>,
    /// Its key.
    pub key: PartitionKey,
    /// The version of the last commit that went through this value.
    pub version: Option<Version>,
}

impl Partition {
    /// A partition that does not exist yet; `name` shows up in its key.
    ///
    /// # Panics
    /// If the name is no name.
    pub fn fresh(store: &Arc<dyn Store>, name: &str) -> Self {
        Self::of_key(store, &format!("{name}-{:016x}", fastrand::u64(..)))
    }

    /// A partition of this very key.
    ///
    /// # Panics
    /// If it is no key.
    pub fn of_key(store: &Arc<dyn Store>, key: &str) -> Self {
        let key = PartitionKey::new(key).expect("checks use valid keys");
        Self { store: Arc::clone(store), key, version: None }
    }

    /// A commit that is conditional on the known version and changes nothing but the control record.
    pub fn next_commit(&self) -> Commit {
        let version = match self.version {
            Some(version) => version.next(),
            None => Version::first(Incarnation(fastrand::u64(..))),
        };
        self.commit_of(self.version, version)
    }

    /// A commit with these versions that changes nothing but the control record.
    pub fn commit_of(&self, expected: Option<Version>, version: Version) -> Commit {
        Commit {
            partition: self.key.clone(),
            expected,
            version,
            control: control_of(version),
            items: vec![],
            entries: vec![],
            deleted_entries: vec![],
            records: vec![],
            now_ms: NOW_MS,
        }
    }

    /// Commits whatever comes of it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn try_commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        self.store.commit(commit).await
    }

    /// Commits what must go through.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn commit(&mut self, commit: Commit) {
        let version = commit.version;
        let outcome = self.store.commit(commit).await;
        assert!(
            matches!(outcome, Ok(CommitOutcome::Committed { .. })),
            "a commit on partition {:?} with the right version was not committed: {outcome:?}",
            self.key
        );
        self.version = Some(version);
    }

    /// Commits these items and entries; the entries' keys are returned.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn put(&mut self, items: &[(&str, &[u8])], entries: &[&[u8]]) -> Vec<EntryKey> {
        let mut commit = self.next_commit();
        commit.items = items.iter().map(|(name, value)| (item_name(name), Some(binary(value)))).collect();
        commit.entries = entries_of(commit.version, entries);
        let keys = commit.entries.iter().map(|(key, _)| *key).collect();
        self.commit(commit).await;
        keys
    }

    /// Loads the control record, these items and these deduplication records.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn load(&self, items: &[&str], records: &[&str]) -> LoadedPartition {
        let request = LoadRequest {
            partition: self.key.clone(),
            items: items.iter().map(|name| item_name(name)).collect(),
            records: records.iter().map(|key| record_key(key)).collect(),
        };
        let mut answers = self.store.load(vec![request]).await;
        assert_eq!(answers.len(), 1, "one load request has one answer");
        answers.remove(0).expect("a load of a healthy store succeeds")
    }

    /// The bytes of one item.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn item(&self, name: &str) -> Option<Bytes> {
        let mut loaded = self.load(&[name], &[]).await;
        assert_eq!(loaded.items.len(), 1, "one item was asked for");
        let (answered, value) = loaded.items.remove(0);
        assert_eq!(answered, item_name(name), "the item asked for is the item answered");
        value.map(|value| value.bytes().clone())
    }

    /// The response in one deduplication record.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn response(&self, key: &str) -> Option<Bytes> {
        let mut loaded = self.load(&[], &[key]).await;
        assert_eq!(loaded.records.len(), 1, "one record was asked for");
        let (answered, response) = loaded.records.remove(0);
        assert_eq!(answered, record_key(key), "the record asked for is the record answered");
        response
    }

    /// The control record, which must be that of the known version.
    pub(super) async fn assert_version(&self) {
        let control = self.load(&[], &[]).await.control;
        assert_eq!(control, self.version.map(control_of), "the control record is that of the last commit");
    }

    /// The token that an entry is.
    pub fn token(&self, entry: EntryKey) -> TokenRef {
        TokenRef { store: self.store.alias().clone(), partition: self.key.clone(), entry }
    }

    pub(super) fn read_of(&self, entry: EntryKey) -> EntryRead {
        EntryRead { token: self.token(entry), sessions: vec![] }
    }

    /// The bytes of one entry.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn entry(&self, key: EntryKey) -> Option<Bytes> {
        let mut answers = self.store.read_entries(vec![self.read_of(key)]).await;
        assert_eq!(answers.len(), 1, "one read has one answer");
        answers.remove(0).expect("a token read of a healthy store succeeds")
    }

    /// Deletes one entry.
    ///
    /// # Panics
    /// If the store breaks a promise.
    pub async fn delete(&self, key: EntryKey) {
        let answers = self.store.delete_entries(vec![self.token(key)]).await;
        assert_eq!(answers.len(), 1, "one deletion has one answer");
        assert!(answers[0].is_ok(), "the deletion of an entry succeeds: {answers:?}");
    }
}

/// The control record that a commit of the checks writes with this version.
pub(super) fn control_of(version: Version) -> Bytes {
    encode_control(&ControlRecord {
        version,
        attempt: AttemptId::new(version.sequence().incarnation.0, version.sequence().counter),
        pending: vec![],
        registrations: vec![],
        sessions: vec![],
    })
}

/// Outbox entries of the commit that writes this version, counted from 0.
pub(super) fn entries_of(version: Version, bodies: &[&[u8]]) -> Vec<(EntryKey, Bytes)> {
    let key = |index| EntryKey { sequence: version.sequence(), index };
    (0..).zip(bodies).map(|(index, body)| (key(index), Bytes::copy_from_slice(body))).collect()
}

pub(super) fn item_name(name: &str) -> ItemName {
    ItemName::new(name).expect("checks use valid names")
}

pub(super) fn record_key(key: &str) -> DeduplicationKey {
    DeduplicationKey::new(key).expect("checks use valid keys")
}

pub(super) fn binary(value: &[u8]) -> ItemValue {
    ItemValue::Binary(Bytes::copy_from_slice(value))
}

pub(super) fn record(key: &str, response: &[u8], expires_at_ms: u64) -> RecordWrite {
    RecordWrite { key: record_key(key), response: Bytes::copy_from_slice(response), expires_at_ms }
}
