//! What was measured as tables of text: for the terminal, and as Markdown for `docs/benchmarks.md`. The same rows serve both.

use std::fmt::Write as _;

use super::demands::{Demand, Target, Verdict, Weight};
use super::rounds::{Comparison, Record};
use super::run::Outcome;
use super::statistics::Spread;

/// A table: names of columns, and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTable {
    /// Names of columns.
    pub head: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

/// A figure with as many digits as make sense.
pub fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        "-".to_owned()
    } else if magnitude >= 1_000.0 {
        thousands(value)
    } else if magnitude >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A median with its spread.
pub fn spread(spread: Spread) -> String {
    if spread.max - spread.min <= 0.0 {
        return figure(spread.median);
    }
    format!("{} ({} to {})", figure(spread.median), figure(spread.min), figure(spread.max))
}

/// A figure of a run, as a column.
type Column = (&'static str, fn(&Outcome) -> Option<f64>);

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
const COLUMNS: [Column; 15] = [
    ("p50 ms", |run| Some(run.latency.p50)),
    ("p99 ms", |run| Some(run.latency.p99)),
    ("p99.9 ms", |run| Some(run.latency.p999)),
    ("calls", |run| Some(run.calls)),
    ("write units", |run| Some(run.write_units)),
    ("read units", |run| Some(run.read_units)),
    ("request units", |run| Some(run.request_units)),
    ("write units reported", |run| run.reported.write_units),
    ("read units reported", |run| run.reported.read_units),
    ("request units reported", |run| run.reported.request_units),
    ("CPU us", |run| Some(run.processor_us)),
    ("allocations", |run| run.allocations),
    ("peak MB", |run| run.peak_bytes.map(|bytes| bytes as f64 / 1e6)),
    ("bytes left", |run| Some(run.left_bytes as f64 / run.messages as f64)),
    ("deduplication bytes left", |run| Some(run.left_deduplication_bytes as f64 / run.messages as f64)),
];

/// What the audit says of a record.
pub fn verdict(record: &Record) -> String {
    let (lost, doubled) = record.wrong();
    match (lost, doubled) {
        (0, 0) => "exact".to_owned(),
        (0, doubled) => format!("**{} doubled**", thousands_of(doubled)),
        (lost, 0) => format!("**{} lost**", thousands_of(lost)),
        (lost, doubled) => format!("**{} lost, {} doubled**", thousands_of(lost), thousands_of(doubled)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn thousands_of(count: u64) -> String {
    thousands(count as f64)
}

impl TextTable {
    /// A comparison, a contender a row; all but messages/s are medians for each message.
    pub fn of(comparison: &Comparison) -> Self {
        let runs = || comparison.contenders.iter().flat_map(|record| &record.runs);
        let columns: Vec<Column> =
            COLUMNS.into_iter().filter(|(_, figure)| runs().any(|run| figure(run).is_some())).collect();
        let one_at_a_time = runs().any(|run| run.calls_in_sequence.is_some());
        let mut head = vec!["contender".to_owned(), "audit".to_owned(), "messages/s".to_owned()];
        head.extend(columns.iter().map(|(name, _)| (*name).to_owned()));
        if one_at_a_time {
            head.extend(["calls before dispatch".to_owned(), "calls in sequence".to_owned()]);
        }
        let row = |record: &Record| {
            let median = |pick: &dyn Fn(&Outcome) -> Option<f64>| {
                figure(record.spread(|run| pick(run).unwrap_or(f64::NAN)).median)
            };
            let mut row = vec![record.title.clone(), verdict(record), spread(record.spread(|run| run.rate))];
            row.extend(columns.iter().map(|(_, pick)| median(pick)));
            if one_at_a_time {
                row.push(median(&|run| run.calls_before_dispatch));
                row.push(median(&|run| run.calls_in_sequence));
            }
            row
        };
        Self { head, rows: comparison.contenders.iter().map(row).collect() }
    }

    /// Demands.
    pub fn of_demands(demands: &[Demand]) -> Self {
        let head = ["what must be shown", "target", "measured", ""].map(str::to_owned).to_vec();
        let row = |demand: &Demand| {
            let target = match demand.target {
                Target::AtLeast(least) => format!("at least {}", figure(least)),
                Target::AtMost(most) => format!("at most {}", figure(most)),
            };
            let verdict = match (demand.verdict(), demand.weight) {
                (Verdict::Reached, _) => "reached",
                (Verdict::Missed, Weight::Demanded) => "**missed**",
                (Verdict::Missed, Weight::Told) => "missed (told, not demanded)",
                (Verdict::NotMeasured, _) => "not measured",
            };
            vec![
                demand.what.clone(),
                target,
                demand.measured.map_or_else(|| "-".to_owned(), spread),
                verdict.to_owned(),
            ]
        };
        Self { head, rows: demands.iter().map(row).collect() }
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        let plain = |cell: &str| cell.replace("**", "");
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|place| lines().map(|line| plain(&line[place]).chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines() {
            let mut cells = line.iter().zip(&widths).enumerate().map(|(place, (cell, width))| {
                let cell = plain(cell);
                if place < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let first = cells.next().unwrap_or_default();
            let line = cells.fold(first, |line, cell| line + "  " + &cell);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// For a page.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("| {} |\n", self.head.join(" | "));
        text.push('|');
        text.push_str(&"---|".repeat(self.head.len()));
        text.push('\n');
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_make_sense() {
        let texts = [0.0, 0.123, 12.34, 123.4, 1_234.5, 1_234_567.0, f64::NAN].map(figure);
        assert_eq!(texts, ["0", "0.12", "12.3", "123", "1,234", "1,234,567", "-"]);
        assert_eq!(spread(Spread { median: 2.0, min: 1.0, max: 3.0 }), "2.00 (1.00 to 3.00)");
    }

    #[test]
    fn markdown_and_text_have_the_same_cells() {
        let table =
            TextTable { head: vec!["a".into(), "b".into()], rows: vec![vec!["1".into(), "**2**".into()]] };
        assert_eq!(table.to_markdown(), "| a | b |\n|---|---|\n| 1 | **2** |\n");
        assert_eq!(table.to_text(), "a  b\n1  2\n");
    }
}
