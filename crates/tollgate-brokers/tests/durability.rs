//! The durable broker: what was confirmed is there again after a clean end, after kill -9 at any moment, and
//! after the log's tail was torn; what was acknowledged is not, and takes no room.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer, in its helpers as well")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_brokers::{Depth, InProcessBroker, RecoveryLogError};
use tollgate_proto::{Broker, BrokerError, Verdict};
use tollgate_testkit::broker_story::{
    acknowledge, message, numbered, orders, receive, send, settle, take, texts,
};

/// Long enough that nothing times out while a test runs.
const TIMEOUT: Duration = Duration::from_secs(600);

fn open(directory: &Path) -> InProcessBroker {
    InProcessBroker::builder().visibility_timeout(TIMEOUT).durable(directory).open().unwrap()
}

/// The directory as a crash at this moment would leave it.
fn crash_image(directory: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    copy_all(directory, image.path());
    image
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn journal(directory: &Path) -> PathBuf {
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    files(directory).into_iter().filter(is_journal).max().unwrap()
}

/// What the files take on disk. Lengths would say more: journals are made long and empty.
#[cfg(unix)]
fn bytes_on_disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    /// The unit of `blocks`, whatever the file system's own is.
    const BLOCK_BYTES: u64 = 512;
    files(directory).iter().map(|path| path.metadata().unwrap().blocks() * BLOCK_BYTES).sum()
}

#[tokio::test]
async fn after_closing_and_reopening_everything_unacknowledged_is_there_and_counts_are_exact() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, numbered(10)).await;
    let deliveries = take(&broker, 4).await;
    acknowledge(&broker, &deliveries[..2]).await;
    let in_flight = texts(&deliveries[2..]);
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(directory.path());
    let again = take(&broker, 8).await;
    assert!(texts(&again).is_disjoint(&texts(&deliveries[..2])));
    for delivery in &again {
        let was_delivered = in_flight.contains(std::str::from_utf8(&delivery.envelope).unwrap());
        assert_eq!(delivery.delivery_count, if was_delivered { 2 } else { 1 });
    }
    assert_eq!(texts(&again).len(), 8);
}

#[tokio::test]
async fn dropping_a_broker_without_closing_it_is_a_clean_end_too() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, numbered(2)).await;
    let deliveries = take(&broker, 2).await;
    acknowledge(&broker, &deliveries[..1]).await;
    drop(broker);
    let broker = open(directory.path());
    assert_eq!(broker.depth(&orders()), Depth { ready: 1, ..Depth::default() });
    assert_eq!(receive(&broker, 2).await[0].delivery_count, 2);
}

#[tokio::test]
async fn every_crash_counts_as_a_delivery_so_that_a_message_that_kills_its_process_reaches_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, vec![message("killer")]).await;
    assert_eq!(receive(&broker, 1).await[0].delivery_count, 1);
    let first = crash_image(directory.path());
    let broker = open(first.path());
    assert_eq!(receive(&broker, 1).await[0].delivery_count, 2);
    let second = crash_image(first.path());
    let broker = open(second.path());
    assert_eq!(receive(&broker, 1).await[0].delivery_count, 3);
}

#[tokio::test]
async fn dead_letters_outlive_a_crash_with_their_reasons_and_so_does_their_redrive() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, numbered(2)).await;
    let deliveries = take(&broker, 2).await;
    settle(&broker, &deliveries, Verdict::DeadLetter { reason: "no such customer".into() }).await;
    // Compacting writes all that was left to be written.
    broker.compact().await.unwrap();
    let image = crash_image(directory.path());
    let broker = open(image.path());
    let dead = broker.dead_letters(&orders());
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|letter| letter.reason == "no such customer" && letter.delivery_count == 1));
    assert_eq!(broker.redrive(&orders()), 2);
    broker.compact().await.unwrap();
    let image = crash_image(image.path());
    let broker = open(image.path());
    assert_eq!(broker.depth(&orders()), Depth { ready: 2, ..Depth::default() });
    assert_eq!(texts(&take(&broker, 2).await), HashSet::from(["0".into(), "1".into()]));
}

