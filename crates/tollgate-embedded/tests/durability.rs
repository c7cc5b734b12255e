//! What the durable store promises beyond the suite: that it opens by itself whatever happened to it, that it shares
//! syncs, that nobody else gets in, that it shrinks, and that it says so when the disk fails.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

mod story;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use story::{alias, commit, delete, must_commit, numbers, partition, read, token};
use tollgate_embedded::{EmbeddedError, EmbeddedStore};
use tollgate_proto::{CommitOutcome, DeduplicationKey, ItemValue, RecordWrite, Store, StoreError};

fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(directory, alias()).unwrap()
}

#[tokio::test]
async fn what_was_committed_is_there_after_dropping_and_after_closing() {
    let directory = tempfile::tempdir().unwrap();
    let here = partition("here");
    let store = open(directory.path());
    must_commit(&store, commit(&here, 1, 8)).await;
    drop(store);
    let store = open(directory.path());
    assert_eq!(numbers(&store, &here).await, [1, 1, 1]);
    must_commit(&store, commit(&here, 2, 8)).await;
    delete(&store, token(&here, 1)).await.unwrap();
    store.close().unwrap();
    let store = open(directory.path());
    assert_eq!(numbers(&store, &here).await, [2, 2, 2]);
    assert_eq!(read(&store, token(&here, 1)).await, None);
    assert!(read(&store, token(&here, 2)).await.is_some());
    must_commit(&store, commit(&here, 3, 8)).await;
}

#[test]
fn a_second_opener_is_refused_at_once_and_told_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let refused = EmbeddedStore::open(directory.path(), alias()).err().unwrap();
    assert!(matches!(refused, EmbeddedError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&directory.path().display().to_string()), "{refused}");
    drop(first);
    open(directory.path());
}

#[test]
fn a_directory_that_is_a_file_is_unusable_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    File::create(&file).unwrap();
    let refused = EmbeddedStore::open(&file, alias()).err().unwrap();
    assert!(matches!(refused, EmbeddedError::Unusable { .. }), "{refused}");
    assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_share_syncs() {
    const TASKS: u64 = 64;
    const COMMITS: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let here = partition(&format!("partition-{number}"));
            for counter in 1..=COMMITS {
                must_commit(&*store, commit(&here, counter, 8)).await;
            }
        });
    }
    tasks.join_all().await;
    let statistics = store.statistics();
    assert_eq!(statistics.commits, TASKS * COMMITS);
    // At worst every other group is a single commit.
    assert!(statistics.syncs <= TASKS * COMMITS / 8, "{statistics:?}");
}

#[tokio::test]
async fn a_conflict_within_one_group_has_one_winner() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let here = partition("here");
    let racers: Vec<_> = (0..64).map(|_| store.commit(commit(&here, 1, 8))).collect();
    // Polled in one go: they meet in few groups, most of them in one.
    let outcomes = futures_util::future::join_all(racers).await;
    let winners =
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(CommitOutcome::Committed { .. }))).count();
    let losers = outcomes.iter().filter(|outcome| matches!(outcome, Ok(CommitOutcome::Conflict))).count();
    assert_eq!((winners, losers), (1, 63));
}

#[tokio::test]
async fn a_record_of_the_same_group_refuses_its_duplicate() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let here = partition("here");
    let key = DeduplicationKey::of_request(&"orders".try_into().unwrap(), "request").unwrap();
    let with_record = |counter| {
        let mut commit = commit(&here, counter, 8);
        commit.records =
            vec![RecordWrite { key: key.clone(), response: "answer".into(), expires_at_ms: u64::MAX }];
        commit
    };
    let (first, second) = tokio::join!(store.commit(with_record(1)), store.commit(with_record(2)));
    assert_eq!(first.unwrap(), CommitOutcome::Committed { session: None });
    assert_eq!(second.unwrap(), CommitOutcome::RecordsExist(vec![key.clone()]));
    assert_eq!(store.statistics().syncs, 1, "they were one group");
}

#[tokio::test]
async fn a_store_whose_making_was_cut_short_opens_empty() {
    let directory = tempfile::tempdir().unwrap();
    // What a kill leaves in the middle of the engine's making its files.
    let unfinished = directory.path().join("engine.unfinished");
    fs::create_dir_all(unfinished.join("keyspaces")).unwrap();
    File::create(unfinished.join("lock")).unwrap();
    File::create(unfinished.join("0.jnl")).unwrap().set_len(64 * 1024 * 1024).unwrap();
    let store = open(directory.path());
    must_commit(&store, commit(&partition("here"), 1, 8)).await;
    assert!(!unfinished.exists());
}

/// The journal that is being written.
fn journal(directory: &Path) -> PathBuf {
    let journals = fs::read_dir(directory.join("engine")).unwrap().map(|entry| entry.unwrap().path());
    journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

#[tokio::test]
async fn a_journal_cut_anywhere_opens_with_whole_commits_only() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let here = partition("here");
    let store = open(directory.path());
    for counter in 1..=20 {
        must_commit(&store, commit(&here, counter, 9000)).await;
    }
    drop(store);
    let journal = journal(directory.path());
    let whole = fs::read(&journal).unwrap();
    let length = whole.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let mut last = 20;
    for _ in 0..20 {
        let length = fs::metadata(&journal).unwrap().len().min(length);
        let cut = random.u64(length / 2..=length);
        File::options().write(true).open(&journal).unwrap().set_len(cut).unwrap();
        let store = open(directory.path());
        let [control, a, b] = numbers(&store, &here).await;
        assert!(control == a && a == b && control <= last, "cut at {cut}: {control} {a} {b} after {last}");
        assert_eq!(read(&store, token(&here, control + 1)).await, None, "cut at {cut}");
        assert!(control == 0 || read(&store, token(&here, control)).await.is_some(), "cut at {cut}");
        must_commit(&store, commit(&here, control + 1, 9000)).await;
        last = control + 1;
    }
}

