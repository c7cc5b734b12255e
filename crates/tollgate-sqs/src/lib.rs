//! Amazon SQS: a standard or FIFO queue for each endpoint, and one for its dead letters. This file is the
//! broker's face; calls with ten entries are in `batches`, how messages are taken in `receiving`, what errors
//! mean in `failure`.

mod batches;
mod builder;
mod failure;
mod message;
mod provisioning;
mod receiving;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry,
};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{
    Broker, BrokerError, Delivery, EndpointName, OutgoingMessage, Receipt, Settlement, Verdict,
};

use self::batches::Outcomes;
use self::builder::Settings;
pub use self::builder::{Provisioning, QueueKind, SqsBuilder};
pub use self::provisioning::SqsDepth;
use self::receiving::{Extender, Handle, Receiver};
use tollgate_broker_kit::EndpointCounters;
use tollgate_broker_kit::queue_name;
use tollgate_broker_kit::{Arrival, Held, Inbox};

/// Longest name of a queue, with `.fifo`: a limit of SQS.
const QUEUE_NAME_MAX: usize = 80;

/// Most calls of one batch of the engine under way at a time.
const CALLS_MAX: usize = 16;

/// Longest time for which SQS hides a message: 12 hours, a limit of SQS.
const HIDDEN_SECONDS_MAX: u64 = 12 * 3600;

/// A broker on Amazon SQS.
///
/// The envelope travels in the body, in base64; trace context as message attributes. While a delivery is
/// unsettled its visibility timeout is extended, until [`SqsBuilder::hold_max`] has passed.
pub struct SqsBroker {
    client: Client,
    settings: Settings,
    endpoints: Mutex<HashMap<EndpointName, Arc<Endpoint>>>,
}

/// What is known of an endpoint.
struct Endpoint {
    name: EndpointName,
    url: String,
    /// Where dead letters go.
    dead_url: String,
    counters: Arc<EndpointCounters>,
    inbox: OnceLock<Inbox<Handle>>,
}

impl SqsBroker {
    /// Begins a broker on a client of your own. Calls have a time limit even if the client has none.
    pub fn on(client: &Client) -> SqsBuilder {
        SqsBuilder::new(client)
    }

    /// What this process has of an endpoint's messages.
    pub fn held(&self, endpoint: &EndpointName) -> Held {
        let endpoint = self.endpoints().get(endpoint).cloned();
        endpoint.and_then(|endpoint| endpoint.inbox.get().map(Inbox::held)).unwrap_or_default()
    }

