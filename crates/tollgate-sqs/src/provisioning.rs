//! The queues of an endpoint: how they are made, whether they will do, and how much is in them.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName;
use tollgate_proto::{BrokerError, EndpointName};

use super::builder::QueueKind;
use super::{SqsBroker, failure};
use tollgate_broker_kit::queue_name::DEAD;

/// How long SQS keeps dead letters: 14 days, its limit.
const DEAD_SECONDS: &str = "1209600";

/// How long SQS keeps messages: 10 days. Its default is 4 days, after which a message is lost. Shorter than
/// dead letters are kept, since a message that SQS moves there by itself keeps its age.
const KEPT_SECONDS: &str = "864000";

/// Deliveries after which SQS itself puts a message aside: the most that SQS allows. An outage spends
/// deliveries and must not dead-letter anything; the gate's own limits come long before.
const RECEIVES_MAX: u32 = 1000;

/// About how many messages of an endpoint are where: SQS tells no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqsDepth {
    /// Not settled: waiting, delayed or delivered.
    pub left: u64,
    /// Messages that were put aside.
    pub dead: u64,
}

impl SqsBroker {
    /// Makes what an endpoint needs and is not there: its queue, and one for dead letters to which SQS moves
    /// by itself what it has delivered 1,000 times. Queues that are there stay as they are: see
    /// [`SqsBroker::differences`].
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if SQS refuses, [`BrokerError::Unavailable`] if it can't be reached.
    pub async fn provision(&self, endpoint: &EndpointName) -> Result<(), BrokerError> {
        let dead = self.queue_name(endpoint, DEAD);
        let dead_url = self
            .make(endpoint, &dead, [(QueueAttributeName::MessageRetentionPeriod, DEAD_SECONDS.to_owned())])
            .await?;
        let dead_arn = self
            .attributes(endpoint, &dead_url)
            .await?
            .remove(&QueueAttributeName::QueueArn)
            .unwrap_or_default();
        let redrive =
            format!("{{\"deadLetterTargetArn\":\"{dead_arn}\",\"maxReceiveCount\":\"{RECEIVES_MAX}\"}}");
        let visibility = self.settings.inbox.visibility_timeout.as_secs().to_string();
        let attributes = [
            (QueueAttributeName::MessageRetentionPeriod, KEPT_SECONDS.to_owned()),
            (QueueAttributeName::VisibilityTimeout, visibility),
            (QueueAttributeName::RedrivePolicy, redrive),
        ];
        self.make(endpoint, &self.queue_name(endpoint, ""), attributes).await.map(drop)
    }

    /// What of an endpoint's queue is not as [`SqsBroker::provision`] would have made it, each with what
    /// follows from it; its redrive policy among it. None: all is well.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] if a queue is missing, [`BrokerError::Unavailable`] if SQS can't be
    /// reached.
    pub async fn differences(&self, endpoint: &EndpointName) -> Result<Vec<String>, BrokerError> {
        let url = self.url(endpoint, &self.queue_name(endpoint, "")).await?;
        let found = self.attributes(endpoint, &url).await?;
        let mut differences = Vec::new();
        let text = |name: QueueAttributeName| found.get(&name).map_or("", String::as_str);
        match text(QueueAttributeName::RedrivePolicy) {
            "" => differences.push(
                "it has no redrive policy: a message that kills whoever takes it is delivered until it expires".to_owned(),
            ),
            policy => {
                // {"deadLetterTargetArn":"...","maxReceiveCount":"1000"}; some answer with a number.
                let count = policy.split("maxReceiveCount").nth(1).map(|rest| rest.chars().filter(char::is_ascii_digit).collect::<String>());
                if count.as_deref() != Some(RECEIVES_MAX.to_string().as_str()) {
                    let count = count.unwrap_or_default();
                    differences.push(format!(
                        "SQS puts messages aside after {count} deliveries, without a reason: let it be more than the gate's `deliveries_max`"
                    ));
                }
            }
        }
        let kept = text(QueueAttributeName::MessageRetentionPeriod);
        if kept != KEPT_SECONDS {
            differences.push(format!("messages are lost after {kept} s and not {KEPT_SECONDS} s"));
        }
        Ok(differences)
    }

    /// About how many messages of an endpoint are in its queues.
    ///
    /// # Errors
    /// As [`SqsBroker::differences`].
    pub async fn depth(&self, endpoint: &EndpointName) -> Result<SqsDepth, BrokerError> {
        let left = self.url(endpoint, &self.queue_name(endpoint, "")).await?;
        let dead = self.url(endpoint, &self.queue_name(endpoint, DEAD)).await?;
        Ok(SqsDepth { left: self.count(endpoint, &left).await?, dead: self.count(endpoint, &dead).await? })
    }

    async fn count(&self, endpoint: &EndpointName, url: &str) -> Result<u64, BrokerError> {
        let found = self.attributes(endpoint, url).await?;
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        Ok(counts.iter().filter_map(|name| found.get(name)?.parse::<u64>().ok()).sum())
    }

    async fn make<const N: usize>(
        &self,
        endpoint: &EndpointName,
        name: &str,
        attributes: [(QueueAttributeName, String); N],
    ) -> Result<String, BrokerError> {
        if let Ok(url) = self.url(endpoint, name).await {
            return Ok(url);
        }
        let mut call = self.client.create_queue().queue_name(name);
        if self.settings.kind == QueueKind::Fifo {
            // In order and once within a group, which is a partition: that is all that is asked for, and
            // takes far more messages.
            call = call
                .attributes(QueueAttributeName::FifoQueue, "true")
                .attributes(QueueAttributeName::DeduplicationScope, "messageGroup")
                .attributes(QueueAttributeName::FifoThroughputLimit, "perMessageGroupId");
        }
        for (name, value) in attributes {
            call = call.attributes(name, value);
        }
        let made = call.send().await.map_err(|error| failure::of_call(endpoint, &error))?;
        made.queue_url.ok_or_else(|| failure::unavailable(endpoint, "SQS made a queue and did not say where"))
    }

    /// Where a queue is.
    pub(super) async fn url(&self, endpoint: &EndpointName, name: &str) -> Result<String, BrokerError> {
        let found = self.client.get_queue_url().queue_name(name).send().await;
        let found = found.map_err(|error| match failure::of_call(endpoint, &error) {
            BrokerError::Misconfigured { endpoint, reason } => {
                BrokerError::Misconfigured { endpoint, reason: format!("queue {name}: {reason}") }
            }
            other => other,
        })?;
        found
            .queue_url
            .ok_or_else(|| failure::unavailable(endpoint, "SQS found a queue and did not say where"))
    }

    async fn attributes(
        &self,
        endpoint: &EndpointName,
        url: &str,
    ) -> Result<HashMap<QueueAttributeName, String>, BrokerError> {
        let call = self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let found = call.send().await.map_err(|error| failure::of_call(endpoint, &error))?;
        Ok(found.attributes.unwrap_or_default())
    }
}
