//! The rules that a schema's types and bounds cannot say, each stated twice in one place: as CEL for the API server and as a Rust
//! predicate for everything that never passes through one (files without a cluster, objects stored before a rule existed).
//!
//! Guarantee: both forms give the same verdict on every value of the type (a property test compares them), and a reader sees the
//! same words whoever finds the fault. Rules speak about one object only; whatever needs another object is the planner's.
//!
//! Costs: a rule on a table row is estimated at 8 x 300 evaluations, so rows get plain comparisons only.

use serde_json::{Value, json};

use crate::connector::{CircuitBreaker, ConnectorSpec, Probe};
use crate::contract::{ApiContractSpec, MAX_SCHEMA_BYTES, Master, Operation, Rate, Security};
use crate::integration::{DeadLetters, FieldRow, IntegrationSpec, Participant, Poll, ReadSpec, Retry, Rollout, SyncSpec, WriteSpec};
use crate::manifest::Kind;
use crate::schema;

/// One fault of a manifest, in words for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where, as `kubectl` writes paths: `spec.sync.participants[0].fields[3].toCanonical`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is wrong with a whole text has no field.
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.hint)
    }
}

/// A rule on one value of type `T`.
pub struct Rule<T: 'static> {
    /// The field the rule speaks of, below the value: `.read`, or empty for the value itself.
    pub at: &'static str,
    /// The rule as the API server evaluates it; `self` is the value.
    pub cel: &'static str,
    /// What is wrong when it does not hold.
    pub message: &'static str,
    /// What to do then.
    pub hint: &'static str,
    /// The same rule for a value in hand.
    pub holds: fn(&T) -> bool,
}

/// A rule on a change from one value to the next.
pub struct Change<T: 'static> {
    /// The field the rule speaks of.
    pub at: &'static str,
    /// The rule as the API server evaluates it; `self` is the new value, `oldSelf` the old one.
    pub cel: &'static str,
    /// What is wrong when it does not hold.
    pub message: &'static str,
    /// What to do then.
    pub hint: &'static str,
    /// The same rule for an old and a new value in hand.
    pub holds: fn(&T, &T) -> bool,
}

/// The rules as a schema's `x-kubernetes-validations`.
pub(crate) fn cel<T>(rules: &[Rule<T>]) -> Value {
    cel_with(rules, &[])
}

/// The rules, and the rules on changes, as a schema's `x-kubernetes-validations`.
pub(crate) fn cel_with<T>(rules: &[Rule<T>], changes: &[Change<T>]) -> Value {
    let values = rules.iter().map(|rule| entry(rule.at, rule.cel, rule.message, rule.hint));
    let changes = changes.iter().map(|rule| entry(rule.at, rule.cel, rule.message, rule.hint));
    Value::Array(values.chain(changes).collect())
}

/// One entry of `x-kubernetes-validations`.
pub(crate) fn entry(at: &str, cel: &str, message: &str, hint: &str) -> Value {
    let mut entry = json!({ "rule": cel, "message": format!("{message}; {hint}") });
    if !at.is_empty() {
        entry["fieldPath"] = json!(at);
    }
    entry
}

fn judge<T>(value: &T, rules: &[Rule<T>], path: &str, found: &mut Vec<Violation>) {
    for rule in rules.iter().filter(|rule| !(rule.holds)(value)) {
        found.push(Violation { field: format!("{path}{}", rule.at), message: rule.message.to_owned(), hint: rule.hint.to_owned() });
    }
}

/// A spec that can be judged without an API server.
pub trait Validate: serde::Serialize + Sized {
    /// The kind whose spec this is.
    const KIND: Kind;

    /// What the schema cannot say. Paths begin with `spec`.
    fn rules(&self) -> Vec<Violation>;

    /// What may not change from `old` to this.
    fn changes(&self, _old: &Self) -> Vec<Violation> {
        Vec::new()
    }

    /// Everything that is wrong with this spec: types, bounds, patterns, doubled keys, and the rules. Empty means valid.
    fn validate(&self) -> Vec<Violation> {
        let mut found = match serde_json::to_value(self) {
            Ok(value) => schema::check_spec(Self::KIND, &value),
            Err(error) => vec![Violation {
                field: "spec".into(),
                message: format!("cannot be written as JSON ({error})"),
                hint: "apply it again from its source".into(),
            }],
        };
        found.extend(self.rules());
        found
    }
}

