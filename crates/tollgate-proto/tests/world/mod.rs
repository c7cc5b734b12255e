//! A world small enough to be read in a minute: one store and one broker as plain maps, and drivers that run the machine
//! against them in a straight line. Stories interfere by doing something between two steps.

#![allow(dead_code, reason = "each story book uses its own part")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tollgate_proto::completion::{Completion, CompletionReport, CompletionStep};
use tollgate_proto::marks::Marks;
use tollgate_proto::partition_view::PartitionView;
use tollgate_proto::processing::{
    Disposition, Failure, HandleStep, Incoming, Lookup, Maintenance, Processing, Settled, Step, Tokenless,
    Work,
};
use tollgate_proto::unit_of_work::Outgoing;
use tollgate_proto::{
    AttemptId, Audience, Body, Commit, CommitOutcome, ControlRecord, DeduplicationKey, Destination,
    EffectName, EntryKey, Envelope, Incarnation, ItemName, ItemValue, LoadedPartition, MessageId,
    OutboxEntry, PartitionKey, StoreAlias, StoreError, StoreLimits, TokenRef, codec,
};

#[derive(Clone, Default)]
pub struct Partition {
    pub control: Option<Bytes>,
    pub items: BTreeMap<ItemName, ItemValue>,
    pub entries: BTreeMap<EntryKey, Bytes>,
    pub records: BTreeMap<DeduplicationKey, Bytes>,
}

#[derive(Clone, Default)]
pub struct World {
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// What the broker has been given, in order.
    pub sent: Vec<Envelope>,
    pub blobs: BTreeSet<EffectName>,
    pub published: Vec<EffectName>,
    pub attempts: u64,
    pub now_ms: u64,
    /// Whether the broker can be reached.
    pub broker_is_down: bool,
}

/// One process: what it remembers of the partition `P`.
#[derive(Clone, Default)]
pub struct Process {
    pub view: Option<PartitionView>,
    pub marks: Marks,
}

pub fn store() -> StoreAlias {
    StoreAlias::new("main").unwrap()
}

pub fn partition() -> PartitionKey {
    PartitionKey::new("P").unwrap()
}

pub fn item() -> ItemName {
    ItemName::new("count").unwrap()
}

pub fn destination() -> Destination {
    Destination { endpoint: "counter".try_into().unwrap(), partition: partition() }
}

impl World {
    /// A sender's partition with one outbox entry for `P` for each body, and the envelopes that announce them.
    pub fn with_messages(bodies: &[&str]) -> (Self, Vec<Envelope>) {
        let mut world = Self::default();
        let sender = PartitionKey::new("sender").unwrap();
        let sequence = tollgate_proto::Version::first(Incarnation(1)).sequence();
        let mut envelopes = Vec::new();
        for (index, body) in (0u32..).zip(bodies) {
            let entry = OutboxEntry {
                message_id: MessageId::from_name("test", &index.to_string()),
                to: destination(),
                message_type: "add".try_into().unwrap(),
                headers: vec![],
                body: Body::Inline(Bytes::copy_from_slice(body.as_bytes())),
                audience: Audience::Tollgate,
                effects: vec![],
            };
            let key = EntryKey { sequence, index };
            let token = TokenRef { store: store(), partition: sender.clone(), entry: key };
            envelopes.push(entry.envelope(token, None));
            let partition = world.partitions.entry(sender.clone()).or_default();
            partition.entries.insert(key, codec::encode_entry(&entry));
        }
        (world, envelopes)
    }

    pub fn control(&self) -> Option<ControlRecord> {
        let control = self.partitions.get(&partition())?.control.as_ref()?;
        Some(codec::decode_control(control).unwrap())
    }

    pub fn count(&self) -> u64 {
        let value = self.partitions.get(&partition()).and_then(|partition| partition.items.get(&item()));
        value.map_or(0, |value| std::str::from_utf8(value.bytes()).unwrap().parse().unwrap())
    }

    pub fn entry_count(&self) -> usize {
        self.partitions.values().map(|partition| partition.entries.len()).sum()
    }

    pub fn work(&mut self, process: &Process, messages: Vec<Incoming>) -> Work {
        self.attempts += 1;
        Work {
            messages,
            view: process.view.clone(),
            marks: process.marks.clone(),
            preload: vec![item()],
            now_ms: self.now_ms,
            ..Work::on(store(), partition(), AttemptId::new(1, self.attempts), Incarnation(self.attempts))
        }
    }

