//! What a definition's words must mean together. Every finding names its place and says what to do; all are found at once.

use super::DefinitionFinding;
use super::format::{AuthFormat, EntityFormat, Format, QuotaFormat, ReadFormat, RequestFormat};
use super::template;
use crate::message;
use fairlead_model::schema::FieldType;
use serde_json::Value;
use std::collections::BTreeSet;

/// The most entities, and the most fields of one.
const MAX_ENTITIES: usize = 500;
const MAX_FIELDS: usize = 2000;

/// The most records in one request.
const MAX_BATCH: usize = 1000;

struct Findings(Vec<DefinitionFinding>);

impl Findings {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(DefinitionFinding { place: place.into(), message: message.into(), hint: hint.into() });
    }
}

/// Everything that is wrong with `format`.
pub(super) fn check(format: &Format) -> Vec<DefinitionFinding> {
    let mut findings = Findings(Vec::new());
    let f = &mut findings;
    name("system", &format.system, f);
    let mut known: BTreeSet<&str> = ["endpoint", "version"].into();
    for parameter in &format.parameters {
        let place = format!("parameters[{}]", parameter.name);
        if matches!(parameter.name.as_str(), "endpoint" | "version") || is_local(&parameter.name) || !known.insert(&parameter.name) {
            f.add(&place, "this name is taken", "choose another name");
        }
        if let Some(pattern) = &parameter.pattern
            && let Err(error) = regex::Regex::new(pattern)
        {
            f.add(format!("{place}.pattern"), message::clean(&error.to_string(), 200), "write a regular expression");
        }
    }
    placeholders("base", &format.base, &known, &[], f);
    for (header, value) in &format.headers {
        placeholders(&format!("headers.{header}"), value, &known, &[], f);
    }
    auth(format, &known, f);
    request("probe", &format.probe, &known, &[], f);
    for (index, rule) in format.errors.iter().enumerate() {
        if rule.status.is_none() && rule.code.is_empty() {
            f.add(format!("errors[{index}]"), "a rule needs a status or a code", "say which answers it is about");
        }
        if let Some(word) = rule.reason.as_deref().filter(|word| !crate::reason::ALL.contains(word)) {
            let known = crate::reason::ALL.join(", ");
            f.add(
                format!("errors[{index}].reason"),
                format!("{:?} is not a documented reason", message::clean(word, 80)),
                format!("use one of {known}"),
            );
        }
    }
    if format.throttle.initial.0.is_zero() || format.throttle.max < format.throttle.initial {
        f.add("throttle", "the first wait must be longer than nothing and no longer than the longest", "give `initial` and `max`");
    }
    if let Some(quota) = &format.quota {
        self::quota(quota, f);
    }
    if format.timeout.0.is_zero() {
        f.add("timeout", "must be longer than nothing", "");
    }
    if format.entities.is_empty() || format.entities.len() > MAX_ENTITIES {
        f.add("entities", format!("between 1 and {MAX_ENTITIES} entities are needed"), "");
    }
    let mut names = BTreeSet::new();
    for each in &format.entities {
        if !names.insert(&each.name) {
            f.add(format!("entities[{}]", each.name), "there are two of this name", "merge them");
        }
        entity(each, &known, f);
    }
    findings.0
}

fn quota(quota: &QuotaFormat, f: &mut Findings) {
    let QuotaFormat { header, usage, limit, remaining, used, reset } = quota;
    let one = header.is_some() && usage.is_some() && [limit, remaining, used, reset].iter().all(|each| each.is_none());
    let each = header.is_none() && usage.is_none() && limit.is_some() && remaining.is_some() != used.is_some();
    if !one && !each {
        f.add(
            "quota",
            "it is not told where the numbers are",
            "give `header` and `usage`, or `limit` with one of `remaining` and `used`, and perhaps `reset`",
        );
    }
    for (word, name) in [("header", header), ("limit", limit), ("remaining", remaining), ("used", used), ("reset", reset)] {
        if let Some(name) = name.as_deref().filter(|name| http::HeaderName::try_from(*name).is_err()) {
            f.add(format!("quota.{word}"), format!("{:?} is not a header's name", message::clean(name, 80)), "");
        }
    }
}

/// Names that requests give meaning to.
fn is_local(name: &str) -> bool {
    matches!(name, "cursor" | "key" | "id" | "field" | "value")
}

fn name(place: &str, text: &str, f: &mut Findings) {
    let good = !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !good {
        f.add(place, format!("{:?} is not a name", message::clean(text, 80)), "use at most 63 letters, digits, '-' and '_'");
    }
}

fn placeholders(place: &str, text: &str, known: &BTreeSet<&str>, local: &[&str], f: &mut Findings) {
    match template::names(text) {
        None => f.add(place, "a `{{` is not closed", "close it with `}}`"),
        Some(names) => {
            for name in names.iter().filter(|name| !known.contains(name.as_str()) && !local.contains(&name.as_str())) {
                f.add(place, format!("{{{{{name}}}}} has no value here"), "declare it under `parameters`");
            }
        }
    }
}

