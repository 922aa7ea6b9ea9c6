//! Values that are kept in great number, as short text: a letter that tells their layout, then their bytes ([postcard](https://postcard.jamesmunns.com)) in
//! base64. Hashes above all are half as long as in JSON.
//!
//! The bytes name no fields: whoever adds one, or changes one, takes another letter and goes on reading the old.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a value cannot be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It does not begin with the letter.
    #[error("it is of no layout that is known here")]
    Layout,
    /// It is no base64.
    #[error(transparent)]
    Text(#[from] base64::DecodeError),
    /// The bytes are no such value.
    #[error(transparent)]
    Bytes(#[from] postcard::Error),
}

/// The text of a value.
///
/// # Errors
/// When it has a shape that has no bytes (a list of unknown length).
pub fn pack<T: Serialize>(layout: char, value: &T) -> Result<String, PackError> {
    let bytes = postcard::to_allocvec(value)?;
    let mut text = String::with_capacity(layout.len_utf8() + bytes.len().div_ceil(3) * 4);
    text.push(layout);
    STANDARD_NO_PAD.encode_string(bytes, &mut text);
    Ok(text)
}

/// The value of a text.
///
/// # Errors
/// When it is not what [`pack`] made with this letter.
pub fn unpack<T: DeserializeOwned>(layout: char, text: &str) -> Result<T, PackError> {
    let text = text.strip_prefix(layout).ok_or(PackError::Layout)?;
    Ok(postcard::from_bytes(&STANDARD_NO_PAD.decode(text)?)?)
}
