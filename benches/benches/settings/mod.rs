//! How long each figure is measured: so short that all of them together take two minutes, which tells a factor of two and not
//! five percent. For more, `--measurement-time` and `--sample-size` on the command line.

use std::time::Duration;

use criterion::Criterion;

const SAMPLES: usize = 20;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASUREMENT: Duration = Duration::from_secs(1);
const RESAMPLES: usize = 10_000;

/// Criterion, quick.
pub fn quick() -> Criterion {
    Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT)
        .nresamples(RESAMPLES)
}
