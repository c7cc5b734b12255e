//! Measures exactly-once HTTP on loopback: the exchange (four requests) and the edge (one request), against a plain axum handler
//! that makes the same change to the same kind of store and recognises nothing. Clients keep their connections; the three take
//! turns, so that whatever else the machine does disturbs all of them. Clients and server share the machine.
//!
//! `cargo run --release -p tollgate-http --example throughput [-- ROUNDS [SECONDS [CLIENTS [WAY]]]]`, where WAY is `plain`, `edge` or
//! `exchange`, to look at one of them alone. What it prints is the table of `docs/http.md`.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Extension, Router};
use hdrhistogram::Histogram;
use tokio::net::TcpListener;
use tollgate::proto::{
    Commit, CommitOutcome, Incarnation, ItemName, ItemValue, LoadRequest, PartitionKey, Sequence, StoreAlias,
    Version,
};
use tollgate::{Broker, Endpoint, Gate, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{EmbeddedStore, MemoryStore};
use tollgate_http::edge::IdempotencyKey;
use tollgate_http::server::{ExactlyOnce, Request};
use tollgate_http::{RequestId, Response};

/// How many accounts there are; each request changes one of them.
const ACCOUNTS: usize = 1_000;

/// The item that each of them changes.
const BALANCE: &str = "balance";

const ROUNDS: usize = 5;
const SECONDS: u64 = 3;
const CLIENTS: usize = 64;

fn main() {
    let only = std::env::args().nth(4);
    let mut arguments = std::env::args().skip(1).take(3).map(|argument| argument.parse().expect("a number"));
    let rounds = arguments.next().map_or(ROUNDS, |rounds: u64| usize::try_from(rounds).expect("few"));
    let time = Duration::from_secs(arguments.next().unwrap_or(SECONDS));
    let clients = arguments.next().map_or(CLIENTS, |clients| usize::try_from(clients).expect("few"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!(
        "{clients} clients with a connection each, {ACCOUNTS} accounts, {rounds} rounds of {time:?} in turns"
    );
    let directory = tempfile::tempdir().expect("a place to measure on");
    let mut number = 0;
    let mut durable = || -> Arc<dyn Store> {
        number += 1;
        let place = directory.path().join(number.to_string());
        Arc::new(EmbeddedStore::open(place, alias()).expect("the directory is empty and ours"))
    };
    let memory = || -> Arc<dyn Store> { Arc::new(MemoryStore::new(alias())) };
    let ways: Vec<Way> =
        Way::ALL.into_iter().filter(|way| only.as_ref().is_none_or(|only| *only == way.name())).collect();
    let load = Load { ways, rounds, time, clients };
    println!("\n| store | | a second | requests a second | p50 | p99 | costs as much as |");
    println!("|---|---|---|---|---|---|---|");
    runtime.block_on(measure("in memory", memory(), memory(), &load));
    runtime.block_on(measure("embedded, each commit synced", durable(), durable(), &load));
}

fn alias() -> StoreAlias {
    StoreAlias::new("main").expect("a valid alias")
}

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Edge,
    Exchange,
}

impl Way {
    const ALL: [Self; 3] = [Self::Plain, Self::Edge, Self::Exchange];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    const fn requests(self) -> u32 {
        if matches!(self, Self::Exchange) { 4 } else { 1 }
    }
}

/// Who does what, and for how long.
struct Load {
    ways: Vec<Way>,
    rounds: usize,
    time: Duration,
    clients: usize,
}

async fn measure(name: &str, plain_store: Arc<dyn Store>, store: Arc<dyn Store>, load: &Load) {
    let gate = Gate::builder()
        .store(store)
        .broker(Arc::new(InProcessBroker::builder().build()) as Arc<dyn Broker>)
        .endpoint(Endpoint::new("bank"))
        .sweep_every(None)
        .open()
        .await
        .expect("the gate makes sense");
    let address = serve(&gate, plain_store).await;
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..load.rounds {
        for way in &load.ways {
            figures[*way as usize].push(play(*way, address, load).await);
        }
    }
    let median = |way: Way, of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures[way as usize].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let plain = load.ways.contains(&Way::Plain).then(|| median(Way::Plain, |figures| figures.per_second));
    for (place, way) in load.ways.iter().copied().enumerate() {
        let per_second = median(way, |figures| figures.per_second);
        let requests = f64::from(way.requests());
        let costs = plain.map_or(f64::NAN, |plain| plain / per_second);
        let costs = match way {
            Way::Plain => String::new(),
            Way::Edge => format!("{costs:.1} plain requests"),
            Way::Exchange => {
                format!("{costs:.1} plain requests, {:.1} for each of its four", costs / requests)
            }
        };
        println!(
            "| {} | {} | {} | {} | {:.1} ms | {:.1} ms | {costs} |",
            if place == 0 { name } else { "" },
            way.name(),
            grouped(per_second),
            grouped(per_second * requests),
            median(way, |figures| figures.p50_ms),
            median(way, |figures| figures.p99_ms),
        );
    }
    gate.close().await;
}

/// A number as people write it: with a comma before each three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let places = digits.len();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (places - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Up to a minute, in microseconds, with three digits.
fn latencies_seen() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that make sense")
}

struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

async fn play(way: Way, address: SocketAddr, load: &Load) -> Figures {
    let (begin, time) = (Instant::now(), load.time);
    let tasks: Vec<_> = (0..load.clients)
        .map(|_| {
            tokio::spawn(async move {
                let client = reqwest::Client::builder().pool_max_idle_per_host(1).build().expect("no TLS");
                let mut latencies = latencies_seen();
                while begin.elapsed() < time {
                    let account = fastrand::usize(..ACCOUNTS);
                    let asked = Instant::now();
                    once(way, &client, address, account).await;
                    latencies.saturating_record(u64::try_from(asked.elapsed().as_micros()).expect("short"));
                }
                latencies
            })
        })
        .collect();
    let mut latencies = latencies_seen();
    for task in tasks {
        latencies += task.await.expect("a client does not panic");
    }
    Figures {
        per_second: latencies.len() as f64 / begin.elapsed().as_secs_f64(),
        p50_ms: latencies.value_at_quantile(0.50) as f64 / 1e3,
        p99_ms: latencies.value_at_quantile(0.99) as f64 / 1e3,
    }
}

async fn once(way: Way, client: &reqwest::Client, address: SocketAddr, account: usize) {
    match way {
        Way::Plain => {
            let request = client.post(format!("http://{address}/plain/{account}")).body("5");
            answered(request, StatusCode::OK).await;
        }
        Way::Edge => {
            let key = RequestId::random().to_string();
            let request = client.post(format!("http://{address}/edge/{account}")).body("5");
            answered(request.header("idempotency-key", key), StatusCode::OK).await;
        }
        Way::Exchange => {
            let url = format!("http://{address}/exchange/{}", RequestId::random());
            answered(client.put(&url).body(account.to_string()), StatusCode::CREATED).await;
            answered(client.post(&url), StatusCode::OK).await;
            answered(client.get(&url), StatusCode::OK).await;
            answered(client.delete(&url), StatusCode::NO_CONTENT).await;
        }
    }
}

async fn answered(request: reqwest::RequestBuilder, expected: StatusCode) {
    let response = request.send().await.expect("the server is up");
    assert_eq!(response.status(), expected);
    response.bytes().await.expect("the whole response");
}

async fn serve(gate: &Gate, plain_store: Arc<dyn Store>) -> SocketAddr {
    let edge = gate.edge("bank").expect("the gate has it");
    let hour = Duration::from_secs(3_600);
    let keys = IdempotencyKey::new(edge.clone(), hour, |parts, _| Ok(format!("account{}", parts.uri.path())));
    let keyed = Router::new().route("/edge/{account}", post(pay_by_key)).layer(keys.shared());
    let exchange = ExactlyOnce::new(
        edge,
        "/exchange",
        |request: Request| async move {
            Ok(format!("account/{}", String::from_utf8_lossy(&request.body.read().await?)))
        },
        |tx: Tx, _| async move { Ok(Response::text(pay(&tx).await?)) },
    );
    let plain = Router::new().route("/plain/{account}", post(pay_plainly)).with_state(plain_store);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let routes = keyed.merge(exchange.router().expect("one server has its base for itself")).merge(plain);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// What all of them do.
async fn pay(tx: &Tx) -> Result<String, tollgate::TollgateError> {
    let balance = tx.get::<i64>(BALANCE).await?.unwrap_or_default() + 5;
    tx.put(BALANCE, &balance)?;
    Ok(format!("the balance is {balance}"))
}

async fn pay_by_key(Extension(tx): Extension<Tx>, _: HeaderMap, _: String) -> Result<String, StatusCode> {
    pay(&tx).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// As one writes it without Tollgate: read, change, write on condition that nobody else has; and again if somebody has.
async fn pay_plainly(State(store): State<Arc<dyn Store>>, Path(account): Path<String>, _: String) -> String {
    let partition = PartitionKey::new(format!("account/{account}")).expect("short");
    let item = ItemName::new(BALANCE).expect("a valid name");
    loop {
        let request =
            LoadRequest { partition: partition.clone(), items: vec![item.clone()], records: Vec::new() };
        let loaded =
            store.load(vec![request]).await.pop().expect("one answer each").expect("the store is up");
        let before: u64 = loaded.control.map_or(0, |control| serde_json::from_slice(&control).expect("ours"));
        let balance: i64 = match loaded.items.into_iter().next().and_then(|(_, value)| value) {
            Some(value) => serde_json::from_slice(value.bytes()).expect("ours"),
            None => 0,
        };
        let version =
            |counter: u64| Version::from_sequence(Sequence { incarnation: Incarnation(1), counter });
        let commit = Commit {
            partition: partition.clone(),
            expected: (before > 0).then(|| version(before)),
            version: version(before + 1),
            control: (before + 1).to_string().into(),
            items: vec![(item.clone(), Some(ItemValue::Json((balance + 5).to_string().into())))],
            entries: Vec::new(),
            deleted_entries: Vec::new(),
            records: Vec::new(),
            now_ms: 0,
        };
        if matches!(store.commit(commit).await, Ok(CommitOutcome::Committed { .. })) {
            return format!("the balance is {}", balance + 5);
        }
    }
}
