//! A batch of which some keys are not processed: which ones are held back, and how the answer tells so. DynamoDB does this
//! under load and at 16 MB; dynoxide only at 16 MB.

use serde_json::{Map, Value, json};

use crate::operation::Operation;

/// A batch request in two parts.
#[derive(Debug)]
pub(crate) struct SplitBatch {
    /// What is executed: the request with fewer keys.
    pub(crate) processed: Vec<u8>,
    unprocessed: Map<String, Value>,
    member: &'static str,
}

impl SplitBatch {
    /// Holds back some keys of `body`, at least one and never all. `below(n)` draws a number below `n`.
    /// `None`: the batch has one key only, or can't be read.
    pub(crate) fn draw(
        operation: Operation,
        body: &[u8],
        mut below: impl FnMut(usize) -> usize,
    ) -> Option<Self> {
        let member = match operation {
            Operation::BatchGetItem => "UnprocessedKeys",
            Operation::BatchWriteItem => "UnprocessedItems",
            _ => return None,
        };
        let mut request: Value = serde_json::from_slice(body).ok()?;
        let tables = request.get_mut("RequestItems")?.as_object_mut()?;
        let keys: usize =
            tables.values_mut().filter_map(|table| keys_of(operation, table)).map(|keys| keys.len()).sum();
        if keys < 2 {
            return None;
        }
        let held_back = 1 + below(keys - 1);
        let mut places: Vec<usize> = (0..keys).collect();
        for at in 0..held_back {
            let other = at + below(keys - at);
            places.swap(at, other);
        }
        let mut chosen = vec![false; keys];
        for place in &places[..held_back] {
            chosen[*place] = true;
        }
        let mut chosen = chosen.into_iter();
        let mut unprocessed = Map::new();
        for (name, table) in tables.iter_mut() {
            let mut rest = table.clone();
            let Some(keys) = keys_of(operation, table) else { continue };
            let mut back = Vec::new();
            keys.retain(|key| {
                let held_back = chosen.next().unwrap_or(false);
                if held_back {
                    back.push(key.clone());
                }
                !held_back
            });
            if back.is_empty() {
                continue;
            }
            if let Some(keys) = keys_of(operation, &mut rest) {
                *keys = back;
            }
            unprocessed.insert(name.clone(), rest);
        }
        tables.retain(|_, table| keys_of(operation, table).is_some_and(|keys| !keys.is_empty()));
        Some(Self { processed: request.to_string().into_bytes(), unprocessed, member })
    }

    /// The answer with the keys that were held back.
    pub(crate) fn complete(self, answer: &str) -> String {
        let Ok(mut answer) = serde_json::from_str::<Value>(answer) else { return answer.to_owned() };
        if let Some(members) = answer.as_object_mut() {
            let unprocessed = members.entry(self.member).or_insert_with(|| json!({}));
            if let Some(unprocessed) = unprocessed.as_object_mut() {
                unprocessed.extend(self.unprocessed);
            }
        }
        answer.to_string()
    }
}

/// Reads name keys in a member of each table's request; writes are a list themselves.
fn keys_of(operation: Operation, table: &mut Value) -> Option<&mut Vec<Value>> {
    match operation {
        Operation::BatchGetItem => table.get_mut("Keys")?.as_array_mut(),
        _ => table.as_array_mut(),
    }
}
