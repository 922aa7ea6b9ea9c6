//! Every kind of row, in both directions.
#![allow(clippy::unwrap_used)]

mod common;

use common::{compile_with, document, table};
use fairlead_mapping::{How, Table};
use fairlead_model::unit::OnCycle;
use fairlead_model::{ExternalId, RecordId};
use serde_json::{Map, Value, json};

/// What a native record becomes: `{unit: value}`, references as `@id`, skipped units left out.
fn inbound(table: &Table, native: Value) -> Value {
    let result = table.to_canonical(&document(native)).unwrap();
    let references = result.references.iter().map(|(unit, _, id)| (unit.to_string(), Value::from(format!("@{id}"))));
    Value::Object(result.fields.iter().map(|(unit, value)| (unit.to_string(), value.clone())).chain(references).collect::<Map<_, _>>())
}

/// What a canonical record becomes: `{native path: value}`.
fn outbound(table: &Table, canonical: Value) -> Value {
    let result = table.to_native(&document(canonical), &|_, id| Some(ExternalId(format!("ext-{id}")))).unwrap();
    Value::Object(result.rows.iter().map(|row| (row.native.to_string(), row.value.clone())).collect::<Map<_, _>>())
}

fn refused_in(table: &Table, native: Value) -> String {
    table.to_canonical(&document(native)).unwrap_err().to_string()
}

fn refused_out(table: &Table, canonical: Value) -> String {
    table.to_native(&document(canonical), &|_, _| None).unwrap_err().to_string()
}

#[test]
fn copies_normalise_what_has_several_spellings() {
    let copies = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "address.city", "native": "BillingCity"},
        {"canonical": "annualRevenue", "native": "AnnualRevenue"},
        {"canonical": "employees", "native": "Employees"},
        {"canonical": "active", "native": "IsActive"},
        {"canonical": "since", "native": "Since"},
        {"canonical": "seenAt", "native": "SeenAt"},
    ]));
    let native = json!({
        "Name": "ACME", "BillingCity": "Ulm", "AnnualRevenue": "1.50e3", "Employees": "12", "IsActive": true,
        "Since": "2026-02-28", "SeenAt": "2026-05-06T09:08:09.000+0200",
    });
    let canonical = json!({
        "name": "ACME", "address.city": "Ulm", "annualRevenue": "1500", "employees": 12, "active": true,
        "since": "2026-02-28", "seenAt": "2026-05-06T07:08:09Z",
    });
    assert_eq!(inbound(&copies, native), canonical);
    let nested = json!({
        "name": "ACME", "address": {"city": "Ulm"}, "annualRevenue": "1500", "employees": 12, "active": true,
        "since": "2026-02-28", "seenAt": "2026-05-06T07:08:09.250Z",
    });
    assert_eq!(
        outbound(&copies, nested),
        json!({
            "Name": "ACME", "BillingCity": "Ulm", "AnnualRevenue": "1500", "Employees": 12, "IsActive": true,
            "Since": "2026-02-28", "SeenAt": "2026-05-06T07:08:09.250Z",
        })
    );
}

#[test]
fn what_is_missing_is_null_on_the_other_side() {
    let copies = table(
        json!([{"canonical": "name", "native": "Name"}, {"canonical": "annualRevenue", "native": "AnnualRevenue"}, {"canonical": "since", "native": "Since"}]),
    );
    assert_eq!(
        inbound(&copies, json!({"Name": "A", "AnnualRevenue": null, "Since": ""})),
        json!({"name": "A", "annualRevenue": null, "since": null})
    );
    assert_eq!(outbound(&copies, json!({"name": "A"})), json!({"Name": "A", "AnnualRevenue": null, "Since": null}));
}

