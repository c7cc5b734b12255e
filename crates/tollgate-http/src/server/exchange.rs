//! The steps of exactly-once HTTP on top of the edge: store, execute, read; [`super::removal`] has the last
//! one. Each is idempotent and each may be cut off anywhere. [`super::routes`] has what they look like as
//! HTTP.
//!
//! A request lies in one of the server's buckets, partitions of their own (a large one in part only:
//! [`super::uploads`]). Its response lies in the partition that executed it, put there by the same commit,
//! and is the marker of the execution. A late copy of `POST` can't execute what was removed: the execution
//! reads the bucket *after* it has loaded its partition, and the removal first marks the request in its
//! bucket, then commits to that partition. So either the execution sees the mark, or its commit conflicts
//! with the removal's.
//!
//! A transaction may see a state that is older than the store, if another process has changed the partition:
//! only its commit finds out. So a conclusion from what is there or not there is committed, even if there is
//! nothing to change, or read again from the store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tollgate::proto::PartitionKey;
use tollgate::proto::blobs::BlobStream;
use tollgate::{Answer, Edge, HandlerError, TollgateError, Tx};

use super::content::Content;
use super::names::{Names, deletion_key, quota_item, request_item};
use super::openapi::Description;
use super::refusals::{decoded, deleted, failed, id_in_use, is_same, now_ms, other_incarnation, unknown};
use super::request_body::RequestBody;
use super::stored_request::{RequestState, Sender, StoredRequest, fingerprint_of};
use super::{Authenticate, Caller, Handler, Limits, PartitionOf, Request, Response, Tombstones};
use crate::RESERVED;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::stored_response::StoredResponse;

/// Bytes kept free in an item for what stands before a body: names of caller and partition, media type,
/// hashes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Longest time from the arrival of a request to its being stored. Its client has given up by then, and may
/// have deleted what another process has stored meanwhile: stored now, it would be a request without a
/// client. No more than garbage depends on it.
const STORE_TIME_MAX: Duration = Duration::from_secs(30);

/// Everything that a server was put together from.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) edge: Edge,
    pub(super) partition: PartitionOf,
    pub(super) handler: Handler,
    pub(super) authenticate: Authenticate,
    /// The path below which it serves.
    pub(super) base: String,
    /// The name under which it keeps its requests, if that is not the base.
    pub(super) name: Option<String>,
    pub(super) names: Names,
    pub(super) limits: Limits,
    pub(super) description: Description,
    pub(super) tombstones: Tombstones,
}

/// A successful `PUT`.
pub(super) enum Stored {
    New { incarnation: String },
    Again { incarnation: String },
}

/// A stored response on its way out.
pub(super) struct Answered {
    pub(super) response: StoredResponse,
    /// The body, where it is a blob.
    pub(super) blob: Option<(u64, BlobStream)>,
    pub(super) replayed: bool,
}

/// A caller and the request that it means.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) caller: Caller,
    /// The path below which the server is mounted: a request belongs to one.
    pub(super) mount: String,
    /// Incarnations (`If-Match`). `None`: any.
    pub(super) meant: Option<Vec<String>>,
}

impl Asked {
    /// Whether it is the caller's request, at this path.
    fn may_see(&self, stored: &StoredRequest) -> bool {
        stored.is_of(&self.caller) && stored.head.mount == self.mount
    }

    pub(super) fn check_incarnation(&self, stored: &StoredRequest) -> Result<(), Problem> {
        match &self.meant {
            Some(tags) if !tags.iter().any(|tag| is_same(tag, &stored.head.incarnation)) => {
                Err(other_incarnation(self.id))
            }
            _ => Ok(()),
        }
    }
}

/// Why nothing new is stored under an id.
enum NotStored {
    /// It was deleted not long ago, by a caller with this hash.
    Deleted(Bytes),
    /// The caller has too many requests open.
    Quota,
}

