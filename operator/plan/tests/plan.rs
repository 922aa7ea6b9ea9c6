//! What surrounds a plan: last good units, references, lineage, remembered compilation.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on says so by panicking.

use fairlead_api::Kind;
use fairlead_model::unit::{DeletionPolicy, ObjectKey, Units};
use fairlead_model::{ObjectRef, Timestamp};
use fairlead_plan::{Config, Direction, Planned, Planner, Recorded, RefKind, Target, Undecodable, World, merge_last_good, plan};
use fairlead_systems::Catalog;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn base() -> Vec<Value> {
    fairlead_api::manifest::from_yaml(include_str!("golden/base.yaml")).unwrap()
}

/// A document's kind and name, and what is done to it.
type Edit = (&'static str, &'static str, fn(&mut Value));

/// The base world with edits; each finds a document by kind and name. An edit to null takes the document away.
fn world(edits: &[Edit]) -> World {
    let mut documents = base();
    for (kind, name, edit) in edits {
        let found = documents.iter_mut().find(|d| d["kind"] == *kind && d["metadata"]["name"] == *name);
        edit(found.unwrap_or_else(|| panic!("no {kind} {name}")));
    }
    documents.retain(|document| !document.is_null());
    World::of_manifests(&documents, true)
}

fn planned(world: &World) -> Planned {
    plan(world, Catalog::builtin(), &Config::default(), Timestamp(0))
}

fn customers() -> ObjectRef {
    ObjectRef::new("north-america", "customers")
}

fn key(object: &ObjectRef) -> ObjectKey {
    ObjectKey::from(object)
}

fn good() -> Units {
    let planned = planned(&world(&[]));
    assert!(planned.is_good(), "{:#?}", planned.verdicts().flat_map(|v| &v.findings).collect::<Vec<_>>());
    merge_last_good(&Units::default(), &planned)
}

fn merged(edits: &[Edit]) -> Units {
    merge_last_good(&good(), &planned(&world(edits)))
}

const BREAK: Edit = ("Integration", "customers", |d| d["spec"]["sync"]["participants"][0]["fields"][0]["native"] = json!("Nmae"));
const GONE: fn(&mut Value) = |d| *d = Value::Null;

#[test]
fn a_broken_edit_keeps_the_last_good_unit() {
    let units = merged(&[BREAK]);
    assert_eq!(units.integrations, good().integrations);
    assert!(units.removed.is_empty());
}

#[test]
fn a_broken_connector_keeps_its_last_good_unit_and_its_integrations() {
    let units = merged(&[("Connector", "netsuite", |d| d["spec"]["auth"]["method"] = json!("Guessing"))]);
    assert_eq!(units, good());
    let units = merged(&[("ConfigMap", "salesforce-acme", GONE)]);
    assert_eq!(units, good(), "a definition that is gone for the moment is still in the unit");
}

#[test]
fn withdrawn_permission_stops_the_use_even_of_a_broken_integration() {
    let withdraw: Edit = ("ApiContract", "customer-v1", |d| d["spec"]["allowedNamespaces"]["names"] = json!(["europe"]));
    for edits in [vec![withdraw], vec![withdraw, BREAK]] {
        let units = merged(&edits);
        assert!(units.integrations.is_empty());
        assert!(units.removed.is_empty(), "its records wait: the resource is still there");
        assert_eq!(units.connectors.len(), 2);
    }
}

#[test]
fn a_deleted_contract_or_connector_stops_its_use() {
    assert!(merged(&[("ApiContract", "customer-v1", GONE)]).integrations.is_empty());
    let units = merged(&[("Connector", "netsuite", GONE)]);
    assert!(units.integrations.is_empty());
    assert_eq!(units.connectors.keys().map(ToString::to_string).collect::<Vec<_>>(), ["north-america/salesforce"]);
}

