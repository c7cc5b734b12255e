//! A table at the end of the network: every call waits as the network says, is answered by the table behind it, and is charged by the
//! published rules. For these it keeps the same records in memory once more: the table there knows what each call costs, whichever
//! store the call went to. What the store itself reports is asked elsewhere.

use std::sync::Arc;

use tollgate::proto::BoxFuture;

use super::memory_table::MemoryTable;
use super::network::Network;
use super::table::{Answer, Call, Condition, Key, Record, Table, TableError};

/// A table behind the network.
pub struct ChargedTable<T> {
    table: T,
    network: Arc<Network>,
    accounts: MemoryTable,
}

impl<T> ChargedTable<T> {
    /// Puts an empty table behind the network.
    pub fn new(table: T, network: Arc<Network>) -> Self {
        let accounts = MemoryTable::new(Arc::clone(&network));
        Self { table, network, accounts }
    }

    fn charge(&self, mut call: Call, answer: &Answer) {
        if let Call::Write(writes) = &mut call {
            let condition = match answer {
                // A failed condition is charged like the write, and changes nothing.
                Answer::Refused => Condition::Version(u64::MAX),
                // The table has decided: what it has written is written here as well, whoever comes first here.
                _ => Condition::Any,
            };
            for write in writes {
                write.condition = condition;
            }
        }
        let (_, charge) = self.accounts.apply(call);
        self.network.charge(charge.write_units, charge.read_units, charge.request_units);
    }
}

impl<T: Table> Table for ChargedTable<T> {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, TableError>> {
        Box::pin(self.network.call(async move {
            let answer = self.table.call(call.clone()).await?;
            self.charge(call, &answer);
            Ok(answer)
        }))
    }

    fn contents(&self) -> BoxFuture<'_, Result<Vec<(Key, Record)>, TableError>> {
        self.table.contents()
    }
}
