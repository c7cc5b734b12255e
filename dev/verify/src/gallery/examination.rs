//! One technique examined: searched for a story that breaks it, and measured on a run where nothing goes wrong. All figures
//! come from the machine; only the words about it are written by hand, in [`super::Exhibit`].

use std::fmt;

use super::Exhibit;
use super::desk::{Call, Notes};
use super::scene::Errand;
use super::technique::{SceneOf, Technique};
use super::world::{Kept, Step, Trial, World};
use crate::explorer::{Bounds, Kind, Liveness, Model, Outcome, Story, search};

/// Most states that are visited for one technique: more than any has.
const STATES_MAX: usize = 20_000_000;

/// What was found out about a technique.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Whether it holds.
    pub verdict: Verdict,
    /// Distinct states that were visited: all there are, or those up to the first violation.
    pub states: usize,
    /// In which world.
    pub world: String,
    /// Calls to the store, one after the other, that one message needs when nothing goes wrong and nothing is cached.
    pub trips: Trips,
    /// What is stored for each message that was processed, when nothing goes wrong.
    pub growth: Growth,
    /// Most entries that may be left over after a crash or a stall, besides those of [`Examination::growth`]. `None`: not
    /// looked for, because it breaks.
    pub garbage: Option<usize>,
}

/// Whether a technique holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every state was visited, and nothing is wrong with any.
    Holds,
    /// There is a story that breaks it; this is a shortest one.
    Breaks(Story),
    /// There are more states than were visited.
    Undecided,
}

/// Calls to the store, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trips {
    /// Until the outgoing message is on its way. `None`: there is none.
    pub before_dispatch: Option<usize>,
    /// Until the incoming message is acknowledged.
    pub until_acknowledged: usize,
    /// Later, once for a whole burst of messages.
    pub afterwards: usize,
}

/// Entries stored for processed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// For this many messages.
    pub messages: usize,
    /// Entries in the entities' documents.
    pub in_documents: usize,
    /// Records besides.
    pub in_records: usize,
    /// Both, once whatever has an age has reached it.
    pub after_a_while: usize,
}

/// Examines a technique.
pub fn examine<T: Technique>(technique: &T) -> Examination {
    let world = technique.world();
    let trial = Trial::new(technique, world.clone());
    let findings = search(&trial, Bounds { states_max: STATES_MAX, liveness: Liveness::Checked }, |_| ());
    let verdict = match findings.outcome {
        Outcome::Exhausted => Verdict::Holds,
        Outcome::BoundReached => Verdict::Undecided,
        Outcome::Violated(story) => Verdict::Breaks(story),
    };
    let run = undisturbed_run(technique, world.undisturbed());
    let garbage = (verdict == Verdict::Holds).then(|| trial.kept_most() - run.kept.total());
    Examination {
        verdict,
        states: findings.states,
        world: world.to_string(),
        trips: run.trips,
        growth: growth(technique, &world, &run),
        garbage,
    }
}

/// What one run came to.
struct Run {
    trips: Trips,
    kept: Kept,
    kept_after_a_while: Kept,
}

fn growth<T: Technique>(technique: &T, world: &World, run: &Run) -> Growth {
    let busier = undisturbed_run(technique, world.undisturbed().busier());
    Growth {
        messages: World::MORE_REQUESTS.len() * world.messages_per_request(),
        in_documents: busier.kept.in_documents - run.kept.in_documents,
        in_records: busier.kept.in_records - run.kept.in_records,
        after_a_while: busier.kept_after_a_while.total() - run.kept_after_a_while.total(),
    }
}

/// One worker does everything there is to be done. Calls are counted for the first request, and for the first visit.
fn undisturbed_run<T: Technique>(technique: &T, world: World) -> Run {
    let first = world.requests[0];
    let trial = Trial::new(technique, world);
    let mut scene = trial.initial();
    let mut trips = Trips::default();
    let mut visited = None;
    while let Some(step) = next(&trial, &scene) {
        let errand = scene.workers[0].job.as_ref().map(|job| job.errand);
        let made = trial.make(&scene, &step, Notes::Silent);
        match (errand, made.call) {
            (Some(Errand::Message(message)), Some(Call::Store)) if message.subject == first => {
                trips.until_acknowledged += 1;
            }
            (Some(Errand::Message(message)), Some(Call::Send)) if message.subject == first => {
                trips.before_dispatch = Some(trips.until_acknowledged);
            }
            (Some(Errand::Visit(place)), Some(Call::Store)) if *visited.get_or_insert(place) == place => {
                trips.afterwards += 1;
            }
            _ => {}
        }
        scene = made.scene;
    }
    let kept = trial.kept(&scene);
    technique.age(&mut scene);
    Run { trips, kept, kept_after_a_while: trial.kept(&scene) }
}

fn next<T: Technique>(trial: &Trial<'_, T>, scene: &SceneOf<T>) -> Option<Step> {
    let mut found = Vec::new();
    trial.successors(scene, &mut found);
    found.into_iter().find(|way| way.kind == Kind::Progress).map(|way| way.step)
}

impl Examination {
    /// All that was found out, for a reader.
    pub fn report(&self, exhibit: &Exhibit) -> String {
        let mut lines = Vec::new();
        match &self.verdict {
            Verdict::Holds => lines.push(format!("HOLDS in all of its {} states", self.states)),
            Verdict::Undecided => lines.push(format!("UNDECIDED after {} states", self.states)),
            Verdict::Breaks(story) => {
                lines.push(format!("BREAKS after {} steps", story.steps.len()));
                let steps = story.steps.iter().enumerate();
                lines.extend(steps.map(|(number, step)| format!("{:>4}  {step}", number + 1)));
                lines.push(format!("  =>  {}", story.violation));
            }
        }
        lines.push(format!("world:   {}", self.world));
        lines.push(format!("trips:   {}", self.trips));
        lines.push(format!("left:    {}", self.growth));
        if self.garbage.is_some() {
            lines.push(format!("garbage: {}", self.garbage_text()));
        }
        lines.push(format!("needs:   {}", exhibit.needs));
        lines.join("\n") + "\n"
    }

    /// What may be left over after faults, for a reader.
    pub fn garbage_text(&self) -> String {
        match self.garbage {
            None => "not looked for".to_owned(),
            Some(0) => "none".to_owned(),
            Some(1) => "up to 1 entry".to_owned(),
            Some(most) => format!("up to {most} entries"),
        }
    }
}

impl fmt::Display for Trips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before_dispatch {
            Some(trips) => write!(f, "{trips} before dispatch, {} in all", self.until_acknowledged)?,
            None => write!(f, "{} in all; nothing is sent", self.until_acknowledged)?,
        }
        match self.afterwards {
            0 => Ok(()),
            trips => write!(f, "; {trips} later for a whole burst"),
        }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.in_documents + self.in_records;
        if total == 0 {
            return f.write_str("nothing");
        }
        let each = |entries: usize| match (entries / self.messages, entries % self.messages) {
            (whole, 0) => whole.to_string(),
            _ => format!("{entries}/{}", self.messages),
        };
        match (self.in_documents, self.in_records) {
            (entries, 0) => write!(f, "{} entry in the entity", each(entries))?,
            (0, records) => write!(f, "{} record", each(records))?,
            (entries, records) => {
                write!(f, "{} entry in the entity, {} record", each(entries), each(records))?;
            }
        }
        match self.after_a_while {
            0 => f.write_str(", until it is old"),
            left if left == total => f.write_str(", for ever"),
            left => write!(f, ", of which {} for ever", each(left)),
        }
    }
}
