//! How a broker on SQS is made: bounds, times, the kind of queues and who makes them. Defaults are named here and nowhere else.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};

use super::SqsBroker;
use tollgate_broker_kit::InboxSettings;

/// How long a delivery may stay unsettled without being extended; the default of SQS.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a receiver is taken to be at work on one message: what AWS gives a function at most.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest such time: a message can be hidden for 12 hours altogether, which the last extension has to fit in.
const HOLD_MAX_MAX: Duration = Duration::from_secs(11 * 3600);

/// Messages that are fetched before anybody asks.
const PREFETCH: usize = 40;

/// Most unsettled messages of an endpoint in this process. SQS allows 120,000 of a standard queue in all processes, 20,000 of a FIFO queue.
const IN_FLIGHT_MAX: usize = 10_000;

/// Calls that wait for messages of an endpoint at a time: each brings ten.
const RECEIVERS: usize = 4;

/// Emulators want a signature and don't look at whose.
const NOBODY: &str = "emulator";

/// Which kind of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// In any order, as fast as one likes.
    Standard,
    /// In order within a partition, which is the message group; a message that is sent again within five minutes is stored once. Messages
    /// can't be delayed one by one: delays are left out.
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
        Self::on(Client::from_conf(config.build()))
    }

    /// Begins a broker with region and credentials from the environment: variables, profile, container or instance.
    #[cfg(feature = "tls")]
    pub async fn from_environment() -> SqsBuilder {
        use aws_smithy_http_client::tls::Provider;
        use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        Self::on(Client::new(&config))
    }
}

impl SqsBuilder {
    pub(super) fn new(client: Client) -> Self {
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
            provisioning: Provisioning::Beforehand,
        };
        Self { client, settings }
    }

    /// What the names of queues begin with: nothing if not given. At most 40 letters, digits, `_` and `-`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self.settings.prefix.truncate(40);
        self
    }

    /// Which kind of queues: standard ones if not given.
    pub const fn kind(mut self, kind: QueueKind) -> Self {
        self.settings.kind = kind;
        self
    }

    /// How long SQS waits before it delivers again, unless it is told to wait longer: 30 s if not given, in whole seconds.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.inbox.visibility_timeout = Duration::from_secs(timeout.as_secs().max(1));
        self
    }

    /// For how long it is told so for a message that a receiver has and does not settle: 15 min if not given, 11 h at most. Zero: never.
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

    /// Calls that wait for messages of an endpoint at a time: 4 if not given. Each brings ten messages at most.
    pub fn receivers(mut self, receivers: usize) -> Self {
        self.settings.receivers = receivers.max(1);
        self
    }

    /// Who makes queues: somebody else if not said otherwise.
    pub const fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.settings.provisioning = provisioning;
        self
    }

    /// The broker. It makes no call yet.
    pub fn build(self) -> SqsBroker {
        SqsBroker { client: self.client, settings: self.settings, endpoints: Mutex::new(HashMap::new()) }
    }
}
