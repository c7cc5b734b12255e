//! The demo in several processes: a host that holds the broker (and the store, if only one process can open it), consumers
//! and perhaps a database server, all started from here, killed with SIGKILL at random moments and started again until
//! the flights are through. What the processes do is told in `host` and `consumer_process`; what is right, in `audit`.

mod child;
pub mod guard;

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;
use tollgate::{Statistics, Store};

use self::child::Child;
use crate::audit::Totals;
use crate::broker_choice::{BrokerChoice, BrokerOptions, OutsideBroker};
use crate::demo::{self, LOOK_EVERY, MESSAGES_PER_FLIGHT, Outcome, ROUNDS_MAX, STUCK_AFTER};
use crate::error::DemoError;
use crate::flights::Input;
use crate::lifeline::{Order, SourceState};
use crate::queues;
use crate::remote::{Connection, QueueDepth, RemoteBroker};
use crate::report::Crashes;
use crate::store_choice::StoreOptions;

/// What the demo in several processes can be asked to do.
#[derive(Args)]
#[group(id = "several_processes")]
#[command(next_help_heading = "Several processes")]
pub struct Options {
    /// Runs so many consumers, each in a process of its own, and a host process that serves them the broker and the
    /// embedded store.
    #[arg(long, value_name = "N", conflicts_with_all = ["crashes", "consumers"],
          value_parser = clap::value_parser!(u16).range(1..))]
    processes: Option<u16>,
    /// How many times a consumer process is killed with SIGKILL, and another one started.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "processes")]
    kills: usize,
    /// How many times the host process is killed with SIGKILL and started again.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "processes")]
    host_kills: usize,
    /// Which store, and where it is.
    #[command(flatten)]
    store: StoreOptions,
    /// Which broker, and where it is.
    #[command(flatten)]
    broker: BrokerOptions,
    /// A server that the store or the broker needs, as a command for the shell. It is started first, killed with whatever it has
    /// started, and ends with the demo.
    #[arg(long, value_name = "COMMAND", requires = "processes", requires = "server_ready")]
    server: Option<String>,
    /// Where the server can be connected to when it is ready.
    #[arg(long, value_name = "ADDRESS", requires = "server")]
    server_ready: Option<SocketAddr>,
    /// How many times the server is killed with SIGKILL and started again.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "server")]
    server_kills: usize,
}

impl Options {
    /// How many consumer processes there are to be. `None`: the demo is to run in one process.
    pub fn consumers(&self) -> Option<usize> {
        self.processes.map(usize::from)
    }

    /// Checks that the broker is one for a demo in one process.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_broker_alone(&self) -> Result<(), DemoError> {
        if self.broker.broker == BrokerChoice::InProcess {
            return Ok(());
        }
        Err(DemoError::Open("a broker outside of our processes needs --processes".to_owned()))
    }

    /// Opens the store for the demo in one process.
    ///
    /// # Errors
    /// If it can't be used, or belongs to another process.
    pub async fn open_store_alone(&self, data: &Path) -> Result<Arc<dyn Store>, DemoError> {
        self.store.open_alone(data).await
    }
}

/// Where the host says where it is found, in the data directory.
const ADDRESS_FILE: &str = "host.address";

/// Longest pause between the moment at which somebody's death is due and his death, so that it doesn't always come right
/// after a report.
const LATE_MS_MAX: u64 = 20;

/// How long a server may take to be ready.
const SERVER_READY_WITHIN: Duration = Duration::from_secs(60);

/// How long one attempt to connect to it may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How long a process may take to end when it is told to.
const CLOSED_WITHIN: Duration = Duration::from_secs(120);

/// Runs the demo.
///
/// # Errors
/// If a process can't be started or ends by itself, or the store can't be read.
pub fn run(
    options: &demo::Options,
    consumers: usize,
    input: &Arc<Input>,
    seed: u64,
) -> Result<Outcome, DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| DemoError::Open(format!("the runtime can't be started: {error}")))?;
    let mut supervisor = Supervisor::start(options, &runtime, input, seed)?;
    let store = runtime.block_on(options.processes.store.open(&supervisor.connection))?;
    demo::check_input_is_this_directorys(&runtime, &*store, input, &options.data)?;
    let started = Instant::now();
    let deaths = supervisor.draw_deaths();
    supervisor.run(consumers, deaths)?;
    supervisor.end_consumers()?;
    // A consumer that died at the very end may have left something that was found only by the last sweep.
    for _ in 0..ROUNDS_MAX {
        let (_, leftovers) = runtime.block_on(Totals::of_store(&*store))?;
        if leftovers.count() == 0 && supervisor.depth().is_some_and(|depth| depth.left == 0) {
            break;
        }
        supervisor.run(1, Vec::new())?;
        supervisor.end_consumers()?;
    }
    let elapsed = started.elapsed();
    let (stored, leftovers) = runtime.block_on(Totals::of_store(&*store))?;
    let left = supervisor.depth().ok_or_else(|| DemoError::process("the broker", &"it does not answer"))?;
    let (statistics, crashes) = supervisor.end()?;
    Ok(Outcome { elapsed, crashes, statistics, stored, leftovers, left })
}

