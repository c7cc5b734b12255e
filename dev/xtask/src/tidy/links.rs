//! Links of the Markdown files: each file that is linked to exists, and so does each heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::XtaskError;
use crate::repository::{files, read, root};

/// Links that lead to no file or to no heading, as `file: target`.
///
/// # Errors
/// If a file can't be read.
pub fn broken() -> Result<Vec<String>, XtaskError> {
    let mut headings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut texts = Vec::new();
    for path in files(".md")? {
        let text = read(&path)?;
        headings.insert(path.clone(), anchors(&text));
        texts.push((path, text));
    }
    let mut broken = Vec::new();
    for (path, text) in &texts {
        for target in targets(text) {
            if !resolves(path, target, &headings) {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    Ok(broken)
}

fn resolves(from: &str, target: &str, headings: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { from.to_owned() } else { relative(from, file) };
    if !root().join(&path).exists() {
        return false;
    }
    match (anchor, headings.get(&path)) {
        (Some(anchor), Some(known)) => known.contains(anchor),
        _ => true,
    }
}

/// The path of `file`, seen from the folder of `from`, relative to the root.
fn relative(from: &str, file: &str) -> String {
    let mut path = Path::new(from).parent().map(Path::to_path_buf).unwrap_or_default();
    for component in Path::new(file).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// Targets of the links in a Markdown text, outside of code, that lead into the repository.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in outside_of_code(text) {
        let mut rest = line;
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !target.is_empty() {
                found.push(target);
            }
            rest = &rest[end..];
        }
    }
    found
}

/// Anchors of a Markdown text's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in outside_of_code(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | ' ');
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(kept)
            .map(|one| if one == ' ' { '-' } else { one })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

fn outside_of_code(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_made_as_github_makes_them_and_code_is_passed_over() {
        let text =
            "# A title, with `code`\n```\n# no heading\n[no](link)\n```\n## Twice\n## Twice\n[yes](x.md#a)\n";
        let expected = ["a-title-with-code", "twice", "twice-1"].map(str::to_owned);
        assert_eq!(anchors(text), BTreeSet::from(expected));
        assert_eq!(targets(text), ["x.md#a"]);
    }

    #[test]
    fn a_missing_heading_is_noticed() {
        let headings = BTreeMap::from([("README.md".to_owned(), BTreeSet::new())]);
        assert!(!resolves("README.md", "#nowhere", &headings));
        assert!(!resolves("README.md", "docs/nowhere.md", &headings));
        assert!(resolves("docs/guide.md", "../README.md", &headings));
    }
}
