//! The history checker, proven with histories made by hand: it passes a good one, and sees each fault in a wrong one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fairlead_simulators::history::{self, Agreement, Found, Part, Report, Told};
use serde_json::{Value, json};

/// Salesforce (left) and NetSuite (right) hold one company, `DE1`; Salesforce owns its phone, NetSuite its credit limit.
struct Case {
    left: Side,
    right: Side,
}

#[derive(Default)]
struct Side {
    entity: &'static str,
    /// What happens here begins at this second.
    from: usize,
    before: Vec<Value>,
    log: Vec<Value>,
    after: Vec<Value>,
}

impl Side {
    fn line(&mut self, origin: &str, outcome: &str, key: &str, values: Value) -> &mut Self {
        let sequence = self.log.len() + 1;
        self.log.push(json!({
            "sequence": sequence, "time": format!("2026-01-01T00:00:{:02}.000000Z", self.from + sequence), "entity": self.entity, "key": key,
            "operation": "edit", "values": values, "outcome": outcome, "answered": true, "origin": origin, "request": sequence,
        }));
        self
    }

    fn person(&mut self, key: &str, values: Value) -> &mut Self {
        self.line("person", "updated", key, values)
    }

    fn api(&mut self, key: &str, values: Value) -> &mut Self {
        self.line("api", "updated", key, values)
    }

    fn told(&self) -> Told {
        let bytes = |values: &[Value]| serde_json::to_vec(values).unwrap();
        Told {
            before: Told::read_records(&bytes(&self.before)).unwrap(),
            log: Told::read_log(&bytes(&self.log)).unwrap(),
            after: Told::read_records(&bytes(&self.after)).unwrap(),
        }
    }
}

fn account(id: &str, tax: &str, phone: &str, limit: Value) -> Value {
    json!({"Id": id, "Name": tax, "Tax_Number__c": tax, "Phone": phone, "Credit_Limit__c": limit})
}

fn customer(id: &str, tax: &str, phone: &str, limit: Value) -> Value {
    json!({"id": id, "companyName": tax, "vatRegNumber": tax, "phone": phone, "creditLimit": limit})
}

/// The company is in both systems and in step; nothing has happened.
fn quiet() -> Case {
    let (a, c) = (vec![account("A1", "DE1", "1", json!(100))], vec![customer("7", "DE1", "1", json!(100.0))]);
    Case {
        left: Side { entity: "Account", before: a.clone(), after: a, ..Side::default() },
        right: Side { entity: "customer", from: 20, before: c.clone(), after: c, ..Side::default() },
    }
}

/// Edits on both sides arrive, one is overtaken by the next, a foreign edit is put back, a new company is created.
fn good() -> Case {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"})).person("A1", json!({"Phone": "3"})).person("A1", json!({"Phone": "4"}));
    case.right.api("7", json!({"phone": "2"})).api("7", json!({"phone": "4"})).person("7", json!({"phone": "9"}));
    case.right.api("7", json!({"phone": "4"})).person("7", json!({"creditLimit": 250.5}));
    case.left.api("A1", json!({"Credit_Limit__c": "250.50"}));
    case.left.line("person", "created", "A2", json!({"Name": "New", "Phone": "5"}));
    case.right.line("api", "rejected", "", json!(null));
    case.right.line("api", "created", "8", json!({"companyName": "New", "phone": "5", "externalId": "k"}));
    case.left.after = vec![account("A1", "DE1", "4", json!(250.5)), json!({"Id": "A2", "Name": "New", "Phone": "5"})];
    case.right.after =
        vec![customer("7", "DE1", "4", json!(250.5)), json!({"id": "8", "companyName": "New", "phone": "5", "externalId": "k"})];
    case
}

fn judged(case: &Case) -> Report {
    history::check(&Agreement::quickstart(), &[&case.left.told(), &case.right.told()])
}

/// The names of the faults that were found.
fn faults(report: &Report) -> Vec<&'static str> {
    report.faults().into_iter().filter(|(_, found)| **found != Found::default()).map(|(name, _)| name).collect()
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let report = judged(&good());
    assert!(faults(&report).is_empty(), "{report}");
    report.correct().unwrap();
    assert_eq!((report.edits, report.foreign_edits, report.creations, report.writes, report.rejected), (4, 1, 1, 5, 1), "{report}");
}

