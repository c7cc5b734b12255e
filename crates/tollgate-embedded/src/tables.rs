//! The engine and what is ever asked of it: opening, batches, snapshots, flushing and merging. How keys look is
//! [`crate::layout`]'s business; who may write when is [`crate::writer`]'s.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use foldhash::fast::RandomState;

use crate::directory;
use crate::journals;
use crate::layout::Space;

/// The engine's own folder inside the store's directory.
const ENGINE_FOLDER: &str = "engine";

/// Where the engine's folder is made. The engine (fjall 3.1) refuses to open a database whose making was cut short.
const UNFINISHED_FOLDER: &str = "engine.unfinished";

/// Memory for what is not in tables yet, in bytes, for each keyspace. An outbox entry that is consumed while it is still
/// here costs no table; and what is here has to be replayed from the journal after a crash.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;

/// From this size on the engine tries to get rid of journals, in bytes: the least that it accepts, its size of one journal.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;

/// How often it is looked whether a flush is finished. The engine has no way to be told.
const FLUSH_POLL: Duration = Duration::from_millis(1);

/// An open database.
pub(crate) struct Tables {
    database: Database,
    keyspaces: [Keyspace; Space::ALL.len()],
}

/// What a group changes: for each key the new value, or that it is deleted.
pub(crate) type Changes = HashMap<(Space, Vec<u8>), Option<Vec<u8>>, RandomState>;

impl Tables {
    /// Opens the database in a store's directory, or makes one. A batch that a power failure left torn is dropped.
    pub(crate) fn open(directory: &Path) -> fjall::Result<Self> {
        let folder = directory.join(ENGINE_FOLDER);
        if !folder.try_exists()? {
            Self::make(directory, &folder)?;
        }
        match Self::open_folder(&folder) {
            Err(fjall::Error::JournalRecovery(_)) if journals::cut_torn_tail(&folder)? => {
                Self::open_folder(&folder)
            }
            opened => opened,
        }
    }

    /// Makes an empty database elsewhere and gives it its name when it is whole.
    fn make(directory: &Path, folder: &Path) -> fjall::Result<()> {
        let unfinished = directory.join(UNFINISHED_FOLDER);
        if unfinished.try_exists()? {
            fs::remove_dir_all(&unfinished)?;
        }
        drop(Self::open_folder(&unfinished)?);
        fs::rename(&unfinished, folder)?;
        Ok(directory::sync(directory)?)
    }

    fn open_folder(folder: &Path) -> fjall::Result<Self> {
        let database = Database::builder(folder).max_journaling_size(JOURNALS_BYTES).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let open = |space: Space| database.keyspace(space.name(), options);
        let [control, items, entries, records] = Space::ALL;
        let keyspaces = [open(control)?, open(items)?, open(entries)?, open(records)?];
        Ok(Self { database, keyspaces })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        &self.keyspaces[space.place()]
    }

    /// The newest value, whether or not a snapshot shows it. For the writer, which is the only one to change anything.
    pub(crate) fn newest(&self, space: Space, key: &[u8]) -> fjall::Result<Option<fjall::UserValue>> {
        self.keyspace(space).get(key)
    }

    /// Makes changes durable, all or none, with one sync; only then does the engine apply them to what can be read.
    pub(crate) fn write(&self, changes: Changes) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for ((space, key), value) in changes {
            match value {
                Some(value) => batch.insert(self.keyspace(space), key, value),
                None => batch.remove(self.keyspace(space), key),
            }
        }
        batch.commit()
    }

    /// Puts what is in memory into tables: after that the journals hold nothing that is not there too.
    pub(crate) fn flush(&self) -> fjall::Result<()> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable()?;
        }
        while self.keyspaces.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            // Nobody will flush any more if the engine's background work has failed: then this fails too.
            self.database.persist(PersistMode::Buffer)?;
            thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    /// Rewrites the tables without what was deleted or overwritten.
    pub(crate) fn merge(&self) -> fjall::Result<()> {
        self.keyspaces.iter().try_for_each(Keyspace::major_compact)
    }

    /// Closes the database and empties its journals.
    pub(crate) fn close_flushed(self, directory: &Path) -> fjall::Result<()> {
        self.flush()?;
        drop(self);
        Ok(journals::empty(&directory.join(ENGINE_FOLDER))?)
    }
}

/// The state of the store at one moment between two groups: all of every group before, nothing of any later one.
///
/// The writer takes it after a group's sync and before the next group begins. A snapshot that a reader took for itself
/// would not do: the engine's background work may make the number of a batch visible that is only being applied, and a
/// reader would see a part of it.
pub(crate) struct View {
    tables: Arc<Tables>,
    snapshot: Snapshot,
}

impl View {
    /// To be called while no batch is being written.
    pub(crate) fn of(tables: &Arc<Tables>) -> Self {
        Self { tables: Arc::clone(tables), snapshot: tables.database.snapshot() }
    }

    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> fjall::Result<Option<fjall::UserValue>> {
        self.snapshot.get(self.tables.keyspace(space), key)
    }

    /// What begins with a prefix, in the order of keys.
    pub(crate) fn prefix(&self, space: Space, prefix: &[u8]) -> fjall::Iter {
        self.snapshot.prefix(self.tables.keyspace(space), prefix)
    }

    /// What comes after a key, or everything, in the order of keys.
    pub(crate) fn after(&self, space: Space, key: Option<&[u8]>) -> fjall::Iter {
        let lower = key.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.snapshot.range::<&[u8], _>(self.tables.keyspace(space), (lower, std::ops::Bound::Unbounded))
    }
}
