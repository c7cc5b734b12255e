//! What the server of exactly-once HTTP does, over real sockets: who executes, what is answered again, what is left.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use socket::{Answer, Ask, Ground, Host, LARGE, bank, path};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tollgate::Gate;
use tollgate_http::RequestId;
use tollgate_http::server::ExactlyOnce;
use tollgate_testkit::FaultRates;

/// A process of the bank.
struct Process {
    gate: Gate,
    server: ExactlyOnce,
    host: Host,
}

impl Process {
    async fn on(ground: &Ground) -> Self {
        Self::with(ground, |server| server).await
    }

    async fn with(ground: &Ground, change: impl FnOnce(ExactlyOnce) -> ExactlyOnce) -> Self {
        let gate = ground.gate().await;
        let server = change(bank(&gate, ground));
        let host = Host::of(server.router().unwrap()).await;
        Self { gate, server, host }
    }

    async fn number(&self, partition: &str, item: &str) -> u64 {
        let bytes = self.gate.edge("payments").unwrap().read(partition, item).await.unwrap();
        bytes.map_or(0, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// Waits until the ledger has counted so many payments.
    async fn is_booked(&self, payments: u64) {
        until(async || self.number("book", "count").await == payments).await;
    }
}

/// Waits for a condition.
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

/// What must be the same whenever a response is given.
fn essence(answer: &Answer) -> (u16, &str, &[u8]) {
    (answer.status, answer.header("content-type"), &answer.body)
}

const NOTHING: [String; 0] = [];

#[tokio::test]
async fn the_four_requests_in_their_order_and_each_of_them_repeated() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    let stored = bank.host.put(id, "ada", "ada 5").await;
    assert_eq!((stored.status, stored.is_replayed()), (201, false));
    let again = bank.host.put(id, "ada", "ada 5").await;
    assert_eq!((again.status, again.is_replayed()), (200, true));
    assert_eq!(stored.header("etag"), again.header("etag"));
    assert_eq!(bank.host.go("GET", id, "ada").await.refusal(), refusal(409, "not-executed"));
    let first = bank.host.go("POST", id, "ada").await;
    assert_eq!(
        (essence(&first), first.is_replayed()),
        ((200, "text/plain; charset=utf-8", &b"receipt 1"[..]), false)
    );
    for method in ["POST", "GET", "POST", "GET"] {
        let repeated = bank.host.go(method, id, "ada").await;
        assert_eq!(essence(&repeated), essence(&first), "{method}");
        assert!(repeated.is_replayed() && repeated.header("tollgate-response") == "stored");
        assert_eq!(repeated.header("etag"), stored.header("etag"));
    }
    let head = bank.host.go("HEAD", id, "ada").await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "9"));
    assert_eq!(bank.host.go("DELETE", id, "ada").await.status, 204);
    for method in ["DELETE", "POST", "GET"] {
        assert_eq!(bank.host.go(method, id, "ada").await.refusal(), refusal(410, "deleted"), "{method}");
    }
    bank.is_booked(1).await;
    assert_eq!(bank.number("account/ada", "paid").await, 1);
    assert_eq!(ground.kept().await, NOTHING);
    bank.gate.close().await;
}

#[tokio::test]
async fn a_list_of_tags_may_have_empty_elements_and_one_of_nothing_else_means_no_request() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    let tag = bank.host.put(id, "ada", "ada 5").await.header("etag").to_owned();
    for method in ["POST", "GET", "DELETE"] {
        for nothing in ["", ",", " , "] {
            let ask = Ask { headers: &[("if-match", nothing)], ..Ask::default() };
            let answer = bank.host.ask(method, &path(id), "ada", ask).await;
            assert_eq!(answer.refusal(), refusal(412, "other-incarnation"), "{method} {nothing:?}");
        }
        let ask = Ask { headers: &[("if-match", &format!(", {tag},,"))], ..Ask::default() };
        assert!(bank.host.ask(method, &path(id), "ada", ask).await.status < 300, "{method}");
    }
}

#[tokio::test]
async fn what_was_never_stored_is_unknown() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    for method in ["POST", "GET", "DELETE"] {
        let answer = bank.host.go(method, RequestId::random(), "ada").await;
        assert_eq!(answer.refusal(), refusal(404, "unknown-id"), "{method} before PUT");
    }
}

