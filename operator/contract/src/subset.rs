//! The subset of JSON Schema 2020-12 that may describe a canonical entity: one walk checks it and flattens it into fields.
//!
//! The walk reports everything it finds, each with the JSON pointer of the offending place. It never follows a reference out of the schema and
//! is bounded in depth and in the number of fields, whatever the references inside do.

use fairlead_model::path::FieldPath;
use fairlead_model::schema::{CanonicalField, CanonicalSchema, Classification, FieldType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// The largest schema, in bytes of compact JSON (API.md: "at most 256 KiB").
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// The most fields one entity may have, references expanded.
pub const MAX_FIELDS: usize = 2000;
/// The longest `pattern`, in bytes.
pub const MAX_PATTERN: usize = 512;
/// How deep fields may nest, references expanded.
const MAX_DEPTH: usize = 12;
/// How deep the schema's own JSON may nest.
const MAX_JSON_DEPTH: usize = 64;
/// The dialect that `$schema` may name.
pub(crate) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Formats that are checked, besides `decimal`, which is Fairlead's own.
const FORMATS: [&str; 12] =
    ["decimal", "date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid"];
/// Keywords that only tell something to people.
const ANNOTATIONS: [&str; 8] = ["title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly", "$comment"];
/// Keywords that any typed field may have.
const COMMON: [&str; 3] = ["type", "enum", "const"];
const STRING: [&str; 4] = ["format", "minLength", "maxLength", "pattern"];
const INTEGER: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const ARRAY: [&str; 4] = ["items", "minItems", "maxItems", "uniqueItems"];
const OBJECT: [&str; 3] = ["properties", "required", "additionalProperties"];
const ROOT: [&str; 3] = ["$schema", "$id", "$defs"];

/// Something in a schema that cannot stay, with its place and a way out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaFinding {
    /// Where, as a JSON pointer (RFC 6901); empty for the schema as a whole.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for SchemaFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.pointer.is_empty() { "schema" } else { &self.pointer }, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Checks `schema` and gives its fields.
pub(crate) fn flatten(schema: &Value) -> Result<CanonicalSchema, Vec<SchemaFinding>> {
    let finding = |message: String, hint: &str| vec![SchemaFinding { pointer: String::new(), message, hint: Some(hint.into()) }];
    let Some(root) = schema.as_object() else {
        return Err(finding("a contract's schema is an object".into(), "begin with {type: object, properties: {...}}"));
    };
    let bytes = serde_json::to_vec(schema).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_SCHEMA_BYTES {
        return Err(finding(
            format!("has {bytes} bytes; the most is {MAX_SCHEMA_BYTES}"),
            "move repeated parts to $defs, or split the entity",
        ));
    }
    if depth(schema, MAX_JSON_DEPTH) {
        return Err(finding(format!("nests deeper than {MAX_JSON_DEPTH} levels"), "flatten it"));
    }
    let mut walk = Walk { defs: root.get("$defs").and_then(Value::as_object), ..Walk::default() };
    walk.root(root);
    if walk.findings.is_empty() { Ok(walk.fields) } else { Err(walk.findings.into_iter().collect()) }
}

/// True when `value` nests deeper than `left` levels.
fn depth(value: &Value, left: usize) -> bool {
    match (value, left.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => true,
        (Value::Array(items), Some(left)) => items.iter().any(|item| depth(item, left)),
        (Value::Object(fields), Some(left)) => fields.values().any(|field| depth(field, left)),
        _ => false,
    }
}

/// Escapes one step of a JSON pointer.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

#[derive(Default)]
struct Walk<'s> {
    defs: Option<&'s Map<String, Value>>,
    fields: CanonicalSchema,
    findings: BTreeSet<SchemaFinding>,
    /// Definitions between the root and here, to see a cycle.
    open: Vec<&'s str>,
    /// Definitions that something refers to.
    used: BTreeSet<&'s str>,
    /// Too many fields were found and said so.
    full: bool,
}

/// Where in the entity the walk stands.
#[derive(Clone)]
struct Place {
    /// The path so far, as text; empty at the root.
    path: String,
    required: bool,
    nullable: bool,
    classification: Option<Classification>,
    depth: usize,
}

impl<'s> Walk<'s> {
    fn find(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.findings.insert(SchemaFinding { pointer: pointer.to_owned(), message: message.into(), hint });
    }

