//! A system definition: what a business system is like, as a file that a team can write.
//!
//! Flow: text is parsed as YAML, `extends` is merged (objects by key, lists of named things by name), the whole is read into typed form and
//! checked. A [`Definition`] has passed all checks; whoever holds one need not check again. It does no I/O.

pub(crate) mod check;
pub(crate) mod format;
mod merge;
pub(crate) mod path;
pub(crate) mod template;

use crate::client::credentials::invalid;
use crate::message;
use crate::shape::Shape;
use fairlead_model::schema::NativeSchema;
use fairlead_model::unit::ConnectorUnit;
use fairlead_model::{FieldPath, RemoteError};
use format::{AuthFormat, EntityFormat, FieldFormat, Format};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The slice in which every entity is read.
pub const MAIN: &str = "main";
/// The slice of deletions, where they are found apart from the records.
pub const DELETES: &str = "deletes";

/// The most characters of a definition's text.
pub const MAX_TEXT: usize = 512 * 1024;

/// Something wrong in a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionFinding {
    /// Where, as a path in the YAML (`entities[Account].fields[Name].type`).
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for DefinitionFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "definition" } else { &self.place };
        write!(f, "{place}: {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// A parsed and checked definition.
#[derive(Debug, Clone)]
pub struct Definition {
    source: Value,
    pub(crate) format: Format,
    entities: BTreeMap<String, Entity>,
    text: OnceLock<Arc<str>>,
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// When the vendor takes a version out of service. Dates as the vendor gives them (`2028-06`, `2027-09-01`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfLife {
    /// From then on the version should no longer be used.
    pub deprecated: Option<String>,
    /// From then on it does not answer.
    pub retired: Option<String>,
}

/// One way to authenticate that a system offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthMethod {
    /// Its name (`spec.auth.method`).
    pub name: String,
    /// The keys of the Secret that it needs.
    pub secret_keys: Vec<SecretKey>,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// Its name.
    pub name: String,
    /// Whether the method cannot do without it.
    pub required: bool,
    /// What it holds.
    pub description: String,
}

/// Something a connector must or may say (`spec.parameters`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether a connector must give it.
    pub required: bool,
    /// What it is.
    pub description: String,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// The value if the connector gives none.
    pub default: Option<String>,
}

/// One record type.
#[derive(Debug, Clone)]
pub struct Entity {
    pub(crate) format: EntityFormat,
    pub(crate) schema: Arc<NativeSchema>,
    pub(crate) shape: Shape,
    slices: Vec<String>,
    key_fields: Vec<FieldPath>,
}

impl Definition {
    /// Parses and checks a complete definition. One that `extends` another must go through [`Definition::extend`]
    /// (or [`crate::Catalog::resolve`], which knows the built-in ones).
    pub fn parse(text: &str) -> Result<Self, Vec<DefinitionFinding>> {
        let source = yaml(text)?;
        if let Some(base) = source.get("extends") {
            return Err(vec![DefinitionFinding {
                place: "extends".into(),
                message: format!("this definition extends {base}, which was not given"),
                hint: "give the definition that it extends as well".into(),
            }]);
        }
        Self::of(source)
    }

    /// The name of the definition that `text` extends, if it extends one.
    #[must_use]
    pub fn extends(text: &str) -> Option<String> {
        yaml(text).ok()?.get("extends")?.as_str().map(str::to_owned)
    }

    /// `base` with what `text` adds or changes: entities and fields are merged by name, everything else is replaced.
    pub fn extend(base: &Self, text: &str) -> Result<Self, Vec<DefinitionFinding>> {
        let mut overlay = yaml(text)?;
        let named = overlay.as_object_mut().and_then(|fields| fields.remove("extends"));
        if named.as_ref().and_then(Value::as_str) != Some(base.system()) {
            return Err(vec![DefinitionFinding {
                place: "extends".into(),
                message: format!("this definition must extend {:?}", base.system()),
                hint: format!("write `extends: {}` at its top", base.system()),
            }]);
        }
        let mut source = base.source.clone();
        merge::overlay(&mut source, overlay);
        Self::of(source)
    }

    fn of(source: Value) -> Result<Self, Vec<DefinitionFinding>> {
        let format: Format = serde_path_to_error::deserialize(&source).map_err(|error| {
            let place = check::readable_place(&error.path().to_string(), &source);
            vec![DefinitionFinding { place, message: error.into_inner().to_string(), hint: "compare with the built-in definitions".into() }]
        })?;
        let findings = check::check(&format);
        if !findings.is_empty() {
            return Err(findings);
        }
        let entities = format.entities.iter().map(|entity| (entity.name.clone(), Entity::of(entity.clone()))).collect();
        Ok(Self { source, format, entities, text: OnceLock::new() })
    }

