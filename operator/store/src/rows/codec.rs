//! How values become columns and back. What the text columns hold is known here and in [`super::packed`].

use crate::{Haste, Origin, Stage, StoreError};
use fairlead_model::{Document, RecordId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A record id as it is stored.
pub(crate) type IdBytes = [u8; 16];

pub(crate) fn id_bytes(id: RecordId) -> IdBytes {
    *id.0.as_bytes()
}

pub(crate) fn record_id(bytes: IdBytes) -> RecordId {
    RecordId(Uuid::from_bytes(bytes))
}

/// Any value as JSON text.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Other(format!("a value cannot be written as JSON: {error}")))
}

/// JSON text as a value; what it is goes into the message.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unusable(format!("a stored {what} is damaged: {error}")))
}

pub(crate) fn decode_document(text: &str) -> Result<Document, StoreError> {
    decode("document", text)
}

/// Index keys as one blob.
pub(crate) fn pack_keys(keys: &[i64]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.to_le_bytes()).collect()
}

pub(crate) fn unpack_keys(blob: &[u8]) -> Vec<i64> {
    blob.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte))).collect()
}

/// A unit variant's name.
pub(crate) fn encode_word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    encode(value).map(|text| text.trim_matches('"').to_owned())
}

pub(crate) fn decode_word<T: DeserializeOwned>(what: &str, word: &str) -> Result<T, StoreError> {
    decode(what, &format!("\"{word}\""))
}

pub(crate) const fn stage_code(stage: Stage) -> i64 {
    match stage {
        Stage::Inbound => 0,
        Stage::Identity => 1,
        Stage::Outbound => 2,
        Stage::Delivery => 3,
    }
}

pub(crate) fn stage_of(code: i64) -> Result<Stage, StoreError> {
    match code {
        0 => Ok(Stage::Inbound),
        1 => Ok(Stage::Identity),
        2 => Ok(Stage::Outbound),
        3 => Ok(Stage::Delivery),
        _ => Err(StoreError::Unusable(format!("a stored dead letter has the unknown stage {code}"))),
    }
}

/// The code of [`Origin::Remap`].
pub(crate) const REMAP: i64 = -2;
/// The code of [`Origin::Replay`].
pub(crate) const REPLAY: i64 = -5;

/// An origin's code below zero, or the participant whose interned name it is.
pub(crate) const fn origin_code(origin: &Origin) -> Result<i64, &String> {
    match origin {
        Origin::Source(participant) => Err(participant),
        Origin::Restore => Ok(-1),
        Origin::Remap => Ok(REMAP),
        Origin::Resync => Ok(-3),
        Origin::Repair => Ok(-4),
        Origin::Replay => Ok(REPLAY),
        Origin::Api => Ok(-6),
    }
}

/// The origin of a code below zero.
pub(crate) const fn special_origin(code: i64) -> Option<Origin> {
    match code {
        -1 => Some(Origin::Restore),
        REMAP => Some(Origin::Remap),
        -3 => Some(Origin::Resync),
        -4 => Some(Origin::Repair),
        REPLAY => Some(Origin::Replay),
        -6 => Some(Origin::Api),
        _ => None,
    }
}

/// Whether what an origin of this code put in a lane has time.
pub(crate) fn is_bulk(code: i64) -> bool {
    special_origin(code).is_some_and(|origin| origin.haste() == Haste::Bulk)
}

pub(crate) const fn haste(bulk: bool) -> Haste {
    if bulk { Haste::Bulk } else { Haste::Soon }
}

/// The names of notes with corrections: from the first on, up to and without the second.
pub(crate) fn corrections() -> (String, String) {
    let first = crate::archive::CORRECTION.to_owned();
    let end = first.strip_suffix('/').unwrap_or(&first).to_owned() + "0";
    (first, end)
}
