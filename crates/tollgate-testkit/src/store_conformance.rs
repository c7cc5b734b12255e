//! The promises of [`Store`] as checks that any implementation can be put through. A store's test file lists them all
//! with [`store_conformance_tests!`](crate::store_conformance_tests), or runs them in one go with [`run`]. The checks use
//! partitions of their own, so that they may share one store with each other and with whatever lies in it already.
//! A check here knows no store; what only one store promises is tested beside that store.

mod batches;
mod deduplication;
mod entries;
mod limits;
mod names;
mod partition;
mod races;
mod reads;
mod scans;
mod transactions;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tollgate_proto::Store;

pub use batches::*;
pub use deduplication::*;
pub use entries::*;
pub use limits::*;
pub use names::*;
pub use partition::Partition;
pub use races::*;
pub use reads::*;
pub use scans::*;
pub use transactions::*;

/// The store under test, with whatever has to live as long as it does: a temporary folder, an emulator.
pub struct Subject {
    store: Arc<dyn Store>,
    kept: Vec<Box<dyn Any + Send>>,
}

impl Subject {
    /// A store that needs nothing else.
    pub fn new(store: impl Store) -> Self {
        Self { store: Arc::new(store), kept: Vec::new() }
    }

    /// Keeps something alive for as long as the store is tested.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send) -> Self {
        self.kept.push(Box::new(kept));
        self
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

impl From<Arc<dyn Store>> for Subject {
    fn from(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Vec::new() }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("store", self.store.alias()).finish_non_exhaustive()
    }
}

/// Names every check once, for [`run`] and for [`store_conformance_tests!`](crate::store_conformance_tests).
#[doc(hidden)]
#[macro_export]
macro_rules! with_every_store_check {
    ($then:ident!($($before:tt)*)) => {
        $crate::$then! { $($before)*
            a_usable_store_passes_its_own_verification
            a_partition_that_was_never_written_is_empty
            of_64_commits_racing_on_one_version_exactly_one_wins
            of_64_commits_racing_to_create_a_partition_exactly_one_wins
            increments_by_racing_tasks_are_never_lost
            everything_of_a_commit_is_there_once_it_is_answered
            a_failed_condition_leaves_nothing_behind
            a_version_of_another_incarnation_conflicts
            an_older_version_conflicts
            a_commit_that_expects_no_control_record_conflicts_with_one
            a_commit_that_expects_a_control_record_conflicts_where_there_is_none
            a_commit_deletes_the_items_and_entries_that_it_names
            a_commit_touches_nothing_that_it_does_not_name
            a_dropped_commit_happens_entirely_or_not_at_all
            a_transaction_at_its_limit_of_items_works_and_one_beyond_is_refused
            an_item_at_its_limit_of_bytes_works_and_one_beyond_is_refused
            an_entry_at_its_limit_of_bytes_works_and_one_beyond_is_refused
            a_response_at_its_limit_of_bytes_works_and_one_beyond_is_refused
            a_transaction_at_its_limit_of_bytes_works_and_one_beyond_is_refused
            a_deleted_entry_is_never_read_again
            no_reader_finds_an_entry_after_any_deleter_was_answered
            deleting_a_missing_entry_succeeds
            deleting_entries_does_not_disturb_the_version_check_of_their_sender
            entries_are_told_apart_by_incarnation_counter_and_index
            a_token_of_another_store_is_refused_and_its_companions_are_answered
            a_read_observes_every_answered_write
            a_load_is_a_consistent_snapshot
            values_come_back_as_they_went_in
            empty_values_come_back_empty_and_not_absent
            an_existing_record_refuses_the_commit_and_is_named
            a_wrong_version_is_a_conflict_whatever_records_exist
            an_expired_record_counts_as_absent
            a_record_keeps_its_response
            expiry_deletes_expired_records_and_no_others
            partition_keys_that_look_alike_do_not_mix
            item_names_that_look_alike_do_not_mix
            deduplication_keys_that_look_alike_do_not_mix
            answers_come_in_the_order_of_the_requests
            full_batches_are_answered
            a_scan_lists_every_partition_once_over_several_pages
        }
    };
}

/// Runs one check after the other, each on what `factory` makes.
///
/// # Panics
/// At the first promise that the store breaks.
pub async fn run<S: Into<Subject>, F: Future<Output = S>>(factory: impl Fn() -> F) {
    with_every_store_check!(run_store_checks!(factory;));
}

#[doc(hidden)]
#[macro_export]
macro_rules! run_store_checks {
    ($factory:ident; $($check:ident)*) => {
        $( {
            let subject: Subject = $factory().await.into();
            $check(subject.store()).await;
        } )*
    };
}

/// Expands to one `#[tokio::test]` for each check of [`store_conformance`](mod@crate::store_conformance), named as the
/// check is. The argument is a closure or function that returns a future of a store: an `Arc<dyn Store>`, or a
/// [`Subject`] that keeps more alive. The calling crate needs tokio with `macros` and `rt-multi-thread`.
///
/// ```no_run
/// # fn my_store() -> std::sync::Arc<dyn tollgate_proto::Store> { unimplemented!() }
/// tollgate_testkit::store_conformance_tests!(|| async { my_store() });
/// ```
#[macro_export]
macro_rules! store_conformance_tests {
    ($factory:expr) => {
        $crate::with_every_store_check!(define_store_tests!([$factory]));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! define_store_tests {
    ([$factory:expr] $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let subject: $crate::store_conformance::Subject = ($factory)().await.into();
                $crate::store_conformance::$check(subject.store()).await;
            }
        )*
    };
}
