//! A message as SQS carries it, and back: the envelope in the body, in base64, so that a queue can be looked
//! at with anybody's tools and read by any consumer of SQS; the rest as attributes.

use std::time::Duration;

use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, SendMessageBatchRequestEntry,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tollgate_proto::{BrokerError, EndpointName, OutgoingMessage};

use super::batches::BYTES_MAX;
use super::builder::QueueKind;
use super::failure::misconfigured;
use super::receiving::Handle;
use tollgate_broker_kit::Arrival;

/// How the body is to be read. A message without it is of a producer that knows nothing of Tollgate: its body
/// is taken as it is.
const ENCODING: &str = "tollgate-encoding";

/// Its only value.
const BASE64: &str = "base64";

/// Our id of the message.
const MESSAGE_ID: &str = "tollgate-message-id";

/// Why a message was put aside.
const REASON: &str = "tollgate-dead-letter-reason";

/// How often it had been delivered by then.
const DELIVERIES: &str = "tollgate-deliveries";

/// Most bytes of a dead letter: the limit of SQS since August 2025. A message that came has room for the
/// reason below it.
const DEAD_BYTES_MAX: usize = 1024 * 1024;

/// Longest delay of a message: a limit of SQS.
const DELAY_MAX: Duration = Duration::from_secs(15 * 60);

/// Most bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;

/// Attributes of a message that SQS allows are ten; so many are for trace context.
const TRACE_HEADERS_MAX: usize = 6;

/// The entry of a message, and its size.
pub(super) fn entry(
    message: &OutgoingMessage,
    kind: QueueKind,
) -> Result<(SendMessageBatchRequestEntry, usize), BrokerError> {
    let endpoint = &message.endpoint;
    let mut attributes = vec![(ENCODING, BASE64.to_owned()), (MESSAGE_ID, message.message_id.to_string())];
    let headers = message.headers.iter().take(TRACE_HEADERS_MAX);
    attributes.extend(headers.map(|(name, value)| (name.as_str(), value.clone())));
    let mut entry = SendMessageBatchRequestEntry::builder().id("0");
    match kind {
        QueueKind::Standard => {
            let delay = message.delay.min(DELAY_MAX);
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            if seconds > 0 {
                entry = entry.delay_seconds(i32::try_from(seconds).unwrap_or(i32::MAX));
            }
        }
        // A FIFO queue has one delay for all its messages: ours is left out.
        QueueKind::Fifo => {
            let id = message.deduplication_id.to_string();
            entry = entry.message_group_id(group(message.partition.as_str())).message_deduplication_id(id);
        }
    }
    finish(endpoint, entry, STANDARD.encode(&message.envelope), &attributes, BYTES_MAX)
}

/// The entry of a dead letter, and its size.
pub(super) fn dead_letter(
    endpoint: &EndpointName,
    arrival: Arrival<Handle>,
    reason: &str,
    kind: QueueKind,
) -> Result<(SendMessageBatchRequestEntry, usize), BrokerError> {
    let Arrival { handle, envelope, delivery_count } = arrival;
    let mut reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    if reason.is_empty() {
        "no reason was given".clone_into(&mut reason);
    }
    let mut attributes = vec![
        (MESSAGE_ID, handle.message_id.clone()),
        (REASON, reason),
        (DELIVERIES, delivery_count.to_string()),
    ];
    attributes.extend(handle.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let mut entry = SendMessageBatchRequestEntry::builder().id("0");
    if kind == QueueKind::Fifo {
        // Put aside, moved back and put aside once more, it must not be taken for the first one: each
        // delivery has a receipt of its own.
        let delivery = blake3::hash(handle.receipt.as_bytes()).to_hex();
        entry = entry.message_group_id(&handle.message_id).message_deduplication_id(delivery.as_str());
    }
    // A body of another producer stays what it was: in base64 it might be too large.
    let body = match String::from_utf8(envelope.to_vec()) {
        Ok(body) if !handle.is_encoded => body,
        _ => {
            attributes.push((ENCODING, BASE64.to_owned()));
            STANDARD.encode(&envelope)
        }
    };
    finish(endpoint, entry, body, &attributes, DEAD_BYTES_MAX)
}

fn finish(
    endpoint: &EndpointName,
    mut entry: aws_sdk_sqs::types::builders::SendMessageBatchRequestEntryBuilder,
    body: String,
    attributes: &[(&str, String)],
    bytes_max: usize,
) -> Result<(SendMessageBatchRequestEntry, usize), BrokerError> {
    let of_builder = |error: aws_sdk_sqs::error::BuildError| misconfigured(endpoint, error.to_string());
    let mut size = body.len();
    for (name, value) in attributes {
        if value.is_empty() {
            continue;
        }
        size += name.len() + value.len() + "String".len();
        let value = MessageAttributeValue::builder().data_type("String").string_value(value);
        entry = entry.message_attributes(*name, value.build().map_err(of_builder)?);
    }
    if size > bytes_max {
        let reason = format!(
            "a message of {size} bytes is too large for SQS ({bytes_max}): send large bodies as blobs"
        );
        return Err(misconfigured(endpoint, reason));
    }
    Ok((entry.message_body(body).build().map_err(of_builder)?, size))
}

/// The group of a partition: SQS allows 128 letters, digits and signs.
fn group(partition: &str) -> String {
    blake3::hash(partition.as_bytes()).to_hex().to_string()
}

/// A message that has come. `None`: it has no receipt, which SQS never leaves out.
pub(super) fn arrival(message: Message) -> Option<Arrival<Handle>> {
    let receipt = message.receipt_handle?;
    let text = |name: &str| {
        let attributes = message.message_attributes.as_ref()?;
        attributes.get(name)?.string_value.clone()
    };
    let body = message.body.unwrap_or_default();
    let encoded = text(ENCODING).is_some_and(|encoding| encoding == BASE64);
    let decoded = if encoded { STANDARD.decode(&body).ok() } else { None };
    // What is not what it says it is goes to the endpoint as it is, which dead-letters it with its own words.
    let is_encoded = decoded.is_some();
    let envelope = decoded.map_or_else(|| Bytes::from(body), Bytes::from);
    let count = message.attributes.as_ref();
    let count = count.and_then(|known| known.get(&MessageSystemAttributeName::ApproximateReceiveCount));
    let message_id = text(MESSAGE_ID).or_else(|| message.message_id.clone()).unwrap_or_default();
    let is_ours = |name: &str| name.starts_with("tollgate-");
    let headers = message.message_attributes.iter().flatten().filter(|(name, _)| !is_ours(name));
    let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.string_value.clone()?)));
    let headers: Vec<(String, String)> = headers.take(TRACE_HEADERS_MAX).collect();
    Some(Arrival {
        handle: Handle { receipt, message_id, is_encoded, headers },
        envelope,
        delivery_count: count.and_then(|count| count.parse().ok()).unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_letter_of_a_foreign_message_has_the_body_that_it_came_with() {
        let body = "x".repeat(250_000);
        let message = Message::builder().receipt_handle("r").message_id("m").body(&body).build();
        let arrival = arrival(message).unwrap();
        let endpoint = EndpointName::new("orders").unwrap();
        let (letter, size) = dead_letter(&endpoint, arrival, "no envelope", QueueKind::Standard).unwrap();
        assert_eq!(letter.message_body(), body);
        assert!(size < BYTES_MAX, "{size}");
        assert!(!letter.message_attributes().unwrap().contains_key(ENCODING));
    }
}