#[test]
fn an_integer_reads_as_a_decimal_and_goes_back_only_whole() {
    let row = table(json!([{"canonical": "annualRevenue", "native": "Employees"}]));
    assert_eq!(inbound(&row, json!({"Employees": 12})), json!({"annualRevenue": "12"}));
    assert_eq!(outbound(&row, json!({"annualRevenue": "12"})), json!({"Employees": 12}));
    assert_eq!(
        refused_out(&row, json!({"annualRevenue": "12.5"})),
        "row 0 (annualRevenue, Employees): has a fraction, a whole number is wanted"
    );
}

#[test]
fn a_refusal_names_row_and_fields_and_not_the_value() {
    let copies = table(
        json!([{"canonical": "name", "native": "Name"}, {"canonical": "address.city", "native": "BillingCity"}, {"canonical": "annualRevenue", "native": "AnnualRevenue"}]),
    );
    assert_eq!(refused_in(&copies, json!({"AnnualRevenue": "4711,50"})), "row 2 (annualRevenue, AnnualRevenue): is not a decimal number");
    assert_eq!(refused_in(&copies, json!({"Name": true})), "row 0 (name, Name): is boolean, the contract wants string");
    assert_eq!(
        refused_out(&copies, json!({"address": {"city": "Llanfairpwllgwyngyll"}})),
        "row 1 (address.city, BillingCity): has 20 characters, the native field takes 10"
    );
    assert_eq!(
        refused_in(&copies, json!({"AnnualRevenue": 1.5})),
        "row 2 (annualRevenue, AnnualRevenue): is a binary floating-point number; digits may be lost already"
    );
}

#[test]
fn value_tables_run_both_ways() {
    let values = table(json!([
        {"canonical": "status", "native": "Type", "values": [{"canonical": "customer", "native": "Customer"}, {"canonical": "prospect", "native": "Prospect"}]},
        {"canonical": "active", "native": "Active__c", "values": [{"canonical": "true", "native": "T"}, {"canonical": "false", "native": "F"}]},
    ]));
    assert_eq!(inbound(&values, json!({"Type": "Customer", "Active__c": "F"})), json!({"status": "customer", "active": false}));
    assert_eq!(outbound(&values, json!({"status": "prospect", "active": true})), json!({"Type": "Prospect", "Active__c": "T"}));
    assert_eq!(inbound(&values, json!({"Type": null})), json!({"status": null, "active": null}));
    assert_eq!(refused_in(&values, json!({"Type": "Partner"})), "row 0 (status, Type): \"Partner\" is not in the value table");
}

#[test]
fn a_value_of_a_classified_field_is_not_quoted() {
    let values = table(
        json!([{"canonical": "taxId", "native": "Nick", "values": [{"canonical": "a", "native": "b"}]}, {"canonical": "name", "native": "Name"}]),
    );
    assert_eq!(refused_in(&values, json!({"Nick": "secret"})), "row 0 (taxId, Nick): a value is not in the value table");
}

#[test]
fn a_copied_enumeration_is_checked_at_run_time() {
    let row = table(json!([{"canonical": "status", "native": "Nick"}]));
    assert_eq!(inbound(&row, json!({"Nick": "customer"})), json!({"status": "customer"}));
    assert_eq!(
        refused_in(&row, json!({"Nick": "Reseller"})),
        "row 0 (status, Nick): is none of the values that the contract allows (customer, prospect)"
    );
}

#[test]
fn constants_are_written_and_never_read() {
    let rows = table(json!([{"canonical": "name", "native": "Name"}, {"native": "RecordTypeId", "value": "0125g000000Abc"}]));
    assert_eq!(inbound(&rows, json!({"Name": "A", "RecordTypeId": "other"})), json!({"name": "A"}));
    assert_eq!(outbound(&rows, json!({"name": "A"})), json!({"Name": "A", "RecordTypeId": "0125g000000Abc"}));
}

