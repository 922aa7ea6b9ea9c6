//! A compiled contract: judges documents, and says what is wrong with them without repeating what they hold.
//!
//! Between systems "no value" has two spellings, absent and null, and one meaning. So null in an optional field is no violation even where the
//! schema does not list null, and a required field that may be null may as well be absent.

use crate::subset::{DIALECT, SchemaFinding, escape, flatten};
use fairlead_model::Decimal;
use fairlead_model::document::Document;
use fairlead_model::path::FieldPath;
use fairlead_model::schema::CanonicalSchema;
use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, PatternOptions, ValidationOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Memory for one compiled `pattern`, in bytes.
const PATTERN_MEMORY: usize = 256 * 1024;
/// The most violations told of one document.
const MAX_VIOLATIONS: usize = 20;
/// The most allowed values repeated in a message.
const SHOWN_VALUES: usize = 12;

/// A canonical schema, compiled. Cheap to use from many threads.
#[derive(Debug)]
pub struct Contract {
    fields: Arc<CanonicalSchema>,
    /// By top-level field. Each is judged by itself, so that a part of a document can be judged and no document is copied for it.
    properties: Vec<Property>,
    /// Whether fields that the schema does not name are admitted.
    open: bool,
}

#[derive(Debug)]
struct Property {
    name: String,
    required: bool,
    nullable: bool,
    validator: Validator,
}

/// A field that does not keep the contract. Never holds the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The field's path, as field tables write it (`contacts[].email`).
    pub path: String,
    /// The exact place, as a JSON pointer (`/contacts/2/email`).
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

fn options() -> ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_MEMORY))
        .offline()
        .with_format("decimal", |text: &str| text.parse::<Decimal>().is_ok())
}

/// True when `pattern` can be used; the engine is one that runs in linear time.
pub(crate) fn pattern_compiles(pattern: &str) -> bool {
    options().build(&serde_json::json!({"pattern": pattern})).is_ok()
}

impl Contract {
    /// Checks `schema` against the subset (see the crate's head) and compiles it.
    ///
    /// # Errors
    /// Everything that cannot stay, each with its place and a way out.
    pub fn compile(schema: &Value) -> Result<Self, Vec<SchemaFinding>> {
        let fields = flatten(schema)?;
        // Whatever the subset's walk does not look at closely (a negative minLength, a required that is no list) the meta-schema does.
        jsonschema::draft202012::meta::validate(schema).map_err(|error| {
            let message = format!("{}: {}", error.kind().keyword(), error.masked());
            vec![SchemaFinding { pointer: error.instance_path().to_string(), message, hint: None }]
        })?;
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut properties = Vec::new();
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mut alone: Map<String, Value> = field.as_object().cloned().unwrap_or_default();
            alone.insert("$schema".into(), DIALECT.into());
            if let Some(defs) = schema.get("$defs") {
                alone.insert("$defs".into(), defs.clone());
            }
            let validator = options().build(&Value::Object(alone)).map_err(|error| {
                let pointer = format!("/properties/{}{}", escape(name), error.instance_path());
                vec![SchemaFinding { pointer, message: error.masked().to_string(), hint: None }]
            })?;
            let nullable = [name.clone(), format!("{name}[]")]
                .iter()
                .any(|path| path.parse::<FieldPath>().ok().and_then(|path| fields.get(&path)).is_some_and(|field| field.nullable));
            properties.push(Property { name: name.clone(), required: required.contains(&name.as_str()), nullable, validator });
        }
        let open = schema.get("additionalProperties").and_then(Value::as_bool).unwrap_or(true);
        Ok(Self { fields: Arc::new(fields), properties, open })
    }

    /// The fields, by path: `name`, `address.country`, `contacts[]` (a list) and `contacts[].email` (a field of each element).
    #[must_use]
    pub fn fields(&self) -> &Arc<CanonicalSchema> {
        &self.fields
    }

    /// Whether the entity admits fields that the schema does not name.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Judges a whole document. Formats (decimal, date, date-time, ...) are asserted.
    ///
    /// # Errors
    /// The fields that do not keep the contract, at most 20.
    pub fn validate(&self, document: &Document) -> Result<(), Vec<Violation>> {
        let mut violations = self.judge(|name| document.get(name), |_| true);
        if !self.open {
            let unknown = document.iter().filter(|(name, value)| !value.is_null() && !self.properties.iter().any(|p| p.name == **name));
            violations.extend(unknown.map(|(name, _)| top(name, "is no field of the contract")));
        }
        finish(violations)
    }

    /// Judges the fields at `paths` alone, and what lies inside them: what one participant of several can answer for. A required field is
    /// missed only when it is among them or holds one of them. `value` gives the top-level fields by their names.
    ///
    /// # Errors
    /// The fields that do not keep the contract, at most 20.
    pub fn validate_fields<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v Value>,
        paths: &[impl Borrow<FieldPath>],
    ) -> Result<(), Vec<Violation>> {
        let paths = || paths.iter().map(Borrow::borrow);
        let named = |name: &str| paths().any(|path| path.segments().first().is_some_and(|first| first.name() == name));
        let mut violations = self.judge(value, named);
        violations.retain(|violation| {
            violation.path.parse::<FieldPath>().is_ok_and(|at| paths().any(|path| at.starts_with(path) || path.starts_with(&at)))
        });
        finish(violations)
    }

    fn judge<'v>(&self, value: impl Fn(&str) -> Option<&'v Value>, concerns: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut violations = vec![];
        for property in self.properties.iter().filter(|property| concerns(&property.name)) {
            match value(&property.name).filter(|value| !value.is_null()) {
                None if property.required && !property.nullable => violations.push(top(&property.name, "is required")),
                None => {}
                Some(value) if property.validator.is_valid(value) => {}
                Some(value) => {
                    violations.extend(property.validator.iter_errors(value).filter_map(|error| self.tell(&property.name, &error)));
                }
            }
        }
        violations
    }

    /// A violation for `error` inside the top-level field `name`, unless it is only about the spelling of "no value".
    fn tell(&self, name: &str, error: &ValidationError<'_>) -> Option<Violation> {
        let mut place = top(name, "");
        for segment in error.instance_path().segments() {
            match segment {
                LocationSegment::Index(index) => step(&mut place, &format!("/{index}"), "[]"),
                LocationSegment::Property(inner) => step(&mut place, &format!("/{}", escape(&inner)), &format!(".{inner}")),
            }
        }
        let known = |path: &str| {
            let list = format!("{path}[]");
            [path, &list].into_iter().find_map(|path| path.parse::<FieldPath>().ok().and_then(|path| self.fields.get(&path)))
        };
        if let ValidationErrorKind::Required { property } = error.kind() {
            let inner = property.as_str().unwrap_or_default();
            step(&mut place, &format!("/{}", escape(inner)), &format!(".{inner}"));
            place.message = "is required".into();
            return known(&place.path).is_none_or(|field| !field.nullable).then_some(place);
        }
        if error.instance().is_null() && !place.path.ends_with("[]") {
            place.message = "is required".into();
            return known(&place.path).is_none_or(|field| field.required && !field.nullable).then_some(place);
        }
        if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
            let inner = error.instance().as_object();
            let unexpected: Vec<&str> = unexpected
                .iter()
                .map(String::as_str)
                .filter(|name| inner.and_then(|fields| fields.get(*name)).is_none_or(|value| !value.is_null()))
                .collect();
            place.message = format!("has fields that the contract does not name: {}", unexpected.join(", "));
            return (!unexpected.is_empty()).then_some(place);
        }
        place.message = message(error);
        Some(place)
    }
}

