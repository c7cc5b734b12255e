//! A connection that comes back: one task opens it, watches it and opens it again, with a pause that grows.
//! Channels are the business of those who ask for the connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;

/// How long to wait for an answer of RabbitMQ to anything but a receive.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The longest pause before the first repetition.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause at all. A restart of RabbitMQ takes some seconds, and nobody wants to wait much longer
/// for us.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a connection is looked at, besides waiting for news of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// AMQP's reply code of a connection that is closed because nobody needs it any more.
pub(super) const REPLY_SUCCESS: u16 = 200;

/// How a connection is doing.
#[derive(Clone, Debug)]
enum State {
    Down(Problem),
    Up(Arc<Connection>),
}

/// One connection to RabbitMQ, whenever there is one.
pub(super) struct Link {
    state: watch::Receiver<State>,
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Link {
    /// Begins to connect. `name` is what RabbitMQ shows to its operators.
    pub(super) fn open(uris: Vec<AMQPUri>, name: String) -> Self {
        let (tell, state) = watch::channel(State::Down(Problem::passing("not connected yet")));
        let closing = CancellationToken::new();
        let task = tokio::spawn(keep_connected(uris, name, tell, closing.clone()));
        Self { state, closing, task: Mutex::new(Some(task)) }
    }

    /// A new channel of the connection, which is waited for if it is down.
    pub(super) async fn channel(&self) -> Result<Channel, Problem> {
        let mut state = self.state.clone();
        let opening = async {
            let connection = match state.wait_for(|state| matches!(state, State::Up(_))).await.as_deref() {
                Ok(State::Up(connection)) => Arc::clone(connection),
                Ok(State::Down(problem)) => return Err(problem.clone()),
                Err(_) => return Err(Problem::passing("the connection was closed")),
            };
            connection.create_channel().await.map_err(|error| Problem::of(&error))
        };
        match tokio::time::timeout(ANSWER_WITHIN, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(self.problem().unwrap_or_else(|| Problem::passing("RabbitMQ does not answer"))),
        }
    }

    /// Why there is no connection, if there is none.
    pub(super) fn problem(&self) -> Option<Problem> {
        match &*self.state.borrow() {
            State::Up(_) => None,
            State::Down(problem) => Some(problem.clone()),
        }
    }

    /// Ends the connection, and with it everything that was delivered over it and not settled.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let task = self.task.lock().expect("nothing panics while it holds the task").take();
        if let Some(task) = task {
            // A panic in it has been reported already.
            let _ = task.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

async fn keep_connected(
    uris: Vec<AMQPUri>,
    name: String,
    tell: watch::Sender<State>,
    closing: CancellationToken,
) {
    let mut failures = 0;
    // The nodes of a cluster in turns, from any of them.
    let mut node = fastrand::usize(..uris.len().max(1));
    while !closing.is_cancelled() {
        node = (node + 1) % uris.len().max(1);
        let Some(uri) = uris.get(node) else { return };
        let properties = ConnectionProperties::default().with_connection_name(name.clone().into());
        let connecting =
            tokio::time::timeout(ANSWER_WITHIN, Connection::connect_uri(uri.clone(), properties));
        let problem = match closing.run_until_cancelled(connecting).await {
            None => break,
            Some(Err(_)) => Problem::passing("RabbitMQ does not answer"),
            Some(Ok(Err(error))) => Problem::of(&error),
            Some(Ok(Ok(connection))) => {
                failures = 0;
                let connection = Arc::new(connection);
                tell.send_replace(State::Up(Arc::clone(&connection)));
                tracing::info!(connection = name, "connected to RabbitMQ");
                let Some(problem) = closing.run_until_cancelled(lost(&connection)).await else {
                    tell.send_replace(State::Down(Problem::passing("the connection was closed")));
                    let goodbye = connection.close(REPLY_SUCCESS, "closed".into());
                    let _ = tokio::time::timeout(ANSWER_WITHIN, goodbye).await;
                    break;
                };
                problem
            }
        };
        failures += 1;
        tracing::warn!(connection = name, ?problem, failures, "not connected to RabbitMQ");
        tell.send_replace(State::Down(problem));
        closing.run_until_cancelled(tokio::time::sleep(pause(failures))).await;
    }
}

/// Waits until a connection is lost.
async fn lost(connection: &Connection) -> Problem {
    let mut events = Box::pin(connection.events_listener());
    loop {
        match tokio::time::timeout(LOOK_EVERY, events.next()).await {
            Ok(Some(Event::Error(error))) if !connection.status().connected() => return Problem::of(&error),
            Ok(Some(Event::ConnectionBlocked(reason))) => {
                tracing::warn!(reason, "RabbitMQ takes no messages for now");
            }
            Ok(Some(_)) | Err(_) if connection.status().connected() => {}
            Ok(_) | Err(_) => return Problem::passing("the connection was lost"),
        }
    }
}

/// Half of it is random, so that processes that lost their broker together don't all come back together.
pub(super) fn pause(failures: u32) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}
