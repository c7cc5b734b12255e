//! What is looked at during a soak, and how often it is kept: every sample is a line of a file; in memory is a bounded number of them,
//! in which neighbours are merged when they become too many.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tollgate::Store;
use tollgate_bench::watched_broker::Percentiles;

use tollgate_demo::audit::Leftovers;
use tollgate_demo::error::DemoError;

/// Samples in memory. An hour has 720.
const SAMPLES_MAX: usize = 4_096;

/// Partitions in one page of a scan.
const PAGE: usize = 256;

/// How everything was at one moment, and since the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Since the begin.
    pub seconds: f64,
    /// Messages that have committed since the begin.
    pub messages: u64,
    /// Messages a second since the last sample.
    pub rate: f64,
    /// Messages that have arrived, or should have by the rate, and have not committed.
    pub behind: u64,
    /// From a delivery to its acknowledgement, in milliseconds.
    pub delivery_p50_ms: f64,
    /// The same, for 99 of 100.
    pub delivery_p99_ms: f64,
    /// From when a payment was due until its second handler ran, in milliseconds.
    pub whole_way_p50_ms: f64,
    /// The same, for 99 of 100.
    pub whole_way_p99_ms: f64,
    /// Processor time of a message, in microseconds, since the last sample.
    pub processor_us: f64,
    /// Memory of this process that is in use. 0: this system does not tell.
    pub resident_bytes: u64,
    /// Outbox entries in the store: each is a token as well.
    pub outbox_entries: u64,
    /// Markers in control records.
    pub pending_markers: u64,
    /// Deduplication records by id.
    pub deduplication_records: u64,
    /// Bytes of all control records.
    pub control_bytes: u64,
    /// Bytes of the store's files. 0: it has none.
    pub disk_bytes: u64,
    /// Messages in the broker that nobody has acknowledged, as far as it tells.
    pub left_in_broker: Option<u64>,
}

impl Sample {
    /// Everything that is there only for deduplication.
    pub const fn deduplication_data(&self) -> u64 {
        self.outbox_entries + self.pending_markers + self.deduplication_records
    }
}

/// Samples in their order.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// Reads those of an earlier run.
    ///
    /// # Errors
    /// If the file can't be read, or a line is no sample.
    pub fn read(path: &Path) -> Result<Self, DemoError> {
        let text = std::fs::read_to_string(path).map_err(|error| DemoError::file(path, error))?;
        let mut samples = Self::default();
        for (line, number) in text.lines().zip(1..) {
            samples.add(serde_json::from_str(line).map_err(|error| {
                DemoError::Open(format!("line {number} of {} is no sample: {error}", path.display()))
            })?);
        }
        Ok(samples)
    }

    /// Adds one. When there are too many, every second one goes: the figures of the others stay what they were.
    pub fn add(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES_MAX {
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place % 2 == 0
            });
        }
        self.0.push(sample);
    }
}

/// What others have seen.
pub struct Seen<'a> {
    /// Since the begin.
    pub seconds: f64,
    /// Messages that have committed.
    pub messages: u64,
    /// Messages that have not.
    pub behind: u64,
    /// From deliveries to their acknowledgements.
    pub delivery: Percentiles,
    /// From when payments were due until they were handled twice.
    pub whole_way: Percentiles,
    /// What the broker holds.
    pub left_in_broker: Option<u64>,
    /// Where to look for the rest.
    pub store: &'a dyn Store,
}

/// Looks, and writes what it has seen.
pub struct Sampler {
    path: PathBuf,
    lines: BufWriter<File>,
    directory: PathBuf,
    /// When it looked last, at how many messages, and the processor time then.
    last: (Instant, u64, f64),
}

impl Sampler {
    /// Writes to a new file, and looks at the files in the store's directory.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn create(path: &Path, directory: &Path) -> Result<Self, DemoError> {
        let file = File::create(path).map_err(|error| DemoError::file(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            lines: BufWriter::new(file),
            directory: directory.to_owned(),
            last: (Instant::now(), 0, processor_seconds()),
        })
    }

    /// Looks once more.
    ///
    /// # Errors
    /// If the store can't be scanned or the file not be written.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub async fn look(&mut self, seen: Seen<'_>) -> Result<Sample, DemoError> {
        let (now, processor) = (Instant::now(), processor_seconds());
        let (last, last_messages, last_processor) = self.last;
        let messages = seen.messages.saturating_sub(last_messages) as f64;
        self.last = (now, seen.messages, processor);
        let (leftovers, control_bytes) = deduplication(seen.store).await?;
        let sample = Sample {
            seconds: seen.seconds,
            messages: seen.messages,
            rate: messages / now.duration_since(last).as_secs_f64(),
            behind: seen.behind,
            delivery_p50_ms: seen.delivery.p50,
            delivery_p99_ms: seen.delivery.p99,
            whole_way_p50_ms: seen.whole_way.p50,
            whole_way_p99_ms: seen.whole_way.p99,
            processor_us: (processor - last_processor) * 1e6 / messages.max(1.0),
            resident_bytes: resident_bytes(),
            outbox_entries: leftovers.outbox_entries,
            pending_markers: leftovers.pending_markers,
            deduplication_records: leftovers.deduplication_records,
            control_bytes,
            disk_bytes: bytes_of_files(&self.directory),
            left_in_broker: seen.left_in_broker,
        };
        let line = serde_json::to_string(&sample).expect("numbers can be written as JSON");
        writeln!(self.lines, "{line}")
            .and_then(|()| self.lines.flush())
            .map_err(|error| DemoError::file(&self.path, error))?;
        Ok(sample)
    }
}

async fn deduplication(store: &dyn Store) -> Result<(Leftovers, u64), DemoError> {
    let (mut leftovers, mut control_bytes) = (Leftovers::default(), 0);
    let mut cursor = None;
    loop {
        let page = store.scan(cursor, PAGE).await?;
        for scanned in &page.partitions {
            leftovers.add(scanned)?;
            control_bytes += scanned.control.as_ref().map_or(0, |control| control.len() as u64);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok((leftovers, control_bytes));
        }
    }
}

/// Of all files below a directory. What vanishes meanwhile counts for nothing.
fn bytes_of_files(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_of_files(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

const BYTES_IN_A_KILOBYTE: u64 = 1_024;

/// From `/proc`, where there is one.
fn resident_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * BYTES_IN_A_KILOBYTE
}

fn processor_seconds() -> f64 {
    tollgate_bench::side_by_side::resources::processor_time().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_samples_are_kept_with_bounded_memory_and_the_last_one_is_among_them() {
        let mut samples = Samples::default();
        for n in 0..50_000_u64 {
            samples.add(Sample { messages: n, ..Sample::default() });
        }
        assert!(samples.0.len() <= SAMPLES_MAX && samples.0.len() > SAMPLES_MAX / 4);
        assert!(samples.0.is_sorted_by_key(|sample| sample.messages));
        assert_eq!(samples.0.last().unwrap().messages, 49_999);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_in_use_is_told() {
        assert!(resident_bytes() > BYTES_IN_A_KILOBYTE * BYTES_IN_A_KILOBYTE);
    }

    #[test]
    fn files_in_folders_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        std::fs::write(directory.path().join("a"), [0; 10]).unwrap();
        std::fs::write(directory.path().join("inner/b"), [0; 32]).unwrap();
        assert_eq!(bytes_of_files(directory.path()), 42);
    }
}
