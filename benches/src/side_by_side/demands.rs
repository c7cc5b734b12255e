//! What must be shown: ratios with their targets, reached or missed. Nothing here measures; a demand whose figures are not there says so.

use serde::{Deserialize, Serialize};

use super::rounds::Comparison;
use super::run::Outcome;
use super::statistics::Spread;
use super::suite::Results;

/// One demand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// What is demanded, for people.
    pub what: String,
    /// The target.
    pub target: Target,
    /// What was measured. `None`: it was not.
    pub measured: Option<Spread>,
    /// Whether `--check` fails if it is missed, or it is there to be seen.
    pub weight: Weight,
}

/// On which side of a figure the measured one must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

/// What a missed demand leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// The check fails.
    Demanded,
    /// It is told.
    Told,
}

/// Whether a demand is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The median is on the right side.
    Reached,
    /// It is not.
    Missed,
    /// There is no figure.
    NotMeasured,
}

impl Demand {
    /// Whether it is met, by the median.
    pub fn verdict(&self) -> Verdict {
        let Some(measured) = self.measured else { return Verdict::NotMeasured };
        let reached = match self.target {
            Target::AtLeast(least) => measured.median >= least,
            Target::AtMost(most) => measured.median <= most,
        };
        if reached { Verdict::Reached } else { Verdict::Missed }
    }
}

/// All demands, with what was measured for them.
pub fn demands(results: &Results) -> Vec<Demand> {
    let rate = |outcome: &Outcome| outcome.rate;
    let p50 = |outcome: &Outcome| outcome.latency.p50;
    let mut demands = Vec::new();
    let mut demand = |what: &str, target: Target, measured: Option<Spread>, weight: Weight| {
        demands.push(Demand { what: what.to_owned(), target, measured, weight });
    };
    let to_rivals = [("published-token", 5.0), ("outbox", 2.5), ("naive", 1.0)];
    for (rival, target) in to_rivals {
        let what = format!("messages/s to {rival}: 5 ms, 64 connections, 1,000 partitions, 1 output");
        let measured = results.headline.ratio("tollgate", rival, rate);
        demand(&what, Target::AtLeast(target), measured, Weight::Demanded);
    }
    for (rival, target) in to_rivals {
        let what = format!("the same with only 64 messages in flight, to {rival}");
        let measured = results.same_window.ratio("tollgate", rival, rate);
        demand(&what, Target::AtLeast(target), measured, Weight::Told);
    }
    for (rival, target) in to_rivals {
        let what = format!("the same with each deletion a call of its own, to {rival}");
        let measured = results.single_deletions.ratio("tollgate", rival, rate);
        demand(&what, Target::AtLeast(target), measured, Weight::Told);
    }
    let measured = results.solo.ratio("tollgate", "published-token", p50);
    demand(
        "latency p50, one message at a time, to published-token",
        Target::AtMost(0.4),
        measured,
        Weight::Demanded,
    );
    let measured = results.hot.ratio("tollgate", "naive", rate);
    demand(
        "messages/s on one hot partition to naive with retries",
        Target::AtLeast(20.0),
        measured,
        Weight::Demanded,
    );
    let by_formula =
        |comparison: &Comparison| comparison.ratio("tollgate", "outbox", |outcome| outcome.write_units);
    let reported = |comparison: &Comparison| {
        comparison.ratio("tollgate", "outbox", |outcome| outcome.reported.write_units.unwrap_or(f64::NAN))
    };
    match &results.dynamodb {
        Some(dynamodb) => demand(
            "write units a message on DynamoDB to outbox, as the emulator reports them",
            Target::AtMost(0.5),
            reported(dynamodb),
            Weight::Demanded,
        ),
        None => demand(
            "write units a message on DynamoDB to outbox, by the published rules (no emulator in this build)",
            Target::AtMost(0.5),
            by_formula(&results.headline),
            Weight::Demanded,
        ),
    }
    let measured = results.headline.ratio("tollgate", "outbox", |outcome| outcome.request_units);
    demand(
        "request units a message on Cosmos DB to outbox, deletions at its end of life counted",
        Target::AtMost(1.0),
        measured,
        Weight::Demanded,
    );
    let measured = results.headline.ratio("tollgate", "outbox-document", |outcome| outcome.request_units);
    demand("the same to an outbox of one document a message", Target::AtMost(1.0), measured, Weight::Told);
    let last =
        results.growth.lines.iter().find(|(name, _)| name == "tollgate").and_then(|(_, line)| line.last());
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let left = last.map(|(_, outcome)| Spread::of([outcome.left_deduplication_bytes as f64]));
    let messages = last.map_or(0.0, |(messages, _)| *messages);
    let what = format!("bytes of deduplication data after {messages:.0} messages, by token");
    demand(&what, Target::AtMost(0.0), left, Weight::Demanded);
    let measured = results.duplicates.ratio("tollgate", "tollgate-forgetful", rate);
    demand(
        "messages/s with 90 % copies to the same without the negative cache",
        Target::AtLeast(5.0),
        measured,
        Weight::Demanded,
    );
    let inexact = inexact(results);
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let inexact = Spread::of([inexact.len() as f64]);
    demand(
        "contenders that promised exactly once and were not exact",
        Target::AtMost(0.0),
        Some(inexact),
        Weight::Demanded,
    );
    demands
}

/// Contenders that promised exactly once, and lost or doubled messages.
fn inexact(results: &Results) -> Vec<String> {
    let comparisons = [
        &results.headline,
        &results.same_window,
        &results.single_deletions,
        &results.solo,
        &results.open_loop,
        &results.hot,
        &results.duplicates,
        &results.in_memory,
    ];
    let records =
        comparisons.into_iter().chain(&results.dynamodb).flat_map(|comparison| &comparison.contenders);
    let inexact = records.filter(|record| record.name != "naive" && !record.is_exact());
    inexact.map(|record| record.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(target: Target, median: f64) -> Demand {
        let measured = Some(Spread { median, min: 0.0, max: 9.0 });
        Demand { what: String::new(), target, measured, weight: Weight::Demanded }
    }

    #[test]
    fn a_demand_is_judged_by_its_median_and_not_measured_is_not_reached() {
        assert_eq!(demand(Target::AtLeast(5.0), 5.0).verdict(), Verdict::Reached);
        assert_eq!(demand(Target::AtLeast(5.0), 4.9).verdict(), Verdict::Missed);
        assert_eq!(demand(Target::AtMost(0.4), 0.4).verdict(), Verdict::Reached);
        assert_eq!(demand(Target::AtMost(0.4), 0.41).verdict(), Verdict::Missed);
        assert_eq!(demand(Target::AtMost(0.5), f64::NAN).verdict(), Verdict::Missed);
        let without = Demand { measured: None, ..demand(Target::AtLeast(1.0), 1.0) };
        assert_eq!(without.verdict(), Verdict::NotMeasured);
    }
}
