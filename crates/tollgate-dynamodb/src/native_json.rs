//! Business items as DynamoDB's own attributes and back, so that other tools can read and query them: JSON becomes maps,
//! lists, texts and numbers, as `serde_dynamo` would make them; binary values stay binary. JSON that DynamoDB can't hold
//! exactly is kept as text. No names and no layouts here.
//!
//! `serde_dynamo` itself is not used for it, because it goes through `f64`: a number written down by somebody else would come
//! back as its neighbour. Here the digits are carried over.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use tollgate_proto::ItemValue;

/// The only key of a map that holds JSON as text, because DynamoDB has no value that says the same.
pub(crate) const TEXT_KEY: &str = "$json";

/// Deepest nesting that is stored natively. DynamoDB takes 32 levels, of which the attribute is one.
const DEPTH_MAX: usize = 30;
/// Most significant digits of a number in DynamoDB.
const NUMBER_DIGITS_MAX: usize = 38;
/// Where DynamoDB's numbers end: 9.99e125 and 1e-130.
const NUMBER_EXPONENTS: std::ops::RangeInclusive<i64> = -130..=125;

/// A value as an attribute.
pub(crate) fn to_attribute(value: &ItemValue) -> AttributeValue {
    match value {
        ItemValue::Binary(bytes) => AttributeValue::B(bytes.to_vec().into()),
        ItemValue::Json(bytes) => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                // It is no JSON, but it comes back as it went in.
                return AttributeValue::M(HashMap::from([(
                    TEXT_KEY.to_owned(),
                    AttributeValue::B(bytes.to_vec().into()),
                )]));
            };
            native(text).unwrap_or_else(|| {
                let text = AttributeValue::S(text.to_owned());
                AttributeValue::M(HashMap::from([(TEXT_KEY.to_owned(), text)]))
            })
        }
    }
}

/// The value of an attribute, or what is wrong with it.
pub(crate) fn of_attribute(attribute: &AttributeValue) -> Result<ItemValue, &'static str> {
    if let AttributeValue::B(bytes) = attribute {
        return Ok(ItemValue::Binary(Bytes::copy_from_slice(bytes.as_ref())));
    }
    if let AttributeValue::M(map) = attribute
        && map.len() == 1
    {
        match map.get(TEXT_KEY) {
            Some(AttributeValue::S(text)) => return Ok(ItemValue::Json(Bytes::from(text.clone()))),
            Some(AttributeValue::B(bytes)) => {
                return Ok(ItemValue::Json(Bytes::copy_from_slice(bytes.as_ref())));
            }
            _ => {}
        }
    }
    let mut json = String::new();
    write(attribute, &mut json)?;
    Ok(ItemValue::Json(Bytes::from(json)))
}

fn native(text: &str) -> Option<AttributeValue> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return None;
    }
    // A document that looks like one of our texts must not be taken for one.
    match &value {
        AttributeValue::M(map) if map.len() == 1 && map.contains_key(TEXT_KEY) => None,
        _ => Some(value),
    }
}

