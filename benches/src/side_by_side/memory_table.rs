//! The table in memory, as Tollgate's own store in memory is: sharded maps behind locks, ready at once, with what the network adds. It
//! computes what each call would be charged.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tollgate::proto::BoxFuture;

use super::charges::{Charge, Written};
use super::network::Network;
use super::table::{Answer, Call, Change, Condition, Key, Record, Table, TableError, Write};

/// As many as the store in memory has.
const SHARDS: usize = 64;

/// Bytes of attribute names, version and the like, on `DynamoDB`: `pk`, `sk`, `version`, `value`, and a number.
const DYNAMODB_OVERHEAD: usize = 2 + 2 + 7 + 5 + 6;
/// Bytes of names, quotation marks and the etag in a document on Cosmos DB.
const COSMOS_OVERHEAD: usize = 80;

type Shard = HashMap<String, BTreeMap<String, Record>, RandomState>;

/// A table in memory.
pub struct MemoryTable {
    network: Arc<Network>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl MemoryTable {
    /// An empty one.
    pub fn new(network: Arc<Network>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { network, hasher: RandomState::default(), shards }
    }

    fn shard(&self, partition: &str) -> MutexGuard<'_, Shard> {
        let place =
            usize::try_from(self.hasher.hash_one(partition) % SHARDS as u64).expect("there are few shards");
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Record> {
        self.shard(&key.partition).get(&key.partition)?.get(&key.sort).cloned()
    }

    /// Does what a call says, and tells what it is charged.
    pub(super) fn apply(&self, call: Call) -> (Answer, Charge) {
        match call {
            Call::Get(keys) => {
                let records: Vec<_> = keys.iter().map(|key| self.get(key)).collect();
                let sizes = keys.iter().zip(&records).map(|(key, record)| sizes(key, record.as_ref()));
                let charge = Charge::reads(sizes);
                (Answer::Records(records), charge)
            }
            Call::Query { partition, prefix } => {
                let shard = self.shard(&partition);
                let found: Vec<_> = shard
                    .get(&partition)
                    .into_iter()
                    .flat_map(|records| records.range(prefix.clone()..))
                    .take_while(|(sort, _)| sort.starts_with(&prefix))
                    .map(|(sort, record)| (sort.clone(), record.clone()))
                    .collect();
                let total = found.iter().fold((0, 0), |sum, (sort, record)| {
                    let key = Key::new(&*partition, &**sort);
                    let (dynamodb, cosmos) = sizes(&key, Some(record));
                    (sum.0 + dynamodb, sum.1 + cosmos)
                });
                // A query is charged by all it reads together. On Cosmos DB it costs more than a point read; it is not
                // charged for that here.
                (Answer::Found(found), Charge::reads([total]))
            }
            Call::Write(writes) => self.transact(writes),
            Call::Batch(writes) => {
                let mut written = Vec::with_capacity(writes.len());
                let mut expiries = Charge::default();
                for write in writes {
                    let mut shard = self.shard(&write.key.partition);
                    expiries = expiries + expiry(&shard, &write);
                    written.push(put(&mut shard, write));
                }
                (Answer::Written, Charge::batch(&written) + expiries)
            }
        }
    }

    fn transact(&self, writes: Vec<Write>) -> (Answer, Charge) {
        let partition = writes.first().map(|write| write.key.partition.clone()).unwrap_or_default();
        debug_assert!(
            writes.iter().all(|write| write.key.partition == partition),
            "a transaction has one partition"
        );
        let mut shard = self.shard(&partition);
        let records = shard.get(&partition);
        let holds = |write: &Write| {
            let there = records.and_then(|records| records.get(&write.key.sort));
            match write.condition {
                Condition::Any => true,
                Condition::Absent => there.is_none(),
                Condition::Version(version) => there.is_some_and(|record| record.version == version),
            }
        };
        if writes.iter().all(holds) {
            let expiries = writes.iter().fold(Charge::default(), |sum, write| sum + expiry(&shard, write));
            let written: Vec<_> = writes.into_iter().map(|write| put(&mut shard, write)).collect();
            return (Answer::Written, Charge::write(&written) + expiries);
        }
        // A failed condition is charged like the write.
        let written: Vec<_> = writes.iter().map(|write| size_of(records, write)).collect();
        (Answer::Refused, Charge::write(&written))
    }
}

fn sizes(key: &Key, record: Option<&Record>) -> (usize, usize) {
    let Some(record) = record else { return (0, 0) };
    let own = key.partition.len() + key.sort.len() + record.value.len();
    (own + DYNAMODB_OVERHEAD, own + COSMOS_OVERHEAD)
}

fn size_of(records: Option<&BTreeMap<String, Record>>, write: &Write) -> Written {
    let before = sizes(&write.key, records.and_then(|records| records.get(&write.key.sort)));
    let after = match &write.change {
        Change::Put(record) => sizes(&write.key, Some(record)),
        Change::Delete => (0, 0),
    };
    Written { dynamodb: before.0.max(after.0), cosmos: before.1.max(after.1) }
}

/// What the store will be charged for deleting a record that gets an expiry by this write.
fn expiry(shard: &Shard, write: &Write) -> Charge {
    let Change::Put(record) = &write.change else { return Charge::default() };
    let known = shard.get(&write.key.partition).and_then(|records| records.get(&write.key.sort));
    let expires_already = known.is_some_and(|known| known.expires_at.is_some());
    if record.expires_at.is_none() || expires_already {
        return Charge::default();
    }
    Charge::expiry(sizes(&write.key, Some(record)).1)
}

fn put(shard: &mut Shard, write: Write) -> Written {
    let written = size_of(shard.get(&write.key.partition), &write);
    match write.change {
        Change::Put(record) => {
            shard.entry(write.key.partition).or_default().insert(write.key.sort, record);
        }
        Change::Delete => {
            if let Some(records) = shard.get_mut(&write.key.partition) {
                records.remove(&write.key.sort);
                // A token is a partition of its own: empty ones would be held against techniques with tokens.
                if records.is_empty() {
                    shard.remove(&write.key.partition);
                }
            }
        }
    }
    written
}

impl Table for MemoryTable {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>> {
        Box::pin(self.network.call(async move {
            let (answer, charge) = self.apply(call);
            self.network.charge(charge.write_units, charge.read_units, charge.request_units);
            Ok(answer)
        }))
    }

    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>> {
        let mut contents = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, records) in shard.iter() {
                let of_partition =
                    records.iter().map(|(sort, record)| (Key::new(&**partition, &**sort), record.clone()));
                contents.extend(of_partition);
            }
        }
        Box::pin(std::future::ready(Ok(contents)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::*;

    fn table() -> (MemoryTable, Arc<Network>) {
        let network = Arc::new(Network::new(Latency::None, 0, 1));
        (MemoryTable::new(Arc::clone(&network)), network)
    }

    fn write(sort: &str, version: u64, condition: Condition) -> Write {
        Write::put(Key::new("p", sort), version, "value", condition)
    }

    #[tokio::test]
    async fn a_transaction_happens_as_a_whole_or_not_at_all() {
        let (table, network) = table();
        let both = vec![write("a", 1, Condition::Absent), write("b", 1, Condition::Absent)];
        assert_eq!(table.call(Call::Write(both)).await.unwrap(), Answer::Written);
        let half = vec![write("c", 1, Condition::Absent), write("a", 3, Condition::Version(2))];
        assert_eq!(table.call(Call::Write(half)).await.unwrap(), Answer::Refused);
        let Answer::Records(found) = table.call(Call::Get(vec![Key::new("p", "c")])).await.unwrap() else {
            panic!("a get is answered with records");
        };
        assert_eq!(found, [None]);
        assert_eq!((network.traffic().calls, network.traffic().write_units), (3, 8));
    }

    #[tokio::test]
    async fn of_a_partition_whose_last_record_is_deleted_nothing_stays() {
        let (table, _) = table();
        table.call(Call::Write(vec![write("a", 1, Condition::Absent)])).await.unwrap();
        table.call(Call::Write(vec![Write::delete(Key::new("p", "a"))])).await.unwrap();
        assert!(table.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[tokio::test]
    async fn a_query_finds_what_begins_so_in_its_partition() {
        let (table, _) = table();
        for sort in ["a#1", "a#2", "b#1"] {
            table.call(Call::Write(vec![write(sort, 1, Condition::Any)])).await.unwrap();
        }
        let query = Call::Query { partition: "p".into(), prefix: "a#".into() };
        let Answer::Found(found) = table.call(query).await.unwrap() else { panic!("a query finds") };
        assert_eq!(found.iter().map(|(sort, _)| &**sort).collect::<Vec<_>>(), ["a#1", "a#2"]);
    }

    #[tokio::test]
    async fn what_expires_is_charged_for_its_deletion_once() {
        let (table, network) = table();
        let expiring = |version| write("a", version, Condition::Any).expiring_at(1);
        table.call(Call::Write(vec![expiring(1)])).await.unwrap();
        assert_eq!(format!("{:.2}", network.traffic().request_units), "9.90", "the write and the deletion");
        table.call(Call::Write(vec![expiring(2)])).await.unwrap();
        assert_eq!(
            format!("{:.2}", network.traffic().request_units),
            "14.85",
            "a second write, the same deletion"
        );
    }
}
