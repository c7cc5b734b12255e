//! The blob storage itself: the trait's four calls on any object store. How content is cut into parts is in `upload`, how names
//! become paths in `object_path`, and what failures mean in `failure`.

use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::task::TaskTracker;
use tollgate_proto::{BlobError, BlobStream, Blobs, BoxFuture, EffectName};

use crate::failure;
use crate::object_path::{self, OBJECT_PATH_BYTES_MAX};
use crate::upload;

/// How much of a blob is sent at a time, in bytes: the least that S3 takes for a part that is not the last.
pub(crate) const PART_BYTES: usize = 5 * 1024 * 1024;

/// Most parts of one blob that are under way at a time.
const PARTS_IN_FLIGHT: usize = 2;

/// What an error names that is not about one blob.
const ANY_BLOB: &str = "*";

/// Blobs in an object store.
///
/// One upload holds at most one part more in memory than are in flight: 15 MiB unless told otherwise. Blobs shorter than a part
/// are stored by one request.
pub struct ObjectStoreBlobs {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Which storage, for errors.
    pub(crate) place: Arc<str>,
    /// The folder below which everything lies.
    root: Path,
    pub(crate) part_bytes: usize,
    pub(crate) parts_in_flight: usize,
    /// Uploads that are being given up.
    pub(crate) endings: TaskTracker,
}

impl ObjectStoreBlobs {
    /// Blobs in an object store of one's own making. `place` is what errors call it.
    ///
    /// The store must be strongly consistent, and must show an upload in parts when it is complete and not before.
    pub fn of(store: Arc<dyn ObjectStore>, place: impl Into<String>) -> Self {
        Self {
            store,
            place: place.into().into(),
            root: Path::default(),
            part_bytes: PART_BYTES,
            parts_in_flight: PARTS_IN_FLIGHT,
            endings: TaskTracker::new(),
        }
    }

    /// Blobs in memory, for tests.
    pub fn in_memory() -> Self {
        Self::of(Arc::new(object_store::memory::InMemory::new()), "memory")
    }

    /// Keeps everything below a folder, so that a bucket or container can be shared.
    #[must_use]
    pub fn below(mut self, folder: &str) -> Self {
        self.root = Path::from(folder);
        self
    }

    /// How much of a blob is sent at a time, in bytes. A blob has at most 10,000 parts; a part that is not the last has at
    /// least 5 MiB on S3, so less is raised to that.
    #[must_use]
    pub fn part_bytes(mut self, bytes: usize) -> Self {
        self.part_bytes = bytes.max(PART_BYTES);
        self
    }

    /// Most parts of one blob that are under way at a time; at least one.
    #[must_use]
    pub fn parts_in_flight(mut self, count: usize) -> Self {
        self.parts_in_flight = count.max(1);
        self
    }

    /// Waits until every upload that was given up has been told to the storage. A program that ends calls it after its
    /// gate was closed; without it, the storage's lifecycle rule does the rest (see `docs/blobs.md`).
    pub async fn close(&self) {
        self.endings.close();
        self.endings.wait().await;
        self.endings.reopen();
    }

    pub(crate) fn path(&self, name: &EffectName) -> Result<Path, BlobError> {
        let path = object_path::of_name(&self.root, name);
        let bytes = path.as_ref().len();
        if bytes > OBJECT_PATH_BYTES_MAX {
            let reason = format!(
                "its path would have {bytes} bytes, and object storage takes {OBJECT_PATH_BYTES_MAX}: choose a shorter prefix"
            );
            return Err(BlobError::Refused { name: name.clone(), reason });
        }
        Ok(path)
    }

    /// Fails if there is no bucket or container.
    pub(crate) async fn exists(&self) -> object_store::Result<()> {
        self.store.list(Some(&self.root)).next().await.transpose().map(drop)
    }

    pub(crate) fn failed(&self, name: &EffectName, error: &object_store::Error) -> BlobError {
        failure::blob_error(name, &self.place, error)
    }
}

impl fmt::Debug for ObjectStoreBlobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ObjectStoreBlobs")
            .field("place", &self.place)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Blobs for ObjectStoreBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let path = self.path(&name)?;
            upload::store(self, &name, path, content).await
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            match self.store.get(&self.path(&name)?).await {
                Ok(found) => {
                    let place = Arc::clone(&self.place);
                    let pieces = found.into_stream();
                    let pieces =
                        pieces.map_err(move |error| failure::blob_error(&name, &place, &error)).boxed();
                    Ok(Some(pieces))
                }
                Err(error) if failure::is_missing_object(&error) => Ok(None),
                Err(error) => Err(self.failed(&name, &error)),
            }
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let path = self.path(&name)?;
            match self.store.delete(&path).await {
                // Azure's answer is the same when there is not even a container.
                Err(error) if failure::is_missing_object(&error) => self.exists().await,
                answer => answer,
            }
            .map_err(|error| self.failed(&name, &error))
        })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            let anywhere = EffectName::new(ANY_BLOB).expect("the constant is a valid name");
            let folder = object_path::folder_of_prefix(&self.root, &prefix);
            let mut objects = self.store.list(Some(&folder));
            let mut names = Vec::new();
            while let Some(object) =
                objects.try_next().await.map_err(|error| self.failed(&anywhere, &error))?
            {
                let name = object_path::to_name(&self.root, &object.location);
                names.extend(name.filter(|name| name.as_str().starts_with(&prefix)));
            }
            names.sort();
            Ok(names)
        })
    }
}
