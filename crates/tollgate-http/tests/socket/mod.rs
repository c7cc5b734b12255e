//! A bank on a real socket, with a store that can be looked into and made to fail; and a client that writes bytes, whatever they
//! are. What every test over the network is played with.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tollgate::proto::StoreAlias;
use tollgate::{Blobs, Broker, Endpoint, Gate, HandlerError, Message, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{MemoryBlobs, MemoryStore};
use tollgate_http::client::{Reqwest, Transport};
use tollgate_http::server::{Caller, ExactlyOnce, Request};
use tollgate_http::{Problem, ProblemKind, RequestId, Response};
use tollgate_testkit::{FaultRates, FaultyStore};

/// How long a test waits for an answer before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a body may take to arrive at the bank.
pub const BODY_TIME_MAX: Duration = Duration::from_millis(300);

/// Most bytes of a body.
pub const BODY_BYTES_MAX: usize = 100_000;

/// Bytes of a large response: more than what is kept inline.
pub const LARGE: usize = 300_000;

/// Counted by the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paid;

impl Message for Paid {
    const TYPE: &'static str = "bank.paid";
}

/// What is kept, and by whom requests are executed: it outlives a process.
#[derive(Clone)]
pub struct Ground {
    pub faults: Arc<FaultyStore>,
    pub store: Arc<dyn Store>,
    pub broker: Arc<InProcessBroker>,
    pub blobs: Arc<MemoryBlobs>,
    /// Handlers that are told to wait wait for a permit.
    pub permits: Arc<Semaphore>,
    /// How many handlers have begun.
    pub begun: Arc<AtomicUsize>,
}

impl Ground {
    pub fn new() -> Self {
        Self::on(MemoryStore::new(StoreAlias::new("bank").unwrap()))
    }

    pub fn on(store: MemoryStore) -> Self {
        let faults = Arc::new(FaultyStore::new(Arc::new(store), 1, FaultRates::default()));
        Self {
            store: Arc::clone(&faults) as Arc<dyn Store>,
            faults,
            broker: Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(2)).build()),
            blobs: Arc::new(MemoryBlobs::new()),
            permits: Arc::new(Semaphore::new(0)),
            begun: Arc::default(),
        }
    }

    pub async fn gate(&self) -> Gate {
        Gate::builder()
            .store(Arc::clone(&self.store))
            .broker(Arc::clone(&self.broker) as Arc<dyn Broker>)
            .blobs(Arc::clone(&self.blobs) as Arc<dyn Blobs>)
            .wake_up_after(Duration::from_millis(50))
            .sweep_every(None)
            .endpoint(Endpoint::new("payments"))
            .endpoint(Endpoint::new("ledger").on(count))
            .open()
            .await
            .unwrap()
    }

    /// Everything that is stored: partitions with their control records and items, and blobs. Two of them are equal if and only
    /// if nothing was committed in between.
    pub async fn everything(&self) -> Vec<String> {
        let page = self.store.scan(None, usize::MAX).await.unwrap();
        let partitions = page.partitions.iter().map(|scanned| format!("{scanned:?}"));
        let blobs = self.blobs.list("").await.unwrap();
        partitions.chain(blobs.iter().map(ToString::to_string)).collect()
    }

    /// The items that hold requests and responses, and all blobs.
    pub async fn kept(&self) -> Vec<String> {
        let page = self.store.scan(None, usize::MAX).await.unwrap();
        let items = page.partitions.into_iter().flat_map(|scanned| scanned.items);
        let names = items.map(|item| item.as_str().to_owned());
        let is_kept = |name: &String| name.starts_with("request/") || name.starts_with("http-response/");
        let blobs = self.blobs.list("").await.unwrap();
        names.filter(is_kept).chain(blobs.iter().map(ToString::to_string)).collect()
    }
}

async fn count(tx: Tx, _: Paid) -> Result<(), HandlerError> {
    let sum: u64 = tx.get("count").await?.unwrap_or_default();
    tx.put("count", &(sum + 1))?;
    Ok(())
}

/// The bank does what the body says: an account, and then one of several things.
pub fn bank(gate: &Gate, ground: &Ground) -> ExactlyOnce {
    let ground = ground.clone();
    let account = |request: Request| async move {
        let body = request.body.read().await?;
        let text = std::str::from_utf8(&body).map_err(HandlerError::permanent)?;
        match text.split_whitespace().next() {
            None => Err(HandlerError::permanent("it names no account")),
            Some("raw") => Ok(text[4..].to_owned()),
            Some(account) => Ok(format!("account/{account}")),
        }
    };
    let pay = move |tx: Tx, request: Request| {
        let ground = ground.clone();
        async move { pay(tx, request, ground).await }
    };
    ExactlyOnce::new(gate.edge("payments").unwrap(), "/payments", account, pay)
        .authenticate(|parts: &Parts| std::future::ready(caller(parts)))
        .body_bytes_max(BODY_BYTES_MAX)
        .body_time_max(BODY_TIME_MAX)
}

