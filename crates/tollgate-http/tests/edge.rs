//! `Idempotency-Key` over real sockets: the draft's semantics, and what a crash, a race and the end of the retention do to them.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::future::join_all;
use futures_util::stream;
use socket::{Answer, Ask, Ground, Host, Paid, caller};
use tollgate::{Gate, HandlerError, Tx};
use tollgate_http::edge::{IdempotencyKey, idempotent};
use tollgate_http::{Problem, ProblemKind};
use tollgate_testkit::{FaultyStore, Operation, Phase};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Longest time that a test's keys are remembered where they are to be forgotten.
const MOMENT: Duration = Duration::from_millis(100);

/// The shop's front: counts orders, and does what the body says.
async fn order(
    Extension(tx): Extension<Tx>,
    Extension(ground): Extension<Ground>,
    body: String,
) -> Result<Response, (StatusCode, String)> {
    let broken = |error: tollgate::TollgateError| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    ground.begun.fetch_add(1, Ordering::SeqCst);
    let orders = tx.get::<u64>("orders").await.map_err(broken)?.unwrap_or_default() + 1;
    tx.put("orders", &orders).map_err(broken)?;
    tx.send("ledger", "book", &Paid).map_err(broken)?;
    let mut words = body.split(' ');
    match words.next().unwrap() {
        "status" => {
            let status = StatusCode::from_bytes(words.next().unwrap().as_bytes()).unwrap();
            Ok((status, format!("after {orders}")).into_response())
        }
        "blob-and-status" => {
            tx.put_blob("pictures/", "a picture").await.map_err(broken)?;
            let status = StatusCode::from_bytes(words.next().unwrap().as_bytes()).unwrap();
            Ok((status, format!("after {orders}")).into_response())
        }
        "wait" => {
            ground.permits.acquire().await.unwrap().forget();
            Ok(format!("order {orders}").into_response())
        }
        "large" => Ok("x".repeat(2_000).into_response()),
        "odd-header" => Ok(([("odd", "\u{e9}")], "odd").into_response()),
        "cookies" => {
            let mut response = (StatusCode::CREATED, vec![0u8, 159, 146]).into_response();
            for cookie in ["a=1", "b=2"] {
                response.headers_mut().append("set-cookie", cookie.parse().unwrap());
            }
            response.headers_mut().insert("location", "/orders/1".parse().unwrap());
            Ok(response)
        }
        _ => Ok(format!("order {orders}").into_response()),
    }
}

fn layer(gate: &Gate, retention: Duration) -> IdempotencyKey {
    IdempotencyKey::new(gate.edge("payments").unwrap(), retention, |_, _| Ok("front".to_owned()))
        .caller(|parts| std::future::ready(caller(parts).map(|caller| caller.as_str().to_owned())))
        .body_bytes_max(1_000)
        .body_time_max(Duration::from_millis(300))
}

/// A process of the shop.
struct Process {
    gate: Gate,
    host: Host,
}

impl Process {
    async fn on(ground: &Ground) -> Self {
        Self::with(ground, DAY, |layer| layer).await
    }

