//! The four steps of exactly-once HTTP on top of the edge: store, execute, read, remove. Each is idempotent and each may be cut
//! off anywhere. How they look as HTTP is told in [`super::routes`].
//!
//! A request lies in one of the shelves, partitions of their own (a large one in part only: [`super::arriving`]); its response lies in the partition that executed it, put
//! there by the same commit, and is the marker of the execution. What keeps a late copy of `POST` from executing what was
//! removed: the execution reads the shelf *after* it has loaded its partition, and the removal first marks the shelf, then
//! commits to that partition. So either the execution sees the mark, or its commit conflicts with the removal's.
//!
//! What a transaction sees may be older than the store, if another process has changed the partition: only its commit finds
//! out. So whatever is concluded from what is there or not there is committed, even if there is nothing to change, or read again
//! from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;
use tollgate::proto::blobs::BlobStream;
use tollgate::proto::{EffectName, PartitionKey};
use tollgate::{Answer, Edge, HandlerError, TollgateError, Tx};

use super::arriving::Sender;
use super::content::Content;
use super::openapi::Accepted;
use super::request_body::RequestBody;
use super::stored_request::{
    RequestState, StoredRequest, fingerprint_of, request_item, response_item, shelf, shelf_of,
};
use super::{Authenticate, Caller, Handler, Limits, PartitionOf, Request, Response, Tombstones, unknown};
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::stored_response::StoredResponse;

/// The item of a shelf that lists its requests, where they are tracked.
const INDEX: &str = "index";

/// Bytes kept free in an item for what stands before a body: names of caller and partition, media type, hashes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Longest time from the arrival of a request to its being stored. Its client has given up by then, and may have deleted what
/// another process has stored meanwhile: stored now, it would be nobody's. No more than garbage depends on it.
const STORE_TIME_MAX: Duration = Duration::from_secs(30);

/// Everything that a server was put together from.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) edge: Edge,
    pub(super) partition: PartitionOf,
    pub(super) handler: Handler,
    pub(super) authenticate: Authenticate,
    /// The path below which it serves: two servers of one endpoint must not meet each other's requests.
    pub(super) base: String,
    pub(super) limits: Limits,
    /// What is said of bodies in the description.
    pub(super) accepted: Option<Accepted>,
    pub(super) tombstones: Tombstones,
}

/// What came of `PUT`.
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

