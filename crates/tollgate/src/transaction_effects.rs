//! What a handler does outside its partition: blobs, and any other kind of side effect. Everything here is registered in the
//! control record before it exists; what becomes of it after the handler is decided in `tollgate-proto`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tollgate_proto::blobs::{BlobStream, collect};
use tollgate_proto::processing::Failure;
use tollgate_proto::unit_of_work::Outgoing;
use tollgate_proto::{
    AttachedEffect, Audience, Body, Destination, EffectKind, EffectName, MessageId, MessageType, SideEffect,
    StoreError,
};

use crate::blob_reference::{BlobReference, IntoBlob, blob_kind, measured};
use crate::engine::expiry;
use crate::error::TollgateError;
use crate::handler::Message;
use crate::inside::{Inside, run_inside};
use crate::limited::caught;
use crate::transaction::{Fate, Tx, destination};

/// Bytes kept free in an item for what surrounds a body: addresses, headers, keys.
const ENTRY_OVERHEAD_BYTES: usize = 8 * 1024;

/// What the names of bodies begin with that were moved to blob storage.
const BODIES: &str = "bodies/";

/// The type of entries that nobody receives.
const NOBODY_TYPE: &str = "tollgate.side-effect";

/// A side effect that is prepared and waits for a message to carry it. An attempt that leaves one behind does not commit.
#[derive(Debug)]
#[must_use = "an attempt that prepares a side effect and lets no message carry it does not commit"]
pub struct Prepared(AttachedEffect);

impl Prepared {
    /// Its attempt-unique name.
    pub fn name(&self) -> &EffectName {
        &self.0.name
    }
}

impl Tx {
    /// Stores a blob under a name that begins with `prefix` and is unique to this attempt, and returns a reference to it. The
    /// blob becomes visible by being named in an item or a message; if this attempt does not commit, it is deleted.
    ///
    /// The content is anything in memory, or a stream ([`BlobStream`]), which is never held in memory as a whole.
    ///
    /// # Errors
    /// [`TollgateError::Overtaken`] or [`TollgateError::PastDeadline`], or what blob storage says: to be returned from the
    /// handler. Even if it is not, the attempt does not commit: something of the blob may be there.
    pub async fn put_blob(
        &self,
        prefix: &str,
        content: impl IntoBlob,
    ) -> Result<BlobReference, TollgateError> {
        let (tx, prefix, content) = (self.clone(), prefix.to_owned(), content.into_blob());
        let blob = self.apart(async move { tx.store_blob(&prefix, content).await }).await?;
        self.with_step(|step| step.prepared(blob.name()))?;
        Ok(blob)
    }

