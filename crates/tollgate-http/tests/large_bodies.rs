//! Bodies that are never held in memory: what is the same as with small ones, and what is left of those that never arrived as a
//! whole: nothing.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;
mod vault;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use socket::{Ground, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::{Blobs, Broker, Gate};
use tollgate_http::RequestId;
use tollgate_http::server::ExactlyOnce;
use tower::ServiceExt;

/// More than is kept in an item, in several pieces.
const LARGE: usize = 1_000_000;

/// In so many pieces that its connection waits often.
const DROPPED: usize = 4_000_000;

/// A vault, and what it keeps.
struct Vault {
    ground: Ground,
    gate: Gate,
    server: ExactlyOnce,
    routes: Router,
}

impl Vault {
    async fn new() -> Self {
        Self::with(|server| server).await
    }

    async fn with(change: impl FnOnce(ExactlyOnce) -> ExactlyOnce) -> Self {
        let ground = Ground::new();
        let broker = Arc::clone(&ground.broker) as Arc<dyn Broker>;
        let blobs = Arc::clone(&ground.blobs) as Arc<dyn Blobs>;
        let gate = vault::gate(Arc::clone(&ground.store), broker, blobs).await;
        let server = change(vault::server(gate.edge("vault").unwrap()));
        let routes = server.router().unwrap();
        Self { ground, gate, server, routes }
    }

    fn routes(&self) -> Router {
        self.routes.clone()
    }

    async fn ask(&self, method: &str, id: RequestId, body: Body) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(path(id)).body(body).unwrap();
        let response = self.routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn put(&self, id: RequestId, seed: u64, bytes: usize) -> u16 {
        self.ask("PUT", id, vault::body(vault::thing(seed, bytes))).await.0
    }

    async fn go(&self, method: &str, id: RequestId) -> (u16, String) {
        self.ask(method, id, Body::empty()).await
    }

    async fn keeps(&self) -> Vec<String> {
        self.ground.kept().await
    }

