//! The state of a small world, piece by piece: partitions, broker, what lies outside, processes and workers.
//! Each distinct piece is kept once, and a state is the row of their numbers: millions of states share a few
//! thousand pieces.
//!
//! Nothing here moves; how it moves is in the modules next to this one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use indexmap::IndexSet;
use tollgate_proto::completion::CompletionStep;
use tollgate_proto::control_record::PendingId;
use tollgate_proto::marks::Marks;
use tollgate_proto::partition_view::PartitionView;
use tollgate_proto::processing::{HandleStep, RecoveringStep, Step};
use tollgate_proto::{
    Commit, ControlRecord, DeduplicationId, DeduplicationKey, EffectName, EntryKey, ItemName, ItemValue,
    MessageId, TokenRef, codec,
};

/// Most pieces of a state: partitions, broker, outside, processes, workers.
const PIECES_MAX: usize = 12;

/// A state: the numbers of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State([u32; PIECES_MAX]);

/// A state taken apart. Pieces are shared until they are changed.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) partitions: Vec<Arc<Partition>>,
    pub(super) broker: Arc<Broker>,
    pub(super) outside: Arc<Outside>,
    pub(super) processes: Vec<Arc<Process>>,
    pub(super) workers: Vec<Arc<Worker>>,
}

/// A partition in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Partition {
    pub(super) contents: Arc<Contents>,
    /// What a replica shows that lags behind, in worlds with session consistency.
    pub(super) replica: Option<Arc<Contents>>,
    /// Every outbox entry that was ever committed: what nobody in the world can see, kept to recognise
    /// ghosts.
    pub(super) created: BTreeSet<EntryKey>,
}

/// What a partition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Contents {
    pub(super) control: Option<Bytes>,
    pub(super) items: BTreeMap<ItemName, ItemValue>,
    pub(super) entries: BTreeMap<EntryKey, Bytes>,
    pub(super) records: BTreeMap<DeduplicationKey, Bytes>,
    /// Writes so far, in worlds with session consistency: what session marks count.
    pub(super) writes: u64,
}

impl Contents {
    pub(super) fn record(&self) -> Option<ControlRecord> {
        self.control
            .as_ref()
            .map(|bytes| codec::decode_control(bytes).expect("only the machine writes control records"))
    }
}

/// What the broker holds, by encoded envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Broker {
    /// Copies that may be delivered.
    pub(super) available: BTreeMap<Bytes, u8>,
    /// Copies that were put aside.
    pub(super) dead: BTreeMap<Bytes, u8>,
    /// Deliveries so far, up to what makes a difference.
    pub(super) deliveries: BTreeMap<Bytes, u8>,
    /// Ids that it was given, in worlds where it drops what it knows.
    pub(super) known: BTreeSet<DeduplicationId>,
}

/// Everything else: blob storage, the clock, clients, outsiders, and what may still go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outside {
    pub(super) budget: Budget,
    pub(super) clock_ms: u64,
    pub(super) blobs: BTreeSet<EffectName>,
    /// Calls to another system that it has executed, by the name under which they were prepared; for ever.
    pub(super) executed: BTreeSet<EffectName>,
    /// Attempts so far, in worlds where their ids can't be used again.
    pub(super) attempts: u64,
    /// Under which token each message was published: to recognise effects of two attempts.
    pub(super) published: BTreeMap<MessageId, TokenRef>,
    /// Messages that outsiders have received.
    pub(super) external: BTreeSet<MessageId>,
    /// Requests at the edge, by number.
    pub(super) requests: BTreeMap<u8, RequestState>,
    /// Commits whose sender has stopped waiting, and which may still arrive.
    pub(super) under_way: Vec<Commit>,
    /// Side effects whose preparation has failed, and which may still come to be until this time.
    pub(super) late: BTreeMap<EffectName, u64>,
}

/// A request of a client at the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RequestState {
    /// How many times it may still be made.
    pub(super) copies: u8,
    /// What it was answered.
    pub(super) answer: Option<Bytes>,
}

