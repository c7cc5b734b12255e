//! Kafka on librdkafka's mock cluster, which is in this process, and on a server that shares no code with it:
//! the suite of all brokers, and what is special to this one.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tollgate_kafka::{KafkaBroker, KafkaBuilder, TopicsMade};
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{
    Broker, BrokerError, BrokerWrapper, Delivery, EndpointName, OutgoingMessage, PartitionKey, Verdict,
};
use tollgate_testkit::LocalServer;
use tollgate_testkit::broker_conformance::{self, BrokerConfig};
use tollgate_testkit::broker_story::{
    self, acknowledge, message, numbered, orders, send, settle, take, texts,
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/kafka/start-tansu")
}

const CONFIG: BrokerConfig = BrokerConfig {
    visibility_timeout: Duration::from_secs(1),
    capacity: None,
    // What Kafka takes by default, less room for headers.
    envelope_bytes_max: 1_000_000 - 1_000,
};

/// Each has two clients with threads of their own.
const JOINED_TOGETHER_MAX: usize = 5;

/// Neither server is woken by a message: each looks for new ones when it has slept as long as a reader is
/// willing to wait.
const FETCH_WAIT_MS: &str = "20";

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// What is behind an endpoint's name in those of its topics.
const ENDINGS: [&str; 6] = ["", ".retry.1s", ".retry.10s", ".retry.60s", ".retry.600s", ".dead"];

/// The mock cluster does not know the request that provisions.
fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for ending in ENDINGS {
        cluster.create_topic(&format!("orders{ending}"), partitions, 1).unwrap();
    }
    cluster
}

/// It makes topics that a producer asks for.
async fn make_topics(servers: String, endpoint: EndpointName) {
    let asking = move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        for ending in ENDINGS {
            let topic = format!("{endpoint}{ending}");
            producer.client().fetch_metadata(Some(&topic), Duration::from_secs(10)).unwrap();
        }
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
}

fn on_mock(cluster: &Cluster) -> KafkaBuilder {
    KafkaBroker::builder(&cluster.bootstrap_servers()).setting("fetch.wait.max.ms", FETCH_WAIT_MS)
}

fn on_server(server: &LocalServer) -> KafkaBuilder {
    let address = server.address().strip_prefix("tcp://").unwrap();
    KafkaBroker::builder(address)
        .topics_made(TopicsMade::AtFirstUse)
        .partitions(NonZeroU16::new(4).unwrap())
        .replicas(NonZeroU16::MIN)
        .setting("fetch.wait.max.ms", FETCH_WAIT_MS)
}

/// A broker that has joined the group of an endpoint before it sends the first message to it: a group takes
/// seconds to form, and the suite's visibility timeout is one.
struct Joined {
    broker: Arc<KafkaBroker>,
    /// Where topics have to be made first.
    mock: Option<String>,
    /// Tasks join, so that nothing depends on futures that the suite drops or forgets.
    endpoints: Mutex<HashMap<EndpointName, watch::Receiver<bool>>>,
    few: Arc<Semaphore>,
}

impl Joined {
    fn of(broker: KafkaBroker, mock: Option<String>) -> Arc<dyn Broker> {
        let few = Arc::new(Semaphore::new(JOINED_TOGETHER_MAX));
        Arc::new(Self { broker: Arc::new(broker), mock, endpoints: Mutex::default(), few })
    }

    async fn prepare(&self, endpoint: &EndpointName) {
        let mut joined = {
            let mut endpoints = self.endpoints.lock().unwrap();
            endpoints.entry(endpoint.clone()).or_insert_with(|| self.begin_to_join(endpoint.clone())).clone()
        };
        joined.wait_for(|joined| *joined).await.unwrap();
    }

