//! The world in which every technique is tried: messages with copies in any order, two workers, crashes between any two
//! steps, a store that writes one partition conditionally. A zombie needs nothing of its own: it is a worker whose next step
//! comes late. What must hold is stated here once, for all techniques.

use std::cell::Cell;

use super::desk::{Call, Desk, Notes};
use super::entity::{Code, Effect, Guest, Message, Place, Subject};
use super::scene::{Errand, Job, Scene, Stored, Worker};
use super::technique::{SceneOf, Technique, Turn};
use crate::explorer::{Kind, Model, Transition};

/// What there is and what may go wrong.
#[derive(Clone, Debug)]
pub struct World {
    /// The messages that come from outside.
    pub requests: Vec<Subject>,
    /// When they come.
    pub arrival: Arrival,
    /// Whether handlers send messages.
    pub outputs: Outputs,
    /// Whether two attempts of a handler come to the same result.
    pub handler: Handler,
    /// How many workers there are, each a process.
    pub workers: usize,
    /// How many copies the broker makes by itself, of any message and at any time.
    pub duplicates: u8,
    /// How many processes crash.
    pub crashes: u8,
}

impl World {
    /// Two guests reserve seats and are invoiced; one copy too many; one crash; handlers that draw.
    pub fn reservations() -> Self {
        Self {
            requests: vec![Subject::Reserve(Guest::Ada), Subject::Reserve(Guest::Bob)],
            arrival: Arrival::AtOnce,
            outputs: Outputs::Sent,
            handler: Handler::Draws,
            workers: 2,
            duplicates: 1,
            crashes: 1,
        }
    }

    /// The same with one worker, and nothing going wrong.
    #[must_use]
    pub fn undisturbed(&self) -> Self {
        Self { workers: 1, duplicates: 0, crashes: 0, ..self.clone() }
    }

    /// The same with more requests, to see what grows.
    #[must_use]
    pub fn busier(&self) -> Self {
        let mut busier = self.clone();
        busier.requests.extend(Self::MORE_REQUESTS);
        busier
    }

    /// What makes a world busier.
    pub const MORE_REQUESTS: [Subject; 2] = [Subject::Reserve(Guest::Cyd), Subject::Reserve(Guest::Dan)];

    /// How many messages a request comes to.
    pub const fn messages_per_request(&self) -> usize {
        match self.outputs {
            Outputs::Sent => 2,
            Outputs::None => 1,
        }
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests: Vec<String> = self.requests.iter().map(|request| format!("\"{request}\"")).collect();
        let joint = match self.arrival {
            Arrival::AtOnce => " and ",
            Arrival::InTurn => ", then ",
        };
        write!(
            f,
            "{}; {} workers, {} copy too many, {} crash",
            requests.join(joint),
            self.workers,
            self.duplicates,
            self.crashes
        )
    }
}

/// When the requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// All at once, in any order.
    AtOnce,
    /// Each after the one before has taken effect, so that only one order makes sense.
    InTurn,
}

/// What handlers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// A message for each request, which is processed in its turn.
    Sent,
    /// Nothing.
    None,
}

/// What kind of handler it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// On the same state it does the same.
    Deterministic,
    /// It draws something: a clock, a random number, an answer from elsewhere.
    Draws,
}

/// A step in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next request is sent.
    Request,
    /// A worker takes a message.
    Take { worker: usize, message: Message },
    /// A worker goes on.
    Work { worker: usize, code: Code },
    /// A worker with nothing else to do looks after a partition.
    Visit { worker: usize, place: Place },
    /// The broker makes a copy of a message by itself.
    Duplicate(Message),
    /// A process crashes: its memory is lost and its message is delivered again.
    Crash { worker: usize },
    /// Time passes, for those who care.
    TimePasses,
}

/// A technique in its world: a [`Model`] that can be searched.
pub struct Trial<'a, T> {
    technique: &'a T,
    world: World,
    kept_most: Cell<usize>,
}