#[test]
fn an_edit_that_never_arrives_is_lost() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"}));
    case.left.after = vec![account("A1", "DE1", "2", json!(100))];
    let report = judged(&case);
    assert_eq!(faults(&report), ["lost", "differences"], "{report}");
    assert!(report.lost.examples[0].contains("phone of DE1 is \"1\" in NetSuite"), "{report}");
    assert!(report.correct().is_err());
}

#[test]
fn an_edit_that_was_taken_back_on_both_sides_is_lost_although_nothing_differs() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"}));
    let report = judged(&case);
    assert_eq!(faults(&report), ["lost"], "{report}");
    assert_eq!(report.lost.count, 2, "{report}");
}

#[test]
fn an_edit_that_a_later_one_replaced_is_not_lost() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"})).person("A1", json!({"Phone": "3"}));
    case.right.api("7", json!({"phone": "3"}));
    case.left.after = vec![account("A1", "DE1", "3", json!(100))];
    case.right.after = vec![customer("7", "DE1", "3", json!(100))];
    assert!(faults(&judged(&case)).is_empty());
}

#[test]
fn a_new_record_that_never_arrives_is_lost() {
    let mut case = quiet();
    case.left.line("person", "created", "A2", json!({"Name": "New"}));
    case.left.after.push(json!({"Id": "A2", "Name": "New"}));
    let report = judged(&case);
    assert_eq!(faults(&report), ["lost", "differences"], "{report}");
}

#[test]
fn a_foreign_edit_that_stays_is_a_difference_and_no_loss() {
    let mut case = quiet();
    case.right.person("7", json!({"phone": "9"}));
    case.right.after = vec![customer("7", "DE1", "9", json!(100))];
    assert_eq!(faults(&judged(&case)), ["differences"]);
}

#[test]
fn two_records_with_one_business_key_are_duplicates() {
    let mut case = quiet();
    case.right.line("api", "created", "8", json!({"companyName": "DE1", "vatRegNumber": "DE1", "phone": "1", "creditLimit": 100}));
    case.right.after.push(customer("8", "DE1", "1", json!(100)));
    let report = judged(&case);
    assert_eq!(faults(&report), ["duplicates"], "{report}");
    assert_eq!(report.duplicates.examples, ["NetSuite holds DE1 2 times: 7, 8"]);
}

#[test]
fn two_records_with_one_correlation_key_are_duplicates() {
    let mut case = quiet();
    for (left, right, name) in [("A2", "8", "B"), ("A3", "9", "C")] {
        case.left.after.push(json!({"Id": left, "Name": name}));
        case.right.after.push(json!({"id": right, "companyName": name, "externalId": "same"}));
    }
    assert_eq!(faults(&judged(&case)), ["duplicates"]);
}

#[test]
fn a_record_that_was_created_twice_and_removed_once_is_a_duplicate_too() {
    let mut case = quiet();
    case.left.line("person", "created", "A2", json!({"Name": "New"}));
    case.left.after.push(json!({"Id": "A2", "Name": "New"}));
    case.right.line("api", "created", "8", json!({"companyName": "New"})).line("api", "created", "9", json!({"companyName": "New"}));
    case.right.after.push(json!({"id": "9", "companyName": "New"}));
    assert_eq!(faults(&judged(&case)), ["duplicates"]);
}

#[test]
fn an_older_value_after_a_newer_one_is_an_inversion() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"})).person("A1", json!({"Phone": "3"}));
    case.right.api("7", json!({"phone": "3"})).api("7", json!({"phone": "2"})).api("7", json!({"phone": "3"}));
    case.left.after = vec![account("A1", "DE1", "3", json!(100))];
    case.right.after = vec![customer("7", "DE1", "3", json!(100))];
    let report = judged(&case);
    assert_eq!(faults(&report), ["inversions"], "{report}");
    assert_eq!(report.inversions.count, 1, "{report}");
}

