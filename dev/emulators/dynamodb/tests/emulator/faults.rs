//! Faults strike as ordered, by hook and by seed, and leave behind what they say.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{KeysAndAttributes, PutRequest, WriteRequest};
use tokio::time::Instant;
use tollgate_dynamodb_emulator::{
    Cancellation, Effect, Fault, FaultPlan, InProcessDynamoDb, Operation, Throttling,
};

use crate::table::{self, TABLE, code, key, put_new};

/// An emulator with the table, and a client that doesn't repeat anything.
async fn without_retries() -> (InProcessDynamoDb, Client) {
    let dynamo = InProcessDynamoDb::new();
    let client = Client::from_conf(dynamo.client_config().retry_config(RetryConfig::disabled()).build());
    table::create(&client).await;
    (dynamo, client)
}

#[tokio::test]
async fn each_fault_looks_to_the_sdk_like_what_it_is_and_has_the_effect_that_it_says() {
    let (dynamo, client) = without_retries().await;
    let expectations = [
        (Fault::Throttle(Throttling::ProvisionedThroughput), "ProvisionedThroughputExceededException", 0),
        (Fault::Throttle(Throttling::Rate), "ThrottlingException", 0),
        (Fault::Throttle(Throttling::RequestLimit), "RequestLimitExceeded", 0),
        (Fault::Cancel(Cancellation::Conflict), "TransactionConflictException", 0),
        (Fault::InternalError(Effect::None), "InternalServerError", 0),
        (Fault::InternalError(Effect::Done), "InternalServerError", 1),
        (Fault::Disconnect(Effect::None), "disconnected", 0),
        (Fault::Disconnect(Effect::Done), "disconnected", 1),
        (Fault::Timeout(Effect::None), "timeout", 0),
        (Fault::Timeout(Effect::Done), "timeout", 1),
    ];
    for (fault, said, done) in expectations {
        let before = table::value(&client, "a").await;
        dynamo.fail_next(Operation::UpdateItem, fault);
        assert_eq!(table::increment(&client, "a").await.unwrap_err(), said, "{fault:?}");
        assert_eq!(table::value(&client, "a").await - before, done, "{fault:?}");
        assert_eq!(dynamo.counts().faults(fault), 1);
    }
    table::increment(&client, "a").await.expect("an order is for one call");
}

#[tokio::test]
async fn a_canceled_transaction_names_one_item_and_does_nothing() {
    let (dynamo, client) = without_retries().await;
    let expectations = [
        (Cancellation::Conflict, "TransactionConflict"),
        (Cancellation::Throttling, "ThrottlingError"),
        (Cancellation::ProvisionedThroughput, "ProvisionedThroughputExceeded"),
    ];
    for (by, expected) in expectations {
        dynamo.fail_next(Operation::TransactWriteItems, Fault::Cancel(by));
        let error = client
            .transact_write_items()
            .transact_items(put_new("a", "1"))
            .transact_items(put_new("a", "2"))
            .send()
            .await
            .unwrap_err()
            .into_service_error();
        let TransactWriteItemsError::TransactionCanceledException(canceled) = error else {
            panic!("not canceled: {error:?}")
        };
        let mut codes: Vec<_> =
            canceled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
        codes.sort_unstable();
        assert_eq!(codes, ["None", expected]);
    }
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 0);
}

#[tokio::test]
async fn a_transaction_in_progress_is_said_to_be_one() {
    let (dynamo, client) = without_retries().await;
    dynamo.fail_next(Operation::TransactWriteItems, Fault::TransactionInProgress);
    let transaction = client.transact_write_items().transact_items(put_new("a", "1"));
    assert_eq!(transaction.send().await.map_err(code).unwrap_err(), "TransactionInProgressException");
}

