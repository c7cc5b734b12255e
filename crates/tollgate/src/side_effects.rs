//! The kinds of side effects that a gate knows, and how the engine talks to them: what fails for a passing reason is tried again in
//! place for a while, then by whoever handles the message next. The order of the steps is decided in `tollgate-proto`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::{StreamExt, stream};
use tollgate_proto::blobs::collect;
use tollgate_proto::{AttachedEffect, BlobError, Blobs, EffectError, EffectKind, EffectName, SideEffect};

use crate::backoff::Backoff;
use crate::blob_reference::{BLOB_KIND, BlobReference};
use crate::call_limits::{LimitedBlobs, LimitedEffect};
use crate::cause::OutsideError;
use crate::error::TollgateError;
use crate::runtime::Tasks;
use crate::statistics::Counters;

/// Most side effects of one completion that are published or deleted at a time.
const CONCURRENCY_MAX: usize = 16;

/// Most repetitions of a step in place, before its message is put back.
const REPETITIONS_MAX: u32 = 4;

/// Blob storage, and every other kind of side effect.
pub(crate) struct SideEffects {
    blobs: Option<Arc<dyn Blobs>>,
    kinds: HashMap<EffectKind, Arc<dyn SideEffect>, RandomState>,
    tasks: Tasks,
    counters: Arc<Counters>,
}

impl SideEffects {
    pub(crate) fn new(
        blobs: Option<Arc<dyn Blobs>>,
        kinds: Vec<Arc<dyn SideEffect>>,
        tasks: &Tasks,
        counters: &Arc<Counters>,
        limit: Duration,
    ) -> Result<Self, TollgateError> {
        let blobs = blobs
            .map(|inner| -> Arc<dyn Blobs> { Arc::new(LimitedBlobs { inner, tasks: tasks.clone(), limit }) });
        let mut by_kind: HashMap<EffectKind, Arc<dyn SideEffect>, RandomState> = HashMap::default();
        for effect in kinds {
            let kind = effect.kind().clone();
            let effect: Arc<dyn SideEffect> =
                Arc::new(LimitedEffect { inner: effect, tasks: tasks.clone(), limit });
            if kind.as_str() == BLOB_KIND || by_kind.insert(kind.clone(), effect).is_some() {
                return Err(TollgateError::Configuration(format!(
                    "there are two kinds of side effects with the name {kind}: they could not be told apart"
                )));
            }
        }
        Ok(Self { blobs, kinds: by_kind, tasks: tasks.clone(), counters: Arc::clone(counters) })
    }

    /// Blob storage, where there is one.
    pub(crate) fn blobs(&self) -> Option<&Arc<dyn Blobs>> {
        self.blobs.as_ref()
    }

    /// Blob storage, or what to do about its absence.
    pub(crate) fn required_blobs(&self) -> Result<&Arc<dyn Blobs>, TollgateError> {
        self.blobs.as_ref().ok_or_else(|| {
            TollgateError::Configuration("a handler uses blobs, but the gate has no blob storage".into())
        })
    }

    pub(crate) fn kind(&self, kind: &str) -> Result<&Arc<dyn SideEffect>, TollgateError> {
        EffectKind::new(kind).ok().and_then(|kind| self.kinds.get(&kind)).ok_or_else(|| {
            TollgateError::Configuration(format!(
                "a handler prepares a side effect of kind {kind}, which the gate does not know"
            ))
        })
    }

    /// Makes side effects happen; one answer each, in their order.
    pub(crate) async fn publish_all(&self, effects: Vec<AttachedEffect>) -> Vec<Result<(), GivenUp>> {
        let answers = stream::iter(effects).map(|effect| async move {
            if effect.kind.as_str() == BLOB_KIND {
                // It is visible by being named.
                return Ok(());
            }
            let kind = self.known(&effect.kind)?;
            self.repeatedly(|| kind.publish(&effect)).await.inspect(|()| {
                self.counters.effects_published.add(1);
            })
        });
        answers.buffered(CONCURRENCY_MAX).collect().await
    }