/// How often things may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Processes that die and start anew.
    pub crashes: u8,
    /// Messages that are delivered again while a worker still has them.
    pub time_outs: u8,
    /// Commits whose answer is lost, or becomes a failed condition by a client library's own repetition.
    pub lost_answers: u8,
    /// Calls to store, broker or blob storage that fail, before or after their effect.
    pub failed_calls: u8,
    /// Preparations of side effects that fail, and take effect later all the same.
    pub late_effects: u8,
    /// Registrations and preparations whose end the handler does not wait for.
    pub drops: u8,
    /// Handlers that fail.
    pub handler_failures: u8,
    /// Views that are dropped from a cache.
    pub evictions: u8,
    /// Sweeps that come while others are at work.
    pub sweeps: u8,
    /// Reads that are answered by a replica that lags behind.
    pub stale_reads: u8,
    /// Clients that go away without an answer.
    pub departures: u8,
    /// Conflicts after which workers let each other finish, in worlds where two could overtake each other for
    /// ever.
    pub conflicts: Option<u8>,
    /// Wake-ups that lose patience although the attempt that sent them is still at work.
    pub fences: u8,
}

/// What a process remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) lanes: Vec<Lane>,
    /// Tokens known to be consumed.
    pub(super) consumed: BTreeSet<TokenRef>,
}

/// What a process remembers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) view: Option<PartitionView>,
    pub(super) marks: Marks,
}

/// What a worker is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    /// Nothing.
    #[default]
    Idle,
    /// Steps 1 to 5, holding the partition's lane.
    Processing { task: Task, step: Box<Step> },
    /// Inside a handler that reads an item later or creates a side effect, holding the partition's lane.
    Handling {
        task: Task,
        handle: Box<HandleStep>,
        phase: EffectPhase,
        /// When the attempt stops creating anything.
        deadline_ms: u64,
    },
    /// Completing what others left, holding the partition's lane.
    Recovering { task: Task, recovering: Box<RecoveringStep>, step: Box<CompletionStep> },
    /// Steps 7 to 10, the lane given back.
    Finishing { task: Task, step: Box<CompletionStep> },
}

/// What a worker works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) partition: usize,
    pub(super) serial: u64,
    pub(super) jobs: Vec<Option<Job>>,
    /// The pending entries that its process is completing by it, beside the next processing.
    pub(super) under_way: Vec<PendingId>,
    /// Token reads that a mutant keeps for later.
    pub(super) kept_reads: BTreeMap<TokenRef, Option<Bytes>>,
}

/// What a slot of a processing stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    Message(Bytes),
    Request(u8),
}

/// How far a side effect of a running handler has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum EffectPhase {
    /// Reads an item that was not loaded with the partition.
    ReadLater,
    Register(EffectName),
    Prepare(EffectName),
    /// With the side effect, unless its preparation was dropped.
    Finish(Option<EffectName>),
}

impl Worker {
    pub(super) fn task(&self) -> Option<&Task> {
        match self {
            Self::Idle => None,
            Self::Processing { task, .. }
            | Self::Handling { task, .. }
            | Self::Recovering { task, .. }
            | Self::Finishing { task, .. } => Some(task),
        }
    }

    /// The partition whose lane it holds.
    pub(super) fn lane(&self) -> Option<usize> {
        match self {
            Self::Idle | Self::Finishing { .. } => None,
            Self::Processing { task, .. } | Self::Handling { task, .. } | Self::Recovering { task, .. } => {
                Some(task.partition)
            }
        }
    }
}

/// How many pieces of each kind a state has.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) partitions: usize,
    /// For each process, its workers.
    pub(super) workers: Vec<std::ops::Range<usize>>,
}

impl Shape {
    pub(super) fn new(partitions: usize, workers_of: &[usize]) -> Self {
        let mut workers = Vec::new();
        let mut start = 0;
        for count in workers_of {
            workers.push(start..start + count);
            start += count;
        }
        assert!(
            partitions + 2 + workers.len() + start <= PIECES_MAX,
            "a world has at most {PIECES_MAX} pieces"
        );
        Self { partitions, workers }
    }

    pub(super) fn process_of(&self, worker: usize) -> usize {
        let of = self.workers.iter().position(|workers| workers.contains(&worker));
        of.expect("every worker belongs to a process")
    }
}

/// All distinct pieces met so far.
#[derive(Default)]
pub(super) struct Pieces {
    partitions: Table<Partition>,
    brokers: Table<Broker>,
    outsides: Table<Outside>,
    processes: Table<Process>,
    workers: Table<Worker>,
}

/// The distinct pieces of one kind, numbered.
struct Table<T>(RefCell<IndexSet<Arc<T>, RandomState>>);

impl<T: Eq + Hash> Default for Table<T> {
    fn default() -> Self {
        Self(RefCell::new(IndexSet::default()))
    }
}

