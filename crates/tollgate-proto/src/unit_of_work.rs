//! What one handler execution changes: items, outgoing messages, a response. It is pure data; reading what is not in
//! view and creating side effects is the driver's business. Nothing of it is visible to anybody before the commit.

use bytes::Bytes;

use crate::envelope::{Destination, Headers};
use crate::ids::{EndpointName, ItemName, MessageId, MessageType};
use crate::outbox_entry::{Audience, Body, OutboxEntry};
use crate::partition_view::Items;
use crate::side_effect::AttachedEffect;
use crate::store::ItemValue;

/// The changes of one handler execution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitOfWork {
    /// The message or request being handled: outgoing ids are derived from it.
    cause: MessageId,
    /// Where it is handled.
    endpoint: EndpointName,
    pub(crate) changes: Items,
    pub(crate) outgoing: Vec<OutboxEntry>,
    pub(crate) response: Bytes,
}

/// A message that a handler sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// Which handler.
    pub message_type: MessageType,
    /// Trace context and the like.
    pub headers: Headers,
    /// What it says.
    pub body: Body,
    /// Whether the consumer knows tokens.
    pub audience: Audience,
    /// Prepared side effects that it carries.
    pub effects: Vec<AttachedEffect>,
}

impl UnitOfWork {
    pub(crate) fn new(cause: MessageId, endpoint: EndpointName) -> Self {
        Self { cause, endpoint, changes: Items::default(), outgoing: Vec::new(), response: Bytes::new() }
    }

    /// The same execution, begun anew.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new(self.cause, self.endpoint.clone());
    }

    /// Puts an item.
    pub fn put(&mut self, name: ItemName, value: ItemValue) {
        self.changes.set(name, Some(value));
    }

    /// Deletes an item.
    pub fn delete(&mut self, name: ItemName) {
        self.changes.set(name, None);
    }

    /// Sends a message when the unit of work commits, and returns its deterministic id.
    pub fn send(&mut self, outgoing: Outgoing) -> MessageId {
        // The transaction's limits keep the count far below 2^32; a saturated index could not be committed anyway.
        let n = u32::try_from(self.outgoing.len()).unwrap_or(u32::MAX);
        let message_id = MessageId::derive(self.cause, &self.endpoint, n);
        let Outgoing { to, message_type, headers, body, audience, effects } = outgoing;
        self.outgoing.push(OutboxEntry { message_id, to, message_type, headers, body, audience, effects });
        message_id
    }

    /// The outgoing messages so far.
    pub fn outgoing(&self) -> &[OutboxEntry] {
        &self.outgoing
    }

    /// Moves the body of the `n`-th outgoing message (counted from 0) to blob storage, where it was stored as `blob`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn body_is_stored(&mut self, n: usize, blob: AttachedEffect) {
        let entry = &mut self.outgoing[n];
        entry.body = Body::Blob(blob.name.clone());
        entry.effects.push(blob);
    }

    /// Sets what a request is answered, now and when it comes again. Without effect for messages.
    pub fn respond(&mut self, response: Bytes) {
        self.response = response;
    }

    /// What the request will be answered.
    pub const fn response(&self) -> &Bytes {
        &self.response
    }
}
