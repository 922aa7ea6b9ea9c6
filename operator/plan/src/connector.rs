//! Planning of one Connector: its definition is found and read, its method, parameters and certificates fit the definition.

use crate::finding::{Finding, Severity};
use crate::nearest;
use crate::planned::{Memo, SystemFacts, Verdict};
use crate::references::RefKind;
use crate::tables::no_map;
use crate::world::Index;
use fairlead_api::{
    CircuitBreaker as Breaker, Connector, ConnectorSpec, Kind, Reason, SYSTEM_DEFINITION_KEY, SYSTEM_DEFINITION_LABEL, Validate,
};
use fairlead_model::hash::Digest;
use fairlead_model::unit::{CircuitBreaker, ConnectorUnit, Limits};
use fairlead_model::{ObjectRef, Timestamp};
use fairlead_systems::{Catalog, Definition};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Requests under way at once where the Connector does not say.
const CONCURRENCY: u32 = 8;

/// A Connector, judged.
#[derive(Debug)]
pub(crate) struct PlannedConnector<'a> {
    pub(crate) resource: &'a Connector,
    pub(crate) verdict: Verdict,
    /// The unit, if it could be made; it counts only if the verdict is good.
    pub(crate) unit: Option<Arc<ConnectorUnit>>,
    /// What it names.
    pub(crate) names: Vec<(RefKind, ObjectRef)>,
    /// When a date changes the findings.
    pub(crate) next_check: Option<Timestamp>,
    /// The definition, or what is wrong with it.
    pub(crate) definition: Option<Arc<Result<Definition, Vec<Finding>>>>,
}

impl PlannedConnector<'_> {
    /// The definition, where there is a usable one.
    pub(crate) fn definition(&self) -> Option<&Definition> {
        self.definition.as_deref()?.as_ref().ok()
    }
}

pub(crate) fn plan<'a>(
    object: &ObjectRef,
    resource: &'a Connector,
    index: &Index<'_>,
    catalog: &Catalog,
    now: Timestamp,
    memo: &Memo,
    fresh: &mut Memo,
) -> PlannedConnector<'a> {
    let spec = &resource.spec;
    let mut findings: Vec<Finding> = spec.validate().into_iter().map(Finding::from).collect();
    let mut names = vec![(RefKind::Secret, ObjectRef::new(&object.namespace, &spec.auth.secret_ref.name))];
    let mut next_check = None;

    let definition = definition(object, spec, index, catalog, memo, fresh, &mut names, &mut findings);
    let ca_pem = certificates(object, spec, index, &mut names, &mut findings);
    let generation = resource.metadata.generation.unwrap_or_default();
    let mut unit = None;
    let mut system = None;
    if let Some(known) = definition.as_deref().and_then(|definition| definition.as_ref().ok()) {
        method(spec, known, &mut findings);
        parameters(spec, known, &mut findings);
        let version = spec.version.clone().unwrap_or_else(|| known.default_version().to_owned());
        next_check = end_of_life(known, &version, now, &mut findings);
        let limits = spec.limits.as_ref();
        system = Some(SystemFacts {
            name: known.system().to_owned(),
            version: version.clone(),
            end_of_life: known.end_of_life(&version).and_then(|end| end.retired),
        });
        unit = Some(sealed(
            ConnectorUnit {
                object: object.clone(),
                generation,
                digest: Digest::default(),
                definition: Arc::clone(known.text()),
                system: known.system().to_owned(),
                version,
                endpoint: spec.endpoint.clone(),
                parameters: spec.parameters.clone(),
                auth_method: spec.auth.method.clone(),
                secret: ObjectRef::new(&object.namespace, &spec.auth.secret_ref.name),
                limits: Limits {
                    requests_per_second: limits.and_then(|limits| positive(limits.requests_per_second)),
                    concurrency: limits.and_then(|limits| positive(limits.concurrency)).unwrap_or(CONCURRENCY),
                    daily_requests: limits.and_then(|limits| positive(limits.daily_requests)).map(u64::from),
                    interactive_reserve_percent: limits.and_then(|limits| positive(limits.interactive_reserve_percent)).unwrap_or_default(),
                },
                circuit_breaker: CircuitBreaker {
                    failures: Breaker::failures(spec.circuit_breaker.as_ref()),
                    within: Breaker::within(spec.circuit_breaker.as_ref()),
                    open_for: Breaker::open_for(spec.circuit_breaker.as_ref()),
                },
                probe_every: spec.probe_every(),
                ca_pem,
            },
            memo.connectors.get(object),
        ));
    }
    let mut verdict = Verdict::of(Kind::Connector, object.clone(), generation, findings);
    verdict.system = system;
    if let Some(unit) = &unit {
        fresh.connectors.insert(object.clone(), Arc::clone(unit));
    }
    PlannedConnector { resource, verdict, unit, names, next_check, definition }
}