/// Everything that is wrong with a spec; the same as its method.
pub fn validate<T: Validate>(spec: &T) -> Vec<Violation> {
    spec.validate()
}

/// Connector rules.
pub const CONNECTOR: &[Rule<ConnectorSpec>] = &[Rule {
    at: "",
    cel: "has(self.system) != has(self.definitionRef)",
    message: "exactly one of system and definitionRef must be set",
    hint: "name a built-in system, or the ConfigMap that holds your own definition",
    holds: |spec| spec.system.is_some() != spec.definition_ref.is_some(),
}];

/// Circuit breaker rules.
pub const CIRCUIT_BREAKER: &[Rule<CircuitBreaker>] = &[
    Rule {
        at: ".within",
        cel: "!has(self.within) || duration(self.within) >= duration('1s')",
        message: "must be at least 1s",
        hint: "write a longer time, such as 30s",
        holds: |breaker| breaker.within.is_none_or(at_least_a_second),
    },
    Rule {
        at: ".openFor",
        cel: "!has(self.openFor) || duration(self.openFor) >= duration('1s')",
        message: "must be at least 1s",
        hint: "write a longer time, such as 60s",
        holds: |breaker| breaker.open_for.is_none_or(at_least_a_second),
    },
];

/// Probe rules.
pub const PROBE: &[Rule<Probe>] = &[Rule {
    at: ".every",
    cel: "duration(self.every) >= duration('5s')",
    message: "must be at least 5s",
    hint: "write a longer time, such as 60s; each probe costs a request of the vendor's quota",
    holds: |probe| probe.every.0 >= std::time::Duration::from_secs(5),
}];

/// Contract rules.
pub const CONTRACT: &[Rule<ApiContractSpec>] = &[
    Rule {
        at: ".owner",
        cel: "!has(self.operations) || self.operations.size() == 0 || (has(self.owner) && has(self.owner.domain))",
        message: "operations are served under /domain/entity/v1, and no domain is set",
        hint: "set owner.domain, such as sales",
        holds: |spec| spec.operations.is_empty() || spec.owner.as_ref().is_some_and(|owner| owner.domain.is_some()),
    },
    Rule {
        at: ".security",
        cel: "!has(self.operations) || self.operations.size() == 0 || has(self.security)",
        message: "there are operations, and nobody's tokens are accepted",
        hint: "set security.issuers",
        holds: |spec| spec.operations.is_empty() || spec.security.is_some(),
    },
    Rule {
        at: ".operations",
        cel: "(has(self.operations) && self.operations.size() > 0) || (!has(self.security) && !has(self.exposure) && (!has(self.consumers) || self.consumers.size() == 0))",
        message: "security, consumers and exposure say how operations are served, and there are none",
        hint: "add operations, such as {name: get, from: {store: {integration: {name: customers}}}}, or remove these blocks",
        holds: |spec| !spec.operations.is_empty() || (spec.security.is_none() && spec.exposure.is_none() && spec.consumers.is_empty()),
    },
    Rule {
        at: ".operations",
        cel: "!has(self.operations) || self.operations.all(o, !has(o.from) || has(o.from.store.integration) != (has(self.master) && has(self.master.scope) && self.master.scope == 'Contract'))",
        message: "list and get read the contract's own records where master.scope is Contract, and those of an Integration otherwise",
        hint: "write from: {store: {}} with that scope, and from: {store: {integration: {name: customers}}} without it",
        holds: |spec| {
            let mut sources = spec.operations.iter().filter_map(|operation| operation.from.as_ref());
            sources.all(|from| from.store.integration.is_some() != spec.is_master())
        },
    },
];

/// Rules on whose record it is.
pub const MASTER: &[Rule<Master>] = &[Rule {
    at: "",
    cel: "(has(self.scope) && self.scope == 'Contract') || ((!has(self.match) || self.match.size() == 0) && !has(self.onAmbiguous) && (!has(self.ownership) || self.ownership.size() == 0) && !has(self.tie))",
    message: "match, onAmbiguous, ownership and tie stand here only where all Integrations feed one record",
    hint: "set scope: Contract, or write them in the spec.sync of each Integration",
    holds: |master| {
        master.is_golden()
            || (master.match_rules.is_empty() && master.on_ambiguous.is_none() && master.ownership.is_empty() && master.tie.is_none())
    },
}];

