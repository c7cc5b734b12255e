//! Exhaustive breadth-first search through the states of any model: the shipped state machine in a small world, or a
//! technique of the gallery. It knows nothing of messages; what a state is, which steps lead on and what must never be is
//! said by a [`Model`]. The first violation that it meets is one of the shortest that there are.
//!
//! Two things are checked besides what the model says of each state: what must hold where nothing can move any more, and
//! that from every state a good end can still be reached, so that no cycle is a trap.

use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use indexmap::IndexSet;

/// Something that moves from state to state.
pub trait Model {
    /// All that there is to know at one moment. Equal states are visited once.
    type State: Clone + Eq + Hash;
    /// What leads from one state to another.
    type Step: Clone;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Adds everything that can happen next to `found`.
    fn successors(&self, state: &Self::State, found: &mut Vec<Transition<Self::Step, Self::State>>);

    /// What is wrong with this state, wherever it is met.
    fn violation(&self, state: &Self::State) -> Option<String>;

    /// What is wrong with this state, given that nothing but faults can happen any more.
    fn violation_when_quiet(&self, state: &Self::State) -> Option<String>;

    /// The representative of all states that differ only in the names of things that are alike (symmetry reduction).
    fn canonical(&self, state: Self::State) -> Self::State {
        state
    }

    /// One line for a reader: who did what, and what changed by it.
    fn describe(&self, before: &Self::State, step: &Self::Step, after: &Self::State) -> String;
}

/// One way on from a state.
#[derive(Clone, Debug)]
pub struct Transition<Step, State> {
    /// What happens.
    pub step: Step,
    /// Whether it is work that will be done in the end, or something that need not happen.
    pub kind: Kind,
    /// Where it leads.
    pub next: State,
    /// What is wrong with the step itself, if anything.
    pub violation: Option<String>,
}

/// Whether a system that does nothing more has come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work: as long as there is any, the system is not at rest.
    Progress,
    /// A fault, or something else that may happen and may not.
    Fault,
}

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most distinct states. A search that meets more of them is not exhaustive and says so.
    pub states_max: usize,
    /// Whether to check that from every state a good end can be reached: takes four bytes a transition.
    pub liveness: Liveness,
}

/// Whether traps are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// From every state, a state must be reachable where only faults can happen.
    Checked,
    /// No.
    Ignored,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { states_max: 100_000_000, liveness: Liveness::Checked }
    }
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Distinct states, after symmetry reduction.
    pub states: usize,
    /// Steps between them, those into known states included.
    pub transitions: u64,
    /// Most steps from the beginning to any state.
    pub depth: usize,
    /// States in which nothing but faults can happen.
    pub quiet_states: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every state was visited and nothing is wrong with any.
    Exhausted,
    /// The bound on states was met; nothing is wrong with those visited.
    BoundReached,
    /// Something is wrong.
    Violated(Story),
}

/// A way into a violation, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// What is wrong.
    pub violation: String,
    /// The steps from the beginning, one line each.
    pub steps: Vec<String>,
    /// The same steps as choices among the successors of each state, for [`replay`].
    pub choices: Vec<usize>,
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>4}  {step}", number + 1)?;
        }
        writeln!(f, "  =>  {}", self.violation)?;
        let choices: Vec<String> = self.choices.iter().map(ToString::to_string).collect();
        write!(f, "      replay: {}", choices.join("."))
    }
}

/// Walks one way, given as a choice among the successors of each state, and tells it. `None` if a choice does not exist:
/// then the model has changed since.
///
/// The violation is that of the last step or of the last state; empty if there is none.
pub fn replay<M: Model>(model: &M, choices: &[usize]) -> Option<Story> {
    let mut before = model.initial();
    let mut steps = Vec::with_capacity(choices.len());
    let mut violation = model.violation(&before);
    for choice in choices {
        let mut found = Vec::new();
        model.successors(&before, &mut found);
        if *choice >= found.len() {
            return None;
        }
        let way = found.swap_remove(*choice);
        steps.push(model.describe(&before, &way.step, &way.next));
        violation = way.violation.or_else(|| model.violation(&way.next));
        before = way.next;
    }
    if violation.is_none() {
        let mut found = Vec::new();
        model.successors(&before, &mut found);
        if found.iter().all(|way| way.kind == Kind::Fault || way.next == before) {
            violation = model.violation_when_quiet(&before);
        }
    }
    Some(Story { violation: violation.unwrap_or_default(), steps, choices: choices.to_vec() })
}

