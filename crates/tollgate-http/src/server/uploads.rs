//! `PUT` of a large body: it goes straight from the network into a blob, in a transaction of the engine's
//! that registers the blob before it exists and deletes it unless it commits. That takes as long as the
//! sender likes, and no other request may wait for it. So the bucket gets a reservation first, by a short
//! commit of its own; the body arrives in an upload partition, one of many; and the commit there, which names
//! the blob, is what stores the request.
//!
//! A failure in between gives the upload up: the reservation is marked, then the upload partition is
//! committed to, then the reservation is removed, or confirmed if the body is there after all. An arrival
//! reads the bucket *after* it has loaded its upload partition. So either it sees the mark, or its commit
//! conflicts with that of the process that gives up, or comes before it and is seen by it. A process that
//! dies leaves a reservation, which is no request: its client's next `PUT` goes on with it, and `DELETE`
//! removes it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;
use tollgate::{Answer, HandlerError, TollgateError, Tx};

use super::Request;
use super::content::Content;
use super::exchange::{Exchange, Stored};
use super::names::request_item;
use super::refusals::{decoded, deleted, failed, id_in_use, is_same, now_ms};
use super::removal::same;
use super::request_body::RequestBody;
use super::stored_request::{RequestState, Sender, StoredRequest};
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;

/// Most looks of a `PUT` at a bucket that others are changing, before its client is told to come again.
const LOOKS_MAX: u32 = 6;

/// The outcome of an arrival.
enum Arrived {
    /// A body is stored in the upload partition: this one, or one that came before.
    Stored { request: Box<StoredRequest>, is_new: bool },
    /// The reservation is none any more, and nothing of the body was read.
    Moved,
    /// Nothing is stored, and the body is lost.
    Failed(Problem),
}

impl Exchange {
    /// `PUT` of a body that is not held in memory. It must be called in such a way that it comes to its end
    /// even if the client goes away: see [`tollgate::Edge::to_its_end`].
    pub(super) async fn store_upload(
        self: Arc<Self>,
        sender: Sender,
        content: Content,
    ) -> Result<Stored, Problem> {
        let Sender { id, caller, .. } = &sender;
        let since = Instant::now();
        for _ in 0..LOOKS_MAX {
            if self.tombstones.has(*id, caller) {
                return Err(deleted(*id));
            }
            let known = match self.known(*id).await? {
                Some(known) => known,
                None => self.reserve(&sender, since).await?,
            };
            if !sender.is_of(&known) {
                return Err(id_in_use(*id));
            }
            match known.head.state {
                RequestState::Deleting => return Err(deleted(*id)),
                RequestState::GivenUp => self.settle(*id, &known).await?,
                RequestState::Stored if !known.is_reservation() => {
                    return compared(*id, &known, &content, false).await;
                }
                RequestState::Stored => match self.arrive(&known, &sender, &content).await? {
                    Arrived::Stored { request, is_new } => {
                        return compared(*id, &request, &content, is_new).await;
                    }
                    Arrived::Moved => {}
                    Arrived::Failed(problem) => {
                        self.give_up(*id, &known).await;
                        return Err(problem);
                    }
                },
            }
        }
        Err(Problem::new(ProblemKind::Unavailable, "others are storing the same request: repeat it"))
    }

    /// Reserves the id for a body that is to arrive, and returns what is known under it then.
    async fn reserve(&self, sender: &Sender, since: Instant) -> Result<StoredRequest, Problem> {
        let mut reservation = StoredRequest::new(sender, now_ms());
        // At random, so that hardly any two arrive in the same partition at a time.
        let [first, second, ..] = *RequestId::random().as_bytes();
        reservation.head.upload = Some(u16::from_le_bytes([first, second]));
        self.put_new(sender.id, &reservation, since).await
    }