#[tokio::test]
async fn another_body_or_media_type_under_a_used_id_is_refused() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    assert_eq!(bank.host.put(id, "ada", "ada 5").await.status, 201);
    for executed in [false, true] {
        if executed {
            assert_eq!(bank.host.go("POST", id, "ada").await.status, 200);
        }
        assert_eq!(bank.host.put(id, "ada", "ada 6").await.refusal(), refusal(409, "id-in-use"));
        let html = Ask { body: "ada 5".into(), headers: &[("content-type", "text/html")] };
        let answer = bank.host.ask("PUT", &path(id), "ada", html).await;
        assert_eq!(answer.refusal(), refusal(409, "id-in-use"));
        assert_eq!(bank.host.put(id, "ada", "ada 5").await.status, 200);
    }
}

#[tokio::test]
async fn every_status_media_type_and_byte_of_a_response_is_kept() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    for status in [200, 201, 202, 302, 400, 402, 404, 409, 410, 418, 422, 500, 503] {
        let id = RequestId::random();
        bank.host.put(id, "ada", &format!("ada status {status}")).await;
        let first = bank.host.go("POST", id, "ada").await;
        assert_eq!(essence(&first), (status, "application/x-odd; version=2", &[0, 159, 146, 150][..]));
        // So that a stored 404 or 503 is told from the server's own.
        assert_eq!(first.header("tollgate-response"), "stored");
        for method in ["POST", "GET"] {
            let repeated = bank.host.go(method, id, "ada").await;
            assert_eq!(essence(&repeated), essence(&first), "{method} {status}");
            assert!(repeated.is_replayed());
        }
        assert_eq!(bank.host.go("DELETE", id, "ada").await.status, 204);
    }
    // It has no body, whatever its handler thinks.
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada status 204").await;
    for _ in 0..2 {
        let answer = bank.host.go("POST", id, "ada").await;
        assert_eq!((answer.status, answer.body.len(), answer.header("content-length")), (204, 0, ""));
    }
    assert_eq!(bank.host.go("DELETE", id, "ada").await.status, 204);
    assert_eq!(ground.kept().await, NOTHING);
}

#[tokio::test]
async fn a_response_that_ends_nothing_is_the_servers_error_and_not_kept() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada status 103").await;
    for _ in 0..2 {
        assert_eq!(bank.host.go("POST", id, "ada").await.refusal(), refusal(500, "broken"));
    }
    assert_eq!(bank.number("account/ada", "paid").await, 0);
}

#[tokio::test]
async fn large_bodies_and_responses_are_blobs_and_no_difference_is_seen() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    let body = format!("ada large {}", "x".repeat(80_000));
    assert_eq!(bank.host.put(id, "ada", &body).await.status, 201);
    assert_eq!(bank.host.put(id, "ada", &body).await.status, 200);
    assert_eq!(ground.kept().await.len(), 3, "the reservation, the request, and its body");
    let first = bank.host.go("POST", id, "ada").await;
    let expected: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
    assert_eq!(essence(&first), (200, "application/x-large", &expected[..]));
    assert_eq!(first.header("content-length"), LARGE.to_string());
    assert_eq!(ground.kept().await.len(), 5);
    for method in ["POST", "GET"] {
        let repeated = bank.host.go(method, id, "ada").await;
        assert_eq!(essence(&repeated), essence(&first));
        assert!(repeated.is_replayed());
    }
    assert_eq!(bank.host.go("DELETE", id, "ada").await.status, 204);
    assert_eq!(ground.kept().await, NOTHING);
}

#[tokio::test]
async fn a_refusal_is_the_response_and_what_was_done_with_it_is_not() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada refuse").await;
    let first = bank.host.go("POST", id, "ada").await;
    assert_eq!(first.refusal(), refusal(422, "refused"));
    assert!(first.text().contains("no credit") && !first.is_replayed());
    for method in ["POST", "GET"] {
        let repeated = bank.host.go(method, id, "ada").await;
        assert_eq!(essence(&repeated), essence(&first));
        assert!(repeated.is_replayed() && repeated.header("tollgate-response") == "stored");
    }
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1, "it is not asked again");
    assert_eq!(bank.number("account/ada", "paid").await, 0);
}

#[tokio::test]
async fn a_refusal_that_is_not_meant_for_the_caller_tells_nothing_of_the_inside() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada refuse-inside").await;
    for _ in 0..2 {
        let answer = bank.host.go("POST", id, "ada").await;
        assert_eq!(answer.refusal(), refusal(422, "refused"));
        assert!(!answer.text().contains("secret") && !answer.text().contains("10.0"), "{}", answer.text());
    }
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1, "it is the response, for good");
}

