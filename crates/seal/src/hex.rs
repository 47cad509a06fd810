//! Public values of 32 bytes as text: 64 hexadecimal digits.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::SealError;

pub(crate) fn text(bytes: &[u8; 32]) -> String {
    HEXLOWER.encode(bytes)
}

pub(crate) fn parse(what: &'static str, text: &str) -> Result<[u8; 32], SealError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| SealError::name(what, "64 hexadecimal digits", text))
}

pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    parse("public value", &text).map_err(de::Error::custom)
}
