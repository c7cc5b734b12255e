//! Checks of the batched operations: one answer for each request, in their order, up to the declared sizes.

use std::sync::Arc;

use tollgate_proto::{EntryRead, ItemValue, LoadRequest, Store, TokenRef};

use super::partition::{Partition, control_of, item_name};

/// Batches larger than this are not tried, whatever a store declares.
const TRIED_BATCH_MAX: usize = 1_024;

/// Present and absent, repeated and in no particular order: the n-th answer belongs to the n-th request.
///
/// # Panics
/// If the store breaks this promise.
pub async fn answers_come_in_the_order_of_the_requests(store: Arc<dyn Store>) {
    let mut here = Partition::fresh(&store, "order-here");
    let mut there = Partition::fresh(&store, "order-there");
    let absent = Partition::fresh(&store, "order-absent");
    let here_keys = here.put(&[("a", b"here a"), ("b", b"here b")], &[b"here 0", b"here 1"]).await;
    let there_keys = there.put(&[("a", b"there a")], &[b"there 0"]).await;

    let request = |partition: &Partition, items: &[&str]| LoadRequest {
        partition: partition.key.clone(),
        items: items.iter().map(|name| item_name(name)).collect(),
        records: vec![],
    };
    let requests = vec![
        request(&there, &["b", "a"]),
        request(&absent, &["a"]),
        request(&here, &["b", "none", "a"]),
        request(&there, &[]),
    ];
    let answers = store.load(requests).await;
    assert_eq!(answers.len(), 4, "four load requests have four answers");
    let loaded: Vec<_> = answers.into_iter().map(|answer| answer.expect("a load succeeds")).collect();
    let values = |at: usize| -> Vec<Option<&[u8]>> {
        loaded[at].items.iter().map(|(_, value)| value.as_ref().map(|value| &value.bytes()[..])).collect()
    };
    assert_eq!(values(0), [None, Some(&b"there a"[..])]);
    assert_eq!(values(1), [None]);
    assert_eq!(values(2), [Some(&b"here b"[..]), None, Some(&b"here a"[..])]);
    assert_eq!(values(3), [None::<&[u8]>; 0]);
    let controls: Vec<_> = loaded.iter().map(|partition| partition.control.clone()).collect();
    let [here_control, there_control] = [here.version, there.version].map(|version| version.map(control_of));
    assert_eq!(controls, [there_control.clone(), None, here_control, there_control]);

    let reads: Vec<EntryRead> = vec![
        here.read_of(here_keys[1]),
        absent.read_of(here_keys[0]),
        there.read_of(there_keys[0]),
        here.read_of(here_keys[0]),
        here.read_of(here_keys[1]),
    ];
    let answers = store.read_entries(reads).await;
    let bodies: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().expect("a read succeeds").as_deref()).collect();
    assert_eq!(bodies, [Some(&b"here 1"[..]), None, Some(b"there 0"), Some(b"here 0"), Some(b"here 1")]);
}

/// As many partitions, entries and deletions in one call as the store declares.
///
/// # Panics
/// If the store breaks this promise.
pub async fn full_batches_are_answered(store: Arc<dyn Store>) {
    let limits = store.limits();
    let reads = limits.read_batch_max.min(TRIED_BATCH_MAX);
    let deletions = limits.delete_batch_max.min(TRIED_BATCH_MAX);
    let mut written = Vec::new();
    for number in 0..reads.max(deletions) {
        let mut partition = Partition::fresh(&store, "batch");
        let body = number.to_string();
        let key = partition.put(&[("item", body.as_bytes())], &[body.as_bytes()]).await[0];
        written.push((partition, key, body));
    }

    let request = |(partition, ..): &(Partition, _, _)| LoadRequest {
        partition: partition.key.clone(),
        items: vec![item_name("item")],
        records: vec![],
    };
    let answers = store.load(written[..reads].iter().map(request).collect()).await;
    assert_eq!(answers.len(), reads, "a full load has as many answers");
    for (answer, (.., body)) in answers.into_iter().zip(&written) {
        let mut loaded = answer.expect("a full load succeeds");
        let value = loaded.items.remove(0).1;
        assert_eq!(value.as_ref().map(ItemValue::bytes).map(|bytes| &bytes[..]), Some(body.as_bytes()));
    }

    assert_bodies(&store, &written[..reads], |_| true).await;
    let tokens: Vec<TokenRef> =
        written[..deletions].iter().map(|(partition, key, _)| partition.token(*key)).collect();
    let answers = store.delete_entries(tokens).await;
    assert_eq!(answers.len(), deletions, "a full deletion has as many answers");
    assert!(answers.iter().all(Result::is_ok), "a full deletion succeeds: {answers:?}");
    assert_bodies(&store, &written[..reads], |number| number >= deletions).await;
}

async fn assert_bodies(
    store: &Arc<dyn Store>,
    written: &[(Partition, tollgate_proto::EntryKey, String)],
    is_there: impl Fn(usize) -> bool,
) {
    let reads = written.iter().map(|(partition, key, _)| partition.read_of(*key)).collect();
    let answers = store.read_entries(reads).await;
    assert_eq!(answers.len(), written.len(), "a full read has as many answers");
    for (number, (answer, (.., body))) in answers.into_iter().zip(written).enumerate() {
        let found = answer.expect("a full read succeeds");
        let expected = is_there(number).then_some(body.as_bytes());
        assert_eq!(found.as_deref(), expected, "entry {number} of a full batch");
    }
}
