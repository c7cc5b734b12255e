//! One endpoint's queue: its messages behind a lock, taken once for a batch, and a bell for receivers that
//! wait. No message is looked into, and what the log does is hidden behind [`Journal`].

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::IntoIter;

use metrics::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;
use tollgate_proto::{BrokerError, Delivery, EndpointName, OutgoingMessage, Receipt, Settlement, Verdict};

use super::messages::{Arrival, Change, Messages, QueueLimits, Wake};
use super::{DeadLetter, Depth};

/// Whoever has to be told what became of messages: the recovery log.
pub(crate) trait Journal: Send + Sync {
    /// Takes all `changes` of an endpoint, in their order, and returns at once.
    fn note(&self, endpoint: &EndpointName, changes: &mut Vec<Change>);
}

/// The queue of one endpoint.
pub(crate) struct Queue {
    endpoint: EndpointName,
    limits: QueueLimits,
    state: Mutex<State>,
    arrived: Notify,
    journal: Option<Arc<dyn Journal>>,
    counters: Counters,
}

struct State {
    messages: Messages,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
}

struct Counters {
    sent: Counter,
    delivered: Counter,
    acknowledged: Counter,
    retried: Counter,
    dead_lettered: Counter,
}

impl Queue {
    pub(crate) fn new(
        endpoint: EndpointName,
        limits: QueueLimits,
        journal: Option<Arc<dyn Journal>>,
    ) -> Self {
        let label = endpoint.to_string();
        let counters = Counters {
            sent: metrics::counter!("tollgate_broker_sent_total", "endpoint" => label.clone()),
            delivered: metrics::counter!("tollgate_broker_delivered_total", "endpoint" => label.clone()),
            acknowledged: metrics::counter!("tollgate_broker_acknowledged_total", "endpoint" => label.clone()),
            retried: metrics::counter!("tollgate_broker_retried_total", "endpoint" => label.clone()),
            dead_lettered: metrics::counter!("tollgate_broker_dead_lettered_total", "endpoint" => label),
        };
        let state = Mutex::new(State { messages: Messages::new(limits), life: Life::Open });
        Self { endpoint, limits, state, arrived: Notify::new(), journal, counters }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a queue's lock")
    }

    /// Takes the messages at the front of `messages` that are for this endpoint, and answers each.
    pub(crate) fn send(
        &self,
        messages: &mut std::iter::Peekable<IntoIter<OutgoingMessage>>,
        answers: &mut Vec<Result<(), BrokerError>>,
    ) {
        let now = Instant::now();
        let mut wake = Wake::Nobody;
        let mut state = self.lock();
        let mut room = state.messages.room();
        let before = answers.len();
        let mut refused = 0;
        while let Some(message) = messages.next_if(|message| message.endpoint == self.endpoint) {
            if state.life == Life::Closed || room == 0 {
                refused += 1;
                answers.push(Err(self.refusal(state.life)));
                continue;
            }
            room -= 1;
            let OutgoingMessage { envelope, delay, .. } = message;
            let arrival = Arrival { envelope, delay, delivery_count: 0, record: None };
            wake = more(wake, state.messages.arrive(arrival, now));
            answers.push(Ok(()));
        }
        drop(state);
        self.counters.sent.increment(count(answers.len() - before - refused));
        self.ring(wake);
    }

    /// Why a message was not taken.
    fn refusal(&self, life: Life) -> BrokerError {
        match life {
            Life::Closed => self.closed(),
            Life::Open => {
                BrokerError::Full { endpoint: self.endpoint.clone(), capacity: self.limits.capacity }
            }
        }
    }

    /// Whether it gives and takes messages.
    ///
    /// # Errors
    /// [`BrokerError::Closed`].
    pub(crate) fn verify(&self) -> Result<(), BrokerError> {
        match self.lock().life {
            Life::Open => Ok(()),
            Life::Closed => Err(self.closed()),
        }
    }

    fn closed(&self) -> BrokerError {
        BrokerError::Closed { endpoint: self.endpoint.clone() }
    }