/// Reads JSON. `None` everywhere means: not JSON, or nothing that DynamoDB can hold.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<AttributeValue> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(AttributeValue::S),
            b't' => self.word("true").map(|()| AttributeValue::Bool(true)),
            b'f' => self.word("false").map(|()| AttributeValue::Bool(false)),
            b'n' => self.word("null").map(|()| AttributeValue::Null(true)),
            _ => self.number().map(AttributeValue::N),
        }
    }

    fn object(&mut self, depth: usize) -> Option<AttributeValue> {
        self.expect(b'{')?;
        let mut map = HashMap::new();
        if self.follows(b'}') {
            return Some(AttributeValue::M(map));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            let value = self.value(depth + 1)?;
            // DynamoDB takes no empty names, and one of two equal keys would be lost.
            if key.is_empty() || map.insert(key, value).is_some() {
                return None;
            }
            if self.follows(b'}') {
                return Some(AttributeValue::M(map));
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<AttributeValue> {
        self.expect(b'[')?;
        let mut list = Vec::new();
        if self.follows(b']') {
            return Some(AttributeValue::L(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            if self.follows(b']') {
                return Some(AttributeValue::L(list));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Option<String> {
        let rest = self.text.as_bytes().get(self.at..)?;
        if rest.first() != Some(&b'"') {
            return None;
        }
        let mut end = 1;
        loop {
            match rest.get(end)? {
                b'\\' => end += 2,
                b'"' => break,
                _ => end += 1,
            }
        }
        let quoted = self.text.get(self.at..=self.at + end)?;
        self.at += end + 1;
        serde_json::from_str(quoted).ok()
    }

    fn number(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let number = &rest[..end];
        // The grammar is serde_json's business; its value is not used.
        serde_json::from_str::<serde::de::IgnoredAny>(number).ok()?;
        self.at += end;
        fits(number).then(|| number.to_owned())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn follows(&mut self, byte: u8) -> bool {
        self.skip_space();
        let follows = self.peek() == Some(byte);
        self.at += usize::from(follows);
        follows
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// Whether DynamoDB holds this number exactly, and every client reads what it prints of it.
///
/// DynamoDB prints numbers without an exponent where it can. Clients with decimals of 38 digits, as boto3
/// has, refuse a number that is printed with more, even if the digits at its end are zeros.
fn fits(number: &str) -> bool {
    let unsigned = number.trim_start_matches('-');
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()),
        None => (unsigned, Some(0)),
    };
    let Some(exponent) = exponent else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let from_first = digits.trim_start_matches('0');
    if from_first.is_empty() {
        // DynamoDB has no negative zero.
        return !number.starts_with('-');
    }
    let leading = digits.len() - from_first.len();
    let magnitude = i64::try_from(whole.len())
        .ok()
        .zip(i64::try_from(leading).ok())
        .and_then(|(whole, leading)| exponent.checked_add(whole - leading - 1));
    let significant = from_first.trim_end_matches('0').len();
    significant <= NUMBER_DIGITS_MAX
        && magnitude.is_some_and(|magnitude| {
            NUMBER_EXPONENTS.contains(&magnitude)
                && printed_digits(magnitude, significant) <= NUMBER_DIGITS_MAX
        })
}

/// Digits of a number from its first to its last one that is not 0, and to its decimal point if that is to
/// the right.
fn printed_digits(magnitude: i64, significant: usize) -> usize {
    usize::try_from(magnitude + 1).map_or(significant, |whole| whole.max(significant))
}

fn write(attribute: &AttributeValue, json: &mut String) -> Result<(), &'static str> {
    match attribute {
        AttributeValue::S(text) => write_string(text, json),
        AttributeValue::N(number) => json.push_str(number),
        AttributeValue::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
        AttributeValue::Null(_) => json.push_str("null"),
        AttributeValue::L(list) => {
            json.push('[');
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    json.push(',');
                }
                write(value, json)?;
            }
            json.push(']');
        }
        AttributeValue::M(map) => {
            json.push('{');
            // In a stable order, so that what was not changed reads the same.
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (place, (name, value)) in members.into_iter().enumerate() {
                if place > 0 {
                    json.push(',');
                }
                write_string(name, json);
                json.push(':');
                write(value, json)?;
            }
            json.push('}');
        }
        _ => return Err("it holds sets or nested binary values, which this store never writes"),
    }
    Ok(())
}

fn write_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ItemValue {
        ItemValue::Json(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn is_text(attribute: &AttributeValue) -> bool {
        attribute.as_m().is_ok_and(|map| map.contains_key(TEXT_KEY))
    }

    #[test]
    fn json_is_stored_as_serde_dynamo_would_read_it() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Order {
            customer: String,
            lines: Vec<u64>,
            paid: Option<bool>,
            price: f64,
        }
        let stored = to_attribute(&json(
            r#" {"customer":"Grö\u00dfe \"x\"", "lines": [1, 18446744073709551615], "paid":null, "price":12.5} "#,
        ));
        let read: Order = serde_dynamo::from_attribute_value(stored).unwrap();
        let order =
            Order { customer: "Größe \"x\"".to_owned(), lines: vec![1, u64::MAX], paid: None, price: 12.5 };
        assert_eq!(read, order);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        for number in
            ["0.30000000000000004", "12345678901234567890123456789012345678", "1e-100", "-1.5e20", "1e37"]
        {
            let stored = to_attribute(&json(number));
            assert_eq!(stored, AttributeValue::N(number.to_owned()));
            assert_eq!(of_attribute(&stored), Ok(json(number)));
        }
    }

    #[test]
    fn what_dynamodb_can_not_hold_is_kept_as_text() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        let long = "1".repeat(39);
        for text in [
            &*deep,
            &long,
            "1e200",
            "1e-140",
            "1e38",
            "-0",
            "-0.0e5",
            r#"{"":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"$json":"x"}"#,
            "{",
        ] {
            let stored = to_attribute(&json(text));
            assert!(is_text(&stored), "{text}");
            assert_eq!(of_attribute(&stored), Ok(json(text)), "{text}");
        }
    }

    #[test]
    fn binary_is_never_taken_for_json() {
        let value = ItemValue::Binary(Bytes::from_static(b"{\"a\":1}"));
        assert_eq!(of_attribute(&to_attribute(&value)), Ok(value));
    }

    #[test]
    fn what_others_wrote_into_an_item_is_refused_if_it_has_no_meaning_in_json() {
        let set = AttributeValue::Ss(vec!["a".to_owned()]);
        assert!(of_attribute(&AttributeValue::M(HashMap::from([("a".to_owned(), set)]))).is_err());
    }
}