#[test]
fn the_first_value_after_a_newer_one_is_an_inversion() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "2"}));
    case.right.api("7", json!({"phone": "2"})).api("7", json!({"phone": "1"})).api("7", json!({"phone": "2"}));
    case.left.after = vec![account("A1", "DE1", "2", json!(100))];
    case.right.after = vec![customer("7", "DE1", "2", json!(100))];
    assert_eq!(faults(&judged(&case)), ["inversions"]);
}

#[test]
fn an_owners_newer_value_that_is_overwritten_is_an_inversion() {
    let mut case = quiet();
    case.right.person("7", json!({"creditLimit": 200})).api("7", json!({"creditLimit": 100})).person("7", json!({"creditLimit": 300}));
    case.left.api("A1", json!({"Credit_Limit__c": 300}));
    case.left.after = vec![account("A1", "DE1", "1", json!(300))];
    case.right.after = vec![customer("7", "DE1", "1", json!(300))];
    assert_eq!(faults(&judged(&case)), ["inversions"]);
}

#[test]
fn a_value_that_nobody_ever_gave_is_invented() {
    let mut case = quiet();
    case.right.api("7", json!({"phone": "x"})).api("7", json!({"phone": "x"})).api("7", json!({"phone": "1"}));
    let report = judged(&case);
    assert_eq!(faults(&report), ["invented"], "{report}");
    assert_eq!(report.invented.count, 2, "{report}");
}

#[test]
fn a_record_that_only_the_api_deleted_has_vanished() {
    let mut case = quiet();
    case.right.line("api", "deleted", "7", json!(null));
    case.right.after.clear();
    assert_eq!(faults(&judged(&case)), ["vanished", "differences"]);
}

#[test]
fn a_deletion_that_follows_a_persons_has_not_vanished() {
    let mut case = quiet();
    case.left.line("person", "deleted", "A1", json!(null));
    case.right.line("api", "deleted", "7", json!(null));
    (case.left.after, case.right.after) = (Vec::new(), Vec::new());
    assert!(faults(&judged(&case)).is_empty());
}

#[test]
fn what_was_deleted_under_the_key_that_it_had_before_a_merge_has_not_vanished() {
    let (agreement, mut case, mut third) = three(Part::default());
    case.left.before.push(account("A2", "DE2", "1", json!(100)));
    case.left.line("person", "deleted", "A2", json!({"MergedInto": "A1"}));
    case.right.before = vec![customer("7", "DE2", "1", json!(100))];
    case.right.api("7", json!({"vatRegNumber": "DE1"})).line("api", "deleted", "7", json!(null));
    case.right.after.clear();
    third.before = vec![customer("t1", "DE2", "1", json!(100))];
    third.after.clear();
    assert_eq!(faults(&judged_three(&agreement, &case, &third)), ["vanished"], "nobody has deleted it");
    third.line("person", "deleted", "t1", json!(null));
    assert!(faults(&judged_three(&agreement, &case, &third)).is_empty());
}

#[test]
fn a_write_that_changes_nothing_is_idle_but_no_wrong_state() {
    let mut case = quiet();
    case.right.line("api", "unchanged", "7", json!({"phone": "1"}));
    let report = judged(&case);
    assert_eq!(faults(&report), ["idle"], "{report}");
    report.correct().unwrap();
}

#[test]
fn capitals_of_mail_addresses_and_zeros_of_amounts_are_no_difference_but_other_capitals_are() {
    let mut case = quiet();
    case.left.after = vec![json!({"Id": "A1", "Tax_Number__c": "DE1", "Name": "n", "Email__c": "A@B.example", "Credit_Limit__c": "1.50"})];
    case.right.after = vec![json!({"id": "7", "vatRegNumber": "DE1", "companyName": "N", "email": "a@b.example", "creditLimit": 1.5})];
    let report = judged(&case);
    assert_eq!(report.differences.examples, ["name of DE1 (owned by Salesforce): \"n\" in Salesforce, \"N\" in NetSuite"]);
}