    fn root(&mut self, root: &'s Map<String, Value>) {
        if let Some(dialect) = root.get("$schema")
            && dialect.as_str().map(|d| d.trim_end_matches('#')) != Some(DIALECT)
        {
            self.find("/$schema", "another dialect than JSON Schema 2020-12", &format!("write {DIALECT}, or leave it out"));
        }
        if root.get("$defs").is_some_and(|defs| !defs.is_object()) {
            self.find("/$defs", "is no object", "");
        }
        if root.get("type").and_then(Value::as_str) != Some("object") {
            self.find("/type", "the entity itself is an object, never null", "write type: object");
        }
        if root.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty) {
            self.find("/properties", "the entity has no fields", "name its fields under properties");
        }
        let place = Place { path: String::new(), required: true, nullable: false, classification: None, depth: 0 };
        let inner: Map<_, _> = root.iter().filter(|(key, _)| !ROOT.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        self.keywords(&inner, "object", "", true);
        self.object(root, "", &place);
        // A definition that nothing uses is checked as well: it is used soon, and a finding then would come as a surprise.
        let unused: Vec<_> = self.defs.into_iter().flatten().filter(|(name, _)| !self.used.contains(name.as_str())).collect();
        let fields = std::mem::take(&mut self.fields);
        for (name, schema) in unused {
            self.open.push(name);
            let place = Place { path: "definition".into(), depth: 1, ..place.clone() };
            self.field(schema, &format!("/$defs/{}", escape(name)), place);
            self.open.pop();
        }
        self.fields = fields;
    }

    /// Judges the schema of one field and records what it gives.
    fn field(&mut self, schema: &'s Value, pointer: &str, mut place: Place) {
        if self.full {
            return;
        }
        if place.depth > MAX_DEPTH {
            return self.find(pointer, format!("fields nest deeper than {MAX_DEPTH} levels"), "flatten them");
        }
        let Some(schema) = schema.as_object() else {
            return self.find(pointer, "a field needs a schema with a type", "write at least {type: string}");
        };
        if let Some(classification) = self.classification(schema, pointer) {
            place.classification = Some(classification);
        }
        if let Some(reference) = schema.get("$ref") {
            return self.reference(schema, reference, pointer, place);
        }
        if let Some((word, inner, at)) = nullable_choice(schema) {
            self.only(schema, &[word], pointer, &format!("beside {word}"));
            place.nullable = true;
            return self.field(inner, &format!("{pointer}/{word}/{at}"), place);
        }
        let Some(kind) = self.type_of(schema, pointer, &mut place) else {
            // Even without a usable type, keywords outside the subset are worth telling at once.
            return;
        };
        self.keywords(schema, kind, pointer, false);
        let values = self.values(schema, kind, pointer);
        match kind {
            "object" => {
                self.record(&place, FieldType::Object, values, pointer);
                self.object(schema, pointer, &place);
            }
            "array" => self.list(schema, pointer, place),
            "string" => {
                let kind = match schema.get("format").and_then(Value::as_str) {
                    Some("decimal") => FieldType::Decimal,
                    Some("date") => FieldType::Date,
                    Some("date-time") => FieldType::DateTime,
                    _ => FieldType::String,
                };
                self.record(&place, kind, values, pointer);
            }
            "integer" => self.record(&place, FieldType::Integer, values, pointer),
            _ => self.record(&place, FieldType::Boolean, values, pointer),
        }
    }

    fn reference(&mut self, schema: &'s Map<String, Value>, reference: &'s Value, pointer: &str, place: Place) {
        self.only(schema, &["$ref"], pointer, "beside $ref");
        let at = format!("{pointer}/$ref");
        let name = reference.as_str().and_then(|r| r.strip_prefix("#/$defs/")).filter(|name| !name.contains('/'));
        let Some(name) = name else {
            return self.find(&at, "only #/$defs/NAME can be referred to", "copy the schema into $defs; nothing is fetched");
        };
        let name = name.replace("~1", "/").replace("~0", "~");
        let Some((name, target)) = self.defs.and_then(|defs| defs.get_key_value(&name)) else {
            return self.find(&at, format!("$defs has no {name:?}"), "");
        };
        self.used.insert(name);
        if self.open.contains(&name.as_str()) {
            return self.find(
                &at,
                format!("{name:?} refers to itself"),
                "a record of unknown depth has no field paths; refer to the other record by its id",
            );
        }
        self.open.push(name);
        self.field(target, &format!("/$defs/{}", escape(name)), place);
        self.open.pop();
    }

