//! Which engine the embedded store is built on: fjall, redb and SQLite on one workload, in turns. 64 partitions commit
//! together, out of 64 or of many; for each the stored version is compared, then a control record and an item of 1 KB are written; one sync
//! makes the group durable. Whatever the store adds (queue, tasks, answers) is left out: it is the same for all three.
//!
//! `cargo run --release --manifest-path benches/engine-choice/Cargo.toml [-- DIRECTORY]`

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::{Connection, OptionalExtension};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Commits that share a sync.
const GROUP: u32 = 64;

/// How many items a partition has; each commit writes one of them, in turn.
const ITEMS: u64 = 16;

const ITEM_BYTES: usize = 1024;
const CONTROL_BYTES: usize = 128;
const ROUNDS: u32 = 4;

/// How many partitions there are: always the same ones, or so many that their items outgrow caches.
const WORLDS: [u32; 2] = [64, 65_536];
const ROUND: Duration = Duration::from_secs(3);

/// What is asked of an engine.
trait Engine {
    fn name(&self) -> &'static str;
    /// Commits one change to each of these partitions, conditional on the version that all have, and syncs once.
    fn commit_group(&mut self, partitions: Range<u32>, version: u64) -> Outcome<()>;
    /// Reads the version that a partition has.
    fn version(&self, partition: u32) -> Outcome<u64>;
}

fn key(partition: u32) -> String {
    format!("partition-{partition:08}")
}

fn item(partition: u32, version: u64) -> String {
    format!("partition-{partition:08}/item-{}", version % ITEMS)
}

/// Bytes that no engine can compress away.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn control(version: u64) -> Vec<u8> {
    let mut record = version.to_be_bytes().to_vec();
    record.extend_from_slice(&content(CONTROL_BYTES, version));
    record
}

fn version_of(record: &[u8]) -> u64 {
    u64::from_be_bytes(record[..8].try_into().expect("a record begins with its version"))
}

struct Fjall {
    database: Database,
    control: Keyspace,
    items: Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> Outcome<Self> {
        let database = Database::builder(path).open()?;
        let control = database.keyspace("control", KeyspaceCreateOptions::default)?;
        let items = database.keyspace("items", KeyspaceCreateOptions::default)?;
        Ok(Self { database, control, items })
    }
}

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall 3.1"
    }

    fn commit_group(&mut self, partitions: Range<u32>, version: u64) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for partition in partitions {
            let key = key(partition);
            let stored = self.control.get(&key)?.map_or(0, |record| version_of(&record));
            assert_eq!(stored, version, "nobody else writes");
            batch.insert(&self.control, key, control(version + 1));
            batch.insert(&self.items, item(partition, version), content(ITEM_BYTES, version));
        }
        Ok(batch.commit()?)
    }

    fn version(&self, partition: u32) -> Outcome<u64> {
        Ok(self.control.get(key(partition))?.map_or(0, |record| version_of(&record)))
    }
}

const CONTROL: TableDefinition<&str, &[u8]> = TableDefinition::new("control");
const ITEM: TableDefinition<&str, &[u8]> = TableDefinition::new("items");

struct Redb(redb::Database);