#[test]
fn a_reference_is_compared_by_the_record_it_means() {
    let mut case = quiet();
    case.left.after.push(json!({"Id": "A2", "Name": "child", "ParentId": "A1"}));
    case.right.after.push(json!({"id": "8", "companyName": "child", "parent": {"id": "7", "refName": "DE1"}}));
    assert!(faults(&judged(&case)).is_empty());
    case.right.after.push(json!({"id": "9", "companyName": "other"}));
    case.left.after.push(json!({"Id": "A3", "Name": "other", "ParentId": "A2"}));
    assert_eq!(judged(&case).differences.examples, ["parent of other (owned by Salesforce): \"child\" in Salesforce, \"\" in NetSuite"]);
}

#[test]
fn what_is_no_log_is_refused() {
    assert!(Told::read_log(br#"[{"sequence": 1}]"#).unwrap_err().to_string().contains("no simulator's log"));
}

/// Three systems hold `DE1`: the first two as in [`quiet`], and a third one that owns nothing.
fn three(part: Part) -> (Agreement, Case, Side) {
    let mut agreement = Agreement::quickstart();
    let third = history::Naming { system: "Third", part, ..agreement.naming[1] };
    agreement.naming.push(third);
    for field in &mut agreement.fields {
        field.native.push(field.native[1]);
    }
    let records = vec![customer("t1", "DE1", "1", json!(100))];
    (agreement, quiet(), Side { entity: "customer", from: 40, before: records.clone(), after: records, ..Side::default() })
}

fn judged_three(agreement: &Agreement, case: &Case, third: &Side) -> Report {
    history::check(agreement, &[&case.left.told(), &case.right.told(), &third.told()])
}

#[test]
fn an_edit_that_reaches_one_of_two_others_is_lost_in_the_third() {
    let (agreement, mut case, third) = three(Part::default());
    case.left.person("A1", json!({"Phone": "2"}));
    case.right.api("7", json!({"phone": "2"}));
    case.left.after = vec![account("A1", "DE1", "2", json!(100))];
    case.right.after = vec![customer("7", "DE1", "2", json!(100))];
    let report = judged_three(&agreement, &case, &third);
    assert_eq!(faults(&report), ["lost", "differences"], "{report}");
    assert!(report.lost.examples[0].contains("in Third"), "{report}");
}

#[test]
fn a_system_that_is_only_read_need_not_hold_what_others_do() {
    let (agreement, mut case, third) = three(Part { written: false, ..Part::default() });
    case.left.person("A1", json!({"Phone": "2"}));
    case.right.api("7", json!({"phone": "2"}));
    case.left.after = vec![account("A1", "DE1", "2", json!(100))];
    case.right.after = vec![customer("7", "DE1", "2", json!(100))];
    assert!(faults(&judged_three(&agreement, &case, &third)).is_empty());
}

#[test]
fn a_foreign_edit_may_stay_where_that_is_agreed_and_the_owners_next_value_is_not_asked_for_there() {
    let (agreement, case, mut third) = three(Part { keeps: true, ..Part::default() });
    third.person("t1", json!({"phone": "9"}));
    third.after = vec![customer("t1", "DE1", "9", json!(100))];
    assert!(faults(&judged_three(&agreement, &case, &third)).is_empty());
}

#[test]
fn a_foreign_edit_that_is_made_again_after_it_was_put_back_may_stay() {
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "4"})).person("A1", json!({"Phone": "5"}));
    case.left.after = vec![account("A1", "DE1", "5", json!(100))];
    case.right.person("7", json!({"phone": "9"})).api("7", json!({"phone": "5"})).person("7", json!({"phone": "9"}));
    case.right.after = vec![customer("7", "DE1", "9", json!(100))];
    assert!(faults(&judged(&case)).is_empty(), "{}", judged(&case));
    case.right.person("7", json!({"phone": "8"}));
    case.right.after = vec![customer("7", "DE1", "8", json!(100))];
    assert_eq!(faults(&judged(&case)), ["lost", "differences"], "another value is an edit");
    let mut case = quiet();
    case.left.person("A1", json!({"Phone": "4"})).person("A1", json!({"Phone": "5"}));
    case.left.after = vec![account("A1", "DE1", "5", json!(100))];
    case.right.person("7", json!({"phone": "9"})).api("7", json!({"phone": "4"})).person("7", json!({"phone": "9"}));
    case.right.after = vec![customer("7", "DE1", "9", json!(100))];
    assert_eq!(faults(&judged(&case)), ["lost", "differences"], "the owner's last value was never put there");
}

