//! The trait's promises on the emulators of S3 and Azure Blob Storage, which are killed in the middle of uploads; and what is said
//! when the storage is not there, does not know us, or fails.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_blobs::{BlobsError, ObjectStoreBlobs};
use tollgate_proto::blobs::whole;
use tollgate_proto::{BlobError, BlobStream, Blobs, EffectName};
use tollgate_testkit::LocalServer;
use tollgate_testkit::blob_conformance::{check_blobs, content};

/// What the scripts create.
const BUCKET: &str = "tollgate";

const PART_BYTES: usize = 5 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    S3,
    Azure,
}

impl Cloud {
    /// An emulator, unless there can be none on this machine, which was said then.
    fn start(self) -> Option<LocalServer> {
        let script = match self {
            Self::S3 => "start-s3",
            Self::Azure => "start-azurite",
        };
        LocalServer::start(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/blobs").join(script))
    }

    fn blobs(self, endpoint: &str, bucket: &str) -> ObjectStoreBlobs {
        match self {
            Self::S3 => ObjectStoreBlobs::s3_at_emulator(endpoint, bucket).unwrap(),
            Self::Azure => ObjectStoreBlobs::azure_at_emulator(endpoint, bucket).unwrap(),
        }
    }
}

fn film() -> EffectName {
    EffectName::new("films/1").unwrap()
}

/// Two parts and a bit, in pieces of half a part; before a piece is given out, `before` is told its number.
fn film_stream(before: impl Fn(u8) + Send + 'static) -> BlobStream {
    Box::pin(stream::iter((0..5).map(move |number| {
        before(number);
        Ok(Bytes::from(vec![number; PART_BYTES / 2]))
    })))
}

async fn keeps_every_promise(cloud: Cloud) {
    let Some(server) = cloud.start() else { return };
    let blobs = cloud.blobs(server.address(), BUCKET);
    blobs.verify().await.unwrap();
    check_blobs(&(Arc::new(blobs) as Arc<dyn Blobs>), "").await;
    let below = cloud.blobs(server.address(), BUCKET).below("a/folder");
    below.verify().await.unwrap();
    check_blobs(&(Arc::new(below) as Arc<dyn Blobs>), "conformance/").await;
}

#[tokio::test]
async fn blobs_on_s3_keep_every_promise() {
    keeps_every_promise(Cloud::S3).await;
}

#[tokio::test]
async fn blobs_on_azure_keep_every_promise() {
    keeps_every_promise(Cloud::Azure).await;
}

async fn survives_a_crash(cloud: Cloud) {
    let Some(server) = cloud.start() else { return };
    let blobs = cloud.blobs(server.address(), BUCKET).parts_in_flight(1);
    let server = Arc::new(Mutex::new(server));
    // With one part under way at a time, more is read only when the part before was confirmed.
    let killed = {
        let server = Arc::clone(&server);
        film_stream(move |number| {
            if number == 3 {
                server.lock().unwrap().kill();
            }
        })
    };
    let error = blobs.put(&film(), killed).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains(BUCKET), "it says what could not be reached: {error}");
    blobs.close().await;
    let error = blobs.delete(&film()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");

    server.lock().unwrap().restart();
    assert!(blobs.get(&film()).await.unwrap().is_none(), "what was not complete can't be read");
    assert_eq!(blobs.list("").await.unwrap(), []);
    blobs.put(&film(), film_stream(|_| ())).await.unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(blobs);
    assert_eq!(content(&blobs, &film()).await.unwrap().len(), 5 * (PART_BYTES / 2));
}

#[tokio::test]
async fn an_upload_to_s3_that_dies_in_the_middle_leaves_nothing_readable_and_can_be_repeated() {
    survives_a_crash(Cloud::S3).await;
}

#[tokio::test]
async fn an_upload_to_azure_that_dies_in_the_middle_leaves_nothing_readable_and_can_be_repeated() {
    survives_a_crash(Cloud::Azure).await;
}

#[tokio::test]
async fn parts_of_uploads_that_were_given_up_are_removed_from_s3() {
    let Some(server) = Cloud::S3.start() else { return };
    let blobs = Cloud::S3.blobs(server.address(), BUCKET).parts_in_flight(1);
    let (address, name) = (server.address().to_owned(), film());
    let error = BlobError::Refused { name: name.clone(), reason: "the source is gone".to_owned() };
    let pieces = vec![Ok(Bytes::from(vec![1; PART_BYTES])), Ok(Bytes::from_static(b"more")), Err(error)];
    blobs.put(&name, Box::pin(stream::iter(pieces))).await.unwrap_err();
    blobs.close().await;
    assert!(!uploads(&address).await.contains("<Upload>"), "an upload is still there");
}

/// S3's list of uploads that are not complete, in XML.
async fn uploads(address: &str) -> String {
    let host = address.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{BUCKET}?uploads HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
    answer
}

async fn misses_its_bucket(cloud: Cloud) {
    let Some(server) = cloud.start() else { return };
    let blobs = cloud.blobs(server.address(), "missing");
    let error = blobs.verify().await.unwrap_err();
    assert!(matches!(error, BlobsError::Missing { .. }) && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("/missing does not exist: create it"), "{error}");
    // A wrong name must not look like a storage without blobs: what is to be deleted lies elsewhere.
    for error in [
        blobs.put(&film(), whole("content")).await.unwrap_err(),
        blobs.put(&film(), film_stream(|_| ())).await.unwrap_err(),
        blobs.delete(&film()).await.unwrap_err(),
        blobs.get(&film()).await.err().unwrap(),
        blobs.list("").await.unwrap_err(),
    ] {
        assert!(matches!(error, BlobError::Misconfigured { .. }), "{error}");
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_an_error_and_not_an_empty_one() {
    misses_its_bucket(Cloud::S3).await;
}

#[tokio::test]
async fn a_missing_container_is_an_error_and_not_an_empty_one() {
    misses_its_bucket(Cloud::Azure).await;
}

#[tokio::test]
async fn a_wrong_key_is_found_by_the_verification() {
    let Some(server) = Cloud::Azure.start() else { return };
    let builder = MicrosoftAzureBuilder::new()
        .with_account("devstoreaccount1")
        .with_access_key("d3Jvbmcga2V5")
        .with_endpoint(format!("{}/devstoreaccount1", server.address()))
        .with_allow_http(true);
    let blobs = ObjectStoreBlobs::azure_with(BUCKET, builder).unwrap();
    let error = blobs.verify().await.unwrap_err();
    assert!(matches!(error, BlobsError::Denied { .. }) && !error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("azure://devstoreaccount1/tollgate does not let us list blobs"),
        "{error}"
    );
}

/// A cloud that gives every request the same answer; `status` may go on with headers.
async fn answering(cloud: Cloud, status: &str, body: &str) -> ObjectStoreBlobs {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if connection.read(&mut request).await.is_ok() {
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        }
    });
    cloud.blobs(&endpoint, BUCKET)
}

#[tokio::test]
async fn every_refusal_is_told_from_what_passes() {
    for (status, body, is_retryable, says) in [
        ("403 Forbidden", "<Code>InvalidAccessKeyId</Code>", false, "check credentials and permissions"),
        ("401 Unauthorized", "", false, "check credentials and permissions"),
        ("301 Moved Permanently", "", false, "region"),
        ("400 Bad Request", "<Code>KeyTooLongError</Code>", false, "KeyTooLongError"),
        ("404 Not Found", "<Code>NoSuchBucket</Code>", false, "does not exist: create it"),
        ("409 Conflict", "<Code>OperationAborted</Code>", true, "OperationAborted"),
        ("429 Too Many Requests", "<Code>SlowDown</Code>", true, "SlowDown"),
        ("503 Service Unavailable", "<Code>SlowDown</Code>", true, "SlowDown"),
    ] {
        let blobs = answering(Cloud::S3, status, body).await;
        let error = blobs.put(&film(), whole("content")).await.unwrap_err();
        assert_eq!(error.is_retryable(), is_retryable, "{status}: {error}");
        assert!(error.to_string().contains(says), "{status}: {error}");
        let error = blobs.verify().await.unwrap_err();
        assert_eq!(error.is_retryable(), is_retryable, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_within_azures_answer_to_many_deletions_is_told_from_what_passes() {
    for (status, is_retryable) in [("403 Forbidden", false), ("503 Server Busy", true)] {
        let headers = "202 Accepted\r\nContent-Type: multipart/mixed; boundary=batch";
        let body = format!(
            "--batch\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n--batch--\r\n"
        );
        let error = answering(Cloud::Azure, headers, &body).await.delete(&film()).await.unwrap_err();
        assert_eq!(error.is_retryable(), is_retryable, "{status}: {error}");
    }
}

#[tokio::test]
async fn nobody_at_the_address_may_pass_and_says_where() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for cloud in [Cloud::S3, Cloud::Azure] {
        let error = cloud.blobs(&endpoint, BUCKET).verify().await.unwrap_err();
        assert!(matches!(error, BlobsError::Unreachable { .. }) && error.is_retryable(), "{error}");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
}

#[test]
fn settings_that_lack_something_are_refused_at_once() {
    let error = ObjectStoreBlobs::azure_with(BUCKET, MicrosoftAzureBuilder::new()).unwrap_err();
    assert!(matches!(error, BlobsError::Settings { .. }) && !error.is_retryable(), "{error}");
    let half = AmazonS3Builder::new().with_access_key_id("id");
    let error = ObjectStoreBlobs::s3_with(BUCKET, half).unwrap_err();
    assert!(error.to_string().starts_with("blob storage s3://tollgate can't be set up"), "{error}");
}
