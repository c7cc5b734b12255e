//! Comments: their width, their first words, and words that do not belong in them.

use crate::XtaskError;
use crate::repository::{files, read};

/// Most columns of a comment line, as of code.
pub const WIDTH_MAX: usize = 110;

/// Words that leave the actor unnamed, personify programs, or stand for modules.
const BANNED: [&str; 10] =
    ["whoever", "nobody", "somebody", "room", "rooms", "he", "his", "him", "himself", "whomever"];

/// Words that open a sentence without a subject.
const OPENERS: [&str; 9] = ["What", "Whoever", "Who", "Whose", "Which", "Whether", "How", "Where", "When"];

/// Counts over all comments of the Rust files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommentFigures {
    /// Doc comments, each a block of lines.
    pub doc_blocks: usize,
    /// Places of doc comments that open with a word of [`OPENERS`].
    pub question_openers: Vec<String>,
    /// Places of doc comments of at most two words.
    pub two_words: Vec<String>,
    /// Places of comment lines over [`WIDTH_MAX`] columns.
    pub too_wide: Vec<String>,
    /// Places of banned words.
    pub banned: Vec<String>,
}

/// Reads all Rust files and counts.
///
/// # Errors
/// If a file can't be read.
pub fn figures() -> Result<CommentFigures, XtaskError> {
    let mut figures = CommentFigures::default();
    for path in files(".rs")? {
        if !path.starts_with("dev/xtask/") {
            figures.add(&path, &read(&path)?);
        }
    }
    Ok(figures)
}

impl CommentFigures {
    /// Adds the comments of one file.
    pub fn add(&mut self, path: &str, text: &str) {
        let mut block: Option<(usize, Vec<&str>)> = None;
        for (index, line) in text.lines().enumerate() {
            let place = || format!("{path}:{}", index + 1);
            let trimmed = line.trim_start();
            if trimmed.starts_with("//") {
                if line.chars().count() > WIDTH_MAX {
                    self.too_wide.push(place());
                }
                let words = trimmed
                    .split(|letter: char| !letter.is_alphanumeric() && letter != '\'' && letter != '_');
                for word in words.filter(|word| BANNED.contains(&word.to_lowercase().as_str())) {
                    self.banned.push(format!("{} {word}", place()));
                }
            }
            match doc_text(trimmed) {
                Some(doc) => block.get_or_insert_with(|| (index + 1, Vec::new())).1.push(doc),
                None => self.close(path, block.take()),
            }
        }
        self.close(path, block);
    }

    fn close(&mut self, path: &str, block: Option<(usize, Vec<&str>)>) {
        let Some((line, lines)) = block else { return };
        self.doc_blocks += 1;
        let text = lines.join(" ");
        let mut words = text.split_whitespace();
        let place = format!("{path}:{line}");
        if words.clone().count() <= 2 {
            self.two_words.push(place.clone());
        }
        let first = words.next().unwrap_or_default().trim_matches(|letter: char| !letter.is_alphanumeric());
        if OPENERS.contains(&first) {
            self.question_openers.push(place);
        }
    }
}

/// The text of a doc comment's line.
fn doc_text(trimmed: &str) -> Option<&str> {
    trimmed.strip_prefix("//!").or_else(|| trimmed.strip_prefix("///").filter(|rest| !rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_openers_short_docs_and_banned_words_are_found() {
        let wide = format!("// {}", "x".repeat(WIDTH_MAX));
        let text = format!(
            "//! What it is.\n\n/// Yes.\nfn f() {{}}\n{wide}\n// nobody knows\n/// A whole sentence here.\nfn g() {{}}\n"
        );
        let mut figures = CommentFigures::default();
        figures.add("a.rs", &text);
        assert_eq!(figures.doc_blocks, 3);
        assert_eq!(figures.question_openers, ["a.rs:1"]);
        assert_eq!(figures.two_words, ["a.rs:3"]);
        assert_eq!(figures.too_wide, ["a.rs:5"]);
        assert_eq!(figures.banned, ["a.rs:6 nobody"]);
    }
}