    async fn with(
        ground: &Ground,
        retention: Duration,
        change: impl FnOnce(IdempotencyKey) -> IdempotencyKey,
    ) -> Self {
        let gate = ground.gate().await;
        let routes = Router::new()
            .route("/orders", post(order).put(order))
            .route(
                "/endless",
                post(|| async {
                    Response::new(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()))
                }),
            )
            .route("/limited", post(limited))
            .route("/safe", get(|headers: HeaderMap| async move { headers.len().to_string() }))
            .layer(Extension(ground.clone()))
            .layer(change(layer(&gate, retention)));
        let host = Host::of(routes).await;
        Self { gate, host }
    }

    async fn order(&self, key: &str, body: &str) -> Answer {
        self.order_of("ada", key, body).await
    }

    async fn order_of(&self, caller: &str, key: &str, body: &str) -> Answer {
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("idempotency-key", key)] };
        self.host.ask("POST", "/orders", caller, Ask { body: body.to_owned().into(), headers }).await
    }

    async fn orders(&self) -> u64 {
        self.number("front", "orders").await
    }

    async fn number(&self, partition: &str, item: &str) -> u64 {
        let bytes = self.gate.edge("payments").unwrap().read(partition, item).await.unwrap();
        bytes.map_or(0, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    async fn is_booked(&self, orders: u64) {
        until(async || self.number("book", "count").await == orders).await;
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(socket::PATIENCE, waiting).await.expect("it never came to that");
}

fn refusal(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

/// Status, body and all headers but those that tell when and how often.
fn essence(answer: &Answer) -> (u16, Vec<String>, Bytes) {
    let is_kept = |name: &str| !["date", "idempotent-replayed"].contains(&name);
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| is_kept(name.as_str()))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body.clone())
}

#[tokio::test]
async fn a_request_without_a_key_is_refused_and_one_with_a_key_that_makes_no_sense_too() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    assert_eq!(shop.order("", "one").await.refusal(), refusal(400, "idempotency-key-missing"));
    let long = "k".repeat(256);
    for key in ["\"\"", "a\"b", "\"a", "a\\b", "a, b", "\"a\", \"b\"", &long] {
        assert_eq!(shop.order(key, "one").await.refusal(), refusal(400, "bad-request"), "{key}");
    }
    let two = Ask { headers: &[("idempotency-key", "a"), ("idempotency-key", "b")], ..Ask::default() };
    let two = shop.host.ask("POST", "/orders", "ada", two).await;
    assert_eq!(two.refusal(), refusal(400, "bad-request"));
    let raw =
        b"POST /orders HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer ada\r\nidempotency-key: \xff\xfe\r\n\
                content-length: 3\r\n\r\none";
    assert_eq!(shop.host.raw(&[raw], Duration::ZERO).await.refusal(), refusal(400, "bad-request"));
    assert_eq!(shop.order_of("", "a", "one").await.refusal(), refusal(401, "unauthenticated"));
    let much = "x".repeat(1_001);
    assert_eq!(shop.order("a", &much).await.refusal(), refusal(413, "too-large"));
    let slow = b"POST /orders HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer ada\r\nidempotency-key: a\r\n\
                 content-length: 3\r\n\r\n";
    assert_eq!(shop.host.raw(&[slow], Duration::ZERO).await.refusal(), refusal(408, "too-slow"));
    assert_eq!(ground.begun.load(Ordering::SeqCst), 0);
    assert_eq!(ground.everything().await, Vec::<String>::new(), "nothing is stored");
    assert_eq!(shop.host.ask("GET", "/safe", "", Ask::default()).await.status, 200, "safe methods need none");
}

