//! Blob storage in a directory: one file a blob. A file is written under a temporary name, synced and renamed, so that a
//! crash leaves the whole blob or none.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tollgate_proto::{BlobError, BlobStream, Blobs, BoxFuture, EffectName};

use crate::directory;

/// What the names of unfinished files begin with; no escaped name does.
const UNFINISHED: &str = "~";

/// An unfinished file that was not written to for so long belongs to a process that crashed.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// How much of a blob is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Longest escaped name, in bytes: what file systems take.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Blobs in a directory, which several processes may share.
///
/// File operations block the calling task for as long as the disk takes; for large blobs on slow disks use object storage.
pub struct DirectoryBlobs {
    directory: PathBuf,
}

impl DirectoryBlobs {
    /// Uses a directory, creating it if there is none. Removes what a crash left unfinished more than an hour ago.
    ///
    /// # Errors
    /// If it can't be created or read.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = directory.as_ref().to_owned();
        directory::create(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if is_unfinished(&entry.file_name()) && is_abandoned(&entry).unwrap_or(false) {
                // Another process may have removed it by now.
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(Self { directory })
    }

    fn path(&self, name: &EffectName) -> Result<PathBuf, BlobError> {
        let file = escape(name.as_str());
        if file.len() > FILE_NAME_BYTES_MAX {
            let reason =
                format!("its file name would have {} bytes, more than {FILE_NAME_BYTES_MAX}", file.len());
            return Err(BlobError::Refused { name: name.clone(), reason });
        }
        Ok(self.directory.join(file))
    }

    async fn write(&self, name: &EffectName, path: &Path, mut content: BlobStream) -> Result<(), BlobError> {
        let failed = |error: io::Error| unavailable(name, &error);
        // A number of its own for each writing: two of one blob must not write into one file.
        let number = std::hash::RandomState::new().build_hasher().finish();
        let unfinished = Unfinished(self.directory.join(format!("{UNFINISHED}{number:016x}")));
        let mut file = File::create_new(&unfinished.0).map_err(failed)?;
        while let Some(piece) = content.next().await {
            file.write_all(&piece?).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished.0, path).map_err(failed)?;
        directory::sync(&self.directory).map_err(failed)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // Also if it was missing: whoever removed it may have died before it was durable.
            _ => directory::sync(&self.directory),
        }
    }
}

/// A file under its temporary name. Whatever ends the writing early, a full disk or a dropped call, leaves nothing of it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Usually it is gone: it was renamed.
        drop(fs::remove_file(&self.0));
    }
}

/// The content of an open file, piece by piece.
fn pieces(name: EffectName, file: File) -> BlobStream {
    Box::pin(stream::try_unfold(file, move |mut file| {
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece).map_err(|error| unavailable(&name, &error));
        std::future::ready(read.map(|count| {
            piece.truncate(count);
            (count > 0).then(|| (Bytes::from(piece), file))
        }))
    }))
}

fn is_unfinished(file: &OsStr) -> bool {
    file.to_str().is_some_and(|file| file.starts_with(UNFINISHED))
}

fn is_abandoned(entry: &fs::DirEntry) -> io::Result<bool> {
    Ok(entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > ABANDONED_AFTER))
}

/// Keeps letters, digits, `-`, `_` and dots that do not come first; everything else becomes `%` and two hexadecimal digits.
fn escape(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for (place, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
            b'.' if place > 0 => file.push('.'),
            _ => write!(file, "%{byte:02x}").expect("writing to a string never fails"),
        }
    }
    file
}

fn unescape(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).ok()
}

fn unavailable(name: &EffectName, error: &io::Error) -> BlobError {
    BlobError::Unavailable { name: name.clone(), reason: error.to_string() }
}

impl Blobs for DirectoryBlobs {
    fn put(&self, name: &EffectName, content: BlobStream) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let path = self.path(&name)?;
            self.write(&name, &path, content).await
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<BlobStream>, BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            match File::open(self.path(&name)?) {
                Ok(file) => Ok(Some(pieces(name, file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(unavailable(&name, &error)),
            }
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let path = self.path(&name)?;
            self.remove(&path).map_err(|error| unavailable(&name, &error))
        })
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<EffectName>, BlobError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            let mut names = Vec::new();
            let anywhere = || EffectName::new("*").expect("a valid name");
            let entries = fs::read_dir(&self.directory).map_err(|error| unavailable(&anywhere(), &error))?;
            for entry in entries {
                let entry = entry.map_err(|error| unavailable(&anywhere(), &error))?;
                let file = entry.file_name();
                if is_unfinished(&file) {
                    continue;
                }
                let name = file.to_str().and_then(unescape).and_then(|name| EffectName::new(name).ok());
                names.extend(name.filter(|name| name.as_str().starts_with(&prefix)));
            }
            names.sort();
            Ok(names)
        })
    }
}

#[cfg(test)]
mod tests {
    use tollgate_proto::blobs::whole;

    use super::*;

    #[tokio::test]
    async fn what_is_unfinished_is_no_blob_and_goes_when_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let (young, old) = (directory.path().join("~1"), directory.path().join("~2"));
        File::create(&young).unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
        File::create(&old).unwrap().set_modified(long_ago).unwrap();
        let blobs = DirectoryBlobs::open(directory.path()).unwrap();
        assert_eq!(blobs.list("").await.unwrap(), []);
        assert!(young.exists() && !old.exists());
        let name = EffectName::new("~1").unwrap();
        blobs.put(&name, whole("content")).await.unwrap();
        assert_eq!(blobs.list("~").await.unwrap(), std::slice::from_ref(&name), "a name is no file name");
    }

    #[tokio::test]
    async fn nothing_is_written_outside_the_directory_and_no_unfinished_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(directory.path().join("blobs")).unwrap();
        let name = EffectName::new("../../etc/passwd").unwrap();
        blobs.put(&name, whole("content")).await.unwrap();
        let error = BlobError::Refused { name: name.clone(), reason: "the source is gone".to_owned() };
        let broken = stream::iter([Ok(Bytes::from_static(b"some")), Err(error)]);
        blobs.put(&EffectName::new("other").unwrap(), Box::pin(broken)).await.unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(directory.path().join("blobs")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_name_too_long_for_a_file_is_refused_with_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(directory.path()).unwrap();
        let name = EffectName::new("x".repeat(300)).unwrap();
        let error = blobs.put(&name, whole("")).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("300 bytes"), "{error}");
    }
}
