//! The definition as a person writes it. Unknown words are refused here; what the words mean together is checked in [`super::check`].

use super::path::{AnswerPath, Span};
use fairlead_model::schema::{FieldType, NativeField};
use fairlead_model::{ErrorClass, FieldPath};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A whole definition.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Format {
    /// The system's name.
    pub(crate) system: String,
    /// Where relative paths start. Knows `{{endpoint}}`, `{{version}}` and the parameters.
    #[serde(default = "endpoint")]
    pub(crate) base: String,
    /// The vendor API version to speak unless the connector names one.
    #[serde(default)]
    pub(crate) default_version: String,
    /// Which versions the vendor takes out of service, and when.
    #[serde(default)]
    pub(crate) end_of_life: Vec<EndOfLifeRule>,
    /// What a connector must or may say besides.
    #[serde(default)]
    pub(crate) parameters: Vec<ParameterFormat>,
    /// Ways to authenticate.
    pub(crate) auth: Vec<AuthFormat>,
    /// The least permissions that are needed, in the vendor's words.
    #[serde(default)]
    pub(crate) permissions: Vec<String>,
    /// Headers on every call.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Where error bodies hold what.
    #[serde(default)]
    pub(crate) error_body: ErrorBody,
    /// What answers mean; the first rule that fits decides.
    #[serde(default)]
    pub(crate) errors: Vec<ErrorRule>,
    /// How long to wait when the vendor says "slow down" but not for how long.
    #[serde(default)]
    pub(crate) throttle: ThrottleFormat,
    /// Where answers tell how much quota is left.
    #[serde(default)]
    pub(crate) quota: Option<QuotaFormat>,
    /// The longest that one request may take.
    #[serde(default = "timeout")]
    pub(crate) timeout: Span,
    /// The cheapest call that needs valid credentials.
    pub(crate) probe: RequestFormat,
    /// The record types.
    pub(crate) entities: Vec<EntityFormat>,
}

fn endpoint() -> String {
    "{{endpoint}}".into()
}

fn timeout() -> Span {
    Span(std::time::Duration::from_secs(30))
}

fn yes() -> bool {
    true
}

/// Versions up to `upTo` leave service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EndOfLifeRule {
    pub(crate) up_to: String,
    #[serde(default)]
    pub(crate) deprecated: Option<String>,
    #[serde(default)]
    pub(crate) retired: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ParameterFormat {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) required: bool,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) pattern: Option<String>,
    #[serde(default)]
    pub(crate) default: Option<String>,
}

/// One way to authenticate; `name` distinguishes several of one method.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "method", deny_unknown_fields)]
pub(crate) enum AuthFormat {
    /// A key in a header.
    #[serde(rename_all = "camelCase")]
    ApiKey {
        #[serde(default)]
        name: Option<String>,
        header: String,
        #[serde(default)]
        prefix: String,
        #[serde(default = "api_key")]
        secret_key: String,
    },
    /// User name and password (RFC 7617).
    #[serde(rename_all = "camelCase")]
    Basic {
        #[serde(default)]
        name: Option<String>,
    },
    /// OAuth 2.0 client credentials with a shared secret (RFC 6749 section 4.4).
    #[serde(rename_all = "camelCase")]
    ClientCredentials {
        #[serde(default)]
        name: Option<String>,
        token: TokenFormat,
        #[serde(default)]
        client: ClientPlace,
    },
    /// OAuth 2.0 JWT bearer grant (RFC 7523 section 2.1).
    #[serde(rename_all = "camelCase")]
    JwtBearer {
        #[serde(default)]
        name: Option<String>,
        token: TokenFormat,
        audience: String,
        #[serde(default = "jwt_lifetime")]
        lifetime: Span,
    },
    /// OAuth 2.0 client credentials with a signed client assertion (RFC 7523 section 2.2); ES256 or PS256 by the kind of key.
    #[serde(rename_all = "camelCase")]
    ClientAssertion {
        #[serde(default)]
        name: Option<String>,
        token: TokenFormat,
        #[serde(default)]
        scopes: Vec<String>,
        #[serde(default = "jwt_lifetime")]
        lifetime: Span,
    },
    /// OAuth 1.0a with tokens issued beforehand, HMAC-SHA256 (RFC 5849).
    #[serde(rename_all = "camelCase")]
    OAuth1 {
        #[serde(default)]
        name: Option<String>,
        realm: String,
    },
}

