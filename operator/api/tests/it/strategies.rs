//! Random specs: right in form, right or wrong by the rules, so that both verdicts are met often.

use std::collections::BTreeMap;

use fairlead_api::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![0..3_000u64, 0..100_000_000u64].prop_map(Duration::from_millis)
}

fn owner() -> impl Strategy<Value = Owner> {
    ("[ -~äß]{1,20}", of("\\PC{1,20}")).prop_map(|(team, contact)| Owner { team, contact })
}

fn local() -> impl Strategy<Value = LocalRef> {
    word(&["a", "corporate-ca", "a.b"]).prop_map(|name| LocalRef { name })
}

fn allowed() -> impl Strategy<Value = AllowedNamespaces> {
    prop::sample::subsequence(vec!["a", "b", "c"], 0..3)
        .prop_map(|names| AllowedNamespaces { names: names.into_iter().map(str::to_owned).collect() })
}

pub(crate) fn connector() -> impl Strategy<Value = ConnectorSpec> {
    let circuit = (of(1..1_000i32), of(duration()), of(duration())).prop_map(|(failures, within, open_for)| CircuitBreaker {
        failures,
        within,
        open_for,
    });
    let limits = (of(1..10_000i32), of(1..256i32), of(1..1_000_000_000i32), of(0..91i32)).prop_map(
        |(requests_per_second, concurrency, daily_requests, interactive_reserve_percent)| Limits {
            requests_per_second,
            concurrency,
            daily_requests,
            interactive_reserve_percent,
        },
    );
    let tls = (of(Just(CaKind::ConfigMap)), word(&["ca"]), word(&["ca.crt"]))
        .prop_map(|(kind, name, key)| Tls { ca_ref: CaRef { kind, name, key } });
    let parameters = prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,20}", 0..3).prop_map(BTreeMap::from);
    (
        (of(owner()), of(word(&["salesforce", "netsuite"])), of(local())),
        word(&["https://acme.example", "http://127.0.0.1:8080/base"]),
        of(word(&["67.0", "v1"])),
        parameters,
        (word(&["JwtBearer", "TokenBased"]), local()).prop_map(|(method, secret_ref)| Auth { method, secret_ref }),
        of(limits),
        of(circuit),
        of(duration().prop_map(|every| Probe { every })),
        of(tls),
        of(allowed()),
    )
        .prop_map(
            |(
                (owner, system, definition_ref),
                endpoint,
                version,
                parameters,
                auth,
                limits,
                circuit_breaker,
                probe,
                tls,
                allowed_namespaces,
            )| {
                ConnectorSpec {
                    owner,
                    system,
                    definition_ref,
                    endpoint,
                    version,
                    parameters,
                    auth,
                    limits,
                    circuit_breaker,
                    probe,
                    tls,
                    allowed_namespaces,
                }
            },
        )
}

pub(crate) fn contract() -> impl Strategy<Value = ApiContractSpec> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
    ];
    let free = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-zA-Z$]{1,8}", inner, 0..4).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    (
        word(&["customer", "sales.order"]),
        (0..3u32, 0..20u32, 0..20u32).prop_map(|(major, minor, patch)| format!("{major}.{minor}.{patch}")),
        of((owner(), of(word(&["sales"]))).prop_map(|(Owner { team, contact }, domain)| ContractOwner { team, domain, contact })),
        prop_oneof![Just(Phase::Draft), Just(Phase::Published)],
        prop::collection::btree_map("[a-zA-Z$]{1,8}", free, 0..4),
        vec(word(&["customerId", "address.country"]), 1..3),
        (
            of(allowed()),
            vec(operation(), 0..3),
            of(security()),
            vec(consumer(), 0..2),
            of(exposure()),
            vec(word(&["europe", "north-america"]), 0..2),
            of(master()),
        ),
    )
        .prop_map(
            |(
                entity,
                version,
                owner,
                phase,
                schema,
                key,
                (allowed_namespaces, operations, security, consumers, exposure, units, master),
            )| {
                ApiContractSpec {
                    master,
                    extensions: units.into_iter().map(|namespace| Extension { namespace, schema: serde_json::Map::new() }).collect(),
                    operations,
                    security,
                    consumers,
                    exposure,
                    entity,
                    version,
                    owner,
                    lifecycle: Lifecycle { phase },
                    schema: schema.into_iter().collect(),
                    key,
                    allowed_namespaces,
                }
            },
        )
}

