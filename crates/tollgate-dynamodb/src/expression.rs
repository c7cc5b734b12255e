//! Update and condition expressions with their placeholders, for names may hold anything. It knows the grammar and nothing of
//! what is written.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// An update of one item and the condition it is made under.
#[derive(Clone, Debug, Default)]
pub(crate) struct Update {
    sets: Vec<String>,
    removes: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    placeholders: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// Writes an attribute.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: AttributeValue) {
        let (name, value) = (self.name(name), self.value(value));
        self.sets.push(format!("{name}={value}"));
    }

    /// Removes an attribute. That of a missing item creates the item: add a condition.
    pub(crate) fn remove(&mut self, name: impl Into<String>) {
        let name = self.name(name);
        self.removes.push(name);
    }

    /// The attribute has this value; or it is absent, if there is none.
    pub(crate) fn require(&mut self, name: impl Into<String>, value: Option<AttributeValue>) {
        let name = self.name(name);
        let condition = match value {
            Some(value) => format!("{name}={}", self.value(value)),
            None => format!("attribute_not_exists({name})"),
        };
        self.conditions.push(condition);
    }

    /// The attribute exists.
    pub(crate) fn require_some(&mut self, name: impl Into<String>) {
        let name = self.name(name);
        self.conditions.push(format!("attribute_exists({name})"));
    }

    /// The update expression.
    pub(crate) fn update(&self) -> String {
        let mut update = String::new();
        if !self.sets.is_empty() {
            update.push_str("SET ");
            update.push_str(&self.sets.join(","));
        }
        if !self.removes.is_empty() {
            if !update.is_empty() {
                update.push(' ');
            }
            update.push_str("REMOVE ");
            update.push_str(&self.removes.join(","));
        }
        update
    }

    /// The condition expression.
    pub(crate) fn condition(&self) -> String {
        self.conditions.join(" AND ")
    }

    /// Names behind the placeholders.
    pub(crate) fn names(&self) -> HashMap<String, String> {
        self.names.clone()
    }

    /// Values behind the placeholders. `None`: there are none, and DynamoDB takes no empty map.
    pub(crate) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }

    fn name(&mut self, name: impl Into<String>) -> String {
        let name = name.into();
        if let Some(placeholder) = self.placeholders.get(&name) {
            return placeholder.clone();
        }
        let placeholder = format!("#{}", self.names.len());
        self.names.insert(placeholder.clone(), name.clone());
        self.placeholders.insert(name, placeholder.clone());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_placeholder_however_often_it_is_used() {
        let mut update = Update::default();
        update.require("version", None);
        update.set("version", AttributeValue::N("1".to_owned()));
        update.remove("a b");
        assert_eq!(update.update(), "SET #0=:0 REMOVE #1");
        assert_eq!(update.condition(), "attribute_not_exists(#0)");
        assert_eq!(update.names().len(), 2);
    }
}
