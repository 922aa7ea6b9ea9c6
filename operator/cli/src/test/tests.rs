//! The quickstart's own tests pass, and what is made wrong on purpose is told with its row.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::{judge_all, report};
use crate::files;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart")
}

/// The report on this test of the quickstart.
fn told(test: &str) -> (String, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yaml");
    std::fs::write(&file, test).unwrap();
    let mut files = files::find(&[quickstart()]).unwrap();
    files.retain(|file| !file.parent().unwrap().ends_with("tests"));
    files.push(file);
    let loaded = files::load(&files, false);
    assert_eq!(loaded.problems, []);
    let outcomes = judge_all(&loaded);
    let text = report::human(&outcomes).replace(&folder.path().display().to_string(), "");
    (text, report::json(&outcomes), report::junit(&outcomes).unwrap())
}

fn of_customers(cases: &str) -> String {
    let head = "apiVersion: cli.fairlead.dev/v1alpha1\nkind: Test\nmetadata: {name: t, namespace: north-america}\nspec:\n  integration: customers\n  cases:\n";
    told(&format!("{head}{cases}")).0
}

#[test]
fn the_quickstart_passes_its_own_tests() {
    let loaded = files::load(&files::find(&[quickstart()]).unwrap(), false);
    let outcomes = judge_all(&loaded);
    let (passed, failed) = report::counts(&outcomes);
    assert_eq!(failed, 0, "{}", report::human(&outcomes));
    assert!(passed >= 11, "{passed}");
}

#[test]
fn each_difference_names_the_values_and_the_row_that_made_them() {
    let text = of_customers(
        r#"
  - name: wrong on purpose
    given: {participant: crm, record: {Name: Müller, BillingCity: Köln, Credit_Limit__c: "1.50", Type: Customer}}
    expect:
      canonical: {name: Muller, address: {city: Köln, country: DE}, creditLimit: "1.50", nmae: A}
      targets:
      - {name: erp, payload: {companyName: Müller, creditLimit: "2", isPerson: true, subsidiary: {id: "2"}}}
"#,
    );
    insta::assert_snapshot!(text);
}

#[test]
fn another_outcome_than_the_expected_one_is_told() {
    let text = of_customers(
        r#"
  - name: passes instead
    given: {participant: crm, record: {Name: A}}
    expect: {deadLetter: {reason: MappingFailed}}
  - name: fails instead
    given: {participant: crm, record: {Name: A, Type: Nobody}}
    expect: {canonical: {name: A}}
  - name: fails otherwise
    given: {participant: crm, record: {Name: A, Type: Nobody}}
    expect: {deadLetter: {stage: Outbound, reason: ValidationFailed, field: name, message: too long}}
  - name: waits although nobody asked
    given: {participant: crm, record: {Name: A, ParentId: "7"}}
    expect: {canonical: {name: A}}
  - name: is written and not skipped
    given: {canonical: {name: A}}
    expect: {targets: [{name: erp, skipped: true}]}
  - name: waits in the target
    given: {canonical: {name: A, parentId: 0198a2f0-0000-7000-8000-000000000009}}
    expect: {targets: [{name: erp, payload: {companyName: A}}]}
"#,
    );
    insta::assert_snapshot!(text);
}

#[test]
fn unknown_names_are_told_with_the_ones_that_were_meant() {
    let text = of_customers(
        r#"
  - {name: participant, given: {participant: cmr, record: {}}, expect: {canonical: {}}}
  - {name: target, given: {canonical: {name: A}}, expect: {targets: [{name: epr, skipped: true}]}}
  - {name: itself, given: {participant: crm, record: {Name: A}}, expect: {targets: [{name: crm, payload: {}}]}}
  - {name: field, given: {participant: crm, record: {Nmae: A, attributes: {type: Account}}}, expect: {deadLetter: {field: name}}}
"#,
    );
    insta::assert_snapshot!(text);
    let elsewhere = "apiVersion: cli.fairlead.dev/v1alpha1\nkind: Test\nmetadata: {name: t, namespace: north-america}\nspec: {integration: customer, cases: [{name: a, given: {canonical: {}}, expect: {targets: [{name: erp, skipped: true}]}}]}\n";
    let (text, ..) = told(elsewhere);
    assert!(
        text.contains("FAIL  the test itself\n          there is no Integration north-america/customer in these files (did you mean `north-america/customers`?)"),
        "{text}"
    );
}

#[test]
fn a_contract_tells_what_it_refuses_and_what_it_takes() {
    let (text, json, junit) = told(
        r#"
apiVersion: cli.fairlead.dev/v1alpha1
kind: Test
metadata: {name: c, namespace: north-america}
spec:
  contract: customer-v1
  cases:
  - {name: taken, given: {canonical: {name: A, employees: -1}}, expect: {valid: true}}
  - {name: refused, given: {canonical: {name: A}}, expect: {violations: [{field: creditLimit}]}}
  - {name: otherwise, given: {canonical: {name: A, creditLimit: x}}, expect: {violations: [{field: creditLimit, message: too long}]}}
  - {name: right, given: {canonical: {creditLimit: x, name: A}}, expect: {violations: [{field: creditLimit, message: is not a decimal}]}}
"#,
    );
    insta::assert_snapshot!(text);
    assert_eq!((&json["passed"], &json["failed"]), (&serde_json::json!(1), &serde_json::json!(3)));
    assert_eq!(json["cases"][0]["problems"][0]["at"], "employees");
    assert!(junit.contains(r#"tests="4""#) && junit.contains(r#"failures="3""#) && junit.contains(r#"name="taken""#), "{junit}");
}