#[test]
fn references_are_handed_over_and_looked_up() {
    let row = table(
        json!([{"canonical": "name", "native": "Name"}, {"canonical": "parentId", "native": "ParentId", "reference": {"entity": "customer"}}]),
    );
    assert_eq!(inbound(&row, json!({"Name": "A", "ParentId": "001A"})), json!({"name": "A", "parentId": "@001A"}));
    assert_eq!(inbound(&row, json!({"Name": "A", "ParentId": 17})), json!({"name": "A", "parentId": "@17"}));
    assert_eq!(inbound(&row, json!({"Name": "A"})), json!({"name": "A", "parentId": null}));

    let id = "0190c1e8-0000-7000-8000-000000000001";
    assert_eq!(outbound(&row, json!({"name": "A", "parentId": id})), json!({"Name": "A", "ParentId": format!("ext-{id}")}));
    assert_eq!(outbound(&row, json!({"name": "A"})), json!({"Name": "A", "ParentId": null}));
    let waiting = row.to_native(&document(json!({"name": "A", "parentId": id})), &|_, _| None).unwrap();
    assert_eq!(waiting.unresolved, [(RecordId::parse(id).unwrap(), OnCycle::DeadLetter)]);
    assert_eq!(waiting.rows.iter().map(|row| row.native.to_string()).collect::<Vec<_>>(), ["Name"]);
    assert_eq!(refused_out(&row, json!({"name": "A", "parentId": "001A"})), "row 1 (parentId, ParentId): is no canonical id");
}

#[test]
fn the_row_of_the_reference_page_runs_both_ways() {
    let row = table(json!([{
        "canonical": "address.country", "native": "BillingCountryCode",
        "toCanonical": "upcase(string!(.record.BillingCountryCode))", "fromCanonical": ".record.address.country", "onError": "DeadLetter",
    }]));
    assert_eq!(inbound(&row, json!({"BillingCountryCode": "de"})), json!({"address.country": "DE"}));
    assert_eq!(outbound(&row, json!({"address": {"country": "DE"}})), json!({"BillingCountryCode": "DE"}));
    // string!(null) fails, and the row's own field is empty: there is no value, and no dead letter for it.
    assert_eq!(inbound(&row, json!({})), json!({"address.country": null}));
    assert_eq!(outbound(&row, json!({})), json!({"BillingCountryCode": null}));
}

#[test]
fn an_expression_in_one_direction_makes_the_row_one_way() {
    let rows = table(json!([
        {"canonical": "annualRevenue", "native": "AnnualRevenue", "toCanonical": "decimal_mul!(.record.AnnualRevenue, 1000)"},
        {"canonical": "nick", "native": "Nick", "fromCanonical": ".record.nick"},
        {"canonical": "name", "native": "Name"},
    ]));
    assert_eq!(inbound(&rows, json!({"AnnualRevenue": "1.5", "Nick": "n", "Name": "A"})), json!({"annualRevenue": "1500", "name": "A"}));
    assert_eq!(outbound(&rows, json!({"annualRevenue": "1500", "nick": "n", "name": "A"})), json!({"Nick": "n", "Name": "A"}));
    let units = |units: &[fairlead_model::FieldPath]| units.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(units(rows.readable_units()), ["annualRevenue", "name"]);
    assert_eq!(units(rows.writable_units()), ["nick", "name"]);
    assert_eq!(units(rows.canonical_units()), ["annualRevenue", "nick", "name"]);
}

