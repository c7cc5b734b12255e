//! The gallery's verdicts and figures, and the page that shows them. What a technique is belongs to `src/gallery`.

use std::sync::OnceLock;

use tollgate_verify::gallery::{Examination, Exhibit, Verdict, exhibits, page};

/// Every technique is examined once for all tests of this file.
fn examined() -> &'static [(&'static Exhibit, Examination)] {
    static EXAMINED: OnceLock<Vec<(&Exhibit, Examination)>> = OnceLock::new();
    EXAMINED.get_or_init(|| exhibits().iter().map(|exhibit| (exhibit, exhibit.examine())).collect())
}

fn examination(name: &str) -> &'static Examination {
    let found = examined().iter().find(|(exhibit, _)| exhibit.name == name);
    &found.unwrap_or_else(|| panic!("{name} is not on show")).1
}

fn story_of(name: &str) -> String {
    match &examination(name).verdict {
        Verdict::Breaks(story) => story.to_string(),
        other => panic!("{name} was to break: {other:?}"),
    }
}

fn page_text() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/techniques.md");
    std::fs::read_to_string(path).expect("the page is part of the repository")
}

#[test]
fn every_technique_comes_to_the_verdict_that_is_expected_of_it() {
    for (exhibit, examination) in examined() {
        let report = examination.report(exhibit);
        assert!(exhibit.is_as_expected(examination), "{}: {:?}\n{report}", exhibit.name, exhibit.expected);
    }
}

#[test]
fn the_page_tells_what_the_search_finds() {
    let text = page_text();
    assert!(
        page::refresh(&text, examined()) == text,
        "docs/techniques.md is stale; write it anew with: cargo run --release -p tollgate-demo -- \
         check gallery --refresh docs/techniques.md"
    );
}

#[test]
fn the_page_has_a_place_for_every_technique() {
    let on_show: Vec<&str> = exhibits().iter().map(|exhibit| exhibit.name).collect();
    assert_eq!(page::names_in(&page_text()), on_show);
}

#[test]
fn a_part_that_is_stale_is_written_anew_and_the_rest_of_the_page_is_kept() {
    let stale = "before\n<!-- story: at-least-once -->\nstale\n<!-- end -->\nafter\n";
    let fresh = page::refresh(stale, examined());
    assert!(fresh.starts_with("before\n<!-- story: at-least-once -->\n\n```text\nBREAKS after "), "{fresh}");
    assert!(fresh.ends_with("\n```\n\n<!-- end -->\nafter\n"), "{fresh}");
    assert!(!fresh.contains("stale"));
}

#[test]
fn what_depends_on_time_breaks_by_the_passing_of_time_and_holds_without() {
    for name in ["lease", "inbox-with-retention"] {
        assert!(story_of(name).contains("time passes"), "{}", story_of(name));
    }
    assert_eq!(examination("inbox-kept").verdict, Verdict::Holds);
    assert_eq!(examination("inbox-with-retention").growth.after_a_while, 0);
    assert_eq!(examination("inbox-kept").growth.after_a_while, examination("inbox-kept").growth.messages);
}

#[test]
fn a_consumed_token_that_is_created_again_is_what_breaks_tokens_without_a_checkpoint() {
    let story = story_of("token-without-checkpoint");
    assert_eq!(story.matches("creates a token for").count(), 2, "{story}");
}

#[test]
fn only_techniques_that_remember_what_they_have_processed_grow() {
    for (exhibit, examination) in examined() {
        let grows = examination.growth.in_documents + examination.growth.in_records > 0;
        let remembers = ["state-", "ids-", "deterministic-", "outbox-", "inbox-", "lease"]
            .iter()
            .any(|family| exhibit.name.starts_with(family));
        assert_eq!(grows, remembers, "{}: {}", exhibit.name, examination.growth);
    }
}

#[test]
fn tokens_of_attempts_leave_garbage_and_tokens_made_by_the_commit_leave_none() {
    for name in ["token-with-checkpoint", "registered-side-effects", "outbox-by-transaction"] {
        assert!(examination(name).garbage > Some(0), "{name}");
    }
    assert_eq!(examination("tollgate").garbage, Some(0));
}

#[test]
fn trips_are_those_of_the_published_algorithms() {
    let trips = |name| {
        let trips = examination(name).trips;
        (trips.before_dispatch, trips.until_acknowledged, trips.afterwards)
    };
    assert_eq!(trips("at-least-once"), (Some(2), 2, 0));
    assert_eq!(trips("outbox-in-entity"), (Some(2), 3, 0));
    assert_eq!(trips("token-with-checkpoint"), (Some(5), 7, 0));
    assert_eq!(trips("tollgate"), (Some(3), 4, 2), "one load more than with a warm cache");
}