/// Rules on one operation.
pub const OPERATION: &[Rule<Operation>] = &[
    Rule {
        at: ".from",
        cel: "has(self.from) == (self.name == 'list' || self.name == 'get')",
        message: "list and get read from somewhere, create and update do not",
        hint: "write from: {store: {integration: {name: customers}}} for list and get, and to for create and update",
        holds: |operation| operation.from.is_some() != operation.name.writes(),
    },
    Rule {
        at: ".to",
        cel: "has(self.to) == (self.name == 'create' || self.name == 'update')",
        message: "create and update go to participants, list and get do not",
        hint: "write to: {participants: [{integration: customers, participant: erp}]} for create and update, and from for list and get",
        holds: |operation| operation.to.is_some() == operation.name.writes(),
    },
    Rule {
        at: ".filters",
        cel: "!has(self.filters) || self.filters.size() == 0 || self.name == 'list'",
        message: "only a list is filtered",
        hint: "remove filters here",
        holds: |operation| operation.filters.is_empty() || operation.name == crate::OperationName::List,
    },
    Rule {
        at: ".idempotency",
        cel: "!has(self.idempotency) || self.name == 'create' || self.name == 'update'",
        message: "reading changes nothing and needs no key",
        hint: "remove idempotency here",
        holds: |operation| operation.idempotency.is_none() || operation.name.writes(),
    },
    Rule {
        at: ".timeout",
        cel: "!has(self.timeout) || (duration(self.timeout) >= duration('100ms') && duration(self.timeout) <= duration('30s'))",
        message: "must be from 100ms to 30s",
        hint: "write a time within these bounds, such as 5s",
        holds: |operation| {
            operation.timeout.is_none_or(|t| (std::time::Duration::from_millis(100)..=std::time::Duration::from_secs(30)).contains(&t.0))
        },
    },
];

/// Rules on whose tokens are accepted.
pub const SECURITY: &[Rule<Security>] = &[Rule {
    at: ".maxTokenAge",
    cel: "!has(self.maxTokenAge) || duration(self.maxTokenAge) >= duration('1m')",
    message: "must be at least 1m",
    hint: "write a longer time, such as 1h",
    holds: |security| security.max_token_age.is_none_or(|age| age.0 >= std::time::Duration::from_secs(60)),
}];

/// Rules on a rate.
pub const RATE: &[Rule<Rate>] = &[Rule {
    at: ".per",
    cel: "duration(self.per) >= duration('1s') && duration(self.per) <= duration('1h')",
    message: "must be from 1s to 1h",
    hint: "write a time within these bounds, such as 1m",
    holds: |rate| (std::time::Duration::from_secs(1)..=std::time::Duration::from_secs(3600)).contains(&rate.per.0),
}];

/// What may not change within one contract.
pub const CONTRACT_CHANGES: &[Change<ApiContractSpec>] = &[
    Change {
        at: ".version",
        cel: "self.version.split('.')[0] == oldSelf.version.split('.')[0]",
        message: "the major part of the version cannot change within one object",
        hint: "create a second ApiContract for the new major version and let both stand side by side",
        holds: |old, new| old.major() == new.major(),
    },
    Change {
        at: ".entity",
        cel: "self.entity == oldSelf.entity",
        message: "the entity cannot change within one object",
        hint: "create another ApiContract for the other entity",
        holds: |old, new| old.entity == new.entity,
    },
    Change {
        at: ".master",
        cel: "(has(self.master) && has(self.master.scope) && self.master.scope == 'Contract') == (has(oldSelf.master) && has(oldSelf.master.scope) && oldSelf.master.scope == 'Contract')",
        message: "the scope cannot change within one object: golden records and each Integration's own are other records, with ids of their own",
        hint: "create another ApiContract with the other scope, and let each Integration name that one; it is matched there anew",
        holds: |old, new| old.is_master() == new.is_master(),
    },
];

