//! Lanes: one per partition that has something to do. A lane runs one processing at a time; what arrives meanwhile waits
//! in it and is folded into the next. It also keeps the marks of finished entries until a commit has removed them from
//! the control record. Nothing here does I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tollgate_proto::marks::Marks;
use tollgate_proto::processing::{Deferred, Request};
use tollgate_proto::{BoxFuture, Envelope, PartitionKey, Receipt, Verdict};

use crate::edge::Answer;
use crate::error::HandlerError;
use crate::in_progress::Ticket;
use crate::inside::Inside;
use crate::put_backs::MessageKey;
use crate::transaction::Tx;
use crate::unfinished::Unfinished;

/// A partition, in which of the gate's stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneKey {
    pub(crate) store: usize,
    pub(crate) partition: PartitionKey,
}

impl LaneKey {
    /// Roughly how many bytes of memory it takes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.partition.as_str().len()
    }
}

/// Something to be done on a partition.
pub(crate) enum Job {
    /// A message from the broker.
    Message(MessageJob),
    /// A request at the edge.
    Request(RequestJob),
    /// A visit: complete what is pending, tidy the control record.
    Visit(VisitJob),
}

pub(crate) struct VisitJob {
    pub(crate) visit: Visit,
    /// Never sent on: whoever waits learns of the visit's end when the job is dropped.
    pub(crate) _ends_by_drop: oneshot::Sender<()>,
}

pub(crate) struct MessageJob {
    pub(crate) endpoint: usize,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) answer_to: AnswerTo,
    pub(crate) delivery_count: u32,
    /// Its place in the endpoint's window, later among those that are finished; given back when the message is settled.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Its entry among what is in progress, with the copies that came meanwhile.
    pub(crate) ticket: Option<Ticket>,
}

impl MessageJob {
    /// What it is counted by when it is put back.
    pub(crate) fn key(&self) -> MessageKey {
        MessageKey::of(self.endpoint, &self.envelope)
    }
}

impl Job {
    pub(crate) const fn as_message(&self) -> Option<&MessageJob> {
        match self {
            Self::Message(message) => Some(message),
            Self::Request(_) | Self::Visit(_) => None,
        }
    }
}

/// Who is told what is to become of a message.
pub(crate) enum AnswerTo {
    /// The broker that delivered it.
    Broker(Receipt),
    /// Whoever handed it in; may have gone away.
    Caller(oneshot::Sender<Verdict>),
}

pub(crate) struct RequestJob {
    pub(crate) request: Request,
    /// In whose name, among the gate's endpoints.
    pub(crate) endpoint: usize,
    /// The handler that made the request, if one did.
    pub(crate) caller: Option<Arc<Inside>>,
    /// Its entry among what is in progress.
    pub(crate) _ticket: Option<Ticket>,
    pub(crate) run: RequestHandler,
    pub(crate) reply: oneshot::Sender<RequestOutcome>,
}

/// Executes a request once and gives the response; it is called again when an attempt is overtaken.
pub(crate) type RequestHandler =
    Arc<dyn Fn(Tx) -> BoxFuture<'static, Result<Answer, HandlerError>> + Send + Sync>;

/// What became of a request.
pub(crate) enum RequestOutcome {
    Answered(Answer),
    Failed { reason: String },
    TimedOut { reason: String },
    Refused { reason: String },
}

/// What a visit is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Remove finished entries from the control record; what is in view is good enough.
    Flush,
    /// Look at the store for what others have left unfinished.
    Sweep,
}

/// All lanes of a gate.
#[derive(Clone, Default)]
pub(crate) struct Lanes {
    by_key: Arc<Mutex<HashMap<LaneKey, Lane, RandomState>>>,
    runs: Arc<AtomicU64>,
    /// Told when a completion has failed: a visit is to be asked for.
    failed: Arc<Notify>,
}

/// What a processing begins with.
pub(crate) struct Turn {
    pub(crate) jobs: Vec<Job>,
    /// They come back with [`Lanes::add_marks`].
    pub(crate) marks: Marks,
    pub(crate) deferred: Deferred,
}