#[tokio::test]
async fn a_repetition_gets_the_stored_response_with_its_headers_and_those_that_are_listed() {
    let ground = Ground::new();
    let shop = Process::with(&ground, DAY, |layer| layer.keep_header(http::header::SET_COOKIE)).await;
    for body in ["one", "cookies", "status 202", "status 204", "status 302"] {
        let first = shop.order(body, body).await;
        assert!(first.status < 400 && first.header("idempotent-replayed").is_empty(), "{body} {first:?}");
        for _ in 0..3 {
            let repeated = shop.order(body, body).await;
            assert!(repeated.is_replayed());
            assert_eq!(essence(&repeated), essence(&first), "{body}");
        }
    }
    let cookies = shop.order("cookies", "cookies").await;
    assert_eq!(cookies.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!((cookies.header("location"), &cookies.body[..]), ("/orders/1", &[0u8, 159, 146][..]));
    // A string in quotes, as the draft has it, is the same key as a bare one.
    assert_eq!(shop.order("\"one\"", "one").await.text(), "order 1");
    shop.is_booked(5).await;
    assert_eq!(shop.orders().await, 5);
}

#[tokio::test]
async fn another_payload_under_a_used_key_is_refused() {
    const SAME: &[(&str, &str)] = &[("idempotency-key", "k"), ("content-type", "text/plain")];
    const OTHER: &[(&str, &str)] = &[("idempotency-key", "k"), ("content-type", "text/html")];
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    let ask =
        |method: &'static str, path: &'static str, body: &'static str, headers: &'static [(&str, &str)]| {
            shop.host.ask(method, path, "ada", Ask { body: body.into(), headers })
        };
    assert_eq!(ask("POST", "/orders?a=1", "one", SAME).await.status, 200);
    for (method, path, body, headers) in [
        ("POST", "/orders?a=1", "two", SAME),
        ("POST", "/orders?a=1", "", SAME),
        ("POST", "/orders?a=2", "one", SAME),
        ("POST", "/orders", "one", SAME),
        ("PUT", "/orders?a=1", "one", SAME),
        ("POST", "/orders?a=1", "one", OTHER),
    ] {
        let answer = ask(method, path, body, headers).await;
        assert_eq!(answer.refusal(), refusal(422, "idempotency-key-reused"), "{method} {path} {body}");
    }
    let same = ask("POST", "/orders?a=1", "one", SAME).await;
    assert!(same.is_replayed() && same.text() == "order 1");
    assert_eq!(shop.orders().await, 1);
}

#[tokio::test]
async fn a_second_request_while_the_first_is_running_is_told_to_come_again() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    let second = async {
        until(async || ground.begun.load(Ordering::SeqCst) == 1).await;
        let second = shop.order("k", "wait").await;
        let other_caller = shop.order_of("eve", "", "wait").await;
        ground.permits.add_permits(1);
        (second, other_caller)
    };
    let (first, (second, other)) = tokio::join!(shop.order("k", "wait"), second);
    assert_eq!(first.text(), "order 1");
    assert_eq!(second.refusal(), refusal(409, "in-progress"));
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(other.refusal(), refusal(400, "idempotency-key-missing"));
    let third = shop.order("k", "wait").await;
    assert!(third.is_replayed() && third.text() == "order 1");
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_and_asks_again_waits_for_the_first_execution() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    let gone = tokio::time::timeout(Duration::from_millis(200), shop.order("k", "wait")).await;
    assert!(gone.is_err());
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1);
    ground.permits.add_permits(2);
    let answer = until_answered(&shop, "k", "wait").await;
    assert_eq!(answer.text(), "order 1");
    assert_eq!(shop.orders().await, 1);
    shop.is_booked(1).await;
}

