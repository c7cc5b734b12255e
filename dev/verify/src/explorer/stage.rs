//! How a world begins: what lies in the store and in the broker before anybody moves, and what things are
//! called.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_proto::processing::HandleStep;
use tollgate_proto::{
    Audience, Body, Content, DeduplicationId, Destination, EndpointName, EntryKey, Envelope, Incarnation,
    ItemName, MessageId, MessageType, OutboxEntry, PartitionKey, TokenRef, Version, codec,
};

use super::scene::{Lane, Partition, Process, RequestState, Scene};
use super::world::{Consistency, Input, Publications, Script, World};

/// The item that counts what was applied.
const APPLIED: &str = "applied";
const ENDPOINT: &str = "handler";
const MESSAGE_TYPE: &str = "message";
const SENDERS: &str = "senders";

impl World {
    pub(super) fn initial(&self) -> Scene {
        let mut scene = Scene {
            partitions: (0..=self.partitions.len()).map(|_| Arc::new(Partition::default())).collect(),
            broker: Arc::default(),
            outside: Arc::default(),
            processes: self.workers.iter().map(|_| Arc::new(self.new_process())).collect(),
            workers: (0..self.workers.iter().sum()).map(|_| Arc::default()).collect(),
        };
        Arc::make_mut(&mut scene.outside).budget = self.budget;
        let sequence = Version::first(Incarnation(1)).sequence();
        for (index, input) in (0..).zip(&self.inputs) {
            let number = input.number();
            let to = self.destination(number);
            let message_type = MessageType::new(MESSAGE_TYPE).expect("the constant is a valid name");
            let body = Bytes::from(number.to_string());
            let message_id = Self::input_id(number);
            let envelope = match input {
                Input::Token(_) => {
                    let entry = OutboxEntry {
                        message_id,
                        to,
                        message_type,
                        headers: Vec::new(),
                        body: Body::Inline(body),
                        audience: Audience::Tollgate,
                        effects: Vec::new(),
                    };
                    let key = EntryKey { sequence, index };
                    let senders = Arc::make_mut(&mut scene.partitions[self.partitions.len()]);
                    Arc::make_mut(&mut senders.contents).entries.insert(key, codec::encode_entry(&entry));
                    senders.created.insert(key);
                    let partition = PartitionKey::new(SENDERS).expect("the constant is a valid key");
                    entry.envelope(TokenRef { store: Self::store(), partition, entry: key }, None)
                }
                Input::Identity(_) | Input::Natural(_) => Envelope {
                    message_id,
                    to,
                    message_type,
                    headers: Vec::new(),
                    content: Content::Body(body),
                },
                Input::Request(_) => {
                    let request = RequestState { copies: self.copies, answer: None };
                    Arc::make_mut(&mut scene.outside).requests.insert(number, request);
                    continue;
                }
            };
            let broker = Arc::make_mut(&mut scene.broker);
            if self.publications == Publications::KnownDropped {
                broker.known.insert(first_id(&envelope));
            }
            broker.available.insert(codec::encode_envelope(&envelope), self.copies);
        }
        if self.consistency == Consistency::Session {
            for partition in &mut scene.partitions {
                let partition = Arc::make_mut(partition);
                partition.replica = Some(Arc::clone(&partition.contents));
            }
        }
        scene
    }

    pub(super) fn new_process(&self) -> Process {
        Process { lanes: vec![Lane::default(); self.partitions.len()], consumed: BTreeSet::new() }
    }

    pub(super) fn input_id(number: u8) -> MessageId {
        MessageId::from_name("explorer", &number.to_string())
    }

    pub(super) fn endpoint() -> EndpointName {
        EndpointName::new(ENDPOINT).expect("the constant is a valid name")
    }

    pub(super) fn applied_item() -> ItemName {
        ItemName::new(APPLIED).expect("the constant is a valid name")
    }

    pub(super) fn destination(&self, number: u8) -> Destination {
        let partition = self.partitions[self.script(number).partition].clone();
        Destination { endpoint: Self::endpoint(), partition }
    }

    pub(super) fn script(&self, number: u8) -> &Script {
        &self.scripts[usize::from(number)]
    }

    pub(super) fn message_type() -> MessageType {
        MessageType::new(MESSAGE_TYPE).expect("the constant is a valid name")
    }
}

/// The id under which a message with a token, or one from outside, was published first.
pub(super) fn first_id(envelope: &Envelope) -> DeduplicationId {
    match envelope.token() {
        Some(token) => DeduplicationId::of_token(token),
        None => DeduplicationId::of_message(envelope.message_id),
    }
}

/// The item that always says the same as the one that counts what was applied, and that is not loaded with
/// the partition.
pub(super) fn mirror_item() -> ItemName {
    ItemName::new("mirror").expect("the constant is a valid name")
}

/// The item that names a blob.
pub(super) fn blob_item() -> ItemName {
    ItemName::new("blob").expect("the constant is a valid name")
}

/// The item that tells whether the handler of a message has seen the answer to the call that the message
/// follows up.
pub(super) fn answered_item() -> ItemName {
    ItemName::new("answered").expect("the constant is a valid name")
}

/// The number of the message that a handler is run for.
pub(super) fn number_of(handle: &HandleStep) -> u8 {
    let input = handle.input();
    match &input.body {
        Body::Inline(body) if !body.is_empty() => {
            std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()).expect("bodies are numbers")
        }
        // A request has no body: its id tells.
        _ => (0..=u8::MAX)
            .find(|number| World::input_id(*number) == input.message_id)
            .expect("requests have ids of inputs"),
    }
}
