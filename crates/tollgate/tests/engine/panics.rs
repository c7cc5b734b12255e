//! Panics in whatever the engine calls: they end one attempt and nothing else, and their text is in the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use tollgate::proto::{AttachedEffect, BoxFuture, EffectError, EffectKind, EffectName};
use tollgate::{Deduplicate, Endpoint, Foreign, HandlerError, Message, SideEffect, Tx};

use crate::harness::{Add, TOTAL, add, broker, left_over, memory_store, total, until, waiting};
use crate::{dead_letter_reason, gate, send, send_raw};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_foreign_reader_that_panics_takes_nothing_but_its_message_along() {
    let (store, broker) = (memory_store(), broker());
    let retention = Deduplicate::ByIdentity { retention: HOUR };
    let endpoint = Endpoint::new("adder").on_tokenless::<Add, _, _>(retention, add).foreign(|bytes| {
        let line = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let columns: Vec<&str> = line.split(' ').collect();
        Ok(Foreign {
            id: columns[0].to_owned(),
            partition: "P".to_owned(),
            message_type: Add::TYPE.to_owned(),
            body: format!("{{\"amount\":{},\"hops\":0}}", columns[1]).into(),
        })
    });
    let gate = gate(&store, &broker).endpoint(endpoint).deliveries_max(3).open().await.unwrap();
    for line in ["one 1", "short", "two 2"] {
        send_raw(&broker, "adder", line.to_owned()).await;
    }
    let reason = dead_letter_reason(&broker, "adder").await;
    assert!(reason.contains("panicked: index out of bounds"), "{reason}");
    until(&gate, |_| waiting(&broker, "adder") == 0).await;
    let statistics = gate.close().await;
    assert_eq!((statistics.deliveries, statistics.dead_letters), (5, 1), "three times, then put aside");
    assert_eq!(total(&*store, "P").await, 3);
}

/// A message that can't be read.
#[derive(Clone, Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("no such date")
    }
}

impl Message for Unreadable {
    const TYPE: &'static str = "test.unreadable";
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_handlers_future_counts_as_a_retry_and_says_its_text() {
    let (store, broker) = (memory_store(), broker());
    let adder = Endpoint::new("adder").on(|tx: Tx, message: Add| {
        assert!(message.amount != 13, "{} is unlucky", message.amount);
        add(tx, message)
    });
    let reader = Endpoint::new("reader").on(|_: Tx, _: Unreadable| async { Ok(()) });
    let gate = gate(&store, &broker).endpoint(adder).endpoint(reader).deliveries_max(4).open().await.unwrap();
    send(&gate, "one", vec![Add { amount: 13, hops: 0 }, Add { amount: 1, hops: 0 }]).await;
    let reason = dead_letter_reason(&broker, "adder").await;
    assert_eq!(reason, "the handler panicked: 13 is unlucky (after 4 failures)");
    let edge = gate.edge("edge").unwrap();
    let handler = |tx: Tx| async move { Ok(tx.send("reader", "P", &Unreadable).map(|_| ())?) };
    edge.execute("requests", "two", HOUR, handler).await.unwrap();
    let reason = dead_letter_reason(&broker, "reader").await;
    assert_eq!(reason, "the handler panicked: no such date (after 4 failures)");
    // A request is called in the same way.
    let failed = edge
        .execute("P", "three", HOUR, |_: Tx| -> std::future::Ready<Result<(), HandlerError>> {
            panic!("no request either")
        })
        .await
        .unwrap_err();
    assert!(failed.is_retryable() && failed.to_string().contains("no request either"), "{failed}");
    let statistics = gate.close().await;
    assert_eq!(statistics.panics, 4 + 4 + 6);
    assert_eq!(total(&*store, "P").await, 1, "its neighbour is handled");
}

/// A side effect that panics in a step, a few times.
struct Rash {
    kind: EffectKind,
    panics: Arc<AtomicUsize>,
}

impl Rash {
    fn step(&self) {
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "the client of the other system panics");
    }
}

impl SideEffect for Rash {
    fn kind(&self) -> &EffectKind {
        &self.kind
    }

    fn register(&self, unique: &str, _: &Bytes) -> Result<EffectName, EffectError> {
        Ok(EffectName::new(format!("call/{unique}")).unwrap())
    }

    fn prepare<'a>(&'a self, _: &'a EffectName, _: Bytes) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }

    fn publish<'a>(&'a self, _: &'a AttachedEffect) -> BoxFuture<'a, Result<(), EffectError>> {
        self.step();
        Box::pin(std::future::ready(Ok(())))
    }

    fn fetch<'a>(&'a self, _: &'a AttachedEffect) -> BoxFuture<'a, Result<Bytes, EffectError>> {
        self.step();
        Box::pin(std::future::ready(Ok(Bytes::from_static(b"done"))))
    }

    fn clean_up<'a>(&'a self, _: &'a EffectName) -> BoxFuture<'a, Result<(), EffectError>> {
        self.step();
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_effect_that_panics_is_repeated_like_one_that_fails() {
    let (store, broker) = (memory_store(), broker());
    let panics = Arc::new(AtomicUsize::new(12));
    let effect = Rash { kind: EffectKind::new("rash").unwrap(), panics: Arc::clone(&panics) };
    let reader = Endpoint::new("reader").on(|tx: Tx, message: Add| async move {
        assert_eq!(tx.carried("rash").map(|content| &content[..]), Some(&b"done"[..]));
        tx.put(TOTAL, &message.amount)?;
        Ok(())
    });
    let gate = gate(&store, &broker).side_effect(Arc::new(effect)).endpoint(reader).open().await.unwrap();
    let handler = |tx: Tx| async move {
        let prepared = tx.prepare("rash", "call").await?;
        tx.send_with("reader", "P", &Add { amount: 7, hops: 0 }, vec![prepared]).await?;
        Ok::<_, HandlerError>(())
    };
    gate.edge("edge").unwrap().execute("requests", "one", HOUR, handler).await.unwrap();
    until(&gate, |statistics| statistics.committed == 2).await;
    until(&gate, |_| waiting(&broker, "reader") + waiting(&broker, "edge") == 0).await;
    let statistics = gate.close().await;
    assert_eq!(panics.load(Ordering::SeqCst), 0);
    assert_eq!(
        (statistics.panics, statistics.dead_letters),
        (0, 0),
        "no lane and no completion has panicked"
    );
    assert_eq!(total(&*store, "P").await, 7);
    assert_eq!(left_over(&*store).await, 0);
}
