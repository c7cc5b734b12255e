//! What store, broker and blob storage of a world do when they are asked: the effects, without any fault. Faults are
//! decided by whoever asks.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::{
    Audience, Body, Commit, CommitOutcome, DeduplicationId, EntryRead, LoadRequest, LoadedPartition,
    OutboxEntry, Publication, SessionMark, StoreAlias, TokenRef, codec,
};

use super::mutant::{DriverMutation, Mutant};
use super::scene::{Contents, Scene};
use super::world::{Consistency, Publications, World};

/// Copies of one message in the broker beyond this make no difference that is worth the states.
const COPIES_MAX: u8 = 2;

/// Which state of a partition a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The newest.
    Current,
    /// A replica's, which lags behind.
    Stale,
}

impl World {
    /// The alias of the only store.
    pub(super) fn store() -> StoreAlias {
        StoreAlias::new("main").expect("the constant is a valid alias")
    }

    pub(super) fn has(&self, mutation: DriverMutation) -> bool {
        self.mutant == Some(Mutant::Driver(mutation))
    }

    pub(super) fn index_of(&self, partition: &tollgate_proto::PartitionKey) -> usize {
        // The senders' partition stands behind the others.
        self.partitions.iter().position(|known| known == partition).unwrap_or(self.partitions.len())
    }

    pub(super) fn load(&self, scene: &Scene, request: &LoadRequest, freshness: Freshness) -> LoadedPartition {
        let index = self.index_of(&request.partition);
        let partition = &scene.partitions[index];
        let contents = match freshness {
            Freshness::Current => &partition.contents,
            Freshness::Stale => partition.replica.as_ref().unwrap_or(&partition.contents),
        };
        LoadedPartition {
            control: contents.control.clone(),
            items: request
                .items
                .iter()
                .map(|name| (name.clone(), contents.items.get(name).cloned()))
                .collect(),
            records: request
                .records
                .iter()
                .map(|key| (key.clone(), contents.records.get(key).cloned()))
                .collect(),
            session: self.mark(&request.partition, contents),
        }
    }

    pub(super) fn read(&self, scene: &Scene, read: &EntryRead, freshness: Freshness) -> Option<Bytes> {
        let partition = &scene.partitions[self.index_of(&read.token.partition)];
        let shown = read
            .sessions
            .iter()
            .filter(|mark| mark.scope == read.token.partition.as_str())
            .map(|mark| mark.position)
            .max()
            .unwrap_or(0);
        let contents = match (freshness, &partition.replica) {
            (Freshness::Stale, Some(replica))
                if replica.writes >= shown || self.has(DriverMutation::IgnoresSessionMarks) =>
            {
                replica
            }
            _ => &partition.contents,
        };
        contents.entries.get(&read.token.entry).cloned()
    }

    /// Applies a commit, or not.
    pub(super) fn commit(&self, scene: &mut Scene, commit: &Commit) -> CommitOutcome {
        let index = self.index_of(&commit.partition);
        let partition = Arc::make_mut(&mut scene.partitions[index]);
        let version = partition.contents.record().map(|control| control.version);
        if version != commit.expected && !self.has(DriverMutation::ForgetsVersionCondition) {
            if self.has(DriverMutation::StoresEntriesOfFailedCommits) {
                let contents = Arc::make_mut(&mut partition.contents);
                contents.entries.extend(commit.entries.iter().cloned());
            }
            return CommitOutcome::Conflict;
        }
        let keys = commit.records.iter().map(|record| record.key.clone());
        let existing: Vec<_> = keys.filter(|key| partition.contents.records.contains_key(key)).collect();
        if !existing.is_empty() && !self.has(DriverMutation::IgnoresDeduplicationRecords) {
            return CommitOutcome::RecordsExist(existing);
        }
        let contents = Arc::make_mut(&mut partition.contents);
        contents.control = Some(commit.control.clone());
        for (name, value) in &commit.items {
            match value {
                Some(value) => contents.items.insert(name.clone(), value.clone()),
                None => contents.items.remove(name),
            };
        }
        contents.entries.extend(commit.entries.iter().cloned());
        let records = commit.records.iter().map(|record| (record.key.clone(), record.response.clone()));
        contents.records.extend(records);
        partition.created.extend(commit.entries.iter().map(|(key, _)| *key));
        self.wrote(contents);
        let session = self.mark(&commit.partition, contents);
        if scene.outside.under_way.iter().any(|late| late.partition == commit.partition) {
            // Versions never come back: what expects an earlier one can't arrive any more.
            let outside = Arc::make_mut(&mut scene.outside);
            outside.under_way.retain(|late| late.partition != commit.partition);
        }
        CommitOutcome::Committed { session }
    }

