//! Fields of business units: a contract's schema with the units' own schemas laid into it, one per namespace, under `ext`.
//!
//! The core is not opened: what a unit may add stands under its own name, by its own schema, and everything else is refused as before.

use serde_json::{Map, Value, json};

/// The field under which the units' fields stand.
pub const EXTENSIONS: &str = "ext";

/// A schema with these units' fields, by namespace. Without units it is the schema itself.
#[must_use]
pub fn extended<'a>(schema: &Map<String, Value>, units: impl IntoIterator<Item = (&'a str, &'a Map<String, Value>)>) -> Value {
    let units: Map<String, Value> =
        units.into_iter().map(|(namespace, schema)| (namespace.to_owned(), Value::Object(schema.clone()))).collect();
    let mut extended = schema.clone();
    if let (false, Some(Value::Object(properties))) = (units.is_empty(), extended.get_mut("properties")) {
        let description = "Fields of business units, by namespace";
        properties.insert(
            EXTENSIONS.to_owned(),
            json!({"type": "object", "description": description, "additionalProperties": false, "properties": units}),
        );
    }
    Value::Object(extended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Contract;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_unit_s_fields_are_judged_by_its_own_schema_and_the_core_stays_closed() {
        let core = object(
            json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {"name": {"type": "string"}}}),
        );
        let europe = object(
            json!({"type": "object", "additionalProperties": false, "required": ["vatGroup"], "properties": {"vatGroup": {"type": "string", "maxLength": 4}}}),
        );
        let america = object(
            json!({"type": "object", "additionalProperties": false, "properties": {"stateTax": {"type": "string", "format": "decimal"}}}),
        );
        let contract = Contract::compile(&extended(&core, [("europe", &europe), ("north-america", &america)])).unwrap();
        let paths: Vec<String> = contract.fields().keys().map(ToString::to_string).collect();
        assert_eq!(paths, ["ext", "ext.europe", "ext.europe.vatGroup", "ext.north-america", "ext.north-america.stateTax", "name"]);
        let judge = |document: Value| {
            let told = contract.validate(document.as_object().unwrap()).err().unwrap_or_default();
            told.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(judge(json!({"name": "A"})), Vec::<String>::new(), "no unit needs to say anything");
        assert_eq!(judge(json!({"name": "A", "ext": {"europe": {"vatGroup": "DE1"}}})), Vec::<String>::new());
        assert_eq!(judge(json!({"name": "A", "ext": {"europe": {}}})), ["ext.europe.vatGroup: is required"]);
        assert_eq!(
            judge(json!({"name": "A", "ext": {"europe": {"vatGroup": "DE123"}}})),
            ["ext.europe.vatGroup: is longer than 4 characters"]
        );
        assert_eq!(judge(json!({"name": "A", "ext": {"asia": {}}})), ["ext: has fields that the contract does not name: asia"]);
        assert_eq!(judge(json!({"name": "A", "vatGroup": "DE1"})), ["vatGroup: is no field of the contract"]);
    }

    #[test]
    fn without_units_the_schema_is_as_it_was() {
        let core = object(json!({"type": "object", "properties": {"name": {"type": "string"}}}));
        assert_eq!(extended(&core, []), Value::Object(core));
    }
}
