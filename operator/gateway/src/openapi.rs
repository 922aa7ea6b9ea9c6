//! Documents about what is served: OpenAPI 3.1 per contract, and the catalog of RFC 9727.

use crate::problem::Kind;
use crate::route::Route;
use fairlead_model::route::{Idempotency, OperationKind, OperationUnit, RouteUnit};
use fairlead_model::schema::FieldType;
use serde_json::{Map, Value, json};

/// Media type of the catalog (RFC 9264, with RFC 9727's profile).
pub(crate) const LINKSET: &str = "application/linkset+json; profile=\"https://www.rfc-editor.org/info/rfc9727\"";

/// The OpenAPI 3.1 document of one contract.
pub(crate) fn document(unit: &RouteUnit) -> Value {
    let mut schemas = Map::new();
    let entity = hoisted(unit, &mut schemas);
    schemas.insert(entity_name(unit), entity);
    schemas.insert("Record".into(), record(unit));
    schemas.insert("Written".into(), written(unit));
    schemas.insert("Page".into(), page());
    schemas.insert("Problem".into(), problem());
    let mut paths = Map::new();
    for (path, kinds, parameters) in [
        (unit.path(), [OperationKind::List, OperationKind::Create], json!([])),
        (format!("{}/{{id}}", unit.path()), [OperationKind::Get, OperationKind::Update], json!([id_parameter()])),
    ] {
        let operations: Map<String, Value> = kinds
            .into_iter()
            .filter_map(|kind| Some((method(kind).to_owned(), operation(unit, kind, unit.operations.get(&kind)?))))
            .collect();
        if !operations.is_empty() {
            let mut item = operations;
            item.insert("parameters".into(), parameters);
            paths.insert(path, item.into());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": format!("{} {}", unit.domain, unit.entity), "version": unit.version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An OAuth 2.0 access token (RFC 9068)"}},
        },
    })
}

fn method(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::List | OperationKind::Get => "get",
        OperationKind::Create => "post",
        OperationKind::Update => "patch",
    }
}

/// The entity's schema with its `$defs` moved to `components`, where tools look for them; the moved ones go to `shared`.
fn hoisted(unit: &RouteUnit, shared: &mut Map<String, Value>) -> Value {
    let name = |def: &str| {
        let safe: String = def.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect();
        format!("{}.{safe}", unit.entity)
    };
    fn rewrite(value: &mut Value, name: &dyn Fn(&str) -> String) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value.as_str().and_then(|to| to.strip_prefix("#/$defs/"))) {
                        ("$ref", Some(def)) => *value = format!("#/components/schemas/{}", name(def)).into(),
                        _ => rewrite(value, name),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, name)),
            _ => {}
        }
    }
    let mut schema = Value::clone(&unit.schema);
    rewrite(&mut schema, &name);
    if let Value::Object(fields) = &mut schema {
        fields.remove("$schema");
        if let Some(Value::Object(defs)) = fields.remove("$defs") {
            shared.extend(defs.into_iter().map(|(def, schema)| (name(&def.replace('~', "~0").replace('/', "~1")), schema)));
        }
    }
    schema
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What the entity's schema is called: as the entity is, unless one of our own has that name.
fn entity_name(unit: &RouteUnit) -> String {
    let entity = &unit.entity;
    if matches!(entity.as_str(), "Record" | "Written" | "Page" | "Problem") { format!("{entity}_") } else { entity.clone() }
}

fn record(unit: &RouteUnit) -> Value {
    json!({
        "type": "object",
        "required": ["id", "version", "data"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "version": {"type": "integer", "minimum": 1},
            "data": schema(&entity_name(unit)),
        },
    })
}

fn written(unit: &RouteUnit) -> Value {
    let mut written = record(unit);
    written["description"] = "The record that was written; its data only for a caller who may also get it".into();
    written["required"] = json!(["id", "version"]);
    written
}

fn page() -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": schema("Record")},
            "nextPageToken": {"type": "string", "description": "Where the next page begins; absent on the last one"},
        },
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457 problem details",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": {"type": "object", "properties": {
                "pointer": {"type": "string", "description": "JSON pointer into the body as sent"},
                "parameter": {"type": "string", "description": "Query parameter"},
                "detail": {"type": "string"},
            }}},
        },
    })
}

fn id_parameter() -> Value {
    json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}})
}

