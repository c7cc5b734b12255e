//! The show: starts the shop and the provider as processes, sends clients, kills the processes with SIGKILL at moments that are
//! drawn from the seed, starts them again, and asks for the audit when all is quiet.

mod child;
mod clients;
mod input;
mod page;
mod stage;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::child::Child;
use self::clients::Clients;
pub use self::input::{Input, Wanted};
use self::page::Page;
use self::stage::Stage;
use self::state::{Death, Phase, Side, State, Victim};
use crate::Failure;
use crate::audit::{self, Books, Sabotage};
use crate::messages::Totals;

/// What the show can be asked to do.
#[derive(Args)]
pub struct Options {
    /// How many orders are placed.
    #[arg(long, value_name = "N", default_value_t = 300)]
    orders: usize,
    /// What everything random is drawn from. Default: another one each time.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many times a process is killed with SIGKILL and started again, the shop and the provider in turn.
    #[arg(long, value_name = "N", default_value_t = 6)]
    kills: usize,
    /// How many orders a second come in.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// Where the processes keep their files; a second run goes on where the first one stopped. Default: a directory that is
    /// deleted in the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keeps the page up after the run, until the program is interrupted.
    #[arg(long)]
    serve: bool,
    /// Where the page is served. Default: at a free port.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    page: SocketAddr,
    /// Spoils something before the audit, to show that the audit notices.
    #[arg(long, value_name = "WHAT", value_enum, hide_short_help = true)]
    sabotage: Option<Sabotage>,
}

/// How often the show looks how things are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Longest pause between the moment at which a death is due and the death, so that it does not always come after a report.
const LATE_MS_MAX: u64 = 50;

/// The longest wait without any progress before the show gives up and lets the audit say what is missing.
const STUCK_AFTER: Duration = Duration::from_secs(40);

/// How long a process may take to close.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// Runs the show, and answers whether the books balance.
pub async fn run(options: &Options) -> Result<ExitCode, Failure> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let input = Arc::new(Input::draw(seed, options.orders));
    // Deleted when it is dropped.
    let own = if options.data.is_none() { Some(tempfile::tempdir()?) } else { None };
    let own = own.as_ref().map(tempfile::TempDir::path);
    let data = options.data.as_deref().or(own).ok_or("there is no directory")?;
    input.claim(data)?;
    let page = Page::open(options.page, State::new(seed, options.orders, options.kills)).await?;
    println!(
        "{} orders, {} kills, seed {seed}; --seed {seed} draws the same again",
        options.orders, options.kills
    );
    println!("the page: http://{}/", page.address());
    let complaints = play(options, &input, data, &page).await?;
    if let Some(sabotage) = options.sabotage {
        sabotage.commit(data).await?;
    }
    let books = audit::balance(data, &input, &complaints).await?;
    page.change(|state| state.close_books(books.clone()));
    print(&page.state(), &books);
    if options.serve {
        println!("\nthe page stays up until this program is interrupted (Ctrl-C)");
        tokio::signal::ctrl_c().await?;
    }
    page.close().await;
    Ok(if books.is_balanced() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets everything happen, until all processes have ended. What the clients have to complain about is the answer.
async fn play(
    options: &Options,
    input: &Arc<Input>,
    data: &Path,
    page: &Page,
) -> Result<Vec<String>, Failure> {
    let mut show = Show::start(data, input, options.kills, page)?;
    let clients = Arc::new(Clients::new(show.stage.shop, Arc::clone(input), options.rate)?);
    let crowd = tokio::spawn(Arc::clone(&clients).come());
    let mut complaints = Vec::new();
    if let Err(error) = show.play(crowd, &clients).await {
        complaints.push(error.to_string());
    }
    if let Err(error) = show.close(&clients).await {
        complaints.push(error.to_string());
    }
    complaints.extend(clients.complaints());
    Ok(complaints)
}

fn print(state: &State, books: &Books) {
    let (shop, provider, clients) = (&state.shop, &state.provider, &state.clients);
    let both = shop.counts.and(provider.counts);
    println!(
        "\nin {:.1} s: the shop was killed {} times, the provider {} times\n\
         {} requests for {} orders: {} repetitions answered as before, {} unanswered, {} told to come again, \
         {} under a used key refused\n\
         {} messages, {} duplicates dropped, {} unfinished commits completed\n\
         the brokers sent {} extra copies, reordered {}, lost {} acknowledgements and failed {} sends\n",
        state.seconds,
        shop.kills,
        provider.kills,
        clients.sent,
        clients.answered,
        clients.replayed,
        clients.unanswered,
        clients.put_off,
        clients.refused,
        both.messages,
        both.duplicates_dropped,
        both.recoveries,
        both.copies_sent,
        both.reordered,
        both.acknowledgements_lost,
        both.sends_failed,
    );
    println!("{books}");
}

/// How often who was killed.
#[derive(Clone, Copy, Debug, Default)]
struct Kills {
    shop: u64,
    provider: u64,
}

/// The processes, and what is to become of them.
struct Show<'a> {
    page: &'a Page,
    stage: Stage,
    random: fastrand::Rng,
    /// After how many steps of orders who dies, the last death first.
    deaths: Vec<(u64, Victim)>,
    shop: Child,
    provider: Child,
    kills: Kills,
    started: Instant,
}