impl Exchange {
    /// `PUT`: from now on the request can be executed.
    pub(super) async fn store(self: &Arc<Self>, sender: Sender, body: Bytes) -> Result<Stored, Problem> {
        let Sender { id, caller, content_type, .. } = &sender;
        let since = Instant::now();
        let hasher = fingerprint_of(content_type);
        let mut stored = StoredRequest::new(&sender, now_ms());
        stored.head.fingerprint = hasher.clone().update(&body).finalize().to_hex().to_string();
        let asked = Request {
            id: *id,
            caller: caller.clone(),
            content_type: content_type.clone(),
            body: RequestBody::held(body.clone()),
        };
        stored.head.partition = self.partition_of(asked).await?;
        stored.body = body.clone();
        if self.tombstones.has(*id, caller) {
            // A copy that was held up: stored again it would be without a client.
            return Err(deleted(*id));
        }
        let known = self.put_new(*id, &stored, since).await?;
        let incarnation = known.head.incarnation.clone();
        if incarnation == stored.head.incarnation {
            return Ok(Stored::New { incarnation });
        }
        if known.is_reservation() {
            // A larger body was to arrive under the id, and may have.
            let content = Content::whole(body, hasher);
            return Arc::clone(self).store_upload(sender, content).await;
        }
        if !sender.is_of(&known) || !is_same(&known.head.fingerprint, &stored.head.fingerprint) {
            return Err(id_in_use(*id));
        }
        match known.head.state {
            RequestState::Deleting => Err(deleted(*id)),
            RequestState::Stored | RequestState::GivenUp => Ok(Stored::Again { incarnation }),
        }
    }

    /// Puts something into the bucket of an id under which nothing is known, and returns what is known under
    /// it then.
    pub(super) async fn put_new(
        &self,
        id: RequestId,
        new: &StoredRequest,
        since: Instant,
    ) -> Result<StoredRequest, Problem> {
        let bucket = self.names.bucket(id);
        let not_stored: Arc<Mutex<Option<NotStored>>> = Arc::default();
        let put = {
            let (exchange, new, not_stored) = (self.clone(), new.clone(), Arc::clone(&not_stored));
            move |tx: Tx| {
                let (exchange, new, not_stored) = (exchange.clone(), new.clone(), Arc::clone(&not_stored));
                async move {
                    let said = exchange.put_in_bucket(&tx, id, new, since).await?;
                    let (answer, reason) = match said {
                        Ok(answer) => (answer, None),
                        // Committed all the same: the commit finds out whether it is so.
                        Err(reason) => (Answer::Executed(Bytes::new()), Some(reason)),
                    };
                    *not_stored.lock().unwrap_or_else(PoisonError::into_inner) = reason;
                    Ok(answer)
                }
            }
        };
        let step = format!("store/{id}/{}", RequestId::random());
        let put = self.edge.advance_bytes(&bucket, &step, put).await;
        let bytes = put.map_err(|error| failed(id, &error))?.into_response();
        if !bytes.is_empty() {
            return decoded(id, StoredRequest::decode(&bytes));
        }
        let reason = not_stored.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(match reason {
            Some(NotStored::Deleted(caller)) if caller == caller_hash(&new.head.caller) => deleted(id),
            Some(NotStored::Deleted(_)) => id_in_use(id),
            _ => Problem::new(
                ProblemKind::TooManyRequests,
                "too many of your requests are open: delete those that you have read",
            ),
        })
    }

    async fn put_in_bucket(
        &self,
        tx: &Tx,
        id: RequestId,
        mut new: StoredRequest,
        since: Instant,
    ) -> Result<Result<Answer, NotStored>, HandlerError> {
        let item = request_item(id);
        let bucket = tx.partition().as_str();
        if let Some(known) = tx.get_bytes(&item).await? {
            let now = self.edge.read(bucket, &item).await?;
            return Ok(Ok(now.map_or(Answer::Executed(known), Answer::Replayed)));
        }
        if self.limits.tombstone_retention.is_some()
            && let Some(caller) = self.edge.recorded(bucket, &deletion_key(id)).await?
        {
            return Ok(Err(NotStored::Deleted(caller)));
        }
        if since.elapsed() > STORE_TIME_MAX {
            return Err(HandlerError::retry("it arrived too long ago to be stored now"));
        }
        if let Some(open_max) = self.limits.open_in_bucket_max() {
            let quota = quota_item(&new.head.caller);
            let open: u64 = tx.get(&quota).await?.unwrap_or_default();
            if open >= open_max {
                return Ok(Err(NotStored::Quota));
            }
            tx.put(&quota, &(open + 1))?;
            new.head.is_counted = true;
        }
        let bytes = new.encode();
        tx.put_bytes(&item, bytes.clone())?;
        Ok(Ok(Answer::Executed(bytes)))
    }

