//! The questions at start: whether the storage exists, lets us do all that we need, and gives back what was stored. They are asked
//! with a blob of a few bytes under a name of its own, which is deleted again.

use object_store::{ObjectStoreExt, PutPayload};
use tollgate_proto::{Blobs, EffectName};

use crate::error::BlobsError;
use crate::failure::{Meaning, meaning};
use crate::object_blobs::ObjectStoreBlobs;

/// What the names of the blobs begin with that the questions are asked with.
const PROBES: &str = "verify/";

/// What such a blob contains.
const PROBE: &[u8] = b"tollgate";

impl ObjectStoreBlobs {
    /// Lists, stores, reads and deletes a blob of a few bytes, and begins and gives up an upload in parts: call it before the
    /// first message is handled.
    ///
    /// # Errors
    /// [`BlobsError::Missing`], [`BlobsError::Denied`] and [`BlobsError::Unfit`] need a person;
    /// [`BlobsError::Unreachable`] may pass.
    pub async fn verify(&self) -> Result<(), BlobsError> {
        let probe = format!("{PROBES}{:016x}", fastrand::u64(..));
        let unfit = |step, reason: String| BlobsError::Unfit { place: self.place.to_string(), step, reason };
        let probe = EffectName::new(probe).map_err(|error| unfit("name a blob", error.to_string()))?;
        let path = self.path(&probe).map_err(|error| unfit("name a blob", error.to_string()))?;
        let failed = |step| move |error: object_store::Error| self.judge(step, &error);
        self.exists().await.map_err(failed("list blobs"))?;
        self.store.put(&path, PutPayload::from_static(PROBE)).await.map_err(failed("store a blob"))?;
        let found = self.store.get(&path).await.map_err(failed("read a blob"))?;
        let found = found.bytes().await.map_err(failed("read a blob"))?;
        self.store.delete(&path).await.map_err(failed("delete a blob"))?;
        if found != PROBE {
            return Err(unfit("read a blob", format!("{} bytes came back altered", PROBE.len())));
        }
        if !matches!(self.get(&probe).await, Ok(None)) {
            return Err(unfit("delete a blob", "it is there afterwards".to_owned()));
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(failed("begin an upload in parts"))?;
        upload.abort().await.map_err(failed("give up an upload in parts"))
    }

    fn judge(&self, step: &'static str, error: &object_store::Error) -> BlobsError {
        let (place, reason) = (self.place.to_string(), error.to_string());
        match meaning(error) {
            Meaning::NoContainer => BlobsError::Missing { place, reason },
            Meaning::Denied => BlobsError::Denied { place, step, reason },
            Meaning::NoObject | Meaning::Refused => BlobsError::Unfit { place, step, reason },
            Meaning::Passing => BlobsError::Unreachable { place, step, reason },
        }
    }
}