/// Entries that a technique keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In the documents of the entities.
    pub in_documents: usize,
    /// In records of their own.
    pub in_records: usize,
}

impl Kept {
    /// Both together.
    pub const fn total(self) -> usize {
        self.in_documents + self.in_records
    }
}

impl<'a, T: Technique> Trial<'a, T> {
    /// Puts a technique into a world.
    pub const fn new(technique: &'a T, world: World) -> Self {
        Self { technique, world, kept_most: Cell::new(0) }
    }

    /// The most entries that were left in any state at rest that the search has met.
    pub const fn kept_most(&self) -> usize {
        self.kept_most.get()
    }

    /// What is stored now.
    pub fn kept(&self, scene: &SceneOf<T>) -> Kept {
        let documents = scene.documents.values();
        Kept {
            in_documents: documents.map(|stored| self.technique.kept(&stored.document)).sum(),
            in_records: scene.records.len(),
        }
    }

    /// Whether a request may be sent now.
    fn request(&self, scene: &SceneOf<T>) -> Option<Subject> {
        let next = *self.world.requests.get(usize::from(scene.requests_sent))?;
        let is_due = match self.world.arrival {
            Arrival::AtOnce => true,
            Arrival::InTurn => {
                let before = usize::from(scene.requests_sent).checked_sub(1);
                before.is_none_or(|before| count_of(scene, self.world.requests[before]) > 0)
            }
        };
        is_due.then_some(next)
    }

    fn admit(&self, scene: &mut SceneOf<T>, request: Subject) -> Message {
        scene.requests_sent += 1;
        let name = scene.new_name(request);
        let (record, message) = self.technique.admit(Message::request(request), name);
        scene.records.extend(record);
        *scene.queue.entry(message).or_default() += 1;
        message
    }

    /// What becomes of the scene by a step; whom it called; whether the handler has drawn; what there is to tell.
    pub(super) fn make(&self, before: &SceneOf<T>, step: &Step, notes: Notes) -> Made<T> {
        let mut scene = before.clone();
        let mut told = Vec::new();
        match step {
            Step::Request => {
                let request = self.request(before).expect("the step is offered only then");
                let message = self.admit(&mut scene, request);
                told.push(format!("the sender sends {message}"));
            }
            Step::Take { worker, message } => {
                *scene.queue.get_mut(message).expect("it waits there") -= 1;
                let errand = Errand::Message(*message);
                scene.workers[*worker].job =
                    Some(Job { errand, snapshot: None, work: self.technique.begin() });
                told.push(format!("{} takes {message}", who(*worker)));
            }
            Step::Visit { worker, place } => {
                let work =
                    self.technique.visit(&scene.documents[place].document).expect("there is work to do");
                scene.workers[*worker].job =
                    Some(Job { errand: Errand::Visit(*place), snapshot: None, work });
                told.push(format!("{} has time to look after {place}", who(*worker)));
            }
            Step::Work { worker, code } => return self.work(scene, *worker, *code, notes),
            Step::Duplicate(message) => {
                scene.duplicates_left -= 1;
                *scene.queue.get_mut(message).expect("it was sent once") += 1;
                told.push(format!("the broker delivers {message} once more"));
            }
            Step::Crash { worker } => {
                scene.crashes_left -= 1;
                let crashed = std::mem::take(&mut scene.workers[*worker]);
                let what = match crashed.job.map(|job| job.errand) {
                    Some(Errand::Message(message)) => {
                        *scene.queue.entry(message).or_default() += 1;
                        format!(" while it has {message}, which will be delivered again")
                    }
                    _ => String::new(),
                };
                told.push(format!("{} crashes{what}", who(*worker)));
            }
            Step::TimePasses => {
                self.technique.age(&mut scene);
                told.push("time passes: what has an age is gone".to_owned());
            }
        }
        Made { scene, call: None, has_drawn: false, told }
    }

