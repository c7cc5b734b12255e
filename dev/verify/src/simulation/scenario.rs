//! A random system: endpoints, partitions, messages that cause messages, blobs, messages to outsiders, handlers that fail, clients
//! that wait and clients that go away. What it must come to is known beforehand, message by message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tollgate::{Deduplicate, Endpoint, HandlerError, Message, Tx};
use tollgate_proto::{BlobStream, Content, MessageId};

use super::Simulation;
use super::books::Books;
use super::client::Client;
use super::run::{HANDLER_TIME_MAX, dawdle, drop_sometimes, hang_sometimes, unlucky};

/// Most messages that enter a system from outside.
const ROOTS_MAX: usize = 8;
/// Most messages that one message causes.
const CHILDREN_MAX: usize = 2;
/// How many messages a chain has at most.
const DEPTH_MAX: usize = 4;
/// How often a handler fails that may succeed later.
const HANDLER_FAILURES: f64 = 0.08;
/// How often a handler waits for its blob for a short time only.
const DROPS: f64 = 0.2;
/// How short that is: an upload takes as long.
const DROP_WITHIN: Duration = Duration::from_millis(60);
/// How often the handler of a poison message refuses it for ever; it is redriven until it does not.
const REFUSALS: f64 = 0.5;
/// How long ids are remembered: for longer than any run.
const RETENTION: Duration = Duration::from_secs(1_000_000);
/// Counts everything that was applied in a partition.
const TOTAL: &str = "total";
/// Bytes of what makes a body heavy.
const BALLAST_BYTES: usize = 2_000;
/// How many pieces a blob has, besides the one that tells of its node.
const PIECES: usize = 3;
/// How long a handler takes for each of them, at most.
const PIECE_TAKES_MAX: Duration = Duration::from_millis(20);
const OUTSIDE: &str = "outside";

/// A message of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    node: usize,
    /// What makes some bodies too large for an item.
    ballast: String,
}

impl Message for Step {
    const TYPE: &'static str = "simulation.step";
}

/// A message from a producer that knows no tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LegacyStep {
    node: usize,
}

impl Message for LegacyStep {
    const TYPE: &'static str = "simulation.legacy-step";
}

/// One message: where it is handled, and what its handler does.
#[derive(Clone, Debug)]
struct Node {
    endpoint: usize,
    partition: usize,
    children: Vec<usize>,
    effect: Effect,
    temper: Temper,
    weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    Blob,
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    Good,
    Poisonous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Light,
    /// Its body becomes a blob.
    Heavy,
}

/// How a message gets into the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// A request, made until it is answered.
    Patient,
    /// A request that is made once.
    Impatient,
    /// A message that is known by its id.
    Legacy,
}

struct Plan {
    endpoints: usize,
    nodes: Vec<Node>,
    roots: Vec<(usize, Entry)>,
}

/// A blob that comes piece by piece, with a pause before each and before its end.
fn slowly(content: String) -> BlobStream {
    let pieces = stream::unfold((0, content), |(number, content)| async move {
        dawdle(PIECE_TAKES_MAX).await;
        let piece = match number {
            0 => Bytes::from(content.clone()),
            1..=PIECES => Bytes::from_static(b"."),
            _ => return None,
        };
        Some((Ok(piece), (number + 1, content)))
    });
    Box::pin(pieces)
}

/// The system of a seed, with its clients and its oracle.
pub fn random_scenario(seed: u64) -> Simulation {
    let plan = Arc::new(Plan::draw(seed));
    let (for_endpoints, for_client, for_oracle) = (Arc::clone(&plan), Arc::clone(&plan), plan);
    let mut simulation = Simulation::new(move || Plan::open_endpoints(&for_endpoints))
        .oracle(move |books| {
            let plan = Arc::clone(&for_oracle);
            async move { plan.check(&books).await }
        })
        .rerun_by(|seed| format!("tollgate-verify simulate --seed {seed}"));
    for place in 0..for_client.roots.len() {
        let plan = Arc::clone(&for_client);
        simulation = simulation.client(move |client| {
            let plan = Arc::clone(&plan);
            async move { Plan::enter(&plan, place, &client).await }
        });
    }
    simulation
}

