//! On what was measured: enough to tell two machines apart, and nothing that names one.

use std::time::{SystemTime, UNIX_EPOCH};

/// Processor, cores, memory and system, in one line.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|memory| gigabytes(&memory)).unwrap_or_default();
    format!("{processor}, {cores} cores{memory}, {}", std::env::consts::OS)
}

/// Now, in seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A value in a file of lines with colons.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

const KILOBYTES_IN_A_GIGABYTE: u64 = 1024 * 1024;

fn gigabytes(kilobytes: &str) -> Option<String> {
    let number: u64 = kilobytes.split(' ').next()?.parse().ok()?;
    Some(format!(", {} GB", number.div_ceil(KILOBYTES_IN_A_GIGABYTE)))
}
