//! A compiled Integration: the unit, its contract and its field tables, ready to run. Compiled once per digest, shared by all its tasks.

use fairlead_contract::Contract;
use fairlead_mapping::{Lookups, Table, TableSource};
use fairlead_model::hash::{Digest, ValueHash};
use fairlead_model::unit::{InitialLoad, IntegrationUnit, OnLeave, OwnershipRule, ParticipantUnit, RowUnit, ValuePair};
use fairlead_model::{Document, FieldPath, document};
use fairlead_store::{IndexKey, Record};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The note that says by which table a participant was last read and written, and whose records it has.
pub(crate) fn table_note(participant: &str) -> String {
    format!("table/{participant}")
}

/// A compiled Integration.
pub struct Program {
    /// Its source.
    pub unit: Arc<IntegrationUnit>,
    /// Its contract, which Integrations of one contract share.
    pub contract: Arc<Contract>,
    /// Its participants, in the unit's order.
    pub participants: Vec<Participant>,
}

/// A compiled participant.
pub struct Participant {
    /// Its source.
    pub unit: Arc<ParticipantUnit>,
    /// Its field table.
    pub table: Table,
    /// Rows that are written, by native path: the digest of what the row says about writing.
    pub write_rows: BTreeMap<FieldPath, u64>,
    /// The native fields to ask for, the correlation field among them.
    pub native_paths: Vec<FieldPath>,
    /// The digest over all that the table says about reading.
    pub read_digest: u64,
    /// The digest over all that decides what is written: rows, `when`, correlation field, policy, and whether records are made.
    pub write_digest: u64,
    /// The correlation field, parsed.
    pub key: Option<FieldPath>,
    /// Some row is written from an expression that belongs to no canonical field: what such a row needs is told only by mapping.
    pub derives: bool,
    /// What was inside and leaves is archived.
    pub archives_leavers: bool,
}

impl Program {
    /// Compiles a unit. The planner has compiled it before; what fails here is a difference between versions of Fairlead.
    ///
    /// # Errors
    /// What cannot be compiled, for people.
    pub fn compile(unit: Arc<IntegrationUnit>) -> Result<Self, String> {
        let contract = Self::contract(&unit)?;
        Self::with_contract(unit, contract)
    }

    /// Compiles a unit's contract.
    ///
    /// # Errors
    /// What cannot be compiled, for people.
    pub fn contract(unit: &IntegrationUnit) -> Result<Arc<Contract>, String> {
        Contract::compile(&unit.contract.schema).map(Arc::new).map_err(|findings| {
            format!("contract {}: {}", unit.contract.object, findings.first().map_or("invalid", |f| f.message.as_str()))
        })
    }

    /// Compiles a unit whose contract is compiled.
    ///
    /// # Errors
    /// What cannot be compiled, for people.
    pub fn with_contract(unit: Arc<IntegrationUnit>, contract: Arc<Contract>) -> Result<Self, String> {
        let lookups = Lookups::of(&unit.lookups);
        let participants = unit
            .participants
            .iter()
            .map(|p| Participant::compile(p, &unit, &lookups).map_err(|e| format!("participant {}: {e}", p.name)))
            .collect::<Result<_, _>>()?;
        Ok(Self { unit, contract, participants })
    }

    /// The participant called `name`.
    #[must_use]
    pub fn participant(&self, name: &str) -> Option<&Participant> {
        self.participants.iter().find(|p| p.unit.name == name)
    }

    /// The match keys of a document: one per rule whose fields are all there.
    #[must_use]
    pub fn match_keys(&self, document: &Document) -> Vec<IndexKey> {
        self.unit.matching.iter().filter_map(|paths| IndexKey::of_rule(paths, document)).collect()
    }

    /// Everything that a live record is found by: its match keys, and one key per indexed field that it has.
    #[must_use]
    pub fn index_keys(&self, document: &Document) -> Vec<IndexKey> {
        let mut keys = self.match_keys(document);
        keys.extend(self.unit.indexed.iter().filter_map(|path| Some(IndexKey::of_field(path, document::present(document, path)?))));
        keys
    }

    /// Everything that a stored record is found by. A deleted one of which copies live on elsewhere is found by its match keys: another copy that is
    /// read only now is no new record beside those.
    #[must_use]
    pub fn keys_of(&self, record: &Record, lives_on: bool) -> Vec<IndexKey> {
        match record.deleted_at {
            None => self.index_keys(&record.document),
            Some(_) if lives_on => self.match_keys(&record.document),
            Some(_) => Vec::new(),
        }
    }

    /// The digest over what records are found by.
    #[must_use]
    pub fn index_digest(&self) -> u64 {
        digest(&(&self.unit.matching, &self.unit.indexed))
    }

    /// The fields of a document that the match rules speak of, for comparing a hash's candidates by value.
    #[must_use]
    pub fn same_match(&self, a: &Document, b: &Document) -> bool {
        self.unit.matching.iter().any(|paths| {
            !paths.is_empty()
                && paths.iter().all(|path| document::present(a, path).is_some_and(|value| document::present(b, path) == Some(value)))
        })
    }
}

