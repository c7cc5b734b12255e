//! What the client of exactly-once HTTP does when a server is slow, busy, gone, in somebody's way, or says no: on a virtual clock with
//! a network that answers as told, and over real sockets.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use socket::{Ground, Host, bank};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tollgate::proto::{BoxFuture, EndpointName, StoreAlias, codec};
use tollgate::{Backoff, Broker, Endpoint, Gate, HandlerError, Message, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::MemoryStore;
use tollgate_http::client::{Call, HttpCall, HttpCalls, Reqwest, Transport, TransportError};
use tower::ServiceExt;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlaceOrder {
    url: String,
    body: String,
}

impl Message for PlaceOrder {
    const TYPE: &'static str = "shop.place-order";
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FollowUp;

impl Message for FollowUp {
    const TYPE: &'static str = "shop.follow-up";
}

async fn place(tx: Tx, order: PlaceOrder) -> Result<(), HandlerError> {
    tx.call(&order.url, Call::new("text/plain", order.body), &FollowUp).await?;
    Ok(())
}

/// What the follow-up got: it is to see one response, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    status: u16,
    content_type: String,
    body: String,
}

impl Seen {
    fn new(status: u16, content_type: &str, body: &str) -> Self {
        Self { status, content_type: content_type.to_owned(), body: body.to_owned() }
    }

    fn receipt() -> Vec<Self> {
        vec![Self::new(200, "text/plain; charset=utf-8", "receipt 1")]
    }
}

async fn follow_up(tx: Tx, _: FollowUp) -> Result<(), HandlerError> {
    let response = tx.response()?.expect("it follows up a call");
    let mut seen: Vec<Seen> = tx.get("seen").await?.unwrap_or_default();
    let body = String::from_utf8_lossy(response.body());
    seen.push(Seen::new(response.status().as_u16(), response.content_type(), &body));
    tx.put("seen", &seen)?;
    Ok(())
}

/// A shop that calls other systems.
struct Shop {
    gate: Gate,
    store: Arc<dyn Store>,
    broker: Arc<InProcessBroker>,
}

impl Shop {
    async fn calling(calls: HttpCalls) -> Self {
        Self::with(calls, u32::MAX).await
    }

    async fn with(calls: HttpCalls, deliveries_max: u32) -> Self {
        Self::patient(calls, deliveries_max, Duration::from_secs(1)).await
    }

    /// One that puts messages back for longer and longer, up to `cap`.
    async fn patient(calls: HttpCalls, deliveries_max: u32, cap: Duration) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreAlias::new("shop").unwrap()));
        let broker =
            Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(600)).build());
        let gate = Gate::builder()
            .store(Arc::clone(&store))
            .broker(Arc::clone(&broker) as Arc<dyn Broker>)
            .side_effect(Arc::new(calls))
            .deliveries_max(deliveries_max)
            .redelivery(Backoff { first: Duration::from_millis(50), cap })
            .attempt_max(Duration::from_secs(60))
            .sweep_every(Some(Duration::from_secs(20)))
            .endpoint(Endpoint::new("front"))
            .endpoint(Endpoint::new("orders").on(place).on(follow_up))
            .open()
            .await
            .unwrap();
        Self { gate, store, broker }
    }

    async fn order(&self, url: &str, body: &str) {
        let order = PlaceOrder { url: url.to_owned(), body: body.to_owned() };
        let send = move |tx: Tx| {
            let order = order.clone();
            async move {
                tx.send("orders", "order/1", &order)?;
                Ok(())
            }
        };
        let edge = self.gate.edge("front").unwrap();
        let () = edge.execute("counter", "1", Duration::from_secs(60), send).await.unwrap();
    }

    async fn seen(&self) -> Vec<Seen> {
        let bytes = self.gate.edge("orders").unwrap().read("order/1", "seen").await.unwrap();
        bytes.map_or_else(Vec::new, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    fn dead_letters(&self) -> Vec<String> {
        let dead = self.broker.dead_letters(&EndpointName::new("orders").unwrap());
        dead.iter().map(|letter| letter.reason.clone()).collect()
    }

    /// Waits until everything is done and cleaned up.
    async fn is_done(&self) {
        until(async || {
            let page = self.store.scan(None, usize::MAX).await.unwrap();
            !self.seen().await.is_empty()
                && page.partitions.iter().all(|scanned| {
                    let control = scanned.control.as_ref().map(|bytes| codec::decode_control(bytes).unwrap());
                    let is_finished = |control: tollgate::proto::ControlRecord| {
                        control.pending.is_empty() && control.registrations.is_empty()
                    };
                    scanned.entries.is_empty() && control.is_none_or(is_finished)
                })
        })
        .await;
    }
}

/// Looks again and again, but less and less often: on the virtual clock an hour is nothing, and looking is all that takes time.
async fn until(is_so: impl AsyncFn() -> bool) {
    let mut pause = Duration::from_millis(20);
    for _ in 0..2_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 11 / 10).min(Duration::from_secs(60));
    }
    panic!("it never came to that");
}

