//! Several contenders in one scenario, in turns: each round runs all of them once, in an order that is drawn anew, so that what disturbs
//! the machine disturbs all alike. A first, shorter round warms the machine up and is forgotten.

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::contender::Contender;
use super::run::{Outcome, run};
use super::scenario::Scenario;
use super::statistics::Spread;

/// A round that is forgotten has this part of the messages.
const WARM_UP_PART: u64 = 8;

/// What contenders have shown in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The scenario.
    pub scenario: Scenario,
    /// By contender, in the order in which they were named.
    pub contenders: Vec<Record>,
}

/// What one contender has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Where it comes from.
    pub source: String,
    /// Its runs, one a round.
    pub runs: Vec<Outcome>,
}

impl Record {
    /// A figure over all rounds.
    pub fn spread(&self, figure: impl Fn(&Outcome) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure))
    }

    /// Messages lost or doubled, over all rounds.
    pub fn wrong(&self) -> (u64, u64) {
        let sum = |count: fn(&Outcome) -> u64| self.runs.iter().map(count).sum();
        (sum(|run| run.audit.lost + run.audit.mixed_up), sum(|run| run.audit.doubled))
    }

    /// Whether every run was exact.
    pub fn is_exact(&self) -> bool {
        self.runs.iter().all(|run| run.audit.is_exact())
    }
}

impl Comparison {
    /// A scenario in which nobody has run yet.
    pub fn empty(scenario: &Scenario) -> Self {
        Self { scenario: scenario.clone(), contenders: Vec::new() }
    }

    /// A contender's record.
    pub fn of(&self, name: &str) -> Option<&Record> {
        self.contenders.iter().find(|record| record.name == name)
    }

    /// One contender's figure over another's, round by round.
    pub fn ratio(&self, of: &str, to: &str, figure: impl Fn(&Outcome) -> f64) -> Option<Spread> {
        let figures =
            |name: &str| -> Option<Vec<f64>> { Some(self.of(name)?.runs.iter().map(&figure).collect()) };
        Some(Spread::of_ratios(&figures(of)?, &figures(to)?))
    }
}

/// Runs contenders in turns.
///
/// # Errors
/// As [`run`].
pub async fn compare(
    scenario: &Scenario,
    contenders: &[Box<dyn Contender>],
    rounds: usize,
    mut tell: impl FnMut(&Scenario, &Outcome),
) -> Result<Comparison, BenchError> {
    let records = contenders.iter().map(|contender| Record {
        name: contender.name().to_owned(),
        title: contender.title().to_owned(),
        source: contender.source().to_owned(),
        runs: Vec::new(),
    });
    let mut comparison = Comparison { scenario: scenario.clone(), contenders: records.collect() };
    let warm_up = Scenario { messages: (scenario.messages / WARM_UP_PART).max(1), ..scenario.clone() };
    for contender in contenders {
        run(&**contender, &warm_up).await?;
    }
    let mut random = fastrand::Rng::with_seed(scenario.seed);
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        random.shuffle(&mut order);
        let scenario = Scenario { seed: scenario.seed + round as u64, ..scenario.clone() };
        for place in order {
            let outcome = run(&*contenders[place], &scenario).await?;
            tell(&scenario, &outcome);
            comparison.contenders[place].runs.push(outcome);
        }
    }
    Ok(comparison)
}