fn api_key() -> String {
    "apiKey".into()
}

fn jwt_lifetime() -> Span {
    Span(std::time::Duration::from_secs(180))
}

/// Where client id and secret go in a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub(crate) enum ClientPlace {
    /// The Authorization header.
    #[default]
    Basic,
    /// Form fields.
    Form,
}

/// A token request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TokenFormat {
    /// The token endpoint.
    pub(crate) url: String,
    /// More form fields.
    #[serde(default)]
    pub(crate) form: BTreeMap<String, String>,
    /// Where the answer names the host that data calls go to.
    #[serde(default)]
    pub(crate) instance: Option<AnswerPath>,
}

/// Where error bodies hold what; the first path that is there counts.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) code: Vec<AnswerPath>,
    #[serde(default)]
    pub(crate) message: Vec<AnswerPath>,
    #[serde(default)]
    pub(crate) field: Vec<AnswerPath>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ErrorRule {
    /// The HTTP status, if it matters.
    #[serde(default)]
    pub(crate) status: Option<u16>,
    /// The vendor's codes, if they matter; `*` at the end stands for anything.
    #[serde(default)]
    pub(crate) code: Vec<String>,
    /// What it means.
    pub(crate) class: ErrorClass,
    /// The reason word, where the class's own is not the right one.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Where the vendor tells how long to wait. It says so for people: a `Retry-After` is heeded in any case.
    #[serde(default)]
    pub(crate) retry_after: Option<RetryAfter>,
    /// Where this answer holds its message.
    #[serde(default)]
    pub(crate) message: Option<AnswerPath>,
    /// Where this answer names the field.
    #[serde(default)]
    pub(crate) field: Option<AnswerPath>,
    /// Whether a write may have taken effect in spite of it.
    #[serde(default)]
    pub(crate) effect: Option<Effect>,
    /// The account's quota is used up.
    #[serde(default)]
    pub(crate) quota_exhausted: bool,
}

/// Where the vendor tells how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum RetryAfter {
    /// The `Retry-After` header.
    #[serde(rename = "header", alias = "Header")]
    Header,
}

/// Whether a write may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Effect {
    /// Surely not.
    None,
    /// Perhaps.
    Maybe,
}

/// Waits where the vendor names none: doubling from `initial` to `max` while refusals follow each other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ThrottleFormat {
    pub(crate) initial: Span,
    pub(crate) max: Span,
}

impl Default for ThrottleFormat {
    fn default() -> Self {
        Self { initial: Span(std::time::Duration::from_secs(1)), max: Span(std::time::Duration::from_secs(60)) }
    }
}

/// Where answers tell of the account's quota: `used/limit` in one header, or each number in a header of its own. Meant for a long window (a day);
/// waits within seconds are for `requestsPerSecond` and `Retry-After`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct QuotaFormat {
    /// A header such as `Sforce-Limit-Info: api-usage=18/5000`.
    #[serde(default)]
    pub(crate) header: Option<String>,
    /// In it: the word before `used/limit`.
    #[serde(default)]
    pub(crate) usage: Option<String>,
    /// The header with the requests of a window.
    #[serde(default)]
    pub(crate) limit: Option<String>,
    /// The header with those that are left.
    #[serde(default)]
    pub(crate) remaining: Option<String>,
    /// The header with those that are used.
    #[serde(default)]
    pub(crate) used: Option<String>,
    /// The header with the end of the window: in so many seconds, at a second since 1970, or at a date.
    #[serde(default)]
    pub(crate) reset: Option<String>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RequestFormat {
    #[serde(default = "get")]
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) query: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// `.record`, or JSON text in which `.record` or `.records` stands for what is written.
    #[serde(default)]
    pub(crate) body: Option<String>,
}

fn get() -> String {
    "GET".into()
}