#[tokio::test]
async fn a_delay_outlives_a_crash_and_runs_on_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let mut slow = message("slow");
    slow.delay = Duration::from_millis(500);
    let due = SystemTime::now() + slow.delay;
    let mut slower = message("slower");
    slower.delay = TIMEOUT;
    send(&broker, vec![slow, slower]).await;
    let image = crash_image(directory.path());
    let broker = open(image.path());
    assert_eq!(texts(&receive(&broker, 2).await), HashSet::from(["slow".into()]));
    // To the millisecond, because that is how finely it is kept.
    assert!(SystemTime::now() + Duration::from_millis(1) >= due, "it was delivered too early");
    assert_eq!(broker.depth(&orders()).delayed, 1);
}

#[tokio::test]
async fn a_second_opener_gets_a_clear_error_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = InProcessBroker::builder().durable(directory.path()).open().unwrap_err();
    assert!(
        matches!(&error, RecoveryLogError::InUse { directory: said } if said == directory.path()),
        "{error}"
    );
    assert!(error.to_string().contains("in use by another broker"), "{error}");
    first.close().await.unwrap();
    // The first one is closed and still there.
    open(directory.path());
    assert!(matches!(first.send(vec![message("late")]).await[..], [Err(BrokerError::Closed { .. })]));
    assert!(matches!(first.compact().await, Err(RecoveryLogError::Closed { .. })));
}

#[tokio::test]
async fn a_torn_tail_costs_only_what_was_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    for number in 0..20 {
        send(&broker, vec![message(format!("message {number}"))]).await;
    }
    let image = crash_image(directory.path());
    // As if the process had died in the midst of writing the last message: its end is missing.
    let journal = journal(image.path());
    let end = content(&journal).len() as u64;
    let file = File::options().write(true).open(&journal).unwrap();
    file.set_len(end - 5).unwrap();
    let broker = open(image.path());
    let expected = (0..19).map(|number| format!("message {number}")).collect();
    assert_eq!(texts(&take(&broker, 19).await), expected);
    assert_eq!(broker.depth(&orders()).total(), 19);
    // What is sent after the recovery is not lost behind the torn place.
    send(&broker, vec![message("after")]).await;
    let again = crash_image(image.path());
    assert_eq!(open(again.path()).depth(&orders()).ready, 20);
}

#[tokio::test]
async fn a_write_that_reached_the_disk_in_part_costs_nothing_wherever_it_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, numbered(20)).await;
    let one = crash_image(directory.path());
    let before = content(&journal(one.path()));
    send(&broker, vec![message("in part")]).await;
    let two = crash_image(directory.path());
    let after = content(&journal(two.path()));
    let written = &after[before.len()..];
    for cut in (1..written.len()).step_by(2) {
        let image = crash_image(one.path());
        let mut file = File::options().write(true).open(journal(image.path())).unwrap();
        file.seek(SeekFrom::Start(before.len() as u64)).unwrap();
        file.write_all(&written[..cut]).unwrap();
        drop(file);
        let broker = open(image.path());
        assert_eq!(texts(&take(&broker, 20).await).len(), 20, "cut after {cut} of {} bytes", written.len());
        assert_eq!(broker.depth(&orders()).total(), 20, "cut after {cut} of {} bytes", written.len());
    }
}

/// What was written into a journal: without the zeros it was made with.
fn content(journal: &Path) -> Vec<u8> {
    let mut content = fs::read(journal).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    content.truncate(end);
    content
}