/// Visits every state that the model can reach, the nearest first.
///
/// `watch` is told from time to time how many states have been found; it may print.
///
/// # Panics
/// If a bound allows more than 2^32 states.
pub fn search<M: Model>(model: &M, bounds: Bounds, mut watch: impl FnMut(usize)) -> Findings {
    let started = Instant::now();
    let mut search = Search {
        model,
        states: IndexSet::default(),
        parents: Vec::new(),
        edges: Edges::default(),
        transitions: 0,
        quiet: Vec::new(),
        depth: 0,
    };
    let outcome = search.run(bounds, &mut watch);
    Findings {
        states: search.states.len(),
        transitions: search.transitions,
        depth: search.depth,
        quiet_states: search.quiet.len(),
        elapsed: started.elapsed(),
        outcome,
    }
}

/// States are told of about this often.
const WATCH_EVERY: usize = 1 << 16;

struct Search<'a, M: Model> {
    model: &'a M,
    /// In the order in which they were found.
    states: IndexSet<M::State, RandomState>,
    parents: Vec<u32>,
    edges: Edges,
    transitions: u64,
    /// States where only faults can happen, by number.
    quiet: Vec<u32>,
    depth: usize,
}

/// Where each state leads, by number.
#[derive(Default)]
struct Edges {
    /// Where the targets of each state begin.
    starts: Vec<u64>,
    targets: Vec<u32>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, bounds: Bounds, watch: &mut impl FnMut(usize)) -> Outcome {
        assert!(u32::try_from(bounds.states_max).is_ok(), "states are numbered with 32 bits");
        let initial = self.model.canonical(self.model.initial());
        if let Some(violation) = self.model.violation(&initial) {
            return Outcome::Violated(Story { violation, steps: Vec::new(), choices: Vec::new() });
        }
        self.states.insert(initial);
        self.parents.push(0);
        let mut found = Vec::new();
        let mut current = 0;
        let mut level_end = 1;
        while current < self.states.len() {
            if current == level_end {
                level_end = self.states.len();
                self.depth += 1;
            }
            if current % WATCH_EVERY == 0 {
                watch(self.states.len());
            }
            if let Some(story) = self.expand(current, bounds, &mut found) {
                return Outcome::Violated(story);
            }
            if self.states.len() > bounds.states_max {
                return Outcome::BoundReached;
            }
            current += 1;
        }
        match (bounds.liveness, self.trapped()) {
            (Liveness::Checked, Some(state)) => {
                let violation = "from here on it never comes to rest, whatever happens".to_owned();
                Outcome::Violated(self.story_of(state, violation).0)
            }
            _ => Outcome::Exhausted,
        }
    }

    fn expand(
        &mut self,
        current: usize,
        bounds: Bounds,
        found: &mut Vec<Transition<M::Step, M::State>>,
    ) -> Option<Story> {
        let number = number(current);
        let state = self.states.get_index(current).expect("only known states are expanded").clone();
        found.clear();
        self.model.successors(&state, found);
        if bounds.liveness == Liveness::Checked {
            self.edges.starts.push(self.edges.targets.len() as u64);
        }
        let mut is_quiet = true;
        for Transition { kind, next, violation, .. } in found.drain(..) {
            self.transitions += 1;
            let next = self.model.canonical(next);
            // A step that changes nothing is no progress.
            is_quiet &= kind == Kind::Fault || next == state;
            let (place, is_new) = self.states.insert_full(next);
            if is_new {
                self.parents.push(number);
            }
            if bounds.liveness == Liveness::Checked {
                self.edges.targets.push(self::number(place));
            }
            let violation = violation.or_else(|| {
                let next = self.states.get_index(place).expect("it was just inserted");
                if is_new { self.model.violation(next) } else { None }
            });
            if let Some(violation) = violation {
                return Some(self.story_of_step(current, place, violation));
            }
        }
        if is_quiet {
            self.quiet.push(number);
            if let Some(violation) = self.model.violation_when_quiet(&state) {
                return Some(self.story_of(current, violation).0);
            }
        }
        None
    }

    /// A state from which no quiet state can be reached, if there is one; the nearest to the beginning.
    fn trapped(&self) -> Option<usize> {
        let count = self.states.len();
        if self.edges.starts.len() != count {
            return None;
        }
        let mut incoming = vec![0_u64; count + 1];
        for target in &self.edges.targets {
            incoming[*target as usize + 1] += 1;
        }
        for place in 0..count {
            incoming[place + 1] += incoming[place];
        }
        let mut sources = vec![0_u32; self.edges.targets.len()];
        let mut next = incoming.clone();
        for source in 0..count {
            for target in self.edges.of(source) {
                let slot = &mut next[*target as usize];
                sources[usize::try_from(*slot).expect("it indexes a vector")] = number(source);
                *slot += 1;
            }
        }
        let mut can_rest = vec![false; count];
        let mut waiting = self.quiet.clone();
        for state in &waiting {
            can_rest[*state as usize] = true;
        }
        while let Some(state) = waiting.pop() {
            let state = state as usize;
            let range = usize::try_from(incoming[state]).expect("it indexes a vector")
                ..usize::try_from(incoming[state + 1]).expect("it indexes a vector");
            for source in &sources[range] {
                if !std::mem::replace(&mut can_rest[*source as usize], true) {
                    waiting.push(*source);
                }
            }
        }
        can_rest.iter().position(|can| !can)
    }

    /// The way to a state, and the state at its end with everybody's own name. It is walked again without symmetry reduction,
    /// so that nobody changes names on the way.
    fn story_of(&self, state: usize, violation: String) -> (Story, M::State) {
        let mut chain = vec![state];
        while let Some(&first) = chain.last().filter(|first| **first != 0) {
            chain.push(self.parents[first] as usize);
        }
        let mut story = Story { violation, steps: Vec::new(), choices: Vec::new() };
        let mut before = self.model.initial();
        for place in chain.iter().rev().skip(1) {
            let target = self.states.get_index(*place).expect("parents are known states");
            let leads_there = |way: &Transition<M::Step, M::State>| {
                way.violation.is_none() && self.model.canonical(way.next.clone()) == *target
            };
            before = self.tell_step(&mut story, &before, leads_there);
        }
        (story, before)
    }

    /// The way to a violation that lies in a step, or in the state where it leads.
    fn story_of_step(&self, current: usize, next: usize, violation: String) -> Story {
        let (mut story, before) = self.story_of(current, violation);
        let target = self.states.get_index(next).expect("it was just inserted");
        let violation = story.violation.clone();
        self.tell_step(&mut story, &before, |way| match &way.violation {
            Some(known) => *known == violation,
            None => {
                self.model.canonical(way.next.clone()) == *target && self.model.violation(target).is_some()
            }
        });
        story
    }

    fn tell_step(
        &self,
        story: &mut Story,
        before: &M::State,
        is_taken: impl Fn(&Transition<M::Step, M::State>) -> bool,
    ) -> M::State {
        let mut found = Vec::new();
        self.model.successors(before, &mut found);
        let choice =
            found.iter().position(is_taken).expect("a deterministic model makes the same steps again");
        let Transition { step, next, .. } = found.swap_remove(choice);
        story.steps.push(self.model.describe(before, &step, &next));
        story.choices.push(choice);
        next
    }
}