    pub fn load(&self, request: &tollgate_proto::LoadRequest) -> LoadedPartition {
        let partition = self.partitions.get(&request.partition).cloned().unwrap_or_default();
        LoadedPartition {
            control: partition.control,
            items: request
                .items
                .iter()
                .map(|name| (name.clone(), partition.items.get(name).cloned()))
                .collect(),
            records: request
                .records
                .iter()
                .map(|key| (key.clone(), partition.records.get(key).cloned()))
                .collect(),
            session: None,
        }
    }

    pub fn read(&self, token: &TokenRef) -> Option<Bytes> {
        self.partitions.get(&token.partition)?.entries.get(&token.entry).cloned()
    }

    pub fn commit(&mut self, commit: Commit) -> CommitOutcome {
        let partition = self.partitions.entry(commit.partition).or_default();
        let version =
            partition.control.as_ref().map(|control| codec::decode_control(control).unwrap().version);
        if version != commit.expected {
            return CommitOutcome::Conflict;
        }
        let keys = commit.records.iter().map(|record| record.key.clone());
        let existing: Vec<_> = keys.filter(|key| partition.records.contains_key(key)).collect();
        if !existing.is_empty() {
            return CommitOutcome::RecordsExist(existing);
        }
        partition.control = Some(commit.control);
        for (name, value) in commit.items {
            match value {
                Some(value) => partition.items.insert(name, value),
                None => partition.items.remove(&name),
            };
        }
        partition.entries.extend(commit.entries);
        partition.records.extend(commit.records.into_iter().map(|record| (record.key, record.response)));
        CommitOutcome::Committed { session: None }
    }

    pub fn consume(&mut self, token: &TokenRef) {
        if let Some(partition) = self.partitions.get_mut(&token.partition) {
            partition.entries.remove(&token.entry);
        }
    }

    /// Does what one step asks for, without faults. Settled steps come back as they are.
    pub fn advance(&mut self, process: &mut Process, step: Step) -> Step {
        match step {
            Step::Load(load) => {
                let loaded = self.load(&load.request());
                load.answer(Ok(loaded))
            }
            Step::Recover(recover) => {
                let (recovering, completion) = recover.start();
                let report = self.complete(process, completion);
                recovering.answer(report)
            }
            Step::ReadTokens(read) => {
                let answers = read.requests().iter().map(|request| Ok(self.read(&request.token))).collect();
                read.answer(answers)
            }
            Step::Handle(handle) => add(handle),
            Step::WakeUp(wake_up) => {
                self.sent.push(wake_up.publication().envelope);
                wake_up.answer(Ok(()))
            }
            Step::Commit(commit) => {
                let outcome = self.commit(commit.request());
                commit.answer(Ok(outcome))
            }
            Step::Settled(settled) => Step::Settled(settled),
        }
    }

    /// Runs on until the machine has settled, and takes down what it says.
    pub fn settle(&mut self, process: &mut Process, mut step: Step) -> Settled {
        loop {
            match step {
                Step::Settled(settled) => {
                    process.view.clone_from(&settled.view);
                    process.marks.clone_from(&settled.marks);
                    return settled;
                }
                other => step = self.advance(process, other),
            }
        }
    }

    /// Processes messages from the first step to the last, without faults.
    pub fn process(&mut self, process: &mut Process, messages: Vec<Incoming>) -> Vec<Disposition> {
        let work = self.work(process, messages);
        let settled = self.settle(process, Processing::begin(work));
        if let Some(completion) = settled.completion {
            self.complete(process, completion);
        }
        settled.dispositions
    }

    pub fn complete(&mut self, process: &mut Process, completion: Completion) -> CompletionReport {
        let mut step = completion.begin();
        loop {
            step = match step {
                CompletionStep::Done(report) => {
                    process.marks.add(report.marks.clone());
                    return report;
                }
                other => self.advance_completion(other),
            }
        }
    }