/// The unit with its digest. The digest over a whole definition costs more than all other planning of a connector, so the unit of the last pass
/// is taken where it is the same.
fn sealed(unit: ConnectorUnit, last: Option<&Arc<ConnectorUnit>>) -> Arc<ConnectorUnit> {
    let is_same = |last: &&Arc<ConnectorUnit>| ***last == ConnectorUnit { digest: last.digest.clone(), ..unit.clone() };
    match last.filter(is_same) {
        Some(last) => Arc::clone(last),
        None => Arc::new(unit.sealed()),
    }
}

fn positive(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

/// The built-in definition that the spec names, or the one in the ConfigMap that it refers to.
#[allow(clippy::too_many_arguments)]
fn definition(
    object: &ObjectRef,
    spec: &ConnectorSpec,
    index: &Index<'_>,
    catalog: &Catalog,
    memo: &Memo,
    fresh: &mut Memo,
    names: &mut Vec<(RefKind, ObjectRef)>,
    findings: &mut Vec<Finding>,
) -> Option<Arc<Result<Definition, Vec<Finding>>>> {
    if let Some(name) = &spec.system {
        let Some(known) = catalog.get(name) else {
            let built_in: Vec<&str> = catalog.names().collect();
            findings.push(Finding::reference(
                Reason::DefinitionNotFound,
                "spec.system",
                format!("no built-in definition is called `{name}`"),
                nearest::hint(name, built_in, "point spec.definitionRef to a definition of your own"),
            ));
            return None;
        };
        // The catalog's definitions are parsed once; here they are only shared under their name.
        let key = format!("built-in {name}");
        let shared = memo.definitions.get(&key).cloned().unwrap_or_else(|| Arc::new(Ok(known.clone())));
        return Some(fresh.definitions.entry(key).or_insert(shared).clone());
    }
    const PLACE: &str = "spec.definitionRef";
    let map = ObjectRef::new(&object.namespace, &spec.definition_ref.as_ref()?.name);
    names.push((RefKind::ConfigMap, map.clone()));
    let data = config_map(index, &map, PLACE, findings)?;
    let Some(text) = data.get(SYSTEM_DEFINITION_KEY) else {
        findings.push(Finding::reference(
            Reason::ConfigMapKeyMissing,
            PLACE,
            format!("ConfigMap {map} has no key `{SYSTEM_DEFINITION_KEY}`"),
            format!("put the definition under it, and label the ConfigMap with {SYSTEM_DEFINITION_LABEL}"),
        ));
        return None;
    };
    let known = memo.definitions.get(text).cloned().unwrap_or_else(|| {
        Arc::new(catalog.resolve(text).map_err(|wrong| {
            wrong
                .into_iter()
                .map(|finding| {
                    let place = if finding.place.is_empty() { String::new() } else { format!(", at {}", finding.place) };
                    Finding::reference(
                        Reason::DefinitionInvalid,
                        PLACE,
                        format!("the key {SYSTEM_DEFINITION_KEY}{place}: {}", finding.message),
                        finding.hint,
                    )
                })
                .collect()
        }))
    });
    if let Err(wrong) = known.as_ref() {
        findings
            .extend(wrong.iter().map(|finding| Finding { message: format!("ConfigMap {map}: {}", finding.message), ..finding.clone() }));
    }
    Some(fresh.definitions.entry(text.clone()).or_insert(known).clone())
}

fn config_map<'a>(index: &Index<'a>, map: &ObjectRef, place: &str, findings: &mut Vec<Finding>) -> Option<&'a BTreeMap<String, String>> {
    let data = index.config_maps.get(map).copied();
    if data.is_none() {
        findings.push(no_map(index, map, place));
    }
    data
}

