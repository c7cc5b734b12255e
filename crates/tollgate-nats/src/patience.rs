//! How long to wait for the server: until a moment that all answers of a call share, and hardly longer than
//! the connection on which it was asked. A server that was killed never answers what it had been asked, and a
//! hundred answers that are awaited one after the other, each with a deadline of its own, take minutes not to
//! come.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::ANSWERED_WITHIN;

/// How long to wait on a new connection for what was asked before: it may have been sent on the new one.
const AFTER_RECONNECTING: Duration = Duration::from_secs(1);

/// How often it is looked whether there is a connection: the client tells of its event a moment before it has
/// the state.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Of one call.
pub(super) struct Patience {
    /// What has changed here has changed since the call began.
    connections: watch::Receiver<u64>,
    until: Instant,
}

impl Patience {
    /// Of a call that begins now.
    pub(super) fn from_now(connections: &watch::Receiver<u64>) -> Self {
        let mut connections = connections.clone();
        connections.mark_unchanged();
        Self { connections, until: Instant::now() + ANSWERED_WITHIN }
    }

    /// Waits until there is a connection. `false`: none was made in time.
    pub(super) async fn has_connection(&self, client: &Client) -> bool {
        while client.connection_state() != State::Connected {
            if Instant::now() >= self.until {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Ends when no answer is to be expected any more.
    pub(super) async fn ended(mut self) {
        if let Ok(Ok(())) = timeout_at(self.until, self.connections.changed()).await {
            sleep_until(self.until.min(Instant::now() + AFTER_RECONNECTING)).await;
        }
    }
}
