//! How a broker on SQS is made: bounds, times, the kind of queues and who makes them. Defaults are named here
//! and nowhere else.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use tollgate_broker_kit::BrokerSetupError;

use super::SqsBroker;
use super::receiving::POLL_MAX;
use tollgate_broker_kit::InboxSettings;

/// How long a delivery may stay unsettled without being extended; the default of SQS.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a receiver is taken to be at work on one message: what AWS gives a function at most.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest such time: a message can be hidden for 12 hours altogether, which the last extension has to fit
/// in.
const HOLD_MAX_MAX: Duration = Duration::from_secs(11 * 3600);

/// Messages that are fetched before anybody asks.
const PREFETCH: usize = 40;

/// Most unsettled messages of an endpoint in this process. SQS allows 120,000 of a standard queue in all
/// processes, 20,000 of a FIFO queue.
const IN_FLIGHT_MAX: usize = 10_000;

/// Calls that wait for messages of an endpoint at a time: each brings ten.
const RECEIVERS: usize = 4;

/// How long one attempt of a call may take, if the client does not say. Without a limit a connection that is
/// dark, as behind a gateway that has forgotten it, is waited for without end. Polls have a longer one.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);

/// How long a call may take with its repetitions, if the client does not say.
const CALL_WITHIN: Duration = Duration::from_secs(15);

/// Longest prefix of queues' names: 40 of 80 bytes are left for the endpoint's.
const PREFIX_BYTES_MAX: usize = 40;

/// Emulators want a signature and don't look at whose.
const NOBODY: &str = "emulator";

/// Which kind of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// In any order, as fast as one likes.
    Standard,
    /// In order within a partition, which is the message group; a message that is sent again within five
    /// minutes is stored once. Messages can't be delayed one by one: delays are left out.
    Fifo,
}

impl QueueKind {
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Self::Standard => "",
            Self::Fifo => ".fifo",
        }
    }
}

/// Who makes the queues of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provisioning {
    /// Somebody else: by [`SqsBroker::provision`], or with infrastructure as code.
    Beforehand,
    /// This broker, at an endpoint's first use.
    OnUse,
}

/// What a broker on SQS was asked to be like.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) prefix: String,
    pub(super) kind: QueueKind,
    pub(super) inbox: InboxSettings,
    pub(super) receivers: usize,
    pub(super) poll: Duration,
    pub(super) provisioning: Provisioning,
}

/// Makes an [`SqsBroker`].
#[derive(Debug)]
#[must_use]
pub struct SqsBuilder {
    client: Client,
    settings: Settings,
}

impl SqsBroker {
    /// Begins a broker on an emulator at this URL (`http://127.0.0.1:9324`), without TLS.
    pub fn at_emulator(url: &str) -> SqsBuilder {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new(NOBODY, NOBODY, None, None, NOBODY))
            .endpoint_url(url)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Self::on(&Client::from_conf(config.build()))
    }

    /// Begins a broker with region and credentials from the environment: variables, profile, container or
    /// instance.
    #[cfg(feature = "tls")]
    pub async fn from_environment() -> SqsBuilder {
        use aws_smithy_http_client::tls::Provider;
        use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        Self::on(&Client::new(&config))
    }
}

impl SqsBuilder {
    pub(super) fn new(client: &Client) -> Self {
        let inbox = InboxSettings {
            visibility_timeout: VISIBILITY_TIMEOUT,
            hold_max: HOLD_MAX,
            prefetch: PREFETCH,
            in_flight_max: IN_FLIGHT_MAX,
        };
        let settings = Settings {
            prefix: String::new(),
            kind: QueueKind::Standard,
            inbox,
            receivers: RECEIVERS,
            poll: POLL_MAX,
            provisioning: Provisioning::Beforehand,
        };
        Self { client: bounded(client), settings }
    }

    /// Sets the beginning of queues' names: nothing if not given. At most 40 letters, digits, `_` and `-`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Which kind of queues: standard ones if not given.
    pub const fn kind(mut self, kind: QueueKind) -> Self {
        self.settings.kind = kind;
        self
    }