impl Participant {
    fn compile(unit: &Arc<ParticipantUnit>, integration: &IntegrationUnit, lookups: &Lookups) -> Result<Self, String> {
        let key = unit.write.as_ref().and_then(|write| write.key.clone());
        let when = unit.write.as_ref().and_then(|write| write.when.clone());
        let table = Table::compile(&TableSource {
            rows: &unit.rows,
            lookups,
            native: &unit.native,
            canonical: &integration.contract.fields,
            entity: &integration.entity,
            key: key.as_deref(),
            when: when.as_deref(),
            read: unit.read.is_some(),
            write: unit.write.is_some(),
        })
        .map_err(|findings| findings.first().map_or_else(|| "invalid".to_owned(), |finding| finding.message.clone()))?;
        let key = key.map(|key| key.parse::<FieldPath>().map_err(|e| format!("write.key: {e}"))).transpose()?;
        let mut native_paths = table.native_paths().to_vec();
        if let Some(key) = &key
            && !native_paths.contains(key)
        {
            native_paths.push(key.clone());
        }
        // A list is written as a whole, so an edit of a row inside it is an edit of its row.
        let write_row = |row: &RowUnit| {
            let native = row.native.clone()?;
            let inside = |other: &&RowUnit| other.native.as_ref().is_some_and(|path| path.list_root().as_ref() == Some(&native));
            let sides: Vec<WriteSide<'_>> =
                std::iter::once(WriteSide::of(row)).chain(unit.rows.iter().filter(inside).map(WriteSide::of)).collect();
            let digest = if sides.len() > 1 { digest(&sides) } else { digest(sides.first()?) };
            Some((native, digest))
        };
        let write_rows: BTreeMap<_, _> = unit.rows.iter().filter_map(write_row).collect();
        // What is written natively is compared natively, so a written path is read as well.
        if unit.write.is_some() {
            for path in write_rows.keys() {
                if path.list_root().is_none() && !native_paths.contains(path) && unit.native.contains_key(path) {
                    native_paths.push(path.clone());
                }
            }
        }
        Ok(Self {
            read_digest: digest(&unit.rows.iter().map(ReadSide::of).collect::<Vec<_>>()),
            write_digest: digest(&(
                unit.rows.iter().map(WriteSide::of).collect::<Vec<_>>(),
                &unit.write.as_ref().map(|write| (&write.when, &write.key, write.on_foreign_edit, write.on_leave)),
                // What `MatchOnly` turned away is to be created when it no longer holds.
                integration.initial_load == InitialLoad::MatchOnly,
            )),
            archives_leavers: when.is_some() && unit.write.as_ref().is_some_and(|write| write.on_leave == OnLeave::Archive),
            derives: unit.rows.iter().any(|row| row.canonical.is_none() && row.from_canonical.is_some()),
            unit: Arc::clone(unit),
            table,
            write_rows,
            native_paths,
            key,
        })
    }

    /// Whether Fairlead writes here.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.unit.write.is_some()
    }

    /// Whether Fairlead reads here.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.unit.read.is_some()
    }
}

/// What a row says about reading.
#[derive(Serialize)]
struct ReadSide<'a>(
    &'a Option<FieldPath>,
    &'a Option<FieldPath>,
    &'a [ValuePair],
    &'a Option<String>,
    bool,
    /// With the digest of the table: an edit there is an edit of the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    Option<(&'a Digest, &'a Option<String>)>,
);

impl<'a> ReadSide<'a> {
    fn of(row: &'a RowUnit) -> Self {
        Self(
            &row.canonical,
            &row.native,
            &row.values,
            &row.to_canonical,
            row.reference.is_some(),
            row.lookup.as_ref().map(|lookup| (&lookup.digest, &lookup.canonical)),
        )
    }
}

/// What a row says about writing.
#[derive(Serialize)]
struct WriteSide<'a>(
    &'a Option<FieldPath>,
    &'a Option<FieldPath>,
    &'a [ValuePair],
    &'a Option<String>,
    &'a Option<Value>,
    bool,
    #[serde(skip_serializing_if = "Option::is_none")] Option<(&'a Digest, &'a Option<String>)>,
);

impl<'a> WriteSide<'a> {
    fn of(row: &'a RowUnit) -> Self {
        Self(
            &row.canonical,
            &row.native,
            &row.values,
            &row.from_canonical,
            &row.value,
            row.reference.is_some(),
            row.lookup.as_ref().map(|lookup| (&lookup.digest, &lookup.native)),
        )
    }
}

fn digest<T: Serialize>(value: &T) -> u64 {
    ValueHash::of(serde_json::to_value(value).ok().as_ref()).0
}

/// The digest over all that decides who owns what and what matches; kept beside the table digests so that an edit re-checks every target.
#[must_use]
pub fn ownership_digest(rules: &[OwnershipRule]) -> u64 {
    digest(&rules.iter().map(|rule| (&rule.fields, &rule.role)).collect::<Vec<_>>())
}
