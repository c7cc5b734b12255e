//! A process that was started from here: it is given orders, tells how it is doing, is killed, and never outlives this
//! one. The side of the process itself is in `lifeline`.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::demo::LOOK_EVERY;
use crate::error::DemoError;
use crate::lifeline::{ConsumerReport, Order};

/// A running process.
pub struct Child {
    what: &'static str,
    process: std::process::Child,
    /// When this is dropped, the process ends by itself.
    orders: Option<ChildStdin>,
    /// The thread that reads what it tells. It ends with the process.
    reader: Option<JoinHandle<()>>,
    last_report: Arc<Mutex<ConsumerReport>>,
}

/// How long a process may take to notice that it was abandoned.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

impl Child {
    /// Starts a process.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(what: &'static str, mut command: Command) -> Result<Self, DemoError> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| DemoError::process(what, &format!("it can't be started: {error}")))?;
        let orders = process.stdin.take();
        let last_report = Arc::new(Mutex::new(ConsumerReport::default()));
        let reports = Arc::clone(&last_report);
        let reader =
            process.stdout.take().map(|output| std::thread::spawn(move || read_reports(output, &reports)));
        Ok(Self { what, process, orders, reader, last_report })
    }

    /// What it has told last.
    pub fn report(&self) -> ConsumerReport {
        *self.last_report.lock().expect("nothing panics while it holds a report")
    }

    /// Checks that it has not ended by itself.
    ///
    /// # Errors
    /// If it has.
    pub fn check(&mut self) -> Result<(), DemoError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("it has ended by itself: {status}"))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Kills it with SIGKILL and answers what it had told.
    ///
    /// # Errors
    /// If it can't be killed.
    pub fn kill(mut self) -> Result<ConsumerReport, DemoError> {
        self.kill_now()?;
        Ok(self.report())
    }

    /// As [`Child::kill`], and leaves what is left of it.
    ///
    /// # Errors
    /// If it can't be killed.
    pub fn kill_now(&mut self) -> Result<(), DemoError> {
        self.process.kill().map_err(|error| self.failed(&error))?;
        self.process.wait().map_err(|error| self.failed(&error))?;
        self.join_reader();
        Ok(())
    }

    /// Tells it to end, waits until it has, and answers what it told at the end.
    ///
    /// # Errors
    /// If it does not end in time, or with an error.
    pub fn close(mut self, order: Order, within: Duration) -> Result<ConsumerReport, DemoError> {
        let told = match &mut self.orders {
            Some(orders) => writeln!(orders, "{}", order.as_str()).and_then(|()| orders.flush()),
            None => Ok(()),
        };
        told.map_err(|error| self.failed(&error))?;
        match self.wait(within)? {
            Some(status) if status.success() => {
                self.join_reader();
                Ok(self.report())
            }
            Some(status) => Err(self.failed(&format!("it could not {}: {status}", order.as_str()))),
            None => Err(self.failed(&format!("it did not {} within {} s", order.as_str(), within.as_secs()))),
        }
    }

    fn wait(&mut self, within: Duration) -> Result<Option<ExitStatus>, DemoError> {
        let started = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(None) if started.elapsed() > within => return Ok(None),
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Ok(status) => return Ok(status),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn join_reader(&mut self) {
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            tracing::error!(process = self.what, "the thread that reads its reports panicked");
        }
    }

    fn failed(&self, problem: &impl ToString) -> DemoError {
        DemoError::process(format!("{} (process {})", self.what, self.process.id()), problem)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Not killed at once: a guard has something to do first.
        if !matches!(self.wait(ENDED_WITHIN), Ok(Some(_))) {
            let _ = self.kill_now();
        }
        self.join_reader();
    }
}

/// Keeps the last report. A line that is none, or cut off by a death, is passed over.
fn read_reports(output: ChildStdout, last: &Mutex<ConsumerReport>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Ok(report) = serde_json::from_str(&line) {
            *last.lock().expect("nothing panics while it holds a report") = report;
        }
    }
}