impl Edges {
    fn of(&self, source: usize) -> &[u32] {
        let start = usize::try_from(self.starts[source]).expect("it indexes a vector");
        let end = self
            .starts
            .get(source + 1)
            .map_or(self.targets.len(), |end| usize::try_from(*end).expect("it indexes a vector"));
        &self.targets[start..end]
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("the bound on states was checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to a limit, by one or by two; a fault may set it back once.
    struct Counter {
        limit: u8,
        bad: Option<u8>,
        trap: Option<u8>,
    }

    impl Model for Counter {
        type State = (u8, bool);
        type Step = &'static str;

        fn initial(&self) -> Self::State {
            (0, false)
        }

        fn successors(&self, state: &Self::State, found: &mut Vec<Transition<Self::Step, Self::State>>) {
            let (value, was_reset) = *state;
            let mut add = |step, kind, next| found.push(Transition { step, kind, next, violation: None });
            if self.trap == Some(value) {
                add("stumble", Kind::Progress, (200, was_reset));
            } else if value == 200 {
                add("stagger", Kind::Progress, (201, was_reset));
            } else if value == 201 {
                add("stagger", Kind::Progress, (200, was_reset));
            } else {
                for by in [1, 2] {
                    if value + by <= self.limit {
                        add(if by == 1 { "one" } else { "two" }, Kind::Progress, (value + by, was_reset));
                    }
                }
            }
            if !was_reset {
                add("reset", Kind::Fault, (0, true));
            }
        }

        fn violation(&self, state: &Self::State) -> Option<String> {
            (self.bad == Some(state.0)).then(|| "bad".to_owned())
        }

        fn violation_when_quiet(&self, state: &Self::State) -> Option<String> {
            (state.0 != self.limit).then(|| "short".to_owned())
        }

        fn describe(&self, _: &Self::State, step: &Self::Step, after: &Self::State) -> String {
            format!("{step} -> {}", after.0)
        }
    }

    #[test]
    fn every_state_is_visited_once() {
        let findings = search(&Counter { limit: 10, bad: None, trap: None }, Bounds::default(), |_| ());
        assert_eq!((findings.states, findings.quiet_states), (22, 2));
        assert_eq!(findings.outcome, Outcome::Exhausted);
        assert_eq!(findings.depth, 6, "one reset and five times two, or the other way round");
    }

    #[test]
    fn a_violation_comes_with_a_shortest_story() {
        let findings = search(&Counter { limit: 10, bad: Some(7), trap: None }, Bounds::default(), |_| ());
        let Outcome::Violated(story) = findings.outcome else { panic!("7 can be reached") };
        assert_eq!((story.violation.as_str(), story.steps.len()), ("bad", 4));
        assert_eq!(story.steps.last().map(|line| line.ends_with("-> 7")), Some(true));
        let again = replay(&Counter { limit: 10, bad: Some(7), trap: None }, &story.choices);
        assert_eq!(again, Some(story), "the choices lead the same way");
        assert_eq!(replay(&Counter { limit: 10, bad: Some(7), trap: None }, &[9]), None);
    }

    #[test]
    fn a_cycle_without_an_exit_is_a_trap() {
        let trap = Counter { limit: 10, bad: None, trap: Some(9) };
        let findings = search(&trap, Bounds { liveness: Liveness::Checked, ..Bounds::default() }, |_| ());
        let Outcome::Violated(story) = findings.outcome else { panic!("9 leads into a cycle") };
        assert!(story.violation.contains("never comes to rest"));
        let findings = search(&trap, Bounds { liveness: Liveness::Ignored, ..Bounds::default() }, |_| ());
        assert_eq!(findings.outcome, Outcome::Exhausted);
    }

    #[test]
    fn a_bound_on_states_is_kept_and_reported() {
        let model = Counter { limit: 100, bad: None, trap: None };
        let findings = search(&model, Bounds { states_max: 20, ..Bounds::default() }, |_| ());
        assert_eq!(findings.outcome, Outcome::BoundReached);
    }
}
