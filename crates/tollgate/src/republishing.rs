//! Republication: sends the envelope of every outbox entry that exists, for queues that have lost messages
//! and stores that were restored. A token's existence is the right to process its message, so sending it once
//! more is safe at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tollgate_proto::{
    Audience, DeduplicationId, EntryKey, EntryRead, LoadRequest, OutboxEntry, PartitionKey, Publication,
    SessionMark, StoreError, TokenRef, codec,
};

use crate::engine::Engine;
use crate::store_client::StoreClient;

/// Most tokens that are remembered between the look that finds them and the one that sends them, about 100
/// bytes each.
const TOKENS_MAX: usize = 100_000;
/// Most partitions in one page of the scan.
const PAGE: usize = 512;
/// Most partitions whose entries are read and sent at a time.
const PARTITIONS_AT_A_TIME: usize = 64;

/// Counts of a republication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Republished {
    /// Messages that the broker took.
    pub sent: u64,
    /// Messages that could not be read or sent, whose reasons are logged. Their tokens stay.
    pub failed: u64,
}

/// Outbox entries of one store, by partition.
type Tokens = BTreeMap<PartitionKey, Vec<EntryKey>>;

impl Engine {
    /// Sends every entry that existed `older_than` ago and still does. A failing store does not stop the
    /// others.
    pub(crate) async fn republish(&self, older_than: Duration) -> Result<Republished, StoreError> {
        let mut republished = Republished::default();
        let mut first_error = None;
        for client in &self.stores {
            if let Err(error) = self.republish_store(client, older_than, &mut republished).await {
                tracing::error!(store = %client.alias(), %error, "republication of a store broken off");
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(republished), Err)
    }

    async fn republish_store(
        &self,
        client: &StoreClient,
        older_than: Duration,
        republished: &mut Republished,
    ) -> Result<(), StoreError> {
        let mut cursor = None;
        loop {
            let mut tokens = Tokens::new();
            let mut count = 0;
            loop {
                let page = client.store().survey(cursor, PAGE).await?;
                for scanned in page.partitions.into_iter().filter(|scanned| !scanned.entries.is_empty()) {
                    count += scanned.entries.len();
                    tokens.entry(scanned.partition).or_default().extend(scanned.entries);
                }
                cursor = page.next;
                if cursor.is_none() || count >= TOKENS_MAX {
                    break;
                }
            }
            // An entry has no time of its own: it is old enough if it outlives the pause.
            if count > 0 && !older_than.is_zero() {
                self.tasks.runtime().sleep(older_than).await;
            }
            let partitions = futures_util::stream::iter(tokens);
            let mut sending = partitions
                .map(|(partition, keys)| self.republish_partition(client, partition, keys))
                .buffer_unordered(PARTITIONS_AT_A_TIME);
            while let Some(one) = sending.next().await {
                republished.sent += one.sent;
                republished.failed += one.failed;
            }
            drop(sending);
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn republish_partition(
        &self,
        client: &StoreClient,
        partition: PartitionKey,
        keys: Vec<EntryKey>,
    ) -> Republished {
        let mut republished = Republished::default();
        let mut failed = |entries: usize, reason: String| {
            republished.failed += entries as u64;
            tracing::warn!(%partition, entries, reason, "outbox entries not republished; their tokens stay");
        };
        let mut publications = Vec::new();
        match self.mark_covering(client, &partition, &keys).await {
            Err(reason) => failed(keys.len(), reason),
            Ok(mark) => {
                let token =
                    |entry| TokenRef { store: client.alias().clone(), partition: partition.clone(), entry };
                let reads = keys
                    .iter()
                    .map(|key| EntryRead { token: token(*key), sessions: mark.iter().cloned().collect() });
                let answers = client.read_entries(reads.collect()).await;
                for (key, answer) in keys.iter().zip(answers) {
                    match self.publication_of(token(*key), mark.clone(), answer).await {
                        Ok(publication) => publications.extend(publication),
                        Err(reason) => failed(1, reason),
                    }
                }
            }
        }
        for answer in self.broker.publish(publications).await {
            match answer {
                Ok(()) => republished.sent += 1,
                Err(error) => {
                    republished.failed += 1;
                    tracing::warn!(%partition, %error, "outbox entry not republished; its token stays");
                }
            }
        }
        republished
    }

    /// The session mark that a read of these entries must present. `None`: the store has no marks.
    ///
    /// A replica that does not show an entry yet would make its message look consumed, and lose it. The mark
    /// of a load covers an entry if the control record that it showed is not older than the entry.
    async fn mark_covering(
        &self,
        client: &StoreClient,
        partition: &PartitionKey,
        keys: &[EntryKey],
    ) -> Result<Option<SessionMark>, String> {
        let request = LoadRequest { partition: partition.clone(), items: Vec::new(), records: Vec::new() };
        let loaded = client.load(request).await.map_err(|error| error.to_string())?;
        let Some(session) = loaded.session else { return Ok(None) };
        let control = loaded.control.ok_or("its partition has no control record")?;
        let control = codec::decode_control(&control).map_err(|error| error.to_string())?;
        let seen = control.version.sequence();
        let covers = |key: &EntryKey| {
            key.sequence.incarnation == seen.incarnation && key.sequence.counter <= seen.counter
        };
        if keys.iter().all(covers) {
            return Ok(Some(session));
        }
        Err("its partition was read as it was before the entry".to_owned())
    }

    /// The publication of an entry that was read, its side effects made to happen first. `None`: there is
    /// none to send.
    async fn publication_of(
        &self,
        token: TokenRef,
        mark: Option<SessionMark>,
        answer: Result<Option<Bytes>, StoreError>,
    ) -> Result<Option<Publication>, String> {
        let Some(bytes) = answer.map_err(|error| error.to_string())? else { return Ok(None) };
        let entry: OutboxEntry = codec::decode_entry(&bytes).map_err(|error| error.to_string())?;
        if entry.audience != Audience::Tollgate {
            // Its sender deletes it once it is sent, so its pending entry is there, and a visit sends it.
            return Ok(None);
        }
        for published in self.effects.publish_all(entry.effects.clone()).await {
            published.map_err(|given_up| given_up.reason)?;
        }
        // The copy that a broker remembers has left its queue.
        let deduplication_id = DeduplicationId::of_token(&token).renewed(self.tasks.runtime().random());
        Ok(Some(Publication { envelope: entry.envelope(token, mark), deduplication_id }))
    }
}
