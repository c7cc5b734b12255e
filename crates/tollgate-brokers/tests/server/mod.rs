//! A broker's server, started by its script in `infra` and ended with the test, however that ends.
#![allow(dead_code, reason = "each test uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What a script prints before the address, once its server answers.
const ANSWERS: &str = "endpoint: ";

/// With this a script ends that can't start its server on this machine (automake's code for skipped tests).
const SKIPPED: i32 = 77;

pub struct Server {
    script: &'static str,
    port: u16,
    address: String,
    child: Option<Child>,
    /// Where it keeps its data, if that is to outlive it.
    data: Option<TempDir>,
}

impl Server {
    /// Starts a server that can be restarted, or says loudly that it can't be started here.
    pub fn start(script: &'static str) -> Option<Self> {
        Self::with_data(script, Some(TempDir::with_prefix("tollgate-broker-").unwrap()))
    }

    /// Starts a server that lasts as long as the process.
    pub fn start_for_all(script: &'static str) -> Option<Self> {
        Self::with_data(script, None)
    }

    fn with_data(script: &'static str, data: Option<TempDir>) -> Option<Self> {
        let mut server = Self { script, port: free_port(), address: String::new(), child: None, data };
        server.run().then_some(server)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills it with SIGKILL, as a crash would. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The script became the server.
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it without a word, as a machine that hangs: connections stay open, and nobody answers. It goes on when it is killed.
    pub fn freeze(&self) {
        let process = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-STOP", &process]).status().unwrap().success());
    }

    /// A file of its data.
    pub fn file(&self, path: &str) -> PathBuf {
        self.data.as_ref().unwrap().path().join(path)
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "it could be started before");
    }

    fn run(&mut self) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra").join(self.script);
        let mut command = Command::new(script);
        command.arg("--port").arg(self.port.to_string()).arg("--until-stdin-closes");
        if let Some(data) = &self.data {
            command.arg("--data").arg(data.path());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if let Some(address) = said.trim_end().strip_prefix(ANSWERS) {
            address.clone_into(&mut self.address);
            self.child = Some(child);
            return true;
        }
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(SKIPPED), "{} failed; what it said is above", self.script);
        eprintln!("!!! SKIPPED: {} can't start its server on this machine", self.script);
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
