//! The simulator: two thousand random systems under chaos come to what they must, a seed is the same run every time, and systems
//! that are broken on purpose are noticed.

use serde::{Deserialize, Serialize};
use tollgate::{Deduplicate, Endpoint, HandlerError, Message, Tx};
use tollgate_proto::MessageId;
use tollgate_proto::mutation::Mutation;
use tollgate_verify::simulation::{Client, Faults, Report, Simulation, random_scenario};

/// Runs of the default test; `tollgate-verify simulate --seeds N` makes more.
const RUNS: u64 = 2_000;

/// Each thread runs its own seeds.
const THREADS: u64 = 2;

fn run(seeds: std::ops::Range<u64>) -> Report {
    let mut report = Report::default();
    for seed in seeds {
        report.add(random_scenario(seed).run_seed(seed));
    }
    report
}

#[test]
fn two_thousand_random_systems_come_to_what_they_must() {
    let share = RUNS / THREADS;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| std::thread::spawn(move || run(thread * share..(thread + 1) * share)))
        .collect();
    let mut faults = tollgate_verify::simulation::FaultTally::default();
    for thread in threads {
        let report = thread.join().expect("a run panics only if a client does");
        for failure in &report.failures {
            println!("{failure}");
        }
        assert!(report.failures.is_empty(), "{} seeds failed", report.failures.len());
        faults.add(&report.faults);
    }
    for (kind, count) in faults.kinds() {
        println!("{kind}: {count}");
        assert!(count > 0, "the runs have met no {kind}");
    }
}

/// The first of these seeds that comes to something else than it must while a rule is broken.
fn caught(broken: Mutation, seeds: std::ops::Range<u64>) -> Option<String> {
    let _switch = broken.switch_on();
    seeds.into_iter().find_map(|seed| random_scenario(seed).run_seed(seed).err()).map(|f| f.to_string())
}

#[test]
fn blobs_that_nobody_cleans_up_are_noticed() {
    for broken in [
        // What a zombie uploads after the winner has cleaned up stays.
        Mutation::DropsRegistrationsWithCleanUp,
        // What a failed attempt has uploaded stays.
        Mutation::ForgetsRegistrations,
        // What was asked for in vain comes to be, later.
        Mutation::TrustsFailedPreparations,
        // A body stays when its message is done.
        Mutation::ForgetsCarriedEffects,
    ] {
        let failure = caught(broken, 0..1_000).unwrap_or_else(|| panic!("{broken:?} was not noticed"));
        println!("{broken:?}: {failure}");
        assert!(failure.contains("blob"), "{broken:?} was noticed by something else: {failure}");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let first = random_scenario(seed).run_seed(seed);
        let second = random_scenario(seed).run_seed(seed);
        assert_eq!(first, second, "seed {seed}");
    }
    let traces: std::collections::BTreeSet<_> =
        (0..20).filter_map(|seed| random_scenario(seed).run_seed(seed).ok()).map(|run| run.trace).collect();
    assert_eq!(traces.len(), 20, "different seeds are different runs");
}

#[test]
fn without_faults_there_are_none() {
    for seed in 0..20 {
        let run = random_scenario(seed).faults(Faults::NONE).run_seed(seed).expect("nothing goes wrong");
        let injected = run.faults.kinds().into_iter().filter(|(kind, _)| {
            // Calls that overtake each other conflict, so that attempts lose, and clients draw their patience from the seed.
            // A message that waits in its lane for longer than its visibility timeout is delivered again.
            !["conflicts", "recoveries", "impatient_clients", "redriven", "copies_attached"].contains(kind)
                && !kind.starts_with("blobs_made")
                && !["blobs_of_losers", "bodies_moved"].contains(kind)
        });
        for (kind, count) in injected {
            assert_eq!(count, 0, "seed {seed}: {kind}");
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Pay(u64);

impl Message for Pay {
    const TYPE: &'static str = "test.pay";
}

/// Pays, and says that paying twice does no harm.
fn paying(deduplicate: Deduplicate) -> Simulation {
    Simulation::new(move || {
        vec![Endpoint::new("purse").preload("paid").on_tokenless(
            deduplicate,
            |tx: Tx, Pay(cents)| async move {
                let paid: u64 = tx.get("paid").await?.unwrap_or(0);
                tx.put("paid", &(paid + cents))?;
                Ok::<_, HandlerError>(())
            },
        )]
    })
    .client(async |client: Client| {
        for number in 0..10 {
            let id = MessageId::from_name("payment", &number.to_string());
            client.send("purse", "ada", id, &Pay(1)).await.expect("the names are well formed");
        }
    })
    .oracle(async |books| match books.item::<u64>("ada", "paid").await {
        Some(10) => Ok(()),
        other => Err(format!("ten payments of 1 came to {other:?}")),
    })
}

#[test]
fn a_handler_that_is_not_as_idempotent_as_it_says_is_noticed() {
    let honest = Deduplicate::ByIdentity { retention: std::time::Duration::from_secs(1_000_000) };
    let report = paying(honest).run(0..20);
    assert!(report.failures.is_empty(), "{}", report.failures[0]);
    let report = paying(Deduplicate::Natural).run(0..20);
    assert!(!report.failures.is_empty(), "duplicates were applied, and nobody noticed");
    let failure = &report.failures[0];
    assert!(failure.problem.contains("ten payments"), "{failure}");
    assert!(failure.to_string().contains(&format!("run_seed({})", failure.seed)), "{failure}");
}

#[test]
fn an_effect_outside_the_transaction_is_noticed() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let calls = Arc::new(AtomicU64::new(0));
    let outside = Arc::clone(&calls);
    let simulation = Simulation::new(move || {
        let calls = Arc::clone(&calls);
        vec![Endpoint::new("shop").on(move |_: Tx, Pay(_)| {
            // What a handler does besides its transaction happens once for each time it runs.
            calls.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, HandlerError>(()) }
        })]
    })
    .client(async |client: Client| {
        for number in 0..10 {
            let id = format!("request-{number}");
            let sent = client
                .execute("shop", "till", &id, |tx: Tx| async move {
                    tx.send("shop", "till", &Pay(1))?;
                    Ok::<_, HandlerError>(())
                })
                .await;
            assert!(sent.is_ok());
        }
    })
    .oracle(move |_| {
        let count = outside.swap(0, Ordering::Relaxed);
        async move { if count == 10 { Ok(()) } else { Err(format!("ten messages made {count} calls")) } }
    });
    let report = simulation.run(0..20);
    assert!(!report.failures.is_empty(), "handlers ran again, and nobody noticed");
}
