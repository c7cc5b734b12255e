//! The report: a page that any parser of XML takes, with everybody in it, and raw figures that can be read back.

use std::path::Path;

use tollgate_bench::side_by_side::contenders;
use tollgate_bench::side_by_side::latency::Latency;
use tollgate_bench::side_by_side::report;
use tollgate_bench::side_by_side::rounds::{Comparison, compare};
use tollgate_bench::side_by_side::scenario::Scenario;
use tollgate_bench::side_by_side::suite::{Effort, Results, Sweep};

/// Results with real figures of tiny runs.
async fn results() -> Results {
    let scenario = Scenario {
        name: "tiny".into(),
        messages: 20,
        partitions: 5,
        chain: 4,
        in_flight: 1,
        latency: Latency::None,
        ..Scenario::headline()
    };
    let all: Comparison = compare(&scenario, &contenders::all(), 2, |_, _| ()).await.expect("tiny runs run");
    let lines = all.contenders.iter();
    let lines = lines.map(|record| (record.name.clone(), vec![(20.0, record.runs[0].clone())])).collect();
    let growth = Sweep { parameter: "messages".into(), scenario, lines };
    Results {
        effort: Effort::Quick,
        machine: "a <machine> & its memory".into(),
        version: "0".into(),
        at: 0,
        headline: all.clone(),
        same_window: all.clone(),
        single_deletions: all.clone(),
        solo: all.clone(),
        open_loop: all.clone(),
        hot: all.clone(),
        duplicates: all.clone(),
        in_memory: all.clone(),
        dynamodb: Some(all),
        sweeps: vec![growth.clone()],
        growth,
    }
}

/// Whether every element is closed by its own end, in order: what a parser of XML insists on.
fn is_well_formed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').ok_or_else(|| format!("a tag without its end: {part}"))?;
        if tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => {
                let opened = open.pop();
                if opened != Some(name) {
                    return Err(format!("</{name}> ends {opened:?}"));
                }
            }
            None => open.push(tag.split([' ', '\n']).next().unwrap_or_default()),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

#[tokio::test]
async fn the_page_is_well_formed_holds_everybody_and_refers_to_nothing_outside() {
    let page = report::html(&results().await);
    is_well_formed(&page).expect("the page is well formed");
    for contender in contenders::all() {
        assert!(page.contains(contender.title()), "{} is missing", contender.title());
        assert!(page.contains(contender.source()), "the source of {} is missing", contender.title());
    }
    assert!(page.contains("a &lt;machine&gt; &amp; its memory"));
    for outside in ["src=", "href=", "url(http", "@import", "<script"] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
}

#[test]
fn a_page_that_is_not_well_formed_is_noticed() {
    assert!(is_well_formed("<p><b>x</p></b>").is_err());
    assert!(is_well_formed("<p>").is_err());
    assert!(is_well_formed("<p class=\"a\"><br/></p>").is_ok());
}

#[tokio::test]
async fn raw_figures_come_back_as_they_were_written_and_the_page_of_documentation_is_brought_up_to_date() {
    let results = results().await;
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    report::write(&results, directory.path()).expect("it is written");
    let again = report::read(&directory.path().join("results.json")).expect("it is read");
    // The last bit of a number may differ after a trip through text; what is shown may not.
    assert!(report::html(&again) == report::html(&results), "the page differs");
    assert_eq!(again.headline.contenders[0].runs[0].audit, results.headline.contenders[0].runs[0].audit);
    let page = directory.path().join("page.md");
    std::fs::write(&page, "before\n<!-- measured -->\nyesterday\n<!-- end -->\nafter\n")
        .expect("it is written");
    for _ in 0..2 {
        report::refresh_page(&results, &page).expect("it has a measured part");
    }
    let text = std::fs::read_to_string(&page).expect("it is there");
    assert!(
        text.starts_with("before\n<!-- measured -->") && text.ends_with("<!-- end -->\nafter\n"),
        "{text}"
    );
    assert!(!text.contains("yesterday") && text.matches("What must be shown").count() == 1);
    for picture in text.split("](pictures/").skip(1).filter_map(|rest| rest.split_once(')')) {
        assert!(directory.path().join("pictures").join(picture.0).exists(), "{} is missing", picture.0);
    }
    assert!(report::refresh_page(&results, Path::new("nowhere.md")).is_err());
}