/// Rules on a sync as a whole. How many participants it needs, and whether it can match, depends on its contract: that is the planner's.
pub const SYNC: &[Rule<SyncSpec>] = &[Rule {
    at: ".ownership",
    cel: "!has(self.ownership) || self.ownership.all(o, self.participants.exists(p, p.role == o.role))",
    message: "a rule names a role that no participant has",
    hint: "use the role of one of the participants",
    holds: |sync| sync.ownership.iter().all(|rule| sync.participants.iter().any(|p| p.role == rule.role)),
}];

/// Rules on one participant.
pub const PARTICIPANT: &[Rule<Participant>] = &[
    Rule {
        at: "",
        cel: "has(self.read) || has(self.write)",
        message: "at least one of read and write must be set",
        hint: "say how changes are read from this system, written to it, or both",
        holds: |participant| participant.read.is_some() || participant.write.is_some(),
    },
    Rule {
        at: "",
        cel: "(has(self.fields) && self.fields.size() > 0) || (has(self.fieldsFrom) && self.fieldsFrom.size() > 0)",
        message: "there is no field table",
        hint: "write rows under fields, or name shared tables under fieldsFrom",
        holds: |participant| !participant.fields.is_empty() || !participant.fields_from.is_empty(),
    },
];

/// Rules on how a participant is read.
pub const READ: &[Rule<ReadSpec>] = &[Rule {
    at: "",
    cel: "has(self.poll)",
    message: "exactly one way of reading must be set",
    hint: "write poll: {every: 30s}",
    holds: |read| read.poll.is_some(),
}];

/// Rules on how a new revision takes over. `for` is a word of CEL, which has another name for the field.
pub const ROLLOUT: &[Rule<Rollout>] = &[
    Rule {
        at: "",
        cel: "has(self.shadow) || has(self.canaryPercent)",
        message: "at least one of shadow and canaryPercent must be set",
        hint: "write shadow: 10m, or canaryPercent: 5 with for: 10m, or both; without a rollout, revisions take over at once",
        holds: |rollout| rollout.shadow.is_some() || rollout.canary_percent.is_some(),
    },
    Rule {
        at: "",
        cel: "has(self.canaryPercent) == has(self.__for__)",
        message: "canaryPercent and for belong together",
        hint: "say on which share of the records it is tried and how long, such as canaryPercent: 5 and for: 10m",
        holds: |rollout| rollout.canary_percent.is_some() == rollout.lasts.is_some(),
    },
    Rule {
        at: ".shadow",
        cel: "!has(self.shadow) || duration(self.shadow) >= duration('1s')",
        message: "must be at least 1s",
        hint: "write a longer time, such as 10m, or leave it out",
        holds: |rollout| rollout.shadow.is_none_or(at_least_a_second),
    },
    Rule {
        at: ".for",
        cel: "!has(self.__for__) || duration(self.__for__) >= duration('1s')",
        message: "must be at least 1s",
        hint: "write a longer time, such as 10m",
        holds: |rollout| rollout.lasts.is_none_or(at_least_a_second),
    },
];

/// Rules on how a participant is written.
pub const WRITE: &[Rule<WriteSpec>] = &[Rule {
    at: ".onLeave",
    cel: "!has(self.onLeave) || has(self.when)",
    message: "nothing leaves where there is no condition",
    hint: "set when, or remove onLeave",
    holds: |write| write.on_leave.is_none() || write.when.is_some(),
}];

/// Rules on polling.
pub const POLL: &[Rule<Poll>] = &[Rule {
    at: ".every",
    cel: "duration(self.every) >= duration('1s')",
    message: "must be at least 1s",
    hint: "write a longer time, such as 15s",
    holds: |poll| at_least_a_second(poll.every),
}];

/// Rules on retries.
pub const RETRY: &[Rule<Retry>] = &[
    Rule {
        at: ".initial",
        cel: "!has(self.initial) || duration(self.initial) >= duration('100ms')",
        message: "must be at least 100ms",
        hint: "write a longer time, such as 1s",
        holds: |retry| retry.initial.is_none_or(|initial| initial.0 >= std::time::Duration::from_millis(100)),
    },
    Rule {
        at: ".max",
        cel: "!has(self.max) || !has(self.initial) || duration(self.max) >= duration(self.initial)",
        message: "the longest pause is shorter than the first one",
        hint: "make max at least as long as initial",
        holds: |retry| match (retry.max, retry.initial) {
            (Some(max), Some(initial)) => max >= initial,
            _ => true,
        },
    },
];

