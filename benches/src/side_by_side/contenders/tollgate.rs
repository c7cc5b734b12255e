//! Tollgate itself, as a user would write it: one endpoint, one handler, the default settings but for what a variant is about. The
//! variants show what each of its parts is worth.
//!
//! Source: this repository.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate::proto::BoxFuture;
use tollgate::proto::{
    AttemptId, Audience, Body, Broker, Commit, CommitOutcome, Content, Destination, EndpointName, EntryKey,
    Envelope, Incarnation, ItemName, LoadRequest, MessageId, OutboxEntry, PartitionKey, Store, TokenRef,
    Version, codec, control_record::ControlRecord,
};
use tollgate::{Deduplicate, Endpoint, Gate, HandlerError, Message, Tx};

use crate::side_by_side::BenchError;
use crate::side_by_side::backing::{self, StoreBacking};
use crate::side_by_side::contender::{Contender, Left, Reported, Running, Stage};
use crate::side_by_side::metered_store::MeteredStore;
use crate::side_by_side::plan::{Account, Hop, Plan, name};
use crate::side_by_side::queue::QueueBroker;

/// A variant.
pub struct Tollgate {
    name: &'static str,
    title: &'static str,
    variant: Variant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Token,
    Unfolded,
    Cold,
    Forgetful,
    Identity,
}

/// By token, with the default settings: warm, and folded where messages of one partition meet.
pub const TOKEN: Tollgate =
    Tollgate { name: "tollgate", title: "Tollgate by token", variant: Variant::Token };
/// The same, one message a commit.
pub const UNFOLDED: Tollgate = Tollgate {
    name: "tollgate-unfolded",
    title: "Tollgate by token, one message a commit",
    variant: Variant::Unfolded,
};
/// The same without a cache of partitions: each message loads its own.
pub const COLD: Tollgate =
    Tollgate { name: "tollgate-cold", title: "Tollgate by token, nothing cached", variant: Variant::Cold };
/// The same without a memory for consumed tokens: the store is asked about each copy. The smallest memory holds two.
pub const FORGETFUL: Tollgate = Tollgate {
    name: "tollgate-forgetful",
    title: "Tollgate by token, no negative cache",
    variant: Variant::Forgetful,
};
/// By message id, for producers that know no tokens.
pub const IDENTITY: Tollgate =
    Tollgate { name: "tollgate-identity", title: "Tollgate by identity, 7 days", variant: Variant::Identity };

/// The endpoint of all messages.
const ENDPOINT: &str = "bench";
/// The item that holds the account.
const ACCOUNT: &str = "account";
/// Outgoing messages in one commit of an imagined sender: few, as in life.
const SENT_TOGETHER: usize = 4;
/// How long ids are remembered.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Partitions in one load of the audit.
const AUDIT_BATCH: usize = 100;

impl Contender for Tollgate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn source(&self) -> &'static str {
        "this repository"
    }

    fn open(&self, stage: Stage) -> BoxFuture<'static, Result<Box<dyn Running>, BenchError>> {
        let (name, variant) = (self.name, self.variant);
        Box::pin(async move {
            let backing = backing::store(name, &stage).await?;
            let network = Arc::clone(&stage.network);
            let store =
                Arc::new(MeteredStore::new(Arc::clone(&backing.store), network, stage.scenario.deletions));
            let broker: Arc<dyn Broker> = Arc::new(QueueBroker(Arc::clone(&stage.queue)));
            let endpoint = endpoint(variant, Arc::clone(&stage.plan));
            let gate = Gate::builder()
                .store(Arc::clone(&store) as Arc<dyn Store>)
                .broker(broker)
                .sweep_every(None)
                .endpoint(endpoint.preload(ACCOUNT).concurrency(stage.scenario.in_flight));
            let gate = match variant {
                Variant::Token | Variant::Identity => gate,
                Variant::Unfolded => gate.fold_max(1),
                Variant::Cold => gate.cache_bytes(0),
                Variant::Forgetful => gate.consumed_tokens(0),
            };
            let gate = gate.open().await.map_err(|error| failed(name, &error))?;
            Ok(Box::new(AtWork { name, variant, stage, store, backing, gate: Some(gate) })
                as Box<dyn Running>)
        })
    }
}

fn failed(contender: &'static str, reason: &dyn ToString) -> BenchError {
    BenchError::Contender { contender, reason: reason.to_string() }
}

fn endpoint(variant: Variant, plan: Arc<Plan>) -> Endpoint {
    let endpoint = Endpoint::new(ENDPOINT);
    if variant == Variant::Identity {
        let retention = Deduplicate::ByIdentity { retention: RETENTION };
        return endpoint.on_tokenless::<Hop, _, _>(retention, move |tx, hop| {
            handle(tx, hop, Arc::clone(&plan), variant)
        });
    }
    endpoint.on::<Hop, _, _>(move |tx, hop| handle(tx, hop, Arc::clone(&plan), variant))
}

async fn handle(tx: Tx, hop: Hop, plan: Arc<Plan>, variant: Variant) -> Result<(), HandlerError> {
    let mut account: Account = tx.get(ACCOUNT).await?.unwrap_or_default();
    let outputs = plan.handle(&mut account, &hop);
    tx.put(ACCOUNT, &account)?;
    for output in outputs {
        let destination = plan.destination(output.number);
        match variant {
            // So that its receiver is handed a message without a token, as from any other producer.
            Variant::Identity => tx.send_external(ENDPOINT, &destination, &output)?,
            _ => tx.send(ENDPOINT, &destination, &output)?,
        };
    }
    Ok(())
}

