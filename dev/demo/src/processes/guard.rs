//! `tollgate guard`: stands beside a server that knows nothing of the demo, kills it when it is told to, and when whoever
//! started it is gone. Servers come as scripts that start others, so a whole group of processes is killed.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;

use crate::error::DemoError;
use crate::lifeline::{self, WhenAbandoned};

/// What is guarded.
#[derive(Args)]
pub struct Options {
    /// The server's command, for the shell.
    command: String,
}

/// How often the guard looks whether the server has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the server until it is to be killed.
///
/// # Errors
/// If it can't be started, or ends by itself.
pub fn run(options: &Options) -> Result<(), DemoError> {
    let orders = lifeline::listen(WhenAbandoned::HangUp);
    let failed = |error: std::io::Error| DemoError::process("the server", &error);
    let mut command = shell(&options.command);
    // A server may be one that ends with its input: it ends with the guard's.
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    set_apart(&mut command);
    let mut server = command.spawn().map_err(failed)?;
    loop {
        match orders.recv_timeout(LOOK_EVERY) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                return kill(&mut server).map(drop).map_err(failed);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = server.try_wait().map_err(failed)? {
            return Err(DemoError::process("the server", &format!("it has ended by itself: {status}")));
        }
    }
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.args(["/C", command]);
    shell
}

/// Lets a command run in a process group of its own: it can be killed with all that it starts, and a person who
/// interrupts the demo does not end the guard before the server.
pub fn set_apart(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

/// Kills the server and all that it has started, with SIGKILL.
#[cfg(unix)]
fn kill(server: &mut Child) -> std::io::Result<ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process_group};

    let group = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    match group.map(|group| kill_process_group(group, Signal::KILL)) {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(error.into()),
        None => server.kill()?,
    }
    server.wait()
}

/// Kills the server. What it has started lives on: there is no portable way to find it.
#[cfg(not(unix))]
fn kill(server: &mut Child) -> std::io::Result<ExitStatus> {
    server.kill()?;
    server.wait()
}
