//! The report: one self-contained HTML page with charts, tables and the command of each, the raw figures as JSON, the pictures as files, and
//! the part of `docs/benchmarks.md` that is measured. It shows what [`Results`] hold and judges nothing.

use std::fmt::Write as _;
use std::path::Path;

use super::BenchError;
use super::chart::{Axis, Bar, Fill, Line, Scale, bars, escape, lines};
use super::demands::demands;
use super::extrapolation::{Extrapolated, FORMULAS, extrapolate};
use super::rounds::{Comparison, Record};
use super::run::Outcome;
use super::scenario::{Arrival, Scenario, Skew};
use super::statistics::Spread;
use super::suite::{Effort, Results, Sweep};
use super::tables::{TextTable, figure};

/// A part of the report: a chart, perhaps a table, and what makes both.
struct Section {
    /// The picture's file, without its ending.
    name: String,
    title: String,
    text: String,
    command: String,
    charts: Vec<(String, String)>,
    table: Option<TextTable>,
}

/// Writes `index.html`, `results.json` and the pictures.
///
/// # Errors
/// [`BenchError::Output`] if the directory can't be written to.
pub fn write(results: &Results, directory: &Path) -> Result<(), BenchError> {
    std::fs::create_dir_all(directory).map_err(|error| output(directory, &error))?;
    let json = serde_json::to_string_pretty(results).map_err(|error| output(directory, &error))?;
    write_file(&directory.join("results.json"), &json)?;
    write_file(&directory.join("index.html"), &html(results))?;
    for section in sections(results) {
        for (name, svg) in section.charts {
            write_file(&directory.join(name + ".svg"), &svg)?;
        }
    }
    Ok(())
}

/// Reads what [`write`] has written.
///
/// # Errors
/// [`BenchError::Output`] if it can't be read or is of another version.
pub fn read(file: &Path) -> Result<Results, BenchError> {
    let text = std::fs::read_to_string(file).map_err(|error| output(file, &error))?;
    serde_json::from_str(&text).map_err(|error| output(file, &error))
}

/// Where the measured part of the page begins and ends.
const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- end -->";

/// Writes the measured part of a page of documentation again, and its pictures into `pictures` beside it.
///
/// # Errors
/// [`BenchError::Output`] if the page has no such part or can't be written.
pub fn refresh_page(results: &Results, page: &Path) -> Result<(), BenchError> {
    let text = std::fs::read_to_string(page).map_err(|error| output(page, &error))?;
    let missing = || output(page, &format!("it has no part between {BEGIN} and {END}"));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    let pictures = page.with_file_name("pictures");
    std::fs::create_dir_all(&pictures).map_err(|error| output(&pictures, &error))?;
    for (name, svg) in sections(results).into_iter().flat_map(|section| section.charts) {
        write_file(&pictures.join(name + ".svg"), &svg)?;
    }
    write_file(page, &format!("{before}{BEGIN}\n\n{}\n{END}{after}", markdown(results)))
}

fn output(path: &Path, reason: &dyn ToString) -> BenchError {
    BenchError::Output { path: path.display().to_string(), reason: reason.to_string() }
}

fn write_file(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| output(path, &error))
}

/// The command that runs one scenario alone.
fn command(scenario: &Scenario, contenders: &[Record]) -> String {
    let mut command = "tollgate-bench compare".to_owned();
    let Scenario { messages, partitions, outputs, body_bytes, in_flight, connections, .. } = scenario;
    let _ = write!(
        command,
        " --messages {messages} --partitions {partitions} --outputs {outputs} --body {body_bytes}"
    );
    let _ = write!(command, " --in-flight {in_flight} --connections {connections}");
    let _ = write!(command, " --latency {}", scenario.latency.median_ms());
    match scenario.skew {
        Skew::Uniform => {}
        Skew::OneHot => command.push_str(" --skew hot"),
        Skew::Zipf(exponent) => {
            let _ = write!(command, " --skew {exponent}");
        }
    }
    if scenario.duplicates > 0.0 {
        let _ =
            write!(command, " --duplicates {} --late-copies {}", scenario.duplicates, scenario.late_copies);
    }
    if let Arrival::Open(rate) = scenario.arrival {
        let _ = write!(command, " --arrivals {rate}");
    }
    if scenario.deletions == super::scenario::Deletions::OneByOne {
        command.push_str(" --single-deletions");
    }
    if scenario.store != super::scenario::StoreKind::Memory {
        let _ = write!(command, " --store {}", scenario.store.name());
    }
    let names: Vec<&str> = contenders.iter().map(|record| &*record.name).collect();
    let rounds = contenders.first().map_or(0, |record| record.runs.len());
    let _ = write!(command, " --rounds {rounds} --contenders {}", names.join(","));
    command
}

