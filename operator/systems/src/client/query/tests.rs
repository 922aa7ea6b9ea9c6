//! Query texts are pinned word for word: they are the protocol.

use super::*;
use crate::Catalog;

fn paths(names: &[&str]) -> Vec<FieldPath> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn account(fields: &[&str], which: &Which<'_>) -> String {
    let entity = Catalog::builtin().get("salesforce").unwrap().entity("Account").unwrap();
    let soql = entity.format.read.as_ref().unwrap().soql.as_ref().unwrap();
    soql_text(entity, soql, &paths(fields), which, 2000).unwrap_or_else(|error| error.message)
}

fn customer(fields: &[&str], which: &Which<'_>) -> String {
    let entity = Catalog::builtin().get("netsuite").unwrap().entity("customer").unwrap();
    let suiteql = entity.format.read.as_ref().unwrap().suiteql.as_ref().unwrap();
    suiteql_text(entity, suiteql, &columns(entity, suiteql, &paths(fields)), which).unwrap_or_else(|error| error.message)
}

#[test]
fn soql_pages_by_stamp_and_id() {
    assert_eq!(
        account(&["Name", "Id", "ParentId"], &Which::All),
        "SELECT Id, SystemModstamp, IsDeleted, MasterRecordId, Name, ParentId FROM Account ORDER BY SystemModstamp, Id LIMIT 2000"
    );
    assert_eq!(
        account(&["Name"], &Which::From("2026-05-06T00:00:00.000Z")),
        "SELECT Id, SystemModstamp, IsDeleted, MasterRecordId, Name FROM Account WHERE SystemModstamp >= 2026-05-06T00:00:00.000Z ORDER BY SystemModstamp, Id LIMIT 2000"
    );
    let place = ("2026-05-06T00:00:00.000Z".to_owned(), "001XX0000000001AAA".to_owned());
    assert_eq!(
        account(&["Contacts.records[]", "Contacts.records[].Email"], &Which::After(&place)),
        "SELECT Id, SystemModstamp, IsDeleted, MasterRecordId, (SELECT Id, IsDeleted, Email FROM Contacts) FROM Account WHERE ((SystemModstamp = 2026-05-06T00:00:00.000Z \
         AND Id > '001XX0000000001AAA') OR SystemModstamp > 2026-05-06T00:00:00.000Z) ORDER BY SystemModstamp, Id LIMIT 2000"
    );
}

#[test]
fn a_value_never_becomes_syntax() {
    let criteria = [("Name".parse().unwrap(), json!("O'Neil\\' OR Name != '\n")), ("AnnualRevenue".parse().unwrap(), json!("12.5"))];
    assert!(
        account(&[], &Which::Equal(&criteria)).contains(r"WHERE Name = 'O\'Neil\\\' OR Name != \'\n' AND AnnualRevenue = 12.5 ORDER BY")
    );
    let criteria = [("companyName".parse().unwrap(), json!("O'Neil' OR 1=1 --"))];
    assert!(customer(&[], &Which::Equal(&criteria)).contains("WHERE customer.companyname = 'O''Neil'' OR 1=1 --' ORDER BY"));
    for value in [json!("1 OR 1=1"), json!({"a": 1}), json!(true)] {
        let criteria = [("AnnualRevenue".parse().unwrap(), value)];
        assert!(account(&[], &Which::Equal(&criteria)).contains("not of its type"));
    }
    let place = ("2026-05-06T00:00:00".to_owned(), "1 OR 1=1".to_owned());
    assert!(customer(&[], &Which::After(&place)).contains("cursor is not one"));
    let place = ("x') OR 1=1 --".to_owned(), "1".to_owned());
    assert!(customer(&[], &Which::After(&place)).contains("cursor is not one"));
    assert!(customer(&[], &Which::Ids(&["1", "2) OR (1=1"])).contains("cursor is not one"));
}

#[test]
fn suiteql_pages_by_stamp_and_id_and_joins_only_what_is_named() {
    let place = ("2026-05-06T07:08:09".to_owned(), "107".to_owned());
    assert_eq!(
        customer(&["companyName", "subsidiary.id", "dateCreated"], &Which::After(&place)),
        "SELECT customer.id AS cursor_id, TO_CHAR(customer.lastmodifieddate, 'YYYY-MM-DD\"T\"HH24:MI:SS') AS cursor_stamp, customer.companyname AS f0, \
         customer.subsidiary AS f1, TO_CHAR(customer.datecreated, 'YYYY-MM-DD\"T\"HH24:MI:SS') AS f2 FROM customer WHERE \
         (customer.lastmodifieddate > TO_DATE('2026-05-06T07:08:09', 'YYYY-MM-DD\"T\"HH24:MI:SS') OR \
         (customer.lastmodifieddate = TO_DATE('2026-05-06T07:08:09', 'YYYY-MM-DD\"T\"HH24:MI:SS') AND customer.id > 107)) \
         ORDER BY customer.lastmodifieddate, customer.id"
    );
    assert!(customer(&["defaultBillingAddress.city"], &Which::All).contains(
        "billing.city AS f0 FROM customer LEFT JOIN entityaddress billing ON billing.nkey = customer.defaultbillingaddress ORDER BY"
    ));
    let criteria = [
        ("isInactive".parse().unwrap(), json!(false)),
        ("parent.id".parse().unwrap(), json!("12")),
        ("email".parse().unwrap(), json!(null)),
    ];
    assert!(
        customer(&[], &Which::Equal(&criteria))
            .contains("WHERE customer.isinactive = 'F' AND customer.parent = 12 AND customer.email IS NULL ORDER BY")
    );
}