    /// The partition on which a request is to be executed.
    pub(super) async fn partition_of(&self, request: Request) -> Result<String, Problem> {
        let bad = |reason: String| Problem::new(ProblemKind::BadRequest, reason);
        let id = request.id;
        let partition = (self.partition)(request).await.map_err(|error| match error {
            error if error.is_permanent() => match Problem::of_reason(error.reason()) {
                Some(problem) => bad(problem.detail().to_owned()),
                None => bad(error.reason().to_owned()),
            },
            error => failed(id, &TollgateError::RequestFailed { reason: error.reason().to_owned() }),
        })?;
        PartitionKey::new(&partition).map_err(|error| bad(error.to_string()))?;
        if partition.starts_with(RESERVED) {
            return Err(bad("the request asks for a partition that the server keeps for itself".to_owned()));
        }
        Ok(partition)
    }

    /// `POST`: executes the request unless it was executed before.
    pub(super) async fn execute(self: &Arc<Self>, asked: &Asked) -> Result<Answered, Problem> {
        let Asked { id, caller, .. } = asked;
        let id = *id;
        let stored = self.stored(asked).await?;
        let incarnation = stored.head.incarnation.clone();
        let partition = stored.head.partition.clone();
        let body = match &stored.head.blob {
            None => RequestBody::held(stored.body.clone()),
            Some(blob) => RequestBody::blob(blob.clone(), self.edge.clone(), self.limits.read_bytes_max),
        };
        let content_type = stored.head.content_type.clone();
        let request = Request { id, caller: caller.clone(), content_type, body };
        let step = format!("{id}/{incarnation}");
        // The handler's own refusal, as opposed to the engine's.
        let refusal: Arc<Mutex<Option<String>>> = Arc::default();
        let attempt = {
            let (exchange, incarnation, refusal) =
                (Arc::clone(self), incarnation.clone(), Arc::clone(&refusal));
            move |tx: Tx| {
                let (exchange, incarnation, refusal) =
                    (Arc::clone(&exchange), incarnation.clone(), Arc::clone(&refusal));
                let request = request.clone();
                async move {
                    *refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    if let Some(known) = exchange.settled(&tx, id, &incarnation).await? {
                        return Ok(Answer::Replayed(known));
                    }
                    let response = (exchange.handler)(tx.clone(), request).await.inspect_err(|error| {
                        if let HandlerError::Permanent { reason, .. } = error {
                            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
                        }
                    })?;
                    exchange.keep(&tx, id, incarnation, &response).await
                }
            }
        };
        let mut answer = self.edge.advance_bytes(&partition, &step, attempt).await;
        if matches!(answer, Err(TollgateError::RequestRefused { .. })) {
            let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(reason) = refusal {
                answer = self.refuse(id, &partition, incarnation.clone(), &reason).await;
            }
        }
        let (bytes, replayed) = match answer.map_err(|error| failed(id, &error))? {
            Answer::Executed(bytes) => (bytes, false),
            Answer::Replayed(bytes) => (bytes, true),
        };
        if bytes.is_empty() {
            return Err(deleted(id));
        }
        let response = decoded(id, StoredResponse::decode(&bytes))?;
        self.answered(id, response, &incarnation, replayed).await
    }