    /// Deletes an entry; answers what a store with sessions would.
    pub(super) fn delete(&self, scene: &mut Scene, token: &TokenRef) -> Option<SessionMark> {
        let index = self.index_of(&token.partition);
        let partition = Arc::make_mut(&mut scene.partitions[index]);
        if partition.contents.entries.contains_key(&token.entry) {
            let contents = Arc::make_mut(&mut partition.contents);
            if !self.has(DriverMutation::LosesDeletions) {
                contents.entries.remove(&token.entry);
            }
            self.wrote(contents);
        }
        self.mark(&token.partition, &partition.contents)
    }

    fn wrote(&self, contents: &mut Contents) {
        if self.consistency == Consistency::Session {
            contents.writes += 1;
        }
    }

    fn mark(&self, partition: &tollgate_proto::PartitionKey, contents: &Contents) -> Option<SessionMark> {
        (self.consistency == Consistency::Session).then(|| SessionMark {
            store: Self::store(),
            scope: partition.as_str().to_owned(),
            position: contents.writes,
            token: contents.writes.to_string(),
        })
    }

    /// Gives a publication to the broker. An error tells what is wrong with its being sent at all.
    pub(super) fn send(&self, scene: &mut Scene, publication: &Publication) -> Result<(), String> {
        let Publication { envelope, deduplication_id } = publication;
        if let Some(token) = envelope.token() {
            let sender = &scene.partitions[self.index_of(&token.partition)];
            if !sender.created.contains(&token.entry) {
                return Err(format!(
                    "a ghost: message {} was sent, and no commit has sent it",
                    envelope.message_id
                ));
            }
            // What a natural handler sends is another message each time it runs, under the same id.
            if !self.is_sent_anew(envelope.message_id) {
                Self::publish_once(scene, envelope.message_id, token)?;
            }
        }
        if self.publications == Publications::KnownDropped
            && !Arc::make_mut(&mut scene.broker).known.insert(*deduplication_id)
        {
            return Ok(());
        }
        if envelope.to.endpoint.as_str() == EXTERNAL {
            Arc::make_mut(&mut scene.outside).external.insert(envelope.message_id);
            return Ok(());
        }
        let copies =
            Arc::make_mut(&mut scene.broker).available.entry(codec::encode_envelope(envelope)).or_default();
        *copies = COPIES_MAX.max(self.copies).min(*copies + 1);
        Ok(())
    }

    fn publish_once(
        scene: &mut Scene,
        message_id: tollgate_proto::MessageId,
        token: &TokenRef,
    ) -> Result<(), String> {
        match scene.outside.published.get(&message_id) {
            Some(known) if known == token => Ok(()),
            Some(known) => Err(format!(
                "effects of two attempts: message {message_id} was published with token {known} and with {token}"
            )),
            None => {
                Arc::make_mut(&mut scene.outside).published.insert(message_id, token.clone());
                Ok(())
            }
        }
    }

    /// Puts back entries that are gone: what [`DriverMutation::RecreatesEntries`] does.
    pub(super) fn recreate(&self, scene: &mut Scene, token: &TokenRef, entry: &OutboxEntry) {
        let index = self.index_of(&token.partition);
        let partition = Arc::make_mut(&mut scene.partitions[index]);
        let contents = Arc::make_mut(&mut partition.contents);
        contents.entries.insert(token.entry, codec::encode_entry(entry));
    }

    /// What [`DriverMutation::PublishesBeforeCommit`] does.
    pub(super) fn publish_now(&self, scene: &mut Scene, commit: &Commit) -> Result<(), String> {
        for (key, bytes) in &commit.entries {
            let entry = codec::decode_entry(bytes).expect("only the machine writes entries");
            let token = TokenRef { store: Self::store(), partition: commit.partition.clone(), entry: *key };
            let deduplication_id = DeduplicationId::of_token(&token);
            let publication = Publication { envelope: entry.envelope(token, None), deduplication_id };
            self.check_sent(scene, entry.message_id)?;
            self.send(scene, &publication)?;
        }
        Ok(())
    }

    /// The entry that once lay at `token`: its message is the one that the partition's commits have sent.
    pub(super) fn entry_of_output(&self, token: &TokenRef, scene: &Scene) -> Option<OutboxEntry> {
        let sent = self.scripts.iter().flat_map(|script| &script.sends).next()?;
        let message_id = *scene.outside.published.iter().find(|(_, known)| *known == token)?.0;
        Some(OutboxEntry {
            message_id,
            to: self.destination(*sent),
            message_type: Self::message_type(),
            headers: Vec::new(),
            body: Body::Inline(Bytes::from(sent.to_string())),
            audience: Audience::Tollgate,
            effects: Vec::new(),
        })
    }
}

/// The endpoint of outsiders.
pub(super) const EXTERNAL: &str = "external";
