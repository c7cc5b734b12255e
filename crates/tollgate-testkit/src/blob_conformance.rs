//! The conformance suite of [`Blobs`]: every promise of the trait as a check that any implementation can be put through. A
//! failed check panics with what was promised.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tollgate_proto::blobs::{collect, whole};
use tollgate_proto::{BlobError, BlobStream, Blobs, EffectName};

/// Longer than what implementations send or read at a time.
const LARGE_BYTES: usize = 12 * 1024 * 1024 + 345;

/// Runs every check on the same storage; each uses names of its own, below `prefix`. Leaves nothing behind.
///
/// # Panics
/// If a promise is broken.
pub async fn check_blobs(blobs: &Arc<dyn Blobs>, prefix: &str) {
    what_was_put_is_read_and_listed_and_what_was_deleted_is_not(blobs, prefix).await;
    awkward_names_are_names_like_any_other(blobs, prefix).await;
    a_large_blob_comes_back_piece_by_piece(blobs, prefix).await;
    a_blob_whose_stream_ends_with_an_error_is_not_there(blobs, prefix).await;
    a_blob_whose_writing_was_cancelled_is_not_there(blobs, prefix).await;
    a_repeated_preparation_is_no_error(blobs, prefix).await;
    assert_eq!(
        blobs.list(prefix).await.unwrap_or_else(|e| panic!("{e}")),
        [],
        "a check left something behind"
    );
}

/// The content of a blob.
///
/// # Panics
/// If it can't be read.
pub async fn content(blobs: &Arc<dyn Blobs>, name: &EffectName) -> Option<Bytes> {
    let content = blobs.get(name).await.unwrap_or_else(|error| panic!("{error}"))?;
    Some(collect(name, content, usize::MAX).await.unwrap_or_else(|error| panic!("{error}")))
}

fn name(prefix: &str, rest: &str) -> EffectName {
    EffectName::new(format!("{prefix}{rest}")).expect("the names of the checks are valid")
}

async fn put(blobs: &Arc<dyn Blobs>, name: &EffectName, content: BlobStream) {
    blobs.put(name, content).await.unwrap_or_else(|error| panic!("{name}: {error}"));
}

async fn delete(blobs: &Arc<dyn Blobs>, name: &EffectName) {
    blobs.delete(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
}

async fn what_was_put_is_read_and_listed_and_what_was_deleted_is_not(blobs: &Arc<dyn Blobs>, prefix: &str) {
    let (a, b, empty) = (name(prefix, "a"), name(prefix, "b"), name(prefix, "c"));
    assert_eq!(content(blobs, &a).await, None, "a blob that was never put is not there");
    put(blobs, &a, whole("one")).await;
    put(blobs, &b, whole("two")).await;
    put(blobs, &empty, whole("")).await;
    assert_eq!(content(blobs, &a).await.expect("it was put"), "one");
    assert_eq!(content(blobs, &b).await.expect("it was put"), "two");
    assert_eq!(content(blobs, &empty).await.expect("it was put"), "");
    let mut listed = blobs.list(prefix).await.unwrap_or_else(|error| panic!("{error}"));
    listed.sort();
    assert_eq!(listed, [a.clone(), b.clone(), empty.clone()]);
    assert_eq!(
        blobs.list(a.as_str()).await.unwrap_or_else(|error| panic!("{error}")),
        std::slice::from_ref(&a)
    );
    for name in [&a, &a, &b, &empty] {
        delete(blobs, name).await;
        assert_eq!(content(blobs, name).await, None, "a deleted blob is not there");
    }
}

async fn awkward_names_are_names_like_any_other(blobs: &Arc<dyn Blobs>, prefix: &str) {
    for rest in ["../../etc/passwd", ".hidden", "a/b c%~", "größe", "a//b", "50%25", "x?y#z", "~1"] {
        let name = name(prefix, rest);
        put(blobs, &name, whole("content")).await;
        assert_eq!(content(blobs, &name).await.expect("it was put"), "content");
        assert_eq!(
            blobs.list(prefix).await.unwrap_or_else(|error| panic!("{error}")),
            std::slice::from_ref(&name)
        );
        delete(blobs, &name).await;
        assert_eq!(content(blobs, &name).await, None);
    }
}

async fn a_large_blob_comes_back_piece_by_piece(blobs: &Arc<dyn Blobs>, prefix: &str) {
    let name = name(prefix, "large");
    let expected: Vec<u8> =
        (0..LARGE_BYTES).map(|place| u8::try_from(place % 251).unwrap_or_default()).collect();
    let pieces: Vec<_> = expected.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    put(blobs, &name, Box::pin(stream::iter(pieces))).await;
    let stored = content(blobs, &name).await.expect("it was put");
    assert!(stored == expected, "a blob of {LARGE_BYTES} bytes came back with {} or altered", stored.len());
    delete(blobs, &name).await;
}

async fn a_blob_whose_stream_ends_with_an_error_is_not_there(blobs: &Arc<dyn Blobs>, prefix: &str) {
    let name = name(prefix, "broken");
    let error = BlobError::Refused { name: name.clone(), reason: "the source is gone".to_owned() };
    let piece = Bytes::from(vec![1; 6 * 1024 * 1024]);
    let broken = stream::iter(vec![Ok(piece.clone()), Ok(piece), Err(error)]);
    let answer = blobs.put(&name, Box::pin(broken)).await;
    let error = answer.expect_err("a stream that ends with an error is no blob");
    assert!(error.to_string().contains("the source is gone"), "{error}");
    assert_eq!(content(blobs, &name).await, None);
}

async fn a_blob_whose_writing_was_cancelled_is_not_there(blobs: &Arc<dyn Blobs>, prefix: &str) {
    let name = name(prefix, "cancelled");
    let endless = stream::iter([Ok(Bytes::from(vec![1; 1024]))]).chain(stream::pending());
    {
        let mut writing = pin!(blobs.put(&name, Box::pin(endless)));
        for _ in 0..10 {
            let polled =
                std::future::poll_fn(|context| std::task::Poll::Ready(writing.as_mut().poll(context)));
            assert!(polled.await.is_pending(), "the stream has not ended");
        }
    }
    assert_eq!(content(blobs, &name).await, None);
}

async fn a_repeated_preparation_is_no_error(blobs: &Arc<dyn Blobs>, prefix: &str) {
    let name = name(prefix, "twice");
    put(blobs, &name, whole("content")).await;
    put(blobs, &name, whole("content")).await;
    assert_eq!(content(blobs, &name).await.expect("it was put"), "content");
    delete(blobs, &name).await;
}
