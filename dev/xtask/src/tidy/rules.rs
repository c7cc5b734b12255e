//! Names of the algorithm's rules: code and documents cite those that the design defines, and never its section numbers.

use std::collections::BTreeSet;

use crate::XtaskError;
use crate::repository::{files, read};

/// The document that defines the rules.
const DESIGN: &str = "docs/design.md";

/// Folders whose Rust files cite rules. Elsewhere `R3` may mean three replicas.
const CITING: [&str; 3] = ["crates/tollgate-proto/", "crates/tollgate/", "dev/verify/"];

/// Citations of rules that the design does not define, as `file:line rule`.
///
/// # Errors
/// If a file can't be read.
pub fn unknown() -> Result<Vec<String>, XtaskError> {
    let design = read(DESIGN)?;
    let defined = defined(&design);
    let mut unknown = Vec::new();
    for path in files(".rs")?.into_iter().filter(|path| CITING.iter().any(|folder| path.starts_with(folder)))
    {
        for (index, line) in read(&path)?.lines().enumerate() {
            let comment = line.find("//").map_or("", |start| &line[start..]);
            for rule in cited(comment).filter(|rule| !defined.contains(*rule)) {
                unknown.push(format!("{path}:{} {rule}", index + 1));
            }
        }
    }
    Ok(unknown)
}

/// Places of Rust files that cite the design by a section number.
///
/// # Errors
/// If a file can't be read.
pub fn section_numbers() -> Result<Vec<String>, XtaskError> {
    let mut found = Vec::new();
    for path in files(".rs")?.into_iter().filter(|path| !path.starts_with("dev/xtask/")) {
        for (index, line) in read(&path)?.lines().enumerate() {
            let after = line.split("section").nth(1).unwrap_or_default().trim_start_matches('s').trim_start();
            // Sections of a standard are cited by their numbers.
            if line.contains("//")
                && !line.contains("RFC")
                && after.starts_with(|letter: char| letter.is_ascii_digit())
            {
                found.push(format!("{path}:{}", index + 1));
            }
        }
    }
    Ok(found)
}

/// Rules that are set in bold where they are defined: `**R1**`.
fn defined(design: &str) -> BTreeSet<&str> {
    design
        .split("**")
        .skip(1)
        .step_by(2)
        .map(|bold| bold.trim_end_matches('.'))
        .filter(|bold| is_rule(bold))
        .collect()
}

fn cited(comment: &str) -> impl Iterator<Item = &str> {
    comment.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| is_rule(word))
}

fn is_rule(word: &str) -> bool {
    let digits = word.strip_prefix('R').unwrap_or_default();
    (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_defined_in_bold_and_cited_by_name() {
        assert_eq!(defined("- **R1** first, **R2.** second, **bold**"), BTreeSet::from(["R1", "R2"]));
        assert_eq!(cited("// (R3), see R12 and R_x").collect::<Vec<_>>(), ["R3", "R12"]);
    }
}
