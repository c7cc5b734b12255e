//! Several servers and several processes on one store: each request is executed once, at its own server.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::time::Duration;

use axum::Router;
use http::request::Parts;
use socket::{Answer, Ask, Ground, Host, caller};
use tollgate::{Edge, Gate, HandlerError, TollgateError, Tx};
use tollgate_http::server::{ExactlyOnce, Request};
use tollgate_http::{RequestId, Response};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A server that counts its executions in the one partition that all of them use.
fn counter(edge: Edge, base: &str, item: &'static str) -> ExactlyOnce {
    let count = move |tx: Tx, _: Request| async move {
        let executed = tx.get::<u64>(item).await?.unwrap_or_default() + 1;
        tx.put(item, &executed)?;
        Ok::<_, HandlerError>(Response::text(format!("{item} {executed}")))
    };
    ExactlyOnce::new(edge, base, |_| async { Ok("account/ada".to_owned()) }, count)
        .authenticate(|parts: &Parts| std::future::ready(caller(parts)))
}

/// A process with two servers of one endpoint, and one of another.
struct Process {
    gate: Gate,
    host: Host,
}

const BASES: [&str; 3] = ["/payments", "/refunds", "/captures"];

impl Process {
    async fn on(ground: &Ground, change: impl Fn(ExactlyOnce) -> ExactlyOnce) -> Self {
        let gate = ground.gate().await;
        let mut routes = Router::new();
        for (base, (endpoint, item)) in
            BASES.into_iter().zip([("payments", "payment"), ("payments", "refund"), ("ledger", "capture")])
        {
            let server = change(counter(gate.edge(endpoint).unwrap(), base, item));
            routes = routes.merge(server.router().unwrap());
        }
        Self { gate, host: Host::of(routes).await }
    }

    async fn go(&self, method: &str, base: &str, id: RequestId, who: &str) -> Answer {
        self.host.ask(method, &format!("{base}/{id}"), who, Ask { body: "x".into(), headers: &[] }).await
    }

    async fn go_for(&self, method: &str, base: &str, id: RequestId, etag: &str) -> Answer {
        let ask = Ask { body: "x".into(), headers: &[("if-match", etag)] };
        self.host.ask(method, &format!("{base}/{id}"), "ada", ask).await
    }

    async fn executed(&self) -> [u64; 3] {
        let edge = self.gate.edge("payments").unwrap();
        let mut executed = [0; 3];
        for (number, item) in executed.iter_mut().zip(["payment", "refund", "capture"]) {
            let bytes = edge.read("account/ada", item).await.unwrap();
            *number = bytes.map_or(0, |bytes| serde_json::from_slice(&bytes).unwrap());
        }
        executed
    }
}