    /// Takes the body in.
    async fn arrive(
        self: &Arc<Self>,
        reservation: &StoredRequest,
        sender: &Sender,
        content: &Content,
    ) -> Result<Arrived, Problem> {
        let id = sender.id;
        let partition = self.upload_partition(reservation);
        // The transaction's own verdict, as opposed to an answer of the partition.
        let verdict: Arc<Mutex<Option<Arrived>>> = Arc::default();
        let attempt = {
            let (exchange, reservation) = (Arc::clone(self), reservation.clone());
            let (sender, content, verdict) = (sender.clone(), content.clone(), Arc::clone(&verdict));
            move |tx: Tx| {
                let (exchange, reservation) = (Arc::clone(&exchange), reservation.clone());
                let (sender, content, verdict) = (sender.clone(), content.clone(), Arc::clone(&verdict));
                async move {
                    exchange.take_in(&tx, reservation, sender, &content).await.map_err(|unstored| {
                        match unstored {
                            Unstored::Repeat(error) => error,
                            Unstored::For(arrived) => {
                                *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrived);
                                HandlerError::permanent("nothing of this attempt is to be kept")
                            }
                        }
                    })
                }
            }
        };
        let step = format!("arrive/{id}/{}", RequestId::random());
        let (bytes, is_new) = match self.edge.advance_bytes(&partition, &step, attempt).await {
            // One that came before and waits for the same commit is executed too, but then nobody has read
            // this body.
            Ok(Answer::Executed(bytes)) => (bytes, !content.is_untouched().await),
            Ok(Answer::Replayed(bytes)) => (bytes, false),
            Err(error) => {
                let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Ok(match (&error, verdict) {
                    (TollgateError::RequestRefused { .. }, Some(arrived)) => arrived,
                    _ => Arrived::Failed(failed(id, &error)),
                });
            }
        };
        let request = Box::new(decoded(id, StoredRequest::decode(&bytes))?);
        Ok(Arrived::Stored { request, is_new })
    }

    /// The attempt: registers the blob, stores the body in it while it arrives, and says where the request is
    /// to be executed.
    async fn take_in(
        &self,
        tx: &Tx,
        mut request: StoredRequest,
        sender: Sender,
        content: &Content,
    ) -> Result<Answer, Unstored> {
        let Sender { id, caller, content_type, .. } = sender;
        let item = request_item(id);
        if let Some(known) = tx.get_bytes(&item).await? {
            let now = self.edge.read(tx.partition().as_str(), &item).await?;
            return Ok(now.map_or(Answer::Executed(known), Answer::Replayed));
        }
        // Never from memory and never before the line above: see the top of this file.
        let known = self.edge.read(&self.names.bucket(id), &item).await?;
        let known = known.map(|bytes| StoredRequest::decode(&bytes)).transpose()?;
        let is_open = known.is_some_and(|known| {
            known.head.incarnation == request.head.incarnation && known.head.state == RequestState::Stored
        });
        if !is_open {
            return Err(Unstored::For(if content.is_untouched().await { Arrived::Moved } else { lost() }));
        }
        if !content.is_untouched().await {
            // Another attempt has read it, and did not commit.
            return Err(Unstored::For(lost()));
        }
        let blob = match tx.put_blob("requests/", content.stream()).await {
            Ok(blob) => blob,
            Err(error) if content.is_untouched().await => return Err(Unstored::Repeat(error.into())),
            Err(error) => {
                let problem = content.problem().await.unwrap_or_else(|| failed(id, &error));
                return Err(Unstored::For(Arrived::Failed(problem)));
            }
        };
        let of_sender = |problem| Unstored::For(Arrived::Failed(problem));
        request.head.fingerprint = content.fingerprint().await.map_err(of_sender)?;
        let body = RequestBody::blob(blob.clone(), self.edge.clone(), self.limits.read_bytes_max);
        let asked = Request { id, caller, content_type: content_type.clone(), body };
        request.head.partition = self.partition_of(asked).await.map_err(of_sender)?;
        request.head.content_type = content_type;
        request.head.blob = Some(blob);
        let bytes = request.encode();
        tx.put_bytes(&item, bytes.clone())?;
        Ok(Answer::Executed(bytes))
    }

    /// Gives a reservation up whose body did not arrive, unless another one has. What fails here is left to
    /// the next request.
    async fn give_up(&self, id: RequestId, reservation: &StoredRequest) {
        let given_up = async {
            let known = self.known(id).await?;
            let is_same_one = |known: &StoredRequest| {
                known.head.incarnation == reservation.head.incarnation && known.is_reservation()
            };
            let Some(known) = known.filter(is_same_one) else { return Ok(()) };
            let incarnation = known.head.incarnation.clone();
            let mark = move |tx: Tx| {
                let incarnation = incarnation.clone();
                async move {
                    if let Some(mut known) = same(&tx, id, &incarnation).await?
                        && known.head.state == RequestState::Stored
                    {
                        known.head.state = RequestState::GivenUp;
                        tx.put_bytes(&request_item(id), known.encode())?;
                    }
                    Ok(Answer::Executed(Bytes::new()))
                }
            };
            let step = format!("give-up/{id}/{}", RequestId::random());
            let marked = self.edge.advance_bytes(&self.names.bucket(id), &step, mark).await;
            marked.map_err(|error| failed(id, &error))?;
            self.settle(id, &known).await
        };
        if let Err(problem) = given_up.await {
            tracing::warn!(request = %id, reason = problem.detail(), "reservation left to its client's next request");
        }
    }

    /// Removes a reservation that is given up, or confirms it if its body is there.
    pub(super) async fn settle(&self, id: RequestId, reservation: &StoredRequest) -> Result<(), Problem> {
        let incarnation = reservation.head.incarnation.clone();
        let arrived = self.fence(id, reservation).await?;
        let is_there = arrived.is_some_and(|arrived| arrived.head.incarnation == incarnation);
        if !is_there {
            return self.clear(id, reservation, RequestState::GivenUp).await;
        }
        let step = format!("confirm/{id}/{}", RequestId::random());
        let confirm = move |tx: Tx| {
            let incarnation = incarnation.clone();
            async move {
                if let Some(mut known) = same(&tx, id, &incarnation).await?
                    && known.head.state == RequestState::GivenUp
                {
                    known.head.state = RequestState::Stored;
                    tx.put_bytes(&request_item(id), known.encode())?;
                }
                Ok(Answer::Executed(Bytes::new()))
            }
        };
        let confirmed = self.edge.advance_bytes(&self.names.bucket(id), &step, confirm).await;
        confirmed.map(|_| ()).map_err(|error| failed(id, &error))
    }

    /// Commits to the upload partition, so that a body that arrives was there before or conflicts; and
    /// returns what is there.
    pub(super) async fn fence(
        &self,
        id: RequestId,
        reservation: &StoredRequest,
    ) -> Result<Option<StoredRequest>, Problem> {
        let partition = self.upload_partition(reservation);
        let look = move |tx: Tx| async move {
            let bytes = tx.get_bytes(&request_item(id)).await?;
            Ok(Answer::Executed(bytes.unwrap_or_default()))
        };
        let step = format!("fence/{id}/{}", RequestId::random());
        let seen =
            self.edge.advance_bytes(&partition, &step, look).await.map_err(|error| failed(id, &error))?;
        let bytes = seen.into_response();
        if bytes.is_empty() {
            return Ok(None);
        }
        decoded(id, StoredRequest::decode(&bytes)).map(Some)
    }

    /// Removes what lies in the upload partition.
    pub(super) async fn remove_upload(&self, id: RequestId, stored: &StoredRequest) -> Result<(), Problem> {
        let partition = self.upload_partition(stored);
        let incarnation = stored.head.incarnation.clone();
        let remove = move |tx: Tx| {
            let incarnation = incarnation.clone();
            async move {
                if same(&tx, id, &incarnation).await?.is_some() {
                    tx.delete(&request_item(id))?;
                }
                Ok(Answer::Executed(Bytes::new()))
            }
        };
        let step = format!("remove-upload/{id}/{}", RequestId::random());
        let removed = self.edge.advance_bytes(&partition, &step, remove).await;
        removed.map(|_| ()).map_err(|error| failed(id, &error))
    }

    /// What lies in a bucket; or, if that is a reservation and its body has arrived, what lies in its upload
    /// partition.
    pub(super) async fn followed(
        &self,
        id: RequestId,
        known: StoredRequest,
    ) -> Result<StoredRequest, TollgateError> {
        if !known.is_reservation() {
            return Ok(known);
        }
        let partition = self.upload_partition(&known);
        let Some(bytes) = self.edge.read(&partition, &request_item(id)).await? else { return Ok(known) };
        let mut arrived = StoredRequest::decode(&bytes)
            .map_err(|error| TollgateError::RequestRefused { reason: error.to_string() })?;
        if arrived.head.incarnation != known.head.incarnation {
            return Ok(known);
        }
        // Only the bucket knows what was decided since.
        arrived.head.state = known.head.state;
        Ok(arrived)
    }

    /// The partition where the body of a request arrives. Only requests with a large body have one.
    fn upload_partition(&self, stored: &StoredRequest) -> String {
        self.names.upload_partition(stored.head.upload.unwrap_or_default())
    }
}

/// Why an attempt stores nothing.
enum Unstored {
    /// It is to be repeated.
    Repeat(HandlerError),
    /// It is not.
    For(Arrived),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Unstored {
    fn from(error: E) -> Self {
        Self::Repeat(error.into())
    }
}

/// The body was read by an attempt that did not commit, and can't be read again.
fn lost() -> Arrived {
    Arrived::Failed(Problem::new(ProblemKind::Unavailable, "nothing is stored: repeat the same request"))
}

/// Compares what is stored with what the sender sends.
async fn compared(
    id: RequestId,
    known: &StoredRequest,
    content: &Content,
    is_new: bool,
) -> Result<Stored, Problem> {
    let fingerprint = content.fingerprint().await?;
    let incarnation = known.head.incarnation.clone();
    if !is_same(&known.head.fingerprint, &fingerprint) {
        return Err(id_in_use(id));
    }
    Ok(if is_new { Stored::New { incarnation } } else { Stored::Again { incarnation } })
}
