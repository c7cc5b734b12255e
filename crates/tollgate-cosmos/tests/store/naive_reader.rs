//! The store with its session marks switched off: what everybody writes who reads a document by its id. It exists to show that the
//! tests of sessions notice.

use std::sync::Arc;

use azure_data_cosmos::CosmosClient;
use azure_data_cosmos::clients::ContainerClient;
use base64::Engine as _;
use bytes::Bytes;
use tollgate_cosmos::{CosmosStore, document_id};
use tollgate_proto::{BoxFuture, EntryRead, Store, StoreError, StoreWrapper, TokenRef};

use crate::accounts::{CONTAINER, DATABASE};

/// Reads tokens wherever the client reads, and shows no mark.
pub struct NaiveReader {
    inner: Arc<CosmosStore>,
    container: ContainerClient,
}

impl NaiveReader {
    pub async fn new(client: &CosmosClient, inner: Arc<CosmosStore>) -> Self {
        let database = client.database_client(DATABASE.to_owned());
        let container = database.container_client(CONTAINER.to_owned(), None).await.unwrap();
        Self { inner, container }
    }

    async fn read(&self, token: &TokenRef) -> Option<Bytes> {
        let id = document_id::entry_id(token.entry);
        let answer = self.container.read_item(token.partition.to_string(), &id, None).await.ok()?;
        let json: serde_json::Value = answer.into_model().unwrap();
        let entry = json["tollgate"]["entry"].as_str().unwrap();
        Some(base64::engine::general_purpose::STANDARD.decode(entry).unwrap().into())
    }
}

impl StoreWrapper for NaiveReader {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn read_entries(&self, reads: Vec<EntryRead>) -> BoxFuture<'_, Vec<Result<Option<Bytes>, StoreError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(reads.len());
            for read in &reads {
                answers.push(Ok(self.read(&read.token).await));
            }
            answers
        })
    }
}