#[test]
fn expressions_compute_decimals_exactly() {
    let row = |expression: &str| {
        let rows = table(
            json!([{"canonical": "name", "native": "Name"}, {"canonical": "annualRevenue", "native": "AnnualRevenue", "toCanonical": expression}]),
        );
        let result = rows.to_canonical(&document(json!({"Name": "A", "AnnualRevenue": "9007199254740993.01", "Employees": 3})));
        result.map(|result| result.fields[1].1.clone()).map_err(|error| error.message)
    };
    assert_eq!(row("decimal_add!(.record.AnnualRevenue, \"0.02\")"), Ok(json!("9007199254740993.03")));
    assert_eq!(row("decimal_sub!(.record.AnnualRevenue, .record.Employees)"), Ok(json!("9007199254740990.01")));
    assert_eq!(row("decimal_mul!(.record.AnnualRevenue, \"1.19\")"), Ok(json!("10718567113141781.6819")));
    assert_eq!(row("decimal_div!(.record.AnnualRevenue, 3, 4)"), Ok(json!("3002399751580331.0033")));
    assert_eq!(row("decimal_round!(.record.AnnualRevenue, 1)"), Ok(json!("9007199254740993")));
    assert_eq!(row("if decimal_compare!(.record.AnnualRevenue, \"9007199254740993.010\") == 0 { \"1\" } else { \"2\" }"), Ok(json!("1")));
    assert_eq!(row("decimal_add(.record.AnnualRevenue, .record.Nick) ?? \"0\""), Ok(json!("0")));
    assert_eq!(row("decimal_sum!([.record.AnnualRevenue, \"0.99\", 1])"), Ok(json!("9007199254740995")));
    let message = row("decimal_div!(.record.AnnualRevenue, decimal_sub!(1, 1), 2)").unwrap_err();
    assert!(message.contains("division by zero"), "{message}");
}

#[test]
fn expressions_see_text_lists_and_time() {
    let rows = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "nick", "native": "Nick", "toCanonical": "if .record.Nick == null { downcase!(.record.Name) } else { .record.Nick }"},
        {"canonical": "tags[]", "native": "Tags", "toCanonical": "split!(.record.Tags, \";\")", "fromCanonical": "join!(.record.tags, \";\")"},
        {"canonical": "since", "native": "SeenAt", "toCanonical": "format_timestamp!(parse_timestamp!(.record.SeenAt, \"%+\"), \"%F\", timezone: \"Europe/Berlin\")"},
        {"canonical": "employees", "toCanonical": "length(filter(array!(.record.Contacts.records)) -> |_, c| { c.Email != null })"},
    ]));
    let native = json!({
        "Name": "ACME", "Tags": "a;b", "SeenAt": "2026-12-31T23:30:00Z",
        "Contacts": {"records": [{"Id": "1", "Email": "a@example.com"}, {"Id": "2", "Email": null}]},
    });
    assert_eq!(
        inbound(&rows, native),
        json!({"name": "ACME", "nick": "acme", "tags[]": ["a", "b"], "since": "2027-01-01", "employees": 1})
    );
    assert_eq!(outbound(&rows, json!({"name": "ACME", "tags": ["a", "b"]})), json!({"Name": "ACME", "Tags": "a;b"}));
    let paths: Vec<String> = rows.native_paths().iter().map(ToString::to_string).collect();
    assert_eq!(
        paths,
        [
            "Contacts.records[].Email",
            "Contacts.records[].Id",
            "Contacts.records[].LastName",
            "Contacts.records[].Quota",
            "Name",
            "Nick",
            "SeenAt",
            "Tags"
        ]
    );
}

#[test]
fn a_failing_expression_quotes_no_text_of_the_record() {
    let rows =
        compile_with(json!([{"canonical": "employees", "native": "Tags", "toCanonical": "parse_int!(.record.Tags, 10)"}]), |source| {
            source.write = false
        })
        .unwrap();
    let message = refused_in(&rows, json!({"Tags": "secret"}));
    assert!(message.starts_with("row 0 (employees, Tags): ") && !message.contains("secret"), "{message}");
}

#[test]
fn skip_leaves_the_field_as_it_is() {
    let rows = compile_with(
        json!([{"canonical": "name", "native": "Name"}, {"canonical": "employees", "native": "Tags", "toCanonical": "parse_int!(.record.Tags, 10)", "fromCanonical": "string!(.record.nick)", "onError": "Skip"}]),
        |_| (),
    )
    .unwrap();
    let result = rows.to_canonical(&document(json!({"Name": "A", "Tags": "x"}))).unwrap();
    assert_eq!(result.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(), ["employees"]);
    assert_eq!(result.fields.len(), 1);
    assert_eq!(outbound(&rows, json!({"name": "A", "employees": 1})), json!({"Name": "A"}));
}

