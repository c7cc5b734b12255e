//! Files that a published package must have, and lengths that have a limit.

use crate::XtaskError;
use crate::repository::{packages, read, root};

/// Most words of the repository's README.
pub const README_WORDS_MAX: usize = 900;

/// Fewest words of a package's README.
const PACKAGE_README_WORDS_MIN: usize = 30;

/// Words of the repository's README.
///
/// # Errors
/// If it can't be read.
pub fn readme_words() -> Result<usize, XtaskError> {
    Ok(read("README.md")?.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count())
}

/// Published packages that lack a README of their own or a licence, as `package: file`.
///
/// # Errors
/// If cargo does not answer.
pub fn missing() -> Result<Vec<String>, XtaskError> {
    let mut missing = Vec::new();
    for package in packages()?.into_iter().filter(|package| package.is_published) {
        let readme = format!("{}/README.md", package.folder);
        let words = read(&readme).map_or(0, |text| text.split_whitespace().count());
        if words < PACKAGE_README_WORDS_MIN {
            missing.push(format!("{}: README.md", package.name));
        }
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            if !root().join(&package.folder).join(licence).is_file() {
                missing.push(format!("{}: {licence}", package.name));
            }
        }
    }
    Ok(missing)
}