#[test]
fn a_reference_to_something_forbidden_does_not_stop_what_ran_by_the_old_one() {
    let units = merged(&[("Integration", "customers", |d| d["spec"]["contract"] = json!({"name": "secret-v1", "namespace": "contracts"}))]);
    assert_eq!(units.integrations, good().integrations);
}

#[test]
fn a_deleted_integration_is_removed_with_its_policy_until_it_is_back() {
    let deleted = planned(&world(&[("Integration", "customers", GONE)]));
    let units = merge_last_good(&good(), &deleted);
    assert_eq!(units.removed.get(&key(&customers())), Some(&DeletionPolicy::Retain));
    let later = merge_last_good(&units, &deleted);
    assert_eq!(later.removed, units.removed, "until the runtimes have forgotten it");
    assert!(merge_last_good(&later, &planned(&world(&[BREAK]))).removed.is_empty(), "nothing is removed under an object that is there");
}

#[test]
fn a_person_who_pauses_a_broken_integration_is_obeyed() {
    let units = merged(&[BREAK, ("Integration", "customers", |d| d["spec"]["state"] = json!("Paused"))]);
    let unit = &units.integrations[&key(&customers())];
    assert!(unit.paused);
    assert_ne!(unit.digest, good().integrations[&key(&customers())].digest, "a runtime acknowledges what it runs");
}

#[test]
fn an_object_on_its_way_out_is_gone() {
    let units = merged(&[("Integration", "customers", |d| d["metadata"]["deletionTimestamp"] = json!("2026-11-23T00:00:00Z"))]);
    assert!(units.integrations.is_empty() && units.removed.contains_key(&key(&customers())));
}

#[test]
fn an_undecodable_object_harms_nobody_else() {
    let mut world = world(&[]);
    world.connectors.retain(|c| c.metadata.name.as_deref() != Some("netsuite"));
    let netsuite = ObjectRef::new("north-america", "netsuite");
    world.undecodable.push(Undecodable::new(Kind::Connector, netsuite.clone(), 7, "missing field `auth`"));
    world.undecodable.push(Undecodable::new(Kind::ApiContract, ObjectRef::new("contracts", "junk"), 1, "missing field `spec`"));
    let planned = planned(&world);
    assert!(planned.units.connectors.contains_key(&key(&ObjectRef::new("north-america", "salesforce"))));
    assert_eq!(planned.connectors[&netsuite].generation, 7);
    let (_, message) = planned.integrations[&customers()].fault().unwrap();
    assert!(message.contains("Connector north-america/netsuite cannot be used") && message.contains("missing field `auth`"), "{message}");
    assert_eq!(merge_last_good(&good(), &planned), good(), "and what ran goes on");
}

#[test]
fn an_edit_that_changes_nothing_makes_no_new_unit() {
    let edited = planned(&world(&[("Integration", "customers", |d| {
        d["metadata"]["generation"] = json!(9);
        d["metadata"]["labels"] = json!({"a": "b"});
    })]));
    let unit = &edited.units.integrations[&key(&customers())];
    assert_eq!((unit.generation, &unit.digest), (9, &good().integrations[&key(&customers())].digest));
}