    fn work(&self, mut scene: SceneOf<T>, worker: usize, code: Code, notes: Notes) -> Made<T> {
        let (mut desk, work) = Desk::new(self.technique, &self.world, &mut scene, worker, code, notes);
        let report = match self.technique.step(work, &mut desk) {
            Turn::Next(work) => desk.keep(work),
            Turn::Done => desk.clear(None),
            Turn::PutBack => {
                let back = match desk.errand() {
                    Errand::Message(message) => Some(message),
                    Errand::Visit(_) => None,
                };
                desk.clear(back)
            }
        };
        let notes = match report.notes {
            Notes::Told(notes) if notes.is_empty() => vec!["goes on".to_owned()],
            Notes::Told(notes) => notes,
            Notes::Silent => Vec::new(),
        };
        let told = vec![format!("{} {}", who(worker), notes.join("; "))];
        Made { scene, call: report.call, has_drawn: report.has_drawn, told }
    }

    fn work_steps(&self, state: &SceneOf<T>, worker: usize, found: &mut Vec<Transition<Step, SceneOf<T>>>) {
        for code in [Code::X, Code::Y] {
            let step = Step::Work { worker, code };
            let made = self.make(state, &step, Notes::Silent);
            let has_drawn = made.has_drawn;
            found.push(Transition { step, kind: Kind::Progress, next: made.scene, violation: None });
            if !has_drawn {
                break;
            }
        }
    }

    fn faults(&self, state: &SceneOf<T>) -> Vec<Step> {
        let mut faults = Vec::new();
        if state.duplicates_left > 0 {
            faults.extend(state.queue.keys().map(|message| Step::Duplicate(*message)));
        }
        if state.crashes_left > 0 {
            let busy = state.workers.iter().enumerate().filter(|(_, worker)| worker.has_something_to_lose());
            faults.extend(busy.map(|(worker, _)| Step::Crash { worker }));
        }
        let mut later = state.clone();
        self.technique.age(&mut later);
        if later != *state {
            faults.push(Step::TimePasses);
        }
        faults
    }
}

/// What a step came to.
pub(super) struct Made<T: Technique> {
    pub scene: SceneOf<T>,
    pub call: Option<Call>,
    pub has_drawn: bool,
    pub told: Vec<String>,
}

impl<T: Technique> Model for Trial<'_, T> {
    type State = SceneOf<T>;
    type Step = Step;

    fn initial(&self) -> Self::State {
        let mut scene = Scene {
            documents: Place::WITH_DOCUMENT.iter().map(|place| (*place, Stored::default())).collect(),
            records: std::collections::BTreeSet::new(),
            queue: std::collections::BTreeMap::new(),
            workers: (0..self.world.workers).map(|_| Worker::new()).collect(),
            requests_sent: 0,
            names_given: std::collections::BTreeMap::new(),
            duplicates_left: self.world.duplicates,
            crashes_left: self.world.crashes,
        };
        if self.world.arrival == Arrival::AtOnce {
            for request in &self.world.requests {
                self.admit(&mut scene, *request);
            }
        }
        scene
    }

    fn successors(&self, state: &Self::State, found: &mut Vec<Transition<Step, Self::State>>) {
        let mut steps = Vec::new();
        if self.request(state).is_some() {
            steps.push(Step::Request);
        }
        for (worker, at) in state.workers.iter().enumerate() {
            if at.job.is_some() {
                self.work_steps(state, worker, found);
                continue;
            }
            let waiting = state.queue.iter().filter(|(_, copies)| **copies > 0);
            steps.extend(waiting.map(|(message, _)| Step::Take { worker, message: *message }));
            for (place, stored) in &state.documents {
                if self.technique.visit(&stored.document).is_some() {
                    steps.push(Step::Visit { worker, place: *place });
                }
            }
        }
        let progress = steps.into_iter().map(|step| (step, Kind::Progress));
        let faults = self.faults(state).into_iter().map(|step| (step, Kind::Fault));
        found.extend(progress.chain(faults).map(|(step, kind)| {
            let next = self.make(state, &step, Notes::Silent).scene;
            Transition { step, kind, next, violation: None }
        }));
    }

    fn violation(&self, state: &Self::State) -> Option<String> {
        twice(state).or_else(|| untrue(state))
    }

    fn violation_when_quiet(&self, state: &Self::State) -> Option<String> {
        let kept = self.kept(state).total();
        self.kept_most.set(self.kept_most.get().max(kept));
        lost(&self.world, state)
    }

    fn canonical(&self, mut state: Self::State) -> Self::State {
        // Workers are alike.
        state.workers.sort_unstable();
        // What was sent is remembered for the sake of later copies; it was checked when it was sent.
        if state.duplicates_left == 0 {
            state.queue.retain(|_, copies| *copies > 0);
        }
        state
    }

    fn describe(&self, before: &Self::State, step: &Step, _: &Self::State) -> String {
        self.make(before, step, Notes::Told(Vec::new())).told.join("; ")
    }
}