fn chart(title: &str, comparison: &Comparison, pick: impl Fn(&Outcome) -> Option<f64>) -> String {
    let bar = |record: &Record| Bar {
        label: record.title.clone(),
        spread: record.spread(|run| pick(run).unwrap_or(f64::NAN)),
        fill: if !record.is_exact() {
            Fill::Wrong
        } else if record.name.starts_with("tollgate") {
            Fill::Ours
        } else {
            Fill::Theirs
        },
    };
    bars(title, &comparison.contenders.iter().map(bar).collect::<Vec<_>>())
}

fn compared(
    name: &str,
    title: &str,
    text: &str,
    comparison: &Comparison,
    charts: Vec<(String, String)>,
) -> Section {
    Section {
        name: name.to_owned(),
        title: title.to_owned(),
        text: text.to_owned(),
        command: command(&comparison.scenario, &comparison.contenders),
        charts,
        table: Some(TextTable::of(comparison)),
    }
}

/// Latency curves of the contenders that matter most.
fn curves(comparison: &Comparison) -> String {
    let shown = ["naive", "outbox", "published-token", "tollgate-identity", "tollgate"];
    let line = |name: &&str| {
        let record = comparison.of(name)?;
        let run = record.runs.first()?;
        // The axis shows how many messages in 10,000 are slower: the tail is what matters.
        let points = run.latency.curve.iter().filter(|(part, _)| *part < 1.0 && *part > 0.0);
        Some(Line {
            label: record.title.clone(),
            points: points.map(|(part, ms)| (1.0 / (1.0 - part), *ms)).collect(),
        })
    };
    let axis = Axis { title: "one message in so many is slower", scale: Scale::Logarithmic };
    let ms = Axis { title: "milliseconds", scale: Scale::Logarithmic };
    lines(
        "Latency from delivery to acknowledgement",
        &axis,
        &ms,
        &shown.iter().filter_map(line).collect::<Vec<_>>(),
    )
}

fn swept(
    sweep: &Sweep,
    title: &str,
    x: Scale,
    pick: impl Fn(&Outcome) -> Option<f64>,
    y_title: &str,
) -> String {
    let line = |(name, points): &(String, Vec<(f64, Outcome)>)| Line {
        label: super::contenders::title(name),
        points: points.iter().filter_map(|(value, run)| Some((*value, pick(run)?))).collect(),
    };
    let x_axis = Axis { title: &sweep.parameter, scale: x };
    let y_axis = Axis { title: y_title, scale: Scale::Logarithmic };
    lines(title, &x_axis, &y_axis, &sweep.lines.iter().map(line).collect::<Vec<_>>())
}

fn sweep_table(sweep: &Sweep, pick: impl Fn(&Outcome) -> f64) -> TextTable {
    let values = sweep.lines.first().map(|(_, points)| points.as_slice()).unwrap_or_default();
    let mut head = vec![format!("contender, by {}", sweep.parameter), "audit".to_owned()];
    head.extend(values.iter().map(|(value, _)| figure(*value)));
    let row = |(name, points): &(String, Vec<(f64, Outcome)>)| {
        let wrong: u64 =
            points.iter().map(|(_, run)| run.audit.doubled + run.audit.lost + run.audit.mixed_up).sum();
        let verdict = if wrong == 0 { "exact".to_owned() } else { format!("**{wrong} wrong**") };
        let mut row = vec![super::contenders::title(name), verdict];
        row.extend(points.iter().map(|(_, run)| figure(pick(run))));
        row
    };
    TextTable { head, rows: sweep.lines.iter().map(row).collect() }
}

