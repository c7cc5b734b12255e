//! The picture of a soak: what must be flat, over time, one curve of many samples drawn from a few points, so that a page can show it.

use tollgate_bench::side_by_side::chart::{Axis, Line, Picture, Scale, stack};

use super::sampling::Sample;

/// Points of a curve.
const POINTS: usize = 120;

const SECONDS_IN_A_MINUTE: f64 = 60.0;
const MEBIBYTE: f64 = 1_024.0 * 1_024.0;

/// Draws the samples.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn svg(samples: &[Sample]) -> String {
    let line = |label: &str, of: &dyn Fn(&Sample) -> f64| Line {
        label: label.to_owned(),
        points: points(samples, of),
    };
    let minutes = || Axis { title: "minutes", scale: Scale::Linear };
    let axis = |title| Axis { title, scale: Scale::Linear };
    let picture = |title, y_title, lines| Picture { title, x_axis: minutes(), y_axis: axis(y_title), lines };
    stack(
        "A soak: everything must be flat",
        &[
            picture(
                "Throughput",
                "messages a second",
                vec![line("messages a second", &|sample| sample.rate)],
            ),
            picture(
                "Latency",
                "ms",
                vec![
                    line("delivery to acknowledgement, p50", &|sample| sample.delivery_p50_ms),
                    line("delivery to acknowledgement, p99", &|sample| sample.delivery_p99_ms),
                    line("due to its second handler, p50", &|sample| sample.whole_way_p50_ms),
                    line("due to its second handler, p99", &|sample| sample.whole_way_p99_ms),
                ],
            ),
            picture(
                "Memory and files",
                "MiB",
                vec![
                    line("memory in use", &|sample| sample.resident_bytes as f64 / MEBIBYTE),
                    line("the store's files", &|sample| sample.disk_bytes as f64 / MEBIBYTE),
                ],
            ),
            picture(
                "Deduplication data",
                "records",
                vec![
                    line("markers", &|sample| sample.pending_markers as f64),
                    line("outbox entries (tokens)", &|sample| sample.outbox_entries as f64),
                    line("messages under way", &|sample| sample.behind as f64),
                ],
            ),
        ],
    )
}

/// Means of so many neighbours that there are few points.
#[expect(clippy::cast_precision_loss, reason = "a number of samples")]
fn points(samples: &[Sample], of: &dyn Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let neighbours = samples.len().div_ceil(POINTS).max(1);
    samples
        .chunks(neighbours)
        .map(|some| {
            let mean = |of: &dyn Fn(&Sample) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
            (mean(&|sample| sample.seconds / SECONDS_IN_A_MINUTE), mean(of))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_of_a_day_is_as_small_as_that_of_an_hour() {
        let samples: Vec<Sample> = (0..4_000_u32)
            .map(|n| Sample { seconds: f64::from(n) * 20.0, rate: 1_000.0, ..Sample::default() })
            .collect();
        assert!(svg(&samples).len() < 60_000);
        assert_eq!(svg(&samples).matches("<svg ").count(), 5);
    }
}
