//! Commits: the layout is chosen, the writes are sent, and what DynamoDB answers becomes an outcome. A transaction whose answer
//! was lost is repeated under its client token, by which DynamoDB recognises it; a single update is not repeated, since
//! nobody could tell its own success from somebody else's (R7).

use std::sync::Arc;

use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, ReturnConsumedCapacity};
use tollgate_proto::{Commit, CommitOutcome, ItemName, LimitExceeded, Placement, StoreError};

use crate::calls::{self, TRIES_MAX};
use crate::capacity::{self, ITEM_BYTES_MAX, Layout, WRITE_UNIT_BYTES};
use crate::commit_writes::{self, CommitWrites};
use crate::failure::Failure;
use crate::main_item::{Known, MainItem};
use crate::names::Item;
use crate::prepared_commit::{PreparedCommit, TRANSACTION_BYTES_MAX};
use crate::store::DynamoDbStore;
use crate::waiting_entries::Charge;

/// Most business items that leave a main item in one commit together with those that it changes. The rest of the transaction
/// belongs to messages, records and the main item.
const MOVED_ITEMS_MAX: usize = 90;

/// What is known of the partition that a commit meets.
struct Met {
    known: Arc<Known>,
    /// The main item, if it was read for this commit.
    main: Option<Item>,
}

impl DynamoDbStore {
    /// [`tollgate_proto::Store::commit`].
    pub(crate) async fn commit_one(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let prepared = PreparedCommit::new(commit);
        prepared.check(&self.names, &self.limits).map_err(|limit| self.too_large(&prepared, limit))?;
        let Some(mut met) = self.meet(&prepared).await? else {
            return Ok(self.conflict(&prepared));
        };
        let mut refusals_for_size = 0;
        loop {
            let layout = match refusals_for_size {
                0 | 1 => prepared.layout(&self.names, &met.known),
                _ => Layout::Wide,
            };
            let Some(moved) = self.moved_along(&prepared, layout, &mut met).await? else {
                return Ok(self.conflict(&prepared));
            };
            let writes = CommitWrites::new(&self.names, &prepared, &met.known, layout, &moved);
            let failure = match self.send(&prepared, &writes).await {
                Ok(units) => {
                    let charge = writes.charge_of_main(units);
                    self.remember_after(&prepared, &met.known, writes.after, charge);
                    return Ok(CommitOutcome::Committed { session: None });
                }
                Err(failure) => failure,
            };
            self.known.invalidate(&prepared.commit.partition);
            match failure {
                Failure::ConditionFailed => return Ok(self.conflict(&prepared)),
                Failure::Canceled(reasons) => return Ok(self.refused(&prepared, &writes, &reasons)),
                failure if failure.is_of_item_size() && refusals_for_size < 2 => {
                    // Sizes were estimates: now they are looked at, and what does not fit together after all, lies apart.
                    refusals_for_size += 1;
                    match self.look(&prepared).await? {
                        Some(looked) => met = looked,
                        None => return Ok(self.conflict(&prepared)),
                    }
                }
                failure if failure.is_of_item_size() => {
                    let item = format!("the control record of partition {}", prepared.commit.partition);
                    let limit =
                        LimitExceeded::ItemBytes { item, bytes: ITEM_BYTES_MAX + 1, max: ITEM_BYTES_MAX };
                    return Err(self.too_large(&prepared, limit));
                }
                failure if failure.is_of_transaction_size() => {
                    let max = self.limits.transaction_bytes_max;
                    let limit = LimitExceeded::TransactionBytes { bytes: TRANSACTION_BYTES_MAX + 1, max };
                    return Err(self.too_large(&prepared, limit));
                }
                failure => return Err(failure.of_commit(&self.alias, &prepared.commit.partition)),
            }
        }
    }

    /// [`tollgate_proto::Store::placement`].
    pub(crate) fn cheapest_placement(&self, commit: &Commit) -> Placement {
        let known = self
            .known
            .get(&commit.partition)
            .filter(|known| known.version == commit.expected)
            .unwrap_or_else(|| Arc::new(Known::nothing()));
        let prepared = PreparedCommit::new(commit.clone());
        capacity::cheapest(&prepared.candidates(&self.names, &known)).placement
    }

    /// What is known of the partition at the version that the commit expects. `None`: it has another version.
    async fn meet(&self, prepared: &PreparedCommit) -> Result<Option<Met>, StoreError> {
        let commit = &prepared.commit;
        if commit.expected.is_none() {
            return Ok(Some(Met { known: Arc::new(Known::nothing()), main: None }));
        }
        let known = self.known.get(&commit.partition).filter(|known| known.version == commit.expected);
        match known {
            Some(known) => Ok(Some(Met { known, main: None })),
            None => self.look(prepared).await,
        }
    }