fn top(name: &str, message: &str) -> Violation {
    Violation { path: name.to_owned(), pointer: format!("/{}", escape(name)), message: message.to_owned() }
}

fn step(place: &mut Violation, pointer: &str, path: &str) {
    place.pointer.push_str(pointer);
    place.path.push_str(path);
}

fn finish(mut violations: Vec<Violation>) -> Result<(), Vec<Violation>> {
    // One wrong value may break several keywords; the first is told.
    violations.dedup_by(|next, first| next.pointer == first.pointer);
    violations.truncate(MAX_VIOLATIONS);
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// What is wrong, told from the schema alone: the value is personal data more often than not.
fn message(error: &ValidationError<'_>) -> String {
    use ValidationErrorKind as Kind;
    match error.kind() {
        Kind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or "),
            };
            format!("is {}, the contract wants {wanted}", kind_of(error.instance()))
        }
        Kind::Enum { options } => {
            let all: Vec<String> = options.as_array().into_iter().flatten().filter(|v| !v.is_null()).map(text).collect();
            let rest = if all.len() > SHOWN_VALUES { ", ..." } else { "" };
            format!(
                "is none of the values that the contract allows ({}{rest})",
                all.into_iter().take(SHOWN_VALUES).collect::<Vec<_>>().join(", ")
            )
        }
        Kind::Constant { expected_value } => format!("is not {}", text(expected_value)),
        Kind::Format { format } => match format.as_str() {
            "decimal" => "is not a decimal (digits with an optional sign and point, as a string)".into(),
            "date" => "is not a date (YYYY-MM-DD)".into(),
            "date-time" => "is not a moment in RFC 3339 (2026-05-06T07:08:09Z)".into(),
            other => format!("does not have the format {other}"),
        },
        Kind::Pattern { pattern } => format!("does not match {pattern}"),
        Kind::RegexEngineFailure { .. } | Kind::BacktrackLimitExceeded { .. } => "could not be matched against its pattern".into(),
        Kind::MaxLength { limit } => format!("is longer than {limit} characters"),
        Kind::MinLength { limit } => format!("is shorter than {limit} characters"),
        Kind::Maximum { limit } => format!("is more than {limit}"),
        Kind::Minimum { limit } => format!("is less than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("is not less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("is not more than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("is no multiple of {multiple_of}"),
        Kind::MaxItems { limit } => format!("has more than {limit} elements"),
        Kind::MinItems { limit } => format!("has fewer than {limit} elements"),
        Kind::UniqueItems => "has two equal elements".into(),
        other => format!("breaks the schema's {}", other.keyword()),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
