//! A broker that makes another one misbehave, by seed: it duplicates, reorders, delays, forgets acknowledgements and
//! fails sends, all within what the `Broker` trait allows. Nothing it does may lose a message: a fault that a real
//! broker may not show doesn't belong here.

mod builder;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{
    Broker, BrokerError, BrokerWrapper, DeduplicationId, Delivery, EndpointName, OutgoingMessage, Settlement,
    Verdict,
};

pub use builder::ChaosBuilder;
use window::Window;

/// Most extra copies of one message: at a rate of 1 there would be no end otherwise.
pub const COPIES_MAX: usize = 4;

/// A broker that misbehaves within what a broker may do.
///
/// * **Duplicates**: the message is sent more than once to the inner broker, so that there are copies which are delivered
///   and settled separately and which survive a crash — as with a real producer whose confirmation was lost.
/// * **Reordering** happens on the receiving side: what is held back is in flight in the inner broker, which delivers it
///   again if this process dies. Each endpoint has a window; when it is full, or nothing more comes, messages leave it
///   in random order. So the window has to be small enough to be emptied within the inner visibility timeout; what isn't
///   becomes a duplicate.
/// * **Lost acknowledgements** never reach the inner broker: the message comes again after its visibility timeout.
/// * **Failing sends** fail before the message was sent or after it.
/// * **Delays** are added to the messages' own.
/// * **Deduplication**, if it is turned on, drops publications by the id that they are given for it.
///
/// The same seed and the same sequence of calls and deliveries give the same faults.
pub struct ChaosBroker {
    inner: Arc<dyn Broker>,
    plan: Plan,
    dice: Mutex<Dice>,
    windows: Mutex<HashMap<EndpointName, Arc<HeldBack>>>,
    known: Mutex<Known>,
}

/// How often what goes wrong.
#[derive(Clone, Copy, Debug)]
struct Plan {
    duplicates: f64,
    reorder: usize,
    lose_acks: f64,
    failing_sends: f64,
    delay_max: Duration,
    linger: Duration,
    remembers: Option<Duration>,
}

/// Chance, and what came of it.
struct Dice {
    rng: Rng,
    counts: ChaosCounts,
}

/// How many faults of each kind were injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChaosCounts {
    /// Extra copies that were sent.
    pub duplicates: u64,
    /// Deliveries that were given out before one that had come earlier.
    pub reordered: u64,
    /// Acknowledgements that were swallowed and answered `Ok`.
    pub acks_lost_silently: u64,
    /// Acknowledgements that were swallowed and answered `Err`.
    pub acks_lost_with_an_error: u64,
    /// Sends that failed and had no effect.
    pub sends_failed_before: u64,
    /// Sends that failed and had their effect all the same.
    pub sends_failed_after: u64,
    /// Messages that were delayed.
    pub delayed: u64,
    /// Publications that were confirmed and dropped, because their id was known.
    pub dropped_as_known: u64,
}

/// What one endpoint's receivers share.
struct HeldBack {
    window: Mutex<Window>,
    /// Rung when a receiver leaves messages behind: another one that waits has something to give out.
    left_behind: Notify,
}

/// What a receiver got before it gives something out.
enum Came {
    /// More to hold back, perhaps.
    Some(Vec<Delivery>),
    /// The window is full, or nothing more comes.
    Nothing,
}

/// What is to become of one message.
enum SendFate {
    /// Send it and as many extra copies.
    Send { copies: usize },
    /// Confirm it, and don't send it: its id is known.
    Drop,
    /// Say that it failed, and don't send it.
    FailBefore,
    /// Send it, and say that it failed.
    FailAfter { copies: usize },
}

impl ChaosBroker {
    /// Wraps a broker. Without further calls nothing goes wrong.
    pub fn builder(inner: Arc<dyn Broker>) -> ChaosBuilder {
        ChaosBuilder::new(inner)
    }

    /// How many faults were injected so far.
    pub fn counts(&self) -> ChaosCounts {
        self.dice().counts
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().expect("nothing panics while it holds the dice")
    }

