//! A message as RabbitMQ carries it: what of it is ours, in which headers it stands, and how it is sent on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tollgate_proto::{Delivery, OutgoingMessage, Receipt};

use super::delay_classes::milliseconds;

/// How often the message was delivered before this copy of it was published: RabbitMQ counts from 1 for each
/// copy.
const DELIVERIES: &str = "tollgate-deliveries";

/// When the message is due, in milliseconds since 1970. It may come back from a delay queue earlier than
/// that.
const NOT_BEFORE: &str = "tollgate-not-before";

/// Why the message was put aside.
pub(super) const REASON: &str = "tollgate-dead-letter-reason";

/// Longest reason, in bytes: headers travel in one frame, which has 128 KiB.
const REASON_BYTES_MAX: usize = 4096;

/// How often a quorum queue has delivered the message before; not there at the first time.
const REDELIVERIES: &str = "x-delivery-count";

/// The same since RabbitMQ 4, where the other one leaves out what came back without blame.
const ACQUIRED: &str = "x-acquired-count";

/// AMQP's delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;

const CONTENT_TYPE: &str = "application/vnd.tollgate.envelope";

/// A message that came.
#[derive(Clone, Debug)]
pub(super) struct Message {
    envelope: Bytes,
    id: Option<ShortString>,
    /// Those that are neither ours nor RabbitMQ's.
    headers: FieldTable,
    delivery_count: u32,
    not_before_ms: Option<u64>,
}

/// Where a message is published.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
}

/// A message to be published.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Message {
    /// Reads what RabbitMQ delivered.
    pub(super) fn read(delivery: lapin::message::Delivery) -> Self {
        let lapin::message::Delivery { data, properties, redelivered, .. } = delivery;
        let mut headers = FieldTable::default();
        let (mut before, mut redeliveries, mut not_before_ms) = (0, u64::from(redelivered), None);
        for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
            match name.as_str() {
                DELIVERIES => before = number(value).unwrap_or(0),
                NOT_BEFORE => not_before_ms = number(value),
                REDELIVERIES | ACQUIRED => redeliveries = redeliveries.max(number(value).unwrap_or(0)),
                REASON => {}
                other if other.starts_with("x-") => {}
                _ => {
                    headers.insert(name.clone(), value.clone());
                }
            }
        }
        let delivery_count = before.saturating_add(redeliveries).saturating_add(1);
        Self {
            envelope: data.into(),
            id: properties.message_id().clone(),
            headers,
            delivery_count: u32::try_from(delivery_count).unwrap_or(u32::MAX),
            not_before_ms,
        }
    }

    pub(super) fn delivery(&self, receipt: Receipt) -> Delivery {
        Delivery { envelope: self.envelope.clone(), receipt, delivery_count: self.delivery_count }
    }

    /// It is given out once more, from memory.
    pub(super) const fn count_delivery(&mut self) {
        self.delivery_count = self.delivery_count.saturating_add(1);
    }

    /// How long it is still too early, if it is.
    pub(super) fn early_by(&self) -> Option<Duration> {
        let left = self.not_before_ms?.checked_sub(now_ms())?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// A copy that comes after a delay. `deliveries` is how often it has been given out.
    fn again(&self, deliveries: u32, delay: Duration, route: Route) -> Publication {
        let mut headers = self.headers.clone();
        headers.insert(DELIVERIES.into(), AMQPValue::LongUInt(deliveries));
        insert_not_before(&mut headers, delay);
        self.publication(headers, route.exchange, route.routing_key)
    }

    /// A copy for another delivery.
    pub(super) fn retried(&self, delay: Duration, route: Route) -> Publication {
        self.again(self.delivery_count, delay, route)
    }

    /// A copy that waits for the rest of its delay; nobody has got it.
    pub(super) fn delayed_further(&self, left: Duration, route: Route) -> Publication {
        self.again(self.delivery_count - 1, left, route)
    }

    /// A copy that is put aside with the reason.
    pub(super) fn dead(&self, reason: &str, exchange: ShortString, queue: ShortString) -> Publication {
        let mut headers = self.headers.clone();
        headers.insert(DELIVERIES.into(), AMQPValue::LongUInt(self.delivery_count));
        let whole = |end: &usize| reason.is_char_boundary(*end);
        let end = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(whole).unwrap_or(0);
        let reason = &reason[..end];
        headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
        self.publication(headers, exchange, queue)
    }

    fn publication(
        &self,
        headers: FieldTable,
        exchange: ShortString,
        routing_key: ShortString,
    ) -> Publication {
        let mut properties = properties(headers);
        if let Some(id) = &self.id {
            properties = properties.with_message_id(id.clone());
        }
        Publication { exchange, routing_key, properties, body: self.envelope.clone() }
    }

    #[cfg(test)]
    pub(super) fn of_test(envelope: Bytes) -> Self {
        let headers = FieldTable::default();
        Self { envelope, id: None, headers, delivery_count: 1, not_before_ms: None }
    }
}

impl Publication {
    /// A message on its first way.
    pub(super) fn first(message: OutgoingMessage, route: Route) -> Self {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            // Trace context, whose names are short. A header that AMQP has no room for is not worth a
            // message.
            if let Ok(name) = ShortString::try_new(name.as_str()) {
                headers.insert(name, AMQPValue::LongString(value.as_str().into()));
            }
        }
        insert_not_before(&mut headers, message.delay);
        let properties = properties(headers).with_message_id(message.message_id.to_string().into());
        let Route { exchange, routing_key } = route;
        Self { exchange, routing_key, properties, body: message.envelope }
    }
}

fn properties(headers: FieldTable) -> BasicProperties {
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

fn insert_not_before(headers: &mut FieldTable, delay: Duration) {
    if !delay.is_zero() {
        let due = now_ms().saturating_add(milliseconds(delay));
        headers.insert(NOT_BEFORE.into(), AMQPValue::LongLongInt(i64::try_from(due).unwrap_or(i64::MAX)));
    }
}

/// Decides about delays only, never about what is processed.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A header as a number, in whichever of AMQP's integers it came.
fn number(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(number) => u64::try_from(number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => u64::try_from(number).ok(),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => u64::try_from(number).ok(),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => u64::try_from(number).ok(),
        _ => None,
    }
}
