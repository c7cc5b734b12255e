//! How messages are taken: by long polling, up to ten a call; and how their visibility timeout is extended
//! while they are here.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Config;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::MessageSystemAttributeName;
use tollgate_proto::store::BoxFuture;
use tollgate_proto::{BrokerError, EndpointName};

use super::builder::Settings;
use super::{failure, hide, message};
use tollgate_broker_kit::{Fetcher, Keeper, Order};

/// How long SQS waits for a message at most: its limit. Each empty answer is paid for.
pub(super) const POLL_MAX: Duration = Duration::from_secs(20);

/// How much longer than its wait one poll may take: SQS answers it then, with messages or without.
const ANSWERED_AFTER: Duration = Duration::from_secs(5);

/// Most messages of one answer: a limit of SQS.
const MESSAGES_MAX: usize = 10;

/// What SQS wants back of a delivery, and what a dead letter says of it.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) receipt: String,
    pub(super) message_id: String,
    /// The body was base64 of the envelope; otherwise it is the envelope.
    pub(super) is_encoded: bool,
    pub(super) headers: Vec<(String, String)>,
}

/// Receives the messages of an endpoint.
pub(super) struct Receiver {
    client: Client,
    endpoint: EndpointName,
    url: String,
    visibility_seconds: i32,
    poll: Duration,
}

impl Receiver {
    pub(super) fn new(client: Client, endpoint: EndpointName, url: String, settings: &Settings) -> Self {
        let timeout = settings.inbox.visibility_timeout.as_secs().max(1);
        let visibility_seconds = i32::try_from(timeout).unwrap_or(i32::MAX);
        Self { client, endpoint, url, visibility_seconds, poll: settings.poll }
    }
}

impl Fetcher<Handle> for Receiver {
    const FETCH_MAX: usize = MESSAGES_MAX;
    // A poll that nobody waits for goes on at the server, and would take what is given back: it is there
    // again only when its visibility timeout is over. So every poll is waited for.
    const CLOSE_WAIT: Duration = POLL_MAX.saturating_add(Duration::from_secs(2));
    const FETCH_WITHIN: Duration =
        POLL_MAX.saturating_add(ANSWERED_AFTER).saturating_add(Duration::from_secs(1));

    fn fetch<'a>(&'a mut self, order: &'a Order<Handle>) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let max = i32::try_from(order.missing()).unwrap_or(i32::MAX);
            let call = self.client.receive_message().queue_url(&self.url).max_number_of_messages(max);
            let call = call
                .wait_time_seconds(i32::try_from(self.poll.as_secs()).unwrap_or(i32::MAX))
                .visibility_timeout(self.visibility_seconds);
            let call =
                call.message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
            // In place of the client's limits, which are those of calls that are answered at once.
            let within = self.poll + ANSWERED_AFTER;
            let limits = TimeoutConfig::builder().operation_attempt_timeout(within).operation_timeout(within);
            let call = call.message_attribute_names("All").customize();
            let received =
                call.config_override(Config::builder().timeout_config(limits.build())).send().await;
            let received = received.map_err(|error| failure::of_call(&self.endpoint, &error))?;
            let arrivals: Vec<_> =
                received.messages.unwrap_or_default().into_iter().filter_map(message::arrival).collect();
            if !arrivals.is_empty() {
                order.deliver(arrivals);
            }
            Ok(())
        })
    }
}

/// Extends visibility timeouts.
pub(super) struct Extender {
    client: Client,
    endpoint: EndpointName,
    url: String,
    timeout: Duration,
}

impl Extender {
    pub(super) const fn new(client: Client, endpoint: EndpointName, url: String, timeout: Duration) -> Self {
        Self { client, endpoint, url, timeout }
    }

    async fn hide(&self, handles: Vec<Handle>, seconds: u64) {
        let handles = handles.into_iter().map(|handle| (handle, seconds)).collect();
        let outcomes = hide(&self.client, &self.endpoint, &self.url, handles).await;
        let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        if let Some(error) = failed.first() {
            let count = failed.len();
            tracing::warn!(endpoint = %self.endpoint, count, %error, "visibility timeouts could not be changed");
        }
    }
}

impl Keeper<Handle> for Extender {
    fn extend(&self, handles: Vec<Handle>) -> BoxFuture<'_, ()> {
        Box::pin(self.hide(handles, self.timeout.as_secs().max(1)))
    }

    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, ()> {
        Box::pin(self.hide(handles, 0))
    }
}