impl Plan {
    fn draw(seed: u64) -> Self {
        // Another stream than that of the run itself.
        let mut random = fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let endpoints = random.usize(1..=3);
        let partitions = random.usize(1..=4);
        let mut plan = Self { endpoints, nodes: Vec::new(), roots: Vec::new() };
        for _ in 0..random.usize(1..=ROOTS_MAX) {
            let entry = match random.u8(0..10) {
                0..=1 => Entry::Impatient,
                2..=4 => Entry::Legacy,
                _ => Entry::Patient,
            };
            let root = plan.grow(&mut random, partitions, 0);
            plan.roots.push((root, entry));
        }
        plan
    }

    fn grow(&mut self, random: &mut fastrand::Rng, partitions: usize, depth: usize) -> usize {
        let effect = match random.u8(0..10) {
            0..=1 => Effect::Blob,
            2 => Effect::External,
            _ => Effect::None,
        };
        let node = Node {
            endpoint: random.usize(..self.endpoints),
            partition: random.usize(..partitions),
            children: Vec::new(),
            effect,
            // Requests that are refused are not redriven by anybody.
            temper: if depth > 0 && random.u8(0..12) == 0 { Temper::Poisonous } else { Temper::Good },
            weight: if random.u8(0..6) == 0 { Weight::Heavy } else { Weight::Light },
        };
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        if depth < DEPTH_MAX {
            for _ in 0..random.usize(0..=CHILDREN_MAX) {
                let child = self.grow(random, partitions, depth + 1);
                self.nodes[number].children.push(child);
            }
        }
        number
    }

    fn endpoint(&self, node: usize) -> String {
        format!("endpoint-{}", self.nodes[node].endpoint)
    }

    fn partition(&self, node: usize) -> String {
        format!("partition-{}", self.nodes[node].partition)
    }

    fn step(&self, node: usize) -> Step {
        let ballast = match self.nodes[node].weight {
            Weight::Light => String::new(),
            Weight::Heavy => "x".repeat(BALLAST_BYTES),
        };
        Step { node, ballast }
    }

    fn open_endpoints(plan: &Arc<Self>) -> Vec<Endpoint> {
        let open = |number: usize| {
            let (tokens, legacy) = (Arc::clone(plan), Arc::clone(plan));
            Endpoint::new(format!("endpoint-{number}"))
                .preload(TOTAL)
                .concurrency(6)
                .handler_time_max(HANDLER_TIME_MAX)
                .on(move |tx: Tx, step: Step| {
                    let plan = Arc::clone(&tokens);
                    async move {
                        if step != plan.step(step.node) {
                            // It is never done, so the run never comes to rest.
                            return Err(HandlerError::permanent("the body came back altered"));
                        }
                        plan.handle(&tx, step.node).await
                    }
                })
                .on_tokenless(
                    Deduplicate::ByIdentity { retention: RETENTION },
                    move |tx: Tx, LegacyStep { node }| {
                        let plan = Arc::clone(&legacy);
                        async move { plan.handle(&tx, node).await }
                    },
                )
        };
        (0..plan.endpoints).map(open).collect()
    }

    /// The handler of every message.
    async fn handle(&self, tx: &Tx, number: usize) -> Result<(), HandlerError> {
        let node = &self.nodes[number];
        let total: u64 = tx.get(TOTAL).await?.unwrap_or(0);
        tx.put(TOTAL, &(total + 1))?;
        let counted = format!("node-{number}");
        let count: u64 = tx.get(&counted).await?.unwrap_or(0);
        tx.put(&counted, &(count + 1))?;
        if unlucky(HANDLER_FAILURES) {
            return Err(HandlerError::retry("bad luck"));
        }
        if node.temper == Temper::Poisonous && unlucky(REFUSALS) {
            return Err(HandlerError::permanent("it is poison"));
        }
        match node.effect {
            Effect::None => {}
            Effect::Blob => {
                let storing = tx.put_blob("blob-", slowly(format!("of node {number}")));
                // Without the blob it goes on as if it were none of its business; the attempt must not commit.
                if let Some(stored) = drop_sometimes(DROPS, DROP_WITHIN, storing).await {
                    tx.put(&format!("blob-{number}"), stored?.as_str())?;
                }
            }
            Effect::External => {
                tx.send_external(OUTSIDE, "anywhere", &Step { node: number, ballast: String::new() })?;
            }
        }
        for child in &node.children {
            tx.send(&self.endpoint(*child), &self.partition(*child), &self.step(*child))?;
        }
        if unlucky(HANDLER_FAILURES) {
            return Err(HandlerError::retry("bad luck at the end"));
        }
        hang_sometimes().await;
        Ok(())
    }