#[test]
fn what_was_entered_and_emptied_again_where_nothing_is_written_is_owed_once_it_has_arrived_anywhere() {
    let (mut agreement, mut case, third) = three(Part::default());
    agreement.naming[0].part.written = false;
    case.left.before = vec![account("A1", "DE1", "", json!(100))];
    case.left.after.clone_from(&case.left.before);
    case.left.person("A1", json!({"Phone": "2"})).person("A1", json!({"Phone": null}));
    assert!(faults(&judged_three(&agreement, &case, &third)).is_empty(), "nobody has seen it");
    case.right.api("7", json!({"phone": "2"}));
    case.right.after = vec![customer("7", "DE1", "2", json!(100))];
    let report = judged_three(&agreement, &case, &third);
    assert_eq!(faults(&report), ["lost", "differences"], "{report}");
}

#[test]
fn a_record_is_owed_only_where_its_condition_holds() {
    let (agreement, mut case, mut third) = three(Part { only: Some(("phone", "5")), ..Part::default() });
    (third.before, third.after) = (Vec::new(), Vec::new());
    assert!(faults(&judged_three(&agreement, &case, &third)).is_empty(), "its phone is another");
    case.left.person("A1", json!({"Phone": "5"}));
    case.right.api("7", json!({"phone": "5"}));
    case.left.after = vec![account("A1", "DE1", "5", json!(100))];
    case.right.after = vec![customer("7", "DE1", "5", json!(100))];
    let report = judged_three(&agreement, &case, &third);
    assert_eq!(report.differences.examples, ["DE1 is only in Salesforce, NetSuite, not in Third"]);
}

#[test]
fn what_was_made_for_an_owner_who_has_said_nothing_and_does_not_belong_there_any_more_is_nobodys_word() {
    let (mut agreement, mut case, mut third) = three(Part::default());
    agreement.naming[0].part.only = Some(("phone", "1"));
    case.left.before.clear();
    case.right.person("7", json!({"phone": "2"}));
    case.left.line("api", "created", "A1", account("A1", "DE1", "1", json!(100)));
    case.right.after = vec![customer("7", "DE1", "2", json!(100))];
    third.api("t1", json!({"phone": "2"}));
    third.after = vec![customer("t1", "DE1", "2", json!(100))];
    let report = judged_three(&agreement, &case, &third);
    assert!(faults(&report).is_empty(), "{report}");
    third.after = vec![customer("t1", "DE1", "3", json!(100))];
    assert_eq!(faults(&judged_three(&agreement, &case, &third)), ["differences"], "the others agree among themselves");
    third.after = vec![customer("t1", "DE1", "2", json!(100))];
    case.left.person("A1", json!({"Phone": "8"})).person("A1", json!({"Phone": "1"}));
    assert_eq!(faults(&judged_three(&agreement, &case, &third)), ["lost", "differences"], "the owner has spoken");
}

#[test]
fn what_was_cleared_before_the_owner_had_the_record_was_no_value_of_the_owners() {
    let (agreement, mut case, mut third) = three(Part::default());
    case.left.before.clear();
    third.before.clear();
    third.line("api", "created", "t1", customer("t1", "DE1", "1", json!(100)));
    case.right.person("7", json!({"phone": null}));
    third.api("t1", json!({"phone": null}));
    case.right.person("7", json!({"phone": "1"}));
    case.left.line("api", "created", "A1", account("A1", "DE1", "1", json!(100)));
    third.api("t1", json!({"phone": "1"}));
    let report = judged_three(&agreement, &case, &third);
    assert!(faults(&report).is_empty(), "{report}");
    // A record that its owner had, or made without a value, had none.
    case.left.log.clear();
    case.left.line("person", "created", "A1", json!({"Id": "A1", "Name": "DE1", "Tax_Number__c": "DE1", "Credit_Limit__c": 100}));
    case.left.person("A1", json!({"Phone": "1"}));
    assert_eq!(faults(&judged_three(&agreement, &case, &third)), ["inversions"]);
}

