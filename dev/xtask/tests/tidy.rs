//! The tidy checks. Counts that are not yet zero have a limit in `limits.json`; a limit may only go down.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;

use xtask::repository::read;
use xtask::tidy::{comments, files, graph, links, rules};

fn limit(name: &str) -> usize {
    let limits: BTreeMap<String, usize> =
        serde_json::from_str(&read("dev/xtask/limits.json").unwrap()).unwrap();
    limits[name]
}

/// Asserts that a count is its limit: above it, something untidy came in; below it, the limit has to follow.
fn within_limit(name: &str, places: &[String]) {
    let limits: BTreeMap<String, usize> =
        serde_json::from_str(&read("dev/xtask/limits.json").unwrap()).unwrap();
    let limit = limits[name];
    let some = places.iter().rev().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(places.len() <= limit, "{name}: {} of at most {limit}, among them\n{some}", places.len());
    let slack = limit - places.len();
    assert!(
        slack * 20 <= limit,
        "{name}: {} are left; lower the limit in dev/xtask/limits.json",
        places.len()
    );
}

#[test]
fn comments_are_no_wider_than_code() {
    within_limit("too_wide", &comments::figures().unwrap().too_wide);
}

#[test]
fn doc_comments_open_with_their_subject() {
    let figures = comments::figures().unwrap();
    let per_mille = figures.question_openers.len() * 1000 / figures.doc_blocks;
    let limit = limit("question_openers_per_mille");
    let some = figures.question_openers.iter().rev().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        per_mille <= limit,
        "{per_mille} of 1000 doc comments, at most {limit}, open so, among them\n{some}"
    );
}

#[test]
fn doc_comments_say_more_than_the_name() {
    within_limit("two_words", &comments::figures().unwrap().two_words);
}

#[test]
fn comments_name_their_actors() {
    within_limit("banned", &comments::figures().unwrap().banned);
}

#[test]
fn the_design_is_cited_by_the_names_of_its_rules() {
    within_limit("section_numbers", &rules::section_numbers().unwrap());
    assert_eq!(rules::unknown().unwrap(), [""; 0]);
}

#[test]
fn every_link_leads_somewhere() {
    assert_eq!(links::broken().unwrap(), [""; 0]);
}

#[test]
fn no_product_depends_on_the_laboratory() {
    assert_eq!(graph::upward().unwrap(), [""; 0]);
}

#[test]
fn the_architecture_page_shows_the_dependencies_that_cargo_sees() {
    assert_eq!(
        graph::documented().unwrap(),
        graph::text().unwrap(),
        "the graph is printed by: cargo xtask figures"
    );
}

#[test]
fn every_published_package_has_a_readme_and_its_licences() {
    assert_eq!(files::missing().unwrap(), [""; 0]);
}

#[test]
fn the_readme_can_be_read_in_five_minutes() {
    let words = files::readme_words().unwrap();
    assert!(words <= files::README_WORDS_MAX, "README.md has {words} words");
}
