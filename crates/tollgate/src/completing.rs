//! What follows a commit: the driver of the completion, steps 7 to 10. It publishes, cleans up, consumes and acknowledges;
//! what to do next it is told by `tollgate-proto`, as the driver of the processing in [`crate::engine`] is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tollgate_proto::completion::{Completion, CompletionReport, CompletionStep};
use tollgate_proto::processing::Disposition;
use tollgate_proto::{EntryRead, SessionMark, StoreError, TokenRef};

use crate::cause::PutBack;
use crate::engine::{Engine, expiry};
use crate::lanes::{Job, LaneKey};
use crate::limited::{NoAnswer, caught};
use crate::side_effects::GivenUp;
use crate::store_client::StoreClient;
use crate::unfinished::UnderWay;

/// How long a visit waits for the completion of what others have left, before it goes on without.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(1);

/// What is left to do after a partition's lane was released.
pub(crate) struct Tail {
    pub(crate) completion: Completion,
    /// The jobs that wait for it, by slot; visits, which have none, end when this is dropped.
    pub(crate) jobs: Vec<Option<Job>>,
    pub(crate) under_way: UnderWay,
}

impl Engine {
    /// [`Engine::finish`] as a task of its own. A panic takes only the messages along that wait for this completion: they are
    /// delivered again.
    pub(crate) async fn finish_apart(&self, key: &LaneKey, tail: Tail) {
        if let Err(NoAnswer::Panicked(panic)) = caught(self.finish(key, tail)).await {
            self.counters.panics.add(1);
            tracing::error!(partition = %key.partition, panic, "a completion has panicked");
            self.cache.forget(key);
        }
    }

    /// Steps 7 to 10, outside the partition's lane.
    pub(crate) async fn finish(&self, key: &LaneKey, tail: Tail) {
        let Tail { completion, mut jobs, under_way } = tail;
        let (mut report, put_back) = self.complete(key, completion).await;
        // Marked first: what is neither marked nor under way would be completed again by the next visitor.
        self.lanes.add_marks(key, std::mem::take(&mut report.marks), self.now_ms());
        under_way.end(&report, |failures| self.next_try_ms(failures, put_back));
        for (slot, result) in report.waiting() {
            let Some(Job::Message(job)) = jobs[slot].take() else { continue };
            let disposition = match result {
                Ok(()) => Disposition::Committed,
                Err(reason) => Disposition::Blocked { reason: reason.to_owned() },
            };
            self.settle_message(job, disposition, put_back);
        }
    }

