//! The consumer loop of one endpoint: takes no more messages from the broker than the endpoint's window has room for,
//! drops the duplicates it knows of, and gives the rest to their partitions' lanes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tollgate_proto::{
    Content, Delivery, Destination, EndpointName, Envelope, InvalidName, MessageId, MessageType,
    PartitionKey, Verdict, codec,
};

use crate::backoff::Backoff;
use crate::engine::Engine;
use crate::handler::{CheckedEndpoint, Foreign};
use crate::lanes::{AnswerTo, Job, LaneKey, MessageJob};
use crate::limited::guarded;

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
            // One message is enough to see whether the trouble is over; the others stay where nobody counts their deliveries.
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
                    let read = read(&engine.endpoints[endpoint], &envelope);
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

/// A broker message that could not be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) reason: String,
    /// Whether another process, or a later release of this one, may be able to read it.
    pub(crate) is_retryable: bool,
}

impl Unreadable {
    pub(crate) fn for_good(reason: String) -> Self {
        Self { reason, is_retryable: false }
    }
}

/// Reads a broker message: an envelope, or what the endpoint makes of a foreign one.
pub(crate) fn read(endpoint: &CheckedEndpoint, bytes: &Bytes) -> Result<Envelope, Unreadable> {
    let error = match codec::decode_envelope(bytes) {
        Ok(envelope) => return Ok(envelope),
        Err(error) => error,
    };
    let Some(foreign) = &endpoint.foreign else {
        return Err(Unreadable::for_good(format!("the broker message is not an envelope: {error}")));
    };
    let read = guarded(|| foreign(bytes)).map_err(|panicked| Unreadable {
        reason: format!("the endpoint's reader of foreign messages failed: {panicked}"),
        is_retryable: true,
    })?;
    let Foreign { id, partition, message_type, body } = read.map_err(|reason| {
        let reason = format!("the broker message is neither an envelope ({error}) nor known: {reason}");
        Unreadable::for_good(reason)
    })?;
    let of_names = |error: InvalidName| Unreadable::for_good(format!("the foreign message {id}: {error}"));
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

/// The verdict on a message that could not be read: put back while that may help, up to the limit of deliveries.
fn unreadable_verdict(
    engine: &Engine,
    endpoint: &EndpointName,
    Unreadable { reason, is_retryable }: Unreadable,
    delivery_count: u32,
) -> Verdict {
    if is_retryable && delivery_count < engine.settings.deliveries_max {
        engine.counters.retries.add(1);
        tracing::warn!(%endpoint, delivery_count, reason, "unreadable broker message put back");
        let after = engine.settings.redelivery.after(delivery_count, engine.tasks.runtime());
        return Verdict::Retry { after };
    }
    engine.counters.dead_letters.add(1);
    tracing::warn!(%endpoint, delivery_count, reason, "unreadable broker message dead-lettered");
    Verdict::DeadLetter { reason }
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
            let verdict = unreadable_verdict(engine, &checked.name, unreadable, delivery_count);
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
