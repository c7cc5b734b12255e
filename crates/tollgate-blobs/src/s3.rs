//! Blobs on Amazon S3, and on what speaks its protocol.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::error::BlobsError;
use crate::object_blobs::ObjectStoreBlobs;
use crate::requests::{TIMES, retries};

/// What emulators are told: they look at the form of credentials and not at their worth.
const EMULATOR_CREDENTIALS: &str = "emulator";

impl ObjectStoreBlobs {
    /// Blobs in a bucket, with credentials, region and endpoint as AWS's environment variables (`AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_WEB_IDENTITY_TOKEN_FILE`...) or the machine's role give them.
    ///
    /// # Errors
    /// [`BlobsError::Settings`], if something is missing. Whether the bucket may be used is found by [`Self::verify`].
    pub fn s3(bucket: &str) -> Result<Self, BlobsError> {
        Self::s3_with(bucket, AmazonS3Builder::from_env())
    }

    /// The same with settings of one's own: encryption, credentials, another endpoint. Times, repetitions and the way of
    /// deleting are set here.
    ///
    /// # Errors
    /// As [`Self::s3`].
    pub fn s3_with(bucket: &str, builder: AmazonS3Builder) -> Result<Self, BlobsError> {
        let place = format!("s3://{bucket}");
        let builder = TIMES.into_iter().fold(builder, |builder, (key, value)| {
            builder.with_config(AmazonS3ConfigKey::Client(key), value)
        });
        let built = builder
            .with_bucket_name(bucket)
            .with_retry(retries())
            // One blob at a time is deleted here: the request for many would only be another one to permit.
            .with_disable_bulk_delete(true)
            .build();
        match built {
            Ok(store) => Ok(Self::of(Arc::new(store), place)),
            Err(source) => Err(BlobsError::Settings { place, source }),
        }
    }

    /// Blobs in a bucket of an emulator, e.g. at `http://127.0.0.1:9000`.
    ///
    /// # Errors
    /// As [`Self::s3`].
    pub fn s3_at_emulator(endpoint: &str, bucket: &str) -> Result<Self, BlobsError> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id(EMULATOR_CREDENTIALS)
            .with_secret_access_key(EMULATOR_CREDENTIALS);
        Self::s3_with(bucket, builder)
    }
}
