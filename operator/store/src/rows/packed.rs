//! The packed text of what is kept per record and participant: a state, and who set which field. They are most of what a store holds, hashes
//! above all, and as JSON a state with what was written took three times as much.
//!
//! Rows that an older Fairlead wrote hold JSON objects, told apart by their brace, and stay as they are until they are written again.

use super::codec::{decode, encode};
use crate::{Provenance, StoreError};
use fairlead_model::hash::{RangeHash, ValueHash};
use fairlead_model::packed::{pack, unpack};
use fairlead_model::state::{FieldState, ParticipantState, RowState, Standing};
use fairlead_model::{RecordId, SmolStr, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The layout of a packed state.
const STATE: char = 'A';

/// Eight bytes: the variable length of postcard's integers makes hashes longer.
type Bits = [u8; 8];

/// A state in the order of its bytes.
#[derive(Serialize, Deserialize)]
struct Packed {
    fields: Vec<(SmolStr, Field)>,
    /// Native place, digest of the row, native value.
    rows: Vec<(Bits, Bits, Bits)>,
    vendor_version: Option<String>,
    modified: Option<i64>,
    written: Option<i64>,
    deleted: bool,
    standing: Option<bool>,
    keyed_as: Option<[u8; 16]>,
}

/// A field's state.
#[derive(Serialize, Deserialize)]
enum Field {
    /// Read, never written.
    Seen(Bits),
    /// Written, and taken to hold just that.
    Held(Bits),
    /// Seen, sent, rendered and disputed.
    Hashes([Option<Bits>; 4]),
    /// The same, and shown otherwise since.
    Edited([Option<Bits>; 4]),
}

impl Field {
    fn pack(state: &FieldState) -> Self {
        let bits = |hash: Option<ValueHash>| hash.map(|hash| hash.0.to_le_bytes());
        match *state {
            FieldState { seen, sent, rendered, disputed, edited: true } => Self::Edited([seen, sent, rendered, disputed].map(bits)),
            FieldState { seen: Some(seen), sent: None, rendered: None, disputed: None, edited: false } => Self::Seen(seen.0.to_le_bytes()),
            FieldState { seen: Some(seen), sent, rendered, disputed: None, edited: false } if sent == Some(seen) && rendered == sent => {
                Self::Held(seen.0.to_le_bytes())
            }
            FieldState { seen, sent, rendered, disputed, edited: false } => Self::Hashes([seen, sent, rendered, disputed].map(bits)),
        }
    }

    fn unpack(&self) -> FieldState {
        let hash = |bits: &Bits| ValueHash(u64::from_le_bytes(*bits));
        match self {
            Self::Seen(seen) => FieldState { seen: Some(hash(seen)), ..FieldState::default() },
            Self::Held(held) => {
                let held = Some(hash(held));
                FieldState { seen: held, sent: held, rendered: held, ..FieldState::default() }
            }
            Self::Hashes(hashes) | Self::Edited(hashes) => {
                let [seen, sent, rendered, disputed] = hashes.each_ref().map(|bits| bits.as_ref().map(hash));
                FieldState { seen, sent, rendered, disputed, edited: matches!(self, Self::Edited(_)) }
            }
        }
    }
}

/// A participant's state without `settled`, which has a column of its own because only the commit knows it.
pub(crate) fn encode_state(state: &ParticipantState) -> Result<String, StoreError> {
    let ParticipantState { fields, rows, vendor_version, modified, written, settled: _, deleted, standing, keyed_as } = state;
    let packed = Packed {
        fields: fields.iter().map(|(unit, field)| (unit.clone(), Field::pack(field))).collect(),
        rows: rows.iter().map(|(place, row)| (place.to_le_bytes(), row.digest.to_le_bytes(), row.native.0.to_le_bytes())).collect(),
        vendor_version: vendor_version.clone(),
        modified: *modified,
        written: *written,
        deleted: *deleted,
        standing: standing.map(|standing| standing == Standing::Inside),
        keyed_as: keyed_as.map(|id| *id.0.as_bytes()),
    };
    pack(STATE, &packed).map_err(|error| StoreError::Other(format!("a participant state cannot be packed: {error}")))
}

pub(crate) fn decode_state(text: &str, settled: i64) -> Result<ParticipantState, StoreError> {
    let settled = settled.cast_unsigned();
    if text.starts_with('{') {
        let state: ParticipantState = decode("participant state", text)?;
        return Ok(ParticipantState { settled, ..state });
    }
    let damaged = |error| StoreError::Unusable(format!("a stored participant state is damaged: {error}"));
    let packed: Packed = unpack(STATE, text).map_err(damaged)?;
    let number = u64::from_le_bytes;
    let row = |(place, digest, native)| (number(place), RowState { digest: number(digest), native: ValueHash(number(native)) });
    Ok(ParticipantState {
        fields: packed.fields.into_iter().map(|(unit, field)| (unit, field.unpack())).collect(),
        rows: packed.rows.into_iter().map(row).collect(),
        vendor_version: packed.vendor_version,
        modified: packed.modified,
        written: packed.written,
        settled,
        deleted: packed.deleted,
        standing: packed.standing.map(|inside| if inside { Standing::Inside } else { Standing::Left }),
        keyed_as: packed.keyed_as.map(|id| RecordId(Uuid::from_bytes(id))),
    })
}

/// The hash over what these ids are kept to have been seen as ([`crate::Store::seen`]), from their states in the same order.
pub(crate) fn seen<'a>(
    states: impl Iterator<Item = Result<(&'a str, Option<String>), StoreError>>,
    fields: &[SmolStr],
) -> Result<Option<ValueHash>, StoreError> {
    let mut range = RangeHash::default();
    for found in states {
        let (id, text) = found?;
        let Some(text) = text else { return Ok(None) };
        let state = decode_state(&text, 0)?;
        let seen = |field: &SmolStr| state.fields.get(field).filter(|field| !field.edited).and_then(|field| field.seen);
        let seen: Option<Vec<ValueHash>> = fields.iter().map(seen).collect();
        let Some(seen) = seen.filter(|_| !state.deleted) else { return Ok(None) };
        range.add(id, seen);
    }
    Ok(Some(range.finish()))
}

/// Who set which fields: each time a participant and a moment, and the fields that share them.
pub(crate) fn encode_provenance(provenance: &BTreeMap<SmolStr, Provenance>) -> Result<Option<String>, StoreError> {
    let mut setters: Vec<(&str, Timestamp, Vec<&str>)> = Vec::new();
    for (field, Provenance { participant, at }) in provenance {
        match setters.iter_mut().find(|(other, when, _)| other == participant && when == at) {
            Some((_, _, fields)) => fields.push(field),
            None => setters.push((participant, *at, vec![field])),
        }
    }
    if setters.is_empty() { Ok(None) } else { encode(&setters).map(Some) }
}

pub(crate) fn decode_provenance(text: &str) -> Result<BTreeMap<SmolStr, Provenance>, StoreError> {
    if text.starts_with('{') {
        return decode("provenance", text);
    }
    let setters: Vec<(SmolStr, Timestamp, Vec<SmolStr>)> = decode("provenance", text)?;
    Ok(setters
        .into_iter()
        .flat_map(|(participant, at, fields)| {
            fields.into_iter().map(move |field| (field, Provenance { participant: participant.clone(), at }))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(hashes: [Option<u64>; 4]) -> FieldState {
        let [seen, sent, rendered, disputed] = hashes.map(|hash| hash.map(ValueHash));
        FieldState { seen, sent, rendered, disputed, edited: false }
    }

    #[test]
    fn a_state_comes_back_as_it_was_and_is_short() {
        let fields = [
            hashes([Some(u64::MAX), None, None, None]),
            hashes([Some(7), Some(7), Some(7), None]),
            hashes([Some(7), Some(7), None, None]),
            hashes([Some(7), Some(7), Some(7), Some(8)]),
            hashes([None, Some(1), Some(2), Some(0)]),
            hashes([None; 4]),
            FieldState { edited: true, ..hashes([Some(7), Some(7), Some(7), None]) },
        ];
        let named = fields.into_iter().enumerate().map(|(n, field)| (SmolStr::from(format!("address.a-long-name.{n}")), field));
        let row = RowState { digest: u64::MAX, native: ValueHash(3) };
        let whole = ParticipantState {
            fields: named.collect(),
            rows: BTreeMap::from([(0, row), (u64::MAX, row)]),
            vendor_version: Some("W/\"Ä\"".into()),
            modified: Some(-1),
            written: Some(i64::MAX),
            settled: 12,
            deleted: true,
            standing: Some(Standing::Left),
            keyed_as: Some(RecordId(Uuid::from_u128(9))),
        };
        let standing = ParticipantState { standing: Some(Standing::Inside), ..ParticipantState::default() };
        for state in [ParticipantState::default(), standing.clone(), whole] {
            let text = encode_state(&state).unwrap();
            assert!(text.is_ascii());
            assert_eq!(decode_state(&text, state.settled.cast_signed()).unwrap(), state);
        }
        let held = Some(u64::MAX / 3);
        let field = |n: u64| (SmolStr::from(format!("address.field{n}")), hashes([held, held, held, None]));
        let row = |n: u64| (u64::MAX / 5 + n, RowState { digest: u64::MAX / 7, native: ValueHash(u64::MAX / 3) });
        let usual = ParticipantState { fields: (0..12).map(field).collect(), rows: (0..12).map(row).collect(), ..standing };
        assert!(encode_state(&usual).unwrap().len() * 2 < encode(&usual).unwrap().len());
    }

    #[test]
    fn what_an_older_fairlead_wrote_is_read_and_what_is_damaged_is_told() {
        let old = r#"{"f":{"name":{"s":1,"w":2}},"n":{"5":{"d":6,"h":7}},"m":8,"x":true}"#;
        let state = decode_state(old, 4).unwrap();
        assert_eq!((state.fields["name"], state.settled, state.deleted), (hashes([Some(1), Some(2), None, None]), 4, true));
        for wrong in ["", "A", "A!", "Bxyz", "{"] {
            let error = decode_state(wrong, 0).unwrap_err().to_string();
            assert!(error.contains("a stored participant state is damaged"), "{wrong}: {error}");
        }
        let old = r#"{"name":{"p":"crm","t":5}}"#;
        let provenance = decode_provenance(old).unwrap();
        assert_eq!(provenance["name"], Provenance { participant: "crm".into(), at: Timestamp(5) });
    }

    #[test]
    fn who_set_which_field_is_told_once_for_the_fields_that_they_set_together() {
        let by = |participant: &str, at: i64| Provenance { participant: participant.into(), at: Timestamp(at) };
        let provenance: BTreeMap<SmolStr, Provenance> =
            [("a", by("crm", 1)), ("b", by("erp", 1)), ("c", by("crm", 1)), ("d", by("crm", 2)), ("e", Provenance::nobodys())]
                .map(|(field, by)| (field.into(), by))
                .into();
        let text = encode_provenance(&provenance).unwrap().unwrap();
        assert_eq!(text, r#"[["crm",1,["a","c"]],["erp",1,["b"]],["crm",2,["d"]],["",0,["e"]]]"#);
        assert_eq!(decode_provenance(&text).unwrap(), provenance);
        assert_eq!(encode_provenance(&BTreeMap::new()).unwrap(), None);
    }
}
