//! The processing state machine: steps 1 to 5 of the algorithm, for one or more messages of one partition.
//!
//! It does no I/O, reads no clock and draws no random numbers. It says what is to be done next, as a [`Step`]; whoever
//! drives it (the engine, the explorer, a simulator, a port's test) does that and feeds the answer back, which gives
//! the next step:
//!
//! **A step is consumed by its answer. Until the answer is given nothing else can be done with the processing, and
//! afterwards the step is gone: an order that makes no sense does not compile.**
//!
//! A processing may be dropped at any step. What it had committed is found again by its marker (R7), what it had not
//! never happened.
//!
//! ```
//! use tollgate_proto::processing::{Disposition, Incoming, Maintenance, Processing, Step, Tokenless, Work};
//! use tollgate_proto::{codec, *};
//! # fn envelope() -> (Envelope, bytes::Bytes) {
//! #     let to = Destination { endpoint: "orders".try_into().unwrap(), partition: "order/1".try_into().unwrap() };
//! #     let entry = OutboxEntry { message_id: MessageId::from_bytes([1; 16]), to, message_type: "Place".try_into().unwrap(),
//! #         headers: vec![], body: Body::Inline("{}".into()), audience: Audience::Tollgate, effects: vec![] };
//! #     let sequence = Version::first(Incarnation(7)).sequence();
//! #     let token = TokenRef { store: "main".try_into().unwrap(), partition: "shop".try_into().unwrap(), entry: EntryKey { sequence, index: 0 } };
//! #     (entry.envelope(token, None), codec::encode_entry(&entry))
//! # }
//! let (envelope, stored_entry) = envelope();
//! let mut step = Processing::begin(Work {
//!     messages: vec![Incoming::Message { envelope: envelope.into(), tokenless: Tokenless::Refused }],
//!     ..Work::on("main".try_into().unwrap(), "order/1".try_into().unwrap(), AttemptId::new(1, 1), Incarnation(9))
//! });
//! let settled = loop {
//!     step = match step {
//!         // A real driver asks a store, a handler, a broker. Here the partition is new and the token is there.
//!         Step::Load(load) => load.answer(Ok(LoadedPartition::default())),
//!         Step::ReadTokens(read) => read.answer(vec![Ok(Some(stored_entry.clone()))]),
//!         Step::Handle(mut handle) => {
//!             handle.unit_of_work().put("state".try_into().unwrap(), ItemValue::Json("1".into()));
//!             handle.succeeded()
//!         }
//!         Step::Commit(commit) => commit.answer(Ok(CommitOutcome::Committed { session: None })),
//!         Step::Recover(_) | Step::WakeUp(_) => unreachable!("nothing is pending, and there is no request"),
//!         Step::Settled(settled) => break settled,
//!     };
//! };
//! assert_eq!(settled.dispositions, [Disposition::Committed]);
//! assert!(settled.completion.is_some(), "steps 7 to 10 follow: publish, consume, finish, acknowledge");
//! ```

mod commit;
mod fold;
mod handle;
mod incoming;
mod load;
mod recover;
mod tokens;
mod wake_up;

use bytes::Bytes;

pub use self::commit::CommitStep;
pub use self::handle::{Failure, HandleStep, HandlerInput, Lookup, Lost};
pub use self::incoming::{Incoming, Request, RequestDeduplication, Tokenless, WakeUpPatience};
pub use self::load::LoadStep;
pub use self::recover::{Deferred, RecoverStep, RecoveringStep};
pub use self::tokens::ReadTokensStep;
pub use self::wake_up::{WAKE_UP_TYPE, WakeUpStep};

use self::fold::Fold;
use self::incoming::{Slot, SlotState};
use crate::completion::{Completion, CompletionTask};
use crate::control_record::{PENDING_MAX, PendingId};
use crate::ids::{AttemptId, DeduplicationKey, ItemName, PartitionKey, StoreAlias};
use crate::limits::StoreLimits;
use crate::marks::Marks;
use crate::partition_view::PartitionView;
use crate::sequence::{Incarnation, Version};
use crate::store::LoadRequest;