    /// Stops taking messages, and gives back what no receiver has seen. What receivers have can still be
    /// settled. Close the gate first.
    pub async fn close(&self) {
        let endpoints: Vec<_> = self.endpoints().values().cloned().collect();
        // All together: each may wait for a long poll.
        join_all(endpoints.iter().filter_map(|endpoint| endpoint.inbox.get()).map(Inbox::close)).await;
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<EndpointName, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_name(&self, endpoint: &EndpointName, suffix: &str) -> String {
        let ending = format!("{suffix}{}", self.settings.kind.ending());
        let room = QUEUE_NAME_MAX - ending.len() - self.settings.prefix.len();
        format!("{}{}{ending}", self.settings.prefix, queue_name::legal_beside_dead(endpoint, room))
    }

    /// What is known of an endpoint; its queues are there afterwards, if they are for this broker to make.
    /// Without a lock: callers that come together ask together, which does no harm.
    async fn endpoint(&self, name: &EndpointName) -> Result<Arc<Endpoint>, BrokerError> {
        if let Some(endpoint) = self.endpoints().get(name) {
            return Ok(Arc::clone(endpoint));
        }
        if self.settings.provisioning == Provisioning::OnUse {
            self.provision(name).await?;
        }
        let url = self.url(name, &self.queue_name(name, "")).await?;
        let dead_url = self.url(name, &self.queue_name(name, queue_name::DEAD)).await?;
        let made = || {
            let counters = Arc::new(EndpointCounters::new(name));
            Arc::new(Endpoint { name: name.clone(), url, dead_url, counters, inbox: OnceLock::new() })
        };
        Ok(Arc::clone(self.endpoints().entry(name.clone()).or_insert_with(made)))
    }

    fn inbox<'a>(&self, endpoint: &'a Endpoint) -> &'a Inbox<Handle> {
        endpoint.inbox.get_or_init(|| {
            let timeout = self.settings.inbox.visibility_timeout;
            let receiver = |_| {
                Receiver::new(
                    self.client.clone(),
                    endpoint.name.clone(),
                    endpoint.url.clone(),
                    &self.settings,
                )
            };
            let receivers = (0..self.settings.receivers).map(receiver).collect();
            let keeper =
                Extender::new(self.client.clone(), endpoint.name.clone(), endpoint.url.clone(), timeout);
            let counters = Arc::clone(&endpoint.counters);
            Inbox::open(endpoint.name.clone(), self.settings.inbox, receivers, Arc::new(keeper), counters)
        })
    }

    async fn send_to(&self, name: &EndpointName, messages: Vec<OutgoingMessage>) -> Outcomes {
        let endpoint = match self.endpoint(name).await {
            Ok(endpoint) => endpoint,
            Err(error) => return messages.iter().map(|_| Err(error.clone())).collect(),
        };
        let kind = self.settings.kind;
        let entries = messages.into_iter().map(|message| message::entry(&message, kind)).collect();
        let outcomes = self.send_entries(name, &endpoint.url, entries).await;
        endpoint.counters.sent(outcomes.iter().filter(|outcome| outcome.is_ok()).count());
        outcomes
    }

    /// Sends entries to a queue, each with its size or the reason why it can't be sent.
    async fn send_entries(
        &self,
        name: &EndpointName,
        url: &str,
        entries: Vec<Result<(SendMessageBatchRequestEntry, usize), BrokerError>>,
    ) -> Outcomes {
        batches::call(
            entries,
            |batch| async move {
                let sent =
                    self.client.send_message_batch().queue_url(url).set_entries(Some(batch)).send().await;
                sent.map(|sent| sent.failed).map_err(|error| failure::of_call(name, &error))
            },
            name,
        )
        .await
    }

    async fn delete(&self, endpoint: &Endpoint, handles: Vec<Handle>) -> Outcomes {
        let (name, url) = (&endpoint.name, endpoint.url.as_str());
        let entry = |handle: Handle| {
            let entry = DeleteMessageBatchRequestEntry::builder().id("0").receipt_handle(handle.receipt);
            entry
                .build()
                .map(|entry| (entry, 0))
                .map_err(|error| failure::misconfigured(name, error.to_string()))
        };
        batches::call(
            handles.into_iter().map(entry).collect(),
            |batch| async move {
                let deleted =
                    self.client.delete_message_batch().queue_url(url).set_entries(Some(batch)).send().await;
                deleted.map(|deleted| deleted.failed).map_err(|error| failure::of_call(name, &error))
            },
            name,
        )
        .await
    }

    async fn dead_letter(&self, endpoint: &Endpoint, letters: Vec<(Arrival<Handle>, String)>) -> Outcomes {
        let (name, kind) = (&endpoint.name, self.settings.kind);
        let handles: Vec<Handle> = letters.iter().map(|(arrival, _)| arrival.handle.clone()).collect();
        let entries =
            letters.into_iter().map(|(arrival, reason)| message::dead_letter(name, arrival, &reason, kind));
        let mut outcomes = self.send_entries(name, &endpoint.dead_url, entries.collect()).await;
        let (places, sent): (Vec<_>, Vec<_>) =
            handles.into_iter().enumerate().filter(|(place, _)| outcomes[*place].is_ok()).unzip();
        for (place, outcome) in places.into_iter().zip(self.delete(endpoint, sent).await) {
            outcomes[place] = outcome;
        }
        outcomes
    }
}

