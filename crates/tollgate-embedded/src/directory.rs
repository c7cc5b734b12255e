//! Directories: made so that they last, synced after a change, and measured. What lies in them is not known here.

use std::fs;
use std::io;
use std::path::Path;

/// Creates a directory with its parents, so that a power failure can't take it away again, with all that was confirmed in
/// it.
pub(crate) fn create(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(&directory)?;
    missing.iter().filter_map(|folder| folder.parent()).try_for_each(sync)
}

/// Makes it durable which files a directory has.
#[cfg(unix)]
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Other systems have no such call: their file systems log the change of a directory themselves.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(crate) fn sync(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// How much everything in a directory takes on the disk, in bytes.
pub(crate) fn bytes_on_disk(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A file may be gone by now: the engine tidies up whenever it likes.
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_on_disk(&entry.path())?,
            Ok(metadata) => allocated_bytes(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// What the file system has set aside: a journal is made long and empty.
#[cfg(unix)]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    /// The unit of `st_blocks` (POSIX leaves it open; all systems that Rust has `blocks()` for use this one).
    const BLOCK_BYTES: u64 = 512;
    metadata.blocks() * BLOCK_BYTES
}

#[cfg(not(unix))]
fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}