/// A query value: text with placeholders, a whole number, or a flag.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl Scalar {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// One record type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EntityFormat {
    pub(crate) name: String,
    /// Where a record holds its id.
    pub(crate) key: AnswerPath,
    /// Where a record holds its modification stamp.
    #[serde(default)]
    pub(crate) modified: Option<AnswerPath>,
    pub(crate) fields: Vec<FieldFormat>,
    #[serde(default)]
    pub(crate) read: Option<ReadFormat>,
    /// One record by its id, where no query language does it.
    #[serde(default)]
    pub(crate) get: Option<GetFormat>,
    /// Records by a field's value, where no query language does it.
    #[serde(default)]
    pub(crate) search: Option<SearchFormat>,
    #[serde(default)]
    pub(crate) create: Option<WriteFormat>,
    #[serde(default)]
    pub(crate) update: Option<WriteFormat>,
    #[serde(default)]
    pub(crate) upsert: Option<WriteFormat>,
    #[serde(default)]
    pub(crate) delete: Option<WriteFormat>,
    #[serde(default)]
    pub(crate) batch: Option<BatchFormat>,
    /// Salesforce sObject Collections do all writing.
    #[serde(default)]
    pub(crate) collections: Option<CollectionsFormat>,
    /// The fields that make a record inactive.
    #[serde(default)]
    pub(crate) archive: BTreeMap<FieldPath, serde_json::Value>,
    /// The fields that make it active again; left out, flags of `archive` are turned round.
    #[serde(default)]
    pub(crate) reactivate: BTreeMap<FieldPath, serde_json::Value>,
    /// How long after a write it may not yet be found.
    #[serde(default)]
    pub(crate) visible_after: Span,
    /// How long after a write a read may still show the value before.
    #[serde(default)]
    pub(crate) stale_for: Span,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FieldFormat {
    pub(crate) name: FieldPath,
    #[serde(rename = "type")]
    pub(crate) kind: FieldType,
    #[serde(default = "yes")]
    pub(crate) nullable: bool,
    #[serde(default = "yes")]
    pub(crate) writable: bool,
    #[serde(default)]
    pub(crate) max_length: Option<u32>,
    #[serde(default)]
    pub(crate) values: Vec<String>,
    /// The vendor keeps it unique and can upsert on it, so it can hold the canonical id.
    #[serde(default)]
    pub(crate) correlation: bool,
    /// How child rows are written; lists only.
    #[serde(default)]
    pub(crate) children: Option<Children>,
    /// The query language's expression for it, where it is not the name.
    #[serde(default)]
    pub(crate) column: Option<String>,
    /// How a decimal travels.
    #[serde(default)]
    pub(crate) wire: Wire,
}

impl FieldFormat {
    pub(crate) fn native(&self) -> NativeField {
        NativeField {
            kind: self.kind,
            nullable: self.nullable,
            writable: self.writable && self.children != Some(Children::ReadOnly),
            max_length: self.max_length,
            values: self.values.clone(),
        }
    }
}

/// How child rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Children {
    /// Not at all.
    ReadOnly,
    /// Within their parent.
    Nested,
}

/// How a decimal travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub(crate) enum Wire {
    /// As a JSON number.
    #[default]
    Number,
    /// As a string.
    String,
}

/// How records are read: by one query language, or by a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ReadFormat {
    #[serde(default)]
    pub(crate) soql: Option<SoqlFormat>,
    #[serde(default)]
    pub(crate) suiteql: Option<SuiteqlFormat>,
    #[serde(default)]
    pub(crate) request: Option<RequestFormat>,
    /// Where the answer holds the list of records.
    #[serde(default)]
    pub(crate) records: Option<AnswerPath>,
    /// Query parameters of the next page, and where the answer holds their values.
    #[serde(default)]
    pub(crate) next: BTreeMap<String, AnswerPath>,
    #[serde(default)]
    pub(crate) cursor: Option<CursorFormat>,
}

/// What `{{cursor}}` is: the newest value of a field, less a lag.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CursorFormat {
    pub(crate) field: AnswerPath,
    #[serde(default)]
    pub(crate) lag: Span,
}

