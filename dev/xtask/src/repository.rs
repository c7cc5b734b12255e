//! The repository as the checks see it: its tracked files, and its packages by `cargo metadata`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::XtaskError;
use crate::commands::cargo_program;

/// The root folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Paths of the tracked and the new files that end with `ending`, relative to the root, sorted.
///
/// # Errors
/// If git does not answer.
pub fn files(ending: &str) -> Result<Vec<String>, XtaskError> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"])
        .output()
        .map_err(|source| XtaskError::Start { program: "git".to_owned(), source })?;
    if !output.status.success() {
        return Err(XtaskError::Failed { command: "git ls-files".to_owned() });
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let exists = |path: &&str| root().join(path).is_file();
    let mut files: Vec<String> =
        listed.lines().filter(|path| path.ends_with(ending)).filter(exists).map(str::to_owned).collect();
    files.sort();
    Ok(files)
}

/// The text of a file, by its path relative to the root.
///
/// # Errors
/// If it can't be read.
pub fn read(path: &str) -> Result<String, XtaskError> {
    std::fs::read_to_string(root().join(path))
        .map_err(|source| XtaskError::File { path: path.to_owned(), source })
}

/// A package of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, relative to the root.
    pub folder: String,
    /// Whether `cargo publish` would take it.
    pub is_published: bool,
    /// Workspace packages that it depends on when it is built for users, optional ones included.
    pub dependencies: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    publish: Option<Vec<String>>,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataDependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

/// The packages of the workspace.
///
/// # Errors
/// If cargo does not answer, or answers in an unknown shape.
pub fn packages() -> Result<Vec<Package>, XtaskError> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let program = cargo_program();
    let output = Command::new(&program)
        .current_dir(root())
        .args(arguments)
        .output()
        .map_err(|source| XtaskError::Start { program, source })?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let folder = |manifest: &Path| {
        let folder = manifest.parent().unwrap_or(manifest);
        folder.strip_prefix(&metadata.workspace_root).unwrap_or(folder).to_string_lossy().into_owned()
    };
    let of_users = |dependency: &&MetadataDependency| dependency.kind.is_none() && dependency.path.is_some();
    let package = |package: &MetadataPackage| Package {
        name: package.name.clone(),
        folder: folder(&package.manifest_path),
        is_published: package.publish.is_none(),
        dependencies: package.dependencies.iter().filter(of_users).map(|one| one.name.clone()).collect(),
    };
    Ok(metadata.packages.iter().map(package).collect())
}