    /// The complete definition as text, `extends` resolved. Parsing it gives the same definition. Every call gives the same allocation.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        self.text.get_or_init(|| self.source.to_string().into())
    }

    /// The definition that a connector speaks by.
    ///
    /// # Errors
    /// What is wrong with it, as an error of the connector's configuration.
    pub fn of_unit(unit: &ConnectorUnit) -> Result<Self, RemoteError> {
        Self::parse(&unit.definition).map_err(|findings| {
            let first = findings.first().map(ToString::to_string).unwrap_or_default();
            invalid(message::clean(&format!("the system definition is not usable: {first}"), 400))
        })
    }

    /// The system's name.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.format.system
    }

    /// The vendor API version to speak unless a connector names one; empty where the vendor has none.
    #[must_use]
    pub fn default_version(&self) -> &str {
        &self.format.default_version
    }

    /// When `version` leaves service, if the vendor has said so.
    #[must_use]
    pub fn end_of_life(&self, version: &str) -> Option<EndOfLife> {
        let numbers = |text: &str| text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
        let version = numbers(version)?;
        self.format
            .end_of_life
            .iter()
            .find(|rule| numbers(&rule.up_to).is_some_and(|limit| version <= limit))
            .map(|rule| EndOfLife { deprecated: rule.deprecated.clone(), retired: rule.retired.clone() })
    }

    /// The ways to authenticate, the recommended one first.
    #[must_use]
    pub fn auth_methods(&self) -> Vec<AuthMethod> {
        self.format.auth.iter().map(|auth| AuthMethod { name: auth.name().to_owned(), secret_keys: auth.secret_keys() }).collect()
    }

    /// What a connector must or may say.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |p: &format::ParameterFormat| Parameter {
            name: p.name.clone(),
            required: p.required,
            description: p.description.clone(),
            pattern: p.pattern.clone(),
            default: p.default.clone(),
        };
        self.format.parameters.iter().map(parameter).collect()
    }

    /// The least permissions that the account needs, in the vendor's words.
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        &self.format.permissions
    }

    /// The record type called `name`.
    #[must_use]
    pub fn entity(&self, name: &str) -> Option<&Entity> {
        self.entities.get(name)
    }

    /// The names of all record types.
    pub fn entity_names(&self) -> impl Iterator<Item = &str> {
        self.entities.keys().map(String::as_str)
    }
}

impl Entity {
    fn of(format: EntityFormat) -> Self {
        let schema = Arc::new(format.fields.iter().map(|field| (field.name.clone(), field.native())).collect());
        let deletes = format.read.as_ref().and_then(|read| read.suiteql.as_ref()).is_some_and(|suiteql| suiteql.deletes.is_some());
        let children =
            format.read.iter().filter_map(|read| read.soql.as_ref()).flat_map(|soql| soql.children.iter().map(|child| child.name.as_str()));
        let slices = std::iter::once(MAIN).chain(deletes.then_some(DELETES)).chain(children).map(str::to_owned).collect();
        let key_fields = format.fields.iter().filter(|field| field.correlation).map(|field| field.name.clone()).collect();
        let shape = Shape::of(&format.fields);
        Self { format, schema, shape, slices, key_fields }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.format.name
    }

    /// Its fields by path.
    #[must_use]
    pub fn native_schema(&self) -> &Arc<NativeSchema> {
        &self.schema
    }

