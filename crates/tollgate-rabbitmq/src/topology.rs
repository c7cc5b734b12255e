//! What exists in RabbitMQ for an endpoint, what it is called, how it is made and how it is looked at.
//!
//! | what | name | what for |
//! |---|---|---|
//! | queue | the endpoint's name | its messages |
//! | queue | the same with `.dead` | its dead letters, bound to the next |
//! | direct exchange | `tollgate.dead-letters` | what is put aside, by us with a reason, or by RabbitMQ at its own limit |
//! | queue for each class of delays | the same with `.delay.15000ms` | messages that wait; it moves them to the endpoint's queue |
//!
//! Delays are an endpoint's own: messages whose queue is gone or full would hold up those of all others in a
//! queue that is shared.
//!
//! All queues are quorum queues, which are replicated, count deliveries, and move expired messages at least
//! once.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tollgate_proto::{BrokerError, EndpointName};

use super::consumer::IN_PLACE_MAX;
use super::delay_classes::{DelayClasses, milliseconds};
use super::link::{ANSWER_WITHIN, Link};
use super::message::Route;
use super::problem::Problem;

/// After how many deliveries of one copy RabbitMQ puts a message aside by itself. RabbitMQ 4 does so after 20
/// if nobody says otherwise; the engine has its own limit, and knows a better reason.
const DELIVERY_LIMIT: u32 = 10_000;

/// Longest name in AMQP 0-9-1, in bytes.
const NAME_BYTES_MAX: usize = 255;

const DEAD_LETTERS: &str = "tollgate.dead-letters";
const DEAD_QUEUE_ENDING: &str = ".dead";
const DELAY: &str = ".delay.";

/// Room behind the endpoint's name, in bytes: for the longest of the endings above with a class in
/// milliseconds.
const ENDING_BYTES_MAX: usize = 32;

/// AMQP's reply code for what a user may not do.
const ACCESS_REFUSED: u16 = 403;

/// RabbitMQ's default exchange, which leads to the queue that is called like the routing key.
pub(super) const DEFAULT_EXCHANGE: &str = "";

/// How everything is called and made.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) prefix: String,
    pub(super) delays: DelayClasses,
    /// How many messages an endpoint's queue takes, if there is a limit.
    pub(super) capacity: Option<u32>,
}

/// One queue and what leads to it.
struct Piece {
    queue: ShortString,
    arguments: FieldTable,
    exchange: Option<(ShortString, ExchangeKind, ShortString)>,
}

impl Topology {
    pub(super) fn queue(&self, endpoint: &EndpointName) -> Result<ShortString, BrokerError> {
        let name = format!("{}{endpoint}", self.prefix);
        if name.len() + ENDING_BYTES_MAX > NAME_BYTES_MAX {
            let reason = format!(
                "its queue's name is too long: {} bytes with the prefix and what stands behind it, and RabbitMQ takes {NAME_BYTES_MAX}",
                name.len() + ENDING_BYTES_MAX
            );
            return Err(BrokerError::Misconfigured { endpoint: endpoint.clone(), reason });
        }
        Ok(name.into())
    }

    pub(super) fn dead_queue(&self, endpoint: &EndpointName) -> Result<ShortString, BrokerError> {
        Ok(format!("{}{DEAD_QUEUE_ENDING}", self.queue(endpoint)?).into())
    }

    pub(super) fn dead_letters(&self) -> ShortString {
        format!("{}{DEAD_LETTERS}", self.prefix).into()
    }

    /// The way of a message that comes after a delay: to the queue in which it waits for at least so long,
    /// or, if the consumer can wait for it, to the endpoint's queue. By the default exchange, so that a queue
    /// that is missing is noticed.
    pub(super) fn route(&self, queue: &ShortString, delay: Duration) -> Route {
        let routing_key =
            if delay <= IN_PLACE_MAX { queue.clone() } else { delay_queue(queue, self.delays.of(delay)) };
        Route { exchange: DEFAULT_EXCHANGE.into(), routing_key }
    }