    /// Deletes side effects; one answer each, in their order.
    pub(crate) async fn clean_up_all(
        &self,
        effects: Vec<(EffectKind, EffectName)>,
    ) -> Vec<Result<(), GivenUp>> {
        let answers = stream::iter(effects).map(|(kind, name)| async move {
            let cleaned = if kind.as_str() == BLOB_KIND {
                let missing =
                    || GivenUp::because("a blob is to be deleted, but the gate has no blob storage");
                let blobs = self.blobs.as_ref().ok_or_else(missing)?;
                self.repeatedly(|| blobs.delete(&name)).await
            } else {
                let kind = self.known(&kind)?;
                self.repeatedly(|| kind.clean_up(&name)).await
            };
            cleaned.inspect(|()| self.counters.effects_cleaned_up.add(1))
        });
        answers.buffered(CONCURRENCY_MAX).collect().await
    }

    /// What the handler of a message sees of a side effect that it carries.
    pub(crate) async fn fetch(&self, effect: &AttachedEffect) -> Result<Bytes, GivenUp> {
        let kind = self.known(&effect.kind)?;
        self.repeatedly(|| kind.fetch(effect)).await
    }

    /// Reads a body that was moved to blob storage.
    pub(crate) async fn fetch_body(
        &self,
        effect: Option<&AttachedEffect>,
        name: &EffectName,
        bytes_max: usize,
    ) -> Result<Bytes, GivenUp> {
        let passing = |reason: String| GivenUp { is_retryable: true, ..GivenUp::because(reason) };
        let of_blob = |error: BlobError| GivenUp::of(&error);
        let blobs = self
            .blobs
            .as_ref()
            .ok_or_else(|| passing("the body is a blob, but the gate has no blob storage".to_owned()))?;
        let content = blobs.get(name).await.map_err(of_blob)?;
        // It may have been consumed since the token was read: then the commit would conflict, so nothing is decided here.
        let content =
            content.ok_or_else(|| passing(format!("the body is blob {name}, which is not there")))?;
        let content = match effect {
            Some(effect) => BlobReference::of_attached(effect).map_err(of_blob)?.verified(content),
            None => content,
        };
        collect(name, content, bytes_max).await.map_err(of_blob)
    }

    fn known(&self, kind: &EffectKind) -> Result<&Arc<dyn SideEffect>, GivenUp> {
        self.kinds.get(kind).ok_or_else(|| {
            let reason = format!("nobody here knows side effects of kind {kind}: configure the gate with it");
            // Another process may know them.
            GivenUp { is_retryable: true, ..GivenUp::because(reason) }
        })
    }

    /// Takes a step, and takes it again while it fails for a passing reason and nobody asks to be left alone.
    pub(crate) async fn repeatedly<T, E: Failing, F: Future<Output = Result<T, E>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<T, GivenUp> {
        let mut failures = 0;
        loop {
            match step().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let (is_retryable, retry_after) = (error.is_retryable(), error.retry_after());
                    failures += 1;
                    if !is_retryable || retry_after.is_some() || failures > REPETITIONS_MAX {
                        return Err(GivenUp::of(&error));
                    }
                    tracing::debug!(failures, %error, "a step of a side effect failed and is repeated");
                    self.tasks.runtime().sleep(Backoff::IN_PLACE.after(failures, self.tasks.runtime())).await;
                }
            }
        }
    }
}

/// What a step of a side effect fails with.
pub(crate) trait Failing: std::fmt::Display + OutsideError {
    fn is_retryable(&self) -> bool;
}

impl Failing for EffectError {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

impl Failing for BlobError {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

/// Why a step of a side effect is not taken now.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) reason: String,
    /// Whether it may be taken later: at once, or when a person has mended something.
    pub(crate) is_retryable: bool,
    /// Whether something outside was not available, and no message is to blame.
    pub(crate) is_outside: bool,
    /// How long the target asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl GivenUp {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_retryable: false, is_outside: false, retry_after: None }
    }

    fn of(error: &impl Failing) -> Self {
        Self {
            reason: error.to_string(),
            is_retryable: error.is_retryable() || error.is_outside(),
            is_outside: error.is_outside(),
            retry_after: error.retry_after(),
        }
    }
}
