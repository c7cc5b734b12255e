//! The parts of the page about techniques that come from the machine: the stories and the table. [`refresh`] puts them into a
//! text where it has marks for them, so that a test can compare, and a command can write. No words about a technique are
//! made here.

use std::fmt::Write as _;

use super::examination::{Examination, Verdict};
use super::{Exhibit, exhibits};

/// Where the table begins.
const TABLE_MARK: &str = "<!-- table -->";
/// Where something generated ends.
const END_MARK: &str = "<!-- end -->";

/// The text with every generated part made anew. Parts of techniques that are not among `examined` stay as they are, and so
/// does the table unless all are.
///
/// A part lies between a line with its mark, `<!-- story: NAME -->` or `<!-- table -->`, and a line `<!-- end -->`.
pub fn refresh(text: &str, examined: &[(&Exhibit, Examination)]) -> String {
    let mut fresh = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(fresh, "{line}");
        let Some(part) = part(line, examined) else { continue };
        fresh.push_str(&part);
        for old in lines.by_ref() {
            if old == END_MARK {
                let _ = writeln!(fresh, "{END_MARK}");
                break;
            }
        }
    }
    fresh
}

/// Which techniques a text has a place for.
pub fn names_in(text: &str) -> Vec<&str> {
    text.lines().filter_map(name_in).collect()
}

fn name_in(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- story: ")?.strip_suffix(" -->")
}

fn part(line: &str, examined: &[(&Exhibit, Examination)]) -> Option<String> {
    if line == TABLE_MARK {
        return (examined.len() == exhibits().len()).then(|| table(examined));
    }
    let name = name_in(line)?;
    let (exhibit, examination) = examined.iter().find(|(exhibit, _)| exhibit.name == name)?;
    Some(format!("\n```text\n{}```\n\n", examination.report(exhibit)))
}

fn table(examined: &[(&Exhibit, Examination)]) -> String {
    let mut table = String::from(
        "\n| technique | verdict | trips | left for each message | garbage after faults | needs |\n\
         |---|---|---|---|---|---|\n",
    );
    for (exhibit, examination) in examined {
        let verdict = match &examination.verdict {
            Verdict::Holds => "holds".to_owned(),
            Verdict::Breaks(story) => {
                let (kind, _) = story.violation.split_once(':').unwrap_or((&story.violation, ""));
                format!("**breaks**: {kind}")
            }
            Verdict::Undecided => "undecided".to_owned(),
        };
        let _ = writeln!(
            table,
            "| {}<br>`{}` | {verdict} | {} | {} | {} | {} |",
            exhibit.title,
            exhibit.name,
            examination.trips,
            examination.growth,
            examination.garbage_text(),
            exhibit.needs,
        );
    }
    table.push('\n');
    table
}
