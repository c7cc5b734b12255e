//! A process that was started from here: it reports, is killed, or is told to close; and it ends when this end of its standard
//! input is dropped.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::lifeline::{CLOSE, Counts, Report};

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running process.
pub struct Child {
    what: &'static str,
    process: std::process::Child,
    orders: Option<ChildStdin>,
    close_by: Option<Instant>,
    /// Reads what it reports. It ends with the process.
    reader: Option<JoinHandle<()>>,
    /// `None`: it has not reported yet.
    last: Arc<Mutex<Option<Report>>>,
    /// What its predecessors have said and counted.
    before: Report,
}

impl Child {
    /// Starts a process.
    pub fn start(what: &'static str, mut command: Command) -> Result<Self, Failure> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| format!("{what} can't be started: {error}"))?;
        let orders = process.stdin.take();
        let last = Arc::new(Mutex::new(None));
        let reader = process.stdout.take().map(|output| {
            let last = Arc::clone(&last);
            std::thread::spawn(move || read(output, &last))
        });
        Ok(Self { what, process, orders, close_by: None, reader, last, before: Report::default() })
    }

    /// Says that it takes the place of one that has died: until it reports itself, what that one has said holds.
    #[must_use]
    pub fn after(mut self, dead: &Self) -> Self {
        self.before = Report { counts: dead.counts(), ..dead.report() };
        self
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.last().is_some()
    }

    /// What it, or its predecessor, has reported last.
    pub fn report(&self) -> Report {
        self.last().unwrap_or_else(|| self.before.clone())
    }

    /// What it and its predecessors have counted.
    pub fn counts(&self) -> Counts {
        self.before.counts.and(self.last().map(|report| report.counts).unwrap_or_default())
    }

    fn last(&self) -> Option<Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} has ended by itself: {status}", self.what).into()),
        }
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        while self.process.try_wait()?.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.hear_the_last();
        Ok(())
    }

    /// Tells it to close, and by when.
    pub fn tell_to_close(&mut self, within: Duration) -> Result<(), Failure> {
        self.close_by = Some(Instant::now() + within);
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{CLOSE}")?;
        }
        Ok(())
    }

    /// Whether it has closed. It fails if that was not in time, or no success.
    pub fn has_closed(&mut self) -> Result<bool, Failure> {
        let is_late = self.close_by.is_some_and(|close_by| close_by < Instant::now());
        match self.process.try_wait()? {
            None if is_late => Err(format!("{} has not closed in time", self.what).into()),
            None => Ok(false),
            Some(status) if status.success() => {
                self.hear_the_last();
                Ok(true)
            }
            Some(status) => Err(format!("{} could not close: {status}", self.what).into()),
        }
    }

    /// Its output ends with it, and so does the thread that reads it.
    fn hear_the_last(&mut self) {
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            tracing::error!(process = self.what, "the thread that reads its reports panicked");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its orders end here, so it would end by itself; but nobody waits for that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keeps the last report. A line that was cut off by a death is passed over.
fn read(output: ChildStdout, last: &Mutex<Option<Report>>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Ok(report) = serde_json::from_str(&line) {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        }
    }
}