    /// Completes what others have left. `None`: it takes long, and goes on beside the visit, which needs not
    /// wait for it.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        key: &LaneKey,
        completion: Completion,
    ) -> Option<(CompletionReport, PutBack)> {
        let under_way = UnderWay::begin(&self.lanes, key, completion.pending_ids().collect());
        let (reply, mut answer) = oneshot::channel();
        let (engine, lane) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let (report, put_back) = engine.complete(&lane, completion).await;
            engine.lanes.add_marks(&lane, report.marks.clone(), engine.now_ms());
            under_way.end(&report, |failures| engine.next_try_ms(failures, put_back));
            // The visit may have gone on.
            drop(reply.send((report, put_back)));
        });
        match select(&mut answer, self.tasks.runtime().sleep(RECOVERY_PATIENCE)).await {
            Either::Left((answer, _)) => answer.ok(),
            Either::Right(_) => None,
        }
    }

    /// When a completion that has failed so often is tried again.
    fn next_try_ms(&self, failures: u32, put_back: PutBack) -> u64 {
        let wait = self.settings.retry.wait(put_back.again, failures, self.tasks.runtime());
        expiry(self.now_ms(), wait)
    }

    /// Steps 7 to 9, for what was committed now or before; and what is said for those that could not be
    /// taken.
    pub(crate) async fn complete(
        &self,
        key: &LaneKey,
        completion: Completion,
    ) -> (CompletionReport, PutBack) {
        let mut step = completion.begin();
        let mut put_back = PutBack::OUTSIDE;
        let report = loop {
            step = match step {
                CompletionStep::ReadOutputs(read) => {
                    let entries = Box::pin(self.store(key).read_entries(read.requests())).await;
                    read.answer(entries)
                }
                CompletionStep::PublishEffects(publish) => {
                    let effects = publish.effects().cloned().collect();
                    let published = Box::pin(self.effects.publish_all(effects)).await;
                    publish.answer(said(published, &mut put_back))
                }
                CompletionStep::Publish(publish) => {
                    let sent = self.broker.publish(publish.publications()).await;
                    publish.answer(sent.into_iter().map(|answer| answer.map_err(|e| e.to_string())).collect())
                }
                CompletionStep::CleanUp(clean_up) => {
                    let lost = clean_up.clean_ups().iter();
                    let lost =
                        lost.map(|effect| (effect.kind.clone(), effect.registration.name.clone())).collect();
                    let answers = Box::pin(self.effects.clean_up_all(lost)).await;
                    clean_up.answer(said(answers, &mut put_back))
                }
                CompletionStep::Release(release) => {
                    let carried = release.effects();
                    let carried = carried.map(|effect| (effect.kind.clone(), effect.name.clone())).collect();
                    let answers = Box::pin(self.effects.clean_up_all(carried)).await;
                    release.answer(said(answers, &mut put_back))
                }
                CompletionStep::Consume(consume) => {
                    let deleted = self.consume(consume.tokens()).await;
                    consume.answer(deleted)
                }
                CompletionStep::Done(report) => break report,
            }
        };
        for outcome in &report.outcomes {
            if let (Ok(()), Some(token)) = (&outcome.result, outcome.pending.origin.token()) {
                self.consumed.insert(outcome.pending.origin.message_id(), token);
            }
        }
        (report, put_back)
    }

    /// Reads tokens, each from the store that its alias names.
    pub(crate) async fn read_tokens(&self, reads: Vec<EntryRead>) -> Vec<Result<Option<Bytes>, StoreError>> {
        self.ask_by_store(reads, |read| &read.token, async |store, reads| store.read_entries(reads).await)
            .await
    }

    /// Deletes tokens, each in the store that its alias names.
    async fn consume(&self, tokens: Vec<TokenRef>) -> Vec<Result<Option<SessionMark>, StoreError>> {
        self.ask_by_store(tokens, |token| token, async |store, tokens| store.delete_entries(tokens).await)
            .await
    }

    /// Sends each request to the store that its token names; one whose store this process doesn't know is answered with an
    /// error, and so its message is put back.
    async fn ask_by_store<Request: Clone, Answer>(
        &self,
        requests: Vec<Request>,
        token_of: impl Fn(&Request) -> &TokenRef,
        ask: impl AsyncFn(&StoreClient, Vec<Request>) -> Vec<Result<Answer, StoreError>>,
    ) -> Vec<Result<Answer, StoreError>> {
        if let [only] = &self.stores[..]
            && requests.iter().all(|request| token_of(request).store == *only.alias())
        {
            return ask(only, requests).await;
        }
        let mut answers: Vec<Result<Answer, StoreError>> =
            requests.iter().map(|request| Err(self.unknown_store(token_of(request)))).collect();
        for store in &self.stores {
            let (places, own): (Vec<usize>, Vec<Request>) = requests
                .iter()
                .enumerate()
                .filter(|(_, request)| token_of(request).store == *store.alias())
                .map(|(place, request)| (place, request.clone()))
                .unzip();
            for (place, answer) in places.into_iter().zip(ask(store, own).await) {
                answers[place] = answer;
            }
        }
        answers
    }

    fn unknown_store(&self, token: &TokenRef) -> StoreError {
        let first = self.stores.first().expect("a gate has at least one store");
        StoreError::ForeignToken { store: first.alias().clone(), token: token.clone() }
    }
}

/// What came of side effects, for the machine; a time that a target asks for goes into `put_back`.
fn said(answers: Vec<Result<(), GivenUp>>, put_back: &mut PutBack) -> Vec<Result<(), String>> {
    let answers = answers.into_iter();
    let said = |answer: Result<(), GivenUp>| {
        answer.map_err(|given_up| {
            *put_back = put_back.leaving_alone(given_up.retry_after);
            given_up.reason
        })
    };
    answers.map(said).collect()
}