/// Asks until the server has noticed that the first client is gone.
async fn until_answered(shop: &Process, key: &str, body: &str) -> Answer {
    loop {
        let answer = shop.order(key, body).await;
        if answer.status != 409 {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn keys_of_two_callers_do_not_meet() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    assert_eq!(shop.order_of("ada", "k", "one").await.text(), "order 1");
    assert_eq!(shop.order_of("eve", "k", "two").await.text(), "order 2");
    assert_eq!(shop.order_of("ada", "k", "one").await.text(), "order 1");
    assert_eq!(shop.order_of("eve", "k", "two").await.text(), "order 2");
}

#[tokio::test]
async fn where_keys_are_optional_a_request_without_one_is_executed_each_time() {
    let ground = Ground::new();
    let shop = Process::with(&ground, DAY, IdempotencyKey::optional).await;
    for number in 1..=3 {
        let answer = shop.order("", "one").await;
        assert_eq!((answer.text(), answer.is_replayed()), (format!("order {number}").as_str(), false));
    }
    for _ in 0..3 {
        assert_eq!(shop.order("k", "one").await.text(), "order 4");
    }
    assert_eq!(
        shop.order("a\"b", "one").await.refusal(),
        refusal(400, "bad-request"),
        "a wrong key is no missing one"
    );
    shop.is_booked(4).await;
}

#[tokio::test]
async fn a_refusal_by_the_handler_is_remembered_and_its_changes_are_dropped() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    for (number, body) in ["status 400", "status 404", "status 422", "blob-and-status 410"].iter().enumerate()
    {
        for time in 0..3 {
            let answer = shop.order(body, body).await;
            assert_eq!(answer.text(), "after 1", "nothing was counted");
            assert_eq!(answer.is_replayed(), time > 0, "{body}");
        }
        assert_eq!(ground.begun.load(Ordering::SeqCst), number + 1, "{body} was executed once");
    }
    assert_eq!(shop.orders().await, 0);
    assert_eq!(shop.order("good", "one").await.text(), "order 1");
    shop.is_booked(1).await;
    assert_eq!(ground.kept().await, Vec::<String>::new(), "the picture of the refused order is gone");
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_given_and_not_remembered() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    for status in [401, 403, 405, 407, 408, 409, 421, 423, 425, 429] {
        let body = format!("status {status}");
        for _ in 0..2 {
            let answer = shop.order(&body, &body).await;
            assert_eq!((answer.status, answer.is_replayed()), (status, false));
        }
    }
    assert_eq!(ground.begun.load(Ordering::SeqCst), 20, "each is executed each time");
    assert_eq!(shop.orders().await, 0);
    assert_eq!(shop.order("status 409", "one").await.text(), "order 1", "and the key is still free");
}

#[tokio::test]
async fn the_user_decides_which_refusals_are_remembered() {
    let ground = Ground::new();
    let shop = Process::with(&ground, DAY, |layer| layer.remember(|status| status == 409)).await;
    for (status, is_replayed) in [(409, true), (422, false), (200, true)] {
        let body = format!("status {status}");
        shop.order(&body, &body).await;
        assert_eq!(shop.order(&body, &body).await.is_replayed(), is_replayed, "{status}");
    }
}

#[tokio::test]
async fn what_a_router_says_of_unknown_routes_is_not_remembered_and_leaves_nothing() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    for (method, path, status) in [("POST", "/nope", 404), ("DELETE", "/orders", 405)] {
        for _ in 0..2 {
            let ask = Ask { headers: &[("idempotency-key", "k")], ..Ask::default() };
            let answer = shop.host.ask(method, path, "ada", ask).await;
            assert_eq!((answer.status, answer.is_replayed()), (status, false), "{method} {path}");
        }
    }
    assert_eq!(ground.everything().await, Vec::<String>::new());
}

#[tokio::test]
async fn cookies_limits_and_headers_of_the_connection_are_not_given_again() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    let ask = || Ask { headers: &[("idempotency-key", "k")], ..Ask::default() };
    let first = shop.host.ask("POST", "/limited", "ada", ask()).await;
    assert_eq!((first.header("set-cookie"), first.header("x-ratelimit-remaining")), ("session=1", "5"));
    assert_eq!((first.header("x-hop"), first.header("idempotent-replayed")), ("", ""));
    let again = shop.host.ask("POST", "/limited", "ada", ask()).await;
    assert!(again.is_replayed());
    assert_eq!(again.header("x-kept"), "yes");
    for name in ["set-cookie", "x-ratelimit-remaining", "access-control-allow-origin", "x-hop", "retry-after"]
    {
        assert_eq!(again.header(name), "", "{name}");
    }
}

async fn limited() -> Response {
    let headers = [
        ("set-cookie", "session=1"),
        ("x-ratelimit-remaining", "5"),
        ("access-control-allow-origin", "http://a.example"),
        ("retry-after", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-kept", "yes"),
        ("idempotent-replayed", "true"),
    ];
    (headers, "limited").into_response()
}

#[tokio::test]
async fn a_response_whose_body_never_ends_does_not_take_its_partition_along() {
    let ground = Ground::new();
    let shop = Process::with(&ground, DAY, |layer| layer.response_time_max(Duration::from_millis(50))).await;
    let ask = Ask { headers: &[("idempotency-key", "k")], ..Ask::default() };
    assert_eq!(shop.host.ask("POST", "/endless", "ada", ask).await.refusal(), refusal(500, "broken"));
    assert_eq!(shop.order("k", "one").await.text(), "order 1");
}

#[tokio::test]
async fn under_nested_routers_the_whole_path_makes_a_request_the_same() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let orders = || Router::new().route("/orders", post(order)).layer(Extension(ground.clone()));
    let keys = layer(&gate, DAY);
    let routes = Router::new().nest("/v1", orders().layer(keys.clone())).nest("/v2", orders().layer(keys));
    let host = Host::of(routes).await;
    let ask = |path: &'static str| {
        let ask = Ask { headers: &[("idempotency-key", "k")], body: "one".into() };
        let host = &host;
        async move { host.ask("POST", path, "ada", ask).await }
    };
    assert_eq!(ask("/v1/orders").await.text(), "order 1");
    assert_eq!(ask("/v2/orders").await.refusal(), refusal(422, "idempotency-key-reused"));
    assert!(ask("/v1/orders").await.is_replayed());
}

