//! What exists in RabbitMQ for an endpoint, what it is called, how it is made and how it is looked at.
//!
//! | what | name | what for |
//! |---|---|---|
//! | queue | the endpoint's name | its messages |
//! | queue | the same with `.dead` | its dead letters, bound to the next |
//! | direct exchange | `tollgate.dead-letters` | what is put aside, by us with a reason, or by RabbitMQ at its own limit |
//! | queue and fan-out exchange for each class of delays | `tollgate.delay.100ms` | messages of all endpoints that wait; the routing key leads them back |
//!
//! All queues are quorum queues, which are replicated, count deliveries, and move expired messages at least once.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tollgate_proto::{BrokerError, EndpointName};

use super::delay_classes::{DelayClasses, milliseconds};
use super::link::{ANSWER_WITHIN, Link};
use super::problem::Problem;

/// After how many deliveries of one copy RabbitMQ puts a message aside by itself. RabbitMQ 4 does so after 20 if nobody says
/// otherwise; the engine has its own limit, and knows a better reason.
const DELIVERY_LIMIT: u32 = 10_000;

/// Longest name in AMQP 0-9-1, in bytes.
const NAME_BYTES_MAX: usize = 255;

const DEAD_LETTERS: &str = "tollgate.dead-letters";
const DEAD_QUEUE_ENDING: &str = ".dead";
const DELAY: &str = "tollgate.delay.";

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
        if name.len() + DEAD_QUEUE_ENDING.len() > NAME_BYTES_MAX {
            let reason = format!(
                "its queue's name is too long: {} bytes with prefix and {DEAD_QUEUE_ENDING}, and RabbitMQ takes {NAME_BYTES_MAX}",
                name.len() + DEAD_QUEUE_ENDING.len()
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

    /// The exchange before the queue in which a message waits for at least so long.
    pub(super) fn delay_exchange(&self, delay: Duration) -> ShortString {
        self.delay_name(self.delays.of(delay))
    }

    fn delay_name(&self, class: Duration) -> ShortString {
        format!("{}{DELAY}{}ms", self.prefix, milliseconds(class)).into()
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
            let name = self.delay_name(class);
            let mut arguments = moving_on(&DEFAULT_EXCHANGE.into());
            let time_to_live = i64::try_from(milliseconds(class)).unwrap_or(i64::MAX);
            arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(time_to_live));
            let exchange = Some((name.clone(), ExchangeKind::Fanout, ShortString::default()));
            Piece { queue: name, arguments, exchange }
        };
        // Those first that others refer to, so that a process that starts at the same time finds a way that leads on.
        Ok([dead, main].into_iter().chain(self.delays.iter().map(delay)).collect())
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
                delayed += count(self.delay_name(class)).await?;
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
            for piece in pieces {
                piece.look(&channel).await.map_err(|error| Problem::of(&error))?;
                // It exists: declaring it changes nothing, and compares the arguments.
                piece.declare(&channel).await.map_err(|error| Problem::of(&error))?;
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
    /// Waiting for a receiver. RabbitMQ does not tell over AMQP how many have been delivered and are not settled.
    pub ready: u64,
    /// Delayed, of all endpoints together.
    pub delayed: u64,
    /// Put aside.
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

/// A quorum queue whose messages, when it is done with them, move to an exchange and are not gone before they arrived. That
/// RabbitMQ does so at least once wants a queue that refuses what is too much instead of dropping what is there.
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