    async fn enter(plan: &Arc<Self>, place: usize, client: &Client) {
        let (root, entry) = plan.roots[place];
        client.pause(Duration::from_secs(8)).await;
        let (endpoint, partition) = (plan.endpoint(root), plan.partition(root));
        let id = format!("request-{root}");
        let handler = {
            let plan = Arc::clone(plan);
            move |tx: Tx| {
                let plan = Arc::clone(&plan);
                async move {
                    plan.handle(&tx, root).await?;
                    Ok::<_, HandlerError>(root)
                }
            }
        };
        match entry {
            Entry::Patient => {
                let answer = client.execute(&endpoint, &partition, &id, handler).await;
                assert_eq!(answer.ok(), Some(root), "a request is answered with what its handler said");
            }
            Entry::Impatient => {
                let answer = client.try_once(&endpoint, &partition, &id, handler).await;
                assert!(answer.is_ok(), "no handler of a request refuses for ever");
            }
            Entry::Legacy => {
                let message_id = MessageId::from_name("simulation", &root.to_string());
                let sent = client.send(&endpoint, &partition, message_id, &LegacyStep { node: root }).await;
                assert!(sent.is_ok(), "the names are well formed");
            }
        }
    }

    /// The oracle.
    async fn check(&self, books: &Books) -> Result<(), String> {
        let mut expected = vec![0_u64; self.nodes.len()];
        for (root, entry) in &self.roots {
            let applied = self.count(books, *root).await;
            // Who went away may have been served or not; but then all of it was done, or nothing.
            let is_due = *entry != Entry::Impatient || applied > 0;
            self.expect_all(*root, u64::from(is_due), &mut expected);
        }
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        for (number, due) in expected.iter().enumerate() {
            let applied = self.count(books, number).await;
            if applied != *due {
                return Err(format!("message {number} was applied {applied} times, and {due} was due"));
            }
            *totals.entry(self.partition(number)).or_default() += due;
        }
        for (partition, due) in totals {
            let total = books.item::<u64>(&partition, TOTAL).await.unwrap_or(0);
            if total != due {
                return Err(format!("the total of {partition} is {total}, and {due} is due"));
            }
        }
        self.check_outside(books, &expected).await?;
        self.check_blobs(books, &expected).await
    }

    async fn count(&self, books: &Books, number: usize) -> u64 {
        books.item(&self.partition(number), &format!("node-{number}")).await.unwrap_or(0)
    }

    fn expect_all(&self, root: usize, due: u64, expected: &mut [u64]) {
        expected[root] = due;
        for child in &self.nodes[root].children {
            self.expect_all(*child, due, expected);
        }
    }

    /// Outsiders get at least one copy of each message that was sent to them, all copies under one id, and no others.
    async fn check_outside(&self, books: &Books, expected: &[u64]) -> Result<(), String> {
        let mut received: BTreeMap<usize, MessageId> = BTreeMap::new();
        for envelope in books.received_outside(OUTSIDE).await {
            let Content::Body(body) = &envelope.content else {
                return Err("an outsider was sent a token".to_owned());
            };
            let step: Step = serde_json::from_slice(body)
                .map_err(|error| format!("an outsider was sent nonsense: {error}"))?;
            let known = received.insert(step.node, envelope.message_id);
            if known.is_some_and(|known| known != envelope.message_id) {
                return Err(format!("outsiders know the message of {} by two ids", step.node));
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let is_due = node.effect == Effect::External && expected[number] > 0;
            if is_due != received.contains_key(&number) {
                return Err(format!("message {number} and what outsiders got of it do not agree"));
            }
        }
        Ok(())
    }

    /// Every blob that the state names is there, and no other.
    async fn check_blobs(&self, books: &Books, expected: &[u64]) -> Result<(), String> {
        let mut named = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.effect == Effect::Blob && expected[number] > 0 {
                let name: Option<String> =
                    books.item(&self.partition(number), &format!("blob-{number}")).await;
                named.push(name.ok_or_else(|| format!("message {number} has named no blob"))?);
            }
        }
        named.sort_unstable();
        let there: Vec<String> = books.blobs().await.iter().map(ToString::to_string).collect();
        if there != named {
            return Err(format!("the state names the blobs {named:?}, and there are {there:?}"));
        }
        Ok(())
    }
}