    pub fn advance_completion(&mut self, step: CompletionStep) -> CompletionStep {
        match step {
            CompletionStep::ReadOutputs(read) => {
                let answers = read.requests().iter().map(|request| Ok(self.read(&request.token))).collect();
                read.answer(answers)
            }
            CompletionStep::PublishEffects(publish) => {
                let published: Vec<_> = publish.effects().map(|effect| effect.name.clone()).collect();
                let answers = published.iter().map(|_| Ok(())).collect();
                self.published.extend(published);
                publish.answer(answers)
            }
            CompletionStep::Publish(publish) => {
                let publications = publish.publications();
                if self.broker_is_down {
                    return publish.answer(publications.iter().map(|_| Err("broker down".into())).collect());
                }
                let answers = publications.iter().map(|_| Ok(())).collect();
                self.sent.extend(publications.into_iter().map(|publication| publication.envelope));
                publish.answer(answers)
            }
            CompletionStep::CleanUp(clean_up) => {
                for effect in clean_up.clean_ups() {
                    self.blobs.remove(&effect.registration.name);
                }
                let answers = clean_up.clean_ups().iter().map(|_| Ok(())).collect();
                clean_up.answer(answers)
            }
            CompletionStep::Release(release) => {
                let released: Vec<_> = release.effects().map(|effect| effect.name.clone()).collect();
                for name in &released {
                    self.blobs.remove(name);
                }
                release.answer(released.iter().map(|_| Ok(())).collect())
            }
            CompletionStep::Consume(consume) => {
                let tokens = consume.tokens();
                for token in &tokens {
                    self.consume(token);
                }
                consume.answer(tokens.iter().map(|_| Ok(None)).collect())
            }
            CompletionStep::Done(report) => CompletionStep::Done(report),
        }
    }

    /// An idle flush, or with a process that knows nothing, a sweep.
    pub fn tidy(&mut self, process: &mut Process) {
        let work = Work { maintenance: Maintenance::Tidy, ..self.work(process, vec![]) };
        let settled = self.settle(process, Processing::begin(work));
        if let Some(completion) = settled.completion {
            self.complete(process, completion);
        }
    }

    /// Guarantee 5: nothing is left but business items and bare control records.
    pub fn assert_quiet(&self) {
        assert_eq!(self.entry_count(), 0, "outbox entries are left");
        let control = self.control().expect("the partition has a control record");
        assert_eq!(control.pending, [], "markers are left");
        assert_eq!(control.registrations, [], "registrations are left");
        assert!(self.blobs.is_empty(), "blobs are left: {:?}", self.blobs);
    }
}

/// The handler of these stories: adds one to the item, and does what the body says.
pub fn add(mut handle: HandleStep) -> Step {
    let body = match &handle.input().body {
        Body::Inline(body) => String::from_utf8(body.to_vec()).unwrap(),
        Body::Blob(_) => unreachable!("no story has blob bodies"),
    };
    let count: u64 = match handle.get(&item()) {
        Lookup::Present(value) => std::str::from_utf8(value.bytes()).unwrap().parse().unwrap(),
        Lookup::Absent => 0,
        Lookup::Unknown => unreachable!("the item is preloaded"),
    };
    handle.unit_of_work().put(item(), ItemValue::Json((count + 1).to_string().into()));
    let audience = match body.as_str() {
        "fail" => return handle.failed(Failure::Passing { reason: "it fails".into() }),
        "only before all" if count > 0 => return handle.failed(Failure::Permanent { reason: "late".into() }),
        "only after another" if count == 0 => {
            return handle.failed(Failure::Permanent { reason: "early".into() });
        }
        "poison" => return handle.failed(Failure::Permanent { reason: "it is poison".into() }),
        "send" => Audience::Tollgate,
        "send external" => Audience::External,
        _ => return handle.succeeded(),
    };
    handle.unit_of_work().send(Outgoing {
        to: Destination { endpoint: "next".try_into().unwrap(), partition: "Q".try_into().unwrap() },
        message_type: "added".try_into().unwrap(),
        headers: vec![],
        body: Body::Inline("1".into()),
        audience,
        effects: vec![],
    });
    handle.succeeded()
}

pub fn message(envelope: &Envelope) -> Incoming {
    Incoming::Message { envelope: envelope.clone().into(), tokenless: Tokenless::Refused }
}

pub fn lost_answer() -> StoreError {
    StoreError::OutcomeUnknown { store: store(), partition: partition(), reason: "timed out".into() }
}

pub fn small_limits(items: usize) -> StoreLimits {
    StoreLimits { transaction_items_max: items, ..StoreLimits::UNLIMITED }
}

/// Runs on until the step that `is_it` looks for, and gives it.
pub fn until(
    world: &mut World,
    process: &mut Process,
    mut step: Step,
    is_it: impl Fn(&Step) -> bool,
) -> Step {
    while !is_it(&step) {
        assert!(!matches!(step, Step::Settled(_)), "the story's step never came");
        step = world.advance(process, step);
    }
    step
}