impl Engine for Redb {
    fn name(&self) -> &'static str {
        "redb 4.6"
    }

    fn commit_group(&mut self, partitions: Range<u32>, version: u64) -> Outcome<()> {
        // Durability::Immediate is what it begins with: durable when `commit` returns.
        let transaction = self.0.begin_write()?;
        {
            let mut controls = transaction.open_table(CONTROL)?;
            let mut items = transaction.open_table(ITEM)?;
            for partition in partitions {
                let key = key(partition);
                let stored = controls.get(&*key)?.map_or(0, |record| version_of(record.value()));
                assert_eq!(stored, version, "nobody else writes");
                controls.insert(&*key, &*control(version + 1))?;
                items.insert(&*item(partition, version), &*content(ITEM_BYTES, version))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn version(&self, partition: u32) -> Outcome<u64> {
        let table = self.0.begin_read()?.open_table(CONTROL)?;
        Ok(table.get(&*key(partition))?.map_or(0, |record| version_of(record.value())))
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(path: &Path) -> Outcome<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE control (key TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID;
             CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;",
        )?;
        Ok(Self(connection))
    }
}

impl Engine for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite (WAL, FULL)"
    }

    fn commit_group(&mut self, partitions: Range<u32>, version: u64) -> Outcome<()> {
        let transaction = self.0.transaction()?;
        {
            let mut read = transaction.prepare_cached("SELECT record FROM control WHERE key = ?1")?;
            let mut put_control =
                transaction.prepare_cached("INSERT OR REPLACE INTO control VALUES (?1, ?2)")?;
            let mut put_item = transaction.prepare_cached("INSERT OR REPLACE INTO items VALUES (?1, ?2)")?;
            for partition in partitions {
                let key = key(partition);
                let stored: Option<Vec<u8>> = read.query_row([&key], |row| row.get(0)).optional()?;
                assert_eq!(stored.map_or(0, |record| version_of(&record)), version, "nobody else writes");
                put_control.execute((&key, control(version + 1)))?;
                put_item.execute((item(partition, version), content(ITEM_BYTES, version)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn version(&self, partition: u32) -> Outcome<u64> {
        let mut read = self.0.prepare_cached("SELECT record FROM control WHERE key = ?1")?;
        let stored: Option<Vec<u8>> = read.query_row([key(partition)], |row| row.get(0)).optional()?;
        Ok(stored.map_or(0, |record| version_of(&record)))
    }
}

/// The partitions of the n-th group, and the version that they have by then.
fn group(number: u64, partitions: u32) -> (Range<u32>, u64) {
    let groups = u64::from(partitions / GROUP);
    let first = u32::try_from(number % groups).expect("there are few groups") * GROUP;
    (first..first + GROUP, number / groups)
}

fn main() -> Outcome<()> {
    let parent = std::env::args_os().nth(1).unwrap_or_else(|| std::env::temp_dir().into());
    println!("durable commits/s, {GROUP} a group, {ROUNDS} rounds of {} s in turns", ROUND.as_secs());
    for partitions in WORLDS {
        println!("{partitions} partitions");
        measure(&tempfile::tempdir_in(&parent)?, partitions)?;
    }
    Ok(())
}

fn measure(directory: &tempfile::TempDir, partitions: u32) -> Outcome<()> {
    let mut engines: [Box<dyn Engine>; 3] = [
        Box::new(Fjall::open(&directory.path().join("fjall"))?),
        Box::new(Redb(redb::Database::create(directory.path().join("redb"))?)),
        Box::new(Sqlite::open(&directory.path().join("sqlite"))?),
    ];
    let mut groups = [0_u64; 3];
    let mut figures = [const { Vec::<f64>::new() }; 3];
    for _ in 0..ROUNDS {
        for (place, engine) in engines.iter_mut().enumerate() {
            let (begin, first) = (Instant::now(), groups[place]);
            while begin.elapsed() < ROUND {
                let (members, version) = group(groups[place], partitions);
                engine.commit_group(members, version)?;
                groups[place] += 1;
            }
            let commits = (groups[place] - first) as f64 * f64::from(GROUP);
            figures[place].push(commits / begin.elapsed().as_secs_f64());
        }
    }
    for ((engine, groups), mut figures) in engines.iter().zip(groups).zip(figures) {
        let (members, version) = group(groups - 1, partitions);
        for partition in members {
            assert_eq!(engine.version(partition)?, version + 1, "{} lost a commit", engine.name());
        }
        figures.sort_by(f64::total_cmp);
        let (least, median, most) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
        println!("{:<20} median {median:>8.0}   from {least:>8.0} to {most:>8.0}", engine.name());
    }
    Ok(())
}