    /// Keeps the handler's refusal as the response, for good, and nothing else of what the handler did.
    async fn refuse(
        self: &Arc<Self>,
        id: RequestId,
        partition: &str,
        incarnation: String,
        reason: &str,
    ) -> Result<Answer, TollgateError> {
        let refusal = Problem::refusal(reason).response();
        let step = format!("refuse/{id}/{incarnation}");
        let exchange = Arc::clone(self);
        let refuse = move |tx: Tx| {
            let (exchange, incarnation) = (Arc::clone(&exchange), incarnation.clone());
            let refusal = refusal.clone();
            async move {
                if let Some(known) = exchange.settled(&tx, id, &incarnation).await? {
                    return Ok(Answer::Replayed(known));
                }
                exchange.keep(&tx, id, incarnation, &refusal).await
            }
        };
        self.edge.advance_bytes(partition, &step, refuse).await
    }

    /// `GET`: the response, if there is one.
    pub(super) async fn read(&self, asked: &Asked) -> Result<Answered, Problem> {
        let id = asked.id;
        let stored = self.stored(asked).await?;
        let read = self.edge.read(&stored.head.partition, &self.names.response_item(id)).await;
        let Some(bytes) = read.map_err(|error| failed(id, &error))? else {
            let detail = format!("request {id} is stored: execute it with POST");
            return Err(Problem::new(ProblemKind::NotExecuted, detail));
        };
        let response = decoded(id, StoredResponse::decode(&bytes))?;
        self.answered(id, response, &stored.head.incarnation, true).await
    }

    /// Checks the conditions of a `PUT` (RFC 9110, 13.1): `If-Match`, and whether `If-None-Match` forbids a
    /// stored request.
    pub(super) async fn check_conditions(
        &self,
        asked: &Asked,
        is_there: bool,
        none_match: Option<&[String]>,
    ) -> Result<(), Problem> {
        let known = self.known(asked.id).await?.filter(|known| asked.may_see(known));
        if is_there && known.is_none() {
            return Err(other_incarnation(asked.id));
        }
        let Some(known) = known else { return Ok(()) };
        asked.check_incarnation(&known)?;
        let is_any = |tags: &[String]| tags.is_empty() || tags.contains(&known.head.incarnation);
        if none_match.is_some_and(is_any) { Err(other_incarnation(asked.id)) } else { Ok(()) }
    }

    /// The request as it is stored now, for any caller and in any state.
    pub(super) async fn known(&self, id: RequestId) -> Result<Option<StoredRequest>, Problem> {
        let read = self.edge.read(&self.names.bucket(id), &request_item(id)).await;
        let Some(bytes) = read.map_err(|error| failed(id, &error))? else { return Ok(None) };
        let known = decoded(id, StoredRequest::decode(&bytes))?;
        let followed = self.followed(id, known).await;
        followed.map(Some).map_err(|error| failed(id, &error))
    }

    /// The caller's request in any state.
    pub(super) async fn owned(&self, asked: &Asked) -> Result<StoredRequest, Problem> {
        match self.known(asked.id).await?.filter(|stored| asked.may_see(stored)) {
            Some(stored) => Ok(stored),
            None => Err(self.missing(asked).await?),
        }
    }

    /// The caller's stored request.
    async fn stored(&self, asked: &Asked) -> Result<StoredRequest, Problem> {
        let id = asked.id;
        let mut stored = self.owned(asked).await?;
        if stored.head.state == RequestState::GivenUp {
            self.settle(id, &stored).await?;
            stored = match self.known(id).await? {
                Some(stored) => stored,
                None => return Err(self.missing(asked).await?),
            };
        }
        if stored.is_reservation() {
            return Err(self.missing(asked).await?);
        }
        asked.check_incarnation(&stored)?;
        match stored.head.state {
            RequestState::Stored | RequestState::GivenUp => Ok(stored),
            RequestState::Deleting => Err(deleted(id)),
        }
    }