    /// The one type beside null.
    fn type_of(&mut self, schema: &'s Map<String, Value>, pointer: &str, place: &mut Place) -> Option<&'s str> {
        let at = format!("{pointer}/type");
        let named: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        place.nullable |= named.contains(&"null");
        let kinds: Vec<&str> = named.into_iter().filter(|name| *name != "null").collect();
        match kinds.as_slice() {
            [kind @ ("object" | "array" | "string" | "integer" | "boolean")] => Some(kind),
            ["number"] => {
                self.find(&at, "a JSON number may lose digits on its way", "use {type: string, format: decimal}");
                None
            }
            [] => {
                if let Some(word) = schema.keys().find(|key| !is_known(key)) {
                    self.outside(word, pointer);
                } else {
                    self.find(pointer, "a field needs a type", "write type: string, integer, boolean, object or array");
                }
                None
            }
            [other] => {
                self.find(&at, format!("{other:?} is no type"), "write string, integer, boolean, object or array");
                None
            }
            _ => {
                self.find(&at, "more than one type beside null", "a field has one type; make two fields of it");
                None
            }
        }
    }

    /// Every keyword must be known, and have an effect on this type.
    fn keywords(&mut self, schema: &Map<String, Value>, kind: &str, pointer: &str, root: bool) {
        let own: &[&str] = match kind {
            "object" => &OBJECT,
            "array" => &ARRAY,
            "string" => &STRING,
            "integer" => &INTEGER,
            _ => &[],
        };
        for (word, value) in schema {
            let at = format!("{pointer}/{}", escape(word));
            if own.contains(&word.as_str()) || COMMON.contains(&word.as_str()) && !(root && word != "type") {
                self.own_keyword(word, value, &at);
            } else if ANNOTATIONS.contains(&word.as_str()) || word.starts_with("x-") {
            } else if is_known(word) {
                self.find(&at, format!("{word} has no effect on a field of type {kind}"), "take it away");
            } else {
                self.outside(word, pointer);
            }
        }
    }

    fn own_keyword(&mut self, word: &str, value: &Value, at: &str) {
        match (word, value) {
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
                self.find(at, format!("format {format:?} is not known"), &format!("use one of {}, or a pattern", FORMATS.join(", ")));
            }
            ("pattern", Value::String(pattern)) if pattern.len() > MAX_PATTERN => {
                self.find(at, format!("has {} bytes; the most is {MAX_PATTERN}", pattern.len()), "");
            }
            ("pattern", Value::String(pattern)) if !crate::contract::pattern_compiles(pattern) => {
                self.find(
                    at,
                    "is no regular expression, or one that cannot run in linear time",
                    "look-around and back-references are not available",
                );
            }
            ("additionalProperties", value) if !value.is_boolean() => {
                self.find(at, "a map with free keys has no field paths", "write true or false, and name the fields under properties");
            }
            _ => {}
        }
    }

    fn outside(&mut self, word: &str, pointer: &str) {
        let hint = match word {
            "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" => {
                "write the fields out; a field that may be null is type: [string, \"null\"], or anyOf of one schema and {type: \"null\"}"
            }
            "$defs" | "$id" | "$schema" => "it stands at the root only",
            "patternProperties" | "propertyNames" | "unevaluatedProperties" => "name the fields under properties",
            _ => "take it away; a word of your own begins with x-",
        };
        self.find(
            &format!("{pointer}/{}", escape(word)),
            format!("{word} is outside the subset of JSON Schema that canonical schemas use"),
            hint,
        );
    }

    /// Beside the words of `main` only annotations may stand.
    fn only(&mut self, schema: &Map<String, Value>, main: &[&str], pointer: &str, whose: &str) {
        for word in schema.keys() {
            if !main.contains(&word.as_str()) && !ANNOTATIONS.contains(&word.as_str()) && !word.starts_with("x-") {
                self.find(
                    &format!("{pointer}/{}", escape(word)),
                    format!("{word} cannot stand {whose}"),
                    "move it into the schema referred to",
                );
            }
        }
    }

    fn classification(&mut self, schema: &Map<String, Value>, pointer: &str) -> Option<Classification> {
        match schema.get("x-classification")?.as_str() {
            Some("Personal") => Some(Classification::Personal),
            Some("Financial") => Some(Classification::Financial),
            _ => {
                self.find(&format!("{pointer}/x-classification"), "is neither Personal nor Financial", "");
                None
            }
        }
    }