/// Most reloads of one processing before its messages are put back: more means that other processes work on the same
/// partition all the time, and that waiting helps more than trying.
pub const RELOADS_MAX: u32 = 8;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Load the partition from the store.
    Load(LoadStep),
    /// Try to complete what others (or this process, before it lost its memory) have committed and not
    /// finished (R5).
    Recover(RecoverStep),
    /// Read the tokens of the messages, now that the partition is loaded (R1).
    ReadTokens(ReadTokensStep),
    /// Run the handler of one message.
    Handle(HandleStep),
    /// Send a wake-up message, so that what is about to be committed without a token is published even if this
    /// process dies.
    WakeUp(WakeUpStep),
    /// Commit.
    Commit(CommitStep),
    /// All messages have their disposition.
    Settled(Settled),
}

/// What is to be processed, and everything the machine may not draw or read by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The store that holds the partition.
    pub store: StoreAlias,
    /// The partition.
    pub partition: PartitionKey,
    /// The store's limits: no more messages are folded into one commit than they allow.
    pub limits: StoreLimits,
    /// Business items that a load brings along.
    pub preload: Vec<ItemName>,
    /// What the process remembers of the partition. `None`: load it.
    pub view: Option<PartitionView>,
    /// What the process knows to be over although the control record lists it.
    pub marks: Marks,
    /// Pending entries that this processing leaves alone, because the process sees to them otherwise.
    pub deferred: Deferred,
    /// The id of this attempt, never used before.
    pub attempt: AttemptId,
    /// A fresh random number, for the case that the partition has no control record yet.
    pub incarnation: Incarnation,
    /// Now, in milliseconds since the Unix epoch. Decides only what is garbage.
    pub now_ms: u64,
    /// The messages, in the order in which they are to be handled. There may be none: then the partition is visited.
    pub messages: Vec<Incoming>,
    /// Whether to write a commit merely to tidy the control record.
    pub maintenance: Maintenance,
}

/// Whether a processing without anything to commit tidies the control record all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Maintenance {
    /// No: the next commit will.
    Leave,
    /// Yes: idle flush, sweep, shutdown.
    Tidy,
}

impl Work {
    /// Work on a partition that this process knows nothing of, without messages yet.
    pub fn on(
        store: StoreAlias,
        partition: PartitionKey,
        attempt: AttemptId,
        incarnation: Incarnation,
    ) -> Self {
        Self {
            store,
            partition,
            limits: StoreLimits::UNLIMITED,
            preload: Vec::new(),
            view: None,
            marks: Marks::default(),
            deferred: Deferred::default(),
            attempt,
            incarnation,
            now_ms: 0,
            messages: Vec::new(),
            maintenance: Maintenance::Leave,
        }
    }
}

/// The end of a processing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settled {
    /// What became of each message, in the order of [`Work::messages`].
    pub dispositions: Vec<Disposition>,
    /// What is still to be done outside the partition's lock: steps 7 to 10.
    pub completion: Option<Completion>,
    /// What to remember of the partition. `None`: nothing, drop what is cached.
    pub view: Option<PartitionView>,
    /// What is still to be removed from the control record: to be kept for the next processing.
    pub marks: Marks,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Committed by this processing: acknowledge when the completion has finished it.
    Committed,
    /// Committed before, and not known to be finished: acknowledge when the completion has finished it.
    CommittedBefore,
    /// Committed and finished before: acknowledge.
    Duplicate,
    /// A request that was answered before: answer it again.
    Replayed(Bytes),
    /// A wake-up that has done its work, or has none to do: acknowledge.
    Visited,
    /// Not possible now: put it back and try later.
    Retry {
        /// Why, for a person.
        reason: String,
    },
    /// An earlier commit of the partition has to be finished first: put it back and try later. This is no
    /// failure of the message, so it is never dead-lettered for it.
    Blocked {
        /// What has to be finished, and why it is not, for a person.
        reason: String,
    },
    /// Never possible: dead-letter it, its token intact.
    DeadLetter {
        /// Why, for a person.
        reason: String,
    },
    /// Did not fit into this commit: give it to the next processing at once.
    Postponed,
}

