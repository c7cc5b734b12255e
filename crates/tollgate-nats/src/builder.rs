//! How a broker on NATS is made: bounds, times, and who makes streams. Defaults are named here and nowhere
//! else.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;

use super::{NatsBroker, context};
use tollgate_broker_kit::BrokerSetupError;
use tollgate_broker_kit::InboxSettings;

/// What streams and subjects begin with.
const PREFIX: &str = "tollgate";

/// How long a delivery may stay unsettled without a sign of life. The server's own default as well.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a receiver is taken to be at work on one message: what AWS gives a function at most.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);

/// Messages that are fetched before anybody asks: half of what the engine takes at a time.
const PREFETCH: usize = 64;

/// Most unsettled messages of an endpoint in this process. An envelope with a token is about 200 bytes.
const IN_FLIGHT_MAX: usize = 10_000;

/// For how long the server remembers ids; its own default. It holds them in memory.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Most messages of an endpoint before sends are refused.
const CAPACITY: i64 = 10_000_000;

/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// First such pause; it doubles.
const RECONNECT_MIN: Duration = Duration::from_millis(20);

/// Most slices of an endpoint: each is a durable consumer, which the server keeps books of.
pub const SLICES_MAX: u16 = 256;

/// The server's own deduplication of what is published repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deduplication {
    /// `Nats-Msg-Id` is
    /// [`OutgoingMessage::deduplication_id`](tollgate_proto::OutgoingMessage::deduplication_id): an outbox
    /// entry that is published again within the window is stored once.
    On,
    /// The server stores every copy.
    Off,
}

/// Who makes the streams and consumers of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provisioning {
    /// Somebody else: by [`NatsBroker::provision`], or an administrator.
    Beforehand,
    /// This broker, at an endpoint's first use.
    OnUse,
}

/// What a broker on NATS was asked to be like.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) prefix: String,
    pub(super) inbox: InboxSettings,
    pub(super) deliveries_max: Option<u32>,
    pub(super) deduplication: Deduplication,
    pub(super) duplicate_window: Duration,
    pub(super) provisioning: Provisioning,
    pub(super) capacity: Option<i64>,
    pub(super) replicas: usize,
    pub(super) slices: u16,
    pub(super) own: Range<u16>,
}

impl Settings {
    /// The slices that this process takes messages of.
    pub(super) fn own_slices(&self) -> Range<u16> {
        self.own.start.min(self.slices)..self.own.end.min(self.slices)
    }
}

/// Makes a [`NatsBroker`].
#[derive(Debug)]
#[must_use]
pub struct NatsBuilder {
    address: String,
    options: ConnectOptions,
    settings: Settings,
}

impl NatsBuilder {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            options: ConnectOptions::new(),
            settings: Settings {
                prefix: PREFIX.to_owned(),
                inbox: InboxSettings {
                    visibility_timeout: VISIBILITY_TIMEOUT,
                    hold_max: HOLD_MAX,
                    prefetch: PREFETCH,
                    in_flight_max: IN_FLIGHT_MAX,
                },
                deliveries_max: None,
                deduplication: Deduplication::On,
                duplicate_window: DUPLICATE_WINDOW,
                provisioning: Provisioning::Beforehand,
                capacity: Some(CAPACITY),
                replicas: 1,
                slices: 1,
                own: 0..u16::MAX,
            },
        }
    }

    /// Who one is, TLS, and the like. How to reconnect is decided by the broker.
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// What the names of streams and subjects begin with: `tollgate` if not given. Letters, digits, `_` and
    /// `-` only.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// How long the server waits for a sign of life before it delivers again: 30 s if not given. Becomes the
    /// consumers' `ack_wait`.
    pub const fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.inbox.visibility_timeout = timeout;
        self
    }

    /// For how long signs of life are sent for a message that a receiver has and does not settle: 15 min if
    /// not given. Zero: never.
    pub const fn hold_max(mut self, time: Duration) -> Self {
        self.settings.inbox.hold_max = time;
        self
    }

    /// Messages of an endpoint that are fetched before anybody asks for them: 64 if not given.
    pub const fn prefetch(mut self, messages: usize) -> Self {
        self.settings.inbox.prefetch = messages;
        self
    }

    /// Most unsettled messages of an endpoint in this process: 10,000 if not given.
    pub const fn in_flight_max(mut self, messages: usize) -> Self {
        self.settings.inbox.in_flight_max = messages;
        self
    }

    /// After this many deliveries a message is dead-lettered without being delivered: for those that kill
    /// whoever takes them. Not limited if not given; the gate has a limit of its own, which should be lower.
    /// The server's `max_deliver` is not used: it would leave such a message where nobody finds it.
    pub const fn deliveries_max(mut self, deliveries: u32) -> Self {
        self.settings.deliveries_max = Some(deliveries);
        self
    }

    /// Whether the server is given our ids: it is if not said otherwise.
    pub const fn deduplication(mut self, deduplication: Deduplication) -> Self {
        self.settings.deduplication = deduplication;
        self
    }

    /// For how long the server remembers ids: 2 min if not given. It holds them in memory.
    pub const fn duplicate_window(mut self, window: Duration) -> Self {
        self.settings.duplicate_window = window;
        self
    }

    /// Who makes streams and consumers: somebody else if not said otherwise.
    pub const fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.settings.provisioning = provisioning;
        self
    }

    /// Most messages of an endpoint, unsettled ones included, before sends are answered `BrokerError::Full`:
    /// ten million if not given. Streams that exist keep their own bound.
    pub fn capacity(mut self, messages: u32) -> Self {
        self.settings.capacity = Some(i64::from(messages));
        self
    }

    /// Copies of a stream in a cluster: 1 if not given.
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.settings.replicas = replicas;
        self
    }

    /// Into how many slices an endpoint's partitions are divided: 1 if not given, 256 at most. All processes
    /// must say the same; each slice has a durable consumer of its own. A process that takes messages of few
    /// slices finds their partitions in its cache.
    pub fn slices(mut self, slices: u16) -> Self {
        self.settings.slices = slices.clamp(1, SLICES_MAX);
        self
    }

    /// Of which slices this process takes messages: of all if not given. Each slice must be taken by some
    /// process.
    pub const fn own_slices(mut self, slices: Range<u16>) -> Self {
        self.settings.own = slices;
        self
    }

    /// Connects. If the server can't be reached, that goes on in the background.
    ///
    /// # Errors
    /// [`BrokerSetupError::Connection`] if the address or the options are wrong.
    pub async fn connect(self) -> Result<NatsBroker, BrokerSetupError> {
        let (connected, connections) = watch::channel(0_u64);
        let connected = std::sync::Arc::new(connected);
        let address: Vec<&str> = self.address.split(',').map(str::trim).collect();
        let client = self
            .options
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempts| {
                let doublings = u32::try_from(attempts.min(10)).unwrap_or(10);
                RECONNECT_MIN.saturating_mul(1 << doublings).min(RECONNECT_MAX)
            })
            .event_callback(move |event| {
                let connected = std::sync::Arc::clone(&connected);
                async move {
                    match event {
                        Event::Connected => connected.send_modify(|connections| *connections += 1),
                        other => tracing::warn!(event = %other, "NATS"),
                    }
                }
            })
            .connect(address)
            .await
            .map_err(|error| BrokerSetupError::Connection {
                address: tollgate_broker_kit::without_password(&self.address),
                cause: std::sync::Arc::new(error),
            })?;
        Ok(NatsBroker {
            jetstream: context(&client),
            client,
            settings: self.settings,
            connections,
            endpoints: Mutex::new(HashMap::new()),
        })
    }
}
