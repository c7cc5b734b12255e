//! Who subscribes to which event: declared once, when the gate is put together. The sender expands an event into one
//! message for each subscriber and chooses the partition of each, so that a later change here moves no message.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use tollgate_proto::EndpointName;

use crate::handler::Message;

/// The subscribers of every event type.
#[derive(Default)]
pub(crate) struct Topology {
    /// By the event's type; each value is a `Vec<Subscription<M>>`.
    subscriptions: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

/// One subscriber of events of type `M`.
pub(crate) struct Subscription<M> {
    pub(crate) endpoint: EndpointName,
    pub(crate) partition: PartitionOf<M>,
}

/// Computes the partition of the subscriber that an event is for.
type PartitionOf<M> = Box<dyn Fn(&M) -> String + Send + Sync>;

impl Topology {
    pub(crate) fn subscribe<M: Message>(&mut self, endpoint: EndpointName, partition: PartitionOf<M>) {
        let subscriptions = self
            .subscriptions
            .entry(TypeId::of::<M>())
            .or_insert_with(|| Box::new(Vec::<Subscription<M>>::new()));
        subscriptions
            .downcast_mut::<Vec<Subscription<M>>>()
            .expect("the list under a type's id holds that type's subscriptions")
            .push(Subscription { endpoint, partition });
    }

    pub(crate) fn subscribers<M: Message>(&self, id: TypeId) -> &[Subscription<M>] {
        self.subscriptions
            .get(&id)
            .and_then(|subscriptions| subscriptions.downcast_ref::<Vec<Subscription<M>>>())
            .map_or(&[], Vec::as_slice)
    }
}