    /// Whether it can be read.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.format.read.is_some()
    }

    /// Whether existing records can be written.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.format.collections.is_some() || self.format.update.is_some() || self.format.upsert.is_some()
    }

    /// Whether records can be created.
    #[must_use]
    pub fn creatable(&self) -> bool {
        self.format.collections.is_some() || self.format.create.is_some() || self.format.upsert.is_some()
    }

    /// Whether records can be deleted.
    #[must_use]
    pub fn can_delete(&self) -> bool {
        self.format.collections.is_some() || self.format.delete.is_some()
    }

    /// Whether readings tell of deleted records. Where they do not, only a comparison of keys finds them.
    #[must_use]
    pub fn tells_deletions(&self) -> bool {
        let read = self.format.read.as_ref();
        read.is_some_and(|read| {
            read.soql.as_ref().is_some_and(|soql| soql.deleted.is_some())
                || read.suiteql.as_ref().is_some_and(|suiteql| suiteql.deletes.is_some())
        })
    }

    /// What is read with a cursor of its own: `main`, `deletes` where deletions are found apart, and child relations whose changes do not move
    /// their parent's stamp (a slice that yields parents; it asks nothing while no field of the relation is wanted).
    #[must_use]
    pub fn slices(&self) -> &[String] {
        &self.slices
    }

    /// Whether records can be looked for by the values of fields.
    #[must_use]
    pub fn can_search(&self) -> bool {
        self.format.search.is_some() || self.format.read.as_ref().is_some_and(|read| read.soql.is_some() || read.suiteql.is_some())
    }

    /// Whether records can be read by their ids.
    #[must_use]
    pub fn can_read_keys(&self) -> bool {
        self.format.get.is_some() || self.format.read.as_ref().is_some_and(|read| read.soql.is_some() || read.suiteql.is_some())
    }

    /// The fields that can hold the canonical id.
    #[must_use]
    pub fn key_fields(&self) -> &[FieldPath] {
        &self.key_fields
    }

    /// Whether a create that is sent twice makes one record, when `key` is the correlation field.
    #[must_use]
    pub fn idempotent_create(&self, key: Option<&str>) -> bool {
        let Some(key) = key else { return false };
        let known = self.key_fields.iter().any(|field| field.to_string() == key);
        known && (self.format.collections.is_some() || self.format.upsert.as_ref().is_some_and(|upsert| upsert.idempotent))
    }

    /// Whether a change that is sent twice does the same as one that is sent once.
    #[must_use]
    pub fn idempotent_update(&self) -> bool {
        let update = self.format.update.as_ref().or(self.format.upsert.as_ref());
        let once = update.is_some_and(|update| update.idempotent) && self.format.batch.as_ref().is_none_or(|batch| batch.idempotent);
        self.format.collections.is_some() || once
    }

    /// Whether a record can be changed by its own id, and not by its correlation field alone.
    #[must_use]
    pub fn updates_by_id(&self) -> bool {
        self.format.collections.is_some() || self.format.update.is_some() || self.format.batch.is_some()
    }

    /// The most records that travel in one request.
    #[must_use]
    pub fn batch_max(&self) -> usize {
        match (&self.format.collections, &self.format.batch) {
            (Some(collections), _) => collections.max,
            (None, Some(batch)) => batch.max,
            (None, None) => 1,
        }
    }

    /// How long after a write a record may not yet be found by a search.
    #[must_use]
    pub fn visible_after(&self) -> Duration {
        self.format.visible_after.0
    }

    /// How long after a write a read may still show the value before.
    #[must_use]
    pub fn stale_for(&self) -> Duration {
        self.format.stale_for.0
    }

    /// Whether a record can be made inactive.
    #[must_use]
    pub fn can_archive(&self) -> bool {
        !self.format.archive.is_empty() && self.writable()
    }

    /// Whether an archived record can be made active again.
    #[must_use]
    pub fn can_reactivate(&self) -> bool {
        self.reactivation().is_some() && self.writable()
    }

    /// The fields that make an archived record active again: those that the definition names, else the flags of `archive` turned round.
    pub(crate) fn reactivation(&self) -> Option<BTreeMap<FieldPath, Value>> {
        if !self.format.reactivate.is_empty() {
            return Some(self.format.reactivate.clone());
        }
        let turned = self.format.archive.iter().map(|(field, value)| Some((field.clone(), Value::Bool(!value.as_bool()?))));
        turned.collect::<Option<BTreeMap<_, _>>>().filter(|fields| !fields.is_empty())
    }

    pub(crate) fn field(&self, path: &FieldPath) -> Option<&FieldFormat> {
        self.format.fields.iter().find(|field| &field.name == path)
    }
}

impl AuthFormat {
    pub(crate) fn name(&self) -> &str {
        let (name, method) = match self {
            Self::ApiKey { name, .. } => (name, "ApiKey"),
            Self::Basic { name } => (name, "Basic"),
            Self::ClientCredentials { name, .. } => (name, "ClientCredentials"),
            Self::JwtBearer { name, .. } => (name, "JwtBearer"),
            Self::ClientAssertion { name, .. } => (name, "ClientAssertion"),
            Self::OAuth1 { name, .. } => (name, "OAuth1"),
        };
        name.as_deref().unwrap_or(method)
    }

    fn secret_keys(&self) -> Vec<SecretKey> {
        let keys: &[(&str, &str)] = match self {
            Self::ApiKey { secret_key, .. } => {
                return vec![SecretKey { name: secret_key.clone(), required: true, description: "the API key".into() }];
            }
            Self::Basic { .. } => &[("username", "the user's name"), ("password", "the user's password")],
            Self::ClientCredentials { .. } => {
                &[("clientId", "the application's client id"), ("clientSecret", "the application's client secret")]
            }
            Self::JwtBearer { .. } => &[
                ("clientId", "the application's client id (consumer key)"),
                ("username", "the user in whose name calls are made"),
                ("privateKey", "the RSA private key (PEM) whose certificate the application knows"),
            ],
            Self::ClientAssertion { .. } => &[
                ("clientId", "the integration's client id"),
                ("certificateId", "the id of the uploaded certificate (the key id of the assertion)"),
                ("privateKey", "the private key (PEM, PKCS#8) of that certificate: EC P-256 or RSA"),
            ],
            Self::OAuth1 { .. } => &[
                ("consumerKey", "the application's consumer key"),
                ("consumerSecret", "the application's consumer secret"),
                ("tokenId", "the access token's id"),
                ("tokenSecret", "the access token's secret"),
            ],
        };
        keys.iter()
            .map(|(name, description)| SecretKey { name: (*name).into(), required: true, description: (*description).into() })
            .collect()
    }
}

fn yaml(text: &str) -> Result<Value, Vec<DefinitionFinding>> {
    let finding = |message: String| vec![DefinitionFinding { place: String::new(), message, hint: String::new() }];
    if text.len() > MAX_TEXT {
        return Err(finding(format!("longer than {MAX_TEXT} bytes")));
    }
    let value: Value = serde_saphyr::from_str(text).map_err(|error| finding(format!("not readable as YAML: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(finding("a definition is a YAML mapping".into())) }
}

#[cfg(test)]
mod tests;
