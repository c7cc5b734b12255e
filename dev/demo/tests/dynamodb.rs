//! The demo on DynamoDB, by the line that `docs/stores/dynamodb.md` gives: one process, an emulator as a
//! server.
//! `cargo test -p tollgate-demo --features dynamodb --test dynamodb`
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::process::Command;

use tollgate_testkit::LocalServer;

#[test]
fn the_documented_line_runs_in_one_process() {
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/dynamodb/start-dynoxide");
    let Some(server) = LocalServer::start_in_memory(infra) else { return };
    let directory = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/flights.ndjson");
    let some: String = std::fs::read_to_string(sample).unwrap().split_inclusive('\n').take(200).collect();
    let flights = directory.path().join("flights.ndjson");
    std::fs::write(&flights, some).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate-demo"))
        .args(["--store", "dynamodb", "--store-at"])
        .arg(format!("http://{}/flights", server.address().trim_start_matches("http://")))
        .arg("--input")
        .arg(flights)
        .arg("--data")
        .arg(directory.path().join("data"))
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("audit: every total is exact, nothing is left over"), "{text}");
}
