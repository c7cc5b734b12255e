//! How much memory a large `PUT` takes: alone in its process, because the kernel keeps one peak for all of it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod vault;

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::proto::StoreAlias;
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{DirectoryBlobs, MemoryStore};
use tollgate_http::RequestId;

/// How much is stored.
const BODY_BYTES: usize = 100_000_000;

/// How much more memory than before it may take: what a connection reads at a time, several times; and both ends are in here.
const GROWTH_MAX_KIB: u64 = 16 * 1024;

/// A line of what the kernel says of this process, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// From here on the kernel keeps a new peak. Returns what there is now.
fn mark() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status_kib("VmRSS:")
}

/// Makes a request by hand, and returns the whole answer.
async fn ask(stream: &mut TcpStream, head: &str, body: impl Iterator<Item = bytes::Bytes>) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body {
        stream.write_all(&piece).await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_hundred_megabytes_are_stored_and_executed_in_a_few_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let gate = vault::gate(
        Arc::new(MemoryStore::new(StoreAlias::new("vault").unwrap())),
        Arc::new(InProcessBroker::builder().build()),
        Arc::new(DirectoryBlobs::open(directory.path()).unwrap()),
    )
    .await;
    let routes = vault::server(gate.edge("vault").unwrap()).router().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    let expected = vault::expected(1, BODY_BYTES);

    let path = format!("/things/{}", RequestId::random());
    for (method, bytes) in [("PUT", BODY_BYTES), ("PUT", BODY_BYTES), ("POST", 0), ("DELETE", 0)] {
        let before = mark();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: vault\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
        );
        let answer = ask(&mut stream, &head, vault::thing(1, bytes)).await;
        let growth = status_kib("VmHWM:").saturating_sub(before);
        println!("{method} of {bytes} bytes: peak +{}.{} MiB", growth / 1024, growth % 1024 * 10 / 1024);
        assert!(growth <= GROWTH_MAX_KIB, "{method} takes {growth} KiB more than before");
        match method {
            "POST" => assert!(answer.ends_with(&expected), "{answer}"),
            _ => assert!(answer.starts_with("HTTP/1.1 20"), "{answer}"),
        }
    }
    assert_eq!(std::fs::read_dir(directory.path().join("requests")).map_or(0, Iterator::count), 0);
    gate.close().await;
    serving.abort();
}
