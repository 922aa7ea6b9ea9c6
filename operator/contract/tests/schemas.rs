//! Which schemas are taken, what fields they give, and the words with which the others are refused.

// Helpers of tests may panic as tests may.
#![allow(clippy::unwrap_used)]

use fairlead_contract::Contract;
use fairlead_model::schema::{Classification, FieldType};
use serde_json::{Value, json};

/// The findings of `schema` as a user reads them.
fn findings(schema: &Value) -> Vec<String> {
    Contract::compile(schema).map_or_else(|findings| findings.iter().map(ToString::to_string).collect(), |_| vec![])
}

/// A schema with one field `f`.
fn field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"f": schema}})
}

fn customer() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "status"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 120},
            "status": {"type": "string", "enum": ["customer", "prospect"]},
            "annualRevenue": {"type": ["string", "null"], "format": "decimal", "x-classification": "Financial", "x-semantics": {"currency": "USD"}},
            "employees": {"type": "integer", "minimum": 0},
            "since": {"type": "string", "format": "date"},
            "seenAt": {"type": "string", "format": "date-time"},
            "parentId": {"type": ["string", "null"]},
            "address": {"$ref": "#/$defs/address"},
            "shipping": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "contacts": {"type": "array", "x-classification": "Personal", "items": {
                "type": "object", "required": ["email"], "properties": {"email": {"type": "string", "format": "email"}, "phone": {"type": ["string", "null"]}},
            }},
        },
        "$defs": {"address": {"type": "object", "required": ["country"], "properties": {"country": {"type": "string", "pattern": "^[A-Z]{2}$"}, "city": {"type": "string"}}}},
    })
}

#[test]
fn a_customer_gives_one_field_per_path() {
    let contract = Contract::compile(&customer()).unwrap();
    let told: Vec<String> = contract
        .fields()
        .iter()
        .map(|(path, field)| {
            let marks = [(field.nullable, " or null"), (field.required, " required")].map(|(is, mark)| if is { mark } else { "" }).concat();
            let class = field.classification.map_or_else(String::new, |class| format!(" {class:?}"));
            format!(
                "{path}: {:?}{marks}{class}{}",
                field.kind,
                if field.values.is_empty() { String::new() } else { format!(" {:?}", field.values) }
            )
        })
        .collect();
    let expected = [
        "address: Object",
        "address.city: String",
        "address.country: String required",
        "annualRevenue: Decimal or null Financial",
        "employees: Integer",
        "name: String required",
        "parentId: String or null",
        "seenAt: DateTime",
        "shipping: Object or null",
        "shipping.city: String",
        "shipping.country: String required",
        "since: Date",
        "status: String required [\"customer\", \"prospect\"]",
        "contacts[]: List Personal",
        "contacts[].email: String required Personal",
        "contacts[].phone: String or null Personal",
        "tags[]: List",
    ];
    assert_eq!(told, expected);
    assert!(!contract.is_open());
}

