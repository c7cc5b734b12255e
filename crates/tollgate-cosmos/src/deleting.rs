//! Deletions of outbox entries: one batch for those of one logical partition. Each answer carries the session mark that a
//! later reader has to show; a deletion whose answer has none is not confirmed, because nobody could be kept from reading
//! the entry after it.

use std::collections::BTreeMap;

use azure_data_cosmos::TransactionalBatch;
use futures_util::future::join_all;
use tollgate_proto::{PartitionKey, SessionMark, StoreError, TokenRef};

use crate::cosmos_store::CosmosStore;
use crate::document_id::entry_id;
use crate::failure::Failure;
use crate::limits::BATCH_OPERATIONS_MAX;
use crate::requests::BatchAnswer;
use crate::statistics::Operation;

type Deleted = Result<Option<SessionMark>, StoreError>;

impl CosmosStore {
    pub(crate) async fn delete_all(&self, tokens: Vec<TokenRef>) -> Vec<Deleted> {
        let mut answers: Vec<Option<Deleted>> = vec![None; tokens.len()];
        let mut together: BTreeMap<&PartitionKey, Vec<usize>> = BTreeMap::new();
        for (place, token) in tokens.iter().enumerate() {
            match self.check_token(token) {
                Ok(()) => together.entry(&token.partition).or_default().push(place),
                Err(foreign) => answers[place] = Some(Err(foreign)),
            }
        }
        let tokens = &tokens;
        let batches = together.into_iter().flat_map(|(partition, places)| {
            let chunks: Vec<Vec<usize>> =
                places.chunks(BATCH_OPERATIONS_MAX).map(<[usize]>::to_vec).collect();
            chunks.into_iter().map(move |places| async move {
                let ids = places.iter().map(|place| entry_id(tokens[*place].entry)).collect();
                (self.delete_in_one(partition, ids).await, places)
            })
        });
        for (deleted, places) in join_all(batches).await {
            for (place, answer) in places.into_iter().zip(deleted) {
                answers[place] = Some(answer);
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.expect("every token was put into a batch or refused"))
            .collect()
    }

    /// Deletes entries of one partition; one answer for each id.
    async fn delete_in_one(&self, partition: &PartitionKey, ids: Vec<String>) -> Vec<Deleted> {
        if ids.len() > 1 {
            match self.delete_in_a_batch(partition, &ids).await {
                Ok(Some(mark)) => return vec![Ok(Some(mark)); ids.len()],
                // One of them is gone already, and the batch did nothing.
                Ok(None) => {}
                Err(error) => return vec![Err(error); ids.len()],
            }
        }
        join_all(ids.iter().map(|id| self.delete_one(partition, id))).await
    }

    async fn delete_in_a_batch(
        &self,
        partition: &PartitionKey,
        ids: &[String],
    ) -> Result<Option<SessionMark>, StoreError> {
        let mut batch = TransactionalBatch::new(self.requests.key(partition)?);
        for id in ids {
            batch = batch.delete_item(id.clone(), None);
        }
        let refuse = |failure: Failure| failure.of_repeatable(&self.requests.alias, Some(partition));
        match self.requests.execute(Operation::DeleteEntry, batch).await.map_err(refuse)? {
            BatchAnswer::Done { mark, .. } => self.confirmed(partition, mark).map(Some),
            BatchAnswer::Refused { failure: Failure::Missing { .. }, .. } => Ok(None),
            BatchAnswer::Refused { failure, .. } => Err(refuse(failure)),
        }
    }

    async fn delete_one(&self, partition: &PartitionKey, id: &str) -> Deleted {
        let mark = self
            .requests
            .delete(Operation::DeleteEntry, partition, id, None)
            .await
            .map_err(|failure| failure.of_repeatable(&self.requests.alias, Some(partition)))?;
        self.confirmed(partition, mark).map(Some)
    }

    fn confirmed(
        &self,
        partition: &PartitionKey,
        mark: Option<SessionMark>,
    ) -> Result<SessionMark, StoreError> {
        let mark = mark.ok_or_else(|| StoreError::Unavailable {
            store: self.requests.alias.clone(),
            reason: format!("a deletion in partition {partition} was answered without a session token"),
        })?;
        self.memory.answered(partition, &mark.scope);
        Ok(mark)
    }
}
