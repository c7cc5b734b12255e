//! Tollgate's own documents: control record, outbox entry and deduplication record, as JSON and back. Business items are in
//! [`crate::item_document`], ids in [`crate::document_id`]. The records' bytes are the core codec's and are not looked into.
//!
//! ```json
//! { "id": "tollgate.control", "pk": "order/4711",
//!   "tollgate": { "kind": "control", "version": "9f…0c.42", "record": "AQ…" } }
//! { "id": "tollgate.entry.9f…0c.42.0", "pk": "order/4711",
//!   "tollgate": { "kind": "entry", "entry": "AQ…" } }
//! { "id": "tollgate.record.request~2F1", "pk": "order/4711", "ttl": 86400,
//!   "tollgate": { "kind": "record", "key": "request/1", "response": "e30", "expiresAtMs": 1780000000000 } }
//! ```
//!
//! Everything but the ids lies under `/tollgate`, so that one excluded path keeps it out of the index.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollgate_proto::{EntryKey, Incarnation, PartitionKey, RecordWrite, Sequence, Version};

use crate::container_layout::ContainerLayout;
use crate::document_id::{CONTROL_ID, entry_id, record_id};

/// The field that holds all that is Tollgate's.
pub(crate) const TOLLGATE_FIELD: &str = "tollgate";

/// Fields that a document can't use for anything else: Tollgate's, and those to which Cosmos DB gives a meaning.
pub(crate) const RESERVED_FIELDS: [&str; 3] = ["id", TOLLGATE_FIELD, "ttl"];

/// The largest integer that every JSON client of Cosmos DB reads exactly: numbers are IEEE 754 doubles there.
pub(crate) const EXACT_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Longest `ttl`, in seconds (Cosmos DB: 2^31 - 1).
const TTL_SECONDS_MAX: u64 = i32::MAX.unsigned_abs() as u64;

pub(crate) fn control_document(
    layout: &ContainerLayout,
    partition: &PartitionKey,
    version: Version,
    record: &[u8],
) -> Value {
    let fields =
        json!({ "kind": "control", "version": version.to_string(), "record": STANDARD.encode(record) });
    document(layout, partition, CONTROL_ID.to_owned(), fields).into()
}

pub(crate) fn entry_document(
    layout: &ContainerLayout,
    partition: &PartitionKey,
    key: EntryKey,
    entry: &[u8],
) -> Value {
    let fields = json!({ "kind": "entry", "entry": STANDARD.encode(entry) });
    document(layout, partition, entry_id(key), fields).into()
}

pub(crate) fn record_document(
    layout: &ContainerLayout,
    partition: &PartitionKey,
    record: &RecordWrite,
    now_ms: u64,
) -> Value {
    let fields = json!({
        "kind": "record",
        "key": record.key.as_str(),
        "response": STANDARD.encode(&record.response),
        "expiresAtMs": record.expires_at_ms.min(EXACT_INTEGER_MAX),
    });
    let mut document = document(layout, partition, record_id(&record.key), fields);
    let lifetime = record.expires_at_ms.saturating_sub(now_ms).div_ceil(1000);
    document.insert("ttl".to_owned(), lifetime.clamp(1, TTL_SECONDS_MAX).into());
    document.into()
}

/// A document of this id, with what is Tollgate's in it.
pub(crate) fn document(
    layout: &ContainerLayout,
    partition: &PartitionKey,
    id: String,
    fields: Value,
) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("id".to_owned(), id.into());
    layout.stamp(&mut document, partition);
    document.insert(TOLLGATE_FIELD.to_owned(), fields);
    document
}

/// A control record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlDocument {
    pub(crate) version: Version,
    pub(crate) record: Bytes,
    pub(crate) etag: String,
}

/// A deduplication record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordDocument {
    pub(crate) key: String,
    pub(crate) response: Bytes,
    pub(crate) expires_at_ms: u64,
    pub(crate) etag: String,
}

#[derive(Deserialize)]
struct Stored<T> {
    tollgate: T,
    #[serde(rename = "_etag", default)]
    etag: String,
}

#[derive(Deserialize)]
struct ControlFields {
    version: String,
    record: String,
}

#[derive(Deserialize)]
struct EntryFields {
    entry: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordFields {
    key: String,
    response: String,
    expires_at_ms: u64,
}

/// Reads a control record's document; the error says what is wrong with it.
pub(crate) fn parse_control(json: &[u8]) -> Result<ControlDocument, String> {
    let Stored { tollgate, etag } = parse::<ControlFields>(json)?;
    let version = parse_version(&tollgate.version)
        .ok_or_else(|| format!("{:?} is not a version of a control record", tollgate.version))?;
    Ok(ControlDocument { version, record: decode(&tollgate.record)?, etag })
}

/// Reads an outbox entry's document.
pub(crate) fn parse_entry(json: &[u8]) -> Result<Bytes, String> {
    decode(&parse::<EntryFields>(json)?.tollgate.entry)
}

/// Reads a deduplication record's document.
pub(crate) fn parse_record(json: &[u8]) -> Result<RecordDocument, String> {
    let Stored { tollgate, etag } = parse::<RecordFields>(json)?;
    let response = decode(&tollgate.response)?;
    Ok(RecordDocument { key: tollgate.key, response, expires_at_ms: tollgate.expires_at_ms, etag })
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<Stored<T>, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

pub(crate) fn decode(base64: &str) -> Result<Bytes, String> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| format!("its base64 is damaged: {error}"))
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what `Version` prints: the incarnation in hexadecimal, a dot, the counter.
fn parse_version(text: &str) -> Option<Version> {
    let (incarnation, counter) = text.split_once('.')?;
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
    Some(Version::from_sequence(Sequence { incarnation, counter: counter.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use tollgate_proto::DeduplicationKey;

    use super::*;

    fn partition() -> PartitionKey {
        PartitionKey::new("order/4711").unwrap()
    }

    #[test]
    fn a_control_record_comes_back_with_a_version_of_full_width() {
        let sequence = Sequence { incarnation: Incarnation(u64::MAX), counter: u64::MAX };
        let version = Version::from_sequence(sequence);
        let document = control_document(&ContainerLayout::default(), &partition(), version, b"\x01\xff");
        assert_eq!(document["pk"], "order/4711");
        let read = parse_control(document.to_string().as_bytes()).unwrap();
        assert_eq!((read.version, &read.record[..]), (version, &b"\x01\xff"[..]));
    }

    #[test]
    fn a_record_lives_at_least_a_second_and_no_longer_than_the_service_allows() {
        let lifetime = |expires_at_ms| {
            let key = DeduplicationKey::new("request/1").unwrap();
            let record = RecordWrite { key, response: Bytes::new(), expires_at_ms };
            record_document(&ContainerLayout::default(), &partition(), &record, 10_000)["ttl"]
                .as_u64()
                .unwrap()
        };
        assert_eq!(lifetime(5_000), 1);
        assert_eq!(lifetime(12_001), 3, "never shorter than asked for");
        assert_eq!(lifetime(u64::MAX), TTL_SECONDS_MAX);
    }

    #[test]
    fn a_damaged_document_says_what_is_wrong() {
        assert!(parse_control(b"{}").unwrap_err().contains("tollgate"));
        let unversioned = br#"{"tollgate":{"version":"x","record":""}}"#;
        assert!(parse_control(unversioned).unwrap_err().contains("version"));
        assert!(parse_entry(br#"{"tollgate":{"entry":"*"}}"#).unwrap_err().contains("base64"));
    }
}