    /// The closed set of values, as texts.
    fn values(&mut self, schema: &Map<String, Value>, kind: &str, pointer: &str) -> Vec<String> {
        let (word, listed) = match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(values)), _) => ("enum", values.as_slice()),
            (None, Some(value)) => ("const", std::slice::from_ref(value)),
            _ => return vec![],
        };
        let mut values = vec![];
        for value in listed {
            match (kind, value) {
                ("string", Value::String(text)) => values.push(text.clone()),
                ("integer", Value::Number(number)) if number.is_i64() => values.push(number.to_string()),
                ("boolean", Value::Bool(value)) => values.push(value.to_string()),
                (_, Value::Null) => {}
                _ => {
                    let hint = "closed sets are for text, whole numbers and booleans";
                    self.find(&format!("{pointer}/{word}"), format!("a value is no {kind}"), hint);
                }
            }
        }
        values
    }

    fn object(&mut self, schema: &'s Map<String, Value>, pointer: &str, place: &Place) {
        let empty = Map::new();
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = match schema.get("properties") {
            Some(Value::Object(properties)) => Some(properties),
            Some(_) => return self.find(&format!("{pointer}/properties"), "is no object", ""),
            None => None,
        };
        for name in &required {
            if !properties.unwrap_or(&empty).contains_key(*name) {
                self.find(&format!("{pointer}/required"), format!("requires {name:?}, which properties does not name"), "");
            }
        }
        for (name, field) in properties.into_iter().flatten() {
            let at = format!("{pointer}/properties/{}", escape(name));
            let path = if place.path.is_empty() { name.clone() } else { format!("{}.{name}", place.path) };
            if name.contains('.') || name.contains("[]") || path.parse::<FieldPath>().is_err() {
                self.find(
                    &at,
                    format!("{name:?} cannot be a step of a field path"),
                    "use letters, digits, '_' and '-', and at most 256 characters for a path",
                );
                continue;
            }
            let inner = Place {
                path,
                required: required.contains(&name.as_str()),
                nullable: false,
                classification: place.classification,
                depth: place.depth.saturating_add(1),
            };
            self.field(field, &at, inner);
        }
    }

    fn list(&mut self, schema: &'s Map<String, Value>, pointer: &str, mut place: Place) {
        let at = format!("{pointer}/items");
        let Some(items) = schema.get("items") else {
            return self.find(&at, "a list says what its elements are", "write items: {type: ...}");
        };
        if place.path.ends_with("[]") {
            return self.find(pointer, "a list of lists has no field path", "make its elements objects");
        }
        place.path.push_str("[]");
        self.record(&place, FieldType::List, vec![], pointer);
        // An element stands at the list's own path, which keeps telling of the list; what an element is shows in the fields below it.
        let list = place.path.parse::<FieldPath>().ok().and_then(|path| self.fields.remove_entry(&path));
        self.field(items, &at, Place { nullable: false, required: true, depth: place.depth.saturating_add(1), ..place });
        self.fields.extend(list);
    }

    fn record(&mut self, place: &Place, kind: FieldType, values: Vec<String>, pointer: &str) {
        let Ok(path) = place.path.parse::<FieldPath>() else {
            return self.find(pointer, "its path is longer than 256 characters", "shorten the names");
        };
        let field =
            CanonicalField { kind, nullable: place.nullable, required: place.required, classification: place.classification, values };
        self.fields.insert(path, field);
        if self.fields.len() > MAX_FIELDS && !self.full {
            self.full = true;
            self.find("", format!("has more than {MAX_FIELDS} fields, references expanded"), "split the entity");
        }
    }
}

/// `anyOf: [X, {type: null}]`, the customary way to make a reference nullable: the word, X, and X's index.
fn nullable_choice(schema: &Map<String, Value>) -> Option<(&'static str, &Value, usize)> {
    ["anyOf", "oneOf"].into_iter().find_map(|word| {
        let [first, second] = schema.get(word)?.as_array()?.as_slice() else { return None };
        let null = |value: &Value| value.as_object().is_some_and(|o| o.len() == 1 && o.get("type").and_then(Value::as_str) == Some("null"));
        match (null(first), null(second)) {
            (false, true) => Some((word, first, 0)),
            (true, false) => Some((word, second, 1)),
            _ => None,
        }
    })
}

/// True for every keyword of the subset, wherever it belongs.
fn is_known(word: &str) -> bool {
    [&ANNOTATIONS[..], &COMMON, &STRING, &INTEGER, &ARRAY, &OBJECT].iter().any(|set| set.contains(&word)) || word.starts_with("x-")
}
