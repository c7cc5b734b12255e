//! Calls of SQS that take ten entries: what is to be done is divided, and each entry gets the answer that is
//! its own.

use std::future::Future;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    SendMessageBatchRequestEntry,
};
use futures_util::stream::{self, StreamExt};
use tollgate_proto::{BrokerError, EndpointName};

use super::{CALLS_MAX, failure};

/// Most entries of a call: a limit of SQS.
const ENTRIES_MAX: usize = 10;

/// Most bytes of all messages of a call. SQS allows 1 MiB since August 2025, and 256 KiB before that;
/// emulators may still go by it.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// One answer for each entry, in their order.
pub(super) type Outcomes = Vec<Result<(), BrokerError>>;

/// An entry that can be numbered: the answers refer to the number.
pub(super) trait Entry {
    fn number(&mut self, number: usize);
}

macro_rules! entries {
    ($($entry:ty),*) => {
        $(impl Entry for $entry {
            fn number(&mut self, number: usize) {
                self.id = number.to_string();
            }
        })*
    };
}

entries!(
    ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry,
    SendMessageBatchRequestEntry
);

/// Makes as many calls as it takes, some at a time. Entries come with their size in bytes, or with the reason
/// why there is none.
pub(super) async fn call<E, Called>(
    entries: Vec<Result<(E, usize), BrokerError>>,
    one: impl Fn(Vec<E>) -> Called,
    endpoint: &EndpointName,
) -> Outcomes
where
    E: Entry,
    Called: Future<Output = Result<Vec<BatchResultErrorEntry>, BrokerError>>,
{
    let mut outcomes: Outcomes = Vec::with_capacity(entries.len());
    let mut calls: Vec<Vec<E>> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, entry) in entries.into_iter().enumerate() {
        match entry {
            Err(error) => outcomes.push(Err(error)),
            Ok((mut entry, size)) => {
                outcomes.push(Ok(()));
                let is_full =
                    calls.last().is_none_or(|call| call.len() >= ENTRIES_MAX || bytes + size > BYTES_MAX);
                if is_full {
                    calls.push(Vec::with_capacity(ENTRIES_MAX));
                    members.push(Vec::with_capacity(ENTRIES_MAX));
                    bytes = 0;
                }
                bytes += size;
                let call = calls.last_mut().expect("one was pushed if there was none");
                entry.number(call.len());
                call.push(entry);
                members.last_mut().expect("it has as many as there are calls").push(place);
            }
        }
    }
    let mut answers = stream::iter(calls.into_iter().zip(members))
        .map(|(call, members)| {
            let called = one(call);
            async move { (members, called.await) }
        })
        .buffer_unordered(CALLS_MAX);
    while let Some((members, answer)) = answers.next().await {
        match answer {
            Err(error) => members.iter().for_each(|place| outcomes[*place] = Err(error.clone())),
            Ok(failed) => {
                for failed in failed {
                    let place = failed.id().parse::<usize>().ok().and_then(|number| members.get(number));
                    if let Some(place) = place {
                        outcomes[*place] = Err(failure::of_entry(endpoint, &failed));
                    }
                }
            }
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn entry(receipt: usize) -> DeleteMessageBatchRequestEntry {
        DeleteMessageBatchRequestEntry::builder().id("?").receipt_handle(receipt.to_string()).build().unwrap()
    }

    #[tokio::test]
    async fn each_entry_gets_the_answer_that_is_its_own() {
        let endpoint = EndpointName::new("orders").unwrap();
        let unfit = failure::misconfigured(&endpoint, "too large");
        let mut entries: Vec<_> = (0..25).map(|n| Ok((entry(n), 10))).collect();
        entries[3] = Err(unfit);
        entries[20] = Ok((entry(20), BYTES_MAX));
        let calls = Mutex::new(Vec::new());
        let outcomes = call(
            entries,
            |batch: Vec<DeleteMessageBatchRequestEntry>| {
                calls.lock().unwrap().push(batch.len());
                async move {
                    if batch.iter().any(|entry| entry.receipt_handle() == "24") {
                        return Err(failure::unavailable(&EndpointName::new("orders").unwrap(), "gone"));
                    }
                    let failed = batch.iter().filter(|entry| entry.receipt_handle() == "7").map(|entry| {
                        BatchResultErrorEntry::builder()
                            .id(entry.id())
                            .code("ReceiptHandleIsInvalid")
                            .sender_fault(true)
                            .build()
                            .unwrap()
                    });
                    Ok(failed.collect())
                }
            },
            &endpoint,
        )
        .await;
        let failed: Vec<usize> = (0..25).filter(|place| outcomes[*place].is_err()).collect();
        assert_eq!(failed, [3, 7, 21, 22, 23, 24]);
        assert_eq!(*calls.lock().unwrap(), [10, 9, 1, 4], "ten at most, and the large one travels alone");
    }
}
