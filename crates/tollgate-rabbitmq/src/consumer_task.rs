//! The task of one endpoint's consumer. It alone opens the channel and tells RabbitMQ anything through it, so there is one
//! order of acknowledgements. What it has heard is in `unsettled`; who asks it is in `consumer`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::consumer::{Begun, Life, Published, Settling, Shared, Waiting, What};
use super::link::{ANSWER_WITHIN, Link, REPLY_SUCCESS, pause};
use super::message::{Message, Publication};
use super::problem::Problem;
use super::publisher::{NotSent, Publisher};
use super::topology::Topology;
use super::unsettled::Acknowledgement;

/// When a message is put back that could neither be retried later nor be put aside.
const PUT_BACK_AFTER: Duration = Duration::from_secs(5);

/// How often the task looks for overdue deliveries, at most and at least, and how often within a visibility timeout.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
const LOOKS_PER_TIMEOUT: u32 = 20;

/// The task, and what it alone has.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: ShortString,
    pub(super) topology: Arc<Topology>,
    pub(super) link: Arc<Link>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settlings: mpsc::Receiver<Settling>,
    pub(super) closing: CancellationToken,
    pub(super) publishing: FuturesUnordered<BoxFuture<'static, Published>>,
}

/// Why a channel is not used any more.
enum Ended {
    Closing,
    Lost(Problem),
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let opened_at = Instant::now();
            let ended = match self.open().await {
                Some(Ok((channel, consumer))) => self.consume(&channel, consumer).await,
                Some(Err(problem)) => Ended::Lost(problem),
                None => Ended::Closing,
            };
            // Copies that are on their way arrive or don't; the messages that they were to replace come again.
            self.publishing.clear();
            let Ended::Lost(problem) = ended else { break };
            failures = if opened_at.elapsed() > ANSWER_WITHIN { 1 } else { failures + 1 };
            tracing::warn!(endpoint = %self.shared.endpoint, ?problem, failures, "no messages come from RabbitMQ");
            {
                let mut state = self.shared.state();
                state.unsettled.begin_channel();
                state.problem = Some(problem);
            }
            self.shared.arrived.notify_waiters();
            if self.refusing(tokio::time::sleep(pause(failures))).await.is_none() {
                break;
            }
        }
        {
            let mut state = self.shared.state();
            state.life = Life::Closed;
            state.unsettled.begin_channel();
        }
        self.shared.arrived.notify_waiters();
    }

    /// Waits for something while there is no channel. What is to be settled meanwhile comes again. `None`: it is to end.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.closing.cancelled() => return None,
                Some(settling) = self.settlings.recv() => drop(settling),
            }
        }
    }

    async fn open(&mut self) -> Option<Result<(Channel, Consumer), Problem>> {
        let (link, queue, prefetch) =
            (Arc::clone(&self.link), self.queue.clone(), self.shared.settings.prefetch);
        let opening = async move {
            let channel = link.channel().await?;
            let problem = |error: lapin::Error| Problem::of(&error);
            channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(problem)?;
            let options = BasicConsumeOptions::default();
            let tag = ShortString::default();
            let consumer =
                channel.basic_consume(queue, tag, options, FieldTable::default()).await.map_err(problem)?;
            Ok((channel, consumer))
        };
        let answered = self.refusing(tokio::time::timeout(ANSWER_WITHIN * 2, opening)).await?;
        Some(answered.unwrap_or_else(|_| Err(Problem::passing("RabbitMQ does not answer"))))
    }

    /// Takes and settles messages until the channel is lost or the broker is closed and nothing is left to settle.
    async fn consume(&mut self, channel: &Channel, mut consumer: Consumer) -> Ended {
        {
            let mut state = self.shared.state();
            state.unsettled.begin_channel();
            state.problem = None;
        }
        let settings = self.shared.settings.clone();
        let every = (settings.visibility_timeout / LOOKS_PER_TIMEOUT).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        let mut look = tokio::time::interval(every);
        let mut drained_by = None;
        loop {
            let done = tokio::select! {
                came = consumer.next() => match came {
                    Some(Ok(delivery)) => self.arrive(delivery, &mut consumer),
                    Some(Err(error)) => return Ended::Lost(Problem::of(&error)),
                    None if drained_by.is_none() => {
                        return Ended::Lost(Problem::passing("RabbitMQ cancelled the consumer: is the queue gone?"));
                    }
                    None => self.shared.look_after(channel).await,
                },
                Some(settling) = self.settlings.recv() => self.settle(channel, settling).await,
                Some(published) = self.publishing.next(), if !self.publishing.is_empty() => {
                    self.published(channel, published).await
                }
                _ = look.tick() => self.shared.look_after(channel).await,
                () = self.closing.cancelled(), if drained_by.is_none() => {
                    drained_by = Some(Instant::now() + settings.drain_within);
                    self.shared.give_back_what_nobody_has(channel, &consumer).await
                }
            };
            if let Err(error) = done {
                return Ended::Lost(Problem::of(&error));
            }
            if let Some(until) = drained_by {
                let (is_empty, late) = (self.shared.state().unsettled.is_empty(), Instant::now() >= until);
                if is_empty || late {
                    let _ = channel.close(REPLY_SUCCESS, "closed".into()).await;
                    return Ended::Closing;
                }
            }
        }
    }

    /// Takes what came, and what has come with it.
    fn arrive(
        &mut self,
        first: lapin::message::Delivery,
        consumer: &mut Consumer,
    ) -> Result<(), lapin::Error> {
        let mut next = Some(Ok(first));
        let mut early = Vec::new();
        {
            let mut state = self.shared.state();
            while let Some(delivery) = next {
                let delivery = delivery?;
                let tag = delivery.delivery_tag;
                let message = Message::read(delivery);
                let left = message.early_by();
                let copy = left.map(|left| {
                    message.delayed_further(left, self.topology.delay_exchange(left), self.queue.clone())
                });
                let serial = state.unsettled.arrive(tag, message);
                if let Some(copy) = copy {
                    state.unsettled.withdraw(serial);
                    early.push((serial, copy));
                }
                next = consumer.next().now_or_never().flatten();
            }
        }
        self.shared.arrived.notify_one();
        if !early.is_empty() {
            let (serials, copies): (Vec<u64>, Vec<Publication>) = early.into_iter().unzip();
            self.publish(serials.into_iter().map(|serial| (0, serial)).collect(), copies, None);
        }
        Ok(())
    }

    fn publish(&mut self, which: Vec<(usize, u64)>, copies: Vec<Publication>, waiting: Option<Waiting>) {
        let (publisher, endpoint) = (Arc::clone(&self.publisher), self.shared.endpoint.clone());
        let capacity = self.topology.capacity;
        self.publishing.push(Box::pin(async move {
            let answers = publisher.publish(copies).await;
            let outcome = |((place, serial), answer): ((usize, u64), Result<(), NotSent>)| {
                (place, serial, answer.map_err(|not_sent| not_sent.at(&endpoint, capacity)))
            };
            Published { outcomes: which.into_iter().zip(answers).map(outcome).collect(), waiting }
        }));
    }

    async fn settle(&mut self, channel: &Channel, settling: Settling) -> Result<(), lapin::Error> {
        let Settling { begun, answer } = settling;
        let answers = vec![Ok(()); begun.len()];
        let (mut done, mut back, mut which, mut copies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, Begun { serial, what, .. }) in begun.into_iter().enumerate() {
            match what {
                What::Acknowledge => done.push(serial),
                What::PutBack => back.push(serial),
                What::Replace(copy) => {
                    which.push((index, serial));
                    copies.push(*copy);
                }
            }
        }
        self.shared.acknowledge(channel, done).await?;
        self.shared.put_back(channel, back).await?;
        if copies.is_empty() {
            // Whoever asked may have gone.
            let _ = answer.send(answers);
        } else {
            self.publish(which, copies, Some(Waiting { answers, answer }));
        }
        Ok(())
    }

    async fn published(&mut self, channel: &Channel, published: Published) -> Result<(), lapin::Error> {
        let Published { outcomes, mut waiting } = published;
        let mut done = Vec::with_capacity(outcomes.len());
        for (index, serial, outcome) in outcomes {
            if let Err(error) = &outcome {
                tracing::warn!(endpoint = %self.shared.endpoint, %error, "a delivery could not be settled: it is put back");
                self.shared.state().unsettled.hold(serial, Instant::now() + PUT_BACK_AFTER);
            } else {
                done.push(serial);
            }
            if let Some(waiting) = &mut waiting {
                waiting.answers[index] = outcome;
            }
        }
        self.shared.acknowledge(channel, done).await?;
        if let Some(Waiting { answers, answer }) = waiting {
            let _ = answer.send(answers);
        }
        Ok(())
    }
}

