//! The OpenAPI description against the running server: everything that it tells of is provoked, and everything that the server
//! answers is told of.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::collections::BTreeSet;

use serde_json::Value;
use socket::{Answer, Ask, Ground, Host, bank, path};
use tollgate_http::RequestId;
use tollgate_testkit::FaultRates;

/// One way in which an operation answers: its id, the status, and the kind of problem, "stored" or nothing.
type Case = (String, String, String);

/// All cases that the description tells of.
fn told(description: &Value) -> BTreeSet<Case> {
    let mut cases = BTreeSet::new();
    for operations in description["paths"].as_object().unwrap().values() {
        for operation in operations.as_object().unwrap().values().filter(|value| value.is_object()) {
            let id = operation["operationId"].as_str().unwrap();
            for (status, response) in operation["responses"].as_object().unwrap() {
                let case = |what: &str| (id.to_owned(), status.clone(), what.to_owned());
                assert!(!response["description"].as_str().unwrap().is_empty(), "{id} {status}");
                match response["x-problems"].as_array() {
                    Some(kinds) => cases.extend(kinds.iter().map(|kind| case(kind.as_str().unwrap()))),
                    None if response["headers"]["Tollgate-Response"].is_object() || status == "304" => {
                        cases.insert(case("stored"));
                    }
                    None => {
                        cases.insert(case(""));
                    }
                }
            }
        }
    }
    cases
}

/// Which case an answer is, and whether it is what the description says of that case.
fn checked(description: &Value, operation: &str, answer: &Answer) -> Case {
    let method = match operation {
        "storeRequest" => "put",
        "executeRequest" => "post",
        "readResponse" | "readDescription" => "get",
        "deleteRequest" => "delete",
        other => panic!("{other}"),
    };
    let place = if operation == "readDescription" { "/payments/openapi.json" } else { "/payments/{id}" };
    let responses = &description["paths"][place][method]["responses"];
    let is_stored = answer.header("tollgate-response") == "stored";
    let status = if is_stored && ![200, 304].contains(&answer.status) {
        "default".to_owned()
    } else {
        answer.status.to_string()
    };
    let response = &responses[&status];
    assert!(response.is_object(), "{operation} does not tell of {answer:?}");
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        assert!(header["required"] != true || !answer.header(name).is_empty(), "{operation} {status} {name}");
        if let (Some(only), true) = (header["schema"]["const"].as_str(), answer.headers.contains_key(name)) {
            assert_eq!(answer.header(name), only);
        }
    }
    match response["content"].as_object() {
        None => assert!(answer.body.is_empty(), "{operation} {status} has no body"),
        Some(content) => {
            let media_type = answer.header("content-type");
            assert!(
                content.contains_key(media_type) || content.contains_key("*/*"),
                "{operation} {media_type}"
            );
        }
    }
    let what = match response["x-problems"].as_array() {
        Some(kinds) => {
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            check_problem(&description["components"]["schemas"]["Problem"], &problem);
            assert_eq!(problem["status"], answer.status);
            assert!(kinds.contains(&problem["type"]), "{operation} {status} does not tell of {problem}");
            problem["type"].as_str().unwrap().to_owned()
        }
        None if is_stored => "stored".to_owned(),
        None => String::new(),
    };
    (operation.to_owned(), status, what)
}

/// As much of JSON Schema as the schema of problems uses.
fn check_problem(schema: &Value, problem: &Value) {
    assert_eq!(schema["type"], "object");
    let members = problem.as_object().unwrap();
    for name in schema["required"].as_array().unwrap() {
        assert!(members.contains_key(name.as_str().unwrap()), "{problem} has no {name}");
    }
    for (name, value) in members {
        let property = &schema["properties"][name];
        match property["type"].as_str().unwrap_or_else(|| panic!("{name} is not told of")) {
            "string" => assert!(value.is_string()),
            "integer" => assert!(value.is_u64()),
            other => panic!("{other}"),
        }
        if let Some(values) = property["enum"].as_array() {
            assert!(values.contains(value), "{value}");
        }
    }
}

const VERBS: [(&str, &str); 4] = [
    ("PUT", "storeRequest"),
    ("POST", "executeRequest"),
    ("GET", "readResponse"),
    ("DELETE", "deleteRequest"),
];

