//! The books: whether every message was handled exactly once, as the accounts tell. A message that was handled twice or never is found
//! in its partition's count; that one of each does not cancel out, in the checksum.
//!
//! What a contender sends is handled by the same contender, so an output that is lost or sent twice shows in the account of its own
//! destination: receivers recognise copies by the technique that is examined and by nothing else.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::plan::{Account, Plan, name};

/// What the books say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Messages that had to be handled.
    pub expected: u64,
    /// Messages that were, copies included.
    pub handled: u64,
    /// Handled too often, summed up over partitions.
    pub doubled: u64,
    /// Never handled.
    pub lost: u64,
    /// Partitions whose count is right and whose messages are not.
    pub mixed_up: u64,
}

impl Audit {
    /// Compares accounts with a plan.
    pub fn of(plan: &Plan, accounts: &[(String, Account)]) -> Self {
        let accounts: HashMap<&str, &Account> =
            accounts.iter().map(|(partition, account)| (&**partition, account)).collect();
        let mut audit = Self::default();
        for (number, (count, checksum)) in (0..).zip(plan.expected()) {
            let account = accounts.get(&*name(number));
            let handled = account.map_or(0, |account| account.count);
            audit.expected += count;
            audit.handled += handled;
            audit.doubled += handled.saturating_sub(count);
            audit.lost += count.saturating_sub(handled);
            let differs = account.map_or(0, |account| account.checksum) != checksum;
            audit.mixed_up += u64::from(handled == count && differs);
        }
        audit
    }

    /// Whether every message was handled exactly once.
    pub const fn is_exact(&self) -> bool {
        self.doubled == 0 && self.lost == 0 && self.mixed_up == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    fn plan() -> Plan {
        Plan::new(&Scenario { messages: 100, partitions: 10, outputs: 0, ..Scenario::headline() })
    }

    fn books(plan: &Plan) -> Vec<(String, Account)> {
        let account = |(count, checksum)| Account { count, checksum, ballast: String::new() };
        (0..).zip(plan.expected()).map(|(number, expected)| (name(number), account(expected))).collect()
    }

    #[test]
    fn exact_books_are_exact_and_a_doubled_a_lost_and_a_confused_message_are_told_apart() {
        let plan = plan();
        assert!(Audit::of(&plan, &books(&plan)).is_exact());
        let mut wrong = books(&plan);
        wrong[0].1.count += 2;
        wrong[1].1.count -= 1;
        wrong[2].1.checksum += 1;
        let audit = Audit::of(&plan, &wrong);
        assert_eq!((audit.doubled, audit.lost, audit.mixed_up), (2, 1, 1));
        assert_eq!(Audit::of(&plan, &[]).lost, audit.expected);
    }
}