/// Somebody who is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Consumer,
    Host,
    Server,
}

/// When somebody is to be killed: after so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Death {
    after_messages: u64,
    victim: Victim,
}

/// Who starts everybody, kills them and starts others.
struct Supervisor<'a> {
    options: &'a demo::Options,
    runtime: &'a Runtime,
    program: PathBuf,
    address_file: PathBuf,
    seed: u64,
    random: fastrand::Rng,
    messages: u64,
    connection: Arc<Connection>,
    broker: RemoteBroker,
    /// A broker that is not the host's.
    outside: Option<OutsideBroker>,
    /// Consumers before the host before the server: that is the order in which they are dropped.
    consumers: Vec<Child>,
    host: Child,
    hosts_started: u64,
    server: Option<Child>,
    source: SourceState,
    /// What those did that have ended.
    past: Vec<Statistics>,
    crashes: Crashes,
}

impl<'a> Supervisor<'a> {
    /// Starts the server and the host.
    fn start(
        options: &'a demo::Options,
        runtime: &'a Runtime,
        input: &Input,
        seed: u64,
    ) -> Result<Self, DemoError> {
        if options.input.as_ref().is_some_and(|path| path.as_os_str() == "-") {
            let problem = "several processes can't read one standard input: give the flights as a file";
            return Err(DemoError::Open(problem.to_owned()));
        }
        std::fs::create_dir_all(&options.data).map_err(|error| DemoError::file(&options.data, error))?;
        let program = std::env::current_exe().map_err(|error| DemoError::file("the program", error))?;
        let address_file = options.data.join(ADDRESS_FILE);
        let connection = {
            let _in_runtime = runtime.enter();
            Arc::new(Connection::open(&address_file))
        };
        let server = start_server(options, &program)?;
        let host = start_host(options, &program, &address_file, seed)?;
        let outside = runtime.block_on(options.processes.broker.open(&options.data))?;
        Ok(Self {
            outside,
            options,
            runtime,
            program,
            address_file,
            seed,
            random: fastrand::Rng::with_seed(seed),
            messages: input.flights.len() as u64 * MESSAGES_PER_FLIGHT,
            broker: RemoteBroker::new(Arc::clone(&connection)),
            connection,
            consumers: Vec::new(),
            host,
            hosts_started: 1,
            server,
            source: SourceState::Sending,
            past: Vec::new(),
            crashes: Crashes::default(),
        })
    }

    /// When who is to be killed, the last death first.
    fn draw_deaths(&mut self) -> Vec<Death> {
        let Options { kills, host_kills, server_kills, .. } = self.options.processes;
        let mut deaths = Vec::with_capacity(kills + host_kills + server_kills);
        let counts = [(Victim::Consumer, kills), (Victim::Host, host_kills), (Victim::Server, server_kills)];
        for (victim, count) in counts {
            for _ in 0..count {
                deaths.push(Death { after_messages: self.random.u64(0..self.messages.max(1)), victim });
            }
        }
        deaths.sort_by_key(|death| std::cmp::Reverse(death.after_messages));
        deaths
    }

