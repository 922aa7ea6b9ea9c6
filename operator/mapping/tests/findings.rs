//! What a user reads when a table is wrong: one mistake each, and the words for it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{compile, compile_with};
use fairlead_mapping::{Finding, Severity};
use serde_json::{Value, json};

fn told(result: Result<fairlead_mapping::Table, Vec<Finding>>) -> Vec<String> {
    let findings = match result {
        Ok(table) => table.warnings().to_vec(),
        Err(findings) => findings,
    };
    let mark = |finding: &Finding| if finding.severity == Severity::Warning { "warning: " } else { "" };
    findings.iter().map(|finding| format!("{}{finding}", mark(finding))).collect()
}

/// Each case: the rows, what a user reads.
fn check(cases: &[(Value, &[&str])]) {
    let mut wrong = vec![];
    for (rows, expected) in cases {
        let told = told(compile(rows.clone()));
        if told != *expected {
            wrong.push(format!("{rows}\n  told     {told:#?}\n  expected {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn columns_that_make_no_sense_together() {
    check(&[
        (json!([{}]), &["row 0: a row without paths: names neither a canonical nor a native field; name one or both"]),
        (
            json!([{"native": "Name"}]),
            &["row 0: Name: says nothing of where its value comes from; name the other field, or give a value or an expression"],
        ),
        (
            json!([{"canonical": "name", "native": "Name", "value": "x"}]),
            &["row 0: name: a constant goes to a native field and stands alone; leave only native and value in the row"],
        ),
        (
            json!([{"canonical": "status", "native": "Type", "values": [{"canonical": "customer", "native": "Customer"}], "toCanonical": ".record.Type"}]),
            &["row 0: status: a value table and an expression or reference exclude each other; keep one of them"],
        ),
        (
            json!([{"native": "Name", "toCanonical": ".record.Name"}]),
            &["row 0: Name: there is no canonical field to give a value to; name canonical, or take toCanonical away"],
        ),
        (
            json!([{"canonical": "name", "fromCanonical": ".record.name"}]),
            &["row 0: name: there is no native field to give a value to; name native, or take fromCanonical away"],
        ),
        (
            json!([{"canonical": "name", "native": "Name", "key": "Id"}]),
            &["row 0: name: only a row that maps a list has a key; put it on the row of the list itself (contacts[])"],
        ),
    ]);
}

#[test]
fn paths_that_are_not_there() {
    check(&[
        (json!([{"canonical": "nmae", "native": "Name"}]), &["row 0: nmae: there is no canonical field nmae; did you mean name?"]),
        (
            json!([{"canonical": "address.contry", "native": "BillingCountryCode"}]),
            &["row 0: address.contry: there is no canonical field address.contry; did you mean address.country?"],
        ),
        (json!([{"canonical": "name", "native": "name"}]), &["row 0: name: there is no native field name; did you mean Name?"]),
        (
            json!([{"canonical": "name", "native": "Turnover__c"}]),
            &[
                "row 0: name: there is no native field Turnover__c; declare it in a system definition that extends the built-in one, or name another",
            ],
        ),
        (
            json!([{"canonical": "contacts", "native": "Contacts.records[]"}]),
            &["row 0: contacts: there is no canonical field contacts; it is a list: write contacts[]"],
        ),
    ]);
}

#[test]
fn types_that_do_not_agree() {
    check(&[
        (
            json!([{"canonical": "amount", "native": "Score"}]),
            &[
                "row 0: amount: float or null, contract wants decimal; if the vendor means exact digits, declare the field as Decimal in the system definition; if not, say how to round: toCanonical: 'decimal_round!(.record.Score, 2)'; and fromCanonical for the way back",
            ],
        ),
        (
            json!([{"canonical": "annualRevenue", "native": "Name"}]),
            &[
                "row 0: annualRevenue: string, contract wants decimal; toCanonical: 'to_decimal!(.record.Name)' reads digits from a text; and fromCanonical for the way back",
            ],
        ),
        (
            json!([{"canonical": "since", "native": "SeenAt"}]),
            &[
                "row 0: since: date-time, contract wants date; the day depends on the time zone: toCanonical: 'format_timestamp!(parse_timestamp!(.record.SeenAt, \"%+\"), \"%F\", timezone: \"Europe/Berlin\")'; and fromCanonical for the way back",
            ],
        ),
        (
            json!([{"canonical": "active", "native": "Active__c"}]),
            &[
                "row 0: active: string, contract wants boolean; say which value means which: values: [{canonical: \"true\", native: ...}, {canonical: \"false\", native: ...}]",
            ],
        ),
        (
            json!([{"canonical": "employees", "native": "AnnualRevenue"}]),
            &[
                "row 0: employees: decimal, contract wants integer; say how to round: toCanonical: 'parse_int!(decimal_round!(.record.AnnualRevenue, 0), 10)'; and fromCanonical for the way back",
            ],
        ),
        (
            json!([{"canonical": "contacts[]", "native": "Contacts.records[]"}, {"canonical": "contacts[].quota", "native": "Contacts.records[].Email"}]),
            &[
                "row 1: contacts[].quota: string, contract wants decimal; toCanonical: 'to_decimal!(.item.Email)' reads digits from a text; and fromCanonical for the way back",
            ],
        ),
    ]);
}

#[test]
fn warnings_do_not_forbid_the_table() {
    check(&[
        (
            json!([{"canonical": "amount", "native": "AnnualRevenue"}]),
            &[
                "warning: row 0: amount: decimal or null, contract wants decimal; a record without it becomes a dead letter; toCanonical can give another value",
            ],
        ),
        (
            json!([{"canonical": "nick", "native": "Name"}]),
            &[
                "warning: row 0: nick: string or null, native field wants string; the system may refuse a record without it; fromCanonical can give another value",
            ],
        ),
        (
            json!([{"canonical": "name", "native": "Name"}, {"canonical": "seenAt", "native": "LastModifiedDate"}]),
            &["warning: row 1: seenAt: LastModifiedDate cannot be written; the row is read only; say so with toCanonical"],
        ),
        (
            json!([{"canonical": "status", "native": "Type"}]),
            &[
                "warning: row 0: status: \"Customer\", \"Prospect\" cannot be copied, the contract has other values; say which value means which: values: [{canonical: ..., native: ...}]",
                "warning: row 0: status: \"customer\", \"prospect\" cannot be copied, the native field has other values; say which value means which: values: [{canonical: ..., native: ...}]",
            ],
        ),
        (
            json!([{"canonical": "status", "native": "Type", "values": [{"canonical": "customer", "native": "Customer"}]}]),
            &[
                "warning: row 0: status: the table lacks the native values \"Prospect\"; a record with one of them becomes a dead letter",
                "warning: row 0: status: the table lacks the canonical values \"prospect\"; a record with one of them becomes a dead letter",
            ],
        ),
        (
            json!([{"canonical": "parentId", "native": "ParentId"}]),
            &[
                "warning: row 0: parentId: the system's own id of another record is copied as text; if it is a customer that is kept in step, add reference: {entity: customer}",
            ],
        ),
    ]);
}

#[test]
fn values_constants_and_references() {
    check(&[
        (
            json!([{"canonical": "status", "native": "Type", "values": [{"canonical": "custommer", "native": "Customer"}, {"canonical": "prospect", "native": "Prospect"}]}]),
            &["row 0: status: \"custommer\" is none of the values of the contract; did you mean customer?"],
        ),
        (
            json!([{"canonical": "active", "native": "Active__c", "values": [{"canonical": "yes", "native": "T"}, {"canonical": "false", "native": "F"}]}]),
            &["row 0: active: \"yes\" is neither \"true\" nor \"false\", the contract wants boolean"],
        ),
        (
            json!([{"canonical": "nick", "native": "Type", "values": [{"canonical": "a", "native": "Customer"}, {"canonical": "a", "native": "Prospect"}]}]),
            &[
                "row 0: nick: the canonical value \"a\" stands in the table twice; give it one native value; reading several as one takes a row of its own with toCanonical",
            ],
        ),
        (
            json!([{"canonical": "nick", "native": "Type", "values": [{"canonical": "a", "native": "Customer"}, {"canonical": "b", "native": "Customer"}, {"canonical": "c", "native": "Prospect"}]}]),
            &["row 0: nick: the native value \"Customer\" stands in the table twice; give it one canonical value"],
        ),
        (
            json!([{"canonical": "name", "native": "Name"}, {"native": "RecordTypeId", "value": "0125g000000AbcDEFGHIJ"}]),
            &["row 1: RecordTypeId: the constant has 21 characters, the native field takes 18"],
        ),
        (
            json!([{"canonical": "name", "native": "Name"}, {"native": "AnnualRevenue", "value": 1.5}]),
            &["row 1: AnnualRevenue: the constant is a binary floating-point number; digits may be lost already"],
        ),
        (
            json!([{"canonical": "name", "native": "Name"}, {"native": "Id", "value": "x"}]),
            &["row 1: Id: Id cannot be written; name a field that the system lets you write"],
        ),
        (
            json!([{"canonical": "parentId", "native": "ParentId", "reference": {"entity": "order"}}]),
            &["row 0: parentId: refers to \"order\"; only the table's own entity can be referred to so far; reference: {entity: customer}"],
        ),
        (
            json!([{"canonical": "annualRevenue", "native": "ParentId", "reference": {"entity": "customer"}}]),
            &["row 0: annualRevenue: decimal, a reference wants string; a canonical id is text: type: string in the contract"],
        ),
    ]);
}

#[test]
fn rows_that_get_in_each_others_way() {
    check(&[
        (
            json!([{"canonical": "nick", "native": "Nick"}, {"canonical": "nick", "native": "Nick"}]),
            &["row 1: nick: stands in row 0 already, with the same canonical and native field; keep one of them"],
        ),
        (
            json!([{"canonical": "nick", "native": "Nick"}, {"canonical": "nick", "native": "BillingCity"}]),
            &["row 1: nick: row 0 reads it already; keep one of them, or let one only write (fromCanonical alone)"],
        ),
        (
            json!([{"canonical": "nick", "native": "Nick"}, {"canonical": "address.city", "native": "Nick"}]),
            &["row 1: address.city: row 0 writes Nick already; keep one of them, or let one only read (toCanonical alone)"],
        ),
        (
            json!([{"canonical": "address", "native": "Extra"}, {"canonical": "address.city", "native": "BillingCity"}]),
            &[
                "row 1: address.city: address.city overlaps with what row 0 reads; keep one of them, or let one only write (fromCanonical alone)",
            ],
        ),
    ]);
}

#[test]
fn lists() {
    check(&[
        (
            json!([{"canonical": "contacts[].email", "native": "Contacts.records[].Email"}]),
            &[
                "row 0: contacts[].email: lies in the list contacts[], which has no row; add the row of the list itself: {canonical: contacts[], native: Contacts.records[], key: Id}",
            ],
        ),
        (
            json!([{"canonical": "contacts[]", "native": "Contacts.records[]"}]),
            &[
                "row 0: contacts[]: no row says how the elements of contacts[] are mapped; add rows such as {canonical: contacts[].x, native: Contacts.records[].X}",
            ],
        ),
        (
            json!([{"canonical": "contacts[]", "native": "Contacts.records[]"}, {"canonical": "contacts[].email", "native": "Nick"}]),
            &[
                "row 1: contacts[].email: Nick does not lie in Contacts.records[], from which row 0 maps the list; name a field of that list",
            ],
        ),
        (
            json!([{"canonical": "nick", "native": "Contacts.records[].Email"}]),
            &[
                "row 0: nick: Contacts.records[].Email is in a list, the canonical field is not; choose one element: toCanonical: '.record.Contacts.records[0].Email'",
            ],
        ),
        (
            json!([{"canonical": "contacts[]", "native": "Contacts.records[]", "key": "ID"}, {"canonical": "contacts[].email", "native": "Contacts.records[].Email"}]),
            &["row 0: contacts[]: there is no native field Contacts.records[].ID; did you mean Contacts.records[].Id?"],
        ),
        (
            json!([{"canonical": "contacts[]", "native": "Nick"}, {"canonical": "contacts[].email", "native": "Contacts.records[].Email"}]),
            &["row 0: contacts[]: string, contract wants list; name a native list (marked []), or build the list with toCanonical"],
        ),
        (
            json!([{"canonical": "name", "native": "Name"}, {"canonical": "notes[]", "native": "Notes.records[]"}, {"canonical": "notes[].title", "native": "Notes.records[].Title"}]),
            &["warning: row 1: notes[]: Notes.records[] cannot be written; the row is read only; say so with toCanonical"],
        ),
    ]);
}

#[test]
fn expressions_that_do_not_compile_or_give_the_wrong_type() {
    let row =
        |expression: &str| json!([{"canonical": "name", "native": "Name"}, {"canonical": "annualRevenue", "toCanonical": expression}]);
    let one = |expression: &str, message: &str| {
        let told = told(compile(row(expression)));
        assert_eq!(told, [format!("row 1: annualRevenue: {message}")], "{expression}");
    };
    one("", "toCanonical: is empty; leave it out, or write an expression over .record");
    one(".record.AnualRevenue", "toCanonical: there is no native field AnualRevenue; did you mean AnnualRevenue?");
    one(".AnnualRevenue", "toCanonical: there is no .AnnualRevenue; begin with .record: .record.AnnualRevenue");
    one(".", "toCanonical: '.' alone is not available; begin with .record");
    one(".item.Email", "toCanonical: .item is only there in rows of a list; use .record");
    one("%secret", "toCanonical: there is no metadata (%); use .record");
    one("1.5", "toCanonical: 1.5 is a binary floating-point number; write it as text: \"1.5\"");
    one(
        ".record.Employees / 2",
        "toCanonical: '/' gives a binary floating-point number; decimal_div!(a, b, scale) rounds to so many digits",
    );
    one(".record.AnnualRevenue + .record.AnnualRevenue", "toCanonical: '+' joins decimals as text; decimal_add!(a, b)");
    one(
        "string!(.record.AnnualRevenue) * 2",
        "toCanonical: '*' is not available; decimal_mul!(a, b) is exact; parse_int!(..., 10) makes a whole number of it",
    );
    one("parse_int!(\"010\")", "toCanonical: parse_int without a base reads \"010\" as 8; parse_int!(text, 10)");
    one("a = string!(.record.AnnualRevenue); a + \"1\"", "toCanonical: '+' joins decimals as text; decimal_add!(a, b)");
    one(
        "if .record.AnnualRevenue == \"1.50\" { \"1\" } else { \"2\" }",
        "toCanonical: '==' compares decimals as text; decimal_compare!(a, b) == 0",
    );
    one(
        "to_float!(.record.AnnualRevenue)",
        "toCanonical: to_float is not available in mappings; decimals are text: to_decimal!, decimal_round!",
    );
    one("now()", "toCanonical: now is not available in mappings; a mapping gives the same result whenever it runs");
    one(".record.AnnualRevenue = \"1\"", "toCanonical: assigns to a record; an expression makes one value; use a local name without a dot");
    one(
        ".record.Contacts.records.Quota",
        "toCanonical: Contacts.records[] is a list; name one element ([0].Quota), or go through them: map_values, filter, for_each",
    );
    one("true", "boolean, contract wants decimal; to_decimal!(...) insists on a decimal");
    one("abort", "never gives a value; an expression ends with the value it makes");
    one(&"a".repeat(1025), "toCanonical: has 1025 characters, the most is 1024");
    one(
        "format_timestamp!(parse_timestamp!(.record.SeenAt, \"%+\"), \"%F\", timezone: \"local\")",
        "toCanonical: the time zone must be a name in quotes, and not \"local\"; timezone: \"Europe/Berlin\"",
    );
}

#[test]
fn expressions_cannot_grow_beyond_bounds() {
    let of = |expression: &str| {
        told(compile(json!([{"canonical": "name", "native": "Name"}, {"canonical": "nick", "toCanonical": expression}])))
    };
    let doubling: String = (0..8).map(|n| format!("a{} = a{n} + a{n}\n", n + 1)).collect();
    let message = "row 1: nick: toCanonical: makes too much out of one record; a value may hold its texts 64 times";
    assert_eq!(of(&format!("a0 = string!(.record.Nick)\n{doubling}a8")), [message]);
    assert_eq!(
        of("a = string!(.record.Nick); b = \"{{a}}{{a}}{{a}}{{a}}{{a}}\"; c = \"{{b}}{{b}}{{b}}{{b}}{{b}}\"; \"{{c}}{{c}}{{c}}\""),
        [message]
    );
    for with in ["a", "\"{{a}}\"", "with: a"] {
        let told = of(&format!("a = string!(.record.Nick); replace(a, \"x\", {with})"));
        assert_eq!(told, ["row 1: nick: toCanonical: replace puts in a fixed text only; write it in quotes"]);
    }
    assert_eq!(
        of("a = \"x\"; b = map_values([1, 2]) -> |_| { a = a + a; 1 }; a"),
        [
            "row 1: nick: toCanonical: the closure sets a, which stands outside it; a closure gives a value: map_values, filter; decimal_sum! adds up"
        ]
    );
    assert_eq!(of("a = string!(.record.Nick); b = a + \" \" + a; upcase(b) + \"!\""), Vec::<String>::new());
}

#[test]
fn decimals_are_known_in_closures_and_templates() {
    let of = |expression: &str| {
        told(compile(json!([{"canonical": "name", "native": "Name"}, {"canonical": "tags[]", "toCanonical": expression}])))
    };
    assert_eq!(
        of("map_values(array!(.record.Contacts.records)) -> |c| { string!(c.Quota) + \"1\" }"),
        ["row 1: tags[]: toCanonical: '+' joins decimals as text; decimal_add!(a, b)"]
    );
    assert_eq!(of("a = string!(.record.AnnualRevenue); [\"{{a}} EUR\"]"), Vec::<String>::new());
}

#[test]
fn what_the_compiler_itself_says_comes_as_one_line() {
    let row = |expression: &str| {
        told(compile(json!([{"canonical": "nick", "native": "Nick", "toCanonical": expression}, {"canonical": "name", "native": "Name"}])))
    };
    insta::assert_yaml_snapshot!(
        [
            "upcase(.record.Nick",
            "upcase(.record.Nick)",
            "upcse(string!(.record.Nick))",
            "string(.record.Nick)",
            "upcase(1)",
            "nick",
            "'single'",
        ]
        .map(row)
    );
}

#[test]
fn null_must_be_answered_where_the_contract_wants_a_value() {
    let told = told(compile(
        json!([{"canonical": "amount", "native": "AnnualRevenue", "toCanonical": ".record.AnnualRevenue", "fromCanonical": ".record.amount"}]),
    ));
    assert_eq!(
        told,
        [
            "row 0: amount: string or null, contract wants decimal; say what stands for a missing value: if .record.x == null { ... } else { ... }, or string!(...) to refuse the record"
        ]
    );
}

#[test]
fn key_and_condition() {
    let with = |key: Option<&'static str>, when: Option<&'static str>| {
        told(compile_with(json!([{"canonical": "name", "native": "Name"}]), |source| {
            source.key = key;
            source.when = when;
        }))
    };
    assert_eq!(with(Some("Fairlead_Id__c"), Some(".record.status == \"customer\"")), Vec::<String>::new());
    assert_eq!(
        with(Some("Missing__c"), None),
        [
            "key: there is no native field Missing__c; create Missing__c in the system as a unique text field of 36 characters (an external id where the system has such), let the account read and write it, and declare it in a definition that extends the built-in one"
        ]
    );
    assert_eq!(with(Some("Fairlead_Id_c"), None), ["key: there is no native field Fairlead_Id_c; did you mean Fairlead_Id__c?"]);
    assert_eq!(with(Some("Short_Id__c"), None), ["key: Short_Id__c takes 18 characters, a canonical id has 36; make the field longer"]);
    assert_eq!(with(Some("Id"), None), ["key: Id cannot be written; name a field that the system lets you write"]);
    let clash = told(compile_with(json!([{"canonical": "nick", "native": "Nick"}]), |source| source.key = Some("Nick")));
    assert_eq!(clash, ["row 0: nick: Nick is the key, which holds the canonical id and nothing else; take the row away"]);
    assert_eq!(with(None, Some(".record.status")), ["when: string or null, a condition is boolean; compare with ==, or bool!(...)"]);
    assert_eq!(with(None, Some(".record.staus == \"customer\"")), ["when: there is no canonical field staus; did you mean status?"]);
}

#[test]
fn a_participant_that_reads_and_writes_does_both() {
    let told = told(compile(json!([{"native": "RecordTypeId", "value": "0125g000000Abc"}])));
    assert_eq!(told, ["the participant reads, and no row of its table reads a field; add a row such as {canonical: name, native: Name}"]);
}