/// The caller that a bearer token names.
pub fn caller(parts: &Parts) -> Result<Caller, Problem> {
    let credentials = parts.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match credentials.and_then(|text| text.strip_prefix("Bearer ")) {
        Some(name) if name.chars().all(char::is_alphanumeric) && !name.is_empty() => Ok(Caller::new(name)),
        _ => Err(Problem::new(ProblemKind::Unauthenticated, "send a bearer token")),
    }
}

async fn pay(tx: Tx, request: Request, ground: Ground) -> Result<Response, HandlerError> {
    ground.begun.fetch_add(1, Ordering::SeqCst);
    let text = String::from_utf8(request.body.read().await?.to_vec()).unwrap();
    let paid = tx.get::<u64>("paid").await?.unwrap_or_default() + 1;
    tx.put("paid", &paid)?;
    tx.send("ledger", "book", &Paid)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.get(1).copied().unwrap_or_default() {
        "refuse" => return Err(Problem::refused("no credit").into()),
        "refuse-inside" => return Err(HandlerError::permanent("http://admin:secret@10.0.0.1/ says no")),
        "fail" => return Err(HandlerError::retry("not now")),
        "status" => {
            let status = words[2].parse().unwrap();
            return Ok(Response::new(status, "application/x-odd; version=2", vec![0, 159, 146, 150]));
        }
        "large" => {
            let body: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
            return Ok(Response::new(http::StatusCode::OK, "application/x-large", body));
        }
        "wait" => ground.permits.acquire().await.unwrap().forget(),
        _ => {}
    }
    Ok(Response::text(format!("receipt {paid}")))
}

/// A server on a socket.
pub struct Host {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Host {
    pub async fn of(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, router)
    }

    pub fn on(listener: TcpListener, router: Router) -> Self {
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, serving }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// One request of a caller, with headers and a body.
    pub async fn ask(&self, method: &str, path: &str, caller: &str, more: Ask<'_>) -> Answer {
        let mut request =
            http::Request::builder().method(method).uri(self.url(path)).body(more.body).unwrap();
        if !caller.is_empty() {
            request.headers_mut().insert("authorization", format!("Bearer {caller}").parse().unwrap());
        }
        for (name, value) in more.headers {
            request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let answer = tokio::time::timeout(PATIENCE, Reqwest::new().send(request)).await.unwrap().unwrap();
        let (parts, body) = answer.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn put(&self, id: RequestId, caller: &str, body: &str) -> Answer {
        let body = body.to_owned().into();
        self.ask("PUT", &path(id), caller, Ask { body, headers: &[("content-type", "text/plain")] }).await
    }

    /// A request without a body.
    pub async fn go(&self, method: &str, id: RequestId, caller: &str) -> Answer {
        self.ask(method, &path(id), caller, Ask::default()).await
    }

    /// Writes bytes, pieces with pauses between them, and reads whatever comes until the other side closes or nothing comes any
    /// more.
    pub async fn raw(&self, pieces: &[&[u8]], pause: Duration) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            if stream.write_all(piece).await.is_err() {
                // Refused before the end.
                break;
            }
        }
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let received = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
            match received.expect("an answer, or the end of the connection") {
                Ok(0) | Err(_) => break,
                Ok(bytes) => read.extend_from_slice(&buffer[..bytes]),
            }
            if Answer::is_whole(&read) {
                break;
            }
        }
        Answer::parse(&read)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn path(id: RequestId) -> String {
    format!("/payments/{id}")
}

/// What a request has besides method and path.
#[derive(Default)]
pub struct Ask<'a> {
    pub body: Bytes,
    pub headers: &'a [(&'a str, &'a str)],
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn is_replayed(&self) -> bool {
        self.header("idempotent-replayed") == "true"
    }

    /// What kind of problem it is: the last part of its type.
    pub fn problem(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    /// Status and kind of problem, for short.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.problem())
    }

    fn is_whole(bytes: &[u8]) -> bool {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        length.is_some_and(|length| bytes.len() - end - 4 >= length.trim().parse().unwrap())
    }

    /// The first response among the bytes. Status 0: there is none.
    fn parse(bytes: &[u8]) -> Self {
        let mut answer = Self { status: 0, headers: http::HeaderMap::new(), body: Bytes::new() };
        let Some(end) = find(bytes, b"\r\n\r\n") else { return answer };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        answer.status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            answer.headers.append(name, value.trim().parse().unwrap());
        }
        answer.body = Bytes::copy_from_slice(&bytes[end + 4..]);
        answer
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
