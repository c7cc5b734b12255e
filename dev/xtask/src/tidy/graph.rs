//! Dependencies between the workspace's packages: the rules of the layout, and the picture of it in `ARCHITECTURE.md`.

use std::fmt::Write as _;

use crate::XtaskError;
use crate::repository::{Package, packages, read};

/// Lines around the graph in `ARCHITECTURE.md`.
const BEGIN: &str = "<!-- dependencies: written by a check -->";
const END: &str = "<!-- end of dependencies -->";

/// Product packages that depend on what only developers run, as `a -> b`.
///
/// # Errors
/// If cargo does not answer.
pub fn upward() -> Result<Vec<String>, XtaskError> {
    let packages = packages()?;
    let is_product = |name: &String| {
        packages.iter().any(|package| package.name == *name && package.folder.starts_with("crates/"))
    };
    let mut upward = Vec::new();
    for package in packages.iter().filter(|package| package.folder.starts_with("crates/")) {
        let outside = package.dependencies.iter().filter(|name| !is_product(name));
        upward.extend(outside.map(|name| format!("{} -> {name}", package.name)));
    }
    Ok(upward)
}

/// The product's dependencies as lines of text.
///
/// # Errors
/// If cargo does not answer.
pub fn text() -> Result<String, XtaskError> {
    let mut products: Vec<Package> =
        packages()?.into_iter().filter(|package| package.folder.starts_with("crates/")).collect();
    products.sort_by(|one, other| one.name.cmp(&other.name));
    let mut text = String::new();
    for package in products {
        let names: Vec<&str> = package.dependencies.iter().map(String::as_str).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        writeln!(text, "{} -> {names}", package.name).expect("a String can be written to");
    }
    Ok(text)
}

/// The graph as `ARCHITECTURE.md` shows it.
///
/// # Errors
/// If the file can't be read.
pub fn documented() -> Result<String, XtaskError> {
    let page = read("ARCHITECTURE.md")?;
    let inner = page.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next()).unwrap_or_default();
    Ok(inner
        .lines()
        .filter(|line| line.contains(" -> "))
        .fold(String::new(), |text, line| text + line + "\n"))
}