/// Rules on the time that dead letters are kept.
pub const DEAD_LETTERS: &[Rule<DeadLetters>] = &[Rule {
    at: ".keep",
    cel: "!has(self.keep) || duration(self.keep) >= duration('1h')",
    message: "must be at least 1h",
    hint: "write a longer time, such as 720h",
    holds: |letters| letters.keep.is_none_or(|keep| keep.0 >= std::time::Duration::from_secs(3600)),
}];

/// Rules on one row of a field table.
pub const ROW: &[Rule<FieldRow>] = &[
    Rule {
        at: "",
        cel: "self.canonical != '' || self.native != ''",
        message: "the row names no field",
        hint: "set canonical, native, or both",
        holds: |row| !row.canonical.is_empty() || !row.native.is_empty(),
    },
    Rule {
        at: ".value",
        cel: "!has(self.value) || (self.canonical == '' && self.native != '')",
        message: "a constant is written to a field of the system and to nothing else",
        hint: "leave canonical out and set native",
        holds: |row| row.value.is_none() || (row.canonical.is_empty() && !row.native.is_empty()),
    },
    Rule {
        at: ".toCanonical",
        cel: "!has(self.toCanonical) || self.canonical != ''",
        message: "the expression has no canonical field to fill",
        hint: "set canonical, or remove the expression",
        holds: |row| row.to_canonical.is_none() || !row.canonical.is_empty(),
    },
    Rule {
        at: ".fromCanonical",
        cel: "!has(self.fromCanonical) || self.native != ''",
        message: "the expression has no field of the system to fill",
        hint: "set native, or remove the expression",
        holds: |row| row.from_canonical.is_none() || !row.native.is_empty(),
    },
    Rule {
        at: "",
        cel: "self.canonical == '' || self.native != '' || has(self.toCanonical)",
        message: "nothing fills the canonical field",
        hint: "set native, or toCanonical for a field that is computed",
        holds: |row| row.canonical.is_empty() || !row.native.is_empty() || row.to_canonical.is_some(),
    },
    Rule {
        at: "",
        cel: "self.native == '' || self.canonical != '' || has(self.value) || has(self.fromCanonical)",
        message: "nothing fills the system's field",
        hint: "set canonical, value for a constant, or fromCanonical for a field that is computed",
        holds: |row| row.native.is_empty() || !row.canonical.is_empty() || row.value.is_some() || row.from_canonical.is_some(),
    },
    Rule {
        at: "",
        cel: "[has(self.value), has(self.values) && self.values.size() > 0, has(self.toCanonical) || has(self.fromCanonical), has(self.reference), has(self.lookup), has(self.key)].filter(x, x).size() <= 1",
        message: "the row says in more than one way how the value is made",
        hint: "use one of value, values, expressions (toCanonical, fromCanonical), reference, lookup and key",
        holds: |row| {
            [
                row.value.is_some(),
                !row.values.is_empty(),
                row.to_canonical.is_some() || row.from_canonical.is_some(),
                row.reference.is_some(),
                row.lookup.is_some(),
                row.key.is_some(),
            ]
            .into_iter()
            .filter(|used| *used)
            .count()
                <= 1
        },
    },
    Rule {
        at: "",
        cel: "!((has(self.values) && self.values.size() > 0) || has(self.reference) || has(self.lookup) || has(self.key)) || (self.canonical != '' && self.native != '')",
        message: "values, reference, lookup and key need both sides",
        hint: "set canonical and native",
        holds: |row| {
            (row.values.is_empty() && row.reference.is_none() && row.lookup.is_none() && row.key.is_none())
                || (!row.canonical.is_empty() && !row.native.is_empty())
        },
    },
    Rule {
        at: ".key",
        cel: "!has(self.key) || (self.canonical.endsWith('[]') && self.native.endsWith('[]'))",
        message: "only the row of a list has a key",
        hint: "end canonical and native with [], or remove the key",
        holds: |row| row.key.is_none() || (row.canonical.ends_with("[]") && row.native.ends_with("[]")),
    },
];

/// Judges the rows of a field table at `path`.
pub(crate) fn judge_rows(rows: &[FieldRow], path: &str, found: &mut Vec<Violation>) {
    for (index, row) in rows.iter().enumerate() {
        judge(row, ROW, &format!("{path}[{index}]"), found);
    }
}

