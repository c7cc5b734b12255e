//! What counts as flat. Of each figure a straight line is laid through the last half of the run, and what it rises or falls by from there to
//! the end is compared with a tolerance: a part of the figure's middle, or what it varies by in any case.
//!
//! The line's slope is the median of the slopes between any two samples (Theil and Sen), and the figure's middle is the median: what grows slowly
//! shows in it, and a stall of the machine that is caught up does not. The line of the least squares, which one stall near an
//! end tilts, is printed beside it and judges nothing.

use super::sampling::Sample;

/// A shorter half tells of caches that fill, and nothing of leaks: it is not judged.
const HALF_SECONDS_MIN: f64 = 60.0;

/// Samples in a half that is judged.
const HALF_SAMPLES_MIN: usize = 10;

/// What a figure may change by within the half, as a part of its middle.
const TOLERANCE: f64 = 0.10;

/// What memory may change by in any case: half of one of the tables that the embedded store fills and writes out, over and over.
const MEMORY_FLOOR: f64 = 16.0 * MEBIBYTE;

/// What the store's files may change by in any case: its journals, which grow to this size before they are dropped.
const DISK_FLOOR: f64 = 64.0 * MEBIBYTE;

/// What counts of messages may change by in any case: those of two endpoints that are being processed.
const MESSAGES_FLOOR: f64 = 256.0;

const MEBIBYTE: f64 = 1_024.0 * 1_024.0;

/// Which change is a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Rise,
    Fall,
}

/// How one figure went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    name: &'static str,
    unit: &'static str,
    middle: f64,
    /// From the begin of the half to its end, along the line.
    change: f64,
    /// The same, along the line of the least squares.
    by_squares: f64,
    tolerated: f64,
    bad: Bad,
}

impl Trend {
    fn is_flat(&self) -> bool {
        match self.bad {
            Bad::Rise => self.change <= self.tolerated,
            Bad::Fall => -self.change <= self.tolerated,
        }
    }
}

/// How all of them went.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Too short to tell.
    TooShort {
        /// Samples in the last half.
        samples: usize,
        /// Its length.
        seconds: f64,
    },
    /// Each figure's trend.
    Trends {
        /// The trends.
        trends: Vec<Trend>,
        /// The length of the half.
        seconds: f64,
        /// Messages in it.
        messages: u64,
    },
}