/// What is left in the store, and in memory if this program counts it.
#[expect(clippy::cast_precision_loss, reason = "bytes for people")]
fn growth_sections(growth: &Sweep) -> Vec<Section> {
    let most =
        growth.lines.iter().flat_map(|(_, points)| points).map(|(messages, _)| *messages).fold(0.0, f64::max);
    let command = format!("tollgate-bench compare --growth {most}");
    let left = |run: &Outcome| run.left_deduplication_bytes as f64;
    let title = "Bytes of deduplication data left in the store";
    let chart = swept(growth, title, Scale::Logarithmic, |run| Some(left(run)), "bytes");
    let mut sections = vec![Section {
        name: "growth".to_owned(),
        title: "What stays behind".to_owned(),
        text: "In memory, without latency, 1,000 partitions. Bytes in the store that are there only to recognise messages, after all work in \
               the background is done. Nothing has expired: the run takes seconds, the retention is days."
            .to_owned(),
        command: command.clone(),
        charts: vec![("growth-deduplication".to_owned(), chart)],
        table: Some(sweep_table(growth, left)),
    }];
    let heap = |run: &Outcome| run.heap_bytes.map(|bytes| bytes as f64);
    if growth.lines.iter().flat_map(|(_, points)| points).any(|(_, run)| heap(run).is_some()) {
        let title = "Live bytes on the heap afterwards";
        let chart = swept(growth, title, Scale::Logarithmic, heap, "bytes");
        sections.push(Section {
            name: "growth-memory".to_owned(),
            title: "What stays in memory".to_owned(),
            text: "The same runs: live bytes on the heap of the process after the last message, beyond those before the first. The store is in \
                   memory, so its content is counted, and so are caches, which are bounded."
                .to_owned(),
            command,
            charts: vec![("growth-memory".to_owned(), chart)],
            table: Some(sweep_table(growth, |run| heap(run).unwrap_or(f64::NAN))),
        });
    }
    sections
}

/// The growth alone, for a terminal.
pub fn growth_text(growth: &Sweep) -> String {
    let mut text = String::new();
    for section in growth_sections(growth) {
        if let Some(table) = section.table {
            let _ = writeln!(text, "{}\n{}", section.title, table.to_text());
        }
    }
    text
}

fn sweep_section(sweep: &Sweep) -> Section {
    let name = format!("sweep-{}", sweep.parameter.replace(' ', "-"));
    let x = if sweep.parameter == "duplicates" { Scale::Linear } else { Scale::Logarithmic };
    let title = format!("Messages a second by {}", sweep.parameter);
    let svg = swept(sweep, &title, x, |run| Some(run.rate), "messages/s");
    let text = match &*sweep.parameter {
        "workers" => "As many messages in flight as connections. 5 ms a call.",
        "partitions" => {
            "64 messages in flight, 5 ms a call. On few partitions rivals wait for each other; Tollgate folds."
        }
        "duplicates" => {
            "Part of all deliveries that are copies; half of them race their original. 5 ms a call, 256 in flight."
        }
        _ => "64 messages in flight, 5 ms a call.",
    };
    Section {
        name: name.clone(),
        title,
        text: text.to_owned(),
        command: "tollgate-bench compare --report DIRECTORY".to_owned(),
        charts: vec![(name, svg)],
        table: Some(sweep_table(sweep, |run| run.rate)),
    }
}

fn extrapolation_section(results: &Results) -> Section {
    let units = results.dynamodb.as_ref().unwrap_or(&results.headline);
    let rows = extrapolate(units, &results.headline, &results.solo);
    let bars_of = |title: &str, pick: fn(&Extrapolated) -> f64| {
        let bar = |row: &Extrapolated| Bar {
            label: row.title.clone(),
            spread: Spread::of([pick(row)]),
            fill: if row.title.starts_with("Tollgate") { Fill::Ours } else { Fill::Theirs },
        };
        bars(title, &rows.iter().map(bar).collect::<Vec<_>>())
    };
    let charts = vec![
        (
            "dollars-dynamodb".to_owned(),
            bars_of(
                "Simulated: dollars for a million messages on DynamoDB on demand",
                Extrapolated::dynamodb,
            ),
        ),
        (
            "dollars-cosmos".to_owned(),
            bars_of(
                "Simulated: dollars for a million messages on Cosmos DB serverless",
                Extrapolated::cosmos,
            ),
        ),
    ];
    let head = [
        "contender",
        "DynamoDB: write units x $ + read units x $",
        "DynamoDB $",
        "Cosmos DB: request units x $",
        "Cosmos DB $",
        "kept: GB, $ a month",
        "DynamoDB ms",
        "Cosmos DB ms",
    ];
    let row = |row: &Extrapolated| {
        vec![
            row.title.clone(),
            row.dynamodb_formula(),
            figure(row.dynamodb()),
            row.cosmos_formula(),
            figure(row.cosmos()),
            row.kept(),
            figure(row.dynamodb_ms()),
            figure(row.cosmos_ms()),
        ]
    };
    let table = TextTable { head: head.map(str::to_owned).to_vec(), rows: rows.iter().map(row).collect() };
    Section {
        name: "extrapolation".to_owned(),
        title: "Simulated: what it would cost".to_owned(),
        text: format!(
            "Computed, not paid: {FORMULAS}. Prices are those of us-east-1 and East US, without what is free: \"Amazon DynamoDB pricing for on-demand capacity\" since 1 November 2024, as quoted on \
             21 July 2025, and \"Azure Cosmos DB pricing\", serverless, as of our knowledge of 2024: check them. Latencies are assumptions within what \
             \"Understanding Amazon DynamoDB latency\" and \"Consistency levels in Azure Cosmos DB\" promise; write and read units are those \
             that {}.",
            if results.dynamodb.is_some() { "the emulator reported" } else { "the published rules give" }
        ),
        command: "tollgate-bench compare --report DIRECTORY".to_owned(),
        charts,
        table: Some(table),
    }
}