#[test]
fn steps_and_results_are_bounded_whatever_the_record_holds() {
    let rows = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "employees", "toCanonical": "length(map_values(array!(.record.Contacts.records)) -> |_| { length(map_values(array!(.record.Contacts.records)) -> |_| { 1 }) })"},
    ]));
    let record = |count: usize| json!({"Name": "A", "Contacts": {"records": vec![json!({"Id": "1"}); count]}});
    assert_eq!(inbound(&rows, record(10)), json!({"name": "A", "employees": 10}));
    assert_eq!(refused_in(&rows, record(1000)), "row 1 (employees): took more than 100000 steps");

    let rows = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "nick", "toCanonical": "a = string!(.record.Nick); b = a + a + a + a; b + b + b + b"},
    ]));
    let record = |length: usize| json!({"Name": "A", "Nick": "x".repeat(length)});
    assert_eq!(inbound(&rows, record(1))["nick"], json!("x".repeat(16)));
    assert_eq!(refused_in(&rows, record(100_000)), "row 1 (nick): gives more than 1048576 bytes");
}

#[test]
fn a_table_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&contacts());
}

#[test]
fn a_condition_that_fails_says_so_without_quoting() {
    let rows =
        compile_with(json!([{"canonical": "name", "native": "Name"}]), |source| source.when = Some("parse_int!(.record.nick, 10) > 1"))
            .unwrap();
    let message = rows.accepts(&document(json!({"nick": "secret"}))).unwrap_err().to_string();
    assert!(message.starts_with("when: ") && !message.contains("secret"), "{message}");
}

fn contacts() -> Table {
    table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "contacts[]", "native": "Contacts.records[]", "key": "Id"},
        {"canonical": "contacts[].email", "native": "Contacts.records[].Email", "toCanonical": "downcase(string!(.item.Email))", "fromCanonical": ".item.email"},
        {"canonical": "contacts[].name", "native": "Contacts.records[].LastName", "fromCanonical": "if .item.name == null { .record.name } else { string!(.item.name) }"},
        {"canonical": "contacts[].quota", "native": "Contacts.records[].Quota"},
    ]))
}

#[test]
fn lists_map_each_element_in_the_order_of_their_keys() {
    let native = json!({"Name": "ACME", "Contacts": {"records": [
        {"Id": "10", "Email": "B@example.com", "Quota": "1.0"},
        {"Id": "9", "Email": null, "Quota": null},
    ]}});
    assert_eq!(inbound(&contacts(), native), json!({"name": "ACME", "contacts[]": [{}, {"email": "b@example.com", "quota": "1"}]}));
    let canonical = json!({"name": "ACME", "contacts": [{"email": "b@example.com", "quota": "1"}, {"name": "Z"}]});
    assert_eq!(
        outbound(&contacts(), canonical),
        json!({"Name": "ACME", "Contacts.records[]": [{"Email": "b@example.com", "LastName": "ACME", "Quota": "1"}, {"LastName": "Z"}]})
    );
}

#[test]
fn no_list_and_an_empty_list_are_one_when_read() {
    for records in [json!({"Name": "A"}), json!({"Name": "A", "Contacts": null}), json!({"Name": "A", "Contacts": {"records": []}})] {
        assert_eq!(inbound(&contacts(), records), json!({"name": "A", "contacts[]": null}));
    }
    assert_eq!(outbound(&contacts(), json!({"name": "A", "contacts": []})), json!({"Name": "A", "Contacts.records[]": []}));
    assert_eq!(outbound(&contacts(), json!({"name": "A"})), json!({"Name": "A", "Contacts.records[]": null}));
}

#[test]
fn a_bad_element_refuses_the_record_naming_its_row() {
    let native = json!({"Name": "A", "Contacts": {"records": [{"Id": "1", "Email": "a@example.com", "Quota": "many"}]}});
    assert_eq!(refused_in(&contacts(), native), "row 4 (contacts[].quota, Contacts.records[].Quota): is not a decimal number");
    assert_eq!(
        refused_in(&contacts(), json!({"Name": "A", "Contacts": {"records": "x"}})),
        "row 1 (contacts[], Contacts.records[]): is string, a list is wanted"
    );
}