    fn begin_to_join(&self, endpoint: EndpointName) -> watch::Receiver<bool> {
        let (tell, joined) = watch::channel(false);
        let (broker, mock, few) = (Arc::clone(&self.broker), self.mock.clone(), Arc::clone(&self.few));
        tokio::spawn(async move {
            let _permit = few.acquire().await.unwrap();
            if let Some(servers) = mock {
                make_topics(servers, endpoint.clone()).await;
            }
            join(&broker, &endpoint).await;
            tell.send_replace(true);
        });
        joined
    }
}

async fn join(broker: &KafkaBroker, endpoint: &EndpointName) {
    let patience = Instant::now() + Duration::from_secs(60);
    while broker.assigned_partitions(endpoint) == 0 {
        assert!(Instant::now() < patience, "nothing of {endpoint} was assigned");
        let received = tokio::time::timeout(Duration::from_millis(20), broker.receive(endpoint, 1)).await;
        assert!(!matches!(&received, Ok(Ok(deliveries)) if !deliveries.is_empty()), "nothing was sent yet");
    }
}

impl BrokerWrapper for Joined {
    fn inner(&self) -> &dyn Broker {
        &*self.broker
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            join_all(messages.iter().map(|message| self.prepare(&message.endpoint))).await;
            self.broker.send(messages).await
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.prepare(&endpoint).await;
            self.broker.receive(&endpoint, max).await
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_promises_of_a_broker_on_the_mock_cluster() {
    let cluster = cluster(4);
    let make = async || {
        let broker = on_mock(&cluster).visibility_timeout(CONFIG.visibility_timeout).open().unwrap();
        Joined::of(broker, Some(cluster.bootstrap_servers()))
    };
    broker_conformance::run(make, &CONFIG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_promises_of_a_broker_on_a_server() {
    let Some(server) = LocalServer::start_in_memory(script()) else { return };
    let make = async || {
        let broker = on_server(&server).visibility_timeout(CONFIG.visibility_timeout).open().unwrap();
        Joined::of(broker, None)
    };
    broker_conformance::run(make, &CONFIG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_consumer_held_comes_again_to_another() {
    let cluster = cluster(4);
    let dead = on_mock(&cluster).open().unwrap();
    send(&dead, numbered(10)).await;
    let held = take(&dead, 10).await;
    drop(dead);
    let other = on_mock(&cluster).open().unwrap();
    let again = take(&other, 10).await;
    assert_eq!(texts(&again), texts(&held));
    acknowledge(&other, &again).await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_message_and_all_behind_it_come_again_and_nothing_before_it() {
    let cluster = cluster(1);
    let first = on_mock(&cluster).drain_within(Duration::ZERO).open().unwrap();
    send(&first, numbered(5)).await;
    let deliveries = take(&first, 5).await;
    let stuck = deliveries.iter().position(|delivery| delivery.envelope == "2").unwrap();
    let mut finished = deliveries;
    finished.remove(stuck);
    acknowledge(&first, &finished).await;
    first.close().await;
    let second = on_mock(&cluster).open().unwrap();
    assert_eq!(second.depth(&orders()).await.unwrap().left, 3, "two are finished below the one that is not");
    let again = take(&second, 3).await;
    assert_eq!(texts(&again), ["2", "3", "4"].map(str::to_owned).into());
    acknowledge(&second, &again).await;
    second.close().await;
    let third = on_mock(&cluster).open().unwrap();
    join(&third, &orders()).await;
    let nothing = tokio::time::timeout(Duration::from_secs(2), third.receive(&orders(), 1)).await;
    assert!(nothing.is_err(), "everything was finished and committed: {nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_to_a_second_process_and_late_settlements_of_the_first_do_no_harm() {
    let cluster = cluster(4);
    let first = on_mock(&cluster).open().unwrap();
    let to = |n: usize| {
        let partition = PartitionKey::new(format!("customer-{n}")).unwrap();
        OutgoingMessage { partition, ..message(n.to_string()) }
    };
    send(&first, (0..200).map(to).collect()).await;
    let held = take(&first, 200).await;
    let all = first.assigned_partitions(&orders());
    let second = on_mock(&cluster).open().unwrap();
    join_or_receive(&second).await;
    while first.assigned_partitions(&orders()) + second.assigned_partitions(&orders()) != all {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let moved = take_all(&second).await;
    assert!(!moved.is_empty() && moved.len() < 200, "{} of 200 moved", moved.len());
    for answer in settle(&first, &held, Verdict::Acknowledge).await {
        answer.unwrap();
    }
    // What the first one has settled of partitions that it had no longer did not settle it for the second.
    acknowledge(&second, &moved).await;
    // From now on each partition's messages are with one process.
    send(
        &first,
        (0..40)
            .map(|n| OutgoingMessage { partition: to(n % 8).partition, ..message(format!("{} {n}", n % 8)) })
            .collect(),
    )
    .await;
    let (mut at_first, mut at_second) = (HashSet::new(), HashSet::new());
    let mut seen = 0;
    while seen < 40 {
        for (broker, at) in [(&first, &mut at_first), (&second, &mut at_second)] {
            let deliveries = take_all(broker).await;
            seen += deliveries.len();
            at.extend(texts(&deliveries).iter().map(|text| text.split(' ').next().unwrap().to_owned()));
            acknowledge(broker, &deliveries).await;
        }
    }
    assert!(at_first.is_disjoint(&at_second), "{at_first:?} {at_second:?}");
    first.close().await;
    second.close().await;
}

/// Joins a group in which there may be messages: those that come are left to their visibility timeout.
async fn join_or_receive(broker: &KafkaBroker) {
    while broker.assigned_partitions(&orders()) == 0 {
        let mut receiving = broker.receive(&orders(), 1);
        let _ = tokio::time::timeout(Duration::from_millis(1), &mut receiving).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What comes until nothing has come for a second.
async fn take_all(broker: &KafkaBroker) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while let Ok(deliveries) =
        tokio::time::timeout(Duration::from_secs(1), broker.receive(&orders(), 100)).await
    {
        taken.extend(deliveries.unwrap());
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_retry_goes_through_a_topic_and_keeps_its_count_and_its_trace_up_to_the_dead_letter() {
    let cluster = cluster(4);
    let delays =
        |builder: KafkaBuilder| builder.delay_classes(Duration::from_millis(100), [Duration::from_secs(1)]);
    let broker = delays(on_mock(&cluster)).unwrap().open().unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let poison = OutgoingMessage { headers: vec![("traceparent".into(), trace.into())], ..message("poison") };
    let id = poison.message_id;
    send(&broker, vec![poison]).await;
    let first = take(&broker, 1).await;
    let (start, after) = (Instant::now(), Duration::from_secs(2));
    settle(&broker, &first, Verdict::Retry { after }).await.remove(0).unwrap();
    let second = take(&broker, 1).await;
    assert!(start.elapsed() >= after, "it came after {:?}, in more rounds than one", start.elapsed());
    assert_eq!(second[0].delivery_count, 2);
    settle(&broker, &second, Verdict::DeadLetter { reason: "it is poison".into() }).await.remove(0).unwrap();
    broker.close().await;

    let (headers, payload) = read_one(&cluster.bootstrap_servers(), "orders.dead").await;
    assert_eq!(payload, "poison");
    assert_eq!(headers["tollgate-dead-letter-reason"], "it is poison");
    assert_eq!(headers["tollgate-message-id"], id.to_string());
    assert_eq!(headers["tollgate-deliveries"], "2");
    assert_eq!(headers["traceparent"], trace);
    let other = delays(on_mock(&cluster)).unwrap().open().unwrap();
    join(&other, &orders()).await;
    let nothing = tokio::time::timeout(Duration::from_secs(2), other.receive(&orders(), 1)).await;
    assert!(nothing.is_err(), "each copy was finished: {nothing:?}");
}

async fn read_one(servers: &str, topic: &'static str) -> (BTreeMap<String, String>, String) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "reader").set("auto.offset.reset", "earliest");
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        let message = loop {
            assert!(Instant::now() < patience, "there is one");
            // News of the group come this way as well.
            if let Some(Ok(message)) = consumer.poll(Duration::from_secs(1)) {
                break message;
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().unwrap().iter();
        let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect();
        (headers, text(message.payload().unwrap()))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_window_is_full_is_paused_and_goes_on_when_there_is_room() {
    let cluster = cluster(1);
    let broker = on_mock(&cluster).window(NonZeroUsize::new(8).unwrap()).open().unwrap();
    send(&broker, numbered(100)).await;
    let mut seen = HashSet::new();
    let mut held = take(&broker, 8).await;
    let nothing = tokio::time::timeout(Duration::from_secs(1), broker.receive(&orders(), 100)).await;
    assert!(nothing.is_err(), "8 are unsettled, and no more may be: {nothing:?}");
    while seen.len() < 100 {
        assert!(held.len() <= 8, "{} were held", held.len());
        seen.extend(texts(&held));
        acknowledge(&broker, &held).await;
        if seen.len() < 100 {
            held = broker_story::receive(&broker, 100).await;
        }
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_more_messages_than_are_read_ahead_come_all_and_none_twice() {
    // More than waits for a receiver (256), and more than a partition's window (1,024).
    const MESSAGES: usize = 1_500;
    let cluster = cluster(1);
    let broker = on_mock(&cluster).open().unwrap();
    send(&broker, numbered(MESSAGES)).await;
    let mut seen = HashSet::new();
    while seen.len() < MESSAGES {
        let deliveries = broker_story::receive(&broker, 100).await;
        let count = deliveries.len();
        let before = seen.len();
        seen.extend(texts(&deliveries));
        assert_eq!(seen.len(), before + count, "one came twice");
        acknowledge(&broker, &deliveries).await;
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_gone_for_a_while_are_waited_for() {
    let cluster = cluster(4);
    let broker = Arc::new(on_mock(&cluster).open().unwrap());
    send(&*broker, vec![message("before")]).await;
    let before = take(&*broker, 1).await;
    cluster.broker_down(1).unwrap();
    let sending = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.send(vec![message("meanwhile")]).await.remove(0) }
    });
    let error = story_error(&broker).await;
    assert!(error.is_retryable(), "{error}");
    assert!(broker.health(&orders()).is_err(), "it is gone");
    cluster.broker_up(1).unwrap();
    sending.await.unwrap().unwrap();
    let meanwhile = loop {
        match broker.receive(&orders(), 1).await {
            Ok(deliveries) => break deliveries,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_eq!(meanwhile[0].envelope, "meanwhile");
    broker.health(&orders()).unwrap();
    acknowledge(&*broker, &before).await;
    acknowledge(&*broker, &meanwhile).await;
    broker.close().await;
}

async fn story_error(broker: &KafkaBroker) -> BrokerError {
    loop {
        if let Err(error) = broker.receive(&orders(), 1).await {
            return error;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_tells_which_topic_is_missing() {
    let Some(server) = LocalServer::start_in_memory(script()) else { return };
    let broker = on_server(&server).topics_made(TopicsMade::Before).open().unwrap();
    let missing = broker.verify(&orders()).await.unwrap_err();
    assert!(matches!(missing, BrokerError::Misconfigured { .. }), "{missing}");
    assert!(missing.to_string().contains("topic orders does not exist"), "{missing}");
    let sent = broker.send(vec![message("to nowhere")]).await.remove(0).unwrap_err();
    assert!(sent.to_string().contains("topic orders does not exist"), "{sent}");
    let missing = broker.verify(&orders()).await.unwrap_err();
    assert!(
        missing.to_string().contains("does not exist"),
        "neither looking nor sending has made it: {missing}"
    );
    broker.provision(&orders()).await.unwrap();
    broker.provision(&orders()).await.unwrap();
    broker.verify(&orders()).await.unwrap();
    send(&broker, vec![message("to somewhere")]).await;
}