fn at_least_a_second(duration: crate::Duration) -> bool {
    duration.0 >= std::time::Duration::from_secs(1)
}

impl Validate for ConnectorSpec {
    const KIND: Kind = Kind::Connector;

    fn rules(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        judge(self, CONNECTOR, "spec", &mut found);
        if let Some(breaker) = &self.circuit_breaker {
            judge(breaker, CIRCUIT_BREAKER, "spec.circuitBreaker", &mut found);
        }
        if let Some(probe) = &self.probe {
            judge(probe, PROBE, "spec.probe", &mut found);
        }
        // The pattern lets some text through that is no URL (a port beyond 65535, a malformed IPv6 host); CEL's own URL type differs
        // from what the HTTP client accepts, so this judgement is made by the client's parser alone.
        if let Err(error) = url::Url::parse(&self.endpoint) {
            found.push(Violation {
                field: "spec.endpoint".into(),
                message: format!("is not a URL ({error})"),
                hint: "write it as https://host or https://host:port/path".into(),
            });
        }
        found
    }
}

impl Validate for ApiContractSpec {
    const KIND: Kind = Kind::ApiContract;

    fn rules(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        judge(self, CONTRACT, "spec", &mut found);
        for (index, operation) in self.operations.iter().enumerate() {
            judge(operation, OPERATION, &format!("spec.operations[{index}]"), &mut found);
        }
        if let Some(master) = &self.master {
            judge(master, MASTER, "spec.master", &mut found);
        }
        if let Some(security) = &self.security {
            judge(security, SECURITY, "spec.security", &mut found);
        }
        for (index, consumer) in self.consumers.iter().enumerate() {
            if let Some(rate) = &consumer.rate {
                judge(rate, RATE, &format!("spec.consumers[{index}].rate"), &mut found);
            }
        }
        // The API server bounds the whole object only, at about 1.5 MB.
        let own = std::iter::once(("spec.schema".to_owned(), &self.schema));
        let units = self.extensions.iter().enumerate().map(|(index, unit)| (format!("spec.extensions[{index}].schema"), &unit.schema));
        for (field, schema) in own.chain(units) {
            let size = serde_json::to_vec(schema).map_or(usize::MAX, |text| text.len());
            if size <= MAX_SCHEMA_BYTES {
                continue;
            }
            found.push(Violation {
                field,
                message: format!("has {size} bytes, more than {MAX_SCHEMA_BYTES}"),
                hint: "shorten descriptions and examples, or split the entity".into(),
            });
        }
        found
    }

    fn changes(&self, old: &Self) -> Vec<Violation> {
        CONTRACT_CHANGES
            .iter()
            .filter(|rule| !(rule.holds)(old, self))
            .map(|rule| Violation { field: format!("spec{}", rule.at), message: rule.message.into(), hint: rule.hint.into() })
            .collect()
    }
}

impl Validate for IntegrationSpec {
    const KIND: Kind = Kind::Integration;

    fn rules(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        judge(&self.sync, SYNC, "spec.sync", &mut found);
        for (index, participant) in self.sync.participants.iter().enumerate() {
            let path = format!("spec.sync.participants[{index}]");
            judge(participant, PARTICIPANT, &path, &mut found);
            if let Some(read) = &participant.read {
                judge(read, READ, &format!("{path}.read"), &mut found);
                if let Some(poll) = &read.poll {
                    judge(poll, POLL, &format!("{path}.read.poll"), &mut found);
                }
            }
            if let Some(write) = &participant.write {
                judge(write, WRITE, &format!("{path}.write"), &mut found);
            }
            judge_rows(&participant.fields, &format!("{path}.fields"), &mut found);
        }
        if let Some(retry) = self.delivery.as_ref().and_then(|delivery| delivery.retry.as_ref()) {
            judge(retry, RETRY, "spec.delivery.retry", &mut found);
        }
        if let Some(letters) = self.delivery.as_ref().and_then(|delivery| delivery.dead_letters.as_ref()) {
            judge(letters, DEAD_LETTERS, "spec.delivery.deadLetters", &mut found);
        }
        if let Some(rollout) = &self.rollout {
            judge(rollout, ROLLOUT, "spec.rollout", &mut found);
        }
        found
    }
}
