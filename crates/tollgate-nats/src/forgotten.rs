//! Acknowledgements that the server has forgotten. It writes what its consumers know ten times a second, and
//! deletes an acknowledged message at once. Killed in between, it comes back with deliveries that wait for
//! the acknowledgement of messages that are gone. nats-server 2.9.10 never gives them up: they count as
//! unsettled for ever, and each takes the turn of a message that could be delivered. So whoever connects
//! acknowledges once more what the stream knows to be deleted: it was acknowledged before, or a person has
//! deleted it.

use async_nats::jetstream::Context;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::AckKind;
use async_nats::{Client, Error};

use super::names::Names;

/// Most deleted messages that the server is asked for: each is a number of up to 20 digits, in one answer.
/// Beyond that what it has forgotten stays forgotten until the stream's oldest messages are acknowledged.
const DELETED_MAX: u64 = 100_000;

/// Reminds the consumer of a slice, if it waits for messages that are gone.
pub(super) async fn remind(
    client: &Client,
    jetstream: &Context,
    names: &Names,
    slice: u16,
) -> Result<(), Error> {
    let stream = match jetstream.get_stream(&names.stream).await {
        Ok(stream) => stream,
        // Whoever takes messages finds out, and says so.
        Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let name = Names::consumer(slice);
    let consumer = stream.consumer_info(&name).await?;
    let deleted = stream.cached_info().state.deleted_count.unwrap_or(0);
    if consumer.num_ack_pending == 0 || deleted == 0 {
        return Ok(());
    }
    if deleted > DELETED_MAX {
        let stream = &names.stream;
        tracing::info!(%stream, deleted, "too many deleted messages to look for what the server has forgotten");
        return Ok(());
    }
    let deleted = stream.info_builder().with_deleted(true).fetch().await?.info.state.deleted;
    let unsettled = consumer.ack_floor.stream_sequence + 1..=consumer.delivered.stream_sequence;
    let mut reminders = 0_u32;
    for sequence in deleted.unwrap_or_default() {
        if unsettled.contains(&sequence) {
            client.publish(names.acknowledgement(slice, sequence), AckKind::Ack.into()).await?;
            reminders += 1;
        }
    }
    tracing::debug!(stream = %names.stream, consumer = %name, reminders, "what was deleted is acknowledged once more");
    Ok(())
}
