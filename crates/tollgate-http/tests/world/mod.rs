//! A shop and a bank, each a process with a store and a broker of its own, between them exactly-once HTTP: what every test of the
//! exchange is played in. Each of them may die at any step, and another one takes its place.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod life;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate::proto::{BrokerWrapper, EndpointName, StoreAlias, codec};
use tollgate::{Blobs, Broker, Edge, Endpoint, Gate, GateBuilder, HandlerError, Message, Store, Tx};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{MemoryBlobs, MemoryStore};
use tollgate_http::client::{Call, HttpCall, HttpCalls, Transport as _};
use tollgate_http::server::{Caller, ExactlyOnce, Request};
use tollgate_http::{RequestId, Response};

use self::life::{Fault, Life, MortalBlobs, MortalBroker, MortalStore};
use self::wire::{MortalTransport, Wire};

/// What an order costs.
pub const CENTS: i64 = 2_500;

/// How large the request is, and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Both are kept in items.
    Small,
    /// Both are blobs here, where little is kept inline: the request goes into one while it arrives.
    Large,
}

impl Size {
    /// Bytes of either.
    const fn padding(self) -> usize {
        match self {
            Self::Small => 20,
            Self::Large => 600,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlaceOrder {
    pub account: String,
    pub padding: usize,
}

impl Message for PlaceOrder {
    const TYPE: &'static str = "shop.place-order";
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paid;

impl Message for Paid {
    const TYPE: &'static str = "shop.paid";
}

/// Counted wherever it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count;

impl Message for Count {
    const TYPE: &'static str = "test.count";
}

async fn add(tx: &Tx, item: &str, amount: i64) -> Result<(), HandlerError> {
    let sum: i64 = tx.get(item).await?.unwrap_or_default();
    tx.put(item, &(sum + amount))?;
    Ok(())
}

async fn count(tx: Tx, _: Count) -> Result<(), HandlerError> {
    add(&tx, "count", 1).await
}

async fn place_order(tx: Tx, order: PlaceOrder) -> Result<(), HandlerError> {
    add(&tx, "orders", 1).await?;
    let body = format!("{}{}", order.account, " ".repeat(order.padding));
    tx.call("http://bank/payments", Call::new("text/plain", body), &Paid).await?;
    Ok(())
}

async fn paid(tx: Tx, _: Paid) -> Result<(), HandlerError> {
    let response = tx.response()?.ok_or_else(|| HandlerError::permanent("it carries no response"))?;
    let item = match (response.status().as_u16(), &response.body()[..]) {
        (200, body) if body.starts_with(b"receipt 1 ") => "receipts".to_owned(),
        (status, body) => format!("answers {status} {}", String::from_utf8_lossy(body)),
    };
    add(&tx, &item, 1).await?;
    tx.send("shipping", "warehouse", &Count)?;
    Ok(())
}

async fn pay(tx: Tx, request: Request) -> Result<Response, HandlerError> {
    let padding = request.body.read().await?.len() - 1;
    add(&tx, "balance", -CENTS).await?;
    add(&tx, "payments", 1).await?;
    tx.send("ledger", "book", &Count)?;
    let number: i64 = tx.get("payments").await?.unwrap_or_default();
    Ok(Response::text(format!("receipt {number} {}", ".".repeat(padding))))
}

/// How the order comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A person's request at the shop's edge, repeated until it is answered, and twice more.
    Person,
    /// A message of another system, sent three times.
    Machine,
    /// No shop at all: a person who makes the four requests by hand, each until it is answered, and twice more.
    ByHand,
    /// As by hand, at two processes of the bank in turns; while another caller uses the same id at another server of the bank, for the
    /// same account. In the end both begin again, and nothing must come of it.
    Meddled,
}

/// Where the fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Shop,
    Bank,
}

pub struct House {
    store: Arc<dyn Store>,
    broker: Arc<InProcessBroker>,
    blobs: Arc<dyn Blobs>,
}

impl House {
    fn new(alias: &str) -> Self {
        Self {
            store: Arc::new(MemoryStore::new(StoreAlias::new(alias).unwrap())),
            broker: Arc::new(InProcessBroker::builder().visibility_timeout(Duration::from_secs(10)).build()),
            blobs: Arc::new(MemoryBlobs::new()),
        }
    }

    fn gate(&self, life: &Arc<Life>) -> GateBuilder {
        let (store, broker) = (Arc::clone(&self.store), Arc::clone(&self.broker) as Arc<dyn Broker>);
        Gate::builder()
            .store(Arc::new(MortalStore { inner: store, life: Arc::clone(life) }))
            .broker(Arc::new(MortalBroker { inner: broker, life: Arc::clone(life) }))
            .blobs(Arc::new(MortalBlobs { inner: Arc::clone(&self.blobs), life: Arc::clone(life) }))
            .attempt_max(Duration::from_secs(15))
            .wake_up_after(Duration::from_secs(5))
            .flush_after(Duration::from_secs(1))
            .sweep_every(Some(Duration::from_secs(10)))
    }

    async fn is_clean(&self) -> bool {
        let page = self.store.scan(None, usize::MAX).await.unwrap();
        page.partitions.iter().all(|scanned| {
            let control = scanned.control.as_ref().map(|bytes| codec::decode_control(bytes).unwrap());
            scanned.entries.is_empty()
                && control
                    .is_none_or(|control| control.pending.is_empty() && control.registrations.is_empty())
        })
    }

    /// The items that hold requests and responses, in all partitions.
    pub async fn kept(&self) -> Vec<String> {
        let page = self.store.scan(None, usize::MAX).await.unwrap();
        let items = page.partitions.into_iter().flat_map(|scanned| scanned.items);
        let names = items.map(|item| item.as_str().to_owned());
        names.filter(|name| name.starts_with("request/") || name.starts_with("http-response/")).collect()
    }

    fn is_quiet(&self, endpoints: &[&str]) -> bool {
        endpoints.iter().all(|endpoint| {
            let depth = self.broker.depth(&EndpointName::new(*endpoint).unwrap());
            depth.ready + depth.delayed + depth.in_flight == 0
        })
    }
}

/// The whole scene.
pub struct World {
    shop: House,
    pub bank: House,
    pub wire: Wire,
}

/// What came of a run.
pub struct Run {
    /// Requests that were stored by a copy which came when all was over and the server had forgotten that: only the operator can
    /// know that nobody will come for them. None of them is ever executed.
    pub strays: usize,
    /// The calls of the shop's first life, and those of the bank's.
    pub shop: Arc<Life>,
    pub bank: Arc<Life>,
}

const SHOP: [&str; 3] = ["front", "orders", "shipping"];
const BANK: [&str; 2] = ["payments", "ledger"];

impl World {
    pub fn new() -> Self {
        Self { shop: House::new("shop"), bank: House::new("bank"), wire: Wire::default() }
    }

    async fn open_shop(&self, life: &Arc<Life>) -> Option<Gate> {
        let transport = MortalTransport { wire: self.wire.clone(), life: Arc::clone(life) };
        let opening = self
            .shop
            .gate(life)
            .side_effect(Arc::new(HttpCalls::new(transport)))
            .endpoint(Endpoint::new("front"))
            .endpoint(Endpoint::new("orders").on(place_order).on(paid))
            .endpoint(Endpoint::new("shipping").on(count))
            .open();
        tokio::time::timeout(Duration::from_secs(60), opening).await.ok().map(Result::unwrap)
    }

    pub async fn open_bank(&self, life: &Arc<Life>) -> Option<Gate> {
        let opening = self
            .bank
            .gate(life)
            .endpoint(Endpoint::new("payments"))
            .endpoint(Endpoint::new("ledger").on(count))
            .open();
        let gate = tokio::time::timeout(Duration::from_secs(60), opening).await.ok()?.unwrap();
        self.wire.connect(0, server(gate.edge("payments").unwrap()).router().unwrap());
        Some(gate)
    }

    /// A process of the bank with both servers, which remember deletions.
    async fn open_replica(&self, number: usize, life: &Arc<Life>) -> Option<Gate> {
        let opening = self
            .bank
            .gate(life)
            .endpoint(Endpoint::new("payments"))
            .endpoint(Endpoint::new("ledger").on(count))
            .open();
        let gate = tokio::time::timeout(Duration::from_secs(60), opening).await.ok()?.unwrap();
        let edge = || gate.edge("payments").unwrap();
        let day = Duration::from_secs(24 * 3600);
        let payments = server(edge()).remember_deletions(day).router().unwrap();
        let refunds = refunds(edge()).remember_deletions(day).router().unwrap();
        self.wire.connect(number, payments.merge(refunds));
        Some(gate)
    }

    async fn open_first(&self, way: Way, life: &Arc<Life>) -> Option<Gate> {
        if way == Way::Meddled { self.open_replica(0, life).await } else { self.open_bank(life).await }
    }

    /// Plays the scene with faults, at most one in each process, and checks everything that can be checked from outside.
    pub async fn play(way: Way, size: Size, faults: &[(At, usize, Fault)]) -> Run {
        let world = Self::new();
        let plan = |at: At| {
            faults.iter().find(|(place, ..)| *place == at).map(|(_, number, fault)| (*number, *fault))
        };
        let (first_shop, first_bank) = (Life::new(plan(At::Shop)), Life::new(plan(At::Bank)));
        let (mut shop_life, mut bank_life) = (Arc::clone(&first_shop), Arc::clone(&first_bank));
        let mut bank = world.open_first(way, &bank_life).await;
        let second = if way == Way::Meddled { world.open_replica(1, &Life::new(None)).await } else { None };
        let mut shop = world.open_shop(&shop_life).await;
        // Those that stalled: they go on in the background, next to whoever has taken their place.
        let mut zombies = Vec::new();
        let mut input = Input::new(way, size);
        let mut done = false;
        for _ in 0..2_000 {
            if bank_life.is_replaced() || bank.is_none() {
                zombies.extend(bank.take().map(|bank| (Arc::clone(&bank_life), bank)));
                bank_life = Life::new(None);
                bank = world.open_first(way, &bank_life).await;
            }
            if shop_life.is_replaced() || shop.is_none() {
                zombies.extend(shop.take().map(|shop| (Arc::clone(&shop_life), shop)));
                shop_life = Life::new(None);
                shop = world.open_shop(&shop_life).await;
            }
            input.go_on(&world, shop.as_ref(), &shop_life).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let is_somebody_stalled = zombies.iter().any(|(life, _)| life.is_up_to_something());
            if input.is_over() && !is_somebody_stalled && world.is_over().await {
                // Once more, when late copies are in: nothing may come back.
                if done {
                    break;
                }
                world.wire.quiet().await;
                done = true;
            } else {
                done = false;
            }
        }
        let what = || {
            format!(
                "{way:?} {size:?} {faults:?}\nshop: {:?}\nbank: {:?}",
                first_shop.steps(),
                first_bank.steps()
            )
        };
        assert!(done, "it never came to an end: {}", what());
        let (shop, bank) = (shop.unwrap(), bank.unwrap());
        first_shop.spare();
        first_bank.spare();
        let is_late =
            |fault: &Fault| matches!(fault, Fault::CopyLate | Fault::StallBefore | Fault::StallAfter);
        // Where deletions are remembered there are none.
        let strays = if way != Way::Meddled
            && first_bank.is_replaced()
            && faults.iter().any(|(_, _, fault)| is_late(fault))
        {
            world.remove_strays(&bank).await
        } else {
            0
        };
        world.audit(way, &shop.edge("front").unwrap(), &bank.edge("payments").unwrap(), &what).await;
        shop.close().await;
        bank.close().await;
        if let Some(second) = second {
            second.close().await;
        }
        for (_, zombie) in zombies.into_iter().filter(|(life, _)| !life.is_dead()) {
            zombie.close().await;
        }
        Run { strays, shop: first_shop, bank: first_bank }
    }

    async fn remove_strays(&self, bank: &Gate) -> usize {
        let edge = bank.edge("payments").unwrap();
        let kept = self.bank.kept().await;
        for item in &kept {
            if let Some(id) = item.strip_prefix("request/") {
                server(edge.clone()).remove(id.parse().unwrap()).await.unwrap();
            }
        }
        kept.len()
    }

    async fn is_over(&self) -> bool {
        self.shop.is_quiet(&SHOP)
            && self.bank.is_quiet(&BANK)
            && self.shop.is_clean().await
            && self.bank.is_clean().await
    }

    async fn audit(&self, way: Way, shop: &Edge, bank: &Edge, what: &impl Fn() -> String) {
        async fn number(edge: &Edge, partition: &str, item: &str) -> i64 {
            let bytes = edge.read(partition, item).await.unwrap();
            bytes.map_or(0, |bytes| serde_json::from_slice(&bytes).unwrap())
        }
        assert_eq!(number(bank, "account/A", "balance").await, -CENTS, "the balance: {}", what());
        assert_eq!(number(bank, "account/A", "payments").await, 1, "payments: {}", what());
        assert_eq!(number(bank, "book", "count").await, 1, "the ledger: {}", what());
        if way == Way::Meddled {
            assert_eq!(number(bank, "account/A", "refunds").await, 1, "refunds: {}", what());
        }
        if ![Way::ByHand, Way::Meddled].contains(&way) {
            assert_eq!(number(shop, "order/1", "orders").await, 1, "orders: {}", what());
            assert_eq!(number(shop, "order/1", "receipts").await, 1, "receipts: {}", what());
            assert_eq!(number(shop, "warehouse", "count").await, 1, "shipments: {}", what());
        }
        let kept = self.bank.kept().await;
        assert!(kept.is_empty(), "requests and responses are left: {kept:?} {}", what());
        for (house, endpoints) in [(&self.shop, &SHOP[..]), (&self.bank, &BANK[..])] {
            assert_eq!(house.blobs.list("").await.unwrap(), [], "blobs are left: {}", what());
            for endpoint in endpoints {
                let dead = house.broker.dead_letters(&EndpointName::new(*endpoint).unwrap());
                assert_eq!(
                    dead.len(),
                    0,
                    "{:?} {}",
                    dead.iter().map(|d| &d.reason).collect::<Vec<_>>(),
                    what()
                );
            }
        }
    }
}

/// A second server of the bank, which works for another caller on the same accounts.
pub fn refunds(edge: Edge) -> ExactlyOnce {
    let refund = |tx: Tx, _: Request| async move {
        add(&tx, "refunds", 1).await?;
        Ok(Response::text("refund 1 "))
    };
    ExactlyOnce::new(edge, "/refunds", |_| async { Ok("account/A".to_owned()) }, refund)
        .authenticate(|_| std::future::ready(Ok(Caller::new("eve"))))
        .inline_bytes_max(500)
}

/// The bank's server.
pub fn server(edge: Edge) -> ExactlyOnce {
    let account = |request: Request| async move {
        let body = request.body.read().await?;
        let text = std::str::from_utf8(&body).map_err(HandlerError::permanent)?;
        Ok(format!("account/{}", text.trim()))
    };
    ExactlyOnce::new(edge, "/payments", account, pay).inline_bytes_max(500)
}

/// Whoever wants something, and does not give up.
struct Input {
    way: Way,
    padding: usize,
    answers: usize,
    seeded: bool,
    id: RequestId,
    step: usize,
}

impl Input {
    fn new(way: Way, size: Size) -> Self {
        Self { way, padding: size.padding(), answers: 0, seeded: false, id: RequestId::random(), step: 0 }
    }

    fn is_over(&self) -> bool {
        match self.way {
            Way::Person | Way::Machine => self.answers >= 3,
            Way::ByHand => self.step >= BY_HAND.len(),
            Way::Meddled => self.step >= MEDDLED.len(),
        }
    }

    async fn go_on(&mut self, world: &World, shop: Option<&Gate>, shop_life: &Arc<Life>) {
        let (patience, padding) = (Duration::from_secs(3), self.padding);
        match (self.way, shop) {
            _ if self.is_over() => {}
            (Way::Person, Some(shop)) => {
                let edge = shop.edge("front").unwrap();
                let request =
                    edge.execute("counter", "order-1", Duration::from_secs(3600), move |tx: Tx| async move {
                        tx.send("orders", "order/1", &PlaceOrder { account: "A".into(), padding })?;
                        Ok(())
                    });
                self.answers +=
                    usize::from(matches!(tokio::time::timeout(patience, request).await, Ok(Ok(()))));
            }
            (Way::Machine, Some(_)) => {
                // Another process of the same shop, which is not mortal, has the message in its outbox.
                if !self.seeded {
                    self.seed(world).await;
                }
                self.answers += 1;
            }
            (Way::ByHand, _) => self.by_hand(world, shop_life, &BY_HAND, 3).await,
            (Way::Meddled, _) => self.by_hand(world, shop_life, &MEDDLED, 2).await,
            _ => {}
        }
    }

    async fn seed(&mut self, world: &World) {
        struct Thrice(Arc<InProcessBroker>);
        impl BrokerWrapper for Thrice {
            fn inner(&self) -> &dyn Broker {
                &*self.0
            }
            fn send(
                &self,
                messages: Vec<tollgate::proto::OutgoingMessage>,
            ) -> tollgate::proto::BoxFuture<'_, Vec<Result<(), tollgate::proto::BrokerError>>> {
                Box::pin(async move {
                    self.0.send(messages.clone()).await;
                    self.0.send(messages.clone()).await;
                    self.0.send(messages).await
                })
            }
        }
        let gate = Gate::builder()
            .store(Arc::clone(&world.shop.store))
            .broker(Arc::new(Thrice(Arc::clone(&world.shop.broker))))
            .endpoint(Endpoint::new("seed"))
            .open()
            .await
            .unwrap();
        let (edge, padding) = (gate.edge("seed").unwrap(), self.padding);
        edge.advance("seed", "1", move |tx: Tx| async move {
            tx.send("orders", "order/1", &PlaceOrder { account: "A".into(), padding })?;
            Ok(())
        })
        .await
        .unwrap();
        gate.close().await;
        self.seeded = true;
    }

    /// The next request of a list, until it is answered so many times.
    async fn by_hand(&mut self, world: &World, life: &Arc<Life>, script: &[Scripted], times: usize) {
        let transport = MortalTransport { wire: world.wire.clone(), life: Arc::clone(life) };
        let (method, base, expected) = script[self.step];
        let body = if method == "PUT" { format!("A{}", " ".repeat(self.padding)) } else { String::new() };
        let mut request = http::Request::new(bytes::Bytes::from(body));
        *request.uri_mut() = format!("http://bank/{base}/{}", self.id).parse().unwrap();
        *request.method_mut() = method.parse().unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), transport.send(request)).await;
        let Ok(Ok(response)) = answer else { return };
        let status = response.status().as_u16();
        if status >= 500 {
            return;
        }
        let body = String::from_utf8_lossy(response.body());
        let is_expected = match expected {
            Expected::Stored => [200, 201].contains(&status),
            Expected::Response(text) => status == 200 && body.starts_with(text),
            Expected::Removed => [204, 404, 410].contains(&status),
            Expected::Deleted => status == 410,
        };
        assert!(is_expected, "{method} {base} {expected:?}: {status} {body}");
        self.answers += 1;
        if self.answers == times {
            (self.answers, self.step) = (0, self.step + 1);
        }
    }
}

/// A request of a script: method, base, and the answer.
type Scripted = (&'static str, &'static str, Expected);

#[derive(Clone, Copy, Debug)]
enum Expected {
    Stored,
    Response(&'static str),
    Removed,
    Deleted,
}

const RECEIPT: Expected = Expected::Response("receipt 1 ");

const BY_HAND: [Scripted; 4] = [
    ("PUT", "payments", Expected::Stored),
    ("POST", "payments", RECEIPT),
    ("GET", "payments", RECEIPT),
    ("DELETE", "payments", Expected::Removed),
];

const MEDDLED: [Scripted; 12] = [
    ("PUT", "payments", Expected::Stored),
    ("POST", "payments", RECEIPT),
    ("PUT", "refunds", Expected::Stored),
    ("POST", "refunds", Expected::Response("refund 1 ")),
    ("POST", "payments", RECEIPT),
    ("DELETE", "refunds", Expected::Removed),
    ("POST", "payments", RECEIPT),
    ("GET", "payments", RECEIPT),
    ("DELETE", "payments", Expected::Removed),
    ("PUT", "refunds", Expected::Deleted),
    ("PUT", "payments", Expected::Deleted),
    ("POST", "payments", Expected::Deleted),
];