fn master() -> impl Strategy<Value = Master> {
    let seldom = |strategy| prop::option::weighted(0.2, strategy);
    let ownership = vec(word(&["crm", "erp"]).prop_map(|role| OwnershipRule { fields: vec!["name".into()], role }), 0..2);
    (
        of(prop_oneof![Just(MasterScope::Integration), Just(MasterScope::Contract)]),
        prop_oneof![2 => Just(Vec::new()), 1 => Just(vec![vec!["taxId".to_owned()]])],
        seldom(Just(OnAmbiguous::DeadLetter)),
        prop_oneof![2 => Just(Vec::new()), 1 => ownership],
        prop::option::weighted(0.2, prop_oneof![Just(Tie::Home), Just(Tie::Latest)]),
    )
        .prop_map(|(scope, match_rules, on_ambiguous, ownership, tie)| Master { scope, match_rules, on_ambiguous, ownership, tie })
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = prop_oneof![Just(OperationName::List), Just(OperationName::Get), Just(OperationName::Create), Just(OperationName::Update)];
    let reference = || (word(&["customers"]), of(word(&["europe"]))).prop_map(|(name, namespace)| ObjectReference { name, namespace });
    let target = (of("\\PC{1,8}"), of(word(&["europe"])), word(&["customers"]), word(&["erp"]))
        .prop_map(|(when, namespace, integration, participant)| TargetParticipant { when, namespace, integration, participant });
    (
        name,
        vec(word(&["customers.read", "customers.write"]), 0..2),
        of(of(reference()).prop_map(|integration| ReadFrom { store: StoreSource { integration } })),
        of(vec(target, 1..3).prop_map(|participants| WriteTo { participants })),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(word(&["taxId"]), 1..2)],
        of(duration()),
        of(prop_oneof![Just(Idempotency::Required), Just(Idempotency::Optional)]),
    )
        .prop_map(|(name, scopes, from, to, filters, timeout, idempotency)| Operation {
            name,
            scopes,
            from,
            to,
            filters,
            timeout,
            idempotency,
        })
}

fn security() -> impl Strategy<Value = Security> {
    let issuer = word(&["https://login.acme.example", "https://other.example"]).prop_map(|issuer| Issuer {
        jwks_uri: format!("{issuer}/keys"),
        issuer,
        audiences: vec!["customers".into()],
    });
    (vec(issuer, 1..3), of(duration())).prop_map(|(issuers, max_token_age)| Security { issuers, max_token_age })
}

fn consumer() -> impl Strategy<Value = Consumer> {
    let rate = (1..1_000_000i32, duration()).prop_map(|(requests, per)| Rate { requests, per });
    let operations = prop_oneof![Just(Vec::new()), Just(vec![OperationName::Get])];
    let issuer = of(word(&["https://login.acme.example", "https://other.example"]));
    (word(&["web-shop", "office"]), issuer, vec(word(&["one", "two words"]), 1..3), operations, of(rate))
        .prop_map(|(name, issuer, client_ids, operations, rate)| Consumer { name, issuer, client_ids, operations, rate })
}

fn exposure() -> impl Strategy<Value = Exposure> {
    vec(word(&["api.acme.example", "localhost"]), 1..3).prop_map(|hostnames| Exposure { hostnames })
}

fn lookup() -> impl Strategy<Value = Lookup> {
    let otherwise = (of("[A-Z]{2}"), of("[A-Z]{2}")).prop_map(|(canonical, native)| Otherwise { canonical, native });
    (word(&["country-codes"]), of(otherwise)).prop_map(|(name, otherwise)| Lookup { name, otherwise })
}

pub(crate) fn row() -> impl Strategy<Value = FieldRow> {
    let values = vec(("[a-c]{0,2}", "[a-c]{0,2}").prop_map(|(canonical, native)| ValuePair { canonical, native }), 0..3);
    // Most rows use few of the blocks, or no random row would ever be right.
    let seldom = |strategy: BoxedStrategy<String>| prop::option::weighted(0.2, strategy);
    (
        word(&["", "name", "contacts[]", "contacts[].email"]),
        word(&["", "Name", "Contacts.records[]", "a.b"]),
        seldom("\\PC{0,8}".boxed()),
        prop_oneof![4 => Just(Vec::new()), 1 => values],
        seldom("\\PC{1,8}".boxed()),
        seldom("\\PC{1,8}".boxed()),
        of(Just(OnError::DeadLetter)),
        prop::option::weighted(
            0.2,
            (word(&["customer"]), of(prop_oneof![Just(OnCycle::DeadLetter), Just(OnCycle::Complete)]))
                .prop_map(|(entity, on_cycle)| Reference { entity, on_cycle }),
        ),
        prop::option::weighted(0.2, lookup()),
        seldom(word(&["Id"]).boxed()),
    )
        .prop_map(|(canonical, native, value, values, to_canonical, from_canonical, on_error, reference, lookup, key)| FieldRow {
            canonical,
            native,
            value,
            values,
            to_canonical,
            from_canonical,
            on_error,
            reference,
            lookup,
            key,
        })
}

