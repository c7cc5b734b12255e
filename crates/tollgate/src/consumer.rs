//! The consumer loop of one endpoint: takes no more messages from the broker than the endpoint's window has room for,
//! drops the duplicates it knows of, and gives the rest to their partitions' lanes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tollgate_proto::{
    Content, Delivery, Destination, EndpointName, Envelope, InvalidName, MessageId, MessageType,
    PartitionKey, Verdict, codec, codec::DecodeError,
};

use crate::backoff::Backoff;
use crate::cause::Again;
use crate::engine::Engine;
use crate::handler::{CheckedEndpoint, Foreign, ForeignReader};
use crate::lanes::{AnswerTo, Job, LaneKey, MessageJob};
use crate::limited::guarded;
use crate::put_backs::MessageKey;
use crate::retry_policy::RetryPolicy;

/// Most messages taken from the broker at a time.
const RECEIVE_MAX: usize = 128;

/// Takes messages until `closing`. Those it has taken by then are processed.
pub(crate) async fn consume(engine: Arc<Engine>, endpoint: usize, closing: CancellationToken) {
    let name = engine.endpoints[endpoint].name.clone();
    let concurrency = engine.endpoints[endpoint].concurrency;
    let window = Arc::clone(&engine.endpoints[endpoint].window);
    let mut failures = 0;
    while !closing.is_cancelled() {
        let Some(Some(mut permits)) = closing.run_until_cancelled(room(&window, concurrency)).await else {
            break;
        };
        if let Some(pause) = engine.pause(endpoint) {
            // One message is enough to see whether calls succeed again; the others stay in the queue.
            permits = permits.split(1).unwrap_or(permits);
            engine.counters.pauses.add(1);
            closing.run_until_cancelled(engine.tasks.runtime().sleep(pause)).await;
        }
        let max = permits.num_permits();
        // Dropping the receive loses nothing: what it had taken is delivered again.
        let Some(received) = closing.run_until_cancelled(engine.broker.receive(&name, max)).await else {
            break;
        };
        match received {
            Ok(deliveries) => {
                failures = 0;
                engine.counters.deliveries.add(deliveries.len());
                for delivery in deliveries {
                    let permit = permits.split(1);
                    debug_assert!(permit.is_some(), "the broker gave more than was asked for");
                    // A broker that gives too many is borne: the window overflows by what it gave.
                    let permit = permit
                        .unwrap_or_else(|| permits.split(0).expect("splitting off nothing always succeeds"));
                    let Delivery { envelope, receipt, delivery_count } = delivery;
                    let read = read(&engine, endpoint, &envelope);
                    admit(&engine, endpoint, read, delivery_count, AnswerTo::Broker(receipt), permit);
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(endpoint = %name, %error, "receiving failed");
                let wait = if error.is_retryable() {
                    Backoff::IN_PLACE.after(failures, engine.tasks.runtime())
                } else {
                    UNUSABLE_WAIT
                };
                closing.run_until_cancelled(engine.tasks.runtime().sleep(wait)).await;
            }
        }
    }
}

/// How long to leave a broker alone that says that it can't be used at all.
const UNUSABLE_WAIT: Duration = Duration::from_secs(5);

/// Waits until the window has room, and takes as much of it as one call to the broker can use.
async fn room(window: &Arc<Semaphore>, concurrency: usize) -> Option<OwnedSemaphorePermit> {
    let mut permits = Arc::clone(window).acquire_owned().await.ok()?;
    let more = window.available_permits().min(RECEIVE_MAX.min(concurrency) - 1);
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    if more > 0
        && let Ok(others) = Arc::clone(window).try_acquire_many_owned(more)
    {
        permits.merge(others);
    }
    Some(permits)
}

/// Why a broker message is no envelope.
pub(crate) struct Unreadable {
    pub(crate) reason: String,
    /// What it is counted by if a later version of this process may read it. `None`: it never will be read.
    pub(crate) key: Option<MessageKey>,
}

/// What a broker message says: an envelope, or what the endpoint makes of a foreign one.
pub(crate) fn read(engine: &Engine, endpoint: usize, bytes: &Bytes) -> Result<Envelope, Unreadable> {
    let error = match codec::decode_envelope(bytes) {
        Ok(envelope) => return Ok(envelope),
        Err(error) => error,
    };
    let key = || Some(MessageKey::of_bytes(endpoint, bytes));
    let checked = &engine.endpoints[endpoint];
    match &checked.foreign {
        None => {
            let reason = format!("the broker message is not an envelope: {error}");
            Err(Unreadable { reason, key: if is_newer(&error) { key() } else { None } })
        }
        Some(foreign) => {
            read_foreign(checked, foreign, bytes, &error).map_err(|reason| Unreadable { reason, key: key() })
        }
    }
}

/// Whether a later version may have written it: the formats are numbered from 1, and text does not begin like that.
pub(crate) const fn is_newer(error: &DecodeError) -> bool {
    matches!(error, DecodeError::UnknownFormat { format, .. } if *format > codec::FORMAT && *format < b' ')
}

fn read_foreign(
    endpoint: &CheckedEndpoint,
    foreign: &ForeignReader,
    bytes: &Bytes,
    error: &DecodeError,
) -> Result<Envelope, String> {
    let read = guarded(|| foreign(bytes))
        .map_err(|panicked| format!("the endpoint's reader of foreign messages failed: {panicked}"))?;
    let Foreign { id, partition, message_type, body } = read.map_err(|reason| {
        format!("the broker message is neither an envelope ({error}) nor known: {reason}")
    })?;
    let of_names = |error: InvalidName| format!("the foreign message {id}: {error}");
    Ok(Envelope {
        message_id: MessageId::from_name(endpoint.name.as_str(), &id),
        to: Destination {
            endpoint: endpoint.name.clone(),
            partition: PartitionKey::new(partition).map_err(of_names)?,
        },
        message_type: MessageType::new(message_type).map_err(of_names)?,
        headers: Vec::new(),
        content: Content::Body(body),
    })
}

/// Takes a message in: what needs no processing is answered at once, the rest goes to its partition's lane.
pub(crate) fn admit(
    engine: &Arc<Engine>,
    endpoint: usize,
    read: Result<Envelope, Unreadable>,
    delivery_count: u32,
    answer_to: AnswerTo,
    permit: OwnedSemaphorePermit,
) {
    let checked = &engine.endpoints[endpoint];
    let envelope = match read {
        Ok(envelope) => envelope,
        Err(unreadable) => {
            let policy = checked.retry.unwrap_or(engine.settings.retry);
            let verdict = engine.refuse(unreadable, Some(&checked.name), policy, delivery_count);
            return engine.answer(endpoint, answer_to, verdict);
        }
    };
    if envelope.to.endpoint != checked.name {
        engine.counters.dead_letters.add(1);
        let reason = format!(
            "message {} is addressed to endpoint {} but arrived in the queue of endpoint {}: send it there again",
            envelope.message_id, envelope.to.endpoint, checked.name
        );
        return engine.answer(endpoint, answer_to, Verdict::DeadLetter { reason });
    }
    if let Some(token) = envelope.token()
        && engine.consumed.contains(envelope.message_id, token)
    {
        engine.counters.duplicates_by_cache.add(1);
        return engine.answer(endpoint, answer_to, Verdict::Acknowledge);
    }
    let key = LaneKey { store: checked.store, partition: envelope.to.partition.clone() };
    let envelope = Arc::new(envelope);
    let entered = engine.in_progress.enter(endpoint, &envelope, answer_to, engine.now_ms());
    let Some((answer_to, ticket)) = entered else {
        // It takes no place of its own: its verdict is that of the one in progress.
        engine.counters.copies_attached.add(1);
        return;
    };
    let job = MessageJob { endpoint, envelope, answer_to, delivery_count, permit, ticket };
    engine.submit(key, Job::Message(job));
}

impl Engine {
    /// What becomes of a message that can't be read: it is put back up to the limit of deliveries if a later version may
    /// read it, since another process may have been upgraded already, and dead-lettered otherwise.
    pub(crate) fn refuse(
        &self,
        unreadable: Unreadable,
        endpoint: Option<&EndpointName>,
        policy: RetryPolicy,
        delivery_count: u32,
    ) -> Verdict {
        let Unreadable { reason, key } = unreadable;
        let endpoint = endpoint.map(tracing::field::display);
        if let Some(key) = key {
            let counts = self.put_backs.count_failure(&key);
            if counts.failures < policy.deliveries_max {
                self.counters.retries.add(1);
                tracing::warn!(endpoint, %reason, "message not readable; put back");
                let times = counts.total().max(delivery_count);
                return Verdict::Retry { after: policy.wait(Again::BackOff, times, self.tasks.runtime()) };
            }
            self.put_backs.forget(&key);
        }
        self.counters.dead_letters.add(1);
        tracing::warn!(endpoint, %reason, "message not readable; dead-lettered");
        Verdict::DeadLetter { reason }
    }
}