    /// Runs a preparation as a task of its own. A handler that keeps the future and does not poll it can't hold up the next one;
    /// dropping the future drops the preparation, and then the attempt does not commit.
    async fn apart<T: Send + 'static>(
        &self,
        preparing: impl Future<Output = Result<T, TollgateError>> + Send + 'static,
    ) -> Result<T, TollgateError> {
        let turn = Arc::clone(&self.shared.turn);
        let preparing = run_inside(Inside::current(), preparing);
        let (mut answering, answer) = oneshot::channel();
        self.shared.engine.tasks.spawn(async move {
            let in_turn = async {
                let _turn = turn.lock().await;
                caught(preparing).await.unwrap_or_else(|panicked| {
                    Err(TollgateError::RequestFailed {
                        reason: format!("preparing a side effect: {panicked}"),
                    })
                })
            };
            let ended = match select(pin!(in_turn), pin!(answering.closed())).await {
                Either::Left((prepared, _)) => Some(prepared),
                Either::Right(_) => None,
            };
            if let Some(prepared) = ended {
                drop(answering.send(prepared));
            }
        });
        answer.await.unwrap_or(Err(TollgateError::Closed))
    }

    /// Reads a blob as a whole and verifies it. `None`: there is none.
    ///
    /// # Errors
    /// What blob storage says; or if it is longer than [`crate::GateBuilder::body_bytes_max`].
    pub async fn get_blob(&self, blob: &BlobReference) -> Result<Option<Bytes>, TollgateError> {
        let Some(content) = self.read_blob(blob).await? else { return Ok(None) };
        let bytes_max = self.shared.engine.settings.body_bytes_max;
        Ok(Some(self.noting(collect(blob.name(), content, bytes_max).await)?))
    }

    /// Reads a blob as a stream, which ends with an error if it is not what was stored. `None`: there is none.
    ///
    /// # Errors
    /// What blob storage says.
    pub async fn read_blob(&self, blob: &BlobReference) -> Result<Option<BlobStream>, TollgateError> {
        let blobs = self.shared.engine.effects.required_blobs()?;
        let Some(content) = self.noting(blobs.get(blob.name()).await)? else { return Ok(None) };
        let tx = self.clone();
        // What breaks off while it is read is as little the message's fault as what can't be begun.
        Ok(Some(blob.verified(Box::pin(content.map(move |piece| tx.noting(piece))))))
    }

    /// Prepares a side effect of a kind that the gate knows ([`crate::GateBuilder::side_effect`]): it exists, invisibly, when
    /// this returns. Give it to [`Tx::send_with`] or [`Tx::perform`]; it happens when this attempt has committed, and is
    /// removed if it never does.
    ///
    /// # Errors
    /// As for [`Tx::put_blob`].
    pub async fn prepare(&self, kind: &str, intent: impl Into<Bytes>) -> Result<Prepared, TollgateError> {
        let effect = Arc::clone(self.shared.engine.effects.kind(kind)?);
        let (tx, intent) = (self.clone(), intent.into());
        let prepared = self.apart(async move { tx.prepare_one(&*effect, intent).await }).await?;
        self.with_step(|step| step.prepared(prepared.name()))?;
        self.effects().loose += 1;
        Ok(prepared)
    }

    async fn prepare_one(&self, effect: &dyn SideEffect, intent: Bytes) -> Result<Prepared, TollgateError> {
        let name = effect.register(&self.unique()?, &intent)?;
        self.register(effect.kind().clone(), name.clone()).await?;
        match self.in_time(effect.prepare(&name, intent)).await {
            Ok(Ok(detail)) => Ok(Prepared(AttachedEffect { kind: effect.kind().clone(), name, detail })),
            Ok(Err(error)) => {
                self.note(&error);
                Err(self.fail(error.into()))
            }
            Err(late) => Err(self.fail(late)),
        }
    }

    /// Sends a message that carries side effects: they happen before it is sent, its handler sees what came of them
    /// ([`Tx::carried`]), and they are removed when it is done. Returns the message's deterministic id.
    ///
    /// # Errors
    /// If a name breaks a rule or the message can't be written as JSON.
    #[expect(
        clippy::unused_async,
        reason = "it may have to wait one day, as all that handlers do with side effects"
    )]
    pub async fn send_with<M: Message>(
        &self,
        endpoint: &str,
        partition: &str,
        message: &M,
        effects: Vec<Prepared>,
    ) -> Result<MessageId, TollgateError> {
        let to = destination(endpoint, partition)?;
        let carried = self.attach(effects);
        self.send_carrying(to, message, Audience::Tollgate, carried)
    }

    /// Lets a side effect happen that no message depends on.
    ///
    /// # Errors
    /// If the transaction has ended.
    #[expect(
        clippy::unused_async,
        reason = "it may have to wait one day, as all that handlers do with side effects"
    )]
    pub async fn perform(&self, effect: Prepared) -> Result<(), TollgateError> {
        let effects = self.attach(vec![effect]);
        let to = Destination { endpoint: self.endpoint().clone(), partition: self.partition().clone() };
        let message_type = MessageType::new(NOBODY_TYPE)?;
        let headers = self.headers().clone();
        self.with_step(|step| {
            let body = Body::Inline(Bytes::new());
            let audience = Audience::Nobody;
            step.unit_of_work().send(Outgoing { to, message_type, headers, body, audience, effects });
        })
    }

    /// Drops everything that was written or sent so far, as if the handler began anew: what it says is remembered, what it
    /// has done is not. Of side effects that is not possible.
    ///
    /// # Errors
    /// [`TollgateError::RequestRefused`] if there are side effects: fail instead, and they are cleaned up.
    #[expect(
        clippy::unused_async,
        reason = "it may have to wait one day, as all that handlers do with side effects"
    )]
    pub async fn discard(&self) -> Result<(), TollgateError> {
        if self.effects().count > 0 {
            let reason =
                "changes can't be dropped alone where there are side effects: fail instead".to_owned();
            return Err(TollgateError::RequestRefused { reason });
        }
        self.with_step(tollgate_proto::processing::HandleStep::discard)
    }

    /// What came of the side effect of a kind that the message carries. `None`: it carries none.
    pub fn carried(&self, kind: &str) -> Option<&Bytes> {
        self.shared.carried.iter().find(|(known, _)| known.as_str() == kind).map(|(_, content)| content)
    }

    /// Moves bodies to blob storage that are too large for an item, or that would together be too large for a commit.
    pub(crate) async fn store_large_bodies(&self) -> Result<(), TollgateError> {
        let engine = &self.shared.engine;
        let large = self.with_step(|step| {
            let limits = *step.limits();
            let item = limits.item_bytes_max.saturating_sub(ENTRY_OVERHEAD_BYTES);
            let item = item.min(engine.settings.inline_bytes_max);
            choose_large_bodies(step.unit_of_work().outgoing(), item, limits.transaction_bytes_max / 2)
        })?;
        if large.is_empty() || engine.effects.blobs().is_none() {
            // Without blob storage the machine checks the limits, and says which one was hit.
            return Ok(());
        }
        Box::pin(self.store_bodies(large)).await
    }

    async fn store_bodies(&self, large: Vec<(usize, Bytes)>) -> Result<(), TollgateError> {
        let _turn = self.shared.turn.lock().await;
        for (place, body) in large {
            let blob = self.store_blob(BODIES, body.into_blob()).await?;
            self.shared.engine.counters.bodies_stored.add(1);
            self.with_step(|step| {
                step.prepared(blob.name());
                step.unit_of_work().body_is_stored(place, blob.attached());
            })?;
        }
        Ok(())
    }

    async fn store_blob(&self, prefix: &str, content: BlobStream) -> Result<BlobReference, TollgateError> {
        let engine = &self.shared.engine;
        let blobs = engine.effects.required_blobs()?;
        let name = EffectName::new(format!("{prefix}{}", self.unique()?))?;
        self.register(blob_kind(), name.clone()).await?;
        let (clock, deadline_ms) = (engine.tasks.clone(), self.shared.deadline_ms);
        let (content, measure) = measured(&name, content, engine.settings.blob_bytes_max, move || {
            let is_late = clock.runtime().now_ms() >= deadline_ms;
            if is_late { Err(TollgateError::PastDeadline { deadline_ms }.to_string()) } else { Ok(()) }
        });
        match self.in_time(blobs.put(&name, content)).await {
            Ok(Ok(())) => Ok(measure.reference(name)),
            // Whatever was said of it: the stream says so too when it was late.
            Ok(Err(_)) if engine.now_ms() >= deadline_ms => Err(self.fail(self.late())),
            Ok(Err(error)) => {
                self.note(&error);
                Err(self.fail(error.into()))
            }
            Err(late) => Err(self.fail(late)),
        }
    }

    /// Goes on with a preparation until the attempt's deadline, and gives it up then. An attempt that was stalled finds first
    /// that it is late.
    async fn in_time<T>(&self, preparing: impl Future<Output = T>) -> Result<T, TollgateError> {
        let engine = &self.shared.engine;
        let left = Duration::from_millis(self.shared.deadline_ms.saturating_sub(engine.now_ms()));
        match select(engine.tasks.runtime().sleep(left), pin!(preparing)).await {
            Either::Left(_) => Err(self.late()),
            Either::Right((prepared, _)) => Ok(prepared),
        }
    }

    /// Remembers that the attempt can't commit any more.
    fn fail(&self, error: TollgateError) -> TollgateError {
        self.effects().fate = Fate::Failed { reason: error.to_string() };
        error
    }

    fn late(&self) -> TollgateError {
        TollgateError::PastDeadline { deadline_ms: self.shared.deadline_ms }
    }

    /// Writes into the control record what is about to be created. Nothing may be created if it fails.
    async fn register(&self, kind: EffectKind, name: EffectName) -> Result<(), TollgateError> {
        {
            let mut effects = self.effects();
            if effects.fate == Fate::Overtaken {
                return Err(TollgateError::Overtaken);
            }
            effects.count += 1;
        }
        let engine = &self.shared.engine;
        let deadline_ms = self.shared.deadline_ms;
        // What was sent off takes effect although its sender has died or waits no more: garbage is collected for the last time when
        // that is over too.
        let settled_ms = expiry(deadline_ms, engine.settings.under_way_max);
        let is_interrupted = self.with_step(|step| step.is_interrupted())?;
        let commit =
            self.with_step(|step| step.register(kind, name, settled_ms))?.map_err(
                |failure| match failure {
                    Failure::Passing { reason } => {
                        if !is_interrupted {
                            // Others' side effects wait to be cleaned up: no failure of this message.
                            self.note_outside(None);
                        }
                        TollgateError::RequestFailed { reason }
                    }
                    Failure::Permanent { reason } => TollgateError::RequestRefused { reason },
                },
            )?;
        let answer = engine.store(&self.shared.key).commit(commit.clone(), || commit.clone()).await;
        let is_registered = self.with_step(|step| step.registered(&answer))?.is_ok();
        if let Err(error) = &answer
            && !matches!(error, StoreError::OutcomeUnknown { .. })
        {
            // Nothing has happened, so the attempt is not overtaken: the same handler would fail in the same way at once.
            self.note(error);
            return Err(self.fail(error.clone().into()));
        }
        if !is_registered {
            self.effects().fate = Fate::Overtaken;
            return Err(TollgateError::Overtaken);
        }
        // After its deadline the attempt's garbage may be collected for the last time: it must not make any more.
        if engine.now_ms() >= deadline_ms {
            return Err(self.fail(self.late()));
        }
        Ok(())
    }

    /// Messages that are folded share their attempt, so the slot is part of what makes a name unique.
    fn unique(&self) -> Result<String, TollgateError> {
        let count = self.effects().count;
        self.with_step(|step| format!("{}-{}-{count}", step.attempt(), step.slot()))
    }

    fn attach(&self, prepared: Vec<Prepared>) -> Vec<AttachedEffect> {
        let mut effects = self.effects();
        effects.loose = effects.loose.saturating_sub(u32::try_from(prepared.len()).unwrap_or(u32::MAX));
        prepared.into_iter().map(|Prepared(effect)| effect).collect()
    }
}