impl Exchange {
    /// `PUT`: from now on the request can be executed.
    pub(super) async fn store(self: &Arc<Self>, sender: Sender, body: Bytes) -> Result<Stored, Problem> {
        let Sender { id, caller, content_type } = &sender;
        let since = Instant::now();
        let hasher = fingerprint_of(content_type);
        let mut stored = StoredRequest::new(caller, content_type, now_ms());
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
            // A copy that was held up: stored again it would be nobody's.
            return Err(deleted(*id));
        }
        let known = decoded(*id, StoredRequest::decode(&self.put_new(*id, &stored, since).await?))?;
        let incarnation = known.head.incarnation.clone();
        if incarnation == stored.head.incarnation {
            return Ok(Stored::New { incarnation });
        }
        if known.is_reservation() {
            // A larger body was to arrive under the id, and may have.
            let content = Content::whole(body, hasher);
            return Arc::clone(self).store_arriving(sender, content).await;
        }
        if !known.is_of(caller) || !is_same(&known.head.fingerprint, &stored.head.fingerprint) {
            return Err(id_in_use(*id));
        }
        match known.head.state {
            RequestState::Deleting => Err(deleted(*id)),
            RequestState::Stored | RequestState::GivenUp => Ok(Stored::Again { incarnation }),
        }
    }

    /// Puts something into the shelf of an id under which nothing is known, and returns what is known under it then.
    pub(super) async fn put_new(
        &self,
        id: RequestId,
        new: &StoredRequest,
        since: Instant,
    ) -> Result<Bytes, Problem> {
        let (edge, bytes, stored_at_ms) = (self.edge.clone(), new.encode(), new.head.stored_at_ms);
        let is_tracked = self.limits.is_tracked;
        let put = move |tx: Tx| {
            let (edge, bytes) = (edge.clone(), bytes.clone());
            async move {
                let item = request_item(id);
                if let Some(known) = tx.get_bytes(&item).await? {
                    let now = edge.read(tx.partition().as_str(), &item).await?;
                    return Ok(now.map_or(Answer::Executed(known), Answer::Replayed));
                }
                if since.elapsed() > STORE_TIME_MAX {
                    return Err(HandlerError::retry("it arrived too long ago to be stored now"));
                }
                if is_tracked {
                    let mut index: Index = tx.get(INDEX).await?.unwrap_or_default();
                    index.insert(id.to_string(), stored_at_ms);
                    tx.put(INDEX, &index)?;
                }
                tx.put_bytes(&item, bytes.clone())?;
                Ok(Answer::Executed(bytes))
            }
        };
        let step = format!("store/{id}/{}", RequestId::random());
        let put = self.edge.advance_bytes(&self.shelf(id), &step, put).await.map_err(|error| match error {
            // There is no handler here that could refuse it: it hit a limit of the store.
            TollgateError::RequestRefused { reason } => Problem::new(ProblemKind::TooLarge, reason),
            error => failed(id, &error),
        });
        Ok(put?.into_response())
    }

    /// On which partition a request is to be executed.
    pub(super) async fn partition_of(&self, request: Request) -> Result<String, Problem> {
        let bad = |reason: String| Problem::new(ProblemKind::BadRequest, reason);
        let id = request.id;
        let partition = (self.partition)(request).await.map_err(|error| match error {
            HandlerError::Permanent { reason } => bad(reason),
            HandlerError::Retry { reason } => failed(id, &TollgateError::RequestFailed { reason }),
        })?;
        PartitionKey::new(&partition).map_err(|error| bad(error.to_string()))?;
        if partition.starts_with(&self.shelves()) {
            return Err(bad("the request asks for a partition that the server keeps for itself".to_owned()));
        }
        Ok(partition)
    }

    /// `POST`: executes the request unless it was executed before. `meant`: which incarnation the caller means.
    pub(super) async fn execute(
        self: &Arc<Self>,
        id: RequestId,
        caller: &Caller,
        meant: Option<&Meant>,
    ) -> Result<Answered, Problem> {
        let stored = self.stored(id, caller, meant).await?;
        let incarnation = stored.head.incarnation.clone();
        let partition = stored.head.partition.clone();
        let body = match &stored.head.blob {
            None => RequestBody::held(stored.body.clone()),
            Some(blob) => RequestBody::blob(blob.clone(), self.edge.clone(), self.limits.read_bytes_max),
        };
        let content_type = stored.head.content_type.clone();
        let request = Request { id, caller: caller.clone(), content_type, body };
        let step = format!("{id}/{incarnation}");
        let attempt = {
            let (exchange, incarnation) = (Arc::clone(self), incarnation.clone());
            move |tx: Tx| {
                let (exchange, incarnation) = (Arc::clone(&exchange), incarnation.clone());
                let request = request.clone();
                async move {
                    if let Some(known) = exchange.settled(&tx, id, &incarnation).await? {
                        return Ok(Answer::Replayed(known));
                    }
                    let response = (exchange.handler)(tx.clone(), request).await?;
                    exchange.keep(&tx, id, incarnation, &response).await
                }
            }
        };
        let answer = match self.edge.advance_bytes(&partition, &step, attempt).await {
            // For good: this is the answer then, and nothing else of the handler is kept.
            Err(TollgateError::RequestRefused { reason }) => {
                let refusal = Problem::new(ProblemKind::Refused, reason).response();
                let (exchange, incarnation) = (Arc::clone(self), incarnation.clone());
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
                self.edge.advance_bytes(&partition, &format!("refuse/{step}"), refuse).await
            }
            other => other,
        };
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

    /// `GET`: the response, if there is one.
    pub(super) async fn read(
        &self,
        id: RequestId,
        caller: &Caller,
        meant: Option<&Meant>,
    ) -> Result<Answered, Problem> {
        let stored = self.stored(id, caller, meant).await?;
        let read = self.edge.read(&stored.head.partition, &response_item(id)).await;
        let Some(bytes) = read.map_err(|error| failed(id, &error))? else {
            let detail = format!("request {id} is stored: execute it with POST");
            return Err(Problem::new(ProblemKind::NotExecuted, detail));
        };
        let response = decoded(id, StoredResponse::decode(&bytes))?;
        self.answered(id, response, &stored.head.incarnation, true).await
    }

    /// `DELETE`: all trace.
    pub(super) async fn delete(
        &self,
        id: RequestId,
        caller: &Caller,
        meant: Option<&Meant>,
    ) -> Result<(), Problem> {
        let known = self.known(id).await?;
        let stored = known.filter(|stored| stored.is_of(caller)).ok_or_else(|| self.missing(id, caller))?;
        check_incarnation(id, &stored, meant)?;
        self.remove(id, stored).await
    }

    /// Removes a request, whosever it is. Repeating it goes on where it was cut off.
    pub(super) async fn remove(&self, id: RequestId, stored: StoredRequest) -> Result<(), Problem> {
        let of_store = |error: TollgateError| failed(id, &error);
        let place = self.shelf(id);
        let incarnation = stored.head.incarnation.clone();
        let mark = {
            let incarnation = incarnation.clone();
            move |tx: Tx| {
                let incarnation = incarnation.clone();
                async move {
                    if let Some(mut stored) = same(&tx, id, &incarnation).await?
                        && stored.head.state != RequestState::Deleting
                    {
                        stored.head.state = RequestState::Deleting;
                        tx.put_bytes(&request_item(id), stored.encode())?;
                    }
                    Ok(Answer::Executed(Bytes::new()))
                }
            }
        };
        let step = format!("{id}/{incarnation}");
        self.edge.advance_bytes(&place, &format!("mark/{step}"), mark).await.map_err(of_store)?;
        // A body that has arrived meanwhile is there now, and none will arrive any more.
        let stored = match stored.head.place {
            None => stored,
            Some(_) => self
                .fence(id, &stored)
                .await?
                .filter(|at| at.head.incarnation == incarnation)
                .unwrap_or(stored),
        };
        if !stored.is_reservation() {
            self.forget(id, &stored).await?;
        }
        if let Some(blob) = &stored.head.blob {
            self.edge.delete_blob(blob.name()).await.map_err(of_store)?;
        }
        if stored.head.place.is_some() {
            self.vacate(id, &stored).await?;
        }
        self.clear(id, incarnation, RequestState::Deleting).await?;
        self.tombstones.add(id, &stored.head.caller);
        Ok(())
    }

    /// Removes the response, and commits to the partition that executes the request even if there is none: it is marked in its shelf, so
    /// from here on nobody begins to execute it, and whoever has begun conflicts with this commit or comes before it.
    async fn forget(&self, id: RequestId, stored: &StoredRequest) -> Result<(), Problem> {
        let of_store = |error: TollgateError| failed(id, &error);
        let mut removed: Option<EffectName> = None;
        loop {
            let known = removed.clone();
            let forget = move |tx: Tx| {
                let known = known.clone();
                async move {
                    let Some(bytes) = tx.get_bytes(&response_item(id)).await? else {
                        return Ok(Answer::Executed(Bytes::new()));
                    };
                    let response = StoredResponse::decode(&bytes)?;
                    if let Some(blob) = response.head.blob
                        && known.as_ref() != Some(blob.name())
                    {
                        // The blob first: once the marker is gone nobody knows its name.
                        return Ok(Answer::Replayed(blob.name().as_str().to_owned().into()));
                    }
                    tx.delete(&response_item(id))?;
                    Ok(Answer::Executed(Bytes::new()))
                }
            };
            let step = format!("forget/{id}/{}", RequestId::random());
            let forgotten = self.edge.advance_bytes(&stored.head.partition, &step, forget).await;
            match forgotten.map_err(of_store)? {
                Answer::Executed(_) => return Ok(()),
                Answer::Replayed(name) => {
                    let name = EffectName::new(String::from_utf8_lossy(&name))
                        .map_err(|error| damaged(id, &error))?;
                    self.edge.delete_blob(&name).await.map_err(of_store)?;
                    removed = Some(name);
                }
            }
        }
    }

    /// Removes what lies in the shelf, if it is in that state.
    pub(super) async fn clear(
        &self,
        id: RequestId,
        incarnation: String,
        state: RequestState,
    ) -> Result<(), Problem> {
        let is_tracked = self.limits.is_tracked;
        let step = format!("clear/{id}/{incarnation}");
        let clear = move |tx: Tx| {
            let incarnation = incarnation.clone();
            async move {
                let known = same(&tx, id, &incarnation).await?;
                if known.is_none_or(|known| known.head.state != state) {
                    return Ok(Answer::Executed(Bytes::new()));
                }
                if is_tracked {
                    let mut index: Index = tx.get(INDEX).await?.unwrap_or_default();
                    index.remove(&id.to_string());
                    if index.is_empty() { tx.delete(INDEX)? } else { tx.put(INDEX, &index)? }
                }
                tx.delete(&request_item(id))?;
                Ok(Answer::Executed(Bytes::new()))
            }
        };
        let cleared = self.edge.advance_bytes(&self.shelf(id), &step, clear).await;
        cleared.map(|_| ()).map_err(|error| failed(id, &error))
    }

    /// The requests of one shelf, with when they were stored, if they are tracked.
    pub(super) async fn index(&self, number: u16) -> Result<Index, TollgateError> {
        let place = shelf_of(&self.shelves(), number);
        let Some(bytes) = self.edge.read(&place, INDEX).await? else { return Ok(Index::new()) };
        serde_json::from_slice(&bytes).map_err(|error| TollgateError::RequestRefused {
            reason: format!("the index of shelf {place} is damaged ({error}): restore it from a backup"),
        })
    }

    /// The request as it is stored now, whosever it is and whatever its state.
    pub(super) async fn known(&self, id: RequestId) -> Result<Option<StoredRequest>, Problem> {
        let read = self.edge.read(&self.shelf(id), &request_item(id)).await;
        let Some(bytes) = read.map_err(|error| failed(id, &error))? else { return Ok(None) };
        let known = decoded(id, StoredRequest::decode(&bytes))?;
        let followed = self.followed(id, known).await;
        followed.map(Some).map_err(|error| failed(id, &error))
    }

    /// The caller's stored request.
    async fn stored(
        &self,
        id: RequestId,
        caller: &Caller,
        meant: Option<&Meant>,
    ) -> Result<StoredRequest, Problem> {
        let known = self.known(id).await?;
        let mut stored =
            known.filter(|stored| stored.is_of(caller)).ok_or_else(|| self.missing(id, caller))?;
        if stored.head.state == RequestState::GivenUp {
            self.settle(id, &stored).await?;
            stored = self.known(id).await?.ok_or_else(|| self.missing(id, caller))?;
        }
        if stored.is_reservation() {
            return Err(self.missing(id, caller));
        }
        check_incarnation(id, &stored, meant)?;
        match stored.head.state {
            RequestState::Stored | RequestState::GivenUp => Ok(stored),
            RequestState::Deleting => Err(deleted(id)),
        }
    }

    /// What an execution finds that comes too late: the response, or nothing if the request was removed. `None`: it is to go on.
    async fn settled(
        &self,
        tx: &Tx,
        id: RequestId,
        incarnation: &str,
    ) -> Result<Option<Bytes>, HandlerError> {
        if let Some(known) = tx.get_bytes(&response_item(id)).await?
            && StoredResponse::decode(&known)?.head.answers == incarnation
        {
            // For good, however old it is. One of another incarnation is no longer there, as the commit will find out.
            return Ok(Some(known));
        }
        // Never from memory and never before the line above: see the top of this file.
        let known = self.edge.read(&self.shelf(id), &request_item(id)).await?;
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
        tx.put_bytes(&response_item(id), bytes.clone())?;
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

    /// Most bytes of a body that is held in memory and kept in an item; without blob storage that is all that is taken.
    pub(super) fn held_bytes_max(&self) -> usize {
        if !self.edge.has_blobs() {
            return usize::MAX;
        }
        let item_max = self.edge.store_limits().item_bytes_max.saturating_sub(HEAD_BYTES_MAX);
        self.limits.inline_bytes_max.min(item_max)
    }

    pub(super) fn shelf(&self, id: RequestId) -> String {
        shelf(&self.shelves(), id, self.limits.shelves)
    }

    /// What the names of all shelves begin with.
    pub(super) fn shelves(&self) -> String {
        format!("{}{}/requests/", self.edge.endpoint(), self.base)
    }

    fn missing(&self, id: RequestId, caller: &Caller) -> Problem {
        if self.tombstones.has(id, caller) { deleted(id) } else { unknown(id) }
    }
}

/// Requests of a shelf, with when they were stored, in milliseconds since the Unix epoch.
pub(super) type Index = BTreeMap<String, u64>;

/// Which incarnations a caller means (`If-Match`).
pub(super) struct Meant(pub(super) Vec<String>);

/// The stored request, as the transaction sees it, if it is the incarnation.
pub(super) async fn same(
    tx: &Tx,
    id: RequestId,
    incarnation: &str,
) -> Result<Option<StoredRequest>, HandlerError> {
    let Some(bytes) = tx.get_bytes(&request_item(id)).await? else { return Ok(None) };
    let stored = StoredRequest::decode(&bytes)?;
    Ok(Some(stored).filter(|stored| stored.head.incarnation == incarnation))
}

fn check_incarnation(id: RequestId, stored: &StoredRequest, meant: Option<&Meant>) -> Result<(), Problem> {
    match meant {
        Some(Meant(tags)) if !tags.iter().any(|tag| is_same(tag, &stored.head.incarnation)) => {
            let detail = format!("request {id} was removed and stored again since");
            Err(Problem::new(ProblemKind::OtherIncarnation, detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn id_in_use(id: RequestId) -> Problem {
    Problem::new(ProblemKind::IdInUse, format!("another request is stored under {id}: draw a new id"))
}

/// Compares in a time that says nothing about where both differ.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

pub(super) fn deleted(id: RequestId) -> Problem {
    Problem::new(ProblemKind::Deleted, format!("request {id} was deleted"))
}

/// What a caller is told of an error inside: that it may be repeated, or that somebody here has to look. Not more.
pub(super) fn failed(id: RequestId, error: &TollgateError) -> Problem {
    match error {
        TollgateError::RequestRefused { reason } => Problem::new(ProblemKind::Refused, reason.clone()),
        error if error.is_retryable() || matches!(error, TollgateError::Closed) => {
            tracing::warn!(request = %id, %error, "a request could not be served and may be repeated");
            Problem::new(ProblemKind::Unavailable, "nothing was lost: repeat the same request")
        }
        error => damaged(id, error),
    }
}

fn damaged(id: RequestId, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(request = %id, %error, "a request can't be served until somebody has looked at it");
    Problem::new(ProblemKind::Broken, "the server can't serve this request; its log says why")
}

pub(super) fn decoded<T, E: std::error::Error>(id: RequestId, decoded: Result<T, E>) -> Result<T, Problem> {
    decoded.map_err(|error| damaged(id, &error))
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