#[tokio::test]
async fn a_commit_that_the_power_failure_tore_is_dropped_and_the_store_opens() {
    let directory = tempfile::tempdir().unwrap();
    let here = partition("here");
    let store = open(directory.path());
    for counter in 1..=3 {
        must_commit(&store, commit(&here, counter, 3000)).await;
    }
    drop(store);
    let journal = journal(directory.path());
    let mut content = fs::read(&journal).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    // A page that never reached the disk, in the middle of the last value; the end of the batch did.
    content[end - 2000..end - 1500].fill(0);
    fs::write(&journal, content).unwrap();
    let store = open(directory.path());
    assert_eq!(numbers(&store, &here).await, [2, 2, 2]);
    must_commit(&store, commit(&here, 3, 8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_shrinks_the_directory_and_disturbs_nobody() {
    const PARTITIONS: u64 = 16;
    const COMMITS: u64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..PARTITIONS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let here = partition(&format!("partition-{number}"));
            for counter in 1..=COMMITS {
                must_commit(&*store, commit(&here, counter, 4096)).await;
                delete(&*store, token(&here, counter)).await.unwrap();
                assert_eq!(numbers(&*store, &here).await, [counter; 3]);
            }
        });
    }
    // Somewhere in the middle of all that.
    store.compact().await.unwrap();
    tasks.join_all().await;
    let before = store.disk_usage().unwrap();
    let (first, second) = tokio::join!(store.compact(), store.compact());
    first.and(second).unwrap();
    let after = store.disk_usage().unwrap();
    let content = PARTITIONS * 2 * 4096;
    assert!(after < before && after < content + 256 * 1024, "{before} bytes became {after}");
    for number in 0..PARTITIONS {
        let here = partition(&format!("partition-{number}"));
        assert_eq!(numbers(&*store, &here).await, [COMMITS; 3]);
        assert_eq!(read(&*store, token(&here, COMMITS)).await, None);
    }
    drop(store);
    let store = open(directory.path());
    assert_eq!(numbers(&store, &partition("partition-3")).await, [COMMITS; 3]);
}

#[tokio::test]
async fn a_failed_write_leaves_the_outcome_open_and_the_store_closed_to_writes() {
    let directory = tempfile::tempdir().unwrap();
    let here = partition("here");
    let store = open(directory.path());
    must_commit(&store, commit(&here, 1, 8)).await;
    drop(store);
    // The child may not make any file longer than so many KiB: enough for a journal (64 MiB), not for a second large commit.
    let exe = std::env::current_exe().unwrap();
    let shell =
        "trap '' XFSZ; ulimit -f 71680; exec \"$0\" --exact the_child_on_a_full_disk --ignored --nocapture";
    let child = std::process::Command::new("bash")
        .args(["-c", shell])
        .arg(exe)
        .env(CHILD_DIRECTORY, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(output.contains("1 passed"), "{output}");
    let store = open(directory.path());
    let [control, a, b] = numbers(&store, &here).await;
    assert_eq!([control, a, b], [1 + LARGE_COMMITS; 3]);
    must_commit(&store, commit(&here, control + 1, 8)).await;
}

const CHILD_DIRECTORY: &str = "TOLLGATE_TEST_CHILD_DIRECTORY";

/// How many large commits fit into the journal; together they stay below the size at which the engine would begin a new one
/// in the background, sooner or later.
const LARGE_COMMITS: u64 = 1;

#[tokio::test]
#[ignore = "the child process of a_failed_write_leaves_the_outcome_open_and_the_store_closed_to_writes"]
async fn the_child_on_a_full_disk() {
    const LARGE: usize = 14 * 1024 * 1024;
    let store = open(Path::new(&std::env::var_os(CHILD_DIRECTORY).unwrap()));
    let here = partition("here");
    let large = |counter: u64| {
        let mut large = commit(&here, counter, 8);
        for (_, value) in &mut large.items {
            // Nothing that can be compressed away.
            let mut bytes = vec![0; LARGE];
            fastrand::fill(&mut bytes);
            bytes[..8].copy_from_slice(&counter.to_le_bytes());
            *value = Some(ItemValue::Binary(bytes.into()));
        }
        large
    };
    let counter = 2 + LARGE_COMMITS;
    for counter in 2..counter {
        must_commit(&store, large(counter)).await;
    }
    let mut too_large = large(counter);
    let ballast = too_large.items[0].1.clone();
    too_large
        .items
        .extend(["ballast", "more ballast"].map(|name| (name.try_into().unwrap(), ballast.clone())));
    let error = store.commit(too_large).await.unwrap_err();
    assert!(matches!(error, StoreError::OutcomeUnknown { .. }), "{error}");
    let refused = store.commit(commit(&here, counter, 8)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    assert!(store.verify().await.is_err());
    assert!(delete(&store, token(&here, 1)).await.is_err());
    assert_eq!(numbers(&store, &here).await, [counter - 1; 3], "reads go on, on what is durable");
    assert!(store.compact().await.is_err());
    assert!(store.close().is_err());
}