fn auth(format: &Format, known: &BTreeSet<&str>, f: &mut Findings) {
    if format.auth.is_empty() {
        f.add("auth", "at least one way to authenticate is needed", "");
    }
    let mut names = BTreeSet::new();
    for auth in &format.auth {
        let place = format!("auth[{}]", auth.name());
        if !names.insert(auth.name()) {
            f.add(&place, "there are two of this name", "give one of them a `name`");
        }
        let token = match auth {
            AuthFormat::ApiKey { header, .. } => {
                if http::HeaderName::try_from(header.as_str()).is_err() {
                    f.add(format!("{place}.header"), format!("{:?} is not a header's name", message::clean(header, 80)), "");
                }
                None
            }
            AuthFormat::Basic { .. } => None,
            AuthFormat::OAuth1 { realm, .. } => {
                placeholders(&format!("{place}.realm"), realm, known, &[], f);
                None
            }
            AuthFormat::JwtBearer { token, audience, .. } => {
                placeholders(&format!("{place}.audience"), audience, known, &[], f);
                Some(token)
            }
            AuthFormat::ClientCredentials { token, .. } | AuthFormat::ClientAssertion { token, .. } => Some(token),
        };
        if let Some(token) = token {
            placeholders(&format!("{place}.token.url"), &token.url, known, &[], f);
        }
    }
}

fn request(place: &str, request: &RequestFormat, known: &BTreeSet<&str>, local: &[&str], f: &mut Findings) {
    if http::Method::try_from(request.method.as_str()).is_err() || !request.method.bytes().all(|b| b.is_ascii_uppercase()) {
        f.add(
            format!("{place}.method"),
            format!("{:?} is not a method", message::clean(&request.method, 20)),
            "write GET, POST, PUT, PATCH or DELETE",
        );
    }
    if !request.path.starts_with('/') {
        f.add(format!("{place}.path"), "a path begins with '/'", "hosts are named by the connector's endpoint only");
    }
    placeholders(&format!("{place}.path"), &request.path, known, local, f);
    for (name, value) in &request.query {
        placeholders(&format!("{place}.query.{name}"), &value.text(), known, local, f);
    }
    for (name, value) in &request.headers {
        if http::HeaderName::try_from(name.as_str()).is_err() {
            f.add(format!("{place}.headers.{name}"), "this is not a header's name", "");
        }
        placeholders(&format!("{place}.headers.{name}"), value, known, local, f);
    }
    if let Some(body) = &request.body
        && body != ".record"
        && crate::encode::body_text(body, "null", "[]").is_none_or(|text| serde_json::from_str::<Value>(&text).is_err())
    {
        f.add(format!("{place}.body"), "not JSON with `.record` or `.records` in it", "write for example `'{\"records\": .records}'`");
    }
}

fn entity(entity: &EntityFormat, known: &BTreeSet<&str>, f: &mut Findings) {
    let place = format!("entities[{}]", entity.name);
    name(&format!("{place}.name"), &entity.name, f);
    if entity.fields.is_empty() || entity.fields.len() > MAX_FIELDS {
        f.add(format!("{place}.fields"), format!("between 1 and {MAX_FIELDS} fields are needed"), "");
    }
    let mut names = BTreeSet::new();
    for field in &entity.fields {
        let at = format!("{place}.fields[{}]", field.name);
        if !names.insert(&field.name) {
            f.add(&at, "there are two of this name", "merge them");
        }
        if (field.kind == FieldType::List) != field.children.is_some() {
            f.add(&at, "a list says how its children are written, and nothing else does", "give lists `children: ReadOnly` or `Nested`");
        }
        if field.correlation && (field.kind != FieldType::String || !field.writable) {
            f.add(&at, "a correlation field is a writable String", "");
        }
        if field.correlation && field.max_length.is_some_and(|most| most < 36) {
            f.add(&at, "a correlation field holds at least 36 characters", "lengthen the field in the system");
        }
    }
    match &entity.read {
        Some(read) => reading(&format!("{place}.read"), read, entity, known, f),
        None if entity.get.is_some() || entity.search.is_some() => {}
        None if entity.create.is_none() && entity.upsert.is_none() && entity.collections.is_none() && entity.batch.is_none() => {
            f.add(&place, "can neither be read nor written", "give it `read`, `upsert`, `create` or `collections`");
        }
        None => {}
    }
    if let Some(get) = &entity.get {
        request(&format!("{place}.get.request"), &get.request, known, &["id"], f);
    }
    if let Some(search) = &entity.search {
        request(&format!("{place}.search.request"), &search.request, known, &["field", "value"], f);
    }
    for (word, write, local) in [
        ("create", &entity.create, &[][..]),
        ("update", &entity.update, &["id"][..]),
        ("upsert", &entity.upsert, &["key", "id"][..]),
        ("delete", &entity.delete, &["id"][..]),
    ] {
        if let Some(write) = write {
            request(&format!("{place}.{word}.request"), &write.request, known, local, f);
            if matches!(word, "create" | "upsert") && write.result.id.is_none() && write.result.id_header.is_none() {
                f.add(format!("{place}.{word}.result"), "does not say where the new record's id is", "give `id` or `idHeader`");
            }
        }
    }
    if let Some(batch) = &entity.batch {
        request(&format!("{place}.batch.request"), &batch.request, known, &[], f);
        if batch.max == 0 || batch.max > MAX_BATCH {
            f.add(format!("{place}.batch.max"), format!("must be between 1 and {MAX_BATCH}"), "");
        }
    }
    if let Some(collections) = &entity.collections {
        if collections.max == 0 || collections.max > 200 {
            f.add(format!("{place}.collections.max"), "must be between 1 and 200", "");
        }
        if entity.create.is_some()
            || entity.update.is_some()
            || entity.upsert.is_some()
            || entity.delete.is_some()
            || entity.batch.is_some()
        {
            f.add(format!("{place}.collections"), "does all writing, so no other way may stand beside it", "keep one of them");
        }
    }
    for (word, field) in
        entity.archive.keys().map(|field| ("archive", field)).chain(entity.reactivate.keys().map(|field| ("reactivate", field)))
    {
        if !entity.fields.iter().any(|known| &known.name == field && known.writable) {
            f.add(format!("{place}.{word}.{field}"), "is not a writable field of this entity", "declare it under `fields`");
        }
    }
}