    async fn look(&self, prepared: &PreparedCommit) -> Result<Option<Met>, StoreError> {
        let commit = &prepared.commit;
        let main = self.read_main(&commit.partition).await?.unwrap_or_default();
        let known = MainItem::new(&main).known();
        Ok((known.version == commit.expected).then(|| Met { known: Arc::new(known), main: Some(main) }))
    }

    /// The business items that leave the main item when the commit's own ones do: all others, since each write of the main item
    /// would pay for them. `None`: the partition has another version by now.
    async fn moved_along(
        &self,
        prepared: &PreparedCommit,
        layout: Layout,
        met: &mut Met,
    ) -> Result<Option<Vec<(ItemName, AttributeValue)>>, StoreError> {
        let kept: Vec<ItemName> = prepared.kept(&met.known).map(|(name, _)| name.clone()).collect();
        let kept_bytes: usize = prepared.kept(&met.known).map(|(_, bytes)| bytes).sum();
        if layout != Layout::Wide
            || kept_bytes < WRITE_UNIT_BYTES
            || kept.len() + prepared.transaction_items() > MOVED_ITEMS_MAX
        {
            return Ok(Some(Vec::new()));
        }
        if met.main.is_none() {
            match self.look(prepared).await? {
                Some(looked) => *met = looked,
                None => return Ok(None),
            }
        }
        let main = met.main.as_ref().map(MainItem::new);
        let moved: Vec<_> = kept
            .into_iter()
            .filter_map(|name| {
                let value = main?.raw_item(&name)?.clone();
                Some((name, value))
            })
            .collect();
        let bytes = commit_writes::moved_bytes(&moved) + prepared.bytes(&self.names);
        let fits = bytes <= self.limits.transaction_bytes_max;
        Ok(Some(if fits { moved } else { Vec::new() }))
    }

    /// Sends the writes. Returns the units that they have cost, if DynamoDB tells.
    async fn send(&self, prepared: &PreparedCommit, writes: &CommitWrites) -> Result<Option<u64>, Failure> {
        if writes.is_single() {
            return self.update_main(&prepared.commit.partition, &writes.main).await;
        }
        let items = writes.transaction(&self.names, prepared);
        let token = writes.client_token(prepared);
        let mut tries = 1;
        loop {
            let answer = self
                .calls
                .make("TransactWriteItems", |client| {
                    client
                        .transact_write_items()
                        .set_transact_items(Some(items.clone()))
                        .client_request_token(&token)
                        .return_consumed_capacity(ReturnConsumedCapacity::Total)
                        .send()
                })
                .await;
            match answer {
                Ok(output) => {
                    return Ok(self.calls.consumed("TransactWriteItems", output.consumed_capacity()));
                }
                Err(Failure::Unknown(reason) | Failure::TokenInUse(reason)) if tries < TRIES_MAX => {
                    tracing::debug!(partition = %prepared.commit.partition, reason, "a transaction is repeated under its token");
                    self.calls.count("tollgate_dynamodb_repetitions_total", "TransactWriteItems");
                    calls::pause(tries).await;
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn remember_after(&self, prepared: &PreparedCommit, before: &Known, mut after: Known, charge: Charge) {
        // The charge is for the larger one of the main items before and after.
        let items = before.item_bytes().max(after.item_bytes());
        after.waiting.correct(prepared.base_bytes(&self.names, &after) + items, charge);
        self.remember(&prepared.commit.partition, after);
    }

    /// Of a transaction that was refused: the version has the first word, since of a partition that has changed nobody knows
    /// anything.
    fn refused(
        &self,
        prepared: &PreparedCommit,
        writes: &CommitWrites,
        reasons: &[CancellationReason],
    ) -> CommitOutcome {
        let failed =
            |at: usize| reasons.get(at).and_then(CancellationReason::code) == Some("ConditionalCheckFailed");
        if failed(0) {
            return self.conflict(prepared);
        }
        // In the order in which they were asked for.
        let mut existing: Vec<_> = writes.records.iter().filter(|(at, _)| failed(**at)).collect();
        existing.sort_by_key(|(at, _)| **at);
        let existing: Vec<_> = existing.into_iter().map(|(_, key)| key.clone()).collect();
        if existing.is_empty() { self.conflict(prepared) } else { CommitOutcome::RecordsExist(existing) }
    }

    fn conflict(&self, prepared: &PreparedCommit) -> CommitOutcome {
        self.known.invalidate(&prepared.commit.partition);
        self.calls.count("tollgate_dynamodb_conflicts_total", "commit");
        tracing::debug!(partition = %prepared.commit.partition, "somebody else has committed");
        CommitOutcome::Conflict
    }

    fn too_large(&self, prepared: &PreparedCommit, limit: LimitExceeded) -> StoreError {
        StoreError::TooLarge {
            store: self.alias.clone(),
            partition: prepared.commit.partition.clone(),
            limit,
        }
    }
}
