//! What went over the wire to the emulator, counted when it arrives: retries of the SDK are requests too. Requests that an
//! injected fault answers don't arrive.

use std::sync::atomic::{AtomicU64, Ordering};

use azure_core::http::headers::HeaderName;
use azure_core::http::{Method, Request};
use azure_data_cosmos_driver::in_memory_emulator::RequestObserver;

const IS_BATCH: HeaderName = HeaderName::from_static("x-ms-cosmos-is-batch-request");
const IS_QUERY: HeaderName = HeaderName::from_static("x-ms-documentdb-isquery");

/// Requests for documents, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Point reads.
    pub reads: u64,
    /// Transactional batches.
    pub batches: u64,
    /// Deletions of single documents.
    pub deletions: u64,
    /// Other writes of single documents.
    pub writes: u64,
    /// Pages of queries.
    pub queries: u64,
}

impl RequestCounts {
    /// All requests for documents.
    pub const fn items(&self) -> u64 {
        self.reads + self.batches + self.deletions + self.writes + self.queries
    }

    /// What was counted since `earlier` was taken.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads - earlier.reads,
            batches: self.batches - earlier.batches,
            deletions: self.deletions - earlier.deletions,
            writes: self.writes - earlier.writes,
            queries: self.queries - earlier.queries,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Observer {
    reads: AtomicU64,
    batches: AtomicU64,
    deletions: AtomicU64,
    writes: AtomicU64,
    queries: AtomicU64,
}

impl Observer {
    pub(crate) fn read(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        RequestCounts {
            reads: read(&self.reads),
            batches: read(&self.batches),
            deletions: read(&self.deletions),
            writes: read(&self.writes),
            queries: read(&self.queries),
        }
    }
}

impl RequestObserver for Observer {
    fn on_request(&self, request: &Request) {
        // Everything that is asked of documents is asked below `…/docs`.
        if !request.url().path().split('/').any(|segment| segment == "docs") {
            return;
        }
        let headers = request.headers();
        let counter = if headers.get_optional_str(&IS_BATCH).is_some() {
            &self.batches
        } else if headers.get_optional_str(&IS_QUERY).is_some() {
            &self.queries
        } else {
            match request.method() {
                Method::Get => &self.reads,
                Method::Delete => &self.deletions,
                _ => &self.writes,
            }
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}