/// The state that all steps share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Processing {
    store: StoreAlias,
    partition: PartitionKey,
    limits: StoreLimits,
    preload: Vec<ItemName>,
    marks: Marks,
    deferred: Deferred,
    attempt: AttemptId,
    incarnation: Incarnation,
    now_ms: u64,
    maintenance: Maintenance,
    slots: Vec<Slot>,
    view: PartitionView,
    /// Whether this processing has loaded the view itself.
    is_loaded: bool,
    /// The version of the view when it was loaded or taken from the cache. What lies between it and the view's version now
    /// are registrations of this processing, which change no items.
    base: Option<Version>,
    /// Whether a handler has failed on this view: the state that it saw may be why.
    has_failed: bool,
    fold: Fold,
    /// Most messages in one fold: lowered to one when a store refuses a folded commit as too large.
    fold_max: usize,
    /// How many more pending entries the control record takes, counted when the markers were checked.
    room: usize,
    reloads: u32,
    /// Wake-ups that were sent so far.
    wake_ups: u32,
    /// A commit of this processing that may have happened without our hearing of it (R7).
    uncertain: Option<LostCommit>,
    /// Pending entries to be completed before an acknowledgement, with the messages that wait for them.
    completions: Vec<CompletionTask>,
    /// Pending entries that this processing has tried to complete in vain, and why.
    failed: Vec<(PendingId, String)>,
}

impl Processing {
    /// Starts a processing and says what is to be done first.
    pub fn begin(work: Work) -> Step {
        let mut slots: Vec<Slot> = Vec::with_capacity(work.messages.len());
        for incoming in work.messages {
            let twin = slots.iter().position(|slot| slot.incoming.is_twin_of(&incoming));
            let state = match twin.filter(|_| !mutated!(FoldsTwins)) {
                // Two copies of one message in one burst: folding both would commit it twice.
                Some(first) => SlotState::TwinOf(first),
                None => SlotState::Waiting,
            };
            slots.push(Slot { incoming, state });
        }
        let known = work.view.is_some();
        let view = work.view.unwrap_or_default();
        let processing = Box::new(Self {
            store: work.store,
            partition: work.partition,
            limits: work.limits,
            preload: work.preload,
            marks: work.marks,
            deferred: work.deferred,
            attempt: work.attempt,
            incarnation: work.incarnation,
            now_ms: work.now_ms,
            maintenance: work.maintenance,
            slots,
            base: view.control.as_ref().map(|control| control.version),
            view,
            is_loaded: false,
            has_failed: false,
            fold: Fold::default(),
            fold_max: PENDING_MAX,
            room: 0,
            reloads: 0,
            wake_ups: 0,
            uncertain: None,
            completions: Vec::new(),
            failed: Vec::new(),
        });
        if known { processing.check_markers() } else { Step::Load(LoadStep(processing)) }
    }

