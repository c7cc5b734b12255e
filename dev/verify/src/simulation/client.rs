//! A client: somebody outside the processes. It asks whatever process is alive, loses its patience, and asks another one. It is not
//! part of what is tested, so it never fails by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate::{HandlerError, Message, TollgateError, Tx};
use tollgate_proto::{
    Content, Destination, EndpointName, Envelope, MessageId, MessageType, OutgoingMessage, PartitionKey,
    codec,
};

use super::run::Universe;

/// A client of the simulated processes.
#[derive(Clone)]
pub struct Client {
    pub(super) universe: Arc<Universe>,
}

/// Why a client gave up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The request will never be executed.
    #[error("the request was refused: {0}")]
    Refused(String),
    /// A name breaks a rule, or a message can't be written.
    #[error("the client itself is wrong: {0}")]
    Invalid(String),
}

/// The longest that a client waits for one answer.
const PATIENCE_MAX: Duration = Duration::from_secs(4);

/// How long what a request was answered is remembered: for longer than any run.
const RETENTION: Duration = Duration::from_secs(1_000_000);

impl Client {
    /// Makes a request at an edge until it is answered, at whatever process is alive. The handler may run more than once.
    ///
    /// # Errors
    /// If the request will never be executed.
    pub async fn execute<R, H, F>(
        &self,
        endpoint: &str,
        partition: &str,
        request_id: &str,
        handler: H,
    ) -> Result<R, ClientError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        loop {
            if let Some(answer) = self.try_once(endpoint, partition, request_id, handler.clone()).await? {
                return Ok(answer);
            }
        }
    }

    /// Makes a request once, and goes away when its patience has ended: `None`. It may be executed all the same.
    ///
    /// # Errors
    /// If the request will never be executed.
    pub async fn try_once<R, H, F>(
        &self,
        endpoint: &str,
        partition: &str,
        request_id: &str,
        handler: H,
    ) -> Result<Option<R>, ClientError>
    where
        R: Serialize + DeserializeOwned,
        H: Fn(Tx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        let gate = self.universe.any_gate();
        let patience = self.universe.random_duration(PATIENCE_MAX);
        let answer = tokio::time::timeout(patience, async {
            gate.edge(endpoint)?.execute(partition, request_id, RETENTION, handler).await
        })
        .await;
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(TollgateError::RequestRefused { reason })) => Err(ClientError::Refused(reason)),
            // Its process has died, or it was told to come again, or it lost its patience.
            Ok(Err(_)) | Err(_) => {
                self.universe.wires.count(|tally| tally.impatient_clients += 1);
                tokio::time::sleep(self.universe.random_duration(PATIENCE_MAX / 8)).await;
                Ok(None)
            }
        }
    }

    /// Sends a message as a producer does that knows no tokens, so that it is known by its id only; the broker may duplicate it
    /// like any other. It is sent until the broker has confirmed it.
    ///
    /// # Errors
    /// If a name breaks a rule or the message can't be written as JSON.
    pub async fn send<M: Message>(
        &self,
        endpoint: &str,
        partition: &str,
        id: MessageId,
        message: &M,
    ) -> Result<(), ClientError> {
        let invalid = |error: &dyn std::fmt::Display| ClientError::Invalid(error.to_string());
        let to = Destination {
            endpoint: EndpointName::new(endpoint).map_err(|error| invalid(&error))?,
            partition: PartitionKey::new(partition).map_err(|error| invalid(&error))?,
        };
        let body = serde_json::to_vec(message).map_err(|error| invalid(&error))?;
        let envelope = Envelope {
            message_id: id,
            to: to.clone(),
            message_type: MessageType::new(M::TYPE).map_err(|error| invalid(&error))?,
            headers: Vec::new(),
            content: Content::Body(Bytes::from(body)),
        };
        let envelope = codec::encode_envelope(&envelope);
        let outgoing = OutgoingMessage::without_token(to.endpoint, to.partition, id, envelope);
        loop {
            let sending = self.universe.broker.send(vec![outgoing.clone()]);
            let sent = tokio::time::timeout(PATIENCE_MAX, sending).await;
            if sent.is_ok_and(|answers| answers.iter().all(Result::is_ok)) {
                return Ok(());
            }
            tokio::time::sleep(self.universe.random_duration(PATIENCE_MAX / 8)).await;
        }
    }

    /// Waits for a random time, at most so long.
    pub async fn pause(&self, max: Duration) {
        tokio::time::sleep(self.universe.random_duration(max)).await;
    }
}
