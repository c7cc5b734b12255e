//! When a fault strikes: by seeded chance, by order ("the next update"), or as a function of the request says. The same
//! seed and the same order of calls give the same faults. What a fault looks like is in [`crate::fault`].

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::fault::Fault;
use crate::operation::Operation;

/// How many rules a plan may have: each is drawn for each call.
pub const RULES_MAX: usize = 64;
/// How many faults may be ordered ahead.
pub const ORDERED_MAX: usize = 1024;

/// What goes wrong how often, and how long calls take.
///
/// ```
/// use tollgate_dynamodb_emulator::{Fault, FaultPlan, Throttling};
/// let storm = FaultPlan::seeded(42).inject(Fault::Throttle(Throttling::ProvisionedThroughput), 0.5);
/// ```
#[derive(Clone, Debug)]
pub struct FaultPlan {
    random: fastrand::Rng,
    rules: Vec<Rule>,
    latency: RangeInclusive<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    operation: Option<Operation>,
    fault: Fault,
    rate: f64,
}

/// A call as the hook of [`crate::InProcessDynamoDb::decide_faults`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WireCall<'a> {
    /// What is called.
    pub operation: Operation,
    /// The body of the request: JSON.
    pub body: &'a [u8],
    /// How many calls of this operation came before.
    pub earlier: u64,
}

impl FaultPlan {
    /// Nothing goes wrong, and calls take no time but the emulator's.
    pub fn none() -> Self {
        Self::seeded(0)
    }

    /// Nothing goes wrong until more is said. Print the seed where a test fails: it replays the faults.
    pub fn seeded(seed: u64) -> Self {
        let latency = Duration::ZERO..=Duration::ZERO;
        Self { random: fastrand::Rng::with_seed(seed), rules: Vec::new(), latency }
    }

    /// Injects `fault` with probability `rate` (0 to 1) into each call of an operation that it can happen to.
    ///
    /// # Panics
    /// If there are [`RULES_MAX`] rules already.
    #[must_use]
    pub fn inject(self, fault: Fault, rate: f64) -> Self {
        self.with(Rule { operation: None, fault, rate })
    }

    /// Injects `fault` with probability `rate` (0 to 1) into each call of `operation`.
    ///
    /// # Panics
    /// If the fault can't happen to the operation ([`Fault::applies_to`]), or there are [`RULES_MAX`] rules already.
    #[must_use]
    pub fn inject_into(self, operation: Operation, fault: Fault, rate: f64) -> Self {
        assert!(fault.applies_to(operation), "{fault:?} can't happen to {operation}: choose another fault");
        self.with(Rule { operation: Some(operation), fault, rate })
    }

    /// Makes each call take a time drawn from `range`: half of it before its effect, half after, on tokio's clock.
    #[must_use]
    pub fn latency(mut self, range: RangeInclusive<Duration>) -> Self {
        self.latency = range;
        self
    }

    fn with(mut self, rule: Rule) -> Self {
        assert!(self.rules.len() < RULES_MAX, "a fault plan has at most {RULES_MAX} rules");
        self.rules.push(rule);
        self
    }

    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        for rule in &self.rules {
            let concerned =
                rule.operation.is_none_or(|of| of == operation) && rule.fault.applies_to(operation);
            // A rate of 0 draws nothing, so that switching one fault off leaves the sequence of the others as it was.
            if concerned && rule.rate > 0.0 && self.random.f64() < rule.rate {
                return Some(rule.fault);
            }
        }
        None
    }

    fn draw_latency(&mut self) -> Duration {
        let (shortest, longest) = (*self.latency.start(), *self.latency.end());
        match longest.checked_sub(shortest) {
            None | Some(Duration::ZERO) => shortest,
            Some(spread) => shortest + spread.mul_f64(self.random.f64()),
        }
    }
}

type Decide = Box<dyn FnMut(WireCall<'_>) -> Option<Fault> + Send>;

/// The plan at work, with what was ordered for particular calls.
pub(crate) struct FaultSource {
    plan: FaultPlan,
    ordered: VecDeque<(Operation, Fault)>,
    decide: Option<Decide>,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) fault: Option<Fault>,
    pub(crate) latency: Duration,
}

impl FaultSource {
    pub(crate) fn new() -> Self {
        Self { plan: FaultPlan::none(), ordered: VecDeque::new(), decide: None }
    }

    pub(crate) fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
    }

    pub(crate) fn set_decide(&mut self, decide: Option<Decide>) {
        self.decide = decide;
    }

    pub(crate) fn order(&mut self, operation: Operation, fault: Fault) {
        assert!(fault.applies_to(operation), "{fault:?} can't happen to {operation}: choose another fault");
        assert!(self.ordered.len() < ORDERED_MAX, "at most {ORDERED_MAX} faults can be ordered ahead");
        self.ordered.push_back((operation, fault));
    }

    pub(crate) fn forget_ordered(&mut self) {
        self.ordered.clear();
    }

    /// Ordered faults come first, then the hook's, then the plan's.
    pub(crate) fn fate(&mut self, call: WireCall<'_>) -> Fate {
        let latency = self.plan.draw_latency();
        let ordered = self.ordered.iter().position(|(operation, _)| *operation == call.operation);
        let fault = ordered
            .and_then(|at| self.ordered.remove(at))
            .map(|(_, fault)| fault)
            .or_else(|| self.decide.as_mut().and_then(|decide| decide(call)))
            .filter(|fault| fault.applies_to(call.operation))
            .or_else(|| self.plan.draw(call.operation));
        Fate { fault, latency }
    }

    /// A number below `bound`, by the plan's seed.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.plan.random.usize(..bound) }
    }
}

impl fmt::Debug for FaultSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultSource").field("plan", &self.plan).finish_non_exhaustive()
    }
}
