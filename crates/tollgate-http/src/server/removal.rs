//! `DELETE` of a request, and removal by the operator. Repeating either goes on where it was cut off.
//!
//! The order is: mark the request in its bucket, so that no execution begins any more; commit to the
//! partition that executes it, so that an execution that has begun conflicts or came before; remove blobs and
//! the upload; remove the request.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::proto::EffectName;
use tollgate::{Answer, HandlerError, TollgateError, Tx};

use super::exchange::{Asked, Exchange, caller_hash};
use super::names::{deletion_key, quota_item, request_item};
use super::refusals::{damaged, failed};
use super::stored_request::{RequestState, StoredRequest};
use crate::problem::Problem;
use crate::request_id::RequestId;
use crate::stored_response::StoredResponse;

impl Exchange {
    /// `DELETE`: all trace.
    pub(super) async fn delete(&self, asked: &Asked) -> Result<(), Problem> {
        let stored = self.owned(asked).await?;
        asked.check_incarnation(&stored)?;
        self.remove(asked.id, stored).await
    }

    /// Removes a request of any caller.
    pub(super) async fn remove(&self, id: RequestId, stored: StoredRequest) -> Result<(), Problem> {
        let of_store = |error: TollgateError| failed(id, &error);
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
        let step = format!("mark/{id}/{incarnation}");
        self.edge.advance_bytes(&self.names.bucket(id), &step, mark).await.map_err(of_store)?;
        // A body that has arrived meanwhile is there now, and none will arrive any more.
        let stored = match stored.head.upload {
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
        if stored.head.upload.is_some() {
            self.remove_upload(id, &stored).await?;
        }
        self.clear(id, &stored, RequestState::Deleting).await?;
        self.tombstones.add(id, &stored.head.caller);
        Ok(())
    }

    /// Removes the response, and commits to the partition that executes the request even if there is none.
    ///
    /// The request is marked in its bucket, so no execution begins from here on, and one that has begun
    /// conflicts with this commit or comes before it. The response of another incarnation stays.
    async fn forget(&self, id: RequestId, stored: &StoredRequest) -> Result<(), Problem> {
        let of_store = |error: TollgateError| failed(id, &error);
        let marker: Arc<str> = self.names.response_item(id).into();
        let mut removed: Option<EffectName> = None;
        loop {
            let (known, marker) = (removed.clone(), Arc::clone(&marker));
            let incarnation = stored.head.incarnation.clone();
            let forget = move |tx: Tx| {
                let (known, marker, incarnation) = (known.clone(), Arc::clone(&marker), incarnation.clone());
                async move {
                    let Some(bytes) = tx.get_bytes(&marker).await? else {
                        return Ok(Answer::Executed(Bytes::new()));
                    };
                    let response = StoredResponse::decode(&bytes)?;
                    if response.head.answers != incarnation {
                        return Ok(Answer::Executed(Bytes::new()));
                    }
                    if let Some(blob) = response.head.blob
                        && known.as_ref() != Some(blob.name())
                    {
                        // The blob first: once the marker is gone its name is lost.
                        return Ok(Answer::Replayed(blob.name().as_str().to_owned().into()));
                    }
                    tx.delete(&marker)?;
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

    /// Removes what lies in the bucket, if it is in that state; and remembers the deletion, where deletions
    /// are remembered.
    pub(super) async fn clear(
        &self,
        id: RequestId,
        stored: &StoredRequest,
        state: RequestState,
    ) -> Result<(), Problem> {
        let of_store = |error: TollgateError| failed(id, &error);
        let (bucket, incarnation) = (self.names.bucket(id), stored.head.incarnation.clone());
        if state == RequestState::Deleting
            && let Some(retention) = self.limits.tombstone_retention
        {
            let (incarnation, caller) = (incarnation.clone(), caller_hash(&stored.head.caller));
            let clear = move |tx: Tx| {
                let (incarnation, caller) = (incarnation.clone(), caller.clone());
                async move {
                    clear_in_bucket(&tx, id, &incarnation, state).await?;
                    Ok(caller)
                }
            };
            let cleared = self.edge.execute_bytes(&bucket, &deletion_key(id), retention, clear).await;
            if matches!(cleared.map_err(of_store)?, Answer::Executed(_)) {
                return Ok(());
            }
            // Remembered already: by an earlier try of this removal, or since an earlier one whose record is
            // about to expire.
        }
        let step = format!("clear/{id}/{incarnation}");
        let clear = move |tx: Tx| {
            let incarnation = incarnation.clone();
            async move {
                clear_in_bucket(&tx, id, &incarnation, state).await?;
                Ok(Answer::Executed(Bytes::new()))
            }
        };
        self.edge.advance_bytes(&bucket, &step, clear).await.map(|_| ()).map_err(of_store)
    }
}

async fn clear_in_bucket(
    tx: &Tx,
    id: RequestId,
    incarnation: &str,
    state: RequestState,
) -> Result<(), HandlerError> {
    let Some(known) = same(tx, id, incarnation).await?.filter(|known| known.head.state == state) else {
        return Ok(());
    };
    if known.head.is_counted {
        let quota = quota_item(&known.head.caller);
        let open: u64 = tx.get(&quota).await?.unwrap_or_default();
        if open > 1 { tx.put(&quota, &(open - 1))? } else { tx.delete(&quota)? }
    }
    tx.delete(&request_item(id))?;
    Ok(())
}

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
