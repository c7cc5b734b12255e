//! A broker in another process. What it had given to a process that died it gives again after its visibility timeout.

use std::fmt;
use std::sync::Arc;

use tollgate::Broker;
use tollgate::proto::{BoxFuture, BrokerError, Delivery, EndpointName, OutgoingMessage, Settlement};

use super::connection::{CallError, Connection};
use super::operation::{Operation, QueueDepth};

/// A broker that a host serves.
pub struct RemoteBroker {
    connection: Arc<Connection>,
}

impl RemoteBroker {
    /// The broker at the other end of a connection.
    pub const fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// What is in an endpoint's queue.
    ///
    /// # Errors
    /// If the host does not answer.
    pub async fn depth(&self, endpoint: &EndpointName) -> Result<QueueDepth, BrokerError> {
        let depth = self.connection.call(Operation::Depth, endpoint).await;
        depth.map_err(|error| failed(endpoint, &error))
    }
}

fn failed(endpoint: &EndpointName, error: &CallError) -> BrokerError {
    let endpoint = endpoint.clone();
    match error {
        CallError::NotSent(_) | CallError::Lost => {
            BrokerError::Unavailable { endpoint, reason: error.to_string() }
        }
        CallError::Refused(_) => BrokerError::Misconfigured { endpoint, reason: error.to_string() },
    }
}

impl Broker for RemoteBroker {
    fn send(&self, messages: Vec<OutgoingMessage>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(async move {
            match self.connection.call(Operation::Send, &messages).await {
                Ok(answers) => answers,
                Err(error) => messages.iter().map(|message| Err(failed(&message.endpoint, &error))).collect(),
            }
        })
    }

    fn receive(
        &self,
        endpoint: &EndpointName,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, BrokerError>> {
        let arguments = (endpoint.clone(), max);
        Box::pin(async move {
            let received = self.connection.call(Operation::Receive, &arguments).await;
            received.unwrap_or_else(|error| Err(failed(&arguments.0, &error)))
        })
    }

    fn settle(
        &self,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        let arguments = (endpoint.clone(), settlements);
        Box::pin(async move {
            match self.connection.call(Operation::Settle, &arguments).await {
                Ok(answers) => answers,
                Err(error) => arguments.1.iter().map(|_| Err(failed(&arguments.0, &error))).collect(),
            }
        })
    }

    /// A host that counts an endpoint's messages has its queue.
    fn verify(&self, endpoint: &EndpointName) -> BoxFuture<'_, Result<(), BrokerError>> {
        let endpoint = endpoint.clone();
        Box::pin(async move { self.depth(&endpoint).await.map(drop) })
    }
}

impl fmt::Debug for RemoteBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBroker").finish_non_exhaustive()
    }
}
