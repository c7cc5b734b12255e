//! Requests whose client never came back: found and removed when the operator asks for it, never by
//! themselves, because only the operator knows how long a client may take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tollgate::TollgateError;

use super::ExactlyOnce;
use super::names::REQUEST;
use super::stored_request::StoredRequest;
use crate::problem::Problem;
use crate::request_id::RequestId;

/// Partitions that are looked at in one call of the store.
const PAGE: usize = 256;

/// A request that is stored: executed or not, and not removed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbandonedRequest {
    /// Its id.
    pub id: RequestId,
    /// The time when it was stored.
    pub stored_at: SystemTime,
}

impl ExactlyOnce {
    /// Lists the requests that were stored longer ago than `age` and are not removed yet, oldest first.
    ///
    /// It scans the store page by page, as the gate's sweep does, and reads each request that it finds: an
    /// operator's call, not one for each request. `PUT` and `DELETE` keep no list for it.
    ///
    /// # Errors
    /// A store error.
    pub async fn abandoned(&self, age: Duration) -> Result<Vec<AbandonedRequest>, TollgateError> {
        let exchange = &self.exchange;
        let latest = SystemTime::now() - age;
        let buckets = exchange.names.bucket_prefix();
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = exchange.edge.scan(cursor, PAGE).await?;
            let of_server =
                page.partitions.iter().filter(|scanned| scanned.partition.as_str().starts_with(&buckets));
            for (bucket, item) in
                of_server.flat_map(|scanned| scanned.items.iter().map(move |item| (scanned, item)))
            {
                let Some(Ok(id)) = item.as_str().strip_prefix(REQUEST).map(str::parse) else { continue };
                let stored = exchange.edge.read(bucket.partition.as_str(), item.as_str()).await?;
                let Some(stored) = stored else { continue };
                let stored = StoredRequest::decode(&stored)
                    .map_err(|error| TollgateError::RequestRefused { reason: error.to_string() })?;
                let stored_at = UNIX_EPOCH + Duration::from_millis(stored.head.stored_at_ms);
                if stored_at <= latest {
                    found.push(AbandonedRequest { id, stored_at });
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        found.sort_by_key(|request| request.stored_at);
        Ok(found)
    }

    /// Removes a request of any caller, executed or not, as its client's `DELETE` would. A client that does
    /// come back is told that it was deleted, or that there is no such request.
    ///
    /// # Errors
    /// The problem that `DELETE` would be answered with. Repeat it: it goes on where it was cut off.
    pub async fn remove(&self, id: RequestId) -> Result<(), Problem> {
        match self.exchange.known(id).await? {
            None => Ok(()),
            Some(stored) => self.exchange.remove(id, stored).await,
        }
    }

    /// Removes all requests that were stored longer ago than `age`, and returns how many there were.
    ///
    /// # Errors
    /// As for [`ExactlyOnce::abandoned`] and [`ExactlyOnce::remove`]. Repeat it: it goes on where it was cut
    /// off.
    pub async fn remove_abandoned(&self, age: Duration) -> Result<usize, TollgateError> {
        let abandoned = self.abandoned(age).await?;
        for request in &abandoned {
            self.remove(request.id).await.map_err(|problem| TollgateError::RequestFailed {
                reason: format!("request {}: {}", request.id, problem.detail()),
            })?;
        }
        Ok(abandoned.len())
    }
}