/// Hides messages for some seconds more, or shows them again.
async fn hide(client: &Client, name: &EndpointName, url: &str, handles: Vec<(Handle, u64)>) -> Outcomes {
    let entry = |(handle, seconds): (Handle, u64)| {
        let seconds = i32::try_from(seconds.min(HIDDEN_SECONDS_MAX)).unwrap_or(i32::MAX);
        let entry =
            ChangeMessageVisibilityBatchRequestEntry::builder().id("0").receipt_handle(handle.receipt);
        let entry = entry.visibility_timeout(seconds).build();
        entry.map(|entry| (entry, 0)).map_err(|error| failure::misconfigured(name, error.to_string()))
    };
    batches::call(
        handles.into_iter().map(entry).collect(),
        |batch| async move {
            let call = client.change_message_visibility_batch().queue_url(url).set_entries(Some(batch));
            call.send().await.map(|changed| changed.failed).map_err(|error| failure::of_call(name, &error))
        },
        name,
    )
    .await
}

impl Broker for SqsBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            let count = messages.len();
            let mut by_endpoint: HashMap<EndpointName, (Vec<usize>, Vec<OutgoingMessage>)> = HashMap::new();
            for (place, message) in messages.into_iter().enumerate() {
                let (places, messages) = by_endpoint.entry(message.endpoint.clone()).or_default();
                places.push(place);
                messages.push(message);
            }
            let mut answers: Vec<Option<Result<(), BrokerError>>> = vec![None; count];
            let mut sending = stream::iter(by_endpoint)
                .map(
                    |(name, (places, messages))| async move { (places, self.send_to(&name, messages).await) },
                )
                .buffer_unordered(CALLS_MAX);
            while let Some((places, outcomes)) = sending.next().await {
                for (place, outcome) in places.into_iter().zip(outcomes) {
                    answers[place] = Some(outcome);
                }
            }
            answers
                .into_iter()
                .map(|answer| answer.expect("each endpoint answers for its messages"))
                .collect()
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let endpoint = self.endpoint(&endpoint).await?;
            self.inbox(&endpoint).receive(max).await
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let name = endpoint.clone();
        Box::pin(async move {
            let endpoint = match self.endpoint(&name).await {
                Ok(endpoint) => endpoint,
                Err(error) => return settlements.iter().map(|_| Err(error.clone())).collect(),
            };
            // Settled before, or given up: then it comes again, and that is all that can be said of it.
            let mut answers: Vec<Result<(), BrokerError>> = vec![Ok(()); settlements.len()];
            let mut verdicts = Vec::with_capacity(settlements.len());
            let (mut done, mut later, mut dead) = (Vec::new(), Vec::new(), Vec::new());
            let inbox = self.inbox(&endpoint);
            let take = |receipt: &Receipt| inbox.take(receipt);
            for (place, Settlement { receipt, verdict }) in settlements.into_iter().enumerate() {
                if let Some(arrival) = take(&receipt) {
                    match &verdict {
                        Verdict::Acknowledge => done.push((place, arrival.handle)),
                        Verdict::Retry { after } => {
                            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                            later.push((place, (arrival.handle, seconds)));
                        }
                        Verdict::DeadLetter { reason } => dead.push((place, (arrival, reason.clone()))),
                    }
                }
                verdicts.push(verdict);
            }
            let (done_places, done): (Vec<_>, Vec<_>) = done.into_iter().unzip();
            let (later_places, later): (Vec<_>, Vec<_>) = later.into_iter().unzip();
            let (dead_places, dead): (Vec<_>, Vec<_>) = dead.into_iter().unzip();
            let (done, later, dead) = tokio::join!(
                self.delete(&endpoint, done),
                hide(&self.client, &endpoint.name, &endpoint.url, later),
                self.dead_letter(&endpoint, dead),
            );
            let places = done_places.into_iter().chain(later_places).chain(dead_places);
            for (place, outcome) in places.zip(done.into_iter().chain(later).chain(dead)) {
                if outcome.is_ok() {
                    endpoint.counters.settled(&verdicts[place]);
                }
                answers[place] = outcome;
            }
            answers
        })
    }

    /// With [`Provisioning::OnUse`] the queues are made first.
    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        let name = endpoint.clone();
        Box::pin(async move {
            self.endpoint(&name).await?;
            for difference in self.differences(&name).await? {
                tracing::warn!(endpoint = %name, difference, "a queue is not as it would have been made");
            }
            Ok(())
        })
    }
}

impl fmt::Debug for SqsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsBroker").field("settings", &self.settings).finish_non_exhaustive()
    }
}