    fn pieces(&self, endpoint: &EndpointName) -> Result<Vec<Piece>, BrokerError> {
        let queue = self.queue(endpoint)?;
        let mut arguments = moving_on(&self.dead_letters());
        insert_text(&mut arguments, "x-dead-letter-routing-key", queue.as_str());
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT.cast_signed()));
        if let Some(capacity) = self.capacity {
            arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(capacity.into()));
        }
        let main = Piece { queue: queue.clone(), arguments, exchange: None };
        let dead = Piece {
            queue: self.dead_queue(endpoint)?,
            arguments: quorum(),
            exchange: Some((self.dead_letters(), ExchangeKind::Direct, queue)),
        };
        let delay = |class| {
            let mut arguments = moving_on(&DEFAULT_EXCHANGE.into());
            insert_text(&mut arguments, "x-dead-letter-routing-key", main.queue.as_str());
            let time_to_live = i64::try_from(milliseconds(class)).unwrap_or(i64::MAX);
            arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(time_to_live));
            if let Some(capacity) = self.capacity {
                arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(capacity.into()));
            }
            Piece { queue: delay_queue(&main.queue, class), arguments, exchange: None }
        };
        let delays: Vec<_> = self.delays.iter().map(delay).collect();
        // Those first that others refer to, so that a process that starts at the same time finds a way that
        // leads on.
        Ok([dead, main].into_iter().chain(delays).collect())
    }

    /// Makes what is missing; what is there already must be as it should be.
    pub(super) async fn provision(&self, link: &Link, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let pieces = self.pieces(endpoint)?;
        let declaring = async {
            let channel = link.channel().await?;
            for piece in pieces {
                piece.declare(&channel).await.map_err(|error| Problem::of(&error))?;
            }
            close(channel).await;
            Ok(())
        };
        in_time(declaring).await.map_err(|problem| problem.at(endpoint))
    }

    /// Counts the messages of an endpoint.
    pub(super) async fn depth(
        &self,
        link: &Link,
        endpoint: &EndpointName,
    ) -> Result<RabbitMqDepth, BrokerError> {
        let (queue, dead) = (self.queue(endpoint)?, self.dead_queue(endpoint)?);
        let counting = async {
            let channel = link.channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            let count = async |queue: ShortString| {
                let looked = channel.queue_declare(queue, passive, FieldTable::default()).await;
                looked.map(|queue| u64::from(queue.message_count())).map_err(|error| Problem::of(&error))
            };
            let mut delayed = 0;
            for class in self.delays.iter() {
                delayed += count(delay_queue(&queue, class)).await?;
            }
            // After the delayed ones: what moves on meanwhile is counted twice and not missed.
            let depth = RabbitMqDepth { ready: count(queue).await?, delayed, dead: count(dead).await? };
            close(channel).await;
            Ok(depth)
        };
        in_time(counting).await.map_err(|problem| problem.at(endpoint))
    }

    /// Whether everything is there and as it should be. Nothing is made.
    pub(super) async fn verify(&self, link: &Link, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let pieces = self.pieces(endpoint)?;
        let looking = async {
            let channel = link.channel().await?;
            for piece in &pieces {
                piece.look(&channel).await.map_err(|error| Problem::of(&error))?;
            }
            // They exist: declaring them changes nothing, and compares the arguments. It takes the right to
            // configure, which a service need not have; RabbitMQ closes the channel of one that has not.
            for piece in &pieces {
                match piece.declare(&channel).await {
                    Ok(()) => {}
                    Err(error) if is_refused(&error) => {
                        tracing::debug!(%endpoint, "the queues exist; without the right to configure their arguments are not compared");
                        return Ok(());
                    }
                    Err(error) => return Err(Problem::of(&error)),
                }
            }
            close(channel).await;
            Ok(())
        };
        in_time(looking).await.map_err(|problem| problem.at(endpoint))
    }
}

/// How many messages of an endpoint are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RabbitMqDepth {
    /// Waiting for a receiver. RabbitMQ does not tell over AMQP how many have been delivered and are not
    /// settled.
    pub ready: u64,
    /// Messages whose delay is not over.
    pub delayed: u64,
    /// Messages that were put aside.
    pub dead: u64,
}

impl Piece {
    async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        channel
            .queue_declare(self.queue.clone(), QueueDeclareOptions::durable(), self.arguments.clone())
            .await?;
        if let Some((exchange, kind, key)) = &self.exchange {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.clone(), kind.clone(), options, FieldTable::default()).await?;
            let (queue, exchange, key) = (self.queue.clone(), exchange.clone(), key.clone());
            channel
                .queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default())
                .await?;
        }
        Ok(())
    }

    async fn look(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        channel.queue_declare(self.queue.clone(), passive, FieldTable::default()).await?;
        if let Some((exchange, kind, _)) = &self.exchange {
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.clone(), kind.clone(), passive, FieldTable::default()).await?;
        }
        Ok(())
    }
}

fn delay_queue(queue: &ShortString, class: Duration) -> ShortString {
    format!("{queue}{DELAY}{}ms", milliseconds(class)).into()
}

/// RabbitMQ does not let this user do so.
fn is_refused(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(said) if said.get_id() == ACCESS_REFUSED)
}

async fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    // A cluster needs some time for each new queue.
    match tokio::time::timeout(ANSWER_WITHIN * 3, work).await {
        Ok(done) => done,
        Err(_) => Err(Problem::passing("RabbitMQ does not answer")),
    }
}

async fn close(channel: Channel) {
    let _ = channel.close(super::link::REPLY_SUCCESS, "done".into()).await;
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert_text(&mut arguments, "x-queue-type", "quorum");
    arguments
}

/// A quorum queue whose messages, when it is done with them, move to an exchange and are not gone before they
/// arrived. That RabbitMQ does so at least once wants a queue that refuses what is too much instead of
/// dropping what is there.
fn moving_on(exchange: &ShortString) -> FieldTable {
    let mut arguments = quorum();
    insert_text(&mut arguments, "x-dead-letter-exchange", exchange.as_str());
    insert_text(&mut arguments, "x-dead-letter-strategy", "at-least-once");
    insert_text(&mut arguments, "x-overflow", "reject-publish");
    arguments
}

fn insert_text(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(value.into()));
}
