//! The metadata catalogue: which record types the account has and what their fields are.

use super::CONTENT_TYPE;
use super::errors::Problem;
use super::schema::{Entity, Field, Kind};
use crate::core::value::{Fields, Value};
use crate::core::vendor::{Reply, Request};

const SCHEMA: &str = "application/schema+json";
const SWAGGER: &str = "application/swagger+json";

/// Answers below `record/v1/metadata-catalog`.
pub(super) fn answer(request: &Request, rest: &[&str], address: &str) -> Result<Reply, Problem> {
    let accept = request.header("accept").unwrap_or_default();
    match rest {
        [] if accept.contains(SWAGGER) => {
            let wanted: Vec<&str> = request.parameter("select").map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default();
            let entities: Vec<Entity> = Entity::ALL
                .into_iter()
                .filter(|entity| wanted.is_empty() || wanted.iter().any(|name| name.eq_ignore_ascii_case(entity.name())))
                .collect();
            Ok(Reply::json(200, SWAGGER, &openapi(&entities)))
        }
        [] => Ok(Reply::json(200, CONTENT_TYPE, &list(address))),
        [name] => {
            let entity = Entity::named(name).ok_or_else(|| Problem::unknown_type(name))?;
            Ok(match accept {
                accept if accept.contains(SCHEMA) => Reply::json(200, SCHEMA, &schema(entity)),
                accept if accept.contains(SWAGGER) => Reply::json(200, SWAGGER, &openapi(&[entity])),
                _ => Reply::json(200, CONTENT_TYPE, &item(address, entity)),
            })
        }
        _ => Err(Problem::unknown_type(&rest.join("/"))),
    }
}

fn list(address: &str) -> Value {
    Value::object([("items", Value::List(Entity::ALL.into_iter().map(|entity| item(address, entity)).collect()))])
}

fn item(address: &str, entity: Entity) -> Value {
    let href = format!("{address}/services/rest/record/v1/metadata-catalog/{}", entity.name());
    let link = |rel: &str, media: &str| {
        Value::object([("rel", Value::text(rel)), ("href", Value::text(&href)), ("mediaType", Value::text(media))])
    };
    let links = vec![link("canonical", "application/json"), link("alternate", SWAGGER), link("alternate", SCHEMA)];
    Value::object([("name", Value::text(entity.name())), ("links", Value::List(links))])
}

fn schema(entity: Entity) -> Value {
    let properties: Fields = entity.fields().iter().map(|field| (field.name.to_owned(), property(field))).collect();
    Value::object([
        ("$schema", Value::text("http://json-schema.org/draft-06/hyper-schema#")),
        ("type", Value::text("object")),
        ("properties", Value::Object(properties)),
        (
            "x-ns-filterable",
            Value::List(
                entity.fields().iter().filter(|field| field.kind != Kind::Addresses).map(|field| Value::text(field.name)).collect(),
            ),
        ),
    ])
}

fn property(field: &Field) -> Value {
    let mut pairs = vec![("title", Value::text(field.title))];
    let kind = |name: &str| ("type", Value::text(name));
    match field.kind {
        Kind::Key => pairs.push(kind("string")),
        Kind::Text(most) => pairs.extend([kind("string"), ("maxLength", Value::Number(most.to_string()))]),
        Kind::Email => pairs.extend([kind("string"), ("format", Value::text("email")), ("maxLength", Value::number("254"))]),
        Kind::Flag => pairs.push(kind("boolean")),
        Kind::Money => pairs.extend([kind("number"), ("format", Value::text("double"))]),
        Kind::Stamp => pairs.extend([kind("string"), ("format", Value::text("date-time"))]),
        Kind::Reference(target) => {
            let member = |title: &str| Value::object([("title", Value::text(title)), ("type", Value::text("string"))]);
            let members = [
                ("id", member("Internal identifier")),
                ("externalId", member("External identifier")),
                ("refName", member("Reference Name")),
            ];
            pairs.extend([kind("object"), ("properties", Value::object(members)), ("x-ns-record-type", Value::text(target.record_type()))]);
        }
        Kind::Addresses => pairs.extend([kind("object"), ("x-ns-sublist", Value::Bool(true))]),
    }
    pairs.push(("nullable", Value::Bool(field.writable())));
    pairs.push(("readOnly", Value::Bool(!field.writable())));
    if field.name.starts_with("custentity_") {
        pairs.push(("x-ns-custom-field", Value::Bool(true)));
    }
    Value::object(pairs)
}

fn openapi(entities: &[Entity]) -> Value {
    let schemas: Fields = entities.iter().map(|entity| (entity.name().to_owned(), schema(*entity))).collect();
    let operation = |entity: &Entity, verb: &str| {
        let done = Value::object([("description", Value::text("Successful operation."))]);
        let responses = Value::object([("default", done)]);
        Value::object([("operationId", Value::text(format!("{verb}-{}", entity.name()))), ("responses", responses)])
    };
    let mut paths = Fields::new();
    for entity in entities {
        let collection = ["get", "post"].map(|verb| (verb, operation(entity, verb)));
        let single = ["get", "patch", "put", "delete"].map(|verb| (verb, operation(entity, verb)));
        paths.insert(format!("/{}", entity.name()), Value::object(collection));
        paths.insert(format!("/{}/{{id}}", entity.name()), Value::object(single));
    }
    Value::object([
        ("openapi", Value::text("3.0.1")),
        ("info", Value::object([("title", Value::text("NetSuite REST Record API")), ("version", Value::text("v1"))])),
        ("paths", Value::Object(paths)),
        ("components", Value::object([("schemas", Value::Object(schemas))])),
    ])
}