/// What becomes of a request on its way.
enum Fate {
    /// It gets to the server, and the server's answer back.
    Passes,
    /// Somebody answers in the server's place.
    Answered(http::Response<Bytes>),
    /// It gets to the server, and somebody else's answer comes back.
    Replaced(http::Response<Bytes>),
    /// Nobody ever answers.
    Hangs,
}

type Decide = dyn FnMut(&http::Request<Bytes>) -> Fate + Send;

/// A network that does with each request as it is told.
#[derive(Clone)]
struct Network {
    server: Router,
    decide: Arc<Mutex<Decide>>,
    sent: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Network {
    fn to(server: Router, decide: impl FnMut(&http::Request<Bytes>) -> Fate + Send + 'static) -> Self {
        Self { server, decide: Arc::new(Mutex::new(decide)), sent: Arc::default() }
    }

    fn sent(&self) -> Vec<(Instant, String)> {
        self.sent.lock().unwrap().clone()
    }

    fn methods(&self) -> Vec<String> {
        self.sent().into_iter().map(|(_, method)| method).collect()
    }
}

impl Transport for Network {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            self.sent.lock().unwrap().push((Instant::now(), request.method().to_string()));
            let fate = (self.decide.lock().unwrap())(&request);
            if let Fate::Answered(answer) = fate {
                return Ok(answer);
            }
            if matches!(fate, Fate::Hangs) {
                std::future::pending::<()>().await;
            }
            let answer = self.server.clone().oneshot(request.map(Body::from)).await.unwrap();
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Ok(match fate {
                Fate::Replaced(answer) => answer,
                _ => http::Response::from_parts(parts, body),
            })
        })
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> http::Response<Bytes> {
    let mut answer = http::Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(body.into()).unwrap()
}

/// Somebody who is not the server.
fn page(status: u16) -> http::Response<Bytes> {
    answer(status, &[("content-type", "text/html")], "<h1>a proxy's own page</h1>")
}

fn token(name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {name}").parse().unwrap());
    headers
}

const URL: &str = "http://bank/payments";

/// Plays an order over a network, and returns it with the shop when everything is over.
async fn played(
    change: impl FnOnce(HttpCalls) -> HttpCalls,
    decide: impl FnMut(&http::Request<Bytes>) -> Fate + Send + 'static,
) -> (Shop, Network, Ground) {
    played_within(u32::MAX, change, decide).await
}

/// As [`played`], with so many deliveries of a message.
async fn played_within(
    deliveries_max: u32,
    change: impl FnOnce(HttpCalls) -> HttpCalls,
    decide: impl FnMut(&http::Request<Bytes>) -> Fate + Send + 'static,
) -> (Shop, Network, Ground) {
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), decide);
    let calls = HttpCalls::new(network.clone()).headers(|_| token("shop"));
    let shop = Shop::with(change(calls), deliveries_max).await;
    shop.order(URL, "ada 5").await;
    shop.is_done().await;
    assert_eq!(ground.kept().await, Vec::<String>::new(), "nothing is left at the bank");
    assert_eq!(shop.dead_letters(), Vec::<String>::new());
    (shop, network, ground)
}