impl Judgement {
    /// Of samples in their order.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub fn of(samples: &[Sample]) -> Self {
        let end = samples.last().map_or(0.0, |last| last.seconds);
        let half: Vec<&Sample> = samples.iter().filter(|sample| sample.seconds >= end / 2.0).collect();
        let (Some(first), Some(last)) = (half.first(), half.last()) else {
            return Self::TooShort { samples: 0, seconds: 0.0 };
        };
        let seconds = last.seconds - first.seconds;
        if seconds < HALF_SECONDS_MIN || half.len() < HALF_SAMPLES_MIN {
            return Self::TooShort { samples: half.len(), seconds };
        }
        let trend = |name, unit, bad, scale: f64, floor: f64, of: &dyn Fn(&Sample) -> f64| {
            let points: Vec<(f64, f64)> = half.iter().map(|sample| (sample.seconds, of(sample))).collect();
            let middle = median(points.iter().map(|point| point.1).collect());
            Trend {
                name,
                unit,
                bad,
                middle: middle / scale,
                change: median_slope(&points) * seconds / scale,
                by_squares: slope_of_least_squares(&points) * seconds / scale,
                tolerated: (middle * TOLERANCE).max(floor) / scale,
            }
        };
        let trends = vec![
            trend("messages a second", "", Bad::Fall, 1.0, 0.0, &|sample| sample.rate),
            trend("memory in use", "MiB", Bad::Rise, MEBIBYTE, MEMORY_FLOOR, &|sample| {
                sample.resident_bytes as f64
            }),
            trend("deduplication data", "records", Bad::Rise, 1.0, MESSAGES_FLOOR, &|sample| {
                sample.deduplication_data() as f64
            }),
            trend("control records", "MiB", Bad::Rise, MEBIBYTE, MEBIBYTE, &|sample| {
                sample.control_bytes as f64
            }),
            trend("the store's files", "MiB", Bad::Rise, MEBIBYTE, DISK_FLOOR, &|sample| {
                sample.disk_bytes as f64
            }),
            trend("messages under way", "", Bad::Rise, 1.0, MESSAGES_FLOOR, &|sample| sample.behind as f64),
            trend("processor time a message", "us", Bad::Rise, 1.0, 0.0, &|sample| sample.processor_us),
        ];
        Self::Trends { trends, seconds, messages: last.messages - first.messages }
    }

    /// Whether nothing speaks against it.
    pub fn is_flat(&self) -> bool {
        match self {
            Self::TooShort { .. } => true,
            Self::Trends { trends, .. } => trends.iter().all(Trend::is_flat),
        }
    }

    /// For a person.
    pub fn print(&self) {
        match self {
            Self::TooShort { samples, seconds } => println!(
                "slopes: NOT JUDGED, the last half has {samples} samples in {seconds:.1} s; it takes {HALF_SAMPLES_MIN} in \
                 {HALF_SECONDS_MIN} s"
            ),
            Self::Trends { trends, seconds, messages } => {
                println!("the last half, {seconds:.0} s and {messages} messages:");
                for Trend { name, unit, middle, change, by_squares, tolerated, .. } in trends {
                    println!(
                        "  {name:<25} {middle:>10.2} {unit:<8} changes by {change:>+9.2}, tolerated {tolerated:.2} (least squares: \
                         {by_squares:+.2})"
                    );
                }
                let names: Vec<_> =
                    trends.iter().filter(|trend| !trend.is_flat()).map(|trend| trend.name).collect();
                if names.is_empty() {
                    println!("slopes: flat");
                } else {
                    println!("slopes: NOT FLAT: {}", names.join(", "));
                }
            }
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Of the slopes between any two points.
fn median_slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (place, (x, y)) in points.iter().enumerate() {
        let later = points[place + 1..].iter().filter(|(later, _)| later > x);
        slopes.extend(later.map(|(later, then)| (then - y) / (later - x)));
    }
    median(slopes)
}

#[expect(clippy::cast_precision_loss, reason = "a number of samples")]
fn slope_of_least_squares(points: &[(f64, f64)]) -> f64 {
    let mean_of = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x_mean, y_mean) = (mean_of(&|point| point.0), mean_of(&|point| point.1));
    let along: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let across: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if across > 0.0 { along / across } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1_024 * 1_024;

    /// An hour at a thousand messages a second, with everything going up and down as it does.
    fn an_hour() -> Vec<Sample> {
        let mut random = fastrand::Rng::with_seed(7);
        (1..=720_u32)
            .map(|n| {
                let sawtooth = u64::from(n % 18);
                Sample {
                    seconds: f64::from(n) * 5.0,
                    messages: u64::from(n) * 5_000,
                    rate: 1_000.0 + 50.0 * (random.f64() - 0.5),
                    behind: 20 + random.u64(..40),
                    processor_us: 200.0 + 20.0 * (random.f64() - 0.5),
                    resident_bytes: (90 + 2 * sawtooth) * MIB,
                    pending_markers: 900 + random.u64(..200),
                    outbox_entries: random.u64(..50),
                    control_bytes: 120_000 + random.u64(..9_000),
                    disk_bytes: (40 + 3 * sawtooth) * MIB,
                    ..Sample::default()
                }
            })
            .collect()
    }

    fn not_flat(samples: &[Sample]) -> Vec<&'static str> {
        match Judgement::of(samples) {
            Judgement::TooShort { .. } => panic!("an hour is long enough"),
            Judgement::Trends { trends, .. } => {
                trends.iter().filter(|trend| !trend.is_flat()).map(|trend| trend.name).collect()
            }
        }
    }

    fn sabotaged(sabotage: impl Fn(&mut Sample)) -> Vec<Sample> {
        let mut samples = an_hour();
        samples.iter_mut().for_each(sabotage);
        samples
    }

    #[test]
    fn an_hour_that_goes_up_and_down_is_flat() {
        assert_eq!(not_flat(&an_hour()), Vec::<&str>::new());
    }

    #[test]
    fn a_leak_of_sixteen_bytes_a_message_is_noticed() {
        let leaking = sabotaged(|sample| sample.resident_bytes += 16 * sample.messages);
        assert_eq!(not_flat(&leaking), ["memory in use"]);
    }

    #[test]
    fn tokens_that_are_never_consumed_are_noticed() {
        let growing = sabotaged(|sample| sample.outbox_entries += sample.messages / 5_000);
        assert_eq!(not_flat(&growing), ["deduplication data"]);
    }

    #[test]
    fn a_rate_that_falls_by_a_quarter_is_noticed_and_one_that_rises_is_not_held_against_it() {
        let slower = sabotaged(|sample| sample.rate *= 1.0 - sample.seconds / 3_600.0 / 4.0);
        assert_eq!(not_flat(&slower), ["messages a second"]);
        let faster = sabotaged(|sample| sample.rate *= 1.0 + sample.seconds / 3_600.0);
        assert_eq!(not_flat(&faster), Vec::<&str>::new());
    }

    #[test]
    fn a_queue_that_grows_and_a_message_that_costs_more_and_more_are_noticed() {
        let late = sabotaged(|sample| sample.behind += sample.messages / 1_000);
        assert_eq!(not_flat(&late), ["messages under way"]);
        let dear = sabotaged(|sample| sample.processor_us += sample.seconds / 30.0);
        assert_eq!(not_flat(&dear), ["processor time a message"]);
    }

    #[test]
    fn what_was_bad_in_the_first_half_only_is_not_judged() {
        let warm_up = sabotaged(|sample| {
            if sample.seconds < 1_700.0 {
                sample.resident_bytes /= 3;
                sample.rate /= 2.0;
            }
        });
        assert_eq!(not_flat(&warm_up), Vec::<&str>::new());
    }

    #[test]
    fn a_stall_near_the_end_that_is_caught_up_is_no_trend() {
        let mut samples = an_hour();
        for sample in &mut samples[680..700] {
            sample.rate = 200.0;
            sample.behind = 30_000;
            sample.outbox_entries = 5_000;
            sample.processor_us = 800.0;
        }
        assert_eq!(not_flat(&samples), Vec::<&str>::new());
    }

    #[test]
    fn both_slopes_of_a_straight_line_are_its_own() {
        let line: Vec<(f64, f64)> = (0..20_u32).map(|n| (f64::from(n), 3.0 + 2.0 * f64::from(n))).collect();
        assert!((median_slope(&line) - 2.0).abs() < 1e-9);
        assert!((slope_of_least_squares(&line) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_few_seconds_are_not_judged() {
        let few: Vec<_> = an_hour().into_iter().take(20).collect();
        assert!(matches!(Judgement::of(&few), Judgement::TooShort { samples: 11, .. }));
        assert!(matches!(Judgement::of(&[]), Judgement::TooShort { samples: 0, .. }));
    }
}
