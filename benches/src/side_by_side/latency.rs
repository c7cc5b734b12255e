//! What a call to the store waits for, as it would on a network: per call, not per key, so that a batch of a hundred keys waits
//! once and a hundred single calls wait a hundred times. That is what networks do, and what makes batching worth while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a call takes on its way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Latency {
    /// Not at all.
    None,
    /// Always as long. The timer has a resolution of a millisecond and rounds up, for every contender.
    Fixed {
        /// In milliseconds.
        ms: f64,
    },
    /// Mostly so long, rarely much longer.
    LogNormal {
        /// Half of all calls are faster, in milliseconds.
        median_ms: f64,
        /// The standard deviation of the logarithm: 0.5 makes one call in a hundred 3.2 times as long.
        sigma: f64,
    },
}

const MILLISECONDS: f64 = 1_000.0;

impl Latency {
    /// The wait of the next call. `None`: there is none.
    pub fn draw(self, random: &mut fastrand::Rng) -> Option<Duration> {
        let ms = match self {
            Self::None => return None,
            Self::Fixed { ms } => ms,
            Self::LogNormal { median_ms, sigma } => {
                // Box and Muller: a normal number of two uniform ones, the first of them not 0.
                let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
                median_ms * (sigma * normal).exp()
            }
        };
        Some(Duration::from_secs_f64(ms.max(0.0) / MILLISECONDS))
    }

    /// Its middle, in milliseconds.
    pub const fn median_ms(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Fixed { ms } => ms,
            Self::LogNormal { median_ms, .. } => median_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_log_normal_waits_are_below_the_median_and_some_are_much_longer() {
        let mut random = fastrand::Rng::with_seed(1);
        let latency = Latency::LogNormal { median_ms: 5.0, sigma: 0.5 };
        let waits: Vec<f64> =
            (0..10_000).map(|_| latency.draw(&mut random).unwrap().as_secs_f64() * 1_000.0).collect();
        let below = waits.iter().filter(|wait| **wait < 5.0).count();
        assert!((4_800..5_200).contains(&below), "{below} of 10,000 are below the median");
        let long = waits.iter().filter(|wait| **wait > 16.0).count();
        assert!((50..200).contains(&long), "{long} of 10,000 are 3.2 times as long");
    }
}
