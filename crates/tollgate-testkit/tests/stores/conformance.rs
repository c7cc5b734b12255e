//! The conformance suite against a store that keeps every promise, and against stores that each break one: a suite that
//! can't fail would prove nothing.

mod the_reference_store {
    use std::sync::Arc;

    use tollgate_proto::Store;

    use crate::reference_store::{Flaw, ReferenceStore};

    tollgate_testkit::store_conformance_tests!(|| async {
        Arc::new(ReferenceStore::new(Flaw::None)) as Arc<dyn Store>
    });
}

mod a_store_that_breaks_one_promise_is_found_out {
    use std::sync::Arc;

    use tollgate_testkit::store_conformance::{self, Subject};

    use crate::reference_store::{Flaw, ReferenceStore};

    /// For each flaw a test named after it: the check named beside it must panic, with a store that has no other flaw.
    macro_rules! found_out {
        ($($name:ident: $flaw:ident, $check:ident;)*) => { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let store = Arc::new(ReferenceStore::new(Flaw::$flaw));
                let check = tokio::spawn(store_conformance::$check(store));
                let failure = check.await.expect_err("the check did not notice");
                assert!(failure.is_panic());
            }
        )* };
    }

    found_out! {
        is_unusable: IsUnusable, a_usable_store_passes_its_own_verification;
        invents_control_records: InventsControlRecords, a_partition_that_was_never_written_is_empty;
        drops_what_a_commit_does_not_name: DropsItemsThatACommitDoesNotName,
            a_commit_touches_nothing_that_it_does_not_name;
        loses_a_part_of_a_commit: LosesResponses, everything_of_a_commit_is_there_once_it_is_answered;
        ignores_the_version: IgnoresTheVersion, of_64_commits_racing_on_one_version_exactly_one_wins;
        loses_increments: ChecksTheVersionOutsideTheLock, increments_by_racing_tasks_are_never_lost;
        compares_only_the_counter: ComparesOnlyTheCounter, a_version_of_another_incarnation_conflicts;
        overwrites_an_existing_partition: OverwritesAnExistingPartition,
            a_commit_that_expects_no_control_record_conflicts_with_one;
        lets_everyone_create_a_partition: OverwritesAnExistingPartition,
            of_64_commits_racing_to_create_a_partition_exactly_one_wins;
        creates_a_partition_that_was_expected: CreatesAPartitionThatWasExpected,
            a_commit_that_expects_a_control_record_conflicts_where_there_is_none;
        takes_older_versions: IgnoresTheVersion, an_older_version_conflicts;
        leaves_entries_of_a_failed_commit: LeavesEntriesOfAFailedCommit, a_failed_condition_leaves_nothing_behind;
        applies_half: AppliesHalf, a_failed_condition_leaves_nothing_behind;
        forgets_deleted_items: ForgetsDeletedItems, a_commit_deletes_the_items_and_entries_that_it_names;
        forgets_deleted_entries_of_a_commit: ForgetsDeletedEntriesOfACommit,
            a_commit_deletes_the_items_and_entries_that_it_names;
        commits_in_two_steps: CommitsInTwoSteps, a_dropped_commit_happens_entirely_or_not_at_all;
        forgets_deletions: ForgetsDeletions, a_deleted_entry_is_never_read_again;
        deletes_after_the_answer: DeletesAfterTheAnswer, no_reader_finds_an_entry_after_any_deleter_was_answered;
        disturbs_the_sender: DeletionRaisesTheVersion,
            deleting_entries_does_not_disturb_the_version_check_of_their_sender;
        fails_to_delete_what_is_missing: DeletionOfAMissingEntryFails, deleting_a_missing_entry_succeeds;
        ignores_the_index_of_entries: IgnoresTheIndexOfEntries, entries_are_told_apart_by_incarnation_counter_and_index;
        takes_foreign_tokens: TakesForeignTokens, a_token_of_another_store_is_refused_and_its_companions_are_answered;
        reads_the_state_before: ReadsTheStateBefore, a_read_observes_every_answered_write;
        loads_in_two_steps: LoadsInTwoSteps, a_load_is_a_consistent_snapshot;
        takes_empty_for_absent: TakesEmptyForAbsent, empty_values_come_back_empty_and_not_absent;
        turns_json_into_binary: TurnsJsonIntoBinary, values_come_back_as_they_went_in;
        ignores_records: IgnoresRecords, an_existing_record_refuses_the_commit_and_is_named;
        names_every_record: NamesEveryRecord, an_existing_record_refuses_the_commit_and_is_named;
        never_forgets_records: NeverForgetsRecords, an_expired_record_counts_as_absent;
        loses_responses: LosesResponses, a_record_keeps_its_response;
        expires_everything: ExpiresEverything, expiry_deletes_expired_records_and_no_others;
        looks_at_records_first: LooksAtRecordsFirst, a_wrong_version_is_a_conflict_whatever_records_exist;
        mixes_partitions_up_to_a_nul: MixesPartitionsUpToANul, partition_keys_that_look_alike_do_not_mix;
        mixes_item_names_by_case: MixesItemNamesByCase, item_names_that_look_alike_do_not_mix;
        shortens_deduplication_keys: ShortensDeduplicationKeys, deduplication_keys_that_look_alike_do_not_mix;
        answers_in_reverse: AnswersInReverse, answers_come_in_the_order_of_the_requests;
        truncates_batches: TruncatesBatches, full_batches_are_answered;
        scans_only_one_page: ScansOnlyOnePage, a_scan_lists_every_partition_once_over_several_pages;
        scans_count_deleted_entries: ScansCountDeletedEntries, a_scan_lists_every_partition_once_over_several_pages;
        ignores_limits_of_items: IgnoresLimitsOfItems,
            a_transaction_at_its_limit_of_items_works_and_one_beyond_is_refused;
        ignores_limits_of_bytes: IgnoresLimitsOfBytes,
            a_transaction_at_its_limit_of_bytes_works_and_one_beyond_is_refused;
        ignores_the_limit_of_an_item: IgnoresItemLimits, an_item_at_its_limit_of_bytes_works_and_one_beyond_is_refused;
        ignores_the_limit_of_an_entry: IgnoresItemLimits, an_entry_at_its_limit_of_bytes_works_and_one_beyond_is_refused;
        ignores_the_limit_of_a_response: IgnoresItemLimits,
            a_response_at_its_limit_of_bytes_works_and_one_beyond_is_refused;
        commits_beyond_the_limit_and_refuses: CommitsBeyondTheLimitAndRefuses,
            an_item_at_its_limit_of_bytes_works_and_one_beyond_is_refused;
        refuses_at_the_limit: RefusesAtTheLimit, a_transaction_at_its_limit_of_items_works_and_one_beyond_is_refused;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn by_a_run_of_the_whole_suite_as_well() {
        let suite =
            |flaw| store_conformance::run(move || async move { Subject::new(ReferenceStore::new(flaw)) });
        suite(Flaw::None).await;
        let failure =
            tokio::spawn(suite(Flaw::ForgetsDeletions)).await.expect_err("the suite did not notice");
        assert!(failure.is_panic());
    }
}
