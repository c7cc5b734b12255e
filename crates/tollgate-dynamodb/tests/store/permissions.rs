//! The policy of `infra/terraform/dynamodb` against what the store sends: exactly the actions that are needed, no more.

use std::collections::BTreeSet;
use std::path::Path;

use tollgate_dynamodb_emulator::Operation;
use tollgate_proto::{DeduplicationKey, LoadRequest, Placement, RecordWrite, Store};

use crate::layouts::Partition;
use crate::tables::in_process_store;

/// The actions of one statement of the policy.
fn actions_of(statement: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/terraform/dynamodb/policies.tf");
    let policies = std::fs::read_to_string(path).unwrap();
    let statement = policies.split(&format!("= \"{statement}\"")).nth(1).unwrap();
    let statement = statement.split("  }\n").next().unwrap();
    statement.split('"').filter_map(|text| text.strip_prefix("dynamodb:")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_policy_of_consumers_allows_what_the_store_does_and_no_more() {
    let (dynamodb, store) = in_process_store().await;
    let before = dynamodb.counts();
    store.verify().await.unwrap();
    let mut partition = Partition::new();
    let mut commit = partition.next(&store, &[("a", Some(10)), ("b", Some(40_000))], &[10]);
    commit.records = vec![RecordWrite {
        key: DeduplicationKey::new("request").unwrap(),
        response: "done".into(),
        expires_at_ms: u64::MAX / 2,
    }];
    let mut entries = partition.commit(&store, commit).await;
    let mut wide = partition.next(&store, &[("a", Some(11))], &[10]);
    wide.entries[0].0.index = Placement::Apart.first_index();
    entries.extend(partition.commit(&store, wide).await);
    let request = LoadRequest {
        partition: partition.key.clone(),
        items: vec![],
        records: vec![DeduplicationKey::new("request").unwrap()],
    };
    store.load(vec![request]).await.pop().unwrap().unwrap();
    partition.consume(&store, &entries).await;
    store.scan(None, 10).await.unwrap();

    let counts = dynamodb.counts().since(&before);
    let sent = counts.operations().filter(|(_, counts)| counts.calls > 0).map(|(operation, _)| operation);
    // Transactions are no actions of their own: IAM asks for what they consist of.
    let needed: BTreeSet<String> = sent
        .flat_map(|operation| match operation {
            Operation::TransactWriteItems => vec!["PutItem", "UpdateItem", "DeleteItem"],
            Operation::TransactGetItems => vec!["GetItem"],
            operation => vec![operation.name()],
        })
        .map(str::to_owned)
        .collect();
    let allowed: BTreeSet<String> = actions_of("Items").union(&actions_of("Verify")).cloned().collect();
    assert_eq!(needed, allowed);
}
