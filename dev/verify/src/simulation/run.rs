//! One run: processes are opened, clients do what they do, processes die and stall, until everything has come to rest; then the
//! oracle looks. All of it on one thread and a virtual clock, everything random from one seed.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tollgate::{Backoff, Blobs, Broker, Gate, Runtime, Store};
use tollgate_brokers::InProcessBroker;
use tollgate_embedded::{MemoryBlobs, MemoryStore};
use tollgate_proto::{EndpointName, Envelope, StoreAlias, Verdict, codec};
use tollgate_testkit::ChaosBroker;

use super::books::Books;
use super::client::Client;
use super::faults::FaultTally;
use super::process::Process;
use super::wires::{WiredBlobs, WiredBroker, WiredStore, Wires};
use super::{Run, Simulation};
use tollgate_testkit::{FaultRates, FaultyStore};

/// How long the broker waits for a delivery to be settled.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often processes sweep.
const SWEEP_EVERY: Duration = Duration::from_secs(7);

/// How long partitions are idle before they are flushed.
const FLUSH_AFTER: Duration = Duration::from_secs(2);

/// How long an attempt may create side effects: shorter than stalls and slow calls, so that some go on when it is over.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);

/// The longest that a call may take: shorter than slow calls, and than the effects of some that are not answered are under way.
const CALL_MAX: Duration = Duration::from_secs(6);

/// The longest that a handler may take.
pub(super) const HANDLER_TIME_MAX: Duration = Duration::from_secs(6);

/// Bodies of more bytes become blobs: few, so that scenarios need not be large to meet it.
const INLINE_BYTES_MAX: usize = 1_000;

/// How often it is looked whether a run has come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long nothing must have moved before a run counts as at rest: longer than several slow calls in a row.
const QUIET_FOR: Duration = Duration::from_secs(120);

/// The longest that a run may take to come to rest, in virtual time.
const REST_WITHIN: Duration = Duration::from_secs(3_600);

/// When processes die and stall: in so much virtual time after the beginning.
const TROUBLE_WITHIN: Duration = Duration::from_secs(10);

/// Messages to outsiders that are looked at in one go.
const RECEIVED_AT_ONCE: usize = 1024;

/// The longest stall: longer than the broker's patience, and than an attempt may take.
const STALL_MAX: Duration = Duration::from_secs(15);

/// How many of those who stalled die soon after they go on.
const DEATHS_AFTER_STALLS: f64 = 0.5;

/// How soon that is: with what they were about to do done in part.
const DEATH_AFTER_STALL_WITHIN: Duration = Duration::from_millis(40);

/// What one run consists of.
pub(super) struct Universe {
    pub(super) memory: Arc<MemoryStore>,
    pub(super) blobs: Arc<MemoryBlobs>,
    /// As the processes reach it.
    pub(super) broker: Arc<dyn Broker>,
    pub(super) wires: Arc<Wires>,
    queues: Arc<InProcessBroker>,
    chaos: Arc<ChaosBroker>,
    faulty: Arc<FaultyStore>,
    store: Arc<dyn Store>,
    wired_blobs: Arc<dyn Blobs>,
    random: Mutex<fastrand::Rng>,
    began: tokio::time::Instant,
    alive: Mutex<Vec<Member>>,
    /// Queues that processes consume.
    consumed: Vec<EndpointName>,
    outside: Mutex<Vec<Envelope>>,
}

/// A process with its gate.
struct Member {
    process: Arc<Process>,
    gate: Arc<Gate>,
}

thread_local! {
    /// The dice of the run that this thread is at.
    static DICE: RefCell<Option<Arc<Wires>>> = const { RefCell::new(None) };
}

/// Whether something goes wrong now, with this probability: for handlers that are to fail sometimes. Outside a run nothing does.
pub fn unlucky(rate: f64) -> bool {
    DICE.with_borrow(|dice| {
        dice.as_ref().is_some_and(|dice| {
            let fails = dice.unlucky(rate);
            if fails {
                dice.count(|tally| tally.handler_failures += 1);
            }
            fails
        })
    })
}

/// Never returns, sometimes: for handlers. Outside a run it returns at once.
pub async fn hang_sometimes() {
    let hangs = DICE.with_borrow(|dice| {
        let hangs = dice.as_ref().is_some_and(|dice| dice.handler_hangs());
        if let Some(dice) = dice.as_ref().filter(|_| hangs) {
            dice.count(|tally| tally.hanging_handlers += 1);
        }
        hangs
    });
    if hangs {
        std::future::pending::<()>().await;
    }
}

