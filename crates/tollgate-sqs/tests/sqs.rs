//! The broker on SQS against ministack, started by `infra/sqs/start-ministack`; skipped loudly where it can't
//! be started.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, MessageId, OutgoingMessage, PartitionKey, Settlement,
    Verdict,
};
use tollgate_sqs::{Provisioning, QueueKind, SqsBroker, SqsBuilder};
use tollgate_testkit::broker_conformance::{self, BrokerConfig};
use tollgate_testkit::{DarkProxy, LocalServer};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sqs/start-ministack")
}

const CONFIG: BrokerConfig = BrokerConfig {
    visibility_timeout: Duration::from_secs(3),
    capacity: None,
    // 256 KiB with base64 and attributes.
    envelope_bytes_max: 190_000,
};

static SERVER: LazyLock<Option<LocalServer>> = LazyLock::new(|| LocalServer::start_in_memory(script()));

fn builder(server: &LocalServer, prefix: &str) -> SqsBuilder {
    SqsBroker::at_emulator(server.address())
        .prefix(prefix)
        .provisioning(Provisioning::OnUse)
        .visibility_timeout(Duration::from_secs(2))
        .hold_max(CONFIG.visibility_timeout)
}

fn orders() -> EndpointName {
    EndpointName::new("orders").unwrap()
}

fn message(name: &str) -> OutgoingMessage {
    let (partition, id) =
        (PartitionKey::new("customer/ada lovelace").unwrap(), MessageId::from_name("sqs", name));
    OutgoingMessage {
        headers: vec![("traceparent".to_owned(), "00-1-2-01".to_owned())],
        ..OutgoingMessage::without_token(orders(), partition, id, Bytes::copy_from_slice(name.as_bytes()))
    }
}

async fn receive_one(broker: &SqsBroker) -> Delivery {
    loop {
        if let Some(delivery) = broker.receive(&orders(), 1).await.unwrap().pop() {
            return delivery;
        }
    }
}

async fn settle(broker: &SqsBroker, delivery: Delivery, verdict: Verdict) {
    broker
        .settle(&orders(), vec![Settlement { receipt: delivery.receipt, verdict }])
        .await
        .remove(0)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqs_keeps_the_promises_of_a_broker() {
    let Some(server) = &*SERVER else { return };
    let make = async || Arc::new(builder(server, "suite-").build().unwrap()) as Arc<dyn Broker>;
    broker_conformance::run(make, &CONFIG).await;
}

#[tokio::test]
async fn a_delivery_that_is_worked_on_is_not_delivered_again() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "held-").hold_max(Duration::from_secs(60)).build().unwrap();
    broker.send(vec![message("a")]).await.remove(0).unwrap();
    let delivery = receive_one(&broker).await;
    let nothing = tokio::time::timeout(Duration::from_secs(5), receive_one(&broker)).await;
    assert!(nothing.is_err(), "two visibility timeouts have passed, and both were extended: {nothing:?}");
    settle(&broker, delivery, Verdict::Acknowledge).await;
    assert_eq!(broker.depth(&orders()).await.unwrap().left, 0);
}

#[tokio::test]
async fn a_dead_letter_is_put_aside_with_its_reason() {
    let Some(server) = &*SERVER else { return };
    for (kind, prefix, queue) in [
        (QueueKind::Standard, "aside-", "aside-orders-dead"),
        (QueueKind::Fifo, "aside-fifo-", "aside-fifo-orders-dead.fifo"),
    ] {
        let broker = builder(server, prefix).kind(kind).build().unwrap();
        broker.send(vec![message("poison")]).await.remove(0).unwrap();
        let delivery = receive_one(&broker).await;
        let reason = "it is poison,\nline after line".to_owned();
        settle(&broker, delivery, Verdict::DeadLetter { reason }).await;
        let depth = broker.depth(&orders()).await.unwrap();
        assert_eq!((depth.left, depth.dead), (0, 1), "{kind:?}");
        // Whoever looks into the queue finds the envelope and why it is there.
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
            .region(aws_sdk_sqs::config::Region::from_static("us-east-1"))
            .credentials_provider(aws_sdk_sqs::config::Credentials::new("a", "b", None, None, "test"))
            .endpoint_url(server.address())
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        let client = aws_sdk_sqs::Client::from_conf(config.build());
        let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
        let dead =
            client.receive_message().queue_url(url).message_attribute_names("All").send().await.unwrap();
        let attributes = dead.messages()[0].message_attributes().unwrap();
        let text = |name: &str| attributes[name].string_value().unwrap();
        assert_eq!(text("tollgate-dead-letter-reason"), "it is poison, line after line");
        assert_eq!(text("tollgate-deliveries"), "1");
        assert_eq!(text("traceparent"), "00-1-2-01");
    }
}