    fn load_request(&self) -> LoadRequest {
        let records: Vec<DeduplicationKey> = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, SlotState::Waiting))
            .filter_map(|slot| match &slot.incoming {
                Incoming::Request(request) => request.key().cloned(),
                Incoming::Message { .. } | Incoming::WakeUp { .. } => None,
            })
            .collect();
        LoadRequest { partition: self.partition.clone(), items: self.preload.clone(), records }
    }

    /// Drops what was folded and loads the partition again: after a conflict or a lost answer.
    fn reload(mut self: Box<Self>, why: &str) -> Step {
        self.reloads += 1;
        if self.reloads > RELOADS_MAX {
            self.fold.clear();
            self.handle_again();
            let reason = format!("{why} on partition {} {RELOADS_MAX} times in a row", self.partition);
            return self.give_up(&reason);
        }
        self.start_again()
    }

    /// Drops what was folded and loads the partition, for a new attempt.
    fn start_again(mut self: Box<Self>) -> Step {
        self.fold.clear();
        self.handle_again();
        self.attempt = self.attempt.next_round();
        Step::Load(LoadStep(self))
    }

    /// What was handled has not been committed: it is handled again.
    fn handle_again(&mut self) {
        for slot in &mut self.slots {
            if matches!(slot.state, SlotState::Ready(_) | SlotState::Folded | SlotState::Judged(_)) {
                slot.state = SlotState::Waiting;
            }
        }
    }

    /// The state on which handlers have judged is the partition's.
    fn confirm_judgements(&mut self) {
        for slot in &mut self.slots {
            if let SlotState::Judged(disposition) = &slot.state {
                slot.state = SlotState::Settled(disposition.clone());
            }
        }
    }

    /// Puts back every message that has no disposition yet and forgets the partition.
    fn give_up(mut self: Box<Self>, reason: &str) -> Step {
        self.retry_unsettled(reason);
        self.settle(Remember::Nothing)
    }

    fn retry_unsettled(&mut self, reason: &str) {
        for slot in &mut self.slots {
            match slot.state {
                SlotState::Settled(_) | SlotState::TwinOf(_) => {}
                SlotState::Waiting | SlotState::Ready(_) | SlotState::Folded | SlotState::Judged(_) => {
                    slot.state = SlotState::Settled(Disposition::Retry { reason: reason.to_owned() });
                }
            }
        }
    }

    fn settle(mut self: Box<Self>, remember: Remember) -> Step {
        let mut dispositions = Vec::with_capacity(self.slots.len());
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let disposition = match &slot.state {
                SlotState::TwinOf(first) => {
                    let disposition = match (&slot.incoming, &dispositions[*first]) {
                        // Whoever asks again is answered from the stored response, by the next processing.
                        (Incoming::Request(_), Disposition::Committed) => Disposition::Postponed,
                        // Only its own handler knows what it finds at a position that was left.
                        (Incoming::Request(request), disposition)
                            if request.key().is_none()
                                && !matches!(
                                    disposition,
                                    Disposition::Retry { .. } | Disposition::Blocked { .. }
                                ) =>
                        {
                            Disposition::Postponed
                        }
                        (_, disposition) => Disposition::clone(disposition),
                    };
                    for task in &mut self.completions {
                        if task.slots.contains(first) {
                            task.slots.push(place);
                        }
                    }
                    disposition
                }
                SlotState::Settled(_) => match std::mem::replace(&mut slot.state, SlotState::Waiting) {
                    SlotState::Settled(disposition) => disposition,
                    _ => unreachable!("the state was just matched"),
                },
                SlotState::Waiting | SlotState::Ready(_) | SlotState::Folded | SlotState::Judged(_) => {
                    unreachable!("a processing settles only when each of its messages has a disposition")
                }
            };
            dispositions.push(disposition);
        }
        if matches!(remember, Remember::View) {
            // What has left the control record, by this commit or another's, needs no mark any more.
            self.marks.keep_listed(self.view.control.as_ref());
        }
        let clean_ups = std::mem::take(&mut self.fold.clean_ups);
        let completion = Completion::new(
            self.store,
            self.partition,
            std::mem::take(&mut self.completions),
            clean_ups,
            self.view.session.clone(),
        );
        let view = match remember {
            Remember::View => Some(self.view),
            Remember::Nothing => None,
        };
        Step::Settled(Settled { dispositions, completion, view, marks: self.marks })
    }
}

/// A commit that was answered by nothing, or by a failed condition (R7: neither says that it did not happen).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LostCommit {
    attempt: AttemptId,
    /// The slots of the messages folded into it. By slot and not by id: messages to two endpoints may have one id.
    members: Vec<usize>,
}

/// Whether the view of the partition is good for the next message.
#[derive(Clone, Copy)]
enum Remember {
    View,
    Nothing,
}
