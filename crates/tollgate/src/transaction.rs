//! The transaction: a handler's view of its one partition, and the messages and blobs it wants to go out with the
//! commit. Nothing of it is visible to anybody before the commit, and nothing at all if there is none.

use std::any::TypeId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate_proto::processing::{HandleStep, HandlerInput, Lookup};
use tollgate_proto::unit_of_work::Outgoing;
use tollgate_proto::{
    AttachedEffect, Audience, Body, Destination, EffectKind, EndpointName, Headers, ItemName, ItemValue,
    LoadRequest, MessageId, MessageType, PartitionKey,
};

use crate::cause::OutsideError;
use crate::edge::Answer;
use crate::engine::Engine;
use crate::error::{HandlerError, TollgateError};
use crate::handler::Message;
use crate::lanes::LaneKey;

/// One handler execution's hold on its partition. Cloning it gives another handle on the same transaction; it ends when
/// the handler returns.
#[derive(Clone)]
pub struct Tx {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) key: LaneKey,
    pub(crate) input: Arc<HandlerInput>,
    /// `None` once the handler has returned.
    step: Mutex<Option<HandleStep>>,
    /// What a request is answered that was found to be executed before.
    replay: Mutex<Option<Bytes>>,
    /// What the message's side effects have to say, by their kind.
    pub(crate) carried: Vec<(EffectKind, Bytes)>,
    /// Whose turn it is to register and prepare: one after the other, since each registration is a commit on the same control record.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    effects: Mutex<Effects>,
    pub(crate) deadline_ms: u64,
    /// How often the handler of this message has failed before, and how often it may.
    tries: Tries,
    /// What something outside has said to this attempt, if anything failed.
    outside: Mutex<Option<OutsideFailure>>,
}

/// How often a message's handler has failed, as far as this process knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    pub(crate) failures: u32,
    /// `None`: a request, which its caller repeats or doesn't.
    pub(crate) failures_max: Option<u32>,
}

/// A call to something outside that has failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutsideFailure {
    /// For how long whoever was asked wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Default)]
pub(crate) struct Effects {
    /// How many were registered: part of what makes their names unique.
    pub(crate) count: u32,
    /// Prepared, and not carried by a message yet.
    pub(crate) loose: u32,
    pub(crate) fate: Fate,
}

/// Whether the attempt may still commit, as far as its side effects have shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    #[default]
    Open,
    /// Another process has changed the partition, or may have.
    Overtaken,
    /// A side effect failed, and may exist all the same: only an attempt that fails cleans it up.
    Failed { reason: String },
}

