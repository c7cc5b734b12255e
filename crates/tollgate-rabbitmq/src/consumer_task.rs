//! The task of one endpoint's consumer. It alone opens the channel and tells RabbitMQ anything through it, so
//! there is one order of acknowledgements. What it has heard is in `unsettled`; who asks it is in `consumer`.

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
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tollgate_broker_kit::consumer::{Begun, Copied, Settling, Shared, Waiting};

use super::consumer::{Deliveries, IN_PLACE_MAX, Settings, What};
use super::link::{ANSWER_WITHIN, Link, REPLY_SUCCESS, pause};
use super::message::{Message, Publication};
use super::problem::Problem;
use super::publisher::Publisher;
use super::unsettled::Acknowledgement;

/// When a message is put back that could neither be retried later nor be put aside.
const PUT_BACK_AFTER: Duration = Duration::from_secs(5);

/// How often the task looks for overdue deliveries, at most and at least, and how often within a visibility
/// timeout.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
const LOOKS_PER_TIMEOUT: u32 = 20;

/// How long to sleep when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// The task, and what it alone has.
pub(super) struct Task {
    pub(super) shared: Arc<Shared<Deliveries>>,
    pub(super) settings: Settings,
    pub(super) queue: ShortString,
    pub(super) capacity: Option<u32>,
    pub(super) link: Arc<Link>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settlings: mpsc::Receiver<Settling<What>>,
    pub(super) closing: CancellationToken,
    pub(super) publishing: FuturesUnordered<BoxFuture<'static, Copied>>,
}

/// Why a channel is not used any more.
enum Ended {
    Closing,
    Lost(Problem),
}

/// How many messages RabbitMQ may send ahead of the receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// As many as the settings say.
    Wide,
    /// One: receivers ask for one message at a time, and other processes may be idle.
    Narrow,
    /// None: no receiver asks.
    Shut,
}