/// Awaits a future for a short random time, sometimes, and drops it then; and else to its end. Outside a run always to its end.
pub async fn drop_sometimes<T>(rate: f64, max: Duration, future: impl Future<Output = T>) -> Option<T> {
    let limit = DICE.with_borrow(|dice| {
        let dice = dice.as_ref().filter(|dice| dice.unlucky(rate))?;
        Some(dice.random_duration(max))
    });
    let Some(limit) = limit else { return Some(future.await) };
    let ended = tokio::time::timeout(limit, future).await.ok();
    if ended.is_none() {
        DICE.with_borrow(|dice| {
            if let Some(dice) = dice {
                dice.count(|tally| tally.dropped_preparations += 1);
            }
        });
    }
    ended
}

/// Takes its time, at most so long: for handlers that are to be overtaken sometimes. Outside a run it takes none.
pub async fn dawdle(max: Duration) {
    let pause = DICE.with_borrow(|dice| dice.as_ref().map(|dice| dice.random_duration(max)));
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
}

/// Runs one seed.
pub(super) fn run(simulation: &Simulation, seed: u64) -> Result<Run, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("the runtime can't be started: {error}"))?;
    let outcome = runtime.block_on(async {
        let universe = Universe::new(simulation, seed);
        DICE.set(Some(Arc::clone(&universe.wires)));
        let outcome = universe.live(simulation).await;
        DICE.set(None);
        match universe.wires.panic() {
            Some(panic) => Err(format!("a process has panicked: {panic}")),
            None => outcome,
        }
    });
    // Tasks of processes that never ended end here.
    drop(runtime);
    outcome
}

/// For how long a broker that deduplicates remembers ids: longer than a run takes.
const DEDUPLICATION_WINDOW: Duration = Duration::from_secs(3600);

impl Universe {
    fn new(simulation: &Simulation, seed: u64) -> Arc<Self> {
        let faults = simulation.faults;
        let mut random = fastrand::Rng::with_seed(seed);
        let began = tokio::time::Instant::now();
        let wires = Wires::new(faults, random.u64(..), began);
        let alias = StoreAlias::new("main").expect("the constant is a valid alias");
        let memory = Arc::new(MemoryStore::new(alias));
        let rates = FaultRates::all(faults.failing_calls);
        let flaky = Arc::new(FaultyStore::new(Arc::clone(&memory) as Arc<dyn Store>, random.u64(..), rates));
        let queues = Arc::new(InProcessBroker::builder().visibility_timeout(VISIBILITY_TIMEOUT).build());
        let mut chaos = ChaosBroker::builder(Arc::clone(&queues) as Arc<dyn Broker>)
            .seed(random.u64(..))
            .duplicates(faults.duplicates)
            .reorder(faults.reorder)
            .lose_acks(faults.lost_acknowledgements)
            .failing_sends(faults.failing_calls);
        // Every other system has a broker that drops what it knows.
        if faults.duplicates > 0.0 && seed.is_multiple_of(2) {
            chaos = chaos.deduplicates_for(DEDUPLICATION_WINDOW);
        }
        let chaos = Arc::new(chaos.build());
        let blobs = Arc::new(MemoryBlobs::new());
        let endpoints = (simulation.endpoints)();
        let names = endpoints.iter().map(|endpoint| EndpointName::new(endpoint.name()));
        let consumed = names.filter_map(Result::ok).collect();
        Arc::new(Self {
            store: Arc::new(WiredStore {
                inner: Arc::clone(&flaky) as Arc<dyn Store>,
                wires: Arc::clone(&wires),
            }),
            broker: Arc::new(WiredBroker {
                inner: Arc::clone(&chaos) as Arc<dyn Broker>,
                wires: Arc::clone(&wires),
            }),
            wired_blobs: Arc::new(WiredBlobs {
                inner: Arc::clone(&blobs) as Arc<dyn Blobs>,
                wires: Arc::clone(&wires),
            }),
            memory,
            blobs,
            wires,
            queues,
            chaos,
            faulty: flaky,
            random: Mutex::new(random),
            began,
            alive: Mutex::default(),
            consumed,
            outside: Mutex::default(),
        })
    }

