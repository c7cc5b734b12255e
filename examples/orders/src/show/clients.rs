//! The clients: people with browsers. Some repeat themselves, some lose patience, some go away and come back, some use a key
//! twice. All of them keep their key, so each gets one order. They know the shop by its address and nothing else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tollgate_http::IDEMPOTENT_REPLAYED;
use tollgate_http::edge::IDEMPOTENCY_KEY;

use super::{Input, Wanted};
use crate::Failure;
use crate::messages::{Cart, OrderId};

/// Most clients at a time.
const CLIENTS_MAX: usize = 64;

/// How long a patient client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(60);

/// How long somebody stays away, at most.
const AWAY_MS_MAX: u64 = 1_500;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Asks until it is answered.
    Patient,
    /// Sends so many copies at once, and once more when it is answered.
    Repeating { copies: usize },
    /// Gives up after so many milliseconds, a few times.
    Impatient { ms: u64 },
    /// Closes the connection after so many milliseconds, and comes back later.
    Leaving { ms: u64, away_ms: u64 },
    /// Asks for something else under the same key, once it is answered.
    Confused,
}

impl Manner {
    fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..10) {
            0..=3 => Self::Patient,
            4..=5 => Self::Repeating { copies: random.usize(2..=4) },
            6..=7 => Self::Impatient { ms: random.u64(1..=30) },
            8 => Self::Leaving { ms: random.u64(1..=20), away_ms: random.u64(..AWAY_MS_MAX) },
            _ => Self::Confused,
        }
    }
}

/// What the clients have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCounts {
    /// Orders that were answered.
    pub answered: u64,
    /// Requests that were sent, all told.
    pub sent: u64,
    /// Answers that said that they were given before.
    pub replayed: u64,
    /// Requests that got no answer, or none in time.
    pub unanswered: u64,
    /// Requests that were told to come again.
    pub put_off: u64,
    /// Requests under a used key that were refused.
    pub refused: u64,
}

/// All clients.
pub struct Clients {
    client: reqwest::Client,
    url: String,
    input: Arc<Input>,
    pause: Duration,
    counts: Mutex<ClientCounts>,
    complaints: Mutex<Vec<String>>,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// An answer for good.
    Answer { status: StatusCode, body: String },
    /// Nothing, or to come again.
    Nothing,
}

impl Clients {
    /// Clients of the shop at an address, of whom so many a second come.
    pub fn new(shop: SocketAddr, input: Arc<Input>, rate: u64) -> Result<Self, Failure> {
        Ok(Self {
            client: reqwest::Client::builder().no_proxy().build()?,
            url: format!("http://{shop}/orders"),
            input,
            pause: Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX),
            counts: Mutex::default(),
            complaints: Mutex::default(),
        })
    }

    /// How many orders they want.
    pub fn wanted(&self) -> u64 {
        self.input.orders.len() as u64
    }

    /// What they have counted.
    pub fn counts(&self) -> ClientCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they were told and should not have been.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They come one after the other, and this ends when all are answered.
    pub async fn come(self: Arc<Self>) {
        let room = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut random = fastrand::Rng::with_seed(self.input.seed ^ 1);
        let mut clients = JoinSet::new();
        for place in 0..self.input.orders.len() {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
            let (this, manner) = (Arc::clone(&self), Manner::draw(&mut random));
            clients.spawn(async move {
                this.order(&this.input.orders[place], manner).await;
                drop(permit);
            });
            tokio::time::sleep(self.pause).await;
        }
        while let Some(ended) = clients.join_next().await {
            if let Err(error) = ended {
                self.complain(format!("a client: {error}"));
            }
        }
    }

    async fn order(&self, wanted: &Wanted, manner: Manner) {
        match manner {
            Manner::Patient | Manner::Confused => {}
            Manner::Repeating { copies } => {
                let told = join_all((0..copies).map(|_| self.ask(wanted, PATIENCE))).await;
                let mut answers = told.into_iter().filter(|told| *told != Told::Nothing);
                if let Some(first) = answers.next()
                    && answers.any(|answer| answer != first)
                {
                    self.complain(format!("order {}: two copies got different answers", wanted.id));
                }
            }
            Manner::Impatient { ms } => {
                for _ in 0..3 {
                    self.ask(wanted, Duration::from_millis(ms)).await;
                }
            }
            Manner::Leaving { ms, away_ms } => {
                let _ = tokio::time::timeout(Duration::from_millis(ms), self.ask(wanted, PATIENCE)).await;
                tokio::time::sleep(Duration::from_millis(away_ms)).await;
            }
        }
        let answer = self.insist(wanted).await;
        let expected = (StatusCode::CREATED, Some(wanted.cart.cents()));
        if let Told::Answer { status, body } = &answer {
            let cents =
                serde_json::from_str::<serde_json::Value>(body).ok().and_then(|body| body["cents"].as_u64());
            if (*status, cents) != expected {
                self.complain(format!("order {}: it was answered {status} {body}", wanted.id));
            }
        }
        if manner == Manner::Confused {
            let other = Wanted { id: wanted.id.clone(), cart: swapped(&wanted.cart) };
            match self.insist(&other).await {
                Told::Answer { status: StatusCode::UNPROCESSABLE_ENTITY, .. } => {
                    self.count(|counts| counts.refused += 1);
                }
                told => self.complain(format!("order {}: another one under its key: {told:?}", wanted.id)),
            }
        }
        if matches!(manner, Manner::Repeating { .. }) && self.insist(wanted).await != answer {
            self.complain(format!("order {}: it was answered differently the second time", wanted.id));
        }
        self.count(|counts| counts.answered += 1);
    }

    /// Asks until there is an answer.
    async fn insist(&self, wanted: &Wanted) -> Told {
        loop {
            let told = self.ask(wanted, PATIENCE).await;
            if told != Told::Nothing {
                return told;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks once.
    async fn ask(&self, Wanted { id, cart }: &Wanted, patience: Duration) -> Told {
        self.count(|counts| counts.sent += 1);
        let exchange = self.exchange(id, cart, patience).await;
        let Ok((status, body, is_replayed)) = exchange else {
            self.count(|counts| counts.unanswered += 1);
            return Told::Nothing;
        };
        if status.is_server_error() || status == StatusCode::CONFLICT {
            self.count(|counts| counts.put_off += 1);
            return Told::Nothing;
        }
        if is_replayed {
            self.count(|counts| counts.replayed += 1);
        }
        Told::Answer { status, body }
    }

    async fn exchange(
        &self,
        id: &OrderId,
        cart: &Cart,
        patience: Duration,
    ) -> Result<(StatusCode, String, bool), Failure> {
        let request = self
            .client
            .post(&self.url)
            .header(IDEMPOTENCY_KEY, format!("\"{id}\""))
            .header(CONTENT_TYPE, "application/json")
            .timeout(patience)
            .body(serde_json::to_vec(cart)?);
        let response = request.send().await?;
        let is_replayed = response.headers().contains_key(IDEMPOTENT_REPLAYED);
        Ok((response.status(), response.text().await?, is_replayed))
    }

    fn count(&self, count: impl FnOnce(&mut ClientCounts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
    }
}

/// Something else.
fn swapped(cart: &Cart) -> Cart {
    let mut other = cart.clone();
    for line in &mut other.lines {
        line.pieces += 1;
    }
    other
}
