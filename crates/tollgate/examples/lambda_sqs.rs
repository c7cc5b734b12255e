//! The handler of an AWS Lambda function behind an SQS queue, with partial batch responses: what is done is deleted, what failed comes
//! again, and poison is put aside. With the `lambda_runtime` crate, its `main` is
//! `run(service_fn(|event: LambdaEvent<SqsEvent>| handle(&gate, event.payload, park)))`; this one takes the event from its standard
//! input and prints the response.
//!
//! The gate is opened once for each execution environment, not for each event. What the event source mapping needs:
//! `ReportBatchItemFailures`; a visibility timeout of the queue that is longer than the function's timeout; a redrive policy with a
//! `maxReceiveCount` above the gate's `deliveries_max`, so that the gate, which knows the reason, gives up first.
//!
//! `echo '{"Records":[{"messageId":"1","body":"bm90aGluZw=="}]}' | cargo run -p tollgate --example lambda_sqs`

use std::sync::Arc;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tollgate::proto::EndpointName;
use tollgate::{Endpoint, Gate, HandlerError, Message, Received, Tx, Verdict};
use tollgate_embedded::MemoryStore;

/// Counts every delivery of a message, this one included.
const RECEIVE_COUNT: &str = "ApproximateReceiveCount";

/// Handles one event. `park` puts a message aside, with the reason: an SQS queue for dead letters, as a rule. If that fails the
/// message comes again.
pub async fn handle<E: std::fmt::Display>(
    gate: &Gate,
    queue_of: &EndpointName,
    event: SqsEvent,
    park: impl AsyncFn(SqsMessage, String) -> Result<(), E>,
) -> SqsBatchResponse {
    let batch = event.records.iter().map(|message| received(message, queue_of)).collect();
    // If the function runs out of time here, nothing is reported and every message comes again: those that are done are recognised.
    let verdicts = gate.process_all(batch).await;
    let mut response = SqsBatchResponse::default();
    for (message, verdict) in event.records.into_iter().zip(verdicts) {
        let id = message.message_id.clone().unwrap_or_default();
        match verdict {
            Verdict::Acknowledge => {}
            // How long it waits is the queue's visibility timeout: Lambda can't say it for each message.
            Verdict::Retry { .. } => response.add_failure(id),
            Verdict::DeadLetter { reason } => {
                if let Err(error) = park(message, reason).await {
                    eprintln!("message {id} could not be put aside and comes again: {error}");
                    response.add_failure(id);
                }
            }
        }
    }
    response
}

/// SQS carries text, so an envelope travels as base64.
fn received(message: &SqsMessage, queue_of: &EndpointName) -> Received {
    let text = message.body.as_deref().unwrap_or_default();
    // What is no base64 is no envelope: the endpoint may know it as a foreign message.
    let envelope = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
    let count = message.attributes.get(RECEIVE_COUNT).and_then(|count| count.parse().ok()).unwrap_or(1);
    Received::new(Bytes::from(envelope)).delivery_count(count).from_queue_of(queue_of.clone())
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Earned(u64);

impl Message for Earned {
    const TYPE: &'static str = "shop.earned";
}

async fn add_points(tx: Tx, Earned(points): Earned) -> Result<(), HandlerError> {
    let before: u64 = tx.get("points").await?.unwrap_or(0);
    tx.put("points", &(before + points))?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the test of this example has a main function of its own")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gate = Gate::builder()
        // A function has DynamoDB behind it as a rule, and `Broker::send` of an SQS broker as its sender.
        .store(Arc::new(MemoryStore::new("main".try_into()?)))
        .sender(|messages| async move { messages.iter().map(|_| Ok(())).collect() })
        .endpoint(Endpoint::new("customers").driven().preload("points").on(add_points))
        .open()
        .await?;
    let event: SqsEvent = serde_json::from_reader(std::io::stdin())?;
    let park = async |message: SqsMessage, reason: String| {
        eprintln!("dead letter {}: {reason}", message.message_id.unwrap_or_default());
        Ok::<_, std::convert::Infallible>(())
    };
    let response = handle(&gate, &EndpointName::new("customers")?, event, park).await;
    println!("{}", serde_json::to_string(&response)?);
    gate.close().await;
    Ok(())
}
