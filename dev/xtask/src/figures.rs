//! The figures of the prose, as `cargo xtask figures` prints them.

use crate::XtaskError;
use crate::tidy::{comments, files, graph, links, rules};

/// Prints every count of the tidy checks, and the graph of the product's packages.
///
/// # Errors
/// If a file can't be read.
pub fn print() -> Result<(), XtaskError> {
    let comments = comments::figures()?;
    let openers = comments.question_openers.len();
    let per_mille = openers * 1000 / comments.doc_blocks.max(1);
    println!("doc comments: {}", comments.doc_blocks);
    println!(
        "doc comments that open with a question word: {openers} ({}.{} %)",
        per_mille / 10,
        per_mille % 10
    );
    println!("doc comments of at most two words: {}", comments.two_words.len());
    println!("comment lines over {} columns: {}", comments::WIDTH_MAX, comments.too_wide.len());
    println!("banned words in comments: {}", comments.banned.len());
    println!("design cited by section number: {}", rules::section_numbers()?.len());
    println!("unknown rules: {}", rules::unknown()?.len());
    println!("broken links: {}", links::broken()?.len());
    println!("words of README.md: {} of {}", files::readme_words()?, files::README_WORDS_MAX);
    print!("\n{}", graph::text()?);
    Ok(())
}