/// What consumes on a channel.
struct Subscription {
    consumer: Option<Consumer>,
    flow: Flow,
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
            // Copies that are on their way arrive or don't; the messages that they were to replace come
            // again.
            self.publishing.clear();
            let Ended::Lost(problem) = ended else { break };
            failures = if opened_at.elapsed() > ANSWER_WITHIN { 1 } else { failures + 1 };
            tracing::warn!(endpoint = %self.shared.endpoint(), ?problem, failures, "no messages come from RabbitMQ");
            {
                let mut deliveries = self.shared.ledger();
                deliveries.unsettled.begin_channel();
                deliveries.problem = Some(problem);
            }
            self.shared.arrived.notify_waiters();
            if self.refusing(tokio::time::sleep(pause(failures))).await.is_none() {
                break;
            }
        }
        self.shared.ledger().unsettled.begin_channel();
        self.shared.close();
    }

    /// Waits for something while there is no channel. What is to be settled meanwhile comes again. `None`: it
    /// is to end.
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
        let (link, queue, prefetch) = (Arc::clone(&self.link), self.queue.clone(), self.settings.prefetch);
        let opening = async move {
            let channel = link.channel().await?;
            let consumer = subscribe(&channel, queue, prefetch).await.map_err(|error| Problem::of(&error))?;
            Ok((channel, consumer))
        };
        let answered = self.refusing(tokio::time::timeout(ANSWER_WITHIN * 2, opening)).await?;
        Some(answered.unwrap_or_else(|_| Err(Problem::passing("RabbitMQ does not answer"))))
    }

    /// Takes and settles messages until the channel is lost or the broker is closed and nothing is left to
    /// settle.
    async fn consume(&mut self, channel: &Channel, consumer: Consumer) -> Ended {
        {
            let mut deliveries = self.shared.ledger();
            deliveries.unsettled.begin_channel();
            deliveries.problem = None;
        }
        let mut subscription = Subscription { consumer: Some(consumer), flow: Flow::Wide };
        let every =
            (self.settings.visibility_timeout / LOOKS_PER_TIMEOUT).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        let mut look = tokio::time::interval(every);
        let mut drained_by = None;
        loop {
            let due = self.shared.ledger().unsettled.next_due();
            let due = due.unwrap_or_else(|| Instant::now() + NOTHING_DUE);
            let done = tokio::select! {
                came = subscription.next() => match came {
                    Some(Ok(delivery)) => self.arrive(delivery, &mut subscription),
                    Some(Err(error)) => return Ended::Lost(Problem::of(&error)),
                    None => {
                        return Ended::Lost(Problem::passing("RabbitMQ cancelled the consumer: is the queue gone?"));
                    }
                },
                Some(settling) = self.settlings.recv() => self.settle(channel, settling).await,
                Some(copied) = self.publishing.next(), if !self.publishing.is_empty() => {
                    self.copied(channel, copied).await
                }
                () = sleep_until(due) => {
                    self.shared.ledger().unsettled.pass_time(Instant::now());
                    self.shared.arrived.notify_one();
                    Ok(())
                }
                () = self.shared.taken.notified(), if subscription.flow != Flow::Wide && drained_by.is_none() => {
                    self.follow_demand(channel, &mut subscription).await
                }
                _ = look.tick() => self.look_after(channel, &mut subscription, drained_by.is_some()).await,
                () = self.closing.cancelled(), if drained_by.is_none() => {
                    drained_by = Some(Instant::now() + self.settings.drain_within);
                    self.stop(channel, &mut subscription).await
                }
            };
            if let Err(error) = done {
                return Ended::Lost(Problem::of(&error));
            }
            if let Some(until) = drained_by {
                let (is_empty, late) = (self.shared.ledger().unsettled.is_empty(), Instant::now() >= until);
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
        subscription: &mut Subscription,
    ) -> Result<(), lapin::Error> {
        let mut next = Some(Ok(first));
        let mut early = Vec::new();
        {
            let mut deliveries = self.shared.ledger();
            let now = Instant::now();
            while let Some(delivery) = next {
                let delivery = delivery?;
                let tag = delivery.delivery_tag;
                let message = Message::read(delivery);
                let left = message.early_by();
                let copy = left
                    .filter(|left| *left > IN_PLACE_MAX)
                    .map(|left| message.delayed_further(left, deliveries.after(left)));
                let serial = deliveries.unsettled.arrive(tag, message, now);
                if let Some(left) = left {
                    deliveries.unsettled.withdraw(serial);
                    match copy {
                        Some(copy) => early.push((serial, copy)),
                        None => deliveries.unsettled.wait(serial, now + left),
                    }
                }
                next = subscription.next().now_or_never().flatten();
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
        let (publisher, endpoint) = (Arc::clone(&self.publisher), self.shared.endpoint().clone());
        let capacity = self.capacity;
        self.publishing.push(Box::pin(async move {
            let answers = publisher.publish(copies).await.into_iter();
            let answers = answers.map(|answer| answer.map_err(|not_sent| not_sent.at(&endpoint, capacity)));
            Copied::new(which, answers, waiting)
        }));
    }

    async fn settle(&mut self, channel: &Channel, settling: Settling<What>) -> Result<(), lapin::Error> {
        let (begun, waiting) = settling.split();
        let (mut done, mut back, mut which, mut copies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, Begun { number: serial, action, .. }) in begun.into_iter().enumerate() {
            match action {
                What::Acknowledge => done.push(serial),
                What::PutBack => back.push(serial),
                What::Later { after } => self.shared.ledger().unsettled.retry(serial, Instant::now() + after),
                What::Replace(copy) => {
                    which.push((index, serial));
                    copies.push(*copy);
                }
            }
        }
        self.acknowledge(channel, done).await?;
        self.put_back(channel, back).await?;
        if copies.is_empty() {
            waiting.answer();
        } else {
            self.publish(which, copies, Some(waiting));
        }
        Ok(())
    }

    async fn copied(&mut self, channel: &Channel, copied: Copied) -> Result<(), lapin::Error> {
        let (done, failed, waiting) = copied.split();
        for (serial, error) in failed {
            tracing::warn!(endpoint = %self.shared.endpoint(), %error, "a delivery could not be settled: it is put back");
            self.shared.ledger().unsettled.hold(serial, Instant::now() + PUT_BACK_AFTER);
        }
        self.acknowledge(channel, done).await?;
        if let Some(waiting) = waiting {
            waiting.answer();
        }
        Ok(())
    }

    async fn acknowledge(&mut self, channel: &Channel, serials: Vec<u64>) -> Result<(), lapin::Error> {
        let acknowledgements = self.shared.ledger().unsettled.acknowledge(serials);
        for acknowledgement in acknowledgements {
            let (tag, multiple) = match acknowledgement {
                Acknowledgement::One(tag) => (tag, false),
                Acknowledgement::UpTo(tag) => (tag, true),
            };
            channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    async fn put_back(&mut self, channel: &Channel, serials: Vec<u64>) -> Result<(), lapin::Error> {
        for serial in serials {
            let tag = self.shared.ledger().unsettled.put_back(serial);
            if let Some(tag) = tag {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
            }
        }
        Ok(())
    }

    /// Puts back what was not settled in time, and what has waited too long for a receiver.
    async fn look_after(
        &mut self,
        channel: &Channel,
        subscription: &mut Subscription,
        is_draining: bool,
    ) -> Result<(), lapin::Error> {
        let now = Instant::now();
        let (overdue, waited) = {
            let deliveries = self.shared.ledger();
            (deliveries.unsettled.overdue(now), deliveries.unsettled.waited(now))
        };
        if !overdue.is_empty() {
            let (endpoint, count) = (self.shared.endpoint(), overdue.len());
            tracing::warn!(%endpoint, count, "deliveries were not settled in time and are put back");
        }
        self.put_back(channel, overdue).await?;
        if is_draining || waited.is_none_or(|waited| waited < self.settings.waiting_max) {
            return Ok(());
        }
        let is_asked = self.shared.demand().is_some_and(|(ago, _)| ago < self.settings.waiting_max);
        self.change_flow(channel, subscription, if is_asked { Flow::Narrow } else { Flow::Shut }).await
    }

    /// A receiver has asked: messages may come again, as many as it seems to want.
    async fn follow_demand(
        &mut self,
        channel: &Channel,
        subscription: &mut Subscription,
    ) -> Result<(), lapin::Error> {
        match (self.shared.demand(), subscription.flow) {
            (Some((_, max)), _) if max > 1 => self.change_flow(channel, subscription, Flow::Wide).await,
            (Some(_), Flow::Shut) => self.change_flow(channel, subscription, Flow::Narrow).await,
            _ => Ok(()),
        }
    }

    /// Subscribes anew on the same channel, so that what receivers have stays theirs. What waits goes back if
    /// less is to wait.
    async fn change_flow(
        &mut self,
        channel: &Channel,
        subscription: &mut Subscription,
        flow: Flow,
    ) -> Result<(), lapin::Error> {
        self.unsubscribe(channel, subscription).await?;
        if flow != Flow::Wide {
            let waiting = self.shared.ledger().unsettled.take_waiting();
            let (endpoint, count) = (self.shared.endpoint(), waiting.len());
            tracing::debug!(%endpoint, count, ?flow, "messages that waited here too long are put back");
            self.put_back(channel, waiting).await?;
        }
        let prefetch = match flow {
            Flow::Wide => self.settings.prefetch,
            Flow::Narrow => 1,
            Flow::Shut => 0,
        };
        if flow != Flow::Shut {
            subscription.consumer = Some(subscribe(channel, self.queue.clone(), prefetch).await?);
        }
        subscription.flow = flow;
        Ok(())
    }

    /// Ends the deliveries; what is on its way arrives first.
    async fn unsubscribe(
        &mut self,
        channel: &Channel,
        subscription: &mut Subscription,
    ) -> Result<(), lapin::Error> {
        let Some(consumer) = &subscription.consumer else { return Ok(()) };
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
        if let Some(Some(first)) = subscription.next().now_or_never() {
            self.arrive(first?, subscription)?;
        }
        subscription.consumer = None;
        Ok(())
    }

    /// Ends the deliveries for good, and puts back those that no receiver has got.
    async fn stop(&mut self, channel: &Channel, subscription: &mut Subscription) -> Result<(), lapin::Error> {
        self.unsubscribe(channel, subscription).await?;
        let idle = {
            let mut deliveries = self.shared.ledger();
            deliveries.unsettled.take_nothing_more();
            deliveries.unsettled.idle()
        };
        self.shared.close();
        self.put_back(channel, idle).await
    }
}

impl Subscription {
    /// The next delivery; none ever, if there is no consumer.
    async fn next(&mut self) -> Option<Result<lapin::message::Delivery, lapin::Error>> {
        match &mut self.consumer {
            Some(consumer) => consumer.next().await,
            None => std::future::pending().await,
        }
    }
}

/// Begins to consume. The prefetch is that of this consumer alone.
async fn subscribe(channel: &Channel, queue: ShortString, prefetch: u16) -> Result<Consumer, lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    channel.basic_consume(queue, tag, options, FieldTable::default()).await
}