fn certificates(
    object: &ObjectRef,
    spec: &ConnectorSpec,
    index: &Index<'_>,
    names: &mut Vec<(RefKind, ObjectRef)>,
    findings: &mut Vec<Finding>,
) -> Option<String> {
    const PLACE: &str = "spec.tls.caRef";
    let reference = &spec.tls.as_ref()?.ca_ref;
    let map = ObjectRef::new(&object.namespace, &reference.name);
    names.push((RefKind::ConfigMap, map.clone()));
    let data = config_map(index, &map, PLACE, findings)?;
    let Some(text) = data.get(&reference.key) else {
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        findings.push(Finding::reference(
            Reason::ConfigMapKeyMissing,
            format!("{PLACE}.key"),
            format!("ConfigMap {map} has no key `{}`", reference.key),
            nearest::hint(&reference.key, keys, "add it, or name the key that holds the certificates"),
        ));
        return None;
    };
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        findings.push(Finding::reference(
            Reason::UnsupportedValue,
            format!("{PLACE}.key"),
            format!("the key `{}` of ConfigMap {map} holds no certificate", reference.key),
            "put PEM blocks under it that begin with -----BEGIN CERTIFICATE-----",
        ));
        return None;
    }
    Some(text.clone())
}

fn method(spec: &ConnectorSpec, definition: &Definition, findings: &mut Vec<Finding>) {
    let methods = definition.auth_methods();
    if !methods.iter().any(|method| method.name == spec.auth.method) {
        let names: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
        let close = nearest::nearest(&spec.auth.method, names.iter().copied());
        let offered = format!("`{}` offers {}", definition.system(), nearest::listed(&names));
        findings.push(Finding::error(
            Reason::UnsupportedValue,
            "spec.auth.method",
            format!("the system `{}` has no method `{}`", definition.system(), spec.auth.method),
            close.map_or(offered.clone(), |close| format!("did you mean `{close}`? {offered}")),
        ));
    }
}

fn parameters(spec: &ConnectorSpec, definition: &Definition, findings: &mut Vec<Finding>) {
    let declared = definition.parameters();
    let names: Vec<&str> = declared.iter().map(|parameter| parameter.name.as_str()).collect();
    for name in spec.parameters.keys().filter(|name| !names.contains(&name.as_str())) {
        findings.push(Finding::error(
            Reason::UnsupportedValue,
            format!("spec.parameters.{name}"),
            format!("the system `{}` knows no parameter `{name}`", definition.system()),
            nearest::hint(name, names.iter().copied(), "remove it"),
        ));
    }
    for parameter in &declared {
        let place = format!("spec.parameters.{}", parameter.name);
        match spec.parameters.get(&parameter.name) {
            None if parameter.required && parameter.default.is_none() => findings.push(Finding::error(
                Reason::InvalidSpec,
                place,
                format!("the system `{}` needs the parameter `{}`", definition.system(), parameter.name),
                parameter.description.clone(),
            )),
            Some(value) if !fits(parameter.pattern.as_deref(), value) => findings.push(Finding::error(
                Reason::InvalidSpec,
                place,
                format!("does not look as the system `{}` wants it", definition.system()),
                format!("{}; it must match {}", parameter.description, parameter.pattern.as_deref().unwrap_or_default()),
            )),
            _ => {}
        }
    }
}

/// Whether the whole value matches. A pattern that is no regular expression is the definition's fault and was refused with it.
fn fits(pattern: Option<&str>, value: &str) -> bool {
    pattern.and_then(|pattern| regex::Regex::new(&format!("^(?:{pattern})$")).ok()).is_none_or(|pattern| pattern.is_match(value))
}

/// Says that a version ends or has ended. Gives the next date on which that changes.
fn end_of_life(definition: &Definition, version: &str, now: Timestamp, findings: &mut Vec<Finding>) -> Option<Timestamp> {
    let end = definition.end_of_life(version)?;
    let system = definition.system();
    let hint = format!("set spec.version to a newer one, such as {}", definition.default_version());
    let moment = |date: &Option<String>| date.as_deref().and_then(day);
    let warn =
        |message: String| Finding::error(Reason::UnsupportedValue, "spec.version", message, hint.clone()).with_severity(Severity::Warning);
    let (deprecated, retired) = (moment(&end.deprecated), moment(&end.retired));
    if retired.is_some_and(|at| at <= now) {
        findings.push(warn(format!("`{system}` no longer serves version {version}")));
    } else if deprecated.is_some_and(|at| at <= now) {
        let until = end.retired.map(|date| format!(" and ends it in {date}")).unwrap_or_default();
        findings.push(warn(format!("`{system}` deprecates version {version}{until}")));
    }
    [deprecated, retired].into_iter().flatten().filter(|at| *at > now).min()
}

/// The first moment of `2028-06-30`, `2028-06` or `2028`.
fn day(date: &str) -> Option<Timestamp> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next().unwrap_or("01"), parts.next().unwrap_or("01"));
    Timestamp::parse(&format!("{year}-{month}-{day}T00:00:00Z"))
}
