//! Any text as a name or id: what a constructor accepts is kept as it was and within its bound, what it refuses breaks a rule that it
//! names, and an id that was read from text is written as text that reads as the same id.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_proto::ids::{NAME_BYTES_MAX, PARTITION_KEY_BYTES_MAX};
use tollgate_proto::{EffectName, EndpointName, ItemName, MessageId, MessageType, PartitionKey, StoreAlias};

macro_rules! check {
    ($name:ty, $text:expr, $bytes_max:expr) => {
        let text: &str = $text;
        match <$name>::new(text) {
            Ok(name) => {
                assert_eq!(name.as_str(), text);
                assert_eq!(name.to_string().parse(), Ok(name));
                assert!((1..=$bytes_max).contains(&text.len()));
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(!(1..=$bytes_max).contains(&text.len()));
            }
        }
    };
}

fuzz_target!(|text: &str| {
    check!(EndpointName, text, NAME_BYTES_MAX);
    check!(StoreAlias, text, NAME_BYTES_MAX);
    check!(ItemName, text, NAME_BYTES_MAX);
    check!(MessageType, text, NAME_BYTES_MAX);
    check!(PartitionKey, text, PARTITION_KEY_BYTES_MAX);
    check!(EffectName, text, PARTITION_KEY_BYTES_MAX);
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    // Where one text ends and the next begins is part of an id: the same bytes, divided otherwise, are another message.
    let middle = (0..=text.len()).rev().find(|at| *at <= text.len() / 2 && text.is_char_boundary(*at)).unwrap_or(0);
    let (system, name) = text.split_at(middle);
    let id = MessageId::from_name(system, name);
    assert_eq!(id, MessageId::from_name(system, name));
    if middle > 0 {
        assert_ne!(id, MessageId::from_name("", text));
    }
});