#[tokio::test]
async fn a_fifo_queue_stores_a_message_once_and_takes_no_delay() {
    let Some(server) = &*SERVER else { return };
    let broker = builder(server, "fifo-").kind(QueueKind::Fifo).build().unwrap();
    let delayed = OutgoingMessage { delay: Duration::from_secs(60), ..message("a") };
    for answer in broker.send(vec![delayed, message("b")]).await {
        answer.unwrap();
    }
    broker.send(vec![message("a")]).await.remove(0).unwrap();
    for expected in ["a", "b"] {
        let delivery = receive_one(&broker).await;
        assert_eq!(delivery.envelope, expected);
        settle(&broker, delivery, Verdict::Acknowledge).await;
    }
    assert_eq!(broker.depth(&orders()).await.unwrap().left, 0);
}

#[tokio::test]
async fn what_is_missing_or_different_is_told_and_one_unfit_message_does_not_spoil_a_batch() {
    let Some(server) = &*SERVER else { return };
    let broker = SqsBroker::at_emulator(server.address()).prefix("told-").build().unwrap();
    let missing = broker.verify(&orders()).await.unwrap_err();
    assert!(matches!(&missing, BrokerError::Misconfigured { .. }), "{missing}");
    assert!(missing.to_string().contains("told-orders"), "{missing}");
    broker.provision(&orders()).await.unwrap();
    broker.provision(&orders()).await.unwrap();
    assert_eq!(broker.differences(&orders()).await.unwrap(), Vec::<String>::new());
    broker.verify(&orders()).await.unwrap();
    let mut batch: Vec<_> = (0..25).map(|n| message(&n.to_string())).collect();
    batch[13].envelope = Bytes::from(vec![0; 300_000]);
    let answers = broker.send(batch).await;
    let refused: Vec<usize> = (0..25).filter(|n| answers[*n].is_err()).collect();
    assert_eq!(refused, [13]);
    let mut seen = HashSet::new();
    while seen.len() < 24 {
        let delivery = receive_one(&broker).await;
        seen.insert(delivery.envelope.clone());
        settle(&broker, delivery, Verdict::Acknowledge).await;
    }
}

#[tokio::test]
async fn closing_gives_back_what_nobody_has_seen() {
    let Some(server) = &*SERVER else { return };
    let slow = || builder(server, "drained-").visibility_timeout(Duration::from_secs(600)).build().unwrap();
    let broker = slow();
    for answer in broker.send((0..10).map(|n| message(&n.to_string())).collect()).await {
        answer.unwrap();
    }
    let seen = receive_one(&broker).await;
    while broker.held(&orders()).waiting < 9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    broker.close().await;
    assert!(matches!(broker.receive(&orders(), 1).await, Err(BrokerError::Closed { .. })));
    settle(&broker, seen, Verdict::Acknowledge).await;
    let other = slow();
    let mut again = HashSet::new();
    while again.len() < 9 {
        let delivery = receive_one(&other).await;
        again.insert(delivery.envelope.clone());
        settle(&other, delivery, Verdict::Acknowledge).await;
    }
    assert_eq!(other.depth(&orders()).await.unwrap().left, 0);
}

#[tokio::test]
async fn a_connection_that_goes_dark_stops_nothing_for_long() {
    let Some(server) = &*SERVER else { return };
    let behind = server.address().strip_prefix("http://").unwrap();
    let proxy = DarkProxy::before(behind).await.unwrap();
    let through = SqsBroker::at_emulator(&format!("http://{}", proxy.address()));
    let through = through.prefix("dark-").provisioning(Provisioning::OnUse).poll(Duration::from_secs(1));
    // A message may be given to the connection that is dark by then; it comes again.
    let through = through.visibility_timeout(Duration::from_secs(3));
    let broker = through.build().unwrap();
    broker.send(vec![message("before")]).await.remove(0).unwrap();
    let delivery = receive_one(&broker).await;
    settle(&broker, delivery, Verdict::Acknowledge).await;
    proxy.darken();
    let direct = builder(server, "dark-").build().unwrap();
    direct.send(vec![message("after")]).await.remove(0).unwrap();
    let received = async {
        loop {
            // That a call has failed is told; the next one has another connection.
            if let Ok(Some(delivery)) =
                broker.receive(&orders(), 1).await.map(|mut deliveries| deliveries.pop())
            {
                return delivery;
            }
        }
    };
    let delivery =
        tokio::time::timeout(Duration::from_secs(30), received).await.expect("it goes on by itself");
    assert_eq!(delivery.envelope, "after");
    settle(&broker, delivery, Verdict::Acknowledge).await;
}
