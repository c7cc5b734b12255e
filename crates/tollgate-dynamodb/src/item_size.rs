//! How many bytes DynamoDB counts for values and items, by its published rules. Capacity is computed from these figures in
//! [`crate::capacity`]; nothing here knows of commits.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::names::Item;

/// What DynamoDB adds for a list or a map, whatever is in it.
const DOCUMENT_OVERHEAD_BYTES: usize = 3;
/// What DynamoDB adds for each element of a list or a map.
const ELEMENT_OVERHEAD_BYTES: usize = 1;

/// The size of an item: names and values of all its attributes, keys included.
pub(crate) fn item_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// The size of a value, without its attribute's name.
pub(crate) fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number_bytes(number),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::L(list) => {
            DOCUMENT_OVERHEAD_BYTES
                + list.iter().map(|value| ELEMENT_OVERHEAD_BYTES + value_bytes(value)).sum::<usize>()
        }
        AttributeValue::M(map) => {
            DOCUMENT_OVERHEAD_BYTES
                + map
                    .iter()
                    .map(|(name, value)| ELEMENT_OVERHEAD_BYTES + name.len() + value_bytes(value))
                    .sum::<usize>()
        }
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| number_bytes(number)).sum(),
        AttributeValue::Bs(values) => values.iter().map(|bytes| bytes.as_ref().len()).sum(),
        // Null, booleans, and whatever comes after them.
        _ => 1,
    }
}

/// One byte for two significant digits, one for the exponent, one for a sign. DynamoDB says "approximately": this is
/// the upper side of it.
fn number_bytes(number: &str) -> usize {
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_matches('0').len();
    1 + significant.div_ceil(2) + 1 + usize::from(number.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_count_as_well_as_values() {
        let item = HashMap::from([
            ("pk".to_owned(), AttributeValue::S("größe".to_owned())),
            ("b".to_owned(), AttributeValue::B(vec![0; 10].into())),
        ]);
        assert_eq!(item_bytes(&item), 2 + 7 + 1 + 10);
    }

    #[test]
    fn documents_have_an_overhead_for_themselves_and_each_element() {
        let list = AttributeValue::L(vec![AttributeValue::Bool(true), AttributeValue::Null(true)]);
        assert_eq!(value_bytes(&list), 3 + 2 + 2);
        let map = AttributeValue::M(HashMap::from([("name".to_owned(), list)]));
        assert_eq!(value_bytes(&map), 3 + 1 + 4 + 7);
    }

    #[test]
    fn a_number_has_at_most_21_bytes() {
        assert_eq!(value_bytes(&AttributeValue::N("0".to_owned())), 2);
        assert_eq!(value_bytes(&AttributeValue::N("-1200".to_owned())), 4);
        assert!(value_bytes(&AttributeValue::N("9".repeat(38))) <= 21);
    }
}
