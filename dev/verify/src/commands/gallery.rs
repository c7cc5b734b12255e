//! `tollgate-verify gallery`: every deduplication technique that people use, each with the shortest story that breaks it, or with
//! its price. The techniques, the search and the figures are in `tollgate-testkit`; this file prints them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use tollgate_verify::gallery::{Examination, Exhibit, Verdict, exhibits, page};

/// What to show.
#[derive(Args)]
pub struct Options {
    /// Only the technique of this name.
    #[arg(long, value_name = "NAME")]
    technique: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Besides, write the stories and the table anew into a page that has marks for them, such as docs/techniques.md.
    #[arg(long, value_name = "FILE")]
    refresh: Option<PathBuf>,
}

/// Shows the gallery. Success means that every verdict is the expected one.
pub fn run(options: &Options) -> ExitCode {
    let is_wanted = |exhibit: &&Exhibit| options.technique.as_ref().is_none_or(|name| name == exhibit.name);
    let mut examined = Vec::new();
    for exhibit in exhibits().iter().filter(is_wanted) {
        let examination = exhibit.examine();
        if !options.json {
            println!("{}: {}\n{}", exhibit.name, exhibit.title, examination.report(exhibit));
        }
        examined.push((exhibit, examination));
    }
    if examined.is_empty() {
        let names: Vec<&str> = exhibits().iter().map(|exhibit| exhibit.name).collect();
        eprintln!("tollgate-verify gallery: there is no such technique; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if options.json {
        let all: Vec<Value> = examined.iter().map(|(exhibit, found)| as_json(exhibit, found)).collect();
        println!("{:#}", Value::from(all));
    }
    if let Some(path) = &options.refresh
        && let Err(error) = refresh(path, &examined)
    {
        eprintln!("tollgate-verify gallery: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    summary(options, &examined)
}

fn summary(options: &Options, examined: &[(&Exhibit, Examination)]) -> ExitCode {
    let is_surprising = |(exhibit, found): &&(&Exhibit, Examination)| !exhibit.is_as_expected(found);
    let surprises: Vec<&str> =
        examined.iter().filter(is_surprising).map(|(exhibit, _)| exhibit.name).collect();
    let holding = examined.iter().filter(|(_, found)| found.verdict == Verdict::Holds).count();
    if !options.json {
        println!("{} techniques: {holding} hold, {} do not", examined.len(), examined.len() - holding);
    }
    if surprises.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("tollgate-verify gallery: not as expected: {}", surprises.join(", "));
    ExitCode::FAILURE
}

fn refresh(path: &PathBuf, examined: &[(&Exhibit, Examination)]) -> std::io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    std::fs::write(path, page::refresh(&text, examined))
}

fn as_json(exhibit: &Exhibit, found: &Examination) -> Value {
    let (verdict, story) = match &found.verdict {
        Verdict::Holds => ("holds", None),
        Verdict::Breaks(story) => ("breaks", Some(story)),
        Verdict::Undecided => ("undecided", None),
    };
    json!({
        "technique": exhibit.name,
        "title": exhibit.title,
        "verdict": verdict,
        "as_expected": exhibit.is_as_expected(found),
        "violation": story.map(|story| &story.violation),
        "steps": story.map(|story| &story.steps),
        "states": found.states,
        "world": found.world,
        "trips_before_dispatch": found.trips.before_dispatch,
        "trips_until_acknowledged": found.trips.until_acknowledged,
        "trips_afterwards": found.trips.afterwards,
        "messages": found.growth.messages,
        "left_in_entities": found.growth.in_documents,
        "left_in_records": found.growth.in_records,
        "left_after_a_while": found.growth.after_a_while,
        "garbage_at_most": found.garbage,
        "needs": exhibit.needs,
    })
}