fn who(worker: usize) -> String {
    format!("worker {}", worker + 1)
}

fn effects<D, R, W, M>(scene: &Scene<D, R, W, M>) -> impl Iterator<Item = &Effect> {
    scene.documents.values().flat_map(|stored| &stored.entity.effects)
}

fn count_of<D, R, W, M>(scene: &Scene<D, R, W, M>, subject: Subject) -> usize {
    effects(scene).filter(|effect| effect.subject == subject).count()
}

/// At most once: no message has changed the state twice.
fn twice<D, R, W, M>(scene: &Scene<D, R, W, M>) -> Option<String> {
    let stored = scene.documents.values().find(|stored| {
        let effects = &stored.entity.effects;
        effects
            .iter()
            .any(|effect| effects.iter().filter(|other| other.subject == effect.subject).count() > 1)
    })?;
    let all: Vec<String> = stored.entity.effects.iter().map(ToString::to_string).collect();
    Some(format!("{TWICE}: {}", all.join(", then ")))
}

/// No ghosts, and one attempt: what was sent tells of a change that was committed, by the attempt that committed it.
fn untrue<D, R, W, M>(scene: &Scene<D, R, W, M>) -> Option<String> {
    let seats = &scene.documents[&Place::Seats].entity.effects;
    for message in scene.queue.keys() {
        let Subject::Reserved(guest) = message.subject else { continue };
        let committed = seats.iter().find(|effect| effect.subject == Subject::Reserve(guest));
        match committed {
            Some(effect) if effect.seat == message.seat && effect.code == message.code => {}
            Some(effect) => return Some(format!("{UNTRUE}: {message} was sent, but {effect}")),
            None => return Some(format!("{GHOST}: {message} was sent, and nothing was committed")),
        }
    }
    None
}

/// At least once: at rest, every request has taken effect, and so has every message that follows from it.
fn lost<D, R, W, M>(world: &World, scene: &Scene<D, R, W, M>) -> Option<String> {
    for request in &world.requests {
        if count_of(scene, *request) == 0 {
            return Some(format!("{LOST}: \"{request}\" never took effect"));
        }
        if let (Subject::Reserve(guest), Outputs::Sent) = (request, world.outputs)
            && guest.is_invoiced()
            && count_of(scene, Subject::Reserved(*guest)) == 0
        {
            return Some(format!("{LOST}: {guest:?} has a seat, and nobody will ever write the invoice"));
        }
    }
    None
}

/// How a violation of "at most once" begins.
pub const TWICE: &str = "processed twice";
/// How a violation of "no ghosts" begins.
pub const GHOST: &str = "ghost message";
/// How a violation of "one attempt" begins.
pub const UNTRUE: &str = "message of another attempt";
/// How a violation of "at least once" begins.
pub const LOST: &str = "message lost";