#[test]
fn the_condition_decides_who_gets_a_record() {
    let rows =
        compile_with(json!([{"canonical": "name", "native": "Name"}]), |source| source.when = Some(".record.status == \"customer\""))
            .unwrap();
    assert_eq!(rows.accepts(&document(json!({"status": "customer"}))), Ok(true));
    assert_eq!(rows.accepts(&document(json!({}))), Ok(false));
    assert_eq!(table(json!([{"canonical": "name", "native": "Name"}])).accepts(&document(json!({}))), Ok(true));
}

#[test]
fn what_the_contract_does_not_name_inside_an_object_reaches_no_system() {
    let table = compile_with(
        json!([
            {"native": "Nick", "fromCanonical": "join!(keys(object!(.record.address)), \",\")"},
            {"native": "Extra", "fromCanonical": ".record"},
        ]),
        |source| (source.read, source.when) = (false, Some("!includes(keys(object!(.record.address)), \"vault\")")),
    )
    .unwrap();
    let record = json!({"name": "A", "address": {"city": "Bonn", "vault": "secret"}, "extra": {"anything": 1}});
    assert_eq!(table.accepts(&document(record.clone())), Ok(true));
    let written = outbound(&table, record);
    assert_eq!(written["Nick"], "city");
    let whole = json!({"name": "A", "address": {"city": "Bonn"}, "extra": {"anything": 1}});
    assert_eq!(written["Extra"], whole, "where nothing is said of what an object holds, all is the contract's");
}

#[test]
fn lineage_tells_both_directions() {
    let rows = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "nick", "toCanonical": "string!(.record.Name) + string!(.record.BillingCity)"},
        {"native": "Nick", "fromCanonical": "string!(.record.name)"},
    ]));
    let told: Vec<String> = rows
        .lineage()
        .iter()
        .map(|line| {
            let paths = |paths: &[fairlead_model::FieldPath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
            let read = line.read.as_ref().map_or_else(|| "-".into(), |trace| format!("{:?} of {}", trace.how, paths(&trace.native)));
            let write: Vec<String> = line.write.iter().map(|trace| format!("{:?} to {}", trace.how, paths(&trace.native))).collect();
            format!("{}: {read}; {}", line.unit, write.join(", "))
        })
        .collect();
    assert_eq!(told, ["name: Copy of Name; Copy to Name, Expression to Nick", "nick: Expression of BillingCity+Name; "]);
    assert_eq!(rows.lineage()[0].write[1].how, How::Expression);
}

#[test]
fn a_row_keeps_its_digest_until_it_is_edited() {
    let digests = |rows: Value| {
        let result = table(rows).to_native(&document(json!({"name": "A"})), &|_, _| None).unwrap();
        result.rows.into_iter().map(|row| row.digest).collect::<Vec<_>>()
    };
    let before = digests(json!([{"canonical": "name", "native": "Name"}, {"canonical": "nick", "native": "Nick"}]));
    let moved = digests(json!([{"canonical": "nick", "native": "Nick"}, {"canonical": "name", "native": "Name"}]));
    let edited =
        digests(json!([{"canonical": "name", "native": "Name"}, {"canonical": "nick", "native": "Nick", "fromCanonical": ".record.nick"}]));
    assert_eq!(before, [moved[1], moved[0]]);
    assert_eq!(before[0], edited[0]);
    assert_ne!(before[1], edited[1]);
}

#[test]
fn reading_needs_the_correlation_field_too() {
    let rows = compile_with(json!([{"canonical": "name", "native": "Name"}]), |source| source.key = Some("Fairlead_Id__c")).unwrap();
    assert_eq!(rows.native_paths().iter().map(ToString::to_string).collect::<Vec<_>>(), ["Fairlead_Id__c", "Name"]);
}