/// The first requests of a method are answered like this, the others pass.
fn first(
    times: usize,
    method: &'static str,
    what: impl Fn() -> Fate + Send + 'static,
) -> impl FnMut(&http::Request<Bytes>) -> Fate + Send {
    let mut left = times;
    move |request| {
        if request.method() != method || left == 0 {
            return Fate::Passes;
        }
        left -= 1;
        what()
    }
}

/// How long after the first request of a method the second one came.
fn pause_after(network: &Network, method: &str) -> Duration {
    let times: Vec<Instant> =
        network.sent().into_iter().filter(|(_, sent)| sent == method).map(|(time, _)| time).collect();
    times[1] - times[0]
}

const VERBS: [&str; 4] = ["PUT", "POST", "GET", "DELETE"];

#[tokio::test(start_paused = true)]
async fn the_response_is_seen_once_with_its_status_media_type_and_body() {
    let (shop, network, _) = played(|calls| calls, |_| Fate::Passes).await;
    assert_eq!(shop.seen().await, Seen::receipt());
    assert_eq!(network.methods(), VERBS);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_busy_is_left_alone_for_as_many_seconds_as_it_says() {
    for method in VERBS {
        for status in [429, 503, 500] {
            let busy = move || Fate::Answered(answer(status, &[("retry-after", "7")], ""));
            let (shop, network, _) = played(|calls| calls, first(1, method, busy)).await;
            assert_eq!(shop.seen().await, Seen::receipt());
            let pause = pause_after(&network, method);
            assert!((7_000..7_100).contains(&pause.as_millis()), "{method} {status} {pause:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_busy_is_left_alone_until_the_date_that_it_says() {
    let busy = || {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(10));
        Fate::Answered(answer(503, &[("retry-after", &date)], ""))
    };
    let (_, network, _) = played(|calls| calls, first(1, "POST", busy)).await;
    let pause = pause_after(&network, "POST");
    // Dates have whole seconds.
    assert!((8_500..10_100).contains(&pause.as_millis()), "{pause:?}");
    for over in ["Sun, 06 Nov 1994 08:49:37 GMT", "soon", "-1", "1.5", ""] {
        let busy = move || Fate::Answered(answer(503, &[("retry-after", over)], ""));
        let (_, network, _) = played(|calls| calls, first(1, "POST", busy)).await;
        let pause = pause_after(&network, "POST");
        assert!((20..100).contains(&pause.as_millis()), "{over}: {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_more_time_than_a_step_has_is_left_alone_all_the_same() {
    for method in VERBS {
        let busy = || Fate::Answered(answer(503, &[("retry-after", "300")], ""));
        let (shop, network, _) = played(|calls| calls, first(1, method, busy)).await;
        assert_eq!(shop.seen().await, Seen::receipt());
        let sent = network.sent();
        let place = sent.iter().position(|(_, sent)| sent == method).unwrap();
        let pause = sent[place + 1].0 - sent[place].0;
        assert!(pause >= Duration::from_secs(300), "{method}: somebody asked after {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_put_back_for_as_long_as_the_server_wants_to_be_left_alone() {
    for method in VERBS {
        // Three times ten minutes. Without a word from the server a message is put back for a second here, and is dead after six.
        let busy = || Fate::Answered(answer(503, &[("retry-after", "600")], ""));
        let (shop, network, _) = played_within(6, |calls| calls, first(3, method, busy)).await;
        assert_eq!(shop.seen().await, Seen::receipt());
        let sent = network.sent();
        assert!(sent[sent.len() - 1].0 - sent[0].0 >= Duration::from_secs(1_800), "{method}");
        let statistics = shop.gate.statistics();
        // After the commit the message has not failed: it waits for its completion.
        let put_back = statistics.retries + statistics.blocked;
        assert!((3..=5).contains(&put_back), "{method}: put back {put_back} times");
    }
}

#[tokio::test(start_paused = true)]
async fn an_absurd_wait_is_cut_to_an_hour() {
    let busy = || Fate::Answered(answer(503, &[("retry-after", "99999999999")], ""));
    let (_, network, _) = played(|calls| calls, first(1, "PUT", busy)).await;
    let sent = network.sent();
    let pause = sent[1].0 - sent[0].0;
    assert!((3_600..3_700).contains(&pause.as_secs()), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_word_from_the_server_the_wait_doubles_with_jitter() {
    let busy = || Fate::Answered(page(502));
    let (_, network, _) = played(|calls| calls.attempts(6), first(5, "POST", busy)).await;
    let posts: Vec<Instant> =
        network.sent().into_iter().filter(|(_, sent)| sent == "POST").map(|(time, _)| time).collect();
    let pauses: Vec<u128> = posts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    for (pause, expected) in pauses.iter().zip([40, 80, 160, 320, 640]) {
        assert!((expected / 2..expected + 20).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_answers_is_given_up_in_time_and_made_again() {
    for method in VERBS {
        let time_max = Duration::from_secs(9);
        let (shop, network, _) =
            played(|calls| calls.time_max(time_max), first(2, method, || Fate::Hangs)).await;
        assert_eq!(shop.seen().await, Seen::receipt(), "{method}");
        let sent = network.sent();
        let place = sent.iter().position(|(_, sent)| sent == method).unwrap();
        let pause = sent[place + 1].0 - sent[place].0;
        assert!(pause >= time_max && pause < time_max * 3, "{method} {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_is_tried_four_times_in_place_and_then_its_message_is_put_back() {
    let (shop, network, _) = played(|calls| calls, first(12, "PUT", || Fate::Answered(page(502)))).await;
    assert_eq!(network.methods().iter().filter(|method| *method == "PUT").count(), 13);
    assert_eq!(shop.gate.statistics().retries, 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_the_request_gives_no_response_and_a_person_is_told() {
    // The credentials change after the execution, so that the server takes us for another caller.
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), |_| Fate::Passes);
    let executed = network.clone();
    let calls = HttpCalls::new(network.clone()).headers(move |_| {
        token(if executed.methods().contains(&"POST".to_owned()) { "other" } else { "shop" })
    });
    let shop = Shop::calling(calls).await;
    shop.order(URL, "ada 5").await;
    until(async || !shop.dead_letters().is_empty()).await;
    assert!(shop.dead_letters()[0].contains("does not know the request"), "{:?}", shop.dead_letters());
    // It was executed: a follow-up that took the 404 for the response would refuse an order that is paid.
    assert_eq!((shop.seen().await, ground.begun.load(Ordering::SeqCst)), (vec![], 1));
    assert!(network.methods().iter().filter(|method| *method == "GET").count() >= 5);
    assert!(!network.methods().contains(&"DELETE".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_url_that_leads_to_no_exactly_once_server_leaves_nothing_to_clean_up() {
    for status in [301, 404, 405] {
        let network = Network::to(Router::new(), move |_| Fate::Answered(page(status)));
        let shop = Shop::with(HttpCalls::new(network.clone()), u32::MAX).await;
        shop.order(URL, "ada 5").await;
        until(async || shop.gate.statistics().retries >= 5).await;
        // An attempt's registration is there until its PUT can't arrive any more; the next ones are not kept by the first.
        let puts = network.methods().iter().filter(|method| *method == "PUT").count();
        let deletes = network.methods().iter().filter(|method| *method == "DELETE").count();
        assert!(puts >= 5 && deletes >= 4, "{puts} {deletes}");
        assert_eq!(shop.seen().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_answer_a_removal_pass_or_are_given_up_after_an_hour() {
    let (_, network, _) = played(|calls| calls, first(50, "DELETE", || Fate::Answered(page(405)))).await;
    assert_eq!(network.methods().iter().filter(|method| *method == "DELETE").count(), 51);
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let network = Network::to(
        bank(&bank_gate, &ground).router().unwrap(),
        first(usize::MAX, "DELETE", || Fate::Answered(page(405))),
    );
    let shop = Shop::calling(HttpCalls::new(network.clone()).headers(|_| token("shop"))).await;
    let begun = Instant::now();
    shop.order(URL, "ada 5").await;
    shop.is_done().await;
    assert!(begun.elapsed() >= Duration::from_secs(3_600));
    assert_eq!(shop.seen().await, Seen::receipt());
    assert_eq!(ground.kept().await.len(), 2, "the request is left at its server, and the log says so");
}

#[tokio::test(start_paused = true)]
async fn a_day_of_pages_errors_and_silence_ends_with_one_execution_and_one_response() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for down in ["PUT", "POST", "GET"] {
        let begun = Instant::now();
        let mut turn = 0_usize;
        let decide = move |request: &http::Request<Bytes>| {
            if request.method() != down || begun.elapsed() > DAY {
                return Fate::Passes;
            }
            turn += 1;
            match turn % 7 {
                0 => Fate::Answered(page(503)),
                1 => Fate::Answered(page(404)),
                2 => Fate::Answered(answer(301, &[("location", "/maintenance")], "")),
                3 => Fate::Answered(page(411)),
                4 => Fate::Replaced(page(502)),
                5 => Fate::Hangs,
                _ => Fate::Answered(answer(403, &[], "")),
            }
        };
        let ground = Ground::new();
        let bank_gate = ground.gate().await;
        let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), decide);
        let calls = HttpCalls::new(network.clone()).headers(|_| token("shop"));
        let shop = Shop::patient(calls, u32::MAX, Duration::from_secs(300)).await;
        shop.order(URL, "ada 5").await;
        shop.is_done().await;
        assert!(begun.elapsed() > DAY);
        assert_eq!((ground.kept().await, shop.dead_letters()), (Vec::new(), Vec::new()));
        assert_eq!(shop.seen().await, Seen::receipt(), "{down}");
        assert_eq!(ground.begun.load(Ordering::SeqCst), 1, "{down}");
        assert!(network.methods().iter().filter(|method| *method == down).count() > 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_server_itself_is_the_response() {
    for (body, status, part) in [
        ("", 400, "urn:tollgate:problem:bad-request"),
        ("ada refuse", 422, "no credit"),
        ("ada status 404", 404, ""),
        ("ada status 401", 401, ""),
        ("ada status 503", 503, ""),
    ] {
        let ground = Ground::new();
        let bank_gate = ground.gate().await;
        let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), |_| Fate::Passes);
        let shop = Shop::calling(HttpCalls::new(network).headers(|_| token("shop"))).await;
        shop.order(URL, body).await;
        shop.is_done().await;
        let seen = shop.seen().await;
        assert_eq!((seen.len(), seen[0].status), (1, status), "{body}");
        assert!(seen[0].body.contains(part), "{seen:?}");
        assert_eq!(ground.kept().await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxys_page_is_no_response_and_passes() {
    for method in VERBS {
        for status in [200, 204, 301, 302, 400, 404, 405, 409, 410, 411, 412, 413, 502] {
            if (method, status) == ("DELETE", 204) {
                continue;
            }
            let replaced = move || Fate::Replaced(page(status));
            let (shop, ..) = played(|calls| calls, first(7, method, replaced)).await;
            assert_eq!(shop.seen().await, Seen::receipt(), "{method} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_no_response_and_pass_when_somebody_has_corrected_them() {
    for method in VERBS {
        for status in [401, 403, 407] {
            let (shop, ..) =
                played(|calls| calls, first(15, method, move || Fate::Answered(page(status)))).await;
            assert_eq!(shop.seen().await, Seen::receipt(), "{method} {status}");
        }
    }
    // And the server's own 401, until the right token is there.
    let right = Arc::new(AtomicBool::new(false));
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), |_| Fate::Passes);
    let known = Arc::clone(&right);
    let calls = HttpCalls::new(network.clone()).headers(move |url| {
        assert!(url.starts_with(URL));
        if known.load(Ordering::SeqCst) { token("shop") } else { HeaderMap::new() }
    });
    let shop = Shop::calling(calls).await;
    shop.order(URL, "ada 5").await;
    until(async || network.sent().len() > 10).await;
    assert_eq!(shop.seen().await, []);
    right.store(true, Ordering::SeqCst);
    shop.is_done().await;
    assert_eq!(shop.seen().await, Seen::receipt());
    assert_eq!(ground.kept().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_nothing_of_exactly_once_is_found_out_before_the_commit() {
    let network = Network::to(Router::new(), |_| Fate::Answered(page(200)));
    let shop = Shop::calling(HttpCalls::new(network.clone())).await;
    shop.order(URL, "ada 5").await;
    until(async || network.sent().len() > 10).await;
    assert!(!network.methods().iter().any(|method| method == "POST"));
    assert_eq!(shop.seen().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_base_of_a_server_is_never_called() {
    let network = Network::to(Router::new(), |_| Fate::Answered(page(200)));
    for url in [
        "",
        "bank/payments",
        "ftp://bank/payments",
        "http://",
        "http://bank/payments?x=1",
        "file:///etc",
        "http://admin:secret@bank/payments",
    ] {
        let shop = Shop::calling(HttpCalls::new(network.clone())).await;
        shop.order(url, "ada 5").await;
        until(async || shop.gate.statistics().retries >= 3).await;
        assert_eq!(network.methods(), Vec::<String>::new(), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_too_large_for_us_keeps_the_follow_up_for_later() {
    struct Short(Network);
    impl Transport for Short {
        fn send(
            &self,
            request: http::Request<Bytes>,
        ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
            let is_get = request.method() == "GET";
            Box::pin(async move {
                if is_get {
                    Err(TransportError::TooLarge { bytes_max: 5 })
                } else {
                    self.0.send(request).await
                }
            })
        }
    }
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let network = Network::to(bank(&bank_gate, &ground).router().unwrap(), |_| Fate::Passes);
    let shop = Shop::calling(HttpCalls::new(Short(network.clone())).headers(|_| token("shop"))).await;
    shop.order(URL, "ada 5").await;
    until(async || !shop.dead_letters().is_empty()).await;
    assert!(shop.dead_letters()[0].contains("raise the transport's limit"), "{:?}", shop.dead_letters());
    assert_eq!(shop.seen().await, []);
    // The request, its response and the token are in place: a replay with a higher limit finds them.
    assert_eq!(ground.kept().await.len(), 2);
    assert!(!network.methods().contains(&"DELETE".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_gone_for_a_while_is_called_when_it_is_back() {
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let router = bank(&bank_gate, &ground).router().unwrap();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let shop = Shop::calling(HttpCalls::new(Reqwest::new()).headers(|_| token("shop"))).await;
    shop.order(&format!("http://{address}/payments"), "ada 5").await;
    until(async || shop.gate.statistics().retries >= 2).await;
    assert_eq!(shop.seen().await, []);
    let host = Host::on(TcpListener::bind(address).await.unwrap(), router.clone());
    until(async || ground.begun.load(Ordering::SeqCst) > 0).await;
    // And gone again, for whatever comes next.
    drop(host);
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let _host = Host::on(listener, router);
    // Registrations of attempts that have failed stay for longer than a test on the real clock should wait.
    until(async || !shop.seen().await.is_empty() && ground.kept().await.is_empty()).await;
    assert_eq!(shop.seen().await, Seen::receipt());
}

#[tokio::test]
async fn an_execution_that_takes_longer_than_the_client_waits_is_not_repeated() {
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let router = bank(&bank_gate, &ground).router().unwrap().layer(axum::middleware::map_request(
        move |request: axum::extract::Request| {
            counted.fetch_add(usize::from(request.method() == "POST"), Ordering::SeqCst);
            std::future::ready(request)
        },
    ));
    let host = Host::of(router).await;
    let client = reqwest::Client::builder().timeout(Duration::from_millis(150)).build().unwrap();
    let calls = HttpCalls::new(Reqwest::with_client(client)).headers(|_| token("shop"));
    let shop = Shop::calling(calls).await;
    shop.order(&host.url("/payments"), "ada wait").await;
    // So often that one step is over, and another has begun.
    until(async || tries.load(Ordering::SeqCst) > 6).await;
    assert_eq!((ground.begun.load(Ordering::SeqCst), shop.seen().await), (1, vec![]));
    ground.permits.add_permits(10);
    shop.is_done().await;
    assert_eq!(shop.seen().await, Seen::receipt());
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1);
    assert_eq!(ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn responses_beyond_the_limit_of_the_transport_are_refused_over_the_network_too() {
    let ground = Ground::new();
    let bank_gate = ground.gate().await;
    let host = Host::of(bank(&bank_gate, &ground).router().unwrap()).await;
    let id = tollgate_http::RequestId::random();
    host.put(id, "ada", "ada large").await;
    for (bytes_max, fits) in [(socket::LARGE, true), (socket::LARGE - 1, false)] {
        let mut post = http::Request::new(Bytes::new());
        *post.method_mut() = http::Method::POST;
        *post.uri_mut() = host.url(&socket::path(id)).parse().unwrap();
        *post.headers_mut() = token("ada");
        match Reqwest::new().bytes_max(bytes_max).send(post).await {
            Ok(response) => assert!(fits && response.status() == StatusCode::OK),
            Err(TransportError::TooLarge { bytes_max: max }) => assert!(!fits && max == bytes_max),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Answers every request over a socket with its own bytes.
async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 4_096];
            let length = stream.read(&mut read).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&read[..length]).await.unwrap();
        }
    });
    (address, serving)
}

/// Sends over the network, and remembers what came back.
struct Recorded(Reqwest, Arc<Mutex<Vec<String>>>);

impl Transport for Recorded {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            let answer = self.0.send(request).await?;
            self.1.lock().unwrap().push(String::from_utf8_lossy(answer.body()).to_lowercase());
            Ok(answer)
        })
    }
}

#[tokio::test]
async fn a_post_says_that_it_has_no_body_and_every_request_who_sends_it() {
    use tollgate::SideEffect;
    use tollgate::proto::{AttachedEffect, EffectKind, EffectName};
    let (address, serving) = echo().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let calls = HttpCalls::new(Recorded(Reqwest::new(), Arc::clone(&seen))).attempts(1);
    let effect = AttachedEffect {
        kind: EffectKind::new("http-call").unwrap(),
        name: EffectName::new(format!("http://{address}/payments/1")).unwrap(),
        detail: {
            let head = br#"{"Stored":{"etag":"\"1\""}}"#;
            [&u32::try_from(head.len()).unwrap().to_le_bytes()[..], head].concat().into()
        },
    };
    assert!(calls.publish(&effect).await.is_err(), "an echo is no response");
    let seen = seen.lock().unwrap().join("");
    assert!(seen.starts_with("post /payments/1 http/1.1\r\n"), "{seen}");
    for line in ["content-length: 0\r\n", "user-agent: tollgate-http/", "if-match: \"1\"\r\n"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    serving.abort();
}

#[tokio::test]
async fn an_error_of_the_network_tells_its_causes_and_not_its_url() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut request = http::Request::new(Bytes::new());
    *request.uri_mut() = format!("http://{closed}/secret").parse().unwrap();
    let error = Reqwest::new().send(request).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn calls_to_urls_from_outside_reach_public_addresses_only() {
    let (address, serving) = echo().await;
    let port = address.port();
    let get = |host: &str| {
        let mut request = http::Request::new(Bytes::new());
        *request.uri_mut() = format!("http://{host}:{port}/").parse().unwrap();
        request
    };
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "10.0.0.1"]
    {
        let refused = Reqwest::public().send(get(host)).await;
        assert!(matches!(refused, Err(TransportError::Forbidden { .. })), "{host} {refused:?}");
    }
    for host in ["127.0.0.1", "localhost"] {
        let allowed = Reqwest::public_and(|address| address.is_loopback()).send(get(host)).await;
        assert_eq!(allowed.unwrap().status(), StatusCode::OK, "{host}");
    }
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn without_tls_an_https_url_is_refused_before_anything_is_stored() {
    struct Plain(Network);
    impl Transport for Plain {
        fn send(
            &self,
            request: http::Request<Bytes>,
        ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
            self.0.send(request)
        }
        fn has_tls(&self) -> bool {
            false
        }
    }
    let network = Network::to(Router::new(), |_| Fate::Answered(page(200)));
    let shop = Shop::calling(HttpCalls::new(Plain(network.clone()))).await;
    shop.order("https://bank/payments", "ada 5").await;
    until(async || shop.gate.statistics().retries >= 3).await;
    assert_eq!(network.methods(), Vec::<String>::new());
}