#[tokio::test]
async fn a_half_made_generation_of_the_log_is_thrown_away() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    send(&broker, numbered(5)).await;
    let image = crash_image(directory.path());
    let half_made = image.path().join("log-000002");
    fs::create_dir(&half_made).unwrap();
    fs::write(half_made.join("1.jnl"), b"half").unwrap();
    let broker = open(image.path());
    assert_eq!(broker.depth(&orders()).ready, 5);
    assert!(!half_made.exists());
    broker.compact().await.unwrap();
    assert_eq!(broker.depth(&orders()).ready, 5);
}

#[cfg(unix)]
#[tokio::test]
async fn the_log_shrinks_when_everything_was_acknowledged() {
    const MEGABYTE: usize = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..20 {
        // Random, so that no compression makes it small.
        let mut body = vec![0; MEGABYTE];
        rng.fill(&mut body);
        send(&broker, vec![message(body)]).await;
    }
    send(&broker, vec![message("stays")]).await;
    let before = bytes_on_disk(directory.path());
    assert!(before > 20 * MEGABYTE as u64, "{before} bytes for 20 MB of messages");
    let deliveries = take(&broker, 21).await;
    let (stays, done): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|d| d.envelope == "stays");
    acknowledge(&broker, &done).await;
    broker.compact().await.unwrap();
    let after = bytes_on_disk(directory.path());
    assert!(after < MEGABYTE as u64, "{after} bytes for one small message");
    // The rewritten log works as the old one did.
    send(&broker, vec![message("new")]).await;
    let image = crash_image(directory.path());
    assert_eq!(texts(&take(&open(image.path()), 2).await), HashSet::from(["stays".into(), "new".into()]));
    acknowledge(&broker, &stays).await;
}

#[cfg(unix)]
#[tokio::test]
async fn closing_leaves_a_small_log_behind_and_opening_makes_a_crashed_one_small() {
    const MEGABYTE: usize = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..20 {
        let mut body = vec![0; MEGABYTE];
        rng.fill(&mut body);
        send(&broker, vec![message(body)]).await;
    }
    let deliveries = take(&broker, 20).await;
    acknowledge(&broker, &deliveries).await;
    // A confirmed send is written after all that was left before it.
    send(&broker, vec![message("last")]).await;
    let image = crash_image(directory.path());
    broker.close().await.unwrap();
    let closed = bytes_on_disk(directory.path());
    assert!(closed < MEGABYTE as u64, "{closed} bytes after closing");
    let reopened = open(image.path());
    let opened = bytes_on_disk(image.path());
    assert!(opened < MEGABYTE as u64, "{opened} bytes after opening");
    assert_eq!(texts(&take(&reopened, 1).await), HashSet::from(["last".into()]));
}

#[cfg(unix)]
#[tokio::test]
async fn an_idle_broker_makes_its_log_small_by_itself() {
    const MEGABYTE: usize = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let mut rng = fastrand::Rng::with_seed(1);
    let mut body = vec![0; 20 * MEGABYTE];
    rng.fill(&mut body);
    send(&broker, vec![message(body)]).await;
    let old_log = journal(directory.path());
    let deliveries = take(&broker, 1).await;
    acknowledge(&broker, &deliveries).await;
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while old_log.exists() {
        assert!(std::time::Instant::now() < patience, "the log is still as big as it was");
        tokio::task::yield_now().await;
    }
    broker.close().await.unwrap();
    let after = bytes_on_disk(directory.path());
    assert!(after < MEGABYTE as u64, "{after} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_senders_and_a_consumer_lose_nothing_while_the_log_is_compacted() {
    const SENDERS: usize = 8;
    const EACH: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let broker = Arc::new(open(directory.path()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                for number in 0..EACH {
                    send(&*broker, vec![message(format!("{sender}-{number}"))]).await;
                }
            })
        })
        .collect();
    let mut seen = HashSet::new();
    while seen.len() < SENDERS * EACH / 2 {
        let deliveries = receive(&*broker, 16).await;
        acknowledge(&*broker, &deliveries).await;
        seen.extend(texts(&deliveries));
        broker.compact().await.unwrap();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    broker.close().await.unwrap();
    let broker = open(directory.path());
    let rest = texts(&take(&broker, SENDERS * EACH - seen.len()).await);
    assert!(rest.is_disjoint(&seen));
    assert_eq!(rest.len() + seen.len(), SENDERS * EACH);
    assert_eq!(broker.depth(&orders()).ready, 0);
}