    /// Waits until something is ready and returns up to `max` of it. Between taking messages and returning
    /// them there is no await, so a dropped future has taken none.
    pub(crate) async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // In line before looking: what arrives after the look rings for us too.
            arrived.as_mut().enable();
            let until = match self.try_receive(max)? {
                Look::Found(deliveries) => return Ok(deliveries),
                Look::NothingBefore(until) => until,
            };
            // Either way the next turn looks again.
            let _ = tokio::time::timeout_at(until, arrived).await;
        }
    }

    fn try_receive(&self, max: usize) -> Result<Look, BrokerError> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.life == Life::Closed {
            return Err(self.closed());
        }
        let deliveries = state.messages.take(max, now);
        self.tell(&mut state);
        if deliveries.is_empty() {
            // Deliveries that others take from now on time out after this moment: whoever waits looks again
            // then, and so needs no bell for them.
            let latest = now + self.limits.visibility_timeout;
            let until = state.messages.next_due().map_or(latest, |due| due.min(latest));
            return Ok(Look::NothingBefore(until));
        }
        let is_more = state.messages.is_ready();
        drop(state);
        self.counters.delivered.increment(count(deliveries.len()));
        if is_more {
            // One ring announced a whole batch: pass on what is left of it.
            self.arrived.notify_one();
        }
        Ok(Look::Found(deliveries))
    }

    /// Does what the verdicts say, with one answer each.
    pub(crate) fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), BrokerError>> {
        let now = Instant::now();
        let mut wake = Wake::Nobody;
        let (mut acknowledged, mut retried, mut dead_lettered) = (0, 0, 0);
        let mut answers = Vec::with_capacity(settlements.len());
        let mut state = self.lock();
        for Settlement { receipt, verdict } in settlements {
            if state.life == Life::Closed {
                answers.push(Err(self.closed()));
                continue;
            }
            let Receipt::Number(number) = receipt else {
                answers.push(Err(self.foreign_receipt(&receipt)));
                continue;
            };
            match &verdict {
                Verdict::Acknowledge => acknowledged += 1,
                Verdict::Retry { .. } => retried += 1,
                Verdict::DeadLetter { .. } => dead_lettered += 1,
            }
            wake = more(wake, state.messages.settle(number, verdict, now));
            answers.push(Ok(()));
        }
        self.tell(&mut state);
        drop(state);
        self.counters.acknowledged.increment(acknowledged);
        self.counters.retried.increment(retried);
        self.counters.dead_lettered.increment(dead_lettered);
        self.ring(wake);
        answers
    }

    fn foreign_receipt(&self, receipt: &Receipt) -> BrokerError {
        let reason = format!("{receipt:?} is another broker's receipt: settle a delivery where it came from");
        BrokerError::Misconfigured { endpoint: self.endpoint.clone(), reason }
    }

    fn ring(&self, wake: Wake) {
        match wake {
            Wake::One => self.arrived.notify_one(),
            Wake::All => self.arrived.notify_waiters(),
            Wake::Nobody => {}
        }
    }

    /// Tells the log what changed, still under the lock, so that it hears things in the order they happened.
    fn tell(&self, state: &mut State) {
        match &self.journal {
            Some(journal) if !state.messages.changes.is_empty() => {
                journal.note(&self.endpoint, &mut state.messages.changes);
            }
            Some(_) | None => {}
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        let mut state = self.lock();
        state.messages.advance(Instant::now());
        self.tell(&mut state);
        state.messages.depth()
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut state = self.lock();
        state.messages.advance(Instant::now());
        self.tell(&mut state);
        state.messages.dead_letters()
    }

    pub(crate) fn redrive(&self) -> usize {
        let mut state = self.lock();
        let count = state.messages.redrive(Instant::now());
        self.tell(&mut state);
        drop(state);
        self.ring(Wake::One);
        count
    }

    /// Gives and takes nothing any more; receivers that wait are told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.life == Life::Open {
            state.life = Life::Closed;
            state.messages.note_delivery_counts();
            self.tell(&mut state);
        }
        drop(state);
        self.arrived.notify_waiters();
    }
}

/// What a receiver saw.
enum Look {
    Found(Vec<Delivery>),
    NothingBefore(Instant),
}

#[cfg(feature = "durable")]
impl Queue {
    pub(crate) fn endpoint(&self) -> &EndpointName {
        &self.endpoint
    }

    /// Promises room to a message that the log is about to write.
    ///
    /// # Errors
    /// [`BrokerError::Full`] or [`BrokerError::Closed`].
    pub(crate) fn reserve(&self) -> Result<(), BrokerError> {
        let mut state = self.lock();
        if state.life == Life::Closed || state.messages.room() == 0 {
            return Err(self.refusal(state.life));
        }
        state.messages.reserve();
        Ok(())
    }

    /// The log could not write a message that room was promised to.
    pub(crate) fn release(&self) {
        self.lock().messages.release();
    }

    /// The log has written a message that room was promised to: it may be delivered.
    pub(crate) fn arrive_reserved(&self, arrival: Arrival) {
        let mut state = self.lock();
        state.messages.release();
        let wake = state.messages.arrive(arrival, Instant::now());
        drop(state);
        self.counters.sent.increment(1);
        self.ring(wake);
    }

    /// Takes in what the log has kept, before anybody uses the queue.
    pub(crate) fn restore(&self, recovered: super::Recovered) {
        let mut state = self.lock();
        match recovered {
            super::Recovered::Message(arrival) => {
                state.messages.arrive(arrival, Instant::now());
            }
            super::Recovered::Dead(letter, record) => state.messages.restore_dead(letter, record),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Of two rings the one that is heard by more.
const fn more(one: Wake, other: Wake) -> Wake {
    match (one, other) {
        (Wake::All, _) | (_, Wake::All) => Wake::All,
        (Wake::One, _) | (_, Wake::One) => Wake::One,
        (Wake::Nobody, Wake::Nobody) => Wake::Nobody,
    }
}

/// A length for a counter.
fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