fn refusal(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

#[tokio::test]
async fn one_id_at_several_servers_of_one_partition_is_executed_once_at_each() {
    let ground = Ground::new();
    let bank = Process::on(&ground, |server| server).await;
    let id = RequestId::random();
    for base in BASES {
        assert_eq!(bank.go("PUT", base, id, "ada").await.status, 201);
    }
    for _ in 0..5 {
        for (base, text) in BASES.into_iter().zip(["payment 1", "refund 1", "capture 1"]) {
            assert_eq!(bank.go("POST", base, id, "ada").await.text(), text);
            assert_eq!(bank.go("GET", base, id, "ada").await.text(), text);
        }
    }
    assert_eq!(bank.executed().await, [1, 1, 1]);
    // A removal at one of them is none at the others.
    assert_eq!(bank.go("DELETE", "/refunds", id, "ada").await.status, 204);
    assert_eq!(bank.go("POST", "/payments", id, "ada").await.text(), "payment 1");
    assert_eq!(bank.go("POST", "/captures", id, "ada").await.text(), "capture 1");
    assert_eq!(bank.go("DELETE", "/captures", id, "ada").await.status, 204);
    assert_eq!(bank.go("GET", "/payments", id, "ada").await.text(), "payment 1");
    assert_eq!(bank.go("DELETE", "/payments", id, "ada").await.status, 204);
    assert_eq!(bank.executed().await, [1, 1, 1]);
    assert_eq!(ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn another_callers_request_under_the_same_id_at_another_server_executes_nothing_again() {
    let ground = Ground::new();
    let bank = Process::on(&ground, |server| server).await;
    let id = RequestId::random();
    bank.go("PUT", "/payments", id, "ada").await;
    assert_eq!(bank.go("POST", "/payments", id, "ada").await.text(), "payment 1");
    for base in ["/refunds", "/captures"] {
        // Stored and removed, first without and then with an execution.
        for methods in [&["PUT", "DELETE"][..], &["PUT", "POST", "DELETE"]] {
            for method in methods {
                assert!(bank.go(method, base, RequestId::random(), "eve").await.status < 500);
                bank.go(method, base, id, "eve").await;
            }
            let again = bank.go("POST", "/payments", id, "ada").await;
            assert_eq!((again.text(), again.is_replayed()), ("payment 1", true));
        }
    }
    assert_eq!(bank.executed().await[0], 1);
}

#[tokio::test]
async fn two_servers_that_would_share_their_requests_are_refused_when_they_are_built() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let edge = || gate.edge("payments").unwrap();
    let eu = counter(edge(), "/payments", "payment").router().unwrap();
    let us = counter(edge(), "/payments", "refund");
    assert!(matches!(us.router(), Err(TollgateError::Configuration(_))));
    // By another name they are two, and each has its own requests.
    let us = us.named("us").router().unwrap();
    let host = Host::of(Router::new().nest("/eu", eu).nest("/us", us)).await;
    let id = RequestId::random();
    let ask = |method: &'static str, mount: &str| {
        let path = format!("{mount}/payments/{id}");
        let host = &host;
        async move { host.ask(method, &path, "ada", Ask { body: "x".into(), headers: &[] }).await }
    };
    assert_eq!(ask("PUT", "/eu").await.status, 201);
    assert_eq!(ask("POST", "/us").await.refusal(), refusal(404, "unknown-id"));
    assert_eq!(ask("PUT", "/us").await.status, 201);
    assert_eq!(ask("POST", "/us").await.text(), "refund 1");
    assert_eq!(ask("POST", "/eu").await.text(), "payment 1");
    for base in ["payments", "/pay/{tenant}", "/pay?x"] {
        let server = counter(edge(), base, "payment");
        assert!(matches!(server.router(), Err(TollgateError::Configuration(_))), "{base}");
    }
    // A server that is gone leaves its name free.
    drop(host);
    let again = async {
        while counter(edge(), "/payments", "payment").router().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(socket::PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_request_belongs_to_the_path_at_which_it_was_stored() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let server = counter(gate.edge("payments").unwrap(), "/payments", "payment").router().unwrap();
    let routes = Router::new().nest("/eu", server.clone()).nest("/t/{tenant}", server.clone()).merge(server);
    let host = Host::of(routes).await;
    let id = RequestId::random();
    let ask = |method: &'static str, mount: &'static str| {
        let host = &host;
        let path = format!("{mount}/payments/{id}");
        async move { host.ask(method, &path, "ada", Ask { body: "x".into(), headers: &[] }).await }
    };
    assert_eq!(ask("PUT", "/t/1").await.status, 201);
    for other in ["/eu", "", "/t/2"] {
        assert_eq!(ask("PUT", other).await.refusal(), refusal(409, "id-in-use"), "{other}");
        for method in ["POST", "GET", "DELETE"] {
            assert_eq!(ask(method, other).await.refusal(), refusal(404, "unknown-id"), "{method} {other}");
        }
    }
    assert_eq!(ask("POST", "/t/1").await.text(), "payment 1");
    assert_eq!(ask("DELETE", "/t/1").await.status, 204);
    let described = host.ask("GET", "/eu/payments/openapi.json", "", Ask::default()).await;
    let described: serde_json::Value = serde_json::from_slice(&described.body).unwrap();
    assert_eq!(described["servers"][0]["url"], "/eu");
}

#[tokio::test]
async fn a_deletion_is_remembered_by_every_process_and_after_a_restart() {
    let ground = Ground::new();
    let remembering = |server: ExactlyOnce| server.remember_deletions(DAY);
    let ids = [RequestId::random(), RequestId::random()];
    {
        let first = Process::on(&ground, remembering).await;
        for id in ids {
            assert_eq!(first.go("PUT", "/payments", id, "ada").await.status, 201);
        }
        assert_eq!(first.go("POST", "/payments", ids[0], "ada").await.text(), "payment 1");
        for id in ids {
            assert_eq!(first.go("DELETE", "/payments", id, "ada").await.status, 204);
        }
        // The gate is dropped and not closed, as in a crash.
    }
    let second = Process::on(&ground, remembering).await;
    second.gate.sweep().await.unwrap();
    for id in ids {
        for method in ["PUT", "POST", "GET", "DELETE"] {
            let answer = second.go(method, "/payments", id, "ada").await;
            assert_eq!(answer.refusal(), refusal(410, "deleted"), "{method}");
        }
        assert_eq!(second.go("PUT", "/payments", id, "eve").await.refusal(), refusal(409, "id-in-use"));
        for method in ["POST", "GET", "DELETE"] {
            let answer = second.go(method, "/payments", id, "eve").await;
            assert_eq!(answer.refusal(), refusal(404, "unknown-id"), "{method} by another caller");
        }
        // Another server has its own deletions.
        assert_eq!(second.go("PUT", "/refunds", id, "ada").await.status, 201);
    }
    assert_eq!(second.executed().await, [1, 0, 0]);
}

#[tokio::test]
async fn a_deletion_is_forgotten_after_its_retention_and_a_second_one_is_remembered_again() {
    let ground = Ground::new();
    let moment = Duration::from_millis(50);
    let bank = Process::on(&ground, |server| server.remember_deletions(moment).tombstones(0)).await;
    let id = RequestId::random();
    for round in 0..2 {
        assert_eq!(bank.go("PUT", "/payments", id, "ada").await.status, 201, "{round}");
        assert_eq!(bank.go("DELETE", "/payments", id, "ada").await.status, 204);
        assert_eq!(bank.go("PUT", "/payments", id, "ada").await.refusal(), refusal(410, "deleted"));
        assert_eq!(ground.kept().await, Vec::<String>::new());
        let forgotten = async {
            while bank.go("GET", "/payments", id, "ada").await.status == 410 {
                tokio::time::sleep(moment).await;
                bank.gate.sweep().await.unwrap();
            }
        };
        tokio::time::timeout(socket::PATIENCE, forgotten).await.unwrap();
    }
}

#[tokio::test]
async fn where_a_tag_is_demanded_a_client_that_begins_again_executes_nothing_twice() {
    let ground = Ground::new();
    let demanding = |server: ExactlyOnce| server.require_if_match().tombstones(0);
    let processes = [Process::on(&ground, demanding).await, Process::on(&ground, demanding).await];
    let id = RequestId::random();
    let etag = processes[0].go("PUT", "/payments", id, "ada").await.header("etag").to_owned();
    for method in ["POST", "GET"] {
        let without = processes[0].go(method, "/payments", id, "ada").await;
        assert_eq!(without.refusal(), refusal(428, "precondition-required"), "{method}");
        let any = processes[0].go_for(method, "/payments", id, "*").await;
        assert_eq!(any.refusal(), refusal(428, "precondition-required"), "{method}");
    }
    assert_eq!(processes[0].go_for("POST", "/payments", id, &etag).await.text(), "payment 1");
    assert_eq!(processes[0].go("DELETE", "/payments", id, "ada").await.status, 204);
    // It repeats everything at the other process, with the tag of its first PUT.
    assert_eq!(processes[1].go("PUT", "/payments", id, "ada").await.status, 201);
    let late = processes[1].go_for("POST", "/payments", id, &etag).await;
    assert_eq!(late.refusal(), refusal(412, "other-incarnation"));
    assert_eq!(processes[1].executed().await, [1, 0, 0]);
}

#[tokio::test]
async fn a_caller_with_too_many_open_requests_is_told_so_and_others_are_not() {
    let ground = Ground::new();
    let quota = 200;
    let bank = Process::on(&ground, |server| server.buckets(2).open_requests_max(quota)).await;
    let mut stored = Vec::new();
    let refused = loop {
        let id = RequestId::random();
        let answer = bank.go("PUT", "/payments", id, "eve").await;
        if answer.status != 201 {
            break answer;
        }
        stored.push(id);
    };
    assert_eq!(refused.refusal(), refusal(429, "too-many-requests"));
    assert!(!refused.header("retry-after").is_empty());
    assert!((200..=464).contains(&stored.len()), "{}", stored.len());
    assert_eq!(bank.go("PUT", "/payments", RequestId::random(), "ada").await.status, 201);
    assert_eq!(bank.go("PUT", "/payments", stored[0], "eve").await.status, 200, "a repetition is none more");
    for id in &stored {
        assert_eq!(bank.go("DELETE", "/payments", *id, "eve").await.status, 204);
    }
    assert_eq!(bank.go("PUT", "/payments", RequestId::random(), "eve").await.status, 201);
}

#[tokio::test]
async fn a_conditional_put_stores_nothing_if_its_condition_is_false() {
    let ground = Ground::new();
    let bank = Process::on(&ground, |server| server).await;
    let id = RequestId::random();
    let put = |headers: &'static [(&'static str, &'static str)]| {
        let (host, path) = (&bank.host, format!("/payments/{id}"));
        async move { host.ask("PUT", &path, "ada", Ask { body: "x".into(), headers }).await }
    };
    for headers in [&[("if-match", "*")][..], &[("if-match", "\"0\"")]] {
        assert_eq!(put(headers).await.refusal(), refusal(412, "other-incarnation"), "{headers:?}");
    }
    assert_eq!(put(&[("content-range", "bytes 0-0/2")]).await.refusal(), refusal(400, "bad-request"));
    assert_eq!(put(&[("content-encoding", "gzip")]).await.refusal(), refusal(415, "unsupported-encoding"));
    assert_eq!(ground.kept().await, Vec::<String>::new());
    assert_eq!(put(&[("if-none-match", "*"), ("content-encoding", "identity")]).await.status, 201);
    assert_eq!(put(&[("if-none-match", "*")]).await.refusal(), refusal(412, "other-incarnation"));
    assert_eq!(put(&[("if-match", "*")]).await.status, 200);
    let post = bank.go("POST", "/payments", id, "ada").await;
    assert_eq!(post.header("cache-control"), "no-store");
    let ask = Ask { headers: &[("if-none-match", post.header("etag"))], ..Ask::default() };
    let known = bank.host.ask("GET", &format!("/payments/{id}"), "ada", ask).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let ask = Ask { headers: &[("if-none-match", "\"0\"")], ..Ask::default() };
    assert_eq!(bank.host.ask("GET", &format!("/payments/{id}"), "ada", ask).await.status, 200);
}
