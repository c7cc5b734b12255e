//! The commands that run other programs.

use std::process::Command;

use crate::XtaskError;
use crate::repository::{packages, root};

/// Crates whose tests `check` runs: the state machine, the engine and the tidy checks.
const CHECKED: [&str; 6] = ["-p", "tollgate-proto", "-p", "tollgate", "-p", "xtask"];

/// The folder of the crates that are published.
const PUBLISHED: &str = "crates";

/// Checks format, lints and tidiness, and tests the state machine and the engine.
///
/// # Errors
/// If one of them fails.
pub fn check() -> Result<(), XtaskError> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&[&["test"], &CHECKED[..]].concat())
}

/// Runs the gate.
///
/// # Errors
/// If it fails.
pub fn gate() -> Result<(), XtaskError> {
    run(Command::new("bash").arg(".ci/run"))
}

/// Builds the documentation of the published crates.
///
/// # Errors
/// If a link is broken.
pub fn doc() -> Result<(), XtaskError> {
    let mut command = of_published(&["doc", "--no-deps"])?;
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Packages the published crates as `cargo publish` would, without building the packages again.
///
/// # Errors
/// If one of them could not be published.
pub fn package() -> Result<(), XtaskError> {
    run(&mut of_published(&["package", "--no-verify", "--allow-dirty"])?)
}

/// A cargo command on all published crates.
fn of_published(arguments: &[&str]) -> Result<Command, XtaskError> {
    let mut command = Command::new(cargo_program());
    command.args(arguments);
    for package in packages()?.iter().filter(|package| package.folder.starts_with(PUBLISHED)) {
        command.args(["-p", &package.name]);
    }
    Ok(command)
}

fn cargo(arguments: &[&str]) -> Result<(), XtaskError> {
    run(Command::new(cargo_program()).args(arguments))
}

/// The cargo that runs this program, or the one on the path.
pub(crate) fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn run(command: &mut Command) -> Result<(), XtaskError> {
    let line = format!("{command:?}");
    let status = command.current_dir(root()).status().map_err(|source| XtaskError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    if status.success() { Ok(()) } else { Err(XtaskError::Failed { command: line }) }
}