#[tokio::test]
async fn a_failure_that_may_pass_is_told_so_and_not_remembered() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada fail").await;
    let failed = bank.host.go("POST", id, "ada").await;
    assert_eq!(failed.refusal(), refusal(503, "unavailable"));
    assert_eq!((failed.header("retry-after"), failed.header("tollgate-response")), ("1", ""));
    assert_eq!(bank.host.go("GET", id, "ada").await.refusal(), refusal(409, "not-executed"));
    assert_eq!(bank.number("account/ada", "paid").await, 0);
    // And a store that is down, at every verb.
    let id = RequestId::random();
    for method in ["PUT", "POST", "GET", "DELETE"] {
        ground.faults.set_rates(FaultRates { unavailable: 1.0, ..FaultRates::default() });
        let ask = || Ask { body: "ada 5".into(), ..Ask::default() };
        let down = bank.host.ask(method, &path(id), "ada", ask()).await;
        assert_eq!(down.refusal(), refusal(503, "unavailable"), "{method}");
        assert_eq!(down.header("retry-after"), "1");
        ground.faults.set_rates(FaultRates::default());
        assert!(bank.host.ask(method, &path(id), "ada", ask()).await.status < 300, "{method}");
    }
    assert_eq!(bank.number("account/ada", "paid").await, 1);
}