fn sections(results: &Results) -> Vec<Section> {
    let rate = |outcome: &Outcome| Some(outcome.rate);
    let bar = |name: &str, title: &str, comparison: &Comparison| {
        vec![(name.to_owned(), chart(title, comparison, rate))]
    };
    let mut sections = vec![compared(
        "headline",
        "The headline",
        "5 ms for each call to the store, 64 connections, 1,000 partitions, one output, 256 messages in flight for everybody. Each contender \
         is bound by the calls that its messages need; \"calls\" counts them, work in the background included.",
        &results.headline,
        vec![
            (
                "headline".to_owned(),
                chart("Messages a second: 5 ms a call, 64 connections", &results.headline, rate),
            ),
            (
                "headline-calls".to_owned(),
                chart("Calls to the store for each message", &results.headline, |run| Some(run.calls)),
            ),
            ("headline-latency".to_owned(), curves(&results.headline)),
        ],
    )];
    sections.push(compared(
        "same-window",
        "The same with 64 messages in flight",
        "No more messages in flight than connections. A contender whose calls are shared by many messages gains least here: what counts is how \
         many calls follow each other.",
        &results.same_window,
        bar("same-window", "Messages a second: 64 messages in flight", &results.same_window),
    ));
    sections.push(compared(
        "single-deletions",
        "The same with each deletion a call of its own",
        "As on DynamoDB while a token lies in its sender's main item: then the deletions of many messages are not one call.",
        &results.single_deletions,
        bar("single-deletions", "Messages a second: deletions one by one", &results.single_deletions),
    ));
    sections.push(compared(
        "solo",
        "One message at a time",
        "Nothing to share and nothing to fold: what a single message waits for. Calls in sequence are counted between its delivery and its \
         acknowledgement.",
        &results.solo,
        vec![("solo".to_owned(), chart("Median latency, one message at a time (ms)", &results.solo, |run| Some(run.latency.p50)))],
    ));
    let p99 = chart("99 of 100 messages are faster, 400 a second due (ms)", &results.open_loop, |run| {
        Some(run.latency.p99)
    });
    sections.push(compared(
        "open-loop",
        "Messages come when they come",
        "400 messages a second begin to be due, or follow from those, whether or not anybody is ready for them; 5 ms a call. Latency counts from when \
         a message was due, so that waiting for its turn is in it (no coordinated omission).",
        &results.open_loop,
        vec![("open-loop".to_owned(), p99), ("open-loop-latency".to_owned(), curves(&results.open_loop))],
    ));
    sections.push(compared(
        "hot",
        "One hot partition",
        "All messages change one entity, 64 in flight, 5 ms a call. The naive one retries with full jitter.",
        &results.hot,
        bar("hot", "Messages a second: one hot partition", &results.hot),
    ));
    sections.push(compared(
        "duplicates",
        "Nine of ten deliveries are copies",
        "The copies come when their original has been processed, as after an outage. Messages are counted once, however often they are delivered.",
        &results.duplicates,
        bar("duplicates", "Messages a second: 90 % of the deliveries are copies", &results.duplicates),
    ));
    sections.push(compared(
        "in-memory",
        "Without latency",
        "A store in memory and no network: what each technique asks of the processor. Nobody's real store is like this.",
        &results.in_memory,
        bar("in-memory", "Messages a second without latency, both cores", &results.in_memory),
    ));
    if let Some(dynamodb) = &results.dynamodb {
        let units = |run: &Outcome| run.reported.write_units;
        sections.push(compared(
            "dynamodb",
            "On an emulated DynamoDB",
            "In this process; the units are those that it reports for each call. The rates are those of the emulator.",
            dynamodb,
            vec![("dynamodb-write-units".to_owned(), chart("Write units for each message, as DynamoDB's emulator reports them", dynamodb, units))],
        ));
    }
    sections.extend(growth_sections(&results.growth));
    sections.extend(results.sweeps.iter().map(sweep_section));
    sections.push(extrapolation_section(results));
    sections
}