#[test]
fn what_others_held_before_their_owner_did_is_not_ahead_of_what_he_held_in_between() {
    let (agreement, mut case, mut third) = three(Part::default());
    case.left.before = vec![account("A1", "DE1", "", json!(100))];
    case.right.before = vec![customer("7", "DE1", "5", json!(100))];
    third.before.clear();
    third.from = 0;
    third.line("api", "created", "t1", customer("t1", "DE1", "5", json!(100)));
    case.left.from = 10;
    case.left.person("A1", json!({"Phone": "2"})).person("A1", json!({"Phone": "5"}));
    third.from = 40;
    third.api("t1", json!({"phone": "2"})).api("t1", json!({"phone": "5"}));
    case.left.after = vec![account("A1", "DE1", "5", json!(100))];
    case.right.after = vec![customer("7", "DE1", "5", json!(100))];
    third.after = vec![customer("t1", "DE1", "5", json!(100))];
    let report = judged_three(&agreement, &case, &third);
    assert!(faults(&report).is_empty(), "{report}");
    third.api("t1", json!({"phone": "2"})).api("t1", json!({"phone": "5"}));
    assert_eq!(faults(&judged_three(&agreement, &case, &third)), ["inversions"]);
}

#[test]
fn a_record_that_was_deleted_where_it_was_made_and_lives_on_where_deletions_are_carried_out_is_undead() {
    let mut case = quiet();
    let mut agreement = Agreement::quickstart();
    case.left.line("person", "created", "A2", json!({"Name": "New"})).line("person", "deleted", "A2", json!(null));
    case.right.line("api", "created", "8", json!({"companyName": "New"}));
    case.right.after.push(json!({"id": "8", "companyName": "New"}));
    let judged = |agreement: &Agreement, case: &Case| history::check(agreement, &[&case.left.told(), &case.right.told()]);
    assert!(faults(&judged(&agreement, &case)).is_empty(), "nobody carries it out");
    agreement.naming[0].part.tells_deletions = true;
    agreement.naming[1].part.deletes = true;
    assert_eq!(faults(&judged(&agreement, &case)), ["undead"]);
    case.right.line("api", "deleted", "8", json!(null));
    case.right.after.pop();
    assert!(faults(&judged(&agreement, &case)).is_empty());
}

#[test]
fn a_copy_in_which_people_have_entered_all_anew_may_be_somebody_elses() {
    let mut case = quiet();
    let mut agreement = Agreement::quickstart();
    agreement.naming[0].part.tells_deletions = true;
    agreement.naming[1].part.deletes = true;
    case.left.line("person", "created", "A2", json!({"Name": "New", "Phone": "1", "Website": "w"}));
    case.left.line("person", "deleted", "A2", json!(null));
    case.right.line("api", "created", "8", json!({"companyName": "New", "phone": "1", "url": "w"}));
    case.right.person("8", json!({"phone": "2"}));
    case.right.after.push(json!({"id": "8", "companyName": "New", "phone": "2", "url": "w"}));
    let judged = |case: &Case| faults(&history::check(&agreement, &[&case.left.told(), &case.right.told()]));
    assert_eq!(judged(&case), ["undead"], "it shows a part of what was sent");
    case.right.person("8", json!({"url": "x"}));
    assert!(judged(&case).is_empty());
    // Who has written to it knows it: before it was disguised, or before it was deleted.
    let edited = case.right.log.pop().unwrap();
    case.right.api("8", json!({"email": "e@x"})).person("8", json!({"url": "x"}));
    assert_eq!(judged(&case), ["undead"]);
    case.right.log.truncate(2);
    case.right.log.push(edited);
    case.right.api("8", json!({"email": "e@x"}));
    assert!(judged(&case).is_empty(), "it came back as somebody else's");
    case.left.log[1]["time"] = json!("2026-01-01T00:59:59.000000Z");
    assert_eq!(judged(&case), ["undead"]);
}

#[test]
fn what_refers_to_a_deleted_record_is_not_owed() {
    let mut case = quiet();
    case.left.after.push(json!({"Id": "A2", "Name": "child", "ParentId": "A1"}));
    case.left.line("person", "deleted", "A1", json!(null));
    case.left.after.remove(0);
    // The reference still names the key of what was there.
    assert!(faults(&judged(&case)).is_empty(), "{}", judged(&case));
}