#[test]
fn what_is_outside_the_subset_is_refused_with_place_and_way_out() {
    let cases = [
        (json!([]), "schema: a contract's schema is an object; begin with {type: object, properties: {...}}"),
        (json!({"type": "object"}), "/properties: the entity has no fields; name its fields under properties"),
        (
            json!({"type": ["object", "null"], "properties": {"a": {"type": "string"}}}),
            "/type: the entity itself is an object, never null; write type: object",
        ),
        (
            field(json!({"type": "number"})),
            "/properties/f/type: a JSON number may lose digits on its way; use {type: string, format: decimal}",
        ),
        (
            field(json!({"type": ["string", "integer"]})),
            "/properties/f/type: more than one type beside null; a field has one type; make two fields of it",
        ),
        (field(json!({})), "/properties/f: a field needs a type; write type: string, integer, boolean, object or array"),
        (field(json!(true)), "/properties/f: a field needs a schema with a type; write at least {type: string}"),
        (field(json!({"type": "text"})), "/properties/f/type: \"text\" is no type; write string, integer, boolean, object or array"),
        (
            field(json!({"type": "string", "format": "phone"})),
            "/properties/f/format: format \"phone\" is not known; use one of decimal, date, date-time, time, duration, email, hostname, ipv4, ipv6, uri, uri-reference, uuid, or a pattern",
        ),
        (
            field(json!({"type": "string", "minimum": 1})),
            "/properties/f/minimum: minimum has no effect on a field of type string; take it away",
        ),
        (
            field(json!({"type": "string", "pattern": "(?=a)b"})),
            "/properties/f/pattern: is no regular expression, or one that cannot run in linear time; look-around and back-references are not available",
        ),
        (
            field(json!({"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"})),
            "/properties/f/pattern: is no regular expression, or one that cannot run in linear time; look-around and back-references are not available",
        ),
        (
            field(json!({"type": "string", "x-classification": "Secret"})),
            "/properties/f/x-classification: is neither Personal nor Financial",
        ),
        (
            field(json!({"$ref": "https://example.com/a.json"})),
            "/properties/f/$ref: only #/$defs/NAME can be referred to; copy the schema into $defs; nothing is fetched",
        ),
        (field(json!({"$ref": "#/$defs/none"})), "/properties/f/$ref: $defs has no \"none\""),
        (
            json!({"type": "object", "properties": {"f": {"$ref": "#/$defs/node"}}, "$defs": {"node": {"type": "object", "properties": {"parent": {"$ref": "#/$defs/node"}}}}}),
            "/$defs/node/properties/parent/$ref: \"node\" refers to itself; a record of unknown depth has no field paths; refer to the other record by its id",
        ),
        (
            json!({"type": "object", "properties": {"f": {"type": "string"}}, "$defs": {"unused": {"type": "number"}}}),
            "/$defs/unused/type: a JSON number may lose digits on its way; use {type: string, format: decimal}",
        ),
        (
            field(json!({"allOf": [{"type": "string"}]})),
            "/properties/f/allOf: allOf is outside the subset of JSON Schema that canonical schemas use; write the fields out; a field that may be null is type: [string, \"null\"], or anyOf of one schema and {type: \"null\"}",
        ),
        (
            field(json!({"type": "object", "additionalProperties": {"type": "string"}})),
            "/properties/f/additionalProperties: a map with free keys has no field paths; write true or false, and name the fields under properties",
        ),
        (field(json!({"type": "array"})), "/properties/f/items: a list says what its elements are; write items: {type: ...}"),
        (
            field(json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}})),
            "/properties/f/items: a list of lists has no field path; make its elements objects",
        ),
        (
            json!({"type": "object", "properties": {"a.b": {"type": "string"}}}),
            "/properties/a.b: \"a.b\" cannot be a step of a field path; use letters, digits, '_' and '-', and at most 256 characters for a path",
        ),
        (
            json!({"type": "object", "properties": {"f": {"type": "string"}}, "required": ["g"]}),
            "/required: requires \"g\", which properties does not name",
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"f": {"type": "string"}}}),
            "/$schema: another dialect than JSON Schema 2020-12; write https://json-schema.org/draft/2020-12/schema, or leave it out",
        ),
        (
            field(json!({"type": "string", "enum": ["a", 1]})),
            "/properties/f/enum: a value is no string; closed sets are for text, whole numbers and booleans",
        ),
    ];
    for (schema, expected) in cases {
        assert_eq!(findings(&schema), [expected], "{schema}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}, "c": {"oneOf": []}}});
    assert_eq!(findings(&schema).len(), 3);
}

#[test]
fn the_meta_schema_still_judges() {
    let told = findings(&field(json!({"type": "string", "minLength": -1})));
    assert!(told.len() == 1 && told[0].starts_with("/properties/f/minLength: "), "{told:?}");
}

#[test]
fn size_and_depth_are_bounded_whatever_the_references_do() {
    let long = "x".repeat(300 * 1024);
    let told = findings(&json!({"type": "object", "description": long, "properties": {"f": {"type": "string"}}}));
    assert!(told[0].contains("the most is 262144"), "{told:?}");

    // Each definition uses the next four times: 4^10 fields from a kilobyte.
    let defs: serde_json::Map<String, Value> = (0..10)
        .map(|n| {
            let inner = if n == 9 { json!({"type": "string"}) } else { json!({"$ref": format!("#/$defs/d{}", n + 1)}) };
            let properties: serde_json::Map<String, Value> =
                ["a", "b", "c", "d"].map(|name| (name.to_owned(), inner.clone())).into_iter().collect();
            (format!("d{n}"), json!({"type": "object", "properties": properties}))
        })
        .collect();
    let told = findings(&json!({"type": "object", "properties": {"f": {"$ref": "#/$defs/d0"}}, "$defs": defs}));
    assert_eq!(told, ["schema: has more than 2000 fields, references expanded; split the entity"]);
}

#[test]
fn classification_reaches_down_into_objects_and_lists() {
    let contract = Contract::compile(&customer()).unwrap();
    let email = &contract.fields()[&"contacts[].email".parse().unwrap()];
    assert_eq!((email.kind, email.classification), (FieldType::String, Some(Classification::Personal)));
}

#[test]
fn a_digest_does_not_depend_on_the_order_of_keys() {
    let a: Value = serde_json::from_str(r#"{"type":"object","title":"t"}"#).unwrap();
    let b: Value = serde_json::from_str(r#"{"title":"t","type":"object"}"#).unwrap();
    assert_eq!(fairlead_contract::digest(&a), fairlead_contract::digest(&b));
}

mod documents {
    use super::*;
    use fairlead_model::FieldPath;

    fn violations(document: &Value) -> Vec<String> {
        let contract = Contract::compile(&customer()).unwrap();
        let result = contract.validate(document.as_object().unwrap());
        result.err().unwrap_or_default().iter().map(|v| format!("{} ({})", v, v.pointer)).collect()
    }

    /// A good customer with `change` laid over it.
    fn with(change: Value) -> Value {
        let mut document =
            json!({"name": "ACME", "status": "customer", "address": {"country": "DE"}, "contacts": [{"email": "a@example.com"}]});
        let fields = change.as_object().unwrap().clone();
        document.as_object_mut().unwrap().extend(fields);
        document
    }

    #[test]
    fn a_good_document_passes() {
        let full = with(
            json!({"annualRevenue": "9007199254740993.01", "employees": 7, "since": "2026-02-28", "seenAt": "2026-05-06T07:08:09Z", "tags": ["a"]}),
        );
        assert_eq!(violations(&full), Vec::<String>::new());
    }

    #[test]
    fn violations_name_field_and_place_and_never_the_value() {
        let cases = [
            (json!({"name": ""}), "name: is shorter than 1 characters (/name)"),
            (json!({"name": null}), "name: is required (/name)"),
            (json!({"name": 4711}), "name: is number, the contract wants string (/name)"),
            (json!({"status": "secret-4711"}), "status: is none of the values that the contract allows (customer, prospect) (/status)"),
            (
                json!({"annualRevenue": "4711x"}),
                "annualRevenue: is not a decimal (digits with an optional sign and point, as a string) (/annualRevenue)",
            ),
            (json!({"annualRevenue": 4711}), "annualRevenue: is number, the contract wants null or string (/annualRevenue)"),
            (json!({"employees": -4711}), "employees: is less than 0 (/employees)"),
            (json!({"since": "2026-02-30"}), "since: is not a date (YYYY-MM-DD) (/since)"),
            (json!({"seenAt": "2026-05-06 07:08:09"}), "seenAt: is not a moment in RFC 3339 (2026-05-06T07:08:09Z) (/seenAt)"),
            (json!({"address": {"city": "4711"}}), "address.country: is required (/address/country)"),
            (json!({"address": {"country": "4711"}}), "address.country: does not match ^[A-Z]{2}$ (/address/country)"),
            (
                json!({"contacts": [{"email": "a@example.com"}, {"email": "4711"}]}),
                "contacts[].email: does not have the format email (/contacts/1/email)",
            ),
            (json!({"contacts": [{"phone": "4711"}]}), "contacts[].email: is required (/contacts/0/email)"),
            (json!({"fax": "4711"}), "fax: is no field of the contract (/fax)"),
        ];
        for (change, expected) in cases {
            let told = violations(&with(change.clone()));
            assert_eq!(told, [expected], "{change}");
            assert!(!told[0].contains("4711"));
        }
    }

    #[test]
    fn absent_and_null_are_one() {
        let nulls = json!({"since": null, "employees": null, "tags": null, "address": {"country": "DE", "city": null}, "shipping": null, "fax": null});
        assert_eq!(violations(&with(nulls)), Vec::<String>::new());
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": ["string", "null"]}}});
        assert!(Contract::compile(&schema).unwrap().validate(&serde_json::Map::new()).is_ok());
    }

    #[test]
    fn a_participant_answers_only_for_the_fields_it_maps() {
        let contract = Contract::compile(&customer()).unwrap();
        let paths = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<FieldPath>>();
        let partial = json!({"annualRevenue": "x", "address": {"city": "Ulm"}});
        let partial = partial.as_object().unwrap();
        let told = |mapped: &[&str]| match contract.validate_fields(|name| partial.get(name), &paths(mapped)) {
            Ok(()) => vec![],
            Err(violations) => violations.into_iter().map(|v| v.path).collect(),
        };
        assert_eq!(told(&["address.city"]), Vec::<String>::new());
        assert_eq!(told(&["address.country"]), ["address.country"]);
        assert_eq!(told(&["name", "annualRevenue"]), ["annualRevenue", "name"]);
    }
}

mod any_schema {
    use super::*;
    use fairlead_contract::SchemaFinding;
    use proptest::prelude::*;

    /// Schemas made of words that mean something, put together without sense.
    fn schema() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("string"),
            Just("integer"),
            Just("number"),
            Just("object"),
            Just("array"),
            Just("null"),
            Just("#/$defs/a"),
            Just("#/$defs/b"),
            Just("decimal"),
            Just("date"),
            Just("(a+)+$"),
            Just("["),
            Just("Personal"),
        ];
        let leaf = prop_oneof![
            word.prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            let key = prop_oneof![
                Just("type"),
                Just("properties"),
                Just("required"),
                Just("items"),
                Just("$ref"),
                Just("$defs"),
                Just("a"),
                Just("b"),
                Just("anyOf"),
                Just("format"),
                Just("pattern"),
                Just("enum"),
                Just("const"),
                Just("minimum"),
                Just("additionalProperties"),
                Just("x-classification"),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(key.prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_document_makes_it_panic(properties in schema(), defs in schema(), document in schema()) {
            let schema = json!({"type": "object", "properties": properties, "$defs": defs});
            match Contract::compile(&schema) {
                Ok(contract) => {
                    let _ = document.as_object().map(|document| contract.validate(document));
                }
                Err(findings) => {
                    let pointers = |finding: &SchemaFinding| finding.pointer.is_empty() || finding.pointer.starts_with('/');
                    prop_assert!(findings.iter().all(pointers));
                }
            }
        }
    }
}