impl Tx {
    pub(crate) fn new(
        engine: Arc<Engine>,
        key: LaneKey,
        step: HandleStep,
        carried: Vec<(EffectKind, Bytes)>,
        deadline_ms: u64,
        tries: Tries,
    ) -> Self {
        let shared = Shared {
            engine,
            key,
            input: Arc::clone(step.input()),
            step: Mutex::new(Some(step)),
            replay: Mutex::default(),
            carried,
            turn: Arc::default(),
            effects: Mutex::default(),
            deadline_ms,
            tries,
            outside: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The message that is being handled; for a request, the id that stands for it.
    pub fn message_id(&self) -> MessageId {
        self.shared.input.message_id
    }

    /// The endpoint that handles it.
    pub fn endpoint(&self) -> &EndpointName {
        &self.shared.input.endpoint
    }

    /// The partition that may be read and changed.
    pub fn partition(&self) -> &PartitionKey {
        &self.shared.key.partition
    }

    /// The message's headers: trace context and the like.
    pub fn headers(&self) -> &Headers {
        &self.shared.input.headers
    }

    /// How often the handler of this message has failed so far: 0 at its first try.
    ///
    /// The count is kept in memory: another process, or this one after a restart, counts anew. What failed because
    /// something outside was not available is not counted, so a message may be tried more often than this says.
    pub fn failures(&self) -> u32 {
        self.shared.tries.failures
    }

    /// Whether the message is dead-lettered if its handler fails now: the moment to compensate instead. `false` for requests.
    pub fn is_last_try(&self) -> bool {
        self.shared.tries.failures_max.is_some_and(|max| self.failures().saturating_add(1) >= max)
    }

    /// Reads an item of the partition, as changed by this handler so far. `None`: there is no such item.
    ///
    /// All items that a handler reads are of one version of the partition, also those that are not in memory and come from
    /// the store.
    ///
    /// # Errors
    /// A store error; [`TollgateError::Overtaken`] if another process has changed the partition since the handler began: it
    /// is run again, whatever it returns; or [`TollgateError::Decode`] if the item is not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, item: &str) -> Result<Option<T>, TollgateError> {
        let item = ItemName::new(item)?;
        let Some(value) = self.read(&item).await? else { return Ok(None) };
        serde_json::from_slice(value.bytes()).map(Some).map_err(|source| TollgateError::Decode {
            item,
            partition: self.partition().clone(),
            source,
        })
    }

    /// Reads an item as the bytes it is stored as.
    ///
    /// # Errors
    /// A store error, or [`TollgateError::Overtaken`], as for [`Tx::get`].
    pub async fn get_bytes(&self, item: &str) -> Result<Option<Bytes>, TollgateError> {
        Ok(self.read(&ItemName::new(item)?).await?.map(|value| value.bytes().clone()))
    }

    async fn read(&self, item: &ItemName) -> Result<Option<ItemValue>, TollgateError> {
        let lookup = self.step().as_ref().ok_or(TollgateError::Ended)?.get(item);
        match lookup {
            Lookup::Present(value) => return Ok(Some(value)),
            Lookup::Absent => return Ok(None),
            Lookup::Unknown => {}
        }
        let request = LoadRequest {
            partition: self.partition().clone(),
            items: vec![item.clone()],
            records: Vec::new(),
        };
        let loaded = self.noting(self.shared.engine.store(&self.shared.key).load(request).await)?;
        let value = loaded.items.into_iter().next().and_then(|(_, value)| value);
        self.with_step(|step| step.provide(item.clone(), value.clone(), loaded.control.as_ref()))?
            .map_err(|_| TollgateError::Overtaken)?;
        Ok(value)
    }

    /// Puts an item, as JSON.
    ///
    /// # Errors
    /// If the value can't be written as JSON.
    pub fn put<T: Serialize + ?Sized>(&self, item: &str, value: &T) -> Result<(), TollgateError> {
        let item = ItemName::new(item)?;
        let bytes = serde_json::to_vec(value)
            .map_err(|source| TollgateError::Encode { what: format!("item {item}"), source })?;
        self.with_step(|step| step.unit_of_work().put(item, ItemValue::Json(bytes.into())))
    }

    /// Puts an item as the bytes it is.
    ///
    /// # Errors
    /// If the name breaks a rule.
    pub fn put_bytes(&self, item: &str, value: impl Into<Bytes>) -> Result<(), TollgateError> {
        let item = ItemName::new(item)?;
        self.with_step(|step| step.unit_of_work().put(item, ItemValue::Binary(value.into())))
    }

    /// Deletes an item. Deleting one that is not there is no error.
    ///
    /// # Errors
    /// If the name breaks a rule.
    pub fn delete(&self, item: &str) -> Result<(), TollgateError> {
        let item = ItemName::new(item)?;
        self.with_step(|step| step.unit_of_work().delete(item))
    }

    /// Sends a message to one partition of an endpoint, and returns its deterministic id.
    ///
    /// # Errors
    /// If a name breaks a rule or the message can't be written as JSON.
    pub fn send<M: Message>(
        &self,
        endpoint: &str,
        partition: &str,
        message: &M,
    ) -> Result<MessageId, TollgateError> {
        self.send_carrying(destination(endpoint, partition)?, message, Audience::Tollgate, Vec::new())
    }

    /// Sends a message to a consumer that knows no tokens: at least once, with its deterministic id for the consumer's
    /// own deduplication.
    ///
    /// # Errors
    /// If a name breaks a rule or the message can't be written as JSON.
    pub fn send_external<M: Message>(
        &self,
        endpoint: &str,
        partition: &str,
        message: &M,
    ) -> Result<MessageId, TollgateError> {
        self.send_carrying(destination(endpoint, partition)?, message, Audience::External, Vec::new())
    }

    /// Sends an event to every endpoint that the gate's topology declares as a subscriber, one message each. Returns how
    /// many there are.
    ///
    /// # Errors
    /// If a partition key that a subscription computes breaks a rule, or the event can't be written as JSON.
    pub fn publish<M: Message>(&self, event: &M) -> Result<usize, TollgateError> {
        let subscriptions = self.shared.engine.topology.subscribers::<M>(TypeId::of::<M>());
        for subscription in subscriptions {
            let partition = PartitionKey::new((subscription.partition)(event))?;
            let to = Destination { endpoint: subscription.endpoint.clone(), partition };
            self.send_carrying(to, event, Audience::Tollgate, Vec::new())?;
        }
        Ok(subscriptions.len())
    }

    pub(crate) fn send_carrying<M: Message>(
        &self,
        to: Destination,
        message: &M,
        audience: Audience,
        effects: Vec<AttachedEffect>,
    ) -> Result<MessageId, TollgateError> {
        let message_type = MessageType::new(M::TYPE)?;
        let body = serde_json::to_vec(message).map_err(|source| TollgateError::Encode {
            what: format!("message of type {message_type}"),
            source,
        })?;
        let headers = self.shared.input.headers.clone();
        self.with_step(|step| {
            step.unit_of_work().send(Outgoing {
                to,
                message_type,
                headers,
                body: Body::Inline(body.into()),
                audience,
                effects,
            })
        })
    }

    /// Takes what the handler of a request has to say.
    pub(crate) fn answer(&self, answer: Answer) -> Result<(), TollgateError> {
        match answer {
            Answer::Executed(response) => self.with_step(|step| step.unit_of_work().respond(response)),
            Answer::Replayed(response) => {
                *self.shared.replay.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
                Ok(())
            }
        }
    }

    pub(crate) fn effects(&self) -> MutexGuard<'_, Effects> {
        // No foreign code runs under this lock.
        self.shared.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down what a call to something outside has failed with, so that the message is not blamed for it, whatever its
    /// handler makes of the error.
    pub(crate) fn noting<T, E: OutsideError>(&self, answer: Result<T, E>) -> Result<T, E> {
        answer.inspect_err(|error| self.note(error))
    }

    /// Takes down an error of a call to something outside.
    pub(crate) fn note(&self, error: &impl OutsideError) {
        if error.is_outside() {
            self.note_outside(error.retry_after());
        }
    }

    pub(crate) fn note_outside(&self, retry_after: Option<Duration>) {
        let mut outside = self.shared.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = outside.get_or_insert_default();
        noted.retry_after = noted.retry_after.max(retry_after);
    }

    /// What something outside has said to this attempt, if anything failed.
    pub(crate) fn outside_failure(&self) -> Option<OutsideFailure> {
        *self.shared.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the transaction: later calls through clones of it fail.
    pub(crate) fn end(&self, result: Result<(), HandlerError>) -> Ended {
        let effects = self.effects();
        let step = self.step().take().expect("only the engine ends a transaction, once");
        let (fate, loose) = (effects.fate.clone(), effects.loose);
        drop(effects);
        let replay = self.shared.replay.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (fate, result) {
            (Fate::Overtaken, _) => Ended::Overtaken(step),
            (_, Err(error)) => Ended::Failed(step, error),
            (Fate::Failed { reason }, Ok(())) => Ended::Failed(step, HandlerError::retry(reason)),
            (Fate::Open, Ok(())) if loose > 0 => {
                let reason = format!("the handler prepared {loose} side effects that no message carries");
                Ended::Failed(step, HandlerError::permanent(reason))
            }
            (Fate::Open, Ok(())) => match replay {
                Some(response) => Ended::Replayed(step, response),
                None => Ended::Succeeded(step),
            },
        }
    }

    pub(crate) fn with_step<T>(&self, change: impl FnOnce(&mut HandleStep) -> T) -> Result<T, TollgateError> {
        self.step().as_mut().map(change).ok_or(TollgateError::Ended)
    }

    pub(crate) fn step(&self) -> MutexGuard<'_, Option<HandleStep>> {
        // A handler that panics does so outside this lock.
        self.shared.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn destination(endpoint: &str, partition: &str) -> Result<Destination, TollgateError> {
    Ok(Destination { endpoint: EndpointName::new(endpoint)?, partition: PartitionKey::new(partition)? })
}

/// How a transaction ended.
pub(crate) enum Ended {
    Succeeded(HandleStep),
    Failed(HandleStep, HandlerError),
    Overtaken(HandleStep),
    Replayed(HandleStep, Bytes),
}