#[tokio::test]
async fn a_sender_that_does_not_wait_for_its_answer_leaks_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let builder = InProcessBroker::builder().visibility_timeout(TIMEOUT).capacity(4);
    let broker = builder.durable(directory.path()).open().unwrap();
    for _ in 0..3 {
        let mut sending = broker.send(numbered(4));
        // Polled once, so that the messages are on the writer's desk, and dropped.
        let _ = tokio::time::timeout(Duration::ZERO, &mut sending).await;
        drop(sending);
        assert!(matches!(broker.send(vec![message("full")]).await[..], [Err(BrokerError::Full { .. })]));
        let deliveries = take(&broker, 4).await;
        acknowledge(&broker, &deliveries).await;
    }
    assert_eq!(broker.depth(&orders()).total(), 0);
    send(&broker, numbered(4)).await;
}

/// Names the directory to the child process of the kill test; without it that test has nothing to do.
const CHILD_DIRECTORY: &str = "TOLLGATE_BROKERS_TEST_CHILD_DIRECTORY";

/// Not a test of its own: the process that the kill test kills. It says on its standard output what was
/// confirmed and what is about to be acknowledged, until it dies.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_process_of_the_kill_test() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let broker = Arc::new(open(Path::new(&directory)));
    let run = std::process::id();
    for sender in 0..4 {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            for number in 0_u64.. {
                let names: Vec<_> = (0..3).map(|part| format!("{run}-{sender}-{number}-{part}")).collect();
                send(&*broker, names.iter().map(|name| message(name.clone())).collect()).await;
                say("confirmed", &names);
            }
        });
    }
    for round in 0_u64.. {
        let deliveries = receive(&*broker, 10).await;
        let (done, rest) = deliveries.split_at(deliveries.len() / 2);
        say("acknowledging", &texts(done));
        acknowledge(&*broker, done).await;
        settle(&*broker, rest, Verdict::Retry { after: Duration::ZERO }).await;
        if round % 50 == 49 {
            broker.compact().await.unwrap();
        }
    }
}

/// One write for each call, so that lines of several threads don't mix.
fn say<'a>(what: &str, names: impl IntoIterator<Item = &'a String>) {
    let lines = names.into_iter().fold(String::new(), |lines, name| lines + what + " " + name + "\n");
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn after_kill_9_every_confirmed_message_that_was_not_acknowledged_is_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let (mut confirmed, mut acknowledged) = (HashSet::new(), HashSet::new());
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_process_of_the_kill_test", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines_until_the_kill = rng.u32(50..1500);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // What it had said before it died counts, so the pipe is read to its end.
        while out.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') {
                match line.trim_end().split_once(' ') {
                    Some(("confirmed", name)) => _ = confirmed.insert(name.to_owned()),
                    Some(("acknowledging", name)) => _ = acknowledged.insert(name.to_owned()),
                    _ => {}
                }
            }
            line.clear();
            lines_until_the_kill = lines_until_the_kill.saturating_sub(1);
            if lines_until_the_kill == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert_eq!(lines_until_the_kill, 0, "the child ended by itself");
    }
    assert!(confirmed.len() > 100, "only {} messages were confirmed", confirmed.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let broker = open(directory.path());
        let left = texts(&take(&broker, broker.depth(&orders()).ready).await);
        let missing: Vec<_> =
            confirmed.iter().filter(|n| !acknowledged.contains(*n) && !left.contains(*n)).collect();
        assert!(missing.is_empty(), "{} of {} are lost: {missing:?}", missing.len(), confirmed.len());
    });
}
