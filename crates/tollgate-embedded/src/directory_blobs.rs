//! Blob storage in a directory: one file a blob. A file is written under a temporary name, synced and renamed, so that a
//! crash leaves the whole blob or none.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tollgate_core::{BlobError, Blobs, BoxFuture, EffectName};

/// What the names of unfinished files end with; no escaped name does.
const UNFINISHED: &str = "~";

/// Longest escaped name, in bytes: what file systems take, less the ending of unfinished files.
const FILE_NAME_BYTES_MAX: usize = 254;

/// Blobs in a directory.
///
/// File operations block the calling task for as long as the disk takes; for large blobs on slow disks use object storage.
pub struct DirectoryBlobs {
    directory: PathBuf,
}

impl DirectoryBlobs {
    /// Uses a directory, creating it if there is none.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = directory.as_ref().to_owned();
        fs::create_dir_all(&directory)?;
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

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let mut file = File::create(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.directory)?.sync_all()
    }
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
    fn put(&self, name: &EffectName, content: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            let path = self.path(&name)?;
            self.write(&path, &content).map_err(|error| unavailable(&name, &error))
        })
    }

    fn get(&self, name: &EffectName) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            match fs::read(self.path(&name)?) {
                Ok(content) => Ok(Some(content.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(unavailable(&name, &error)),
            }
        })
    }

    fn delete(&self, name: &EffectName) -> BoxFuture<'_, Result<(), BlobError>> {
        let name = name.clone();
        Box::pin(async move {
            match fs::remove_file(self.path(&name)?) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(unavailable(&name, &error)),
            }
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
                let Some(file) = file.to_str().filter(|file| !file.ends_with(UNFINISHED)) else { continue };
                let name = unescape(file).and_then(|name| EffectName::new(name).ok());
                names.extend(name.filter(|name| name.as_str().starts_with(&prefix)));
            }
            names.sort();
            Ok(names)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_with_an_awkward_name_is_found_listed_and_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(directory.path().join("blobs")).unwrap();
        for name in ["../../etc/passwd", ".hidden", "a/b c%~", "größe"] {
            let name = EffectName::new(name).unwrap();
            blobs.put(&name, "content".into()).await.unwrap();
            assert_eq!(blobs.get(&name).await.unwrap().unwrap(), "content");
            assert_eq!(blobs.list("").await.unwrap(), std::slice::from_ref(&name));
            blobs.delete(&name).await.unwrap();
            blobs.delete(&name).await.unwrap();
            assert_eq!(blobs.get(&name).await.unwrap(), None);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was written outside");
    }

    #[tokio::test]
    async fn a_name_too_long_for_a_file_is_refused_with_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(directory.path()).unwrap();
        let name = EffectName::new("x".repeat(300)).unwrap();
        let error = blobs.put(&name, Bytes::new()).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("300 bytes"), "{error}");
    }
}