fn conditions(results: &Results) -> String {
    let effort = match results.effort {
        Effort::Quick => "quick",
        Effort::Full => "full",
    };
    let rounds = results.headline.contenders.first().map_or(0, |record| record.runs.len());
    format!(
        "{}; Tollgate {}; {effort} effort, {rounds} rounds in turns, medians (least to most)",
        results.machine, results.version
    )
}

/// The command that makes all of it.
const EVERYTHING: &str = "cargo run --release -p tollgate-bench --features full -- compare --effort full --report DIRECTORY --page docs/benchmarks.md";

fn markdown(results: &Results) -> String {
    let mut text = format!("{}.\n\n```sh\n{EVERYTHING}\n```\n\n", conditions(results));
    let _ =
        writeln!(text, "## What must be shown\n\n{}", TextTable::of_demands(&demands(results)).to_markdown());
    for Section { title, text: explained, command, charts, table, .. } in sections(results) {
        let _ = writeln!(text, "## {title}\n\n{explained}\n");
        for (name, _) in charts {
            let _ = writeln!(text, "![{title}](pictures/{name}.svg)\n");
        }
        if let Some(table) = table {
            let _ = writeln!(text, "{}", table.to_markdown());
        }
        let _ = writeln!(text, "`{command}`\n");
    }
    text
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#1b1f24}\
h1,h2{line-height:1.2}h2{margin-top:3rem;border-top:1px solid #d5dae0;padding-top:1.2rem}\
svg{max-width:100%;height:auto;display:block;margin:1rem 0}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .5rem;border-bottom:1px solid #e1e5ea;text-align:right;vertical-align:top}\
th{background:#f3f5f7}th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}\
.wrong{color:#a33b00;font-weight:600}.note{color:#4b5560}code{font-size:12.5px;background:#f3f5f7;padding:.1rem .3rem;overflow-wrap:anywhere}\
@media print{body{margin:0;max-width:none}.wide{overflow:visible}table{font-size:8.5px}th,td{padding:.1rem .2rem}h2,svg{break-inside:avoid;break-after:avoid}}";

fn html_table(table: &TextTable) -> String {
    let cell = |kind: &str, cell: &String| {
        let plain = escape(&cell.replace("**", ""));
        if cell.contains("**") {
            format!("<{kind} class=\"wrong\">{plain}</{kind}>")
        } else {
            format!("<{kind}>{plain}</{kind}>")
        }
    };
    let row = |kind: &str, cells: &[String]| {
        format!("<tr>{}</tr>\n", cells.iter().map(|text| cell(kind, text)).collect::<String>())
    };
    let body: String = table.rows.iter().map(|cells| row("td", cells)).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead>{}</thead>\n<tbody>{body}</tbody>\n</table></div>\n",
        row("th", &table.head)
    )
}

/// The page.
pub fn html(results: &Results) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<title>Tollgate side by side</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Tollgate side by side</h1>\n<p>The same machine, run, queue, store, latency and handler for every contender, in turns, each run \
         audited: the accounts in the store must add up to every message exactly once. <span class=\"wrong\">Hatched</span> bars lost or \
         doubled messages. Figures are medians for each message, copies not counted; the thin line on a bar is the spread.</p>\n\
         <p class=\"note\">{}.<br/><code>{EVERYTHING}</code></p>\n<h2>What must be shown</h2>\n{}",
        escape(&conditions(results)),
        html_table(&TextTable::of_demands(&demands(results)))
    );
    for Section { name, title, text, command, charts, table } in sections(results) {
        let _ = writeln!(page, "<h2 id=\"{name}\">{}</h2>\n<p>{}</p>", escape(&title), escape(&text));
        for (_, svg) in charts {
            page.push_str(&svg);
        }
        if let Some(table) = table {
            page.push_str(&html_table(&table));
        }
        let _ = writeln!(page, "<p class=\"note\"><code>{}</code></p>", escape(&command));
    }
    let _ = writeln!(page, "<h2>Contenders</h2>\n<ul>");
    for record in &results.headline.contenders {
        let _ = writeln!(page, "<li><b>{}</b>: {}</li>", escape(&record.title), escape(&record.source));
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    page
}