    /// Waits until nothing is kept: what a broken connection has left behind is tidied up when it is gone.
    async fn is_empty(&self) {
        let waiting = async {
            while !self.keeps().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(socket::PATIENCE, waiting).await;
        assert!(waited.is_ok(), "it keeps {:?}", self.keeps().await);
    }
}

fn path(id: RequestId) -> String {
    format!("/things/{id}")
}

#[tokio::test]
async fn a_large_body_repeated_is_the_same_request_and_another_one_is_refused() {
    let vault = Vault::new().await;
    let id = RequestId::random();
    assert_eq!(vault.put(id, 1, LARGE).await, 201);
    assert_eq!(vault.put(id, 1, LARGE).await, 200);
    assert_eq!(vault.put(id, 2, LARGE).await, 409, "another body of the same length");
    assert_eq!(vault.put(id, 1, LARGE + 1).await, 409, "a longer one");
    assert_eq!(vault.put(id, 1, 10).await, 409, "one that is small");
    assert_eq!(vault.keeps().await.len(), 3, "the reservation, the request and one blob");
    let (status, receipt) = vault.go("POST", id).await;
    assert_eq!((status, receipt.as_str()), (200, vault::expected(1, LARGE).as_str()));
    assert_eq!(vault.put(id, 1, LARGE).await, 200);
    assert_eq!(vault.go("GET", id).await.1, receipt);
    assert_eq!(vault.go("DELETE", id).await.0, 204);
    vault.is_empty().await;
    vault.gate.close().await;
}

#[tokio::test]
async fn a_large_body_under_the_id_of_a_small_one_is_refused() {
    let vault = Vault::new().await;
    let id = RequestId::random();
    assert_eq!(vault.put(id, 1, 10).await, 201);
    assert_eq!(vault.put(id, 1, LARGE).await, 409);
    assert_eq!(vault.go("POST", id).await.1, vault::expected(1, 10));
    assert_eq!(vault.go("DELETE", id).await.0, 204);
    vault.is_empty().await;
}

#[tokio::test]
async fn copies_of_a_large_put_that_come_at_the_same_time_store_one_request() {
    let vault = Vault::new().await;
    for _ in 0..10 {
        let id = RequestId::random();
        let puts = futures_util::future::join_all((0..4).map(|_| vault.put(id, 1, LARGE))).await;
        assert!(puts.iter().all(|status| [200, 201].contains(status)), "{puts:?}");
        assert_eq!(puts.iter().filter(|status| **status == 201).count(), 1, "{puts:?}");
        assert_eq!(vault.keeps().await.len(), 3);
        assert_eq!(vault.go("DELETE", id).await.0, 204);
    }
    vault.is_empty().await;
}

#[tokio::test]
async fn the_operator_removes_a_large_request_whose_client_never_came_back() {
    let vault = Vault::with(|server| server).await;
    let id = RequestId::random();
    assert_eq!(vault.put(id, 1, LARGE).await, 201);
    let abandoned = vault.server.abandoned(Duration::ZERO).await.unwrap();
    assert_eq!(abandoned.iter().map(|request| request.id).collect::<Vec<_>>(), [id]);
    vault.server.remove(id).await.unwrap();
    vault.is_empty().await;
    assert_eq!(vault.server.abandoned(Duration::ZERO).await.unwrap(), []);
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_where_it_becomes_too_large_and_nothing_is_left() {
    let vault = Vault::with(|server| server.body_bytes_max(LARGE)).await;
    let id = RequestId::random();
    assert_eq!(vault.put(id, 1, LARGE + 1).await, 413);
    vault.is_empty().await;
    assert_eq!(vault.go("POST", id).await.0, 404);
    assert_eq!(vault.put(id, 1, LARGE).await, 201, "the limit itself is allowed");
    assert_eq!(vault.go("DELETE", id).await.0, 204);
    vault.is_empty().await;
}

#[tokio::test]
async fn a_large_body_that_comes_too_slowly_is_refused_and_nothing_is_left() {
    let vault = Vault::with(|server| server.body_time_max(Duration::from_millis(200))).await;
    let id = RequestId::random();
    let never = stream::iter(vault::thing(1, LARGE).map(Ok::<_, std::io::Error>)).chain(stream::pending());
    let (status, problem) = vault.ask("PUT", id, Body::from_stream(never)).await;
    assert_eq!(status, 408, "{problem}");
    vault.is_empty().await;
}

#[tokio::test]
async fn a_large_body_that_can_not_be_executed_anywhere_is_refused_and_nothing_is_left() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let host = Host::of(socket::bank(&gate, &ground).router().unwrap()).await;
    let body = format!("raw {}", "x".repeat(80_000));
    let answer = host.put(RequestId::random(), "ada", &body).await;
    assert_eq!(answer.refusal(), (400, "bad-request".to_owned()));
    assert_eq!(ground.kept().await, Vec::<String>::new());
    gate.close().await;
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_neither_blob_nor_record() {
    const ANNOUNCED: usize = 50_000_000;
    let vault = Vault::new().await;
    let host = Host::of(vault.routes()).await;
    for (sent, is_closed_at_once) in [(100_000, true), (ANNOUNCED / 2, true), (ANNOUNCED / 2, false)] {
        for about_body in [format!("content-length: {ANNOUNCED}"), "transfer-encoding: chunked".to_owned()] {
            let mut stream = TcpStream::connect(host.address).await.unwrap();
            let path = path(RequestId::random());
            let head = format!("PUT {path} HTTP/1.1\r\nhost: vault\r\n{about_body}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for piece in vault::thing(1, sent) {
                if about_body.starts_with('t') {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
                }
                stream.write_all(&piece).await.unwrap();
                if about_body.starts_with('t') {
                    stream.write_all(b"\r\n").await.unwrap();
                }
            }
            if !is_closed_at_once {
                // The other half of the connection is there, and is told.
                stream.shutdown().await.unwrap();
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer).await;
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
            }
            drop(stream);
            vault.is_empty().await;
        }
    }
    vault.gate.close().await;
    assert!(vault.ground.blobs.list("").await.unwrap().is_empty());
}

/// The connection is gone at each moment at which its task waits for anything. Whatever was begun comes to its end: all of the request
/// is stored, or nothing is.
#[tokio::test]
async fn a_large_put_that_is_dropped_at_any_moment_is_stored_as_a_whole_or_not_at_all() {
    let vault = Vault::new().await;
    let mut outcomes = (0, 0);
    for polls in 1..200 {
        let id = RequestId::random();
        let pieces = stream::iter(vault::thing(1, DROPPED)).then(|piece: Bytes| async move {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(piece)
        });
        let request =
            http::Request::builder().method("PUT").uri(path(id)).body(Body::from_stream(pieces)).unwrap();
        let mut is_answered = false;
        {
            let mut put = pin!(vault.routes().oneshot(request));
            let mut left = polls;
            poll_fn(|context| {
                is_answered = put.poll_unpin(context).is_ready();
                left -= 1;
                if left == 0 || is_answered { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        // What goes on without the connection is waited for by whoever closes the gate; here by looking.
        let settled = async {
            loop {
                let kept = vault.keeps().await;
                let is_stored = kept.len() == 3;
                if is_stored || kept.is_empty() {
                    return is_stored;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let is_stored = tokio::time::timeout(socket::PATIENCE, settled).await.expect("it stays half done");
        assert!(is_stored || !is_answered, "after {polls} polls");
        // The client comes back, with the same body or to give it up.
        if polls % 2 == 0 {
            let status = vault.put(id, 1, DROPPED).await;
            assert!([200, 201].contains(&status), "{status} after {polls} polls");
            assert_eq!(vault.go("POST", id).await.1, vault::expected(1, DROPPED));
        }
        vault.go("DELETE", id).await;
        vault.is_empty().await;
        if is_stored {
            outcomes.0 += 1;
        } else {
            outcomes.1 += 1;
        }
        if is_answered {
            break;
        }
    }
    println!("{} were stored, {} left nothing", outcomes.0, outcomes.1);
    assert!(outcomes.0 > 0 && outcomes.1 > 5, "{outcomes:?}");
    vault.gate.close().await;
}
