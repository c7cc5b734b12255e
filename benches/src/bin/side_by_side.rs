//! `tollgate-bench compare --report` without the rest of the program, and with allocations counted.
//!
//! `cargo run --release -p tollgate-bench --bin side_by_side -- quick|full DIRECTORY [PAGE]` measures everything;
//! `… -- FILE.json DIRECTORY [PAGE]` writes the report again from what was measured; `… -- growth` follows what stays behind up to
//! a million messages, as `tollgate-bench compare --growth` does.

use std::path::Path;

use tollgate_bench::side_by_side::demands::demands;
use tollgate_bench::side_by_side::suite::{Effort, growth, measure};
use tollgate_bench::side_by_side::tables::TextTable;
use tollgate_bench::side_by_side::{BenchError, report};

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[tokio::main]
async fn main() -> Result<(), BenchError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut tell = |what: &str| eprintln!("{what}");
    if let [what] = &*arguments
        && what == "growth"
    {
        println!("{}", report::growth_text(&growth(1_000_000, &mut tell).await?));
        return Ok(());
    }
    let [what, directory, page @ ..] = &*arguments else {
        eprintln!("which effort, or which file of results; and which directory?");
        return Ok(());
    };
    let results = match &**what {
        "quick" => measure(Effort::Quick, &mut tell).await?,
        "full" => measure(Effort::Full, &mut tell).await?,
        file => report::read(Path::new(file))?,
    };
    report::write(&results, Path::new(directory))?;
    if let [page] = page {
        report::refresh_page(&results, Path::new(page))?;
    }
    println!("{}", TextTable::of_demands(&demands(&results)).to_text());
    Ok(())
}