#[test]
fn the_older_of_two_that_claim_one_field_keeps_it_and_the_other_heals_when_it_goes() {
    let mut documents = base();
    let mut second = documents.iter().find(|d| d["kind"] == "Integration").unwrap().clone();
    second["metadata"]["name"] = json!("accounts");
    second["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
    documents.iter_mut().find(|d| d["kind"] == "Integration").unwrap()["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    documents.push(second);
    let both = planned(&World::of_manifests(&documents, true));
    assert!(both.units.integrations.contains_key(&key(&customers())));
    let accounts = ObjectRef::new("north-america", "accounts");
    let (reason, message) = both.integrations[&accounts].fault().unwrap();
    assert_eq!(reason, fairlead_api::Reason::Conflict);
    assert!(
        message.starts_with("spec.sync.participants[0].write.key.native: the older Integration north-america/customers holds its ids in"),
        "{message}"
    );
    documents.retain(|d| d["metadata"]["name"] != "customers");
    assert!(planned(&World::of_manifests(&documents, true)).units.integrations.contains_key(&key(&accounts)));
}

#[test]
fn a_change_concerns_whoever_needs_the_object() {
    let planned = planned(&world(&[]));
    let map = Target::new(RefKind::ConfigMap, ObjectRef::new("north-america", "salesforce-acme"));
    let concerned: Vec<String> = planned.references.concerned(&map).iter().map(ToString::to_string).collect();
    assert_eq!(concerned, ["Connector north-america/salesforce", "Integration north-america/customers"]);
    assert_eq!(planned.contracts[&ObjectRef::new("contracts", "customer-v1")].used_by, [customers()]);
}

#[test]
fn who_is_not_permitted_does_not_count_as_a_user() {
    let planned = planned(&world(&[("ApiContract", "customer-v1", |d| d["spec"]["allowedNamespaces"]["names"] = json!([]))]));
    assert!(planned.contracts[&ObjectRef::new("contracts", "customer-v1")].used_by.is_empty());
}

#[test]
fn lineage_tells_where_a_field_comes_from_and_whose_value_wins() {
    let lineage = planned(&world(&[])).lineage(&customers());
    let told: Vec<String> = lineage[&"creditLimit".parse().unwrap()]
        .iter()
        .map(|p| format!("{} {:?} {} {:?}{}", p.participant, p.direction, p.native[0], p.how, if p.owns { " owns" } else { "" }))
        .collect();
    assert_eq!(
        told,
        ["crm In Credit_Limit__c Copy", "crm Out Credit_Limit__c Copy", "erp In creditLimit Copy owns", "erp Out creditLimit Copy owns"]
    );
    assert!(lineage[&"address.city".parse().unwrap()].iter().any(|p| p.direction == Direction::In && p.owns));
}

#[test]
fn a_planner_that_remembers_says_what_a_fresh_one_says() {
    let mut planner = Planner::default();
    let (config, now) = (Config::default(), Timestamp(0));
    let steps: [&[Edit]; 6] = [
        &[],
        &[BREAK],
        &[("ApiContract", "customer-v1", |d| d["spec"]["schema"]["properties"]["name"] = json!({"type": "integer"}))],
        &[("ConfigMap", "salesforce-acme", |d| d["data"]["definition.yaml"] = json!("extends: salesforce"))],
        &[("Connector", "netsuite", GONE)],
        &[],
    ];
    for edits in steps {
        let world = world(edits);
        assert_eq!(planner.plan(&world, Catalog::builtin(), &config, now), planned(&world));
        assert_eq!(planner.plan(&world, Catalog::builtin(), &config, now), planned(&world));
    }
}

/// The base world with a contract that is served.
fn served(edits: &[Edit]) -> Planned {
    let mut documents = fairlead_api::manifest::from_yaml(include_str!("golden/routes.yaml")).unwrap();
    let known: Vec<_> = documents.iter().map(|d| (d["kind"].clone(), d["metadata"]["name"].clone())).collect();
    documents.extend(base().into_iter().filter(|d| !known.contains(&(d["kind"].clone(), d["metadata"]["name"].clone()))));
    for (kind, name, edit) in edits {
        edit(documents.iter_mut().find(|d| d["kind"] == *kind && d["metadata"]["name"] == *name).unwrap());
    }
    documents.retain(|document| !document.is_null());
    planned(&World::of_manifests(&documents, true))
}

fn routes(edits: &[Edit]) -> Vec<fairlead_model::hash::Digest> {
    let good = merge_last_good(&Units::default(), &served(&[]));
    merge_last_good(&good, &served(edits)).routes.values().map(|route| route.digest.clone()).collect()
}

#[test]
fn a_broken_contract_keeps_its_last_good_route_and_loses_it_with_its_ground() {
    let good = routes(&[]);
    assert_eq!(good.len(), 1);
    let broken: Edit = ("ApiContract", "customer-v1", |d| d["spec"]["operations"][0]["filters"] = json!(["nothing"]));
    assert_eq!(routes(&[broken]), good);
    let integration_broken: Edit = ("Integration", "customers", |d| d["spec"]["sync"]["participants"][0]["entity"] = json!("Acount"));
    assert_eq!(routes(&[integration_broken]), good);
    let ends: [Edit; 4] = [
        ("ApiContract", "customer-v1", GONE),
        ("ApiContract", "customer-v1", |d| {
            let spec = d["spec"].as_object_mut().unwrap();
            ["operations", "security", "consumers", "exposure"].iter().for_each(|block| drop(spec.remove(*block)));
        }),
        ("Integration", "customers", GONE),
        ("Integration", "customers", |d| d["spec"]["allowedNamespaces"]["names"] = json!(["europe"])),
    ];
    for end in ends {
        assert!(routes(&[end]).is_empty(), "{} {}", end.0, end.1);
        if end.0 == "Integration" {
            assert!(routes(&[broken, end]).is_empty(), "a broken contract too loses what it may not use");
        }
    }
}

#[test]
fn a_wrong_operation_harms_no_integration_on_the_contract() {
    let planned = served(&[("ApiContract", "customer-v1", |d| d["spec"]["operations"][0]["filters"] = json!(["nothing"]))]);
    assert!(planned.verdict(Kind::Integration, &customers()).unwrap().is_good());
    assert!(planned.units.routes.is_empty() && planned.units.integrations.len() == 1);
}

#[test]
fn a_repaired_integration_heals_the_contract_without_a_touch() {
    let break_it: Edit = ("Integration", "customers", |d| d["spec"]["sync"]["participants"][0]["entity"] = json!("Acount"));
    let contract = ObjectRef::new("contracts", "customer-v1");
    assert!(!served(&[break_it]).verdict(Kind::ApiContract, &contract).unwrap().is_good());
    assert!(served(&[]).verdict(Kind::ApiContract, &contract).unwrap().is_good());
    let planned = served(&[]);
    let concerned = planned.references.concerned(&Target::new(RefKind::Integration, customers()));
    assert!(concerned.contains(&Target::new(RefKind::ApiContract, contract)));
}

fn shared() -> Vec<Value> {
    let mut documents = base();
    for document in fairlead_api::manifest::from_yaml(include_str!("golden/shared-tables.yaml")).unwrap() {
        documents.retain(|known| (&known["kind"], &known["metadata"]["name"]) != (&document["kind"], &document["metadata"]["name"]));
        documents.push(document);
    }
    documents
}

#[test]
fn an_edit_of_a_table_makes_a_new_unit_and_nothing_else_does() {
    let mut planner = Planner::default();
    let mut plan = |documents: &[Value]| {
        let planned = planner.plan(&World::of_manifests(documents, true), Catalog::builtin(), &Config::default(), Timestamp(0));
        assert!(planned.is_good(), "{:#?}", planned.verdicts().flat_map(|v| &v.findings).collect::<Vec<_>>());
        planned.units.integrations[&key(&customers())].clone()
    };
    let edited = |name: &str, entry: &str, from: &str, to: &str| {
        let mut documents = shared();
        let map = documents.iter_mut().find(|d| d["metadata"]["name"] == name).unwrap();
        let text = map["data"][entry].as_str().unwrap().replace(from, to);
        map["data"][entry] = json!(text);
        documents
    };
    let first = plan(&shared());
    assert_eq!(plan(&shared()).digest, first.digest);
    let lookup = plan(&edited("country-codes", "lookup.csv", "Germany", "Deutschland"));
    assert_ne!(lookup.digest, first.digest);
    assert_eq!(lookup.lookups["country-codes"].pairs[0].native, "Deutschland");
    let rows = plan(&edited("account-fields", "fields.yaml", "Credit_Limit__c", "AnnualRevenue"));
    assert_ne!(rows.digest, first.digest);
    assert_eq!(plan(&edited("account-fields", "fields.yaml", "crm-platform", "others")).digest, first.digest, "an owner is no row");
    assert_eq!(plan(&shared()).digest, first.digest, "what is put back is as it was");
}

#[test]
fn a_table_concerns_the_integration_that_names_it_and_its_absence_keeps_the_last_good_unit() {
    let planned = |documents: &[Value]| planned(&World::of_manifests(documents, true));
    let all = planned(&shared());
    for name in ["account-fields", "country-codes"] {
        let map = Target::new(RefKind::ConfigMap, ObjectRef::new("north-america", name));
        assert!(all.references.concerned(&map).contains(&Target::new(RefKind::Integration, customers())), "{name}");
        let mut without = shared();
        without.retain(|document| document["metadata"]["name"] != name);
        let less = planned(&without);
        let (reason, message) = less.integrations[&customers()].fault().unwrap();
        assert_eq!(reason, fairlead_api::Reason::ConfigMapNotFound, "{message}");
        assert!(less.references.concerned(&map).contains(&Target::new(RefKind::Integration, customers())), "its arrival matters");
        let last = merge_last_good(&Units::default(), &all);
        assert_eq!(merge_last_good(&last, &less).integrations, last.integrations);
    }
}

#[test]
fn the_rows_of_a_participant_come_from_its_own_table_first_then_from_the_later_shared_one() {
    let all = planned(&World::of_manifests(&shared(), true));
    let unit = &all.units.integrations[&key(&customers())];
    let told: Vec<String> = unit
        .participant("crm")
        .unwrap()
        .rows
        .iter()
        .enumerate()
        .map(|(index, row)| format!("{}: {} {}", row.called(index), row.canonical.as_ref().unwrap(), row.native.as_ref().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            "row 0: taxId Tax_Number__c",
            "row 2 of account-fields: creditLimit Credit_Limit__c",
            "row 3 of account-fields: address.country BillingCountry",
            "row 0 of account-names: name Name",
        ]
    );
}

/// The world of golden records with edits; each finds a document by kind and namespace.
fn golden(edits: &[Edit]) -> Planned {
    planned(&golden_world(edits))
}

fn golden_world(edits: &[Edit]) -> World {
    let mut documents = fairlead_api::manifest::from_yaml(include_str!("golden/master.yaml")).unwrap();
    let known: Vec<_> = documents.iter().map(|d| (d["kind"].clone(), d["metadata"]["name"].clone())).collect();
    documents.extend(base().into_iter().filter(|d| !known.contains(&(d["kind"].clone(), d["metadata"]["name"].clone()))));
    // The base's own connector of that name stands in another namespace.
    documents.extend(base().into_iter().filter(|d| d["metadata"]["name"] == "netsuite"));
    for (kind, namespace, edit) in edits {
        edit(documents.iter_mut().find(|d| d["kind"] == *kind && d["metadata"]["namespace"] == *namespace).unwrap());
    }
    documents.retain(|document| !document.is_null());
    World::of_manifests(&documents, true)
}

#[test]
fn a_unit_of_golden_records_is_its_own_whatever_it_knows_of_the_others() {
    let america = |units: &Units| {
        let unit = &units.integrations[&key(&customers())];
        (unit.digest.clone(), unit.siblings().to_vec())
    };
    let good = golden(&[]);
    assert!(good.is_good(), "{:#?}", good.verdicts().flat_map(|v| &v.findings).collect::<Vec<_>>());
    let (digest, siblings) = america(&good.units);
    assert_eq!((good.integrations[&customers()].digest.as_ref(), siblings.len()), (Some(&digest), 1));
    let of = |edit: fn(&mut Value)| america(&golden(&[("Integration", "europe", edit)]).units);
    let faster = of(|d| d["spec"]["sync"]["participants"][0]["read"]["poll"]["every"] = json!("5m"));
    assert_eq!(faster, (digest.clone(), siblings.clone()), "how another one reads is its own matter");
    for edit in [
        (|d: &mut Value| d["spec"]["state"] = json!("Running")) as fn(&mut Value),
        |d| d["spec"]["sync"]["participants"][0]["role"] = json!("billing"),
        |d| d["spec"]["sync"]["participants"][0]["name"] = json!("books"),
        |d| drop(d["spec"]["sync"]["participants"][0].as_object_mut().unwrap().remove("write")),
        GONE,
    ] {
        let (same, others) = of(edit);
        assert_eq!(same, digest, "nothing of its own changes");
        assert_ne!(others, siblings);
    }
}

#[test]
fn golden_records_are_found_by_the_fields_of_every_unit_whoever_writes_them() {
    let filters: fn(&mut Value) = |d| {
        let vat = json!({"type": "object", "properties": {"vatGroup": {"type": "string"}}, "additionalProperties": false});
        d["spec"]["extensions"] = json!([{"namespace": "europe", "schema": vat}]);
        d["spec"]["operations"][0]["filters"] = json!(["name", "ext.europe.vatGroup"]);
    };
    let planned = golden(&[("ApiContract", "contracts", filters)]);
    let contract = ObjectRef::new("contracts", "customer-v1");
    assert!(planned.contracts[&contract].is_good(), "{:#?}", planned.contracts[&contract].findings);
    for object in [customers(), ObjectRef::new("europe", "customers")] {
        let indexed = &planned.units.integrations[&key(&object)].indexed;
        assert_eq!(indexed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ext.europe.vatGroup", "name"], "{object}");
    }
}

#[test]
fn units_of_golden_records_know_of_each_other_what_runs_and_not_what_is_declared() {
    let last = merge_last_good(&Units::default(), &golden(&[]));
    let known = |units: &Units, object: &ObjectRef| {
        let siblings = units.integrations[&key(object)].siblings().to_vec();
        siblings.into_iter().map(|each| (each.name, each.role, each.reads, each.writes)).collect::<Vec<_>>()
    };
    let europe = ObjectRef::new("europe", "customers");
    let breaks: fn(&mut Value) = |d| {
        d["spec"]["sync"]["participants"][0]["name"] = json!("salesforce");
        d["spec"]["sync"]["participants"][0]["role"] = json!("sales");
        d["spec"]["sync"]["participants"][0]["fields"][0]["native"] = json!("Nmae");
    };
    let broken = golden(&[("Integration", "north-america", breaks)]);
    assert!(!broken.units.integrations.contains_key(&key(&customers())), "it does not plan");
    let broken = merge_last_good(&last, &broken);
    assert_eq!(broken.integrations, last.integrations, "its last good unit runs, by the names that it has");
    assert_eq!(merge_last_good(&broken, &golden(&[])).integrations, last.integrations, "and goes on when the edit is taken back");
    let of = |name: &str, reads: bool| (format!("north-america/customers/{name}"), name.to_owned(), reads, true);
    assert_eq!(known(&broken, &europe), [of("crm", true), of("erp", true)]);
    let pauses: fn(&mut Value) = |d| {
        d["spec"]["sync"]["participants"][0]["fields"][0]["native"] = json!("Nmae");
        d["spec"]["state"] = json!("Paused");
    };
    let paused = merge_last_good(&last, &golden(&[("Integration", "north-america", pauses)]));
    assert_eq!(known(&paused, &europe), [of("crm", false), of("erp", false)], "nobody waits for what is paused");
    let alone = merge_last_good(&last, &golden(&[("Integration", "north-america", breaks), ("Integration", "europe", GONE)]));
    assert!(known(&alone, &customers()).is_empty());
    let never = merge_last_good(&Units::default(), &golden(&[("Integration", "north-america", breaks)]));
    let declared = [("north-america/customers/erp", "erp"), ("north-america/customers/salesforce", "sales")];
    let declared = declared.map(|(name, role)| (name.to_owned(), role.to_owned(), false, true));
    assert_eq!(known(&never, &europe), declared, "what does not run counts by what it declares");
    let stranded = golden(&[("Connector", "north-america", GONE)]);
    let stranded = merge_last_good(&last, &stranded);
    assert!(!stranded.integrations.contains_key(&key(&customers())), "it lost its ground");
    assert_eq!(known(&stranded, &europe), [of("crm", false), of("erp", false)], "and owns what it holds until it is back");
    let mut unread = golden_world(&[]);
    let contract = ObjectRef::new("contracts", "customer-v1");
    unread.contracts.retain(|c| c.metadata.name.as_deref() != Some("customer-v1"));
    unread.undecodable.push(Undecodable::new(Kind::ApiContract, contract, 1, "missing field `spec`"));
    assert_eq!(
        merge_last_good(&last, &planned(&unread)).integrations,
        last.integrations,
        "of a contract that cannot be read nothing is new"
    );
}

#[test]
fn a_planner_that_remembers_golden_records_says_what_a_fresh_one_says() {
    let mut documents = fairlead_api::manifest::from_yaml(include_str!("golden/master.yaml")).unwrap();
    documents.extend(base().into_iter().filter(|d| ["ConfigMap", "Connector"].iter().any(|kind| d["kind"] == *kind)));
    let mut planner = Planner::default();
    for paused in ["Paused", "Paused", "Running"] {
        documents
            .iter_mut()
            .filter(|d| d["metadata"]["namespace"] == "europe" && d["kind"] == "Integration")
            .for_each(|d| d["spec"]["state"] = json!(paused));
        let world = World::of_manifests(&documents, true);
        assert_eq!(planner.plan(&world, Catalog::builtin(), &Config::default(), Timestamp(0)), planned(&world));
    }
}

#[test]
fn an_equal_spec_is_the_recorded_revision_and_any_other_the_next() {
    let rollout = |d: &mut Value| d["spec"]["rollout"] = json!({"shadow": "10m", "canaryPercent": 5, "for": "10m"});
    let mut world = world(&[("Integration", "customers", rollout)]);
    let facts = |planned: &Planned| planned.integrations[&customers()].revision.clone().unwrap();
    let unit = |planned: &Planned| planned.units.integrations[&key(&customers())].clone();
    let files = planned(&world);
    assert_eq!((facts(&files).unit.number, facts(&files).recorded), (None, true), "nobody keeps a history of files but their owner");

    world.history = Some(BTreeMap::new());
    let first = planned(&world);
    assert_eq!((facts(&first).unit.number, facts(&first).recorded), (Some(1), false));
    let recorded = |number| Recorded { number, spec: facts(&files).unit.spec };
    world.history = Some(BTreeMap::from([(customers(), recorded(7))]));
    let same = planned(&world);
    assert_eq!((facts(&same).unit.number, facts(&same).recorded), (Some(7), true));
    assert_eq!(unit(&same).revision, facts(&same).unit);
    assert_eq!(unit(&same).digest, unit(&first).digest, "a number alone makes no new unit");
    let rollout = unit(&same).rollout.clone().unwrap();
    assert_eq!((rollout.shadow.as_secs(), rollout.canary.map(|canary| canary.percent)), (600, Some(5)));

    let mut planner = Planner::default();
    let again = |planner: &mut Planner, world: &World| planner.plan(world, Catalog::builtin(), &Config::default(), Timestamp(0));
    assert_eq!(facts(&again(&mut planner, &world)).unit.number, Some(7));
    world.integrations[0].spec.owner = Some(fairlead_api::Owner { team: "another".into(), contact: None });
    let other = again(&mut planner, &world);
    assert_eq!((facts(&other).unit.number, facts(&other).recorded), (Some(8), false));
    assert_eq!(unit(&other).revision.number, Some(8), "what is remembered has the number of now");
}