#[tokio::test]
async fn of_concurrent_posts_one_executes_and_the_others_get_its_response() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada wait").await;
    let posts = join_all((0..20).map(|_| bank.host.go("POST", id, "ada")));
    let ground_of_release = ground.clone();
    let release = async move {
        until(async || ground_of_release.begun.load(Ordering::SeqCst) == 1).await;
        // Whoever would run it a second time may do so.
        ground_of_release.permits.add_permits(20);
    };
    let (answers, ()) = tokio::join!(posts, release);
    for answer in &answers {
        assert_eq!(essence(answer), essence(&answers[0]));
        assert_eq!(answer.text(), "receipt 1");
    }
    assert_eq!(answers.iter().filter(|answer| !answer.is_replayed()).count(), 1);
    assert_eq!(ground.begun.load(Ordering::SeqCst), 1);
    bank.is_booked(1).await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_its_request_is_executed_gets_the_response_when_it_comes_back() {
    let ground = Ground::new();
    let bank = Process::on(&ground).await;
    let id = RequestId::random();
    bank.host.put(id, "ada", "ada wait").await;
    let mut stream = TcpStream::connect(bank.host.address).await.unwrap();
    let post = format!("POST {} HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer ada\r\n\r\n", path(id));
    stream.write_all(post.as_bytes()).await.unwrap();
    until(async || ground.begun.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    ground.permits.add_permits(2);
    let answer = bank.host.go("POST", id, "ada").await;
    assert_eq!(answer.text(), "receipt 1");
    bank.is_booked(1).await;
    assert_eq!(bank.number("account/ada", "paid").await, 1);
}

#[tokio::test]
async fn two_processes_that_race_for_each_request_execute_it_once() {
    let ground = Ground::new();
    let processes = [Process::on(&ground).await, Process::on(&ground).await];
    let requests: u64 = 25;
    for number in 0..requests {
        let id = RequestId::random();
        let account = if number % 2 == 0 { "ada 5" } else { "eve 5" };
        let puts = join_all(processes.iter().map(|process| process.host.put(id, "ada", account))).await;
        assert_eq!(puts[0].header("etag"), puts[1].header("etag"));
        assert_eq!(puts.iter().filter(|put| put.status == 201).count(), 1);
        let posts = (0..8).map(|copy| processes[copy % 2].host.go("POST", id, "ada"));
        let posts = join_all(posts).await;
        assert!(posts.iter().all(|post| essence(post) == essence(&posts[0]) && post.status == 200));
        assert_eq!(posts.iter().filter(|post| !post.is_replayed()).count(), 1);
        // And for its removal, with late copies of the execution among them.
        let late = (0..6)
            .map(|copy| processes[copy % 2].host.go(if copy < 4 { "DELETE" } else { "POST" }, id, "ada"));
        for answer in join_all(late).await {
            assert!([200, 204, 404, 410].contains(&answer.status), "{answer:?}");
        }
    }
    let [one, _] = &processes;
    let paid = one.number("account/ada", "paid").await + one.number("account/eve", "paid").await;
    assert_eq!(paid, requests);
    one.is_booked(requests).await;
    assert_eq!(ground.kept().await, NOTHING);
}

#[tokio::test]
async fn an_execution_that_races_with_the_removal_happens_before_it_or_not_at_all() {
    let ground = Ground::new();
    let processes = [Process::on(&ground).await, Process::on(&ground).await];
    let mut executed = 0;
    for _ in 0..40 {
        let id = RequestId::random();
        processes[0].host.put(id, "ada", "ada 5").await;
        let (post, delete) =
            tokio::join!(processes[0].host.go("POST", id, "ada"), processes[1].host.go("DELETE", id, "ada"));
        assert_eq!(delete.status, 204);
        match post.status {
            200 => executed += 1,
            404 | 410 => {}
            other => panic!("{other} {}", post.text()),
        }
    }
    assert_eq!(processes[0].number("account/ada", "paid").await, executed);
    assert_eq!(ground.kept().await, NOTHING);
}

/// Two processes that forget what they delete, and an id that the first has stored, executed and removed.
async fn one_that_has_removed_it_and_another(ground: &Ground) -> ([Process; 2], RequestId) {
    let forgetful = |server: ExactlyOnce| server.tombstones(0);
    let processes = [Process::with(ground, forgetful).await, Process::with(ground, forgetful).await];
    let id = RequestId::random();
    assert_eq!(processes[0].host.put(id, "ada", "ada 5").await.status, 201);
    assert_eq!(processes[0].host.go("POST", id, "ada").await.text(), "receipt 1");
    assert_eq!(processes[0].host.go("DELETE", id, "ada").await.status, 204);
    (processes, id)
}

#[tokio::test]
async fn a_process_removes_what_another_one_has_stored_again_since_it_removed_it() {
    let ground = Ground::new();
    let ([stale, other], id) = one_that_has_removed_it_and_another(&ground).await;
    assert_eq!(other.host.put(id, "ada", "ada 5").await.status, 201);
    assert_eq!(other.host.go("POST", id, "ada").await.text(), "receipt 2");
    assert_eq!(stale.host.go("DELETE", id, "ada").await.status, 204);
    assert_eq!(ground.kept().await, NOTHING);
    // A copy that was held up must not pay again.
    assert_eq!(other.host.go("POST", id, "ada").await.refusal(), refusal(404, "unknown-id"));
    assert_eq!(other.number("account/ada", "paid").await, 2);
}

#[tokio::test]
async fn a_process_stores_what_another_one_has_removed_since_it_last_looked() {
    let ground = Ground::new();
    let ([stale, other], id) = one_that_has_removed_it_and_another(&ground).await;
    let old = stale.host.put(id, "ada", "ada 5").await.header("etag").to_owned();
    assert_eq!(stale.host.go("POST", id, "ada").await.text(), "receipt 2");
    assert_eq!(other.host.go("DELETE", id, "ada").await.status, 204);
    let new = stale.host.put(id, "ada", "ada 5").await;
    assert_eq!((new.status, new.header("etag") == old), (201, false));
    assert_eq!(ground.kept().await.len(), 1, "it says so because it is so");
    // And executes it, although it remembers another one's response.
    let answer = stale.host.go("POST", id, "ada").await;
    assert_eq!((answer.status, answer.text(), answer.is_replayed()), (200, "receipt 3", false));
}

#[tokio::test]
async fn a_deleted_request_is_gone_within_the_life_of_its_tombstone_and_unknown_afterwards() {
    let ground = Ground::new();
    let bank = Process::with(&ground, |server| server.tombstones(2)).await;
    let ids: Vec<RequestId> = (0..3).map(|_| RequestId::random()).collect();
    for id in &ids {
        bank.host.put(*id, "ada", "ada 5").await;
        bank.host.go("DELETE", *id, "ada").await;
    }
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(bank.host.go(method, ids[0], "ada").await.refusal(), refusal(404, "unknown-id"));
        assert_eq!(bank.host.go(method, ids[2], "ada").await.refusal(), refusal(410, "deleted"));
    }
    // Tombstones lie in memory: another process has none.
    let other = Process::on(&ground).await;
    assert_eq!(other.host.go("POST", ids[2], "ada").await.refusal(), refusal(404, "unknown-id"));
    // A copy of PUT that was held up is not stored again while it is known for one.
    assert_eq!(bank.host.put(ids[2], "ada", "ada 5").await.refusal(), refusal(410, "deleted"));
    assert_eq!(ground.kept().await, NOTHING);
    assert_eq!(bank.host.put(ids[0], "ada", "ada 5").await.status, 201);
}