/// What RabbitMQ is told about deliveries. Only the task does so.
impl Shared {
    async fn acknowledge(&self, channel: &Channel, serials: Vec<u64>) -> Result<(), lapin::Error> {
        let acknowledgements = self.state().unsettled.acknowledge(serials);
        for acknowledgement in acknowledgements {
            let (tag, multiple) = match acknowledgement {
                Acknowledgement::One(tag) => (tag, false),
                Acknowledgement::UpTo(tag) => (tag, true),
            };
            channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    async fn put_back(&self, channel: &Channel, serials: Vec<u64>) -> Result<(), lapin::Error> {
        for serial in serials {
            let tag = self.state().unsettled.put_back(serial);
            if let Some(tag) = tag {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
            }
        }
        Ok(())
    }

    /// Puts back what nobody has settled in time.
    async fn look_after(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let overdue = self.state().unsettled.overdue(Instant::now());
        if !overdue.is_empty() {
            let (endpoint, count) = (&self.endpoint, overdue.len());
            tracing::warn!(%endpoint, count, "deliveries were not settled in time and are put back");
        }
        self.put_back(channel, overdue).await
    }

    /// Ends the deliveries, and puts back those that no receiver has got.
    async fn give_back_what_nobody_has(
        &self,
        channel: &Channel,
        consumer: &Consumer,
    ) -> Result<(), lapin::Error> {
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
        let idle = {
            let mut state = self.state();
            state.life = Life::Closed;
            state.unsettled.take_nothing_more();
            state.unsettled.idle()
        };
        self.arrived.notify_waiters();
        self.put_back(channel, idle).await
    }
}