#[tokio::test]
async fn a_layer_that_is_applied_twice_is_refused_and_does_not_wait_for_itself() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let keys = layer(&gate, DAY);
    let routes = Router::new().route("/orders", post(order)).layer(keys.clone()).layer(keys);
    let host = Host::of(routes).await;
    let ask = Ask { headers: &[("idempotency-key", "k")], body: "one".into() };
    assert_eq!(host.ask("POST", "/orders", "ada", ask).await.refusal(), refusal(500, "broken"));
}

#[tokio::test]
async fn a_request_without_a_key_is_forgotten_as_soon_as_its_outcome_is_certain() {
    let ground = Ground::new();
    let shop = Process::with(&ground, MOMENT, IdempotencyKey::optional).await;
    assert_eq!(shop.order("", "one").await.text(), "order 1");
    until(async || {
        shop.gate.sweep().await.unwrap();
        let page = ground.store.scan(None, usize::MAX).await.unwrap();
        page.partitions.iter().all(|scanned| scanned.records == 0)
    })
    .await;
}

#[tokio::test]
async fn a_refusal_links_to_the_documentation_of_keys() {
    let ground = Ground::new();
    let shop = Process::with(&ground, DAY, |layer| layer.documentation("https://shop.example/keys")).await;
    let answer = shop.order("", "one").await;
    assert_eq!(answer.header("link"), "<https://shop.example/keys>; rel=\"describedby\"");
}