struct AtWork {
    name: &'static str,
    variant: Variant,
    stage: Stage,
    store: Arc<MeteredStore>,
    backing: StoreBacking,
    gate: Option<Gate>,
}

fn destination(plan: &Plan, hop: &Hop) -> Destination {
    Destination {
        endpoint: EndpointName::new(ENDPOINT).expect("a constant that is a name"),
        partition: PartitionKey::new(plan.destination(hop.number))
            .expect("a plan's partitions have short names"),
    }
}

fn body(hop: &Hop) -> Bytes {
    serde_json::to_vec(hop).expect("a message has text keys only").into()
}

impl AtWork {
    fn without_token(&self, hop: &Hop) -> Bytes {
        let envelope = Envelope {
            message_id: MessageId::from_name(ENDPOINT, &hop.number.to_string()),
            to: destination(&self.stage.plan, hop),
            message_type: Hop::TYPE.try_into().expect("a constant that is a name"),
            headers: Vec::new(),
            content: Content::Body(body(hop)),
        };
        codec::encode_envelope(&envelope)
    }

    /// Commits the entries of some messages in a partition of an imagined sender. Returns their envelopes.
    async fn commit_entries(&self, hops: &[Hop]) -> Result<Vec<Bytes>, BenchError> {
        let first = hops.first().map_or(0, |hop| hop.number);
        let sender = PartitionKey::new(format!("sender/{first}")).expect("a short name");
        let version = Version::first(Incarnation(first + 1));
        let control = ControlRecord {
            version,
            attempt: AttemptId::new(0, first),
            pending: Vec::new(),
            registrations: Vec::new(),
            sessions: Vec::new(),
        };
        let mut commit = Commit {
            partition: sender.clone(),
            expected: None,
            version,
            control: codec::encode_control(&control),
            items: Vec::new(),
            entries: Vec::new(),
            deleted_entries: Vec::new(),
            records: Vec::new(),
            now_ms: 0,
        };
        let entries: Vec<OutboxEntry> = hops
            .iter()
            .map(|hop| OutboxEntry {
                message_id: MessageId::from_name(ENDPOINT, &hop.number.to_string()),
                to: destination(&self.stage.plan, hop),
                message_type: Hop::TYPE.try_into().expect("a constant that is a name"),
                headers: Vec::new(),
                body: Body::Inline(body(hop)),
                audience: Audience::Tollgate,
                effects: Vec::new(),
            })
            .collect();
        let number = |first: u32| {
            let mut numbered = Vec::with_capacity(entries.len());
            for (index, entry) in (first..).zip(&entries) {
                numbered.push((EntryKey { sequence: version.sequence(), index }, codec::encode_entry(entry)));
            }
            numbered
        };
        commit.entries = number(0);
        let placement = self.store.placement(&commit);
        commit.entries = number(placement.first_index());
        let keys: Vec<EntryKey> = commit.entries.iter().map(|(key, _)| *key).collect();
        let read_after = match self.store.seed(commit).await.map_err(|error| failed(self.name, &error))? {
            CommitOutcome::Committed { session } => session,
            other => return Err(failed(self.name, &format!("the store is not empty: {other:?}"))),
        };
        let envelope = |(key, entry): (EntryKey, &OutboxEntry)| {
            let token = TokenRef { store: self.store.alias().clone(), partition: sender.clone(), entry: key };
            codec::encode_envelope(&entry.envelope(token, read_after.clone()))
        };
        Ok(keys.into_iter().zip(&entries).map(envelope).collect())
    }
}

impl Running for AtWork {
    fn admit(&self, hops: Vec<Hop>) -> BoxFuture<'_, Result<Vec<Bytes>, BenchError>> {
        Box::pin(async move {
            if self.variant == Variant::Identity {
                return Ok(hops.iter().map(|hop| self.without_token(hop)).collect());
            }
            let mut envelopes = Vec::with_capacity(hops.len());
            for some in hops.chunks(SENT_TOGETHER) {
                envelopes.extend(self.commit_entries(some).await?);
            }
            Ok(envelopes)
        })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BenchError>> {
        Box::pin(async move {
            if let Some(gate) = self.gate.take() {
                gate.close().await;
            }
            Ok(())
        })
    }

    fn reported(&self) -> Reported {
        self.backing.reported()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Left, BenchError>> {
        Box::pin(async move {
            let (bytes, deduplication_bytes) = self.store.bytes();
            let mut left = Left { bytes, deduplication_bytes, ..Left::default() };
            let item = ItemName::new(ACCOUNT).expect("a constant that is a name");
            let partitions: Vec<u64> = (0..self.stage.scenario.partitions).collect();
            for some in partitions.chunks(AUDIT_BATCH) {
                let request = |number: &u64| LoadRequest {
                    partition: PartitionKey::new(name(*number))
                        .expect("a plan's partitions have short names"),
                    items: vec![item.clone()],
                    records: Vec::new(),
                };
                let answers = self.backing.store.load(some.iter().map(request).collect()).await;
                for (number, answer) in some.iter().zip(answers) {
                    let loaded = answer.map_err(|error| failed(self.name, &error))?;
                    let Some(value) = loaded.items.into_iter().find_map(|(_, value)| value) else { continue };
                    let account =
                        serde_json::from_slice(value.bytes()).map_err(|error| failed(self.name, &error))?;
                    left.accounts.push((name(*number), account));
                }
            }
            Ok(left)
        })
    }
}