    async fn live(self: &Arc<Self>, simulation: &Simulation) -> Result<Run, String> {
        for _ in 0..simulation.faults.processes {
            let member = self.open(simulation).await?;
            lock(&self.alive).push(member);
        }
        let clients: Vec<_> = simulation
            .clients
            .iter()
            .map(|client| tokio::spawn(client(Client { universe: Arc::clone(self) })))
            .collect();
        self.make_trouble(simulation).await?;
        for client in clients {
            client.await.map_err(|error| format!("a client has panicked: {error}"))?;
        }
        let books = Books { universe: Arc::clone(self) };
        self.come_to_rest(&books).await?;
        let members = std::mem::take(&mut *lock(&self.alive));
        for Member { gate, .. } in members {
            self.count(&gate);
            if let Some(gate) = Arc::into_inner(gate) {
                gate.close().await;
            }
        }
        let left = books.left_over().await;
        if !left.is_empty() {
            return Err(format!("after all processes were closed there is left: {}", left.join(", ")));
        }
        (simulation.oracle)(books).await?;
        Ok(Run { faults: self.tally(), trace: self.wires.trace() })
    }

    async fn open(&self, simulation: &Simulation) -> Result<Member, String> {
        let process = Process::new(self.random_number(), self.began, Arc::clone(&self.wires));
        let mut builder = Gate::builder()
            .runtime(Arc::clone(&process) as Arc<dyn Runtime>)
            .store(Arc::clone(&self.store))
            .broker(Arc::clone(&self.broker))
            .blobs(Arc::clone(&self.wired_blobs))
            .deliveries_max(simulation.faults.deliveries_max)
            .redelivery(Backoff { first: Duration::from_millis(20), cap: Duration::from_secs(2) })
            .attempt_max(ATTEMPT_MAX)
            .store_call_max(CALL_MAX)
            .broker_call_max(CALL_MAX)
            .effect_call_max(CALL_MAX)
            .inline_bytes_max(INLINE_BYTES_MAX)
            .flush_after(FLUSH_AFTER)
            .sweep_every(Some(SWEEP_EVERY));
        for endpoint in (simulation.endpoints)() {
            builder = builder.endpoint(endpoint);
        }
        let gate = builder.open().await.map_err(|error| format!("a gate can't be opened: {error}"))?;
        Ok(Member { process, gate: Arc::new(gate) })
    }

    /// Kills and stalls processes at random moments.
    async fn make_trouble(self: &Arc<Self>, simulation: &Simulation) -> Result<(), String> {
        let mut troubles: Vec<(Duration, Trouble)> = Vec::new();
        for _ in 0..simulation.faults.deaths {
            troubles.push((self.random_duration(TROUBLE_WITHIN), Trouble::Death));
        }
        for _ in 0..simulation.faults.stalls {
            troubles.push((self.random_duration(TROUBLE_WITHIN), Trouble::Stall));
        }
        troubles.sort_by_key(|(at, _)| *at);
        let mut stalled = Vec::new();
        for (at, trouble) in troubles {
            tokio::time::sleep_until(self.began + at).await;
            match trouble {
                Trouble::Death => {
                    let victim = self.random_below(lock(&self.alive).len());
                    self.kill(simulation, victim).await?;
                }
                Trouble::Stall => {
                    let victim = self.random_below(lock(&self.alive).len());
                    let process = Arc::clone(&lock(&self.alive)[victim].process);
                    process.stall();
                    self.wires.count(|tally| tally.stalls += 1);
                    let until = self.random_duration(STALL_MAX);
                    let (universe, simulation) = (Arc::clone(self), simulation.clone());
                    stalled.push(tokio::spawn(async move {
                        tokio::time::sleep(until).await;
                        process.resume();
                        if universe.wires.unlucky(DEATHS_AFTER_STALLS) {
                            tokio::time::sleep(universe.random_duration(DEATH_AFTER_STALL_WITHIN)).await;
                            // It may have been replaced meanwhile.
                            let place =
                                lock(&universe.alive).iter().position(|m| Arc::ptr_eq(&m.process, &process));
                            if let Some(place) = place {
                                universe.wires.count(|tally| tally.deaths_after_stalls += 1);
                                return universe.kill(&simulation, place).await;
                            }
                        }
                        Ok(())
                    }));
                }
            }
        }
        for stall in stalled {
            stall.await.map_err(|error| format!("a stall has panicked: {error}"))??;
        }
        Ok(())
    }