#[tokio::test]
async fn a_failure_of_the_handler_is_given_and_not_remembered() {
    let ground = Ground::new();
    let shop = Process::on(&ground).await;
    for time in 1..=3 {
        for body in ["status 500", "blob-and-status 503"] {
            let answer = shop.order(body, body).await;
            assert_eq!((answer.text(), answer.is_replayed()), ("after 1", false), "{time} {body}");
            assert_eq!(answer.header("tollgate-response"), "");
        }
        assert_eq!(ground.begun.load(Ordering::SeqCst), time * 2, "it is executed each time");
    }
    // Nor is a response that can't be kept: that is nobody's fault but ours.
    for body in ["large", "odd-header"] {
        assert_eq!(shop.order(body, body).await.refusal(), refusal(500, "broken"), "{body}");
    }
    assert_eq!(shop.orders().await, 0);
    assert_eq!(shop.order("status 500", "one").await.text(), "order 1", "and the key is still free");
    assert_eq!(ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_key_is_remembered_for_the_retention_and_no_longer() {
    let ground = Ground::new();
    let shop = Process::with(&ground, MOMENT, |layer| layer).await;
    let long = Process::on(&ground).await;
    assert_eq!(long.order("long", "one").await.text(), "order 1");
    let begun = std::time::Instant::now();
    assert_eq!(shop.order("k", "one").await.text(), "order 2");
    // It is replayed as long as it is remembered, and executed again when it is not; only the retention may bring that about.
    until(async || {
        shop.gate.sweep().await.unwrap();
        let answer = shop.order("k", "one").await;
        assert_eq!(answer.is_replayed(), answer.text() == "order 2");
        !answer.is_replayed()
    })
    .await;
    assert!(begun.elapsed() >= MOMENT, "not before its time");
    assert_eq!(shop.orders().await, 3);
    assert!(long.order("long", "one").await.is_replayed());
}

#[tokio::test]
async fn another_process_replays_what_one_that_died_had_executed() {
    let ground = Ground::new();
    {
        let first = Process::on(&ground).await;
        assert_eq!(first.order("k", "one").await.text(), "order 1");
        // Its gate is dropped and not closed, as a crash would do.
    }
    let second = Process::on(&ground).await;
    let answer = second.order("k", "one").await;
    assert!(answer.is_replayed() && answer.text() == "order 1");
    second.is_booked(1).await;
    assert_eq!(second.orders().await, 1);
}

#[tokio::test]
async fn two_processes_that_get_the_same_keys_at_once_execute_each_once() {
    let ground = Ground::new();
    let shops = [Process::on(&ground).await, Process::on(&ground).await];
    for number in 0..25_u64 {
        let key = format!("k{number}");
        let answers = join_all(shops.iter().map(|shop| shop.order(&key, "one"))).await;
        assert!(answers.iter().all(|answer| answer.text() == format!("order {}", number + 1)), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replayed()).count(), 1);
    }
    shops[0].is_booked(25).await;
}

/// A process whose runtime is taken away right after the commit: whatever it would have published is lost with it.
#[test]
fn a_crash_between_commit_and_publication_is_made_good_by_the_wake_up() {
    let ground = Ground::new();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dying = runtime();
    dying.block_on(async {
        let gate = ground.gate().await;
        let store: Arc<FaultyStore> = Arc::clone(&ground.faults);
        let committed = store.pause_next(Operation::Commit, Phase::After);
        let edge = gate.edge("payments").unwrap();
        let request = tokio::spawn(async move { idempotent(&edge, "front", "k", b"one", DAY, place).await });
        committed.reached().await;
        // It waits at the gate for ever: the answer to its commit never arrives.
        std::mem::forget((committed, request, gate));
    });
    dying.shutdown_background();
    runtime().block_on(async {
        // Nobody asks again and nobody sweeps: the wake-up alone brings it about.
        let shop = Process::on(&ground).await;
        shop.is_booked(1).await;
        let edge = shop.gate.edge("payments").unwrap();
        let outcome = idempotent(&edge, "front", "k", b"one", DAY, place).await.unwrap();
        assert!(outcome.is_replayed);
        assert_eq!(outcome.response.body(), "placed");
        assert_eq!(shop.orders().await, 1);
        shop.is_booked(1).await;
    });
}

async fn place(tx: Tx) -> Result<tollgate_http::Response, HandlerError> {
    let orders = tx.get::<u64>("orders").await?.unwrap_or_default() + 1;
    tx.put("orders", &orders)?;
    tx.send("ledger", "book", &Paid)?;
    Ok(tollgate_http::Response::text("placed"))
}

#[tokio::test]
async fn the_plain_function_says_what_the_layer_says() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let edge = gate.edge("payments").unwrap();
    let run = |payload: &'static [u8]| idempotent(&edge, "front", "k", payload, DAY, place);
    let first = run(b"one").await.unwrap();
    assert!(!first.is_replayed);
    let again = run(b"one").await.unwrap();
    assert!(again.is_replayed && again.response == first.response);
    assert_eq!(run(b"two").await.unwrap_err().kind(), ProblemKind::KeyReused);
    let refused = idempotent(&edge, "front", "r", b"", DAY, |_| async {
        Err::<tollgate_http::Response, HandlerError>(Problem::refused("never").into())
    });
    let problem: Problem = refused.await.unwrap_err();
    assert_eq!((problem.kind(), problem.detail()), (ProblemKind::Refused, "never"));
    let failing = idempotent(&edge, "front", "f", b"", DAY, |_| async {
        Err::<tollgate_http::Response, _>(HandlerError::retry("later"))
    });
    assert_eq!(failing.await.unwrap_err().kind(), ProblemKind::Unavailable);
    let nowhere = idempotent(&edge, "", "f", b"", DAY, place).await.unwrap_err();
    assert_eq!(nowhere.kind(), ProblemKind::BadRequest);
    gate.close().await;
}
