//! The program `cosmos-emulator`: serves an emulated Cosmos DB account over HTTP, so that several processes, and clients in
//! other languages, can share one. Everything is in memory and gone with the process. What it does is in
//! [`tollgate_cosmos_emulator::host`].

use std::process::ExitCode;

use tollgate_cosmos_emulator::host;

#[tokio::main]
async fn main() -> ExitCode {
    let asked = match host::Arguments::parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", host::USAGE);
            return ExitCode::from(2);
        }
    };
    match host::serve_until_interrupted(asked).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
