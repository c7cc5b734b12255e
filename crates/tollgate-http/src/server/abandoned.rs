//! Requests whose client never came back: found and removed when the operator asks for it, never by themselves, for nobody
//! but him knows how long a client may take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tollgate::TollgateError;

use super::ExactlyOnce;
use crate::problem::Problem;
use crate::request_id::RequestId;

/// A request that has been stored for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbandonedRequest {
    /// Its id.
    pub id: RequestId,
    /// When it was stored.
    pub stored_at: SystemTime,
}

impl ExactlyOnce {
    /// Lists the requests that were stored longer ago than `age` and are not removed yet, oldest first. It needs
    /// [`ExactlyOnce::tracked`], and reads as many items as there are shelves.
    ///
    /// # Errors
    /// A store error, or [`TollgateError::Configuration`] if requests are not tracked.
    pub async fn abandoned(&self, age: Duration) -> Result<Vec<AbandonedRequest>, TollgateError> {
        let limits = &self.exchange.limits;
        if !limits.is_tracked {
            let what = "requests are only found again where they are tracked: see `ExactlyOnce::tracked`";
            return Err(TollgateError::Configuration(what.to_owned()));
        }
        let latest = SystemTime::now() - age;
        let mut found = Vec::new();
        for number in 0..limits.shelves {
            for (id, stored_at_ms) in self.exchange.index(number).await? {
                let stored_at = UNIX_EPOCH + Duration::from_millis(stored_at_ms);
                if let Ok(id) = id.parse()
                    && stored_at <= latest
                {
                    found.push(AbandonedRequest { id, stored_at });
                }
            }
        }
        found.sort_by_key(|request| request.stored_at);
        Ok(found)
    }

    /// Removes all trace of a request, whosever it is and whether or not it was executed, as its client's `DELETE` would. A
    /// client that does come back is told that it was deleted, or that there is no such request.
    ///
    /// # Errors
    /// The problem that `DELETE` would be answered with. Repeat it: it goes on where it was cut off.
    pub async fn remove(&self, id: RequestId) -> Result<(), Problem> {
        match self.exchange.known(id).await? {
            None => Ok(()),
            Some(stored) => self.exchange.remove(id, stored).await,
        }
    }
}