    /// Keeps `count` consumers running and kills whose time has come, until the broker is empty.
    fn run(&mut self, count: usize, mut deaths: Vec<Death>) -> Result<(), DemoError> {
        for _ in 0..count {
            self.start_consumer()?;
        }
        let progress = demo::progress_bar(self.messages);
        let mut last_progress = (0, Instant::now());
        loop {
            self.check_everybody_lives()?;
            let deliveries = self.sum(|statistics| statistics.deliveries);
            let committed = self.sum(|statistics| statistics.committed);
            progress.set_position(committed.min(self.messages));
            if deaths.last().is_some_and(|death| death.after_messages <= committed)
                && let Some(death) = deaths.pop()
            {
                self.kill(death.victim)?;
            }
            if self.is_source_done() && self.depth().is_some_and(|depth| depth.left == 0) {
                // What the dead did is not known to the last message, so deaths may be left: then they come now.
                match deaths.pop() {
                    Some(death) => self.kill(death.victim)?,
                    None => break,
                }
            }
            if deliveries != last_progress.0 {
                last_progress = (deliveries, Instant::now());
            } else if last_progress.1.elapsed() > STUCK_AFTER {
                let waited = STUCK_AFTER.as_secs();
                eprintln!("nothing has happened for {waited} s: the audit will tell what is missing");
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn start_consumer(&mut self) -> Result<(), DemoError> {
        let mut command = Command::new(&self.program);
        command.arg("consumer").arg("--connect").arg(&self.address_file);
        command.arg("--workers").arg(self.options.workers.to_string());
        command.args(self.options.processes.store.arguments());
        command.args(self.options.processes.broker.arguments(&self.options.data));
        command.args(self.options.chaos.arguments());
        command.arg("--seed").arg(self.random.u64(..).to_string());
        if let Some(input) = &self.options.input {
            command.arg("--input").arg(input);
        }
        self.consumers.push(Child::start("a consumer", command)?);
        Ok(())
    }

    fn kill(&mut self, victim: Victim) -> Result<(), DemoError> {
        std::thread::sleep(Duration::from_millis(self.random.u64(0..LATE_MS_MAX)));
        match victim {
            Victim::Consumer => {
                let victim = self.consumers.swap_remove(self.random.usize(..self.consumers.len()));
                let report = victim.kill()?;
                self.note(report.source);
                self.past.push(report.counts.into());
                self.crashes.consumers += 1;
                self.start_consumer()
            }
            Victim::Host => {
                self.host.kill_now()?;
                self.crashes.host += 1;
                let seed = self.seed.wrapping_add(self.hosts_started);
                self.host = start_host(self.options, &self.program, &self.address_file, seed)?;
                self.hosts_started += 1;
                Ok(())
            }
            Victim::Server => {
                // The guard kills the server; it may not be killed itself, or nobody would.
                if let Some(server) = self.server.take() {
                    server.close(Order::Close, CLOSED_WITHIN)?;
                }
                self.crashes.server += 1;
                self.server = start_server(self.options, &self.program)?;
                Ok(())
            }
        }
    }

    fn check_everybody_lives(&mut self) -> Result<(), DemoError> {
        self.consumers.iter_mut().chain([&mut self.host]).chain(&mut self.server).try_for_each(Child::check)
    }

    /// It is a fact that stays one, whoever dies.
    fn is_source_done(&mut self) -> bool {
        let known: Vec<SourceState> = self.consumers.iter().map(|one| one.report().source).collect();
        for source in known {
            self.note(source);
        }
        self.source == SourceState::Done
    }

    fn note(&mut self, source: SourceState) {
        if source == SourceState::Done {
            self.source = source;
        }
    }

    /// What is in the broker. `None`: it does not answer now.
    fn depth(&self) -> Option<QueueDepth> {
        if let Some(outside) = &self.outside {
            return self.runtime.block_on(outside.total()).ok();
        }
        let endpoints = queues::endpoints().ok()?;
        self.runtime.block_on(async {
            let mut depths = Vec::with_capacity(endpoints.len());
            for endpoint in &endpoints {
                depths.push(self.broker.depth(endpoint).await.ok()?);
            }
            Some(depths.into_iter().sum())
        })
    }

    /// Closes the consumers; the last one cleans up what the dead have left.
    fn end_consumers(&mut self) -> Result<(), DemoError> {
        let last = self.consumers.pop();
        for consumer in self.consumers.drain(..) {
            self.past.push(consumer.close(Order::Close, CLOSED_WITHIN)?.counts.into());
        }
        if let Some(last) = last {
            self.past.push(last.close(Order::Sweep, CLOSED_WITHIN)?.counts.into());
        }
        Ok(())
    }

    /// Ends the host and the server.
    fn end(self) -> Result<(Statistics, Crashes), DemoError> {
        self.host.close(Order::Close, CLOSED_WITHIN)?;
        if let Some(server) = self.server {
            server.close(Order::Close, CLOSED_WITHIN)?;
        }
        Ok((self.past.into_iter().sum(), self.crashes))
    }

    fn sum(&self, of: impl Fn(&Statistics) -> u64) -> u64 {
        self.past.iter().map(&of).sum::<u64>()
            + self.consumers.iter().map(|one| of(&one.report().counts.into())).sum::<u64>()
    }
}

fn start_host(
    options: &demo::Options,
    program: &PathBuf,
    address_file: &PathBuf,
    seed: u64,
) -> Result<Child, DemoError> {
    let mut command = Command::new(program);
    command.arg("host").arg("--data").arg(&options.data).arg("--address-file").arg(address_file);
    command.arg("--seed").arg(seed.to_string());
    command.args(options.chaos.arguments()).args(options.processes.store.arguments());
    Child::start("the host", command)
}

/// Starts the server, if there is to be one, and waits until it is ready.
fn start_server(options: &demo::Options, program: &PathBuf) -> Result<Option<Child>, DemoError> {
    let Options { server: Some(server), server_ready: Some(address), .. } = &options.processes else {
        return Ok(None);
    };
    let mut command = Command::new(program);
    command.args([OsString::from("guard"), server.into()]);
    guard::set_apart(&mut command);
    let mut child = Child::start("the server's guard", command)?;
    let asked = Instant::now();
    while !is_ready(*address) {
        child.check()?;
        if asked.elapsed() > SERVER_READY_WITHIN {
            let problem = format!("nobody answers at {address} after {} s", SERVER_READY_WITHIN.as_secs());
            return Err(DemoError::process("the server", &problem));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(Some(child))
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT_WITHIN) else { return false };
    // A socket that looks for a free port to connect from may get the one that it connects to.
    stream.local_addr().is_ok_and(|own| own != address)
}