#[tokio::test]
async fn keys_left_unprocessed_come_back_and_all_others_are_processed() {
    let (dynamo, client) = without_retries().await;
    let put = |n: usize| {
        let put = PutRequest::builder().set_item(Some(key("a", &n.to_string()))).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    dynamo.fail_next(Operation::BatchWriteItem, Fault::LeaveUnprocessed);
    let writes: Vec<_> = (0..10).map(put).collect();
    let written = client.batch_write_item().request_items(TABLE, writes).send().await.unwrap();
    let left = written.unprocessed_items().unwrap()[TABLE].len();
    assert!((1..10).contains(&left), "{left} of 10 came back");
    let stored = usize::try_from(client.scan().table_name(TABLE).send().await.unwrap().count()).unwrap();
    assert_eq!(stored + left, 10);

    let rest = written.unprocessed_items().unwrap()[TABLE].clone();
    client.batch_write_item().request_items(TABLE, rest).send().await.unwrap();
    dynamo.fail_next(Operation::BatchGetItem, Fault::LeaveUnprocessed);
    let keys = KeysAndAttributes::builder()
        .set_keys(Some((0..10).map(|n| key("a", &n.to_string())).collect()))
        .consistent_read(true)
        .build()
        .unwrap();
    let read = client.batch_get_item().request_items(TABLE, keys).send().await.unwrap();
    let left = &read.unprocessed_keys().unwrap()[TABLE];
    assert_eq!(left.consistent_read(), Some(true), "the rest is asked for as the whole was");
    assert_eq!(left.keys().len() + read.responses().unwrap()[TABLE].len(), 10);
}

#[tokio::test]
async fn a_batch_of_one_key_is_throttled_instead() {
    let (dynamo, client) = without_retries().await;
    dynamo.fail_next(Operation::BatchGetItem, Fault::LeaveUnprocessed);
    let keys = KeysAndAttributes::builder().keys(key("a", "1")).build().unwrap();
    let read = client.batch_get_item().request_items(TABLE, keys).send().await;
    assert_eq!(read.map_err(code).unwrap_err(), "ProvisionedThroughputExceededException");
}

#[tokio::test]
async fn a_late_request_takes_effect_after_its_client_gave_up() {
    let (dynamo, client) = without_retries().await;
    dynamo.fail_next(Operation::UpdateItem, Fault::Timeout(Effect::Late));
    assert_eq!(table::increment(&client, "a").await.unwrap_err(), "timeout");
    assert_eq!(dynamo.settle_late_requests(), 1);
    assert_eq!(table::value(&client, "a").await, 1);

    // And if nobody asks for it, later calls let it through.
    dynamo.fail_next(Operation::UpdateItem, Fault::Timeout(Effect::Late));
    table::increment(&client, "a").await.unwrap_err();
    let mut reads = 0;
    while table::value(&client, "a").await < 2 {
        reads += 1;
        assert!(reads < 1000, "the late request never took effect");
    }
}

#[tokio::test]
async fn the_same_seed_strikes_the_same_calls() {
    async fn run(seed: u64) -> Vec<Result<(), String>> {
        let (dynamo, client) = without_retries().await;
        let plan = FaultPlan::seeded(seed).inject(Fault::Throttle(Throttling::Rate), 0.2).inject_into(
            Operation::UpdateItem,
            Fault::Disconnect(Effect::Done),
            0.2,
        );
        dynamo.set_faults(plan);
        let mut answers = Vec::new();
        for _ in 0..100 {
            answers.push(table::increment(&client, "a").await);
        }
        answers
    }
    let first = run(7).await;
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
    let throttled =
        first.iter().filter(|answer| answer.as_ref().is_err_and(|said| said == "ThrottlingException"));
    assert!((5..40).contains(&throttled.count()), "a rate of 0.2 is far off in {first:?}");
}

#[tokio::test]
async fn a_hook_sees_each_request_and_decides() {
    let (dynamo, client) = without_retries().await;
    dynamo.decide_faults(|call| {
        let concerned = call.operation == Operation::UpdateItem
            && call.body.windows(8).any(|bytes| bytes == b"\"poison\"");
        concerned.then_some(Fault::Throttle(Throttling::ProvisionedThroughput))
    });
    table::increment(&client, "a").await.unwrap();
    table::increment(&client, "poison").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn in_a_storm_of_throttling_the_sdk_repeats_and_nothing_is_done_twice() {
    let dynamo = InProcessDynamoDb::new();
    let retries = RetryConfig::standard().with_max_attempts(20);
    let client = Client::from_conf(dynamo.client_config().retry_config(retries).build());
    table::create(&client).await;
    dynamo.set_faults(FaultPlan::seeded(3).inject(Fault::Throttle(Throttling::ProvisionedThroughput), 0.5));
    for _ in 0..20 {
        table::increment(&client, "a").await.unwrap();
    }
    dynamo.set_faults(FaultPlan::none());
    assert_eq!(table::value(&client, "a").await, 20);
    assert!(dynamo.counts().of(Operation::UpdateItem).faults > 5);
}

#[tokio::test(start_paused = true)]
async fn latency_passes_on_the_clock_of_tokio() {
    let (dynamo, client) = without_retries().await;
    let latency = Duration::from_millis(20);
    dynamo.set_faults(FaultPlan::none().latency(latency..=latency));
    let before = Instant::now();
    table::increment(&client, "a").await.unwrap();
    assert_eq!(before.elapsed().as_millis(), latency.as_millis());
}

#[tokio::test]
#[should_panic(expected = "can't happen to GetItem")]
async fn a_fault_that_cannot_happen_to_an_operation_is_refused() {
    InProcessDynamoDb::new().fail_next(Operation::GetItem, Fault::TransactionInProgress);
}