#[derive(Default)]
struct Lane {
    /// Bounded by the windows of the endpoints, and by the number of requests that callers make.
    waiting: VecDeque<Job>,
    /// How many of them are requests.
    requests: usize,
    state: LaneState,
    /// The task that runs it, or ran it last.
    run: RunId,
    marks: Marks,
    unfinished: Unfinished,
    /// Told when a completion has ended, if the lane waits for that.
    ended: Option<Arc<Notify>>,
    /// When marks were added last: whatever the lane does takes them, and brings them back.
    last_used_ms: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum LaneState {
    #[default]
    Idle,
    Running,
}

impl Lane {
    /// Whether nothing would be forgotten with it.
    fn knows_nothing(&self) -> bool {
        self.marks.is_empty() && self.unfinished.is_empty()
    }
}

/// One run of a lane, from its start until nothing waits in it. Only the task that was given it may end the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunId(u64);

/// Whether the caller that brought a job has to start the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    StartLane(RunId),
    Queued,
    /// Too many requests wait.
    Refused,
}

/// Bounds on what waits in one lane.
pub(crate) struct Room<'a> {
    /// Most requests.
    pub(crate) requests_max: usize,
    /// Messages that may wait in their endpoint's window.
    pub(crate) share: usize,
    /// Where a message waits beyond that, as long as there is room.
    pub(crate) parked: Option<&'a Arc<Semaphore>>,
}

impl Lanes {
    /// Adds a job to the partition's lane.
    pub(crate) fn push(&self, key: &LaneKey, mut job: Job, room: &Room<'_>) -> Admission {
        let mut lanes = self.lock();
        let lane = match lanes.get_mut(key) {
            Some(lane) => lane,
            None => lanes.entry(key.clone()).or_default(),
        };
        match &mut job {
            Job::Message(message) if lane.waiting.len() >= room.share => {
                let parked = room.parked.and_then(|parked| Arc::clone(parked).try_acquire_owned().ok());
                if let Some(parked) = parked {
                    message.permit = parked;
                }
            }
            Job::Request(_) if lane.requests >= room.requests_max => return Admission::Refused,
            Job::Request(_) => lane.requests += 1,
            Job::Message(_) | Job::Visit(_) => {}
        }
        lane.waiting.push_back(job);
        match lane.state {
            LaneState::Running => Admission::Queued,
            LaneState::Idle => {
                lane.state = LaneState::Running;
                lane.run = RunId(self.runs.fetch_add(1, Ordering::Relaxed) + 1);
                Admission::StartLane(lane.run)
            }
        }
    }