    fn held_back(&self, endpoint: &EndpointName) -> Arc<HeldBack> {
        let mut windows = self.windows.lock().expect("nothing panics while it holds the map of windows");
        Arc::clone(
            windows.entry(endpoint.clone()).or_insert_with(|| {
                Arc::new(HeldBack { window: Mutex::default(), left_behind: Notify::new() })
            }),
        )
    }

    async fn send_some(&self, messages: Vec<OutgoingMessage>) -> Vec<Result<(), BrokerError>> {
        let mut fates = Vec::with_capacity(messages.len());
        let mut endpoints = Vec::with_capacity(messages.len());
        let mut sent = Vec::with_capacity(messages.len());
        {
            let mut dice = self.dice();
            for mut message in messages {
                let mut fate = dice.send_fate(&self.plan);
                if self.is_known(&message, &fate) {
                    dice.counts.dropped_as_known += 1;
                    fate = SendFate::Drop;
                }
                endpoints.push(message.endpoint.clone());
                if let SendFate::Send { copies } | SendFate::FailAfter { copies } = fate {
                    for _ in 0..copies {
                        sent.push(dice.delayed(message.clone(), &self.plan));
                    }
                    message = dice.delayed(message, &self.plan);
                    sent.push(message);
                }
                fates.push(fate);
            }
        }
        let ids: Vec<DeduplicationId> = sent.iter().map(|message| message.deduplication_id).collect();
        let answers = self.inner.send(sent).await;
        self.forget_failed(&ids, &answers);
        let mut answers = answers.into_iter();
        let missing = |endpoint: &EndpointName| {
            let reason = "the inner broker gave fewer answers than it got messages".to_owned();
            Err(BrokerError::Unavailable { endpoint: endpoint.clone(), reason })
        };
        let mut outcome = |copies: usize, endpoint: &EndpointName| {
            // The message itself was sent after its copies; what became of those nobody asks.
            answers.nth(copies).unwrap_or_else(|| missing(endpoint))
        };
        let pairs = fates.into_iter().zip(&endpoints);
        pairs
            .map(|(fate, endpoint)| match fate {
                SendFate::Send { copies } => outcome(copies, endpoint),
                SendFate::Drop => Ok(()),
                SendFate::FailBefore => Err(injected(endpoint, "the send failed before its effect")),
                SendFate::FailAfter { copies } => outcome(copies, endpoint)
                    .and_then(|()| Err(injected(endpoint, "the send failed after its effect"))),
            })
            .collect()
    }

    /// Whether a message is to be dropped; one that is sent is known from now on.
    fn is_known(&self, message: &OutgoingMessage, fate: &SendFate) -> bool {
        let Some(window) = self.plan.remembers.filter(|_| !matches!(fate, SendFate::FailBefore)) else {
            return false;
        };
        self.known().is_repeated(message.deduplication_id, window)
    }

    /// What the inner broker has not taken may be published again.
    fn forget_failed(&self, ids: &[DeduplicationId], answers: &[Result<(), BrokerError>]) {
        if self.plan.remembers.is_none() {
            return;
        }
        let mut known = self.known();
        for (id, _) in ids.iter().zip(answers).filter(|(_, answer)| answer.is_err()) {
            known.published.remove(id);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }

    async fn receive_reordered(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        if self.plan.reorder <= 1 || max == 0 {
            return self.inner.receive(endpoint, max).await;
        }
        let held_back = self.held_back(endpoint);
        let leaving = Leaving(&held_back);
        loop {
            let held = held_back.window().len();
            let is_full = held >= self.plan.reorder;
            let wanted = self.plan.reorder.saturating_sub(held);
            // Dropping a receive that has not answered loses nothing: the trait says so.
            let came = tokio::select! {
                biased;
                () = std::future::ready(()), if is_full => Came::Nothing,
                came = self.inner.receive(endpoint, wanted), if !is_full => Came::Some(came?),
                () = held_back.left_behind.notified(), if held == 0 => continue,
                () = tokio::time::sleep(self.plan.linger), if held > 0 => Came::Nothing,
            };
            match came {
                Came::Some(deliveries) => held_back.window().hold(deliveries),
                Came::Nothing => {
                    let given = self.give_out(&leaving, max);
                    // Another receiver may have emptied the window meanwhile.
                    if !given.is_empty() {
                        return Ok(given);
                    }
                }
            }
        }
    }

    /// Takes up to `max` deliveries out of the window, in random order.
    fn give_out(&self, leaving: &Leaving<'_>, max: usize) -> Vec<Delivery> {
        let (mut dice, mut window) = (self.dice(), leaving.0.window());
        let Dice { rng, counts } = &mut *dice;
        std::iter::from_fn(|| window.draw(rng, &mut counts.reordered)).take(max).collect()
    }

    async fn settle_some(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> Vec<Result<(), BrokerError>> {
        // `None`: the inner broker's answer goes here.
        let mut answers = Vec::with_capacity(settlements.len());
        let mut settled = Vec::with_capacity(settlements.len());
        {
            let mut dice = self.dice();
            for settlement in settlements {
                let is_ack = settlement.verdict == Verdict::Acknowledge;
                if is_ack && dice.rng.f64() < self.plan.lose_acks {
                    answers.push(Some(dice.lost_ack(endpoint)));
                } else {
                    settled.push(settlement);
                    answers.push(None);
                }
            }
        }
        let mut inner = self.inner.settle(endpoint, settled).await.into_iter();
        let missing = || Err(injected(endpoint, "the inner broker gave too few answers"));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| inner.next().unwrap_or_else(missing)))
            .collect()
    }
}