impl<T: Eq + Hash> Table<T> {
    fn number(&self, piece: &Arc<T>) -> u32 {
        let mut pieces = self.0.borrow_mut();
        let place = match pieces.get_index_of(piece) {
            Some(place) => place,
            None => pieces.insert_full(Arc::clone(piece)).0,
        };
        u32::try_from(place).expect("there are fewer pieces than states, and those are numbered with 32 bits")
    }

    fn piece(&self, number: u32) -> Arc<T> {
        Arc::clone(&self.0.borrow()[number as usize])
    }
}

impl Pieces {
    /// The number of every piece.
    pub(super) fn pack(&self, scene: &Scene) -> State {
        let mut numbers = [0; PIECES_MAX];
        let partitions = scene.partitions.iter().map(|piece| self.partitions.number(piece));
        let rest = [self.brokers.number(&scene.broker), self.outsides.number(&scene.outside)];
        let processes = scene.processes.iter().map(|piece| self.processes.number(piece));
        let workers = scene.workers.iter().map(|piece| self.workers.number(piece));
        for (slot, number) in numbers.iter_mut().zip(partitions.chain(rest).chain(processes).chain(workers)) {
            *slot = number;
        }
        State(numbers)
    }

    /// The numbers of the pieces of `scene`, given that those which are still shared with `before` have the
    /// numbers that they have in `state`.
    pub(super) fn repack(&self, scene: &Scene, before: &Scene, state: State) -> State {
        let mut numbers = state.0;
        let mut place = 0;
        for (piece, old) in scene.partitions.iter().zip(&before.partitions) {
            if !Arc::ptr_eq(piece, old) {
                numbers[place] = self.partitions.number(piece);
            }
            place += 1;
        }
        if !Arc::ptr_eq(&scene.broker, &before.broker) {
            numbers[place] = self.brokers.number(&scene.broker);
        }
        place += 1;
        if !Arc::ptr_eq(&scene.outside, &before.outside) {
            numbers[place] = self.outsides.number(&scene.outside);
        }
        place += 1;
        for (piece, old) in scene.processes.iter().zip(&before.processes) {
            if !Arc::ptr_eq(piece, old) {
                numbers[place] = self.processes.number(piece);
            }
            place += 1;
        }
        for (piece, old) in scene.workers.iter().zip(&before.workers) {
            if !Arc::ptr_eq(piece, old) {
                numbers[place] = self.workers.number(piece);
            }
            place += 1;
        }
        State(numbers)
    }

    pub(super) fn unpack(&self, shape: &Shape, state: State) -> Scene {
        let mut numbers = state.0.into_iter();
        let mut next = || numbers.next().expect("a state has room for every piece of its shape");
        Scene {
            partitions: (0..shape.partitions).map(|_| self.partitions.piece(next())).collect(),
            broker: self.brokers.piece(next()),
            outside: self.outsides.piece(next()),
            processes: shape.workers.iter().map(|_| self.processes.piece(next())).collect(),
            workers: shape
                .workers
                .iter()
                .flat_map(Clone::clone)
                .map(|_| self.workers.piece(next()))
                .collect(),
        }
    }

    /// How many distinct pieces there are.
    pub(super) fn count(&self) -> usize {
        self.partitions.0.borrow().len()
            + self.brokers.0.borrow().len()
            + self.outsides.0.borrow().len()
            + self.processes.0.borrow().len()
            + self.workers.0.borrow().len()
    }
}

impl State {
    /// Workers of a process are alike, and so are processes with as many workers: the state with the smallest
    /// numbers stands for all of them.
    pub(super) fn sorted(mut self, shape: &Shape) -> Self {
        let processes = shape.partitions + 2;
        let workers = processes + shape.workers.len();
        for range in &shape.workers {
            self.0[workers + range.start..workers + range.end].sort_unstable();
        }
        // A few processes: the simplest sort will do.
        for first in 0..shape.workers.len() {
            for second in first + 1..shape.workers.len() {
                let (a, b) = (&shape.workers[first], &shape.workers[second]);
                if a.len() != b.len() {
                    continue;
                }
                let key = |process: usize, range: &std::ops::Range<usize>| {
                    (self.0[processes + process], self.0[workers + range.start..workers + range.end].to_vec())
                };
                if key(second, b) < key(first, a) {
                    self.0.swap(processes + first, processes + second);
                    for offset in 0..a.len() {
                        self.0.swap(workers + a.start + offset, workers + b.start + offset);
                    }
                }
            }
        }
        self
    }
}
