//! How a broker on RabbitMQ is made. Defaults are named here and nowhere else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::uri::AMQPUri;
use tokio_util::sync::CancellationToken;

use super::consumer::Settings;
use super::delay_classes::{COUNT_MAX, DelayClasses};
use super::link::Link;
use super::publisher::Publisher;
use super::topology::Topology;
use super::{Endpoints, RabbitMqBroker};
use tollgate_broker_kit::BrokerSetupError;

/// How many deliveries a consumer holds: some times what the engine's window takes by default, so that it
/// never waits.
const PREFETCH_DEFAULT: u16 = 512;

/// How long a delivery may stay unsettled: well below the 30 minutes of RabbitMQ's own `consumer_timeout`,
/// which closes the channel.
const VISIBILITY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// How long a delivery may wait for a receiver in this process before another one may have it.
const WAITING_MAX_DEFAULT: Duration = Duration::from_secs(30);

/// How long to wait for settlements when the broker is closed.
const DRAIN_WITHIN_DEFAULT: Duration = Duration::from_secs(10);

/// After which silence a connection counts as lost, in seconds. RabbitMQ proposes 60, which is a long time
/// for messages that a dead consumer holds.
const HEARTBEAT_SECONDS: u16 = 15;

/// Whether queues are made by whoever uses them first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queues {
    /// They exist, by [`RabbitMqBroker::provision`] or by other tools. Using one that doesn't is an error.
    #[default]
    Exist,
    /// They are provisioned when this process uses an endpoint for the first time. For tests and small
    /// systems: the process needs the right to configure.
    MadeAtFirstUse,
}

/// Makes a [`RabbitMqBroker`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RabbitMqBuilder {
    uri: String,
    queues: Queues,
    topology: Topology,
    settings: Settings,
}

impl RabbitMqBuilder {
    pub(super) fn new(uri: String) -> Self {
        Self {
            uri,
            queues: Queues::default(),
            topology: Topology { prefix: String::new(), delays: DelayClasses::default(), capacity: None },
            settings: Settings {
                prefetch: PREFETCH_DEFAULT,
                visibility_timeout: VISIBILITY_TIMEOUT_DEFAULT,
                waiting_max: WAITING_MAX_DEFAULT,
                drain_within: DRAIN_WITHIN_DEFAULT,
            },
        }
    }

    /// What the names of all queues and exchanges begin with, for systems that share a virtual host. If not
    /// given, a queue is called like its endpoint.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.topology.prefix = prefix.into();
        self
    }

    /// Who makes queues: somebody else, if not given.
    pub const fn queues(mut self, queues: Queues) -> Self {
        self.queues = queues;
        self
    }

    /// How many deliveries each endpoint's consumer holds at most, in this process: 512 if not given. Those
    /// beyond what the engine works on wait in memory.
    pub const fn prefetch(mut self, deliveries: std::num::NonZeroU16) -> Self {
        self.settings.prefetch = deliveries.get();
        self
    }

    /// How long a delivery may stay unsettled before it is put back, counted from when a receiver got it: 15
    /// minutes if not given. Must be shorter than RabbitMQ's `consumer_timeout`.
    pub const fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.visibility_timeout = timeout;
        self
    }

    /// How long a delivery may wait for a receiver before it is put back: 30 s if not given. After that this
    /// process is sent one message at a time, or none, until its receivers ask for more: it may be in
    /// trouble, and others idle.
    pub const fn waiting_max(mut self, wait: Duration) -> Self {
        self.settings.waiting_max = wait;
        self
    }

    /// How many messages the queue of an endpoint takes, if it is made, before a send is answered
    /// `BrokerError::Full`: no limit if not given. RabbitMQ takes some more while it looks.
    pub const fn capacity(mut self, messages: u32) -> Self {
        self.topology.capacity = Some(messages);
        self
    }

    /// The delays that have a queue of each endpoint, 30 at most. Others are rounded up to the next longer
    /// one; those up to one second wait with the consumer. 3 s, 10 s, 30 s, 2 min, 10 min and an hour if not
    /// given.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn delay_classes(
        mut self,
        classes: impl IntoIterator<Item = Duration>,
    ) -> Result<Self, BrokerSetupError> {
        let reason = || format!("there must be between 1 and {COUNT_MAX} classes of delays");
        self.topology.delays =
            DelayClasses::new(classes).ok_or_else(|| BrokerSetupError::Settings { reason: reason() })?;
        Ok(self)
    }

    /// How long [`RabbitMqBroker::close`] waits for deliveries that are being worked on: 10 s if not given.
    pub const fn drain_within(mut self, wait: Duration) -> Self {
        self.settings.drain_within = wait;
        self
    }

    /// Begins to connect, and does not wait for it: a RabbitMQ that is down is waited for by those who use
    /// the broker. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the address is none.
    pub fn open(self) -> Result<RabbitMqBroker, BrokerSetupError> {
        // Never the address itself, which holds a password.
        let wrong =
            |reason: String| BrokerSetupError::Settings { reason: format!("RabbitMQ's address: {reason}") };
        let mut uris = Vec::new();
        for uri in self.uri.split(',') {
            let mut uri: AMQPUri = uri.trim().parse().map_err(wrong)?;
            uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
            uris.push(uri);
        }
        let publisher = Publisher::new(Link::open(uris.clone(), "tollgate publisher".to_owned()));
        Ok(RabbitMqBroker {
            topology: Arc::new(self.topology),
            settings: self.settings,
            queues: self.queues,
            publisher,
            link: Arc::new(Link::open(uris, "tollgate consumer".to_owned())),
            endpoints: Mutex::new(Endpoints::default()),
            closing: CancellationToken::new(),
        })
    }
}
