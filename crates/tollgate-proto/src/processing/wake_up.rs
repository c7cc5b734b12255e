//! The wake-up: sent before a commit that has no incoming message, so that its outgoing messages are published even
//! if this process dies right after it.
//!
//! A wake-up that is consumed before the commit it announces would guarantee nothing. So it names the version that the
//! commit is conditional on: a visitor who still finds that version comes again, and in the end changes the version
//! ([`super::WakeUpPatience::Fence`]), which makes the stalled commit fail.

use super::incoming::Incoming;
use super::{CommitStep, Processing, Remember, Step};
use crate::envelope::{Content, Destination, Envelope, Headers};
use crate::ids::{MessageId, MessageType};
use crate::publication::{DeduplicationId, Publication};

/// The message type of wake-ups.
pub const WAKE_UP_TYPE: &str = "tollgate.wake-up";

/// A wake-up is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WakeUpStep {
    processing: Box<Processing>,
    destination: Destination,
    /// Which wake-up of its attempt it is, counted from 0.
    number: u32,
}

impl WakeUpStep {
    /// The wake-up for a fold with requests that send messages, or the processing back if it has none.
    pub(super) fn of_requests(mut processing: Box<Processing>) -> Result<Self, Box<Processing>> {
        let endpoint =
            processing.fold.members.iter().find_map(|member| match &processing.slots[member.slot].incoming {
                Incoming::Request(request) if member.outputs.count > 0 => Some(request.endpoint.clone()),
                _ => None,
            });
        match endpoint {
            Some(endpoint) => {
                let destination = Destination { endpoint, partition: processing.partition.clone() };
                let number = processing.wake_ups;
                processing.wake_ups += 1;
                Ok(Self { processing, destination, number })
            }
            None => Err(processing),
        }
    }

    /// The wake-up to send.
    ///
    /// # Panics
    /// Never: the type's name is a constant.
    pub fn publication(&self) -> Publication {
        let attempt = self.processing.attempt;
        let deduplication_id = DeduplicationId::of_wake_up(attempt, &self.destination.endpoint, self.number);
        let envelope = Envelope {
            message_id: MessageId::from_name(WAKE_UP_TYPE, &attempt.to_string()),
            to: self.destination.clone(),
            message_type: MessageType::new(WAKE_UP_TYPE).expect("the constant is a valid name"),
            headers: Headers::new(),
            content: Content::WakeUp {
                attempt,
                expected: self.processing.view.control.as_ref().map(|control| control.version),
            },
        };
        Publication { envelope, deduplication_id }
    }

    /// Takes the broker's answer: without a confirmed wake-up the requests are not committed.
    pub fn answer(self, sent: Result<(), String>) -> Step {
        let mut processing = self.processing;
        let Err(reason) = sent else { return Step::Commit(CommitStep::new(processing)) };
        let reason =
            format!("the wake-up for partition {} could not be sent: {reason}", processing.partition);
        // What was judged is put back too: no commit has told whether the state it was judged on is the partition's.
        processing.retry_unsettled(&reason);
        processing.fold.clear();
        processing.settle(Remember::View)
    }
}
