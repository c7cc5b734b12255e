//! The demo in several processes, which are killed: what one process can't show.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate-demo");

/// Flights of a small input, and the totals of its only airport of departure.
fn write_flights(directory: &Path, count: usize) -> String {
    let mut lines = String::new();
    for n in 0..count {
        writeln!(
            lines,
            "{{\"id\":\"F{n}\",\"tail\":\"N{}\",\"carrier\":\"UA\",\"origin\":\"EWR\",\"dest\":\"IAH\",\
             \"dep_delay\":{},\"arr_delay\":null,\"air_time\":90,\"distance\":1400}}",
            n % 5,
            n % 11
        )
        .unwrap();
    }
    std::fs::write(directory.join("flights.ndjson"), lines).unwrap();
    let dep_delay: usize = (0..count).map(|n| n % 11).sum();
    format!(
        "{{\"kind\":\"airport\",\"key\":\"EWR\",\"departures\":{count},\"arrivals\":0,\"dep_delay\":{dep_delay},\
         \"arr_delay\":0}}"
    )
}

fn demo(directory: &Path) -> Command {
    let mut command = Command::new(TOLLGATE);
    command.current_dir(directory).args(["--input", "flights.ndjson", "--data", "data"]);
    command.args(["--reorder", "50", "--totals", "totals.ndjson", "--report", "report.json"]);
    command
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), text)
}

fn assert_exact(
    directory: &Path,
    expected_line: &str,
    (code, text): (Option<i32>, String),
) -> serde_json::Value {
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("audit: every total is exact, nothing is left over"), "{text}");
    let totals = std::fs::read_to_string(directory.join("totals.ndjson")).unwrap();
    assert!(totals.lines().any(|line| line == expected_line), "{totals}");
    serde_json::from_slice(&std::fs::read(directory.join("report.json")).unwrap()).unwrap()
}

#[test]
fn consumers_and_the_host_are_killed_again_and_again_and_every_total_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let expected = write_flights(directory.path(), 400);
    let ended = run(demo(directory.path()).args([
        "--processes",
        "3",
        "--kills",
        "6",
        "--host-kills",
        "3",
        "--seed",
        "7",
    ]));
    let report = assert_exact(directory.path(), &expected, ended);
    assert_eq!(report["consumer_crashes"], 6);
    assert_eq!(report["host_crashes"], 3);
    assert_eq!(report["server_crashes"], 0);
    for left in ["outbox_entries_left", "pending_markers_left", "broker_left", "dead_letters_left"] {
        assert_eq!(report[left], 0, "{left}");
    }
    // The directory is as one process would have left it, and what is done is done.
    let again = run(demo(directory.path()).args(["--crashes", "0"]));
    assert_exact(directory.path(), &expected, again);
}

#[test]
fn a_store_in_a_server_that_is_killed_is_opened_by_each_consumer_and_every_total_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let expected = write_flights(directory.path(), 300);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // The server is a host of its own: the broker that it has besides is not used. A child of the shell, as in a script.
    let server =
        format!("'{TOLLGATE}' host --data server --address-file server.address --listen {port} <&0; exit 1");
    let ended = run(demo(directory.path())
        .args(["--processes", "2", "--kills", "2", "--host-kills", "1", "--server-kills", "3", "--seed", "8"])
        .args(["--store", "host", "--store-at", "server.address"])
        .args(["--server", &server, "--server-ready", &port.to_string()]));
    let report = assert_exact(directory.path(), &expected, ended);
    assert_eq!(report["consumer_crashes"], 2);
    assert_eq!(report["host_crashes"], 1);
    assert_eq!(report["server_crashes"], 3);
    assert!(!directory.path().join("data/store").exists(), "the demo's own host has no store");
    TcpListener::bind(port).expect("the server has ended with the demo");
}

#[test]
fn whoever_kills_the_demo_kills_its_processes_and_a_later_run_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let expected = write_flights(directory.path(), 2_000);
    let mut child = demo(directory.path())
        .args(["--processes", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = directory.path().join("data/host.address");
    let started = Instant::now();
    while !address.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the host has not started");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The host holds the directory's lock as long as it lives.
    let ended = loop {
        let (code, text) = run(demo(directory.path()).args(["--crashes", "0"]));
        if !text.contains("in use") {
            break (code, text);
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{text}");
    };
    assert_exact(directory.path(), &expected, ended);
}

#[test]
fn a_guard_that_is_killed_gently_or_not_at_all_ends_its_server_with_all_that_it_has_started() {
    // The server says that it runs, in its errors: it has no output that anybody reads.
    for end in ["close\n", ""] {
        let mut guard = Command::new(TOLLGATE)
            .args(["guard", "sh -c 'echo it runs >&2; cat <&0 >/dev/null; sleep 600' & wait"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(guard.stderr.take().unwrap()).lines();
        assert_eq!(errors.next().unwrap().unwrap(), "it runs");
        let mut orders = guard.stdin.take().unwrap();
        std::io::Write::write_all(&mut orders, end.as_bytes()).unwrap();
        drop(orders);
        // The pipe ends when the last process that holds it has.
        assert!(errors.next().is_none());
        assert!(guard.wait().unwrap().success());
    }
}

#[test]
fn a_server_that_ends_by_itself_and_options_that_make_no_sense_are_told() {
    let directory = tempfile::tempdir().unwrap();
    write_flights(directory.path(), 10);
    let (code, text) = run(demo(directory.path())
        .args(["--processes", "1", "--server", "exit 7"])
        .args(["--server-ready", "127.0.0.1:1"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it has ended by itself"), "{text}");
    let (code, text) = run(demo(directory.path()).args(["--store", "host"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("needs --processes"), "{text}");
    let (code, text) = run(demo(directory.path()).args(["--processes", "2", "--crashes", "1"]));
    assert_eq!(code, Some(2), "{text}");
}