fn participant() -> impl Strategy<Value = Participant> {
    let write = (
        of(word(&["Fairlead_Id__c"]).prop_map(|native| WriteKey { native })),
        of("\\PC{1,8}"),
        of(prop_oneof![Just(OnDelete::Keep), Just(OnDelete::Archive), Just(OnDelete::Delete)]),
        of(prop_oneof![Just(OnMerge::Keep), Just(OnMerge::Archive)]),
        of(prop_oneof![Just(OnLeave::Keep), Just(OnLeave::Archive)]),
        of(prop_oneof![Just(OnForeignEdit::Restore), Just(OnForeignEdit::Keep)]),
    )
        .prop_map(|(key, when, on_delete, on_merge, on_leave, on_foreign_edit)| WriteSpec {
            key,
            when,
            on_delete,
            on_merge,
            on_leave,
            on_foreign_edit,
        });
    let read = of(duration().prop_map(|every| Poll { every })).prop_map(|poll| ReadSpec { poll });
    (
        word(&["crm", "erp", "mdm"]),
        word(&["crm", "erp"]),
        word(&["salesforce", "shared/netsuite"]),
        word(&["Account", "customer"]),
        of(read),
        of(write),
        prop_oneof![3 => Just(Vec::new()), 1 => vec(word(&["account-fields"]).prop_map(|name| LocalRef { name }), 1..2)],
        vec(row(), 0..4),
    )
        .prop_map(|(name, role, connector, entity, read, write, fields_from, fields)| Participant {
            name,
            role,
            connector,
            entity,
            read,
            write,
            fields_from,
            fields,
        })
}

pub(crate) fn integration() -> impl Strategy<Value = IntegrationSpec> {
    let guard = (of(0..=100i32), of(0..=100i32), of("[a-f0-9]{1,8}")).prop_map(|(max_delete_percent, max_change_percent, confirm)| Guard {
        max_delete_percent,
        max_change_percent,
        confirm,
    });
    let ownership =
        (vec(word(&["*", "name"]), 1..3), word(&["crm", "erp", "mdm"])).prop_map(|(fields, role)| OwnershipRule { fields, role });
    let load = prop_oneof![Just(InitialLoad::Preview), Just(InitialLoad::MatchOnly), Just(InitialLoad::MatchOrCreate)];
    let sync = (
        vec(participant(), 1..4),
        of(load),
        of(guard),
        of("[a-z0-9]{1,8}"),
        vec(vec(word(&["taxId", "name"]), 1..3), 0..3),
        of(Just(OnAmbiguous::DeadLetter)),
        vec(ownership, 0..3),
        of(prop_oneof![Just(Tie::Home), Just(Tie::Latest)]),
    )
        .prop_map(|(participants, initial_load, guard, resync, match_rules, on_ambiguous, ownership, tie)| SyncSpec {
            participants,
            initial_load,
            guard,
            resync,
            match_rules,
            on_ambiguous,
            ownership,
            tie,
        });
    let schedule = (word(&["0 2 * * *", "*/5 * * * *"]), of(word(&["UTC", "Europe/Berlin"])))
        .prop_map(|(cron, time_zone)| CronSchedule { cron, time_zone });
    let policy = prop_oneof![Just(ReconcilePolicy::Report), Just(ReconcilePolicy::Repair)];
    let reconcile = (schedule, of(policy), of(0..=100i32)).prop_map(|(schedule, policy, max_repair_percent)| Reconcile {
        schedule,
        policy,
        max_repair_percent,
    });
    let rollout = (of(duration()), of(1..=100i32), of(duration())).prop_map(|(shadow, canary_percent, lasts)| Rollout {
        shadow,
        canary_percent,
        lasts,
    });
    let retry = (of(1..100i32), of(duration()), of(duration())).prop_map(|(attempts, initial, max)| Retry { attempts, initial, max });
    (
        of(owner()),
        (word(&["customer-v1"]), of(word(&["contracts"]))).prop_map(|(name, namespace)| ObjectReference { name, namespace }),
        sync,
        of((of(retry), of(of(duration()).prop_map(|keep| DeadLetters { keep })))
            .prop_map(|(retry, dead_letters)| Delivery { retry, dead_letters })),
        (of(reconcile), of(rollout)),
        of(prop_oneof![Just(RunState::Running), Just(RunState::Paused)]),
        of(prop_oneof![Just(DeletionPolicy::Retain), Just(DeletionPolicy::Delete)]),
        of(allowed()),
    )
        .prop_map(|(owner, contract, sync, delivery, (reconcile, rollout), state, deletion_policy, allowed_namespaces)| {
            IntegrationSpec { allowed_namespaces, owner, contract, sync, delivery, reconcile, rollout, state, deletion_policy }
        })
}
