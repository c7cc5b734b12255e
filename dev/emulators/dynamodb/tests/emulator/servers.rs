//! Servers beside the test: they are started, answer alike, are killed, and are missed loudly when they can't be had. Only
//! dynoxide's is expected to keep what it acknowledged.

use std::env;
use std::net::TcpStream;
use std::process::Command;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity};
use tollgate_dynamodb_emulator::external::ENDPOINT_VARIABLE;
use tollgate_dynamodb_emulator::{EmulatorError, Endpoint, InProcessDynamoDb, ServerKind, external_endpoint};

use crate::table::{self, TABLE, code, key, put_new, string};

/// Starts a server, or says loudly that the test is skipped. Never one that runs already: tables of others may be in it.
fn start(kind: ServerKind) -> Option<Endpoint> {
    Endpoint::start(kind).map_err(|error| eprintln!("!!! SKIPPED: {error}")).ok()
}

#[tokio::test]
async fn what_the_dynoxide_server_acknowledged_survives_being_killed() {
    let Some(mut server) = start(ServerKind::Dynoxide) else { return };
    let client = server.client();
    table::create(&client).await;
    for expected in 1..=3 {
        table::increment(&client, "a").await.unwrap();
        server.kill().unwrap();
        assert!(table::increment(&client, "a").await.is_err(), "a killed server must not answer");
        server.restart().unwrap();
        assert_eq!(table::value(&client, "a").await, expected);
    }
}

#[tokio::test]
async fn a_server_ends_with_its_endpoint() {
    let Some(server) = start(ServerKind::Dynoxide) else { return };
    let address = server.url().trim_start_matches("http://").to_owned();
    TcpStream::connect(&address).expect("it listens");
    drop(server);
    TcpStream::connect(&address).expect_err("nobody listens any more");
}

#[test]
fn a_server_that_may_not_be_started_says_so_and_is_no_failure() {
    if env::var_os("TOLLGATE_ACCEPT_DYNAMODB_LOCAL_LICENCE").is_some() {
        eprintln!("!!! SKIPPED: the licence of DynamoDB Local was accepted, so its script does not refuse");
        return;
    }
    let error = Endpoint::start(ServerKind::DynamoDbLocal).unwrap_err();
    assert!(matches!(error, EmulatorError::Unavailable { kind: ServerKind::DynamoDbLocal }), "{error:?}");
}

#[test]
fn an_endpoint_that_runs_already_is_used_and_left_alone() {
    let Ok(url) = env::var(ENDPOINT_VARIABLE) else {
        // A variable can be set safely for another process only: this test, once more.
        let itself = Command::new(env::current_exe().unwrap())
            .args(["--exact", "servers::an_endpoint_that_runs_already_is_used_and_left_alone"])
            .env(ENDPOINT_VARIABLE, "http://127.0.0.1:1")
            .output()
            .unwrap();
        assert!(itself.status.success(), "{}", String::from_utf8_lossy(&itself.stdout));
        assert!(String::from_utf8_lossy(&itself.stdout).contains("1 passed"));
        return;
    };
    let mut endpoint = external_endpoint(ServerKind::Ministack).expect("nothing has to be started");
    assert_eq!(endpoint.url(), url);
    assert!(matches!(endpoint.kill(), Err(EmulatorError::NotOurs { .. })));
}

#[tokio::test]
async fn the_emulator_in_process_keeps_to_the_protocol() {
    keeps_to_the_protocol(&InProcessDynamoDb::new().client(), BatchCapacity::Reported).await;
}

#[tokio::test]
async fn the_dynoxide_server_keeps_to_the_protocol() {
    let Some(server) = start(ServerKind::Dynoxide) else { return };
    keeps_to_the_protocol(&server.client(), BatchCapacity::Reported).await;
}

#[tokio::test]
async fn ministack_keeps_to_the_protocol() {
    let Some(server) = start(ServerKind::Ministack) else { return };
    keeps_to_the_protocol(&server.client(), BatchCapacity::Missing).await;
}

/// Whether an emulator reports what a `BatchGetItem` consumes. Those that don't are of no use for figures.
#[derive(Clone, Copy, PartialEq)]
enum BatchCapacity {
    Reported,
    Missing,
}

/// What Tollgate relies on: conditions, transactions, their tokens, and the capacity that is reported.
async fn keeps_to_the_protocol(client: &Client, batch_capacity: BatchCapacity) {
    table::create(client).await;

    let units = |consumed: Option<&ConsumedCapacity>| consumed.and_then(ConsumedCapacity::capacity_units);
    let mut item = key("a", "state");
    item.insert("v".into(), string(&"x".repeat(1500)));
    let put = client
        .put_item()
        .table_name(TABLE)
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(pk)")
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let first = put.clone().send().await.unwrap();
    assert_eq!(units(first.consumed_capacity()), Some(2.0), "1.5 KB are two write units");
    assert_eq!(put.send().await.map_err(code).unwrap_err(), "ConditionalCheckFailedException");

    let removed = client
        .update_item()
        .table_name(TABLE)
        .set_key(Some(key("nobody", "state")))
        .update_expression("REMOVE entry")
        .condition_expression("attribute_exists(entry)")
        .send()
        .await;
    assert_eq!(removed.map_err(code).unwrap_err(), "ConditionalCheckFailedException");

    let keys = KeysAndAttributes::builder()
        .keys(key("a", "state"))
        .keys(key("nobody", "state"))
        .consistent_read(true)
        .build()
        .unwrap();
    let batch = client
        .batch_get_item()
        .request_items(TABLE, keys)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(
        batch.responses().unwrap()[TABLE].len(),
        1,
        "what is missing, the refused removal's item too, is left out"
    );
    let expected = (batch_capacity == BatchCapacity::Reported).then_some(2.0);
    assert_eq!(units(batch.consumed_capacity().first()), expected, "two consistent reads, one of nothing");

    let both = client
        .transact_write_items()
        .transact_items(put_new("b", "1"))
        .transact_items(put_new("b", "2"))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let first = both.clone().client_request_token("commit-1").send().await.unwrap();
    assert_eq!(
        units(first.consumed_capacity().first()),
        Some(4.0),
        "a transaction pays double for each item"
    );
    both.clone()
        .client_request_token("commit-1")
        .send()
        .await
        .expect("the same token is the same transaction");
    let again = both.client_request_token("commit-2").send().await;
    assert_eq!(again.map_err(code).unwrap_err(), "TransactionCanceledException");
}
