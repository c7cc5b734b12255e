//! The header that names a request, and what makes a request the same one.

use axum::extract::OriginalUri;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, Item, Parser};

use super::IDEMPOTENCY_KEY;
use crate::problem::{Problem, ProblemKind};

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The key of a request: a structured field's string as the draft has it, or bare as many clients send it.
/// `None`: there is none.
///
/// Two keys are refused, also those that a proxy has joined to one line (`a, b`).
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().map(str::trim).filter(|_| values.next().is_none());
    let key = text.and_then(|text| if text.starts_with('"') { string(text) } else { bare(text) });
    let key = key.filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX);
    key.map(Some).ok_or_else(|| {
        let detail = format!("an Idempotency-Key is one string of 1 to {KEY_BYTES_MAX} characters");
        Problem::new(ProblemKind::BadRequest, detail)
    })
}

/// A string in quotes, with its escapes resolved; parameters have no meaning.
fn string(text: &str) -> Option<String> {
    let item: Item = Parser::new(text).parse().ok()?;
    match item.bare_item {
        BareItem::String(key) => Some(key.as_str().to_owned()),
        _ => None,
    }
}

fn bare(text: &str) -> Option<String> {
    (!text.contains(['"', '\\', ','])).then(|| text.to_owned())
}

/// What makes a request the same one: each part with its length before it, so that no two requests have the
/// same.
pub(super) fn payload(parts: &Parts, body: &Bytes) -> Vec<u8> {
    // Nested routers take their part of the path away.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let mut payload = Vec::new();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), content_type, body] {
        payload.extend_from_slice(&(part.len() as u64).to_le_bytes());
        payload.extend_from_slice(part);
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IDEMPOTENCY_KEY, line.parse().unwrap());
        }
        key(&headers).unwrap_or_else(|_| Some("refused".to_owned()))
    }

    #[test]
    fn a_key_is_a_structured_string_or_bare() {
        for (text, expected) in [
            ("\"a\"", "a"),
            ("a", "a"),
            (" a ", "a"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("\"a\";p=1;q", "a"),
            ("\"a, b\"", "a, b"),
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ] {
            assert_eq!(read(&[text]).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn two_keys_and_what_is_no_string_are_refused() {
        for text in
            ["", "\"\"", "\"a", "a\"", "\"a\" b", "\"a\", \"b\"", "a, b", "a\\b", "\"a\\b\"", "\"a\";"]
        {
            assert_eq!(read(&[text]).as_deref(), Some("refused"), "{text}");
        }
        assert_eq!(read(&["a", "b"]).as_deref(), Some("refused"));
    }
}