    /// The response that an execution finds when it comes too late, or nothing if the request was removed.
    /// `None`: it goes on.
    async fn settled(
        &self,
        tx: &Tx,
        id: RequestId,
        incarnation: &str,
    ) -> Result<Option<Bytes>, HandlerError> {
        if let Some(known) = tx.get_bytes(&self.names.response_item(id)).await?
            && StoredResponse::decode(&known)?.head.answers == incarnation
        {
            // For good, however old it is. One of another incarnation is no longer there, as the commit will
            // find out: a request is stored again only after its marker was removed.
            return Ok(Some(known));
        }
        // Never from memory and never before the line above: see the top of this file.
        let known = self.edge.read(&self.names.bucket(id), &request_item(id)).await?;
        let is_there = match known {
            None => false,
            Some(bytes) => {
                let StoredRequest { head, .. } = StoredRequest::decode(&bytes)?;
                head.incarnation == incarnation && head.state == RequestState::Stored
            }
        };
        Ok(if is_there { None } else { Some(Bytes::new()) })
    }

    /// Puts the response next to what the handler has done.
    async fn keep(
        &self,
        tx: &Tx,
        id: RequestId,
        incarnation: String,
        response: &Response,
    ) -> Result<Answer, HandlerError> {
        if response.status().is_informational() {
            let status = response.status();
            return Err(HandlerError::permanent(format!(
                "the handler answers with {status}, which ends nothing"
            )));
        }
        let stored = if response.body().len() > self.held_bytes_max() {
            let blob = tx.put_blob("responses/", response.body().clone()).await?;
            StoredResponse::in_blob(incarnation, response, blob)
        } else {
            StoredResponse::inline(incarnation, response)
        };
        let bytes = stored.encode();
        tx.put_bytes(&self.names.response_item(id), bytes.clone())?;
        Ok(Answer::Executed(bytes))
    }

    async fn answered(
        &self,
        id: RequestId,
        response: StoredResponse,
        incarnation: &str,
        replayed: bool,
    ) -> Result<Answered, Problem> {
        if response.head.answers != incarnation {
            // Removed and stored again, between two reads.
            return Err(unknown(id));
        }
        let blob = match &response.head.blob {
            None => None,
            Some(blob) => {
                let content = self.edge.read_blob(blob).await.map_err(|error| failed(id, &error))?;
                Some((blob.bytes(), content.ok_or_else(|| deleted(id))?))
            }
        };
        Ok(Answered { response, blob, replayed })
    }

    /// Most bytes of a body that is held in memory and kept in an item.
    pub(super) fn held_bytes_max(&self) -> usize {
        if self.edge.has_blobs() {
            self.limits.inline_bytes_max.min(self.item_bytes_max())
        } else {
            usize::MAX
        }
    }

    /// Most bytes of a body that is taken: without blob storage an item's limit is the limit.
    pub(super) fn body_bytes_max(&self) -> usize {
        let bytes_max = self.limits.body_bytes_max;
        if self.edge.has_blobs() { bytes_max } else { bytes_max.min(self.item_bytes_max()) }
    }

    fn item_bytes_max(&self) -> usize {
        self.edge.store_limits().item_bytes_max.saturating_sub(HEAD_BYTES_MAX)
    }

    /// The refusal of a request that is not there, for this caller.
    async fn missing(&self, asked: &Asked) -> Result<Problem, Problem> {
        let id = asked.id;
        if self.tombstones.has(id, &asked.caller) {
            return Ok(deleted(id));
        }
        if self.limits.tombstone_retention.is_none() {
            return Ok(unknown(id));
        }
        let recorded = self.edge.recorded(&self.names.bucket(id), &deletion_key(id)).await;
        let caller = recorded.map_err(|error| failed(id, &error))?;
        let is_own = caller.is_some_and(|caller| caller == caller_hash(asked.caller.as_str()));
        Ok(if is_own { deleted(id) } else { unknown(id) })
    }
}

/// A caller in the record of a deletion.
pub(super) fn caller_hash(caller: &str) -> Bytes {
    Bytes::copy_from_slice(blake3::hash(caller.as_bytes()).as_bytes())
}
