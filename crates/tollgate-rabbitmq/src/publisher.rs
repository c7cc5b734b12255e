//! Sending with confirmation: a batch is published, then all its confirmations are waited for. A message that
//! no queue took is an error, not a success.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::Semaphore;

use super::link::{ANSWER_WITHIN, Link};
use super::message::Publication;
use super::problem::Problem;

/// Most batches that are on their way at the same time.
const BATCHES_MAX: usize = 8;

/// How long to wait for confirmations. A quorum queue that has lost its leader needs some seconds to elect
/// another one.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// No queue took it: there is none of that name.
    Unroutable,
    /// The queue refused it: it is as long as it may become.
    Refused,
    /// Anything else, as a lost connection.
    Failed(Problem),
}

/// Who sends messages.
pub(super) struct Publisher {
    link: Link,
    /// Channels that nobody uses just now. One that anything went wrong on does not come back.
    idle: Mutex<Vec<Channel>>,
    batches: Semaphore,
}

impl Publisher {
    pub(super) fn new(link: Link) -> Arc<Self> {
        Arc::new(Self { link, idle: Mutex::default(), batches: Semaphore::new(BATCHES_MAX) })
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends messages; one answer each, in their order.
    ///
    /// The batch has a channel of its own. What RabbitMQ returns says which message it was, but the library
    /// hands it out with the next confirmation of that channel, whosever that is: so it must be one of this
    /// batch. For the same reason a channel whose batch was given up half-way is not used again.
    ///
    /// RabbitMQ closes the channel for a message that is larger than it takes, and says nothing about the
    /// others of its batch: each of those that failed with it is sent again by itself.
    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), NotSent>> {
        let _permit = self.batches.acquire().await.expect("the semaphore is never closed");
        if batch.len() <= 1 {
            return self.publish_together(batch).await;
        }
        let mut answers = self.publish_together(batch.clone()).await;
        for (answer, publication) in answers.iter_mut().zip(batch) {
            if let Err(NotSent::Failed(Problem::Standing(_))) = answer
                && let Some(again) = self.publish_together(vec![publication]).await.pop()
            {
                *answer = again;
            }
        }
        answers
    }

    async fn publish_together(&self, batch: Vec<Publication>) -> Vec<Result<(), NotSent>> {
        let channel = match tokio::time::timeout(ANSWER_WITHIN * 2, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(problem)) => return vec![Err(NotSent::Failed(problem)); batch.len()],
            // As in an alarm of memory or disk, in which RabbitMQ does not read what publishers send.
            Err(_) => {
                let problem = Problem::passing("RabbitMQ does not answer");
                return vec![Err(NotSent::Failed(problem)); batch.len()];
            }
        };
        let keys: Vec<_> = batch.iter().map(Recognised::of).collect();
        let publishing = publish_on(&channel, batch);
        let Ok((confirmations, returned)) = tokio::time::timeout(CONFIRM_WITHIN, publishing).await else {
            let problem = Problem::passing(format!("no confirmation within {} s", CONFIRM_WITHIN.as_secs()));
            return vec![Err(NotSent::Failed(problem)); keys.len()];
        };
        if confirmations.iter().all(|confirmation| !matches!(confirmation, Err(NotSent::Failed(_)))) {
            self.idle.lock().expect("nothing panics while it holds the channels").push(channel);
        }
        let answer = |(confirmation, key): (Result<(), NotSent>, Recognised)| {
            confirmation
                .and_then(|()| if returned.contains(&key) { Err(NotSent::Unroutable) } else { Ok(()) })
        };
        confirmations.into_iter().zip(keys).map(answer).collect()
    }

    async fn channel(&self) -> Result<Channel, Problem> {
        loop {
            let idle = self.idle.lock().expect("nothing panics while it holds the channels").pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                Some(_) => {}
                None => break,
            }
        }
        let channel = self.link.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| Problem::of(&error))?;
        Ok(channel)
    }
}

/// By what a returned message is recognised. Copies of one message for one queue share their fate.
#[derive(PartialEq, Eq, Hash)]
struct Recognised {
    exchange: ShortString,
    routing_key: ShortString,
    message_id: Option<ShortString>,
}

impl Recognised {
    fn of(publication: &Publication) -> Self {
        let Publication { exchange, routing_key, properties, .. } = publication;
        let message_id = properties.message_id().clone();
        Self { exchange: exchange.clone(), routing_key: routing_key.clone(), message_id }
    }
}

async fn publish_on(
    channel: &Channel,
    batch: Vec<Publication>,
) -> (Vec<Result<(), NotSent>>, HashSet<Recognised>) {
    let failed = |error: lapin::Error| NotSent::Failed(Problem::of(&error));
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let mut published = Vec::with_capacity(batch.len());
    for Publication { exchange, routing_key, properties, body } in batch {
        published.push(channel.basic_publish(exchange, routing_key, options, &body, properties).await);
    }
    let mut answers = Vec::with_capacity(published.len());
    let mut returned = HashSet::new();
    for confirm in published {
        let confirmation = match confirm {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        answers.push(match &confirmation {
            Ok(Confirmation::Ack(_)) => Ok(()),
            Ok(Confirmation::Nack(_)) => Err(NotSent::Refused),
            Ok(Confirmation::NotRequested) => {
                Err(NotSent::Failed(Problem::passing("the channel confirms nothing")))
            }
            Err(error) => Err(failed(error.clone())),
        });
        if let Some(message) = confirmation.ok().and_then(Confirmation::take_message) {
            let message = message.delivery;
            let message_id = message.properties.message_id().clone();
            returned.insert(Recognised {
                exchange: message.exchange,
                routing_key: message.routing_key,
                message_id,
            });
        }
    }
    (answers, returned)
}
