//! A server beside a test: an emulator or a broker, started by a script of `infra` on a free port and ended with the test, however
//! that ends. What is installed how is the scripts' business.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What a script prints before the address, once its server answers.
const ANSWERS: &str = "endpoint: ";

/// With this a script ends that can't start its server on this machine (automake's code for skipped tests).
const SKIPPED: i32 = 77;

/// A server that was started for a test. It is killed when this is dropped, and also when the process ends in any other way.
#[derive(Debug)]
pub struct LocalServer {
    script: PathBuf,
    port: u16,
    address: String,
    child: Option<Child>,
    keeping: Keeping,
    directory: TempDir,
}

/// What a server keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Directory,
    Memory,
}

impl LocalServer {
    /// Starts a server that keeps its data in a directory of its own. `None`, and a loud word on stderr, if it can't be started
    /// on this machine: the test is to be skipped. Blocks until it answers; the first start installs it, which takes minutes.
    ///
    /// # Panics
    /// If the script can't be run, or fails.
    pub fn start(script: impl AsRef<Path>) -> Option<Self> {
        Self::start_keeping(Keeping::Directory, script.as_ref())
    }

    /// The same for a server that keeps its data in memory and nowhere else. What it held is gone when it is killed.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_in_memory(script: impl AsRef<Path>) -> Option<Self> {
        Self::start_keeping(Keeping::Memory, script.as_ref())
    }

    fn start_keeping(keeping: Keeping, script: &Path) -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let mut server = Self {
            script: script.to_owned(),
            port: port.expect("a port of this machine is free").port(),
            address: String::new(),
            child: None,
            keeping,
            directory: TempDir::with_prefix("tollgate-server-").expect("a directory can be made"),
        };
        server.run().then_some(server)
    }

    /// Where it answers, as the script says.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills it with SIGKILL, as a crash would. Its data stay.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The script has become the server, so its process is the one to kill.
        child.kill().and_then(|()| child.wait()).expect("one's own child can be killed");
    }

    /// Stops it without a word, as a machine that hangs: connections stay open, and nothing is answered. It ends when it is killed.
    ///
    /// # Panics
    /// If it is not running, or the system refuses.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a server that was frozen go on.
    ///
    /// # Panics
    /// As [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.child.as_ref().expect("it is running").id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status().expect("`kill` can be run");
        assert!(sent.success(), "kill {signal} {process}: {sent}");
    }

    /// A file of its data.
    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("data").join(path)
    }

    /// Starts it again, on the same port and data. Blocks until it answers.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "{}: it could be started before", self.script.display());
    }

    fn run(&mut self) -> bool {
        let script = self.script.display();
        let log = self.directory.path().join("log");
        let mut command = Command::new(&self.script);
        if self.keeping == Keeping::Directory {
            command.arg("--data").arg(self.directory.path().join("data"));
        }
        let mut child = command
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--log")
            .arg(&log)
            // The script watches its stdin and kills the server when this process is gone, whatever became of it.
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{script} can't be run: {error}"));
        let mut said = String::new();
        let stdout = child.stdout.take().expect("it was asked for");
        BufReader::new(stdout).read_line(&mut said).unwrap_or_else(|error| panic!("{script}: {error}"));
        if let Some(address) = said.trim_end().strip_prefix(ANSWERS) {
            address.clone_into(&mut self.address);
            self.child = Some(child);
            return true;
        }
        let status = child.wait().unwrap_or_else(|error| panic!("{script}: {error}"));
        if status.code() == Some(SKIPPED) {
            eprintln!("!!! SKIPPED: {script} can't start its server on this machine");
            return false;
        }
        let said = std::fs::read_to_string(log).unwrap_or_default();
        panic!("{script} has failed ({status}): {said}");
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.kill();
    }
}
