//! How long requests to a cloud may take and how often they are repeated: the same for all clouds.

use std::time::Duration;

use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

/// Most repetitions of one request.
const RETRIES_MAX: usize = 5;

/// No request is repeated for longer than this after it was made first. It must stay well below the time that an attempt has
/// (`attempt_max`, 60 s): what is still being repeated after it is late.
const RETRIES_WITHIN: Duration = Duration::from_secs(20);

/// How long a request may go without any answer, or an answer without going on.
const SILENCE_MAX: &str = "30 seconds";

/// How long reading a blob may take as a whole. Not the 30 s that `object_store` sets: large blobs are read as fast as a handler
/// uses them.
const READING_MAX: &str = "6 hours";

/// How requests are repeated that failed for a passing reason.
pub(crate) fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRIES_WITHIN }
}

/// The bounds of a single request.
pub(crate) const TIMES: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ReadTimeout, SILENCE_MAX), (ClientConfigKey::Timeout, READING_MAX)];