    /// How long SQS waits before it delivers again, unless it is told to wait longer: 30 s if not given, in
    /// whole seconds.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.inbox.visibility_timeout = Duration::from_secs(timeout.as_secs().max(1));
        self
    }

    /// For how long it is told so for a message that a receiver has and does not settle: 15 min if not given,
    /// 11 h at most. Zero: never.
    pub fn hold_max(mut self, time: Duration) -> Self {
        self.settings.inbox.hold_max = time.min(HOLD_MAX_MAX);
        self
    }

    /// Messages of an endpoint that are fetched before anybody asks for them: 40 if not given.
    pub const fn prefetch(mut self, messages: usize) -> Self {
        self.settings.inbox.prefetch = messages;
        self
    }

    /// Most unsettled messages of an endpoint in this process: 10,000 if not given.
    pub const fn in_flight_max(mut self, messages: usize) -> Self {
        self.settings.inbox.in_flight_max = messages;
        self
    }

    /// Calls that wait for messages of an endpoint at a time: 4 if not given. Each brings ten messages at
    /// most.
    pub fn receivers(mut self, receivers: usize) -> Self {
        self.settings.receivers = receivers.max(1);
        self
    }

    /// How long one call waits for messages: 20 s if not given, which is the most that SQS allows. Shorter
    /// ones cost more calls; closing, and noticing that a connection is dark, takes a few seconds longer than
    /// this. In whole seconds.
    pub fn poll(mut self, wait: Duration) -> Self {
        self.settings.poll = Duration::from_secs(wait.as_secs().max(1)).min(POLL_MAX);
        self
    }

    /// Who makes queues: somebody else if not said otherwise.
    pub const fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.settings.provisioning = provisioning;
        self
    }

    /// Builds the broker. It makes no call yet.
    ///
    /// # Errors
    /// [`BrokerSetupError::Settings`] if the prefix is too long or has other signs.
    pub fn build(self) -> Result<SqsBroker, BrokerSetupError> {
        let prefix = &self.settings.prefix;
        let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(is_legal) {
            let allowed = format!("at most {PREFIX_BYTES_MAX} letters, digits, `_` and `-`");
            return Err(BrokerSetupError::settings(format!(
                "the prefix {prefix:?} of queues must be {allowed}"
            )));
        }
        Ok(SqsBroker { client: self.client, settings: self.settings, endpoints: Mutex::new(HashMap::new()) })
    }
}

/// The same client with a limit for each call, where it has none of its own.
fn bounded(client: &Client) -> Client {
    let given = client.config().timeout_config();
    let attempt = given.and_then(TimeoutConfig::operation_attempt_timeout).unwrap_or(ATTEMPT_WITHIN);
    let call = given.and_then(TimeoutConfig::operation_timeout).unwrap_or(CALL_WITHIN);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt).operation_timeout(call);
    Client::from_conf(client.config().to_builder().timeout_config(timeouts.build()).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_has_a_time_limit_also_on_a_client_of_ones_own() {
        let own = |timeouts: TimeoutConfig| {
            let config = Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::from_static("us-east-1"))
                .timeout_config(timeouts)
                .http_client(aws_smithy_http_client::Builder::new().build_http());
            SqsBroker::on(&Client::from_conf(config.build())).build().unwrap()
        };
        let limit =
            |broker: &SqsBroker| broker.client.config().timeout_config().unwrap().operation_attempt_timeout();
        assert_eq!(limit(&own(TimeoutConfig::builder().build())), Some(ATTEMPT_WITHIN));
        let longer = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(9)).build();
        assert_eq!(limit(&own(longer)), Some(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn a_prefix_that_would_be_cut_is_refused() {
        let with = |prefix: &str| SqsBroker::at_emulator("http://127.0.0.1:1").prefix(prefix).build();
        assert!(with("shop-").is_ok());
        for prefix in ["p".repeat(41).as_str(), "läden-", "a b"] {
            let refused = with(prefix).unwrap_err().to_string();
            assert!(refused.contains("at most 40"), "{refused}");
        }
    }
}