/// The publications of a broker that deduplicates, and when each was taken.
#[derive(Default)]
struct Known {
    published: HashMap<DeduplicationId, Instant>,
    /// How many may be remembered before those whose window is over are looked for.
    room: usize,
}

impl Known {
    fn is_repeated(&mut self, id: DeduplicationId, window: Duration) -> bool {
        let now = Instant::now();
        if self.published.len() > self.room {
            self.published.retain(|_, taken| now.duration_since(*taken) < window);
            self.room = self.published.len() * 2 + 1024;
        }
        match self.published.get(&id) {
            Some(taken) if now.duration_since(*taken) < window => true,
            _ => {
                self.published.insert(id, now);
                false
            }
        }
    }
}

impl Dice {
    fn send_fate(&mut self, plan: &Plan) -> SendFate {
        let is_failing = self.rng.f64() < plan.failing_sends;
        if is_failing && self.rng.bool() {
            self.counts.sends_failed_before += 1;
            return SendFate::FailBefore;
        }
        let mut copies = 0;
        while copies < COPIES_MAX && self.rng.f64() < plan.duplicates {
            copies += 1;
            self.counts.duplicates += 1;
        }
        if is_failing {
            self.counts.sends_failed_after += 1;
            return SendFate::FailAfter { copies };
        }
        SendFate::Send { copies }
    }

    fn delayed(&mut self, mut message: OutgoingMessage, plan: &Plan) -> OutgoingMessage {
        if !plan.delay_max.is_zero() {
            self.counts.delayed += 1;
            message.delay = message.delay.saturating_add(plan.delay_max.mul_f64(self.rng.f64()));
        }
        message
    }

    fn lost_ack(&mut self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        if self.rng.bool() {
            self.counts.acks_lost_silently += 1;
            return Ok(());
        }
        self.counts.acks_lost_with_an_error += 1;
        Err(injected(endpoint, "the acknowledgement was lost"))
    }
}

impl HeldBack {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("nothing panics while it holds a window")
    }
}

/// Rings for the next receiver when one goes, finished or dropped, and leaves messages in the window.
struct Leaving<'a>(&'a HeldBack);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.0.window().len() > 0 {
            self.0.left_behind.notify_one();
        }
    }
}

fn injected(endpoint: &EndpointName, what: &str) -> BrokerError {
    BrokerError::Unavailable { endpoint: endpoint.clone(), reason: format!("{what} (injected fault)") }
}

impl BrokerWrapper for ChaosBroker {
    fn inner(&self) -> &dyn Broker {
        &*self.inner
    }

    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(self.send_some(messages))
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move { self.receive_reordered(&endpoint, max).await })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let endpoint = endpoint.clone();
        Box::pin(async move { self.settle_some(&endpoint, settlements).await })
    }
}

impl fmt::Debug for ChaosBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosBroker").field("plan", &self.plan).finish_non_exhaustive()
    }
}