/// Reading by SOQL.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SoqlFormat {
    pub(crate) from: String,
    /// The stamp that orders changes.
    pub(crate) stamp: String,
    /// How long after its stamp a record may become visible.
    pub(crate) lag: Span,
    #[serde(default = "soql_page")]
    pub(crate) page: u32,
    /// The field that tells that a record is deleted.
    #[serde(default)]
    pub(crate) deleted: Option<String>,
    /// The field of a deleted record that names the record it was merged into.
    #[serde(default)]
    pub(crate) merged: Option<String>,
    /// Only records for which this holds.
    #[serde(default, rename = "where")]
    pub(crate) condition: Option<String>,
    /// Child rows whose changes do not move the parent's stamp: each relation is a slice that re-reads parents.
    #[serde(default)]
    pub(crate) children: Vec<ChildFormat>,
}

/// Child rows with stamps of their own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ChildFormat {
    /// The relation's name in the parent (`Contacts`); also the slice's name. `name`, so that `extends` merges by it.
    pub(crate) name: String,
    /// The child's record type.
    pub(crate) from: String,
    /// The child's field that holds the parent's id.
    pub(crate) parent: String,
}

fn soql_page() -> u32 {
    2000
}

/// Reading by SuiteQL.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SuiteqlFormat {
    /// Path of the query service.
    pub(crate) path: String,
    pub(crate) from: String,
    /// The column of the id; whole numbers.
    pub(crate) id: String,
    pub(crate) stamp: String,
    pub(crate) lag: Span,
    #[serde(default = "suiteql_page")]
    pub(crate) page: u32,
    #[serde(default, rename = "where")]
    pub(crate) condition: Option<String>,
    /// Other tables, joined only when a wanted column names their alias.
    #[serde(default)]
    pub(crate) joins: Vec<JoinFormat>,
    /// Where deletions are found.
    #[serde(default)]
    pub(crate) deletes: Option<DeletesFormat>,
}

fn suiteql_page() -> u32 {
    1000
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct JoinFormat {
    pub(crate) alias: String,
    pub(crate) join: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeletesFormat {
    pub(crate) from: String,
    pub(crate) id: String,
    pub(crate) stamp: String,
    #[serde(rename = "where")]
    pub(crate) condition: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GetFormat {
    pub(crate) request: RequestFormat,
    /// Where the answer holds the record.
    #[serde(default)]
    pub(crate) record: AnswerPath,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SearchFormat {
    /// Knows `{{field}}` and `{{value}}` of the first criterion; further criteria are compared here.
    pub(crate) request: RequestFormat,
    pub(crate) records: AnswerPath,
}

/// One way to write one record.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WriteFormat {
    pub(crate) request: RequestFormat,
    #[serde(default)]
    pub(crate) result: ResultFormat,
    /// Sending it twice does the same as sending it once.
    #[serde(default)]
    pub(crate) idempotent: bool,
}

/// What the answer to a write tells.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ResultFormat {
    /// Where the answer holds the id.
    #[serde(default)]
    pub(crate) id: Option<AnswerPath>,
    /// The header whose last path segment is the id.
    #[serde(default)]
    pub(crate) id_header: Option<String>,
    /// Where the answer holds the record's version.
    #[serde(default)]
    pub(crate) version: Option<AnswerPath>,
    /// Where the answer holds the record.
    #[serde(default)]
    pub(crate) record: Option<AnswerPath>,
    /// The status that says that a record was created.
    #[serde(default)]
    pub(crate) created_status: Option<u16>,
    /// In a batch: where an item holds its status ...
    #[serde(default)]
    pub(crate) status: Option<AnswerPath>,
    /// ... and which of them are good.
    #[serde(default)]
    pub(crate) ok: Vec<String>,
}

/// Several records with one request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BatchFormat {
    pub(crate) request: RequestFormat,
    pub(crate) max: usize,
    /// Where the answer holds its list of results, in the order of the records.
    pub(crate) results: AnswerPath,
    pub(crate) result: ResultFormat,
    #[serde(default)]
    pub(crate) idempotent: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectionsFormat {
    #[serde(default = "collections_max")]
    pub(crate) max: usize,
}

fn collections_max() -> usize {
    200
}
