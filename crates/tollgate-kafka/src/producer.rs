//! Sending with confirmation: a batch is handed to the client, then all its confirmations are waited for. The
//! producer is idempotent: repetitions of its own leave one copy, in order. A producer that has failed for
//! good is replaced.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::record::Record;

/// How long to wait when a producer is closed for what is on its way.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// A message and where it goes.
#[derive(Clone, Debug)]
pub(super) struct Production {
    pub(super) topic: String,
    pub(super) record: Record,
    /// Why it is put aside, if it is.
    pub(super) reason: Option<String>,
}

/// Who sends messages.
pub(super) struct Producer {
    config: ClientConfig,
    present: RwLock<FutureProducer>,
}

impl Producer {
    pub(super) fn open(config: ClientConfig) -> KafkaResult<Arc<Self>> {
        let present = RwLock::new(config.create()?);
        Ok(Arc::new(Self { config, present }))
    }

    fn present(&self) -> FutureProducer {
        self.present.read().expect("nothing panics while it holds the producer").clone()
    }

    /// Sends messages; one answer each, in their order.
    pub(super) async fn produce(&self, batch: &[Production]) -> Vec<Result<(), KafkaError>> {
        let producer = self.present();
        let mut confirmations = Vec::with_capacity(batch.len());
        for Production { topic, record, reason } in batch {
            let message = FutureRecord::to(topic)
                .key(&record.key)
                .payload(&record.envelope[..])
                .headers(record.headers(reason.as_deref()));
            confirmations.push(producer.send_result(message).map_err(|(error, _)| error));
        }
        let mut answers = Vec::with_capacity(batch.len());
        for confirmation in confirmations {
            answers.push(match confirmation {
                Ok(confirmation) => match confirmation.await {
                    Ok(delivered) => delivered.map(|_| ()).map_err(|(error, _)| error),
                    Err(_) => Err(KafkaError::Canceled),
                },
                Err(error) => Err(error),
            });
        }
        if answers.iter().any(Result::is_err) {
            self.replace_if_fatal(&producer);
        }
        answers
    }

    /// An idempotent producer that has lost its place among its own messages refuses everything from then on.
    fn replace_if_fatal(&self, failed: &FutureProducer) {
        let Some((code, reason)) = failed.client().fatal_error() else { return };
        let mut present = self.present.write().expect("nothing panics while it holds the producer");
        if present.client().fatal_error().is_none() {
            return;
        }
        tracing::warn!(%code, reason, "the producer failed for good and is replaced");
        match self.config.create() {
            Ok(fresh) => *present = fresh,
            Err(error) => tracing::warn!(%error, "the producer can't be replaced yet"),
        }
    }

    pub(super) async fn close(&self) {
        let producer = self.present();
        // What is not confirmed by now is answered as failed.
        let _ = tokio::task::spawn_blocking(move || producer.flush(FLUSH_WITHIN)).await;
    }
}
