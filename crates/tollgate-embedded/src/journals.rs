//! The engine's journals as files: what it can't do with them itself. It shortens them when all they hold is in tables,
//! and it cuts off a last batch that a power failure left torn. It knows the journal's format, reads it and never writes
//! into it; everything else about journals is the engine's business.
//!
//! ```text
//! journal  N.jnl, the one with the highest number is the active one: batches, then zeros or the end of the file
//! batch    start entry* end
//! start    1  entries: u32  sequence number: u64
//! entry    2  kind: u8  compression: u8  keyspace: u64  key length: u16  value length: u32  stored length: u32  key  value
//!          4  keyspace: u64                                                                                   (clears it)
//! end      3  XXH3 of the entries: u64  "FJL" 3                                          (all numbers little-endian)
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::directory;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 1 + 4 + 8;
const ITEM_HEAD_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR_BYTES: usize = 1 + 8;
const END_BYTES: usize = 1 + 8 + TRAILER.len();
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Empties the journals of a closed database whose content is in tables altogether. The active one stays, so that the
/// engine goes on counting where it was.
pub(crate) fn empty(directory: &Path) -> io::Result<()> {
    let mut journals = list(directory)?;
    let Some(active) = journals.pop() else { return Ok(()) };
    for sealed in journals {
        fs::remove_file(sealed)?;
    }
    cut(&active, 0)?;
    directory::sync(directory)
}

/// Cuts a torn batch off the end of the active journal: one that is complete as far as its framing goes, but not what
/// was written, because the pages in between never reached the disk. Nobody was told that it is durable, as its sync
/// did not return. Answers whether there was one. Whatever is followed by more data was synced, so it is not torn but
/// damaged, and is left alone.
pub(crate) fn cut_torn_tail(directory: &Path) -> io::Result<bool> {
    let Some(active) = list(directory)?.pop() else { return Ok(false) };
    let content = fs::read(&active)?;
    let Some(end) = torn_at(&content) else { return Ok(false) };
    tracing::warn!(
        journal = %active.display(),
        bytes = content.len() - end,
        "the last batch of the journal is torn: it was being written when the power failed, and is dropped"
    );
    cut(&active, end as u64)?;
    Ok(true)
}

fn cut(journal: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).open(journal)?;
    file.set_len(length)?;
    file.sync_all()
}

/// The journals, the active one last.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jnl"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// What lies at some place in a journal.
#[derive(Debug, PartialEq, Eq)]
enum Batch {
    Whole {
        bytes: usize,
    },
    Torn {
        bytes: usize,
    },
    /// Zeros, the end, or what the engine itself takes for the end.
    None,
}

/// Where the torn last batch begins, if there is one.
fn torn_at(content: &[u8]) -> Option<usize> {
    let mut place = 0;
    loop {
        match batch(&content[place..]) {
            Batch::Whole { bytes } => place += bytes,
            Batch::Torn { bytes } => {
                let rest = &content[place + bytes..];
                return rest.iter().all(|byte| *byte == 0).then_some(place);
            }
            Batch::None => return None,
        }
    }
}

fn batch(content: &[u8]) -> Batch {
    if content.len() < START_BYTES || content[0] != START {
        return Batch::None;
    }
    let expected = u32::from_le_bytes(content[1..5].try_into().expect("four bytes"));
    let mut found = 0_u32;
    let mut place = START_BYTES;
    loop {
        let rest = &content[place..];
        match rest.first() {
            Some(&END) if rest.len() >= END_BYTES => {
                let checksum = u64::from_le_bytes(rest[1..9].try_into().expect("eight bytes"));
                if rest[9..END_BYTES] != TRAILER {
                    return Batch::None;
                }
                let bytes = place + END_BYTES;
                let is_whole = found == expected && xxh3_64(&content[START_BYTES..place]) == checksum;
                return if is_whole { Batch::Whole { bytes } } else { Batch::Torn { bytes } };
            }
            Some(&ITEM) if rest.len() >= ITEM_HEAD_BYTES => {
                let key = u16::from_le_bytes(rest[11..13].try_into().expect("two bytes"));
                let value = u32::from_le_bytes(rest[17..21].try_into().expect("four bytes"));
                place += ITEM_HEAD_BYTES + usize::from(key) + value as usize;
            }
            Some(&CLEAR) if rest.len() >= CLEAR_BYTES => place += CLEAR_BYTES,
            _ => return Batch::None,
        }
        if place > content.len() {
            return Batch::None;
        }
        found = found.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const VALUE_BYTES: usize = 3 * 4096;

    /// A database with so many batches, each synced; its journal's length without the zeros behind it.
    fn write_batches(directory: &Path, batches: u8) -> usize {
        let database = Database::builder(directory).open().unwrap();
        let keyspace = database.keyspace("items", KeyspaceCreateOptions::default).unwrap();
        for number in 0..batches {
            let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
            // Not compressible to nothing: the journal compresses what is large.
            let value: Vec<u8> = (0..VALUE_BYTES).map(|_| fastrand::u8(1..)).collect();
            batch.insert(&keyspace, [number], value);
            batch.remove(&keyspace, b"gone");
            batch.commit().unwrap();
        }
        drop((keyspace, database));
        let content = fs::read(list(directory).unwrap().pop().unwrap()).unwrap();
        content.iter().rposition(|byte| *byte != 0).unwrap() + 1
    }

    fn damage(directory: &Path, place: usize) {
        let journal = list(directory).unwrap().pop().unwrap();
        let mut content = fs::read(&journal).unwrap();
        content[place..place + 100].fill(0);
        fs::write(&journal, content).unwrap();
    }

    #[test]
    fn a_torn_last_batch_is_cut_off_and_the_ones_before_it_stay() {
        let directory = tempfile::tempdir().unwrap();
        let length = write_batches(directory.path(), 3);
        damage(directory.path(), length - VALUE_BYTES / 2);
        let engine_alone = Database::builder(directory.path()).open();
        assert!(
            matches!(engine_alone, Err(fjall::Error::JournalRecovery(_))),
            "the engine gives up on a torn batch"
        );
        assert!(cut_torn_tail(directory.path()).unwrap());
        let database = Database::builder(directory.path()).open().unwrap();
        let keyspace = database.keyspace("items", KeyspaceCreateOptions::default).unwrap();
        let found: Vec<bool> = (0..3).map(|number: u8| keyspace.contains_key([number]).unwrap()).collect();
        assert_eq!(found, [true, true, false]);
    }

    #[test]
    fn a_damaged_batch_that_others_follow_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let length = write_batches(directory.path(), 3);
        damage(directory.path(), length - VALUE_BYTES * 3 / 2);
        assert!(!cut_torn_tail(directory.path()).unwrap());
    }

    #[test]
    fn a_journal_that_is_whole_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        write_batches(directory.path(), 3);
        let before = fs::read(list(directory.path()).unwrap().pop().unwrap()).unwrap();
        assert!(!cut_torn_tail(directory.path()).unwrap());
        assert_eq!(fs::read(list(directory.path()).unwrap().pop().unwrap()).unwrap(), before);
    }

    #[test]
    fn any_cut_through_a_journal_is_read_up_to_the_last_whole_batch() {
        let directory = tempfile::tempdir().unwrap();
        let length = write_batches(directory.path(), 2);
        let content = fs::read(list(directory.path()).unwrap().pop().unwrap()).unwrap();
        for _ in 0..200 {
            let end = fastrand::usize(..length);
            assert_eq!(torn_at(&content[..end]), None, "cut at {end}");
        }
    }
}
