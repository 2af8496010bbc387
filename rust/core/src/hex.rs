//! Numbers of 128 bits as 32 hexadecimal digits where people read them, and as they are in binary formats.
//!
//! JSON has no such numbers that every reader keeps, nor do most other text formats.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For `#[serde(with = "quorate_core::hex")]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    match serializer.is_human_readable() {
        true => serializer.collect_str(&format_args!("{number:032x}")),
        false => number.serialize(serializer),
    }
}

/// As [`serialize`].
///
/// # Errors
/// For text that is not hexadecimal; otherwise the deserializer's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    match deserializer.is_human_readable() {
        true => {
            let text = String::deserialize(deserializer)?;
            u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
        }
        false => u128::deserialize(deserializer),
    }
}