/// Everything that can be made to happen, in an order in which it does.
async fn provoked(host: &Host, ground: &Ground, gate: &tollgate::Gate) -> Vec<(&'static str, Answer)> {
    let mut seen = Vec::new();
    let [(_, put), (_, post), (_, get), (_, delete)] = VERBS;
    let id = RequestId::random();
    let with = |headers| Ask { body: "ada 5".into(), headers };
    // The way it is meant.
    seen.push((put, host.put(id, "ada", "ada 5").await));
    seen.push((put, host.put(id, "ada", "ada 5").await));
    seen.push((put, host.put(id, "ada", "ada 6").await));
    seen.push((get, host.go("GET", id, "ada").await));
    seen.push((post, host.go("POST", id, "ada").await));
    seen.push((post, host.go("POST", id, "ada").await));
    seen.push((get, host.go("GET", id, "ada").await));
    seen.push((get, host.ask("GET", &path(id), "ada", with(&[("if-none-match", "*")])).await));
    seen.push((put, host.ask("PUT", &path(id), "ada", with(&[("if-none-match", "*")])).await));
    seen.push((put, host.ask("PUT", &path(id), "ada", with(&[("content-encoding", "gzip")])).await));
    for (method, operation) in &VERBS[1..] {
        seen.push((operation, host.ask(method, &path(id), "ada", with(&[("if-match", "\"0\"")])).await));
        seen.push((operation, host.ask(method, &path(id), "ada", with(&[("if-match", "0")])).await));
        seen.push((operation, host.go(method, RequestId::random(), "ada").await));
    }
    seen.push((delete, host.go("DELETE", id, "ada").await));
    // Too late, too early, by nobody, too much, too slow, too odd.
    for (method, operation) in VERBS {
        seen.push((operation, host.ask(method, &path(id), "ada", with(&[])).await));
        seen.push((operation, host.ask(method, "/payments/1", "ada", with(&[])).await));
        seen.push((operation, host.ask(method, &path(id), "", with(&[])).await));
    }
    seen.push((put, host.put(RequestId::random(), "ada", &"a".repeat(socket::BODY_BYTES_MAX + 1)).await));
    seen.push((put, host.put(RequestId::random(), "ada", "").await));
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer ada\r\ncontent-length: 5\r\n\r\n",
        path(RequestId::random())
    );
    seen.push((put, host.raw(&[head.as_bytes()], std::time::Duration::ZERO).await));
    // What the handler says.
    for body in ["ada refuse", "ada status 404", "ada status 503", "ada large", "ada fail"] {
        let id = RequestId::random();
        host.put(id, "ada", body).await;
        seen.push((post, host.go("POST", id, "ada").await));
        seen.push((get, host.go("GET", id, "ada").await));
    }
    // Nothing can be reached.
    ground.faults.set_rates(FaultRates { unavailable: 1.0, ..FaultRates::default() });
    for (method, operation) in VERBS {
        seen.push((operation, host.ask(method, &path(RequestId::random()), "ada", with(&[])).await));
    }
    ground.faults.set_rates(FaultRates::default());
    // A stored request is damaged.
    let id = RequestId::random();
    host.put(id, "ada", "ada 5").await;
    let item = format!("request/{id}");
    let page = ground.store.scan(None, usize::MAX).await.unwrap();
    let holds = |scanned: &tollgate::proto::ScannedPartition| {
        scanned.items.iter().any(|name| name.as_str() == item.as_str())
    };
    let bucket = page.partitions.iter().find(|scanned| holds(scanned)).unwrap().partition.clone();
    let damage = move |tx: tollgate::Tx| {
        let item = item.clone();
        async move {
            tx.put_bytes(&item, "nonsense")?;
            Ok(())
        }
    };
    let edge = gate.edge("payments").unwrap();
    let () = edge.advance(bucket.as_str(), "damage", damage).await.unwrap();
    for (method, operation) in VERBS {
        seen.push((operation, host.ask(method, &path(id), "ada", with(&[])).await));
    }
    seen.push(("readDescription", host.ask("GET", "/payments/openapi.json", "", Ask::default()).await));
    seen
}

#[tokio::test]
async fn everything_that_is_described_happens_and_everything_that_happens_is_described() {
    let ground = Ground::new();
    let gate = ground.gate().await;
    let server = bank(&gate, &ground);
    let host = Host::of(server.router().unwrap()).await;
    let description = server.openapi();
    let seen = provoked(&host, &ground, &gate).await;
    let described: Value = serde_json::from_slice(&seen.last().unwrap().1.body).unwrap();
    assert_eq!(described, description);
    let happened: BTreeSet<Case> =
        seen.iter().map(|(operation, answer)| checked(&description, operation, answer)).collect();
    let told = told(&description);
    println!("{} answers, {} cases described, {} provoked", seen.len(), told.len(), happened.len());
    let missing: Vec<&Case> = told.difference(&happened).collect();
    assert!(missing.is_empty(), "described, and never seen: {missing:?}");
    assert_eq!(happened, told);
    gate.close().await;
}

#[test]
fn the_checker_sees_what_is_not_told_of() {
    let description = serde_json::json!({
        "paths": { "/payments/{id}": { "post": { "operationId": "executeRequest", "responses": {
            "404": { "description": "x", "x-problems": ["urn:tollgate:problem:unknown-id"],
                     "content": { "application/problem+json": {} } },
        } } } },
        "components": { "schemas": { "Problem": { "type": "object", "required": ["type", "status"], "properties": {
            "type": { "type": "string", "enum": ["urn:tollgate:problem:unknown-id", "urn:tollgate:problem:deleted"] },
            "status": { "type": "integer" },
        } } } },
    });
    let answer = |status: u16, body: &str, media_type: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", media_type.parse().unwrap());
        Answer { status, headers, body: body.to_owned().into() }
    };
    let good =
        answer(404, r#"{"type":"urn:tollgate:problem:unknown-id","status":404}"#, "application/problem+json");
    assert_eq!(checked(&description, "executeRequest", &good).1, "404");
    for bad in [
        answer(410, r#"{"type":"urn:tollgate:problem:unknown-id","status":410}"#, "application/problem+json"),
        answer(404, r#"{"type":"urn:tollgate:problem:deleted","status":404}"#, "application/problem+json"),
        answer(404, r#"{"type":"urn:tollgate:problem:unknown-id"}"#, "application/problem+json"),
        answer(
            404,
            r#"{"type":"urn:tollgate:problem:unknown-id","status":404,"more":1}"#,
            "application/problem+json",
        ),
        answer(404, r#"{"type":"urn:tollgate:problem:unknown-id","status":404}"#, "text/html"),
    ] {
        let description = description.clone();
        let check = std::panic::catch_unwind(move || checked(&description, "executeRequest", &bad));
        assert!(check.is_err());
    }
}
