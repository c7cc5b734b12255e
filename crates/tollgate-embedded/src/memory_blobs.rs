//! Blob storage in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tollgate_proto::blobs::{collect, whole};
use tollgate_proto::{BlobError, BlobStream, Blobs, BoxFuture, EffectName};

/// Blobs in memory.
#[derive(Default)]
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<EffectName, Bytes>>,
}

impl MemoryBlobs {
    /// No blobs.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EffectName, Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let content = collect(&name, content, usize::MAX).await?;
            self.lock().insert(name, content);
            Ok(())
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        Box::pin(std::future::ready(Ok(self.lock().get(name).cloned().map(whole))))
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        self.lock().remove(name);
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        let names = self.lock().keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
        Box::pin(std::future::ready(Ok(names)))
    }
}
