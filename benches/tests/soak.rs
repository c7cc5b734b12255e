//! The soak as its users see it: a short one is exact and drawn, and samples of a run that leaks end with an exit code.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

fn soak(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-bench"));
    let Output { status, stdout, stderr } =
        command.current_dir(directory).arg("soak").args(["--data", "data"]).args(arguments).output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[test]
fn three_seconds_on_the_embedded_store_are_exact_sampled_and_drawn_and_their_directory_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let (code, text) =
        soak(directory.path(), &["--duration", "3s", "--sample-every", "200ms", "--accounts", "50"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("audit: every total is exact, nothing is left over"), "{text}");
    assert!(text.contains("slopes: NOT JUDGED"), "{text}");
    let lines = std::fs::read_to_string(directory.path().join("data/soak.jsonl")).unwrap();
    let samples: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = samples.last().unwrap();
    assert!(last["messages"].as_u64() > Some(0), "{last}");
    assert!(last["disk_bytes"].as_u64() > Some(0), "{last}");
    assert!(last["control_bytes"].as_u64() > Some(0), "{last}");
    let svg = std::fs::read_to_string(directory.path().join("data/soak.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.len() < 60_000);

    let (code, text) = soak(directory.path(), &["--duration", "1s"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("a soak needs a directory of its own"), "{text}");
}

#[test]
fn so_many_messages_at_a_set_rate_arrive_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--store", "memory", "--messages", "400", "--rate", "800", "--duplicates", "0.5"];
    let (code, text) = soak(directory.path(), &arguments);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("400 messages have arrived"), "{text}");
}

/// Samples of an hour in which each message leaves so many bytes in memory.
fn hour(bytes_left: u64) -> String {
    let mut lines = String::new();
    for n in 1..=720_u64 {
        let (seconds, messages) = (n * 5, n * 5_000);
        let resident = 90_000_000 + messages * bytes_left;
        writeln!(
            lines,
            "{{\"seconds\":{seconds},\"messages\":{messages},\"rate\":1000,\"resident_bytes\":{resident}}}"
        )
        .unwrap();
    }
    lines
}

#[test]
fn samples_of_a_leak_fail_and_samples_without_one_do_not() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes_left, code, verdict) in [(0, 0, "slopes: flat"), (64, 1, "slopes: NOT FLAT: memory in use")] {
        std::fs::write(directory.path().join("soak.jsonl"), hour(bytes_left)).unwrap();
        let (found, text) = soak(directory.path(), &["--from", "soak.jsonl"]);
        assert_eq!(found, Some(code), "{text}");
        assert!(text.contains(verdict), "{text}");
    }
}
