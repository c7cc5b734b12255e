//! The demo as its users see it: a program with options, files and an exit code.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Flights of a small input: three aircraft, one without a tail number, figures missing here and there.
fn flights(count: usize) -> String {
    let mut lines = String::new();
    for n in 0..count {
        let tail = if n % 7 == 0 { "null".to_owned() } else { format!("\"N{}\"", n % 3) };
        let air_time = if n % 5 == 0 { "null".to_owned() } else { (100 + n).to_string() };
        writeln!(
            lines,
            "{{\"id\":\"F{n}\",\"tail\":{tail},\"carrier\":\"UA\",\"origin\":\"EWR\",\"dest\":\"IAH\",\
             \"dep_delay\":{},\"arr_delay\":null,\"air_time\":{air_time},\"distance\":1400}}",
            n % 11
        )
        .unwrap();
    }
    lines
}

fn demo(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-demo"));
    command.current_dir(directory).args(["--input", "flights.ndjson", "--data", "data"]);
    command
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), text)
}

/// The totals that 300 of [`flights`] come to, added up here.
fn expected_airport_line(count: usize) -> String {
    let dep_delay: usize = (0..count).map(|n| n % 11).sum();
    format!(
        "{{\"kind\":\"airport\",\"key\":\"EWR\",\"departures\":{count},\"arrivals\":0,\"dep_delay\":{dep_delay},\
         \"arr_delay\":0}}"
    )
}

#[test]
fn a_run_with_chaos_and_crashes_is_exact_and_a_second_one_applies_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("flights.ndjson"), flights(300)).unwrap();
    let (code, text) = run(demo(directory.path())
        .args(["--crashes", "3", "--reorder", "50", "--seed", "7"])
        .args(["--totals", "totals.ndjson", "--report", "report.json"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("audit: every total is exact, nothing is left over"), "{text}");
    let totals = std::fs::read_to_string(directory.path().join("totals.ndjson")).unwrap();
    assert!(totals.lines().any(|line| line == expected_airport_line(300)), "{totals}");
    assert!(totals.contains(r#"{"kind":"aircraft","key":"unknown:UA","flights":43,"#), "{totals}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["audit"], "exact");
    assert_eq!(report["consumer_crashes"], 3);
    for left in ["outbox_entries_left", "pending_markers_left", "broker_left", "dead_letters_left"] {
        assert_eq!(report[left], 0, "{left}");
    }

    let (code, text) = run(demo(directory.path()).args(["--crashes", "0", "--totals", "again.ndjson"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(std::fs::read_to_string(directory.path().join("again.ndjson")).unwrap(), totals);
}

#[test]
fn bad_lines_are_reported_and_skipped_and_fail_a_strict_run_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let input = format!("{}this is no flight\n{{\"id\":\"x\"}}\n", flights(20));
    std::fs::write(directory.path().join("flights.ndjson"), input).unwrap();
    let (code, text) = run(demo(directory.path()).args(["--crashes", "0"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("line 21 is no flight"), "{text}");
    assert!(text.contains("line 22 is no flight"), "{text}");
    let (code, text) = run(demo(directory.path()).args(["--crashes", "0", "--strict"]));
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn flights_come_from_standard_input_too_and_none_at_all_are_no_error() {
    let directory = tempfile::tempdir().unwrap();
    for (data, input) in [("some", flights(10)), ("none", String::new())] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-demo"))
            .current_dir(directory.path())
            .args(["--input", "-", "--crashes", "0", "--data", data])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{data}");
    }
}

#[test]
fn a_directory_of_another_input_and_a_missing_file_are_refused_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flights.ndjson");
    std::fs::write(&file, flights(20)).unwrap();
    assert_eq!(run(demo(directory.path()).args(["--crashes", "0"])).0, Some(0));
    std::fs::write(&file, flights(21)).unwrap();
    let (code, text) = run(&mut demo(directory.path()));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("holds the totals of another input"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let (code, text) = run(&mut demo(directory.path()));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("flights.ndjson"), "{text}");
}

#[test]
fn a_demo_that_is_killed_again_and_again_is_exact_in_the_end() {
    const KILLS: u64 = 5;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("flights.ndjson"), flights(2_000)).unwrap();
    for kill in 0..KILLS {
        let mut child = demo(directory.path())
            .args(["--crashes", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(100 + kill * 150);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (code, text) = run(demo(directory.path()).args(["--crashes", "2", "--totals", "totals.ndjson"]));
    assert_eq!(code, Some(0), "{text}");
    let totals = std::fs::read_to_string(directory.path().join("totals.ndjson")).unwrap();
    assert!(totals.lines().any(|line| line == expected_airport_line(2_000)), "{totals}");
}