    /// The next jobs of a running lane, at most `max`; or releases the lane if nothing waits.
    pub(crate) fn next_or_release(&self, key: &LaneKey, max: usize, now_ms: u64) -> Option<Turn> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key)?;
        if lane.waiting.is_empty() {
            lane.state = LaneState::Idle;
            if lane.knows_nothing() {
                lanes.remove(key);
            }
            return None;
        }
        let count = lane.waiting.len().min(max);
        let jobs: Vec<Job> = lane.waiting.drain(..count).collect();
        if lane.requests > 0 {
            lane.requests -= jobs.iter().filter(|job| matches!(job, Job::Request(_))).count();
        }
        Some(Turn {
            jobs,
            // At one moment: what is finished is either marked, or still deferred.
            marks: std::mem::take(&mut lane.marks),
            deferred: lane.unfinished.deferred(now_ms),
        })
    }

    /// Whether more than `max` messages of a partition are being finished for the first time; then what is
    /// told when one of those completions has ended.
    pub(crate) fn is_crowded(&self, key: &LaneKey, max: usize) -> Option<Arc<Notify>> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key)?;
        (lane.unfinished.first_tries() > max).then(|| Arc::clone(lane.ended.get_or_insert_default()))
    }

    /// Changes what is known of a partition's unfinished entries.
    pub(crate) fn with_unfinished(&self, key: &LaneKey, change: impl FnOnce(&mut Unfinished)) {
        let mut lanes = self.lock();
        let lane = match lanes.get_mut(key) {
            Some(lane) => lane,
            None => lanes.entry(key.clone()).or_default(),
        };
        change(&mut lane.unfinished);
        if let Some(ended) = &lane.ended {
            ended.notify_one();
        }
        if lane.unfinished.ask_ms().is_some() {
            self.failed.notify_one();
        } else if lane.state == LaneState::Idle && lane.waiting.is_empty() && lane.knows_nothing() {
            lanes.remove(key);
        }
    }

    /// Told when a completion has failed.
    pub(crate) fn failed(&self) -> &Notify {
        &self.failed
    }

    /// Partitions, at most `max`, with an unfinished entry that is due, in the order of their keys; and when
    /// the next one is due.
    pub(crate) fn take_due(&self, max: usize, now_ms: u64) -> (Vec<LaneKey>, Option<u64>) {
        let mut lanes = self.lock();
        let mut due: Vec<LaneKey> = lanes
            .iter()
            .filter(|(_, lane)| lane.unfinished.ask_ms().is_some_and(|ask_ms| ask_ms <= now_ms))
            .map(|(key, _)| key.clone())
            .collect();
        due.sort_unstable();
        due.truncate(max);
        for key in &due {
            if let Some(lane) = lanes.get_mut(key) {
                lane.unfinished.asked(now_ms);
            }
        }
        let next_ms = lanes.values().filter_map(|lane| lane.unfinished.ask_ms()).min();
        (due, next_ms)
    }

    /// Puts jobs back to the front of a running lane, in their order.
    pub(crate) fn put_back(&self, key: &LaneKey, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let mut lanes = self.lock();
        let lane = lanes.entry(key.clone()).or_default();
        for job in jobs.into_iter().rev() {
            lane.requests += usize::from(matches!(job, Job::Request(_)));
            lane.waiting.push_front(job);
        }
    }

    /// Remembers what is finished, until a commit has removed it.
    pub(crate) fn add_marks(&self, key: &LaneKey, marks: Marks, now_ms: u64) {
        if marks.is_empty() {
            return;
        }
        let mut lanes = self.lock();
        let lane = lanes.entry(key.clone()).or_default();
        lane.last_used_ms = now_ms;
        lane.marks.add(marks);
    }

    /// Lanes that have marks and were not used since `before_ms`, in the order of their keys: a simulated run must not depend on
    /// how a map happens to be ordered.
    pub(crate) fn idle_with_marks(&self, before_ms: u64) -> Vec<LaneKey> {
        let lanes = self.lock();
        let is_due = |lane: &Lane| {
            lane.state == LaneState::Idle && !lane.marks.is_empty() && lane.last_used_ms <= before_ms
        };
        let mut due: Vec<LaneKey> =
            lanes.iter().filter(|(_, lane)| is_due(lane)).map(|(key, _)| key.clone()).collect();
        due.sort_unstable();
        due
    }

    /// Whether this process has something to do with a partition already.
    pub(crate) fn knows(&self, key: &LaneKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Removes the lane of a run that has panicked, with everything that waits in it: messages come again. A run that has released
    /// the lane removes nothing: the lane may be another run's by now.
    pub(crate) fn abandon(&self, key: &LaneKey, run: RunId) {
        let mut lanes = self.lock();
        if lanes.get(key).is_some_and(|lane| lane.run == run && lane.state == LaneState::Running) {
            lanes.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, Lane, RandomState>> {
        // No section can panic between two consistent states.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room<'static> = Room { requests_max: usize::MAX, share: usize::MAX, parked: None };

    fn visit() -> Job {
        Job::Visit(VisitJob { visit: Visit::Flush, _ends_by_drop: oneshot::channel().0 })
    }

    #[test]
    fn a_run_that_has_released_its_lane_does_not_end_the_next_one() {
        let lanes = Lanes::default();
        let key = LaneKey { store: 0, partition: "P".try_into().unwrap() };
        let Admission::StartLane(first) = lanes.push(&key, visit(), &ROOM) else { panic!("it was idle") };
        assert_eq!(lanes.next_or_release(&key, 64, 0).unwrap().jobs.len(), 1);
        assert!(lanes.next_or_release(&key, 64, 0).is_none());
        let Admission::StartLane(second) = lanes.push(&key, visit(), &ROOM) else {
            panic!("it is idle again")
        };
        // The first run panics in what it does after it has released the lane.
        lanes.abandon(&key, first);
        assert_eq!(lanes.push(&key, visit(), &ROOM), Admission::Queued, "the second one still runs");
        assert_eq!(lanes.next_or_release(&key, 64, 0).unwrap().jobs.len(), 2);
        lanes.abandon(&key, second);
        assert!(!lanes.knows(&key));
    }
}
