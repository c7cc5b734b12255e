//! Emulators as servers beside the test: where one is running already (`TOLLGATE_DYNAMODB_ENDPOINT`), or started by the scripts
//! of `infra/dynamodb` and ended with the test, however that ends. What is installed how is the scripts' business.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use tempfile::TempDir;

use crate::error::EmulatorError;
use crate::in_process::offline_config;

/// Where tests find a DynamoDB that somebody else runs: a URL.
pub const ENDPOINT_VARIABLE: &str = "TOLLGATE_DYNAMODB_ENDPOINT";
/// What a script prints before the URL, once its server answers.
const ANSWERS: &str = "endpoint: ";
/// With this a script ends that can't start its server on this machine (automake's code for skipped tests).
const SKIPPED: i32 = 77;

/// A DynamoDB to talk to over HTTP. A server that was started for it is killed when this is dropped, and also when the
/// process ends in any other way.
#[derive(Debug)]
pub struct Endpoint {
    url: String,
    server: Option<Server>,
}

/// Which emulator to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// `dynoxide`, on a file: what it acknowledged survives SIGKILL.
    Dynoxide,
    /// `ministack`: a second, independent implementation. In memory.
    Ministack,
    /// AWS's DynamoDB Local. Its script starts it only if `TOLLGATE_ACCEPT_DYNAMODB_LOCAL_LICENCE` is 1. In memory.
    DynamoDbLocal,
}

#[derive(Debug)]
struct Server {
    kind: ServerKind,
    port: u16,
    child: Option<Child>,
    directory: TempDir,
}

/// A DynamoDB for tests: that of `TOLLGATE_DYNAMODB_ENDPOINT` if it is set, else one of `kind` that is started now and ends with
/// the answer. `None`, and a loud word on stderr, if it can't be had: the test is to be skipped.
///
/// An endpoint that others run may hold anything: give tables names of your own.
///
/// The first start on a machine installs the server, which takes minutes. Blocks until it answers.
pub fn external_endpoint(kind: ServerKind) -> Option<Endpoint> {
    if let Ok(url) = env::var(ENDPOINT_VARIABLE)
        && !url.is_empty()
    {
        return Some(Endpoint { url, server: None });
    }
    match Endpoint::start(kind) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            eprintln!("!!! SKIPPED: {error}");
            eprintln!("!!! set {ENDPOINT_VARIABLE} to use a DynamoDB that is running already");
            None
        }
    }
}

impl Endpoint {
    /// Starts a server on a free port. Blocks until it answers.
    ///
    /// # Errors
    /// If the script can't be run, says that the server can't be started on this machine, or fails.
    pub fn start(kind: ServerKind) -> Result<Self, EmulatorError> {
        let system = |what| move |source| EmulatorError::System { kind, what, source };
        let directory = TempDir::with_prefix("tollgate-dynamodb-").map_err(system("making a directory"))?;
        let port = free_port().map_err(system("finding a free port"))?;
        let mut server = Server { kind, port, child: None, directory };
        let url = server.start()?;
        Ok(Self { url, server: Some(server) })
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client for it, with the SDK's standard retries.
    pub fn client(&self) -> Client {
        Client::from_conf(self.client_config().build())
    }

    /// The configuration of a client for it, to add to. Plain HTTP only.
    pub fn client_config(&self) -> Builder {
        offline_config()
            .endpoint_url(&self.url)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
    }

    /// Kills the server with SIGKILL, as a crash would. Its file stays.
    ///
    /// # Errors
    /// If this process did not start it, or the system refuses.
    pub fn kill(&mut self) -> Result<(), EmulatorError> {
        let server = self.own_server()?;
        let kind = server.kind;
        server.kill().map_err(|source| EmulatorError::System { kind, what: "killing the server", source })
    }

    /// Starts the server again after [`Self::kill`], on the same port and file. Blocks until it answers.
    ///
    /// # Errors
    /// As [`Self::start`]; or if this process did not start it in the first place.
    pub fn restart(&mut self) -> Result<(), EmulatorError> {
        self.kill()?;
        let url = self.own_server()?.start()?;
        self.url = url;
        Ok(())
    }

    fn own_server(&mut self) -> Result<&mut Server, EmulatorError> {
        let url = self.url.clone();
        self.server.as_mut().ok_or(EmulatorError::NotOurs { url })
    }
}

impl ServerKind {
    /// The script that starts it.
    fn script(self) -> PathBuf {
        let name = match self {
            Self::Dynoxide => "start-dynoxide",
            Self::Ministack => "start-ministack",
            Self::DynamoDbLocal => "start-dynamodb-local",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../infra/dynamodb").join(name)
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dynoxide => "dynoxide",
            Self::Ministack => "ministack",
            Self::DynamoDbLocal => "DynamoDB Local",
        })
    }
}

impl Server {
    /// Runs the script until it says that its server answers. Returns the URL.
    fn start(&mut self) -> Result<String, EmulatorError> {
        let kind = self.kind;
        let script = kind.script();
        let log = self.directory.path().join("log");
        let mut command = Command::new(&script);
        command.arg("--port").arg(self.port.to_string()).arg("--log").arg(&log);
        if kind == ServerKind::Dynoxide {
            command.arg("--data").arg(self.directory.path().join("dynoxide.db"));
        }
        // The script watches its stdin and kills the server when this process is gone, whatever became of it.
        command.arg("--until-stdin-closes").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|source| EmulatorError::Script { script, source })?;
        let answer = child.stdout.take().map_or(Ok(None), |stdout| endpoint_of(BufReader::new(stdout)));
        let child = self.child.insert(child);
        let system = |what| move |source| EmulatorError::System { kind, what, source };
        if let Some(url) = answer.map_err(system("reading what the script says"))? {
            return Ok(url);
        }
        let status = child.wait().map_err(system("waiting for the script"))?;
        self.child = None;
        if status.code() == Some(SKIPPED) {
            return Err(EmulatorError::Unavailable { kind });
        }
        Err(EmulatorError::Failed { kind, status: status.to_string(), log: self.keep_log(log) })
    }

    /// The script has become the server (`exec`), so its process is the one to kill.
    fn kill(&mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait().map(drop)
    }

    /// Somebody will want to read it after the directory is gone.
    fn keep_log(&mut self, log: PathBuf) -> PathBuf {
        self.directory.disable_cleanup(true);
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("!!! {} at port {} could not be killed: {error}", self.kind, self.port);
        }
    }
}

/// Reads until the line that names the endpoint. `None`: the script ended without it.
fn endpoint_of(lines: impl BufRead) -> io::Result<Option<String>> {
    for line in lines.lines() {
        if let Some(url) = line?.strip_prefix(ANSWERS) {
            return Ok(Some(url.to_owned()));
        }
    }
    Ok(None)
}

/// A port that nobody listens on now. Somebody may take it before the server does; then the server fails and says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
