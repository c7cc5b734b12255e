//! Business items as documents: the user's own JSON, readable and queryable by any other client. Which form a value takes is
//! decided here and nowhere else; what is Tollgate's own is in [`crate::document`].
//!
//! | value | document |
//! |---|---|
//! | a JSON object | its fields beside `id` and the partition key; `tollgate` = `{"kind":"item","form":"object"}` |
//! | an object with a field that is taken (`id`, `ttl`, `tollgate`, the partition key's, any that begins with `_`), or other JSON | whole under `value`; `form` is `value` |
//! | JSON with a number beyond ±(2^53 - 1), which Cosmos DB would round | its text under `tollgate.text`; `form` is `text` |
//! | anything that is not JSON | base64 under `tollgate.bytes`; `form` is `binary` |
//!
//! A document that another client wrote has no `tollgate` field: all its fields but the id, the key and the service's own
//! are the value.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tollgate_proto::{ItemName, ItemValue, PartitionKey};

use crate::container_layout::ContainerLayout;
use crate::document::{EXACT_INTEGER_MAX, RESERVED_FIELDS, TOLLGATE_FIELD, decode, document, encode};
use crate::document_id::item_id;

/// The field that holds a value which can't lie beside the document's own fields.
const VALUE_FIELD: &str = "value";

/// The document of a business item.
pub(crate) fn item_document(
    layout: &ContainerLayout,
    partition: &PartitionKey,
    name: &ItemName,
    value: &ItemValue,
) -> Value {
    let id = item_id(name);
    let with = |fields: Value| document(layout, partition, id.clone(), fields);
    let ItemValue::Json(json) = value else {
        return with(json!({ "kind": "item", "form": "binary", "bytes": encode(value.bytes()) })).into();
    };
    match serde_json::from_slice::<Value>(json) {
        Ok(Value::Object(object)) if is_exact_in(object.values()) && fits_beside(layout, &object) => {
            let mut whole = object;
            whole.append(&mut with(json!({ "kind": "item", "form": "object" })));
            whole.into()
        }
        Ok(other) if is_exact(&other) => {
            let mut whole = with(json!({ "kind": "item", "form": "value" }));
            whole.insert(VALUE_FIELD.to_owned(), other);
            whole.into()
        }
        _ => {
            let text = String::from_utf8_lossy(json);
            with(json!({ "kind": "item", "form": "text", "text": text })).into()
        }
    }
}

/// The value in a business item's document; the error says what is wrong with it.
pub(crate) fn parse_item(layout: &ContainerLayout, json: &[u8]) -> Result<ItemValue, String> {
    let mut document: Map<String, Value> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let tollgate = document.remove(TOLLGATE_FIELD);
    let form = tollgate.as_ref().map_or("object", |fields| fields["form"].as_str().unwrap_or("object"));
    let text = |field: &str| {
        let found = tollgate.as_ref().and_then(|fields| fields[field].as_str());
        found.ok_or_else(|| format!("an item of form {form:?} has no text tollgate.{field}"))
    };
    match form {
        "object" => {
            document.retain(|field, _| !is_taken(layout, field));
            Ok(ItemValue::Json(Bytes::from(Value::Object(document).to_string())))
        }
        "value" => {
            let value = document.remove(VALUE_FIELD).ok_or("an item of form \"value\" has no value")?;
            Ok(ItemValue::Json(Bytes::from(value.to_string())))
        }
        "text" => Ok(ItemValue::Json(Bytes::copy_from_slice(text("text")?.as_bytes()))),
        "binary" => Ok(ItemValue::Binary(decode(text("bytes")?)?)),
        unknown => Err(format!(
            "its form {unknown:?} is not known: a later version wrote it; upgrade every process first"
        )),
    }
}

fn fits_beside(layout: &ContainerLayout, object: &Map<String, Value>) -> bool {
    object.keys().all(|field| !is_taken(layout, field))
}

/// Whether a field at the top of a document has a meaning of its own.
fn is_taken(layout: &ContainerLayout, field: &str) -> bool {
    field.starts_with('_') || RESERVED_FIELDS.contains(&field) || layout.is_key_field(field)
}

/// Whether Cosmos DB gives every number back as it is.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => number <= EXACT_INTEGER_MAX,
            (_, Some(number), _) => number.unsigned_abs() <= EXACT_INTEGER_MAX,
            // An integer too large for 64 bits is parsed as a float as well.
            #[allow(clippy::cast_precision_loss, reason = "the constant has 53 bits")]
            (.., Some(number)) => number.abs() <= EXACT_INTEGER_MAX as f64,
            _ => false,
        },
        Value::Array(values) => is_exact_in(values),
        Value::Object(fields) => is_exact_in(fields.values()),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn is_exact_in<'a>(values: impl IntoIterator<Item = &'a Value>) -> bool {
    values.into_iter().all(is_exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(json: &str) -> Value {
        let partition = PartitionKey::new("order/4711").unwrap();
        let name = ItemName::new("state").unwrap();
        let value = ItemValue::Json(Bytes::copy_from_slice(json.as_bytes()));
        item_document(&ContainerLayout::default(), &partition, &name, &value)
    }

    fn read(document: &Value) -> Value {
        let value = parse_item(&ContainerLayout::default(), document.to_string().as_bytes()).unwrap();
        serde_json::from_slice(value.bytes()).unwrap()
    }

    #[test]
    fn an_object_lies_beside_the_documents_own_fields() {
        let document = stored(r#"{"total":12,"lines":[{"sku":"a"}]}"#);
        assert_eq!(document["total"], 12);
        assert_eq!(document["id"], "state");
        assert_eq!(read(&document), json!({"total":12,"lines":[{"sku":"a"}]}));
    }

    #[test]
    fn an_object_whose_fields_are_taken_comes_back_with_them() {
        for taken in [
            json!({"id":"my own"}),
            json!({"pk":1}),
            json!({"_etag":"x"}),
            json!({"ttl":-1}),
            json!({"tollgate":{"form":"text"}}),
        ] {
            let document = stored(&taken.to_string());
            assert_eq!((&document["id"], &document["value"]), (&json!("state"), &taken));
            assert_eq!(read(&document), taken);
        }
    }

    #[test]
    fn a_number_that_the_service_would_round_is_kept_as_text() {
        for large in ["9007199254740992", "[-9007199254740993]", "123456789012345678901234567890", "1e300"] {
            let document = stored(large);
            assert_eq!(document["tollgate"]["text"], large);
        }
        assert_eq!(stored("9007199254740991")["value"], 9_007_199_254_740_991_u64);
    }

    #[test]
    fn a_document_of_another_client_is_its_fields_without_the_services() {
        let foreign =
            json!({"id":"state","pk":"order/4711","total":3,"_rid":"x","_ts":1,"_self":"","_etag":"e"});
        assert_eq!(read(&foreign), json!({"total":3}));
    }
}