impl<'a> Show<'a> {
    /// Starts both processes.
    fn start(data: &Path, input: &Input, kills: usize, page: &'a Page) -> Result<Self, Failure> {
        let mut random = fastrand::Rng::with_seed(input.seed);
        let mut moments: Vec<u64> = (0..kills).map(|_| random.u64(1..=input.steps().max(1))).collect();
        moments.sort_unstable();
        let victims = [Victim::Provider, Victim::Shop].into_iter().cycle();
        let mut deaths: Vec<(u64, Victim)> = moments.into_iter().zip(victims).collect();
        deaths.reverse();
        let stage = Stage::new(data)?;
        let provider = stage.start_provider(random.u64(..))?;
        let shop = stage.start_shop(random.u64(..))?;
        let (kills, started) = (Kills::default(), Instant::now());
        Ok(Self { page, stage, random, deaths, shop, provider, kills, started })
    }

    /// Kills whose time has come, until all clients are answered and every order has come to its end.
    async fn play(&mut self, mut crowd: JoinHandle<()>, clients: &Clients) -> Result<(), Failure> {
        let mut last = (0, Instant::now());
        let mut crowd_is_gone = false;
        loop {
            tokio::select! {
                gone = &mut crowd, if !crowd_is_gone => {
                    gone?;
                    crowd_is_gone = true;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.shop.check()?;
            self.provider.check()?;
            self.look(clients);
            let Totals { placed, paid, refused, shipped } = self.shop.report().totals;
            let ended = refused.orders + shipped.orders;
            let steps = placed.orders + paid.orders + ended;
            let is_over = crowd_is_gone && ended >= clients.wanted();
            // A second run on the same directory makes no steps: who is left to die then dies at the end.
            if self.deaths.last().is_some_and(|(after, _)| *after <= steps || is_over)
                && let Some((_, victim)) = self.deaths.pop()
            {
                self.kill(victim).await?;
                let seconds = self.seconds();
                println!("{seconds:>6.1} s  killed: {victim}, after {steps} steps of orders");
                self.page.change(|state| state.deaths.push(Death { seconds, victim }));
            } else if is_over {
                return Ok(());
            }
            let progress = steps + clients.counts().answered;
            if progress != last.0 {
                last = (progress, Instant::now());
            } else if last.1.elapsed() > STUCK_AFTER {
                crowd.abort();
                return Err(format!("nothing has happened for {} s", STUCK_AFTER.as_secs()).into());
            }
        }
    }

    async fn kill(&mut self, victim: Victim) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(self.random.u64(0..LATE_MS_MAX))).await;
        let seed = self.random.u64(..);
        match victim {
            Victim::Shop => {
                self.shop.kill().await?;
                self.kills.shop += 1;
                self.shop = self.stage.start_shop(seed)?.after(&self.shop);
            }
            Victim::Provider => {
                self.provider.kill().await?;
                self.kills.provider += 1;
                self.provider = self.stage.start_provider(seed)?.after(&self.provider);
            }
        }
        Ok(())
    }

    /// Tells the page how things are.
    fn look(&self, clients: &Clients) {
        let side = |child: &Child, kills: u64| {
            let report = child.report();
            let (is_up, counts) = (child.is_up(), child.counts());
            Side { is_up, kills, totals: report.totals, under_way: report.under_way, counts }
        };
        let shop = side(&self.shop, self.kills.shop);
        let provider = side(&self.provider, self.kills.provider);
        self.page.change(|state| state.look(self.seconds(), shop, provider, clients.counts()));
    }

    /// Closes the shop, which may still have something to ask of the provider, and then the provider.
    async fn close(&mut self, clients: &Clients) -> Result<(), Failure> {
        self.page.change(|state| state.phase = Phase::Settling);
        self.shop.tell_to_close(CLOSED_WITHIN)?;
        while !self.shop.has_closed()? {
            self.look(clients);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.provider.tell_to_close(CLOSED_WITHIN)?;
        while !self.provider.has_closed()? {
            self.look(clients);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.look(clients);
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