fn operation(unit: &RouteUnit, kind: OperationKind, operation: &OperationUnit) -> Value {
    let mut parameters = vec![];
    let mut problems = vec![Kind::TokenInvalid, Kind::ScopeMissing, Kind::TooManyRequests, Kind::Unavailable, Kind::Timeout];
    let header = |name: &str, required: bool, description: &str| json!({"name": name, "in": "header", "required": required, "description": description, "schema": {"type": "string"}});
    let (status, answer) = match kind {
        OperationKind::List => {
            problems.push(Kind::InvalidParameter);
            parameters.push(json!({"name": "limit", "in": "query", "schema": {
                "type": "integer", "minimum": 1, "maximum": crate::handle::MAX_LIMIT, "default": crate::handle::DEFAULT_LIMIT}}));
            parameters.push(json!({"name": "pageToken", "in": "query", "schema": {"type": "string"}}));
            parameters.extend(operation.filters.iter().map(|path| filter(unit, path)));
            ("200", "Page")
        }
        OperationKind::Get => {
            problems.push(Kind::NotFound);
            parameters.push(header("If-None-Match", false, "Entity tags that the caller has; 304 if one is current"));
            ("200", "Record")
        }
        OperationKind::Create => {
            problems.extend([Kind::InvalidBody, Kind::Conflict, Kind::BodyTooLarge, Kind::Rejected]);
            ("201", "Written")
        }
        OperationKind::Update => {
            problems.extend([Kind::InvalidBody, Kind::NotFound, Kind::Conflict, Kind::Changed, Kind::BodyTooLarge, Kind::Rejected]);
            parameters.push(header("If-Match", false, "The entity tag that the change is based on; 412 if it is not current"));
            ("200", "Written")
        }
    };
    let body = match kind {
        OperationKind::Create => Some(("application/json", schema(&entity_name(unit)))),
        OperationKind::Update => Some((
            "application/merge-patch+json",
            json!({"type": "object", "description": "JSON Merge Patch (RFC 7396) of the record's data"}),
        )),
        _ => None,
    };
    if body.is_some() {
        let required = operation.idempotency == Idempotency::Required;
        parameters.push(header(
            "Idempotency-Key",
            required,
            "The same key with the same request gets the same answer, and is not done again",
        ));
    }
    let mut responses = Map::new();
    let mut headers = json!({"X-Request-Id": {"schema": {"type": "string"}}});
    if kind != OperationKind::List {
        headers["ETag"] = json!({"schema": {"type": "string"}});
    }
    responses.insert(
        status.into(),
        json!({"description": "Done", "headers": headers, "content": {"application/json": {"schema": schema(answer)}}}),
    );
    if kind == OperationKind::Get {
        responses.insert("304".into(), json!({"description": "An entity tag of If-None-Match is current"}));
    }
    for kind in problems {
        responses.insert(
            kind.status().as_u16().to_string(),
            json!({"description": kind.title(), "content": {"application/problem+json": {"schema": schema("Problem")}}}),
        );
    }
    let mut operation_object = json!({
        "operationId": format!("{}-{}", kind.as_str(), unit.entity),
        "parameters": parameters,
        "security": [{"accessToken": operation.scopes}],
        "responses": responses,
    });
    if let Some((media, data)) = body {
        let envelope = json!({"type": "object", "required": ["data"], "properties": {"data": data}, "additionalProperties": false});
        operation_object["requestBody"] = json!({"required": true, "content": {media: {"schema": envelope}}});
    }
    operation_object
}

fn filter(unit: &RouteUnit, path: &fairlead_model::FieldPath) -> Value {
    let field = unit.fields.get(path);
    let schema = match field.map(|field| field.kind) {
        Some(FieldType::Integer) => json!({"type": "integer"}),
        Some(FieldType::Boolean) => json!({"type": "boolean"}),
        _ => match field.map(|field| &field.values).filter(|values| !values.is_empty()) {
            Some(values) => json!({"type": "string", "enum": values}),
            None => json!({"type": "string"}),
        },
    };
    json!({"name": path.to_string(), "in": "query", "schema": schema, "description": "Only records whose field has this value"})
}

/// The catalog of everything that is served on a host (RFC 9727); `base` is its scheme and authority.
pub(crate) fn catalog<'a>(base: &str, routes: impl Iterator<Item = &'a Route>) -> Value {
    let mut paths: Vec<&str> = routes.map(|route| route.path.as_str()).collect();
    paths.sort_unstable();
    let links: Vec<Value> = paths
        .into_iter()
        .map(|path| {
            let description = format!("{base}{path}/openapi.json");
            json!({"anchor": format!("{base}{path}"), "service-desc": [{"href": description, "type": "application/openapi+json"}]})
        })
        .collect();
    json!({"linkset": links})
}
