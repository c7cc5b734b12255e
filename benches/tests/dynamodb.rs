//! The comparison on an emulated `DynamoDB`: the same audit, and the units that the emulator reports. Feature `dynamodb`.
#![cfg(feature = "dynamodb")]

use tollgate_benches::side_by_side::contenders;
use tollgate_benches::side_by_side::rounds::compare;
use tollgate_benches::side_by_side::scenario::Scenario;
use tollgate_benches::side_by_side::suite::{Effort, on_dynamodb};
use tollgate_benches::side_by_side::tables::TextTable;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_is_exact_and_is_charged_by_the_emulator() {
    let scenario = Scenario { messages: 80, partitions: 10, ..on_dynamodb(Effort::Quick) };
    let compared =
        compare(&scenario, &contenders::all(), 1, |_, _| ()).await.expect("the emulator serves everybody");
    println!("{}", TextTable::of(&compared).to_text());
    for record in &compared.contenders {
        assert!(record.is_exact(), "{}: {:?}", record.name, record.runs[0].audit);
        let reported = record.runs[0].reported;
        assert!(reported.write_units.is_some_and(|units| units >= 1.0), "{}: {reported:?}", record.name);
    }
}