/// The places and bodies of the outgoing messages that are to be moved: all over `item_max`, and the largest of the others until
/// the rest has at most `total_max` bytes.
fn choose_large_bodies(
    outgoing: &[tollgate_proto::OutboxEntry],
    item_max: usize,
    total_max: usize,
) -> Vec<(usize, Bytes)> {
    let mut inline: Vec<(usize, &Bytes)> = outgoing
        .iter()
        .enumerate()
        .filter_map(|(place, entry)| match (&entry.body, entry.audience) {
            (Body::Inline(body), Audience::Tollgate) => Some((place, body)),
            // Whoever knows no tokens could not read a blob either: the limits are checked when it is committed or sent.
            _ => None,
        })
        .collect();
    let mut total: usize = inline.iter().map(|(_, body)| body.len()).sum();
    inline.sort_by_key(|(place, body)| (std::cmp::Reverse(body.len()), *place));
    let mut large = Vec::new();
    for (place, body) in inline {
        if body.len() <= item_max && total <= total_max {
            break;
        }
        total -= body.len();
        large.push((place, body.clone()));
    }
    large
}

#[cfg(test)]
mod tests {
    use tollgate_proto::{EndpointName, OutboxEntry};

    use super::*;

    fn bodies(sizes: &[usize]) -> Vec<OutboxEntry> {
        let to =
            Destination { endpoint: EndpointName::new("e").unwrap(), partition: "p".try_into().unwrap() };
        let entry = |size: &usize| OutboxEntry {
            message_id: MessageId::from_bytes([0; 16]),
            to: to.clone(),
            message_type: MessageType::new("t").unwrap(),
            headers: vec![],
            body: Body::Inline(vec![0; *size].into()),
            audience: Audience::Tollgate,
            effects: vec![],
        };
        sizes.iter().map(entry).collect()
    }

    fn chosen(sizes: &[usize], item_max: usize, total_max: usize) -> Vec<usize> {
        choose_large_bodies(&bodies(sizes), item_max, total_max).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn bodies_over_the_limit_of_an_item_are_moved_and_then_the_largest_until_the_rest_fits() {
        assert_eq!(chosen(&[10, 20, 30], 100, 100), Vec::<usize>::new());
        assert_eq!(chosen(&[10, 101, 30], 100, 1000), [1]);
        assert_eq!(chosen(&[40, 50, 60], 100, 100), [2]);
        assert_eq!(chosen(&[40, 50, 60], 100, 50), [2, 1]);
        assert_eq!(chosen(&[200, 50, 60], 100, 90), [0, 2]);
    }
}