fn reading(place: &str, read: &ReadFormat, entity: &EntityFormat, known: &BTreeSet<&str>, f: &mut Findings) {
    let ways = [read.soql.is_some(), read.suiteql.is_some(), read.request.is_some()].into_iter().filter(|way| *way).count();
    if ways != 1 {
        f.add(place, "exactly one of `soql`, `suiteql` and `request` is needed", "");
    }
    let own = read.records.is_some() || read.cursor.is_some() || !read.next.is_empty();
    if read.request.is_none() && own {
        f.add(place, "`records`, `next` and `cursor` belong to `request`", "leave them out");
    }
    if let Some(format) = &read.request {
        request(&format!("{place}.request"), format, known, &["cursor"], f);
        if read.records.is_none() {
            f.add(place, "does not say where the answer holds its records", "give `records`");
        }
    }
    if let Some(soql) = &read.soql {
        if soql.merged.is_some() && soql.deleted.is_none() {
            f.add(format!("{place}.soql.merged"), "tells of deleted records, which are not asked for", "say `deleted` as well");
        }
        let named = [
            ("from", Some(&soql.from)),
            ("stamp", Some(&soql.stamp)),
            ("deleted", soql.deleted.as_ref()),
            ("merged", soql.merged.as_ref()),
        ];
        for (word, text) in named {
            if let Some(text) = text {
                identifier(&format!("{place}.soql.{word}"), text, f);
            }
        }
        page(&format!("{place}.soql.page"), soql.page, 2000, f);
        for child in &soql.children {
            for (word, text) in [("name", &child.name), ("from", &child.from), ("parent", &child.parent)] {
                identifier(&format!("{place}.soql.children[{}].{word}", child.name), text, f);
            }
        }
    }
    if let Some(suiteql) = &read.suiteql {
        for (word, text) in [("from", &suiteql.from), ("id", &suiteql.id), ("stamp", &suiteql.stamp)] {
            identifier(&format!("{place}.suiteql.{word}"), text, f);
        }
        page(&format!("{place}.suiteql.page"), suiteql.page, 1000, f);
    }
    let query = read.soql.is_some() || read.suiteql.is_some();
    for field in &entity.fields {
        if query && field.column.is_none() && field.kind != FieldType::List {
            for segment in field.name.segments() {
                identifier(&format!("{place}: field {}", field.name), segment.name(), f);
            }
        }
        if field.column.as_ref().is_some_and(|column| column.contains([';', '\n']) || column.contains("--")) {
            f.add(format!("{place}: field {}.column", field.name), "holds more than one expression", "write one expression");
        }
    }
}

fn page(place: &str, size: u32, most: u32, f: &mut Findings) {
    if size == 0 || size > most {
        f.add(place, format!("must be between 1 and {most}"), "");
    }
}

/// A name that may stand in a query as it is.
fn identifier(place: &str, text: &str, f: &mut Findings) {
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        f.add(
            place,
            format!("{:?} cannot stand in a query", message::clean(text, 80)),
            "use letters, digits and '_', or give the field a `column`",
        );
    }
}

/// `entities[0].fields[3].type` as a person finds it: by the names of things.
pub(super) fn readable_place(path: &str, source: &Value) -> String {
    let mut place = String::new();
    let mut value = Some(source);
    for part in path.split('.') {
        let (name, rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !name.is_empty() && name != "?" {
            if !place.is_empty() {
                place.push('.');
            }
            place.push_str(name);
            value = value.and_then(|value| value.get(name));
        }
        for index in rest.split('[').filter_map(|part| part.strip_suffix(']')) {
            value = value.and_then(|value| value.get(index.parse::<usize>().ok()?));
            let name = value.and_then(|value| value.get("name").or_else(|| value.get("method"))).and_then(Value::as_str);
            place.push_str(&format!("[{}]", name.unwrap_or(index)));
        }
    }
    message::clean(&place, 200)
}