    /// A process dies, and another one takes its place.
    async fn kill(&self, simulation: &Simulation, place: usize) -> Result<(), String> {
        let doomed = Arc::clone(&lock(&self.alive)[place].process);
        let successor = self.open(simulation).await?;
        let victim = {
            let mut alive = lock(&self.alive);
            // Another death may have come first.
            let Some(place) = alive.iter().position(|member| Arc::ptr_eq(&member.process, &doomed)) else {
                return Ok(());
            };
            std::mem::replace(&mut alive[place], successor)
        };
        self.count(&victim.gate);
        victim.process.die();
        self.wires.count(|tally| tally.deaths += 1);
        Ok(())
    }

    /// Waits until nothing moves any more; dead letters are redriven from time to time, as an operator does.
    async fn come_to_rest(&self, books: &Books) -> Result<(), String> {
        let until = tokio::time::Instant::now() + REST_WITHIN;
        let mut quiet_since = None;
        loop {
            let left = books.left_over().await;
            if left.is_empty() {
                // Somebody who went away may have left a request behind that is still on its way to the store.
                let since = *quiet_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > QUIET_FOR {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            quiet_since = None;
            if tokio::time::Instant::now() > until {
                let seconds = REST_WITHIN.as_secs();
                return Err(format!(
                    "it does not come to rest in {seconds} s: there is left {}",
                    left.join(", ")
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            for endpoint in &self.consumed {
                if self.queues.depth(endpoint).dead > 0 {
                    let count = self.queues.redrive(endpoint) as u64;
                    self.wires.count(|tally| tally.redriven += count);
                }
            }
        }
    }

    pub(super) fn left_in_broker(&self) -> Vec<String> {
        self.consumed
            .iter()
            .filter_map(|endpoint| {
                let depth = self.queues.depth(endpoint);
                (depth.total() > 0).then(|| format!("{} messages in the queue of {endpoint}", depth.total()))
            })
            .collect()
    }

    /// Takes what has come for an endpoint that no process consumes.
    pub(super) async fn received_outside(&self, endpoint: &EndpointName) -> Vec<Envelope> {
        while self.queues.depth(endpoint).ready + self.queues.depth(endpoint).delayed > 0 {
            let Ok(deliveries) = self.queues.receive(endpoint, RECEIVED_AT_ONCE).await else { break };
            let settlements = deliveries
                .iter()
                .map(|delivery| tollgate_proto::Settlement {
                    receipt: delivery.receipt.clone(),
                    verdict: Verdict::Acknowledge,
                })
                .collect();
            lock(&self.outside).extend(
                deliveries.iter().filter_map(|delivery| codec::decode_envelope(&delivery.envelope).ok()),
            );
            self.queues.settle(endpoint, settlements).await;
        }
        lock(&self.outside).iter().filter(|envelope| envelope.to.endpoint == *endpoint).cloned().collect()
    }

    pub(super) fn any_gate(&self) -> Arc<Gate> {
        let alive = lock(&self.alive);
        Arc::clone(&alive[self.random_below(alive.len())].gate)
    }

    pub(super) fn random_duration(&self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(lock(&self.random).u64(1..=max))
    }

    fn random_below(&self, count: usize) -> usize {
        lock(&self.random).usize(..count)
    }

    fn random_number(&self) -> u64 {
        lock(&self.random).u64(..)
    }

    fn count(&self, gate: &Gate) {
        let statistics = gate.statistics();
        self.wires.count(|tally| {
            tally.conflicts += statistics.conflicts;
            tally.recoveries += statistics.recoveries;
            tally.bodies_moved += statistics.bodies_stored;
            tally.copies_attached += statistics.copies_attached;
        });
    }

    fn tally(&self) -> FaultTally {
        let mut tally = self.wires.tally();
        let (store, broker) = (self.faulty.counts(), self.chaos.counts());
        tally.store_unavailable += store.unavailable;
        tally.store_throttled += store.throttled;
        tally.lost_commits += store.lost_commits;
        tally.lost_commit_answers += store.lost_commit_answers;
        tally.lost_deletion_answers += store.lost_deletion_answers;
        tally.sends_failed_before += broker.sends_failed_before;
        tally.sends_failed_after += broker.sends_failed_after;
        tally.duplicates += broker.duplicates;
        tally.dropped_as_known += broker.dropped_as_known;
        tally.reordered += broker.reordered;
        tally.lost_acknowledgements += broker.acks_lost_silently + broker.acks_lost_with_an_error;
        tally
    }
}

#[derive(Clone, Copy)]
enum Trouble {
    Death,
    Stall,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