#[tokio::test]
async fn a_late_copy_meant_for_a_request_that_was_removed_does_not_touch_the_one_that_took_its_id() {
    let ground = Ground::new();
    let bank = Process::with(&ground, |server| server.tombstones(0)).await;
    let id = RequestId::random();
    let old = bank.host.put(id, "ada", "ada 5").await.header("etag").to_owned();
    bank.host.go("POST", id, "ada").await;
    bank.host.go("DELETE", id, "ada").await;
    let new = bank.host.put(id, "ada", "ada 7").await;
    assert_eq!(new.status, 201, "without a tombstone the id is free");
    assert_ne!(new.header("etag"), old);
    for method in ["POST", "GET", "DELETE"] {
        let ask = Ask { headers: &[("if-match", &old)], ..Ask::default() };
        let late = bank.host.ask(method, &path(id), "ada", ask).await;
        assert_eq!(late.refusal(), refusal(412, "other-incarnation"), "{method}");
    }
    assert_eq!(bank.number("account/ada", "paid").await, 1);
    // The right tag will do, weakened by a proxy, in a list, in two headers; and so will any.
    let weak = format!("\"other\", W/{}", new.header("etag"));
    for headers in
        [&[("if-match", weak.as_str())][..], &[("if-match", &old), ("if-match", &weak)], &[("if-match", "*")]]
    {
        let answer = bank.host.ask("POST", &path(id), "ada", Ask { headers, ..Ask::default() }).await;
        assert_eq!(answer.text(), "receipt 2");
    }
}

#[tokio::test]
async fn requests_whose_client_never_came_back_are_removed_when_the_operator_says_so() {
    let ground = Ground::new();
    let bank = Process::with(&ground, |server| server.buckets(4)).await;
    let ids: Vec<RequestId> = (0..6).map(|_| RequestId::random()).collect();
    for id in &ids {
        assert_eq!(bank.host.put(*id, "ada", "ada 5").await.status, 201);
    }
    assert_eq!(bank.host.go("POST", ids[0], "ada").await.status, 200);
    assert_eq!(bank.host.go("DELETE", ids[5], "ada").await.status, 204);
    assert_eq!(bank.server.abandoned(Duration::from_secs(60)).await.unwrap(), []);
    let found = bank.server.abandoned(Duration::ZERO).await.unwrap();
    assert_eq!(found.len(), 5);
    assert!(found.is_sorted_by_key(|request| request.stored_at));
    // Nothing goes by itself: neither time nor a sweep of the gate removes what nobody asked to remove.
    bank.gate.sweep().await.unwrap();
    assert_eq!(bank.server.abandoned(Duration::ZERO).await.unwrap(), found);
    for request in &found {
        bank.server.remove(request.id).await.unwrap();
        bank.server.remove(request.id).await.unwrap();
    }
    assert_eq!(bank.server.abandoned(Duration::ZERO).await.unwrap(), []);
    assert_eq!(ground.kept().await, NOTHING);
    assert_eq!(bank.host.go("POST", ids[0], "ada").await.refusal(), refusal(410, "deleted"));
    assert_eq!(bank.number("account/ada", "paid").await, 1, "what was executed stays so");
    for id in [RequestId::random(), RequestId::random()] {
        bank.host.put(id, "ada", "ada 5").await;
    }
    assert_eq!(bank.server.remove_abandoned(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(ground.kept().await, NOTHING);
}

#[tokio::test]
async fn what_the_store_can_not_take_becomes_a_blob_and_without_blobs_is_too_large() {
    use tollgate::proto::{StoreAlias, StoreLimits};
    use tollgate_embedded::MemoryStore;
    let limits = StoreLimits { item_bytes_max: 20_000, ..StoreLimits::UNLIMITED };
    let ground = Ground::on(MemoryStore::with_limits(StoreAlias::new("bank").unwrap(), limits));
    let bank = Process::on(&ground).await;
    let body = format!("ada large {}", "x".repeat(30_000));
    let id = RequestId::random();
    assert_eq!(bank.host.put(id, "ada", &body).await.status, 201);
    assert_eq!(bank.host.go("POST", id, "ada").await.body.len(), LARGE);
    assert_eq!(bank.host.go("DELETE", id, "ada").await.status, 204);
    let gate = tollgate::Gate::builder()
        .store(ground.store.clone())
        .broker(ground.broker.clone())
        .endpoint(tollgate::Endpoint::new("payments"))
        .open()
        .await
        .unwrap();
    let host = Host::of(socket::bank(&gate, &ground).router().unwrap()).await;
    let answer = host.put(RequestId::random(), "ada", &body).await;
    assert_eq!(answer.refusal(), refusal(413, "too-large"));
    assert_eq!(ground.kept().await, NOTHING);
}

#[tokio::test]
async fn a_gate_that_is_closed_says_so() {
    let ground = Ground::new();
    let Process { gate, host, .. } = Process::on(&ground).await;
    gate.close().await;
    let answer = host.put(RequestId::random(), "ada", "ada 5").await;
    assert_eq!(answer.refusal(), refusal(503, "unavailable"));
}
