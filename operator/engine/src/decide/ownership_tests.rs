use super::*;
use crate::decide::sample;
use fairlead_model::state::ParticipantState;
use fairlead_model::unit::{InitialLoad, MasterUnit, ParticipantUnit, Sibling};
use fairlead_model::{Document, ExternalId};
use fairlead_store::{Identity, Provenance, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

const CREDIT: &str = "credit";

/// Two CRMs and two ERPs; the ERPs own the credit.
fn four(tie: Tie) -> IntegrationUnit {
    let mut unit = sample::unit();
    let named = |from: usize, name: &str| Arc::new(ParticipantUnit { name: name.into(), ..(*unit.participants[from]).clone() });
    let participants = vec![named(0, "crm-eu"), named(0, "crm-us"), named(1, "erp-eu"), named(1, "erp-us")];
    unit.participants = participants;
    unit.tie = tie;
    unit
}

/// A record that was born in `home`, that these hold, and whose credit was set last by one of them at a time.
fn known(home: &str, holders: &[&str], last: Option<(&str, i64)>) -> Known {
    let identity =
        |name: &&str| Identity { participant: (*name).into(), external_id: ExternalId((*name).into()), state: ParticipantState::default() };
    let provenance = last.map(|(participant, at)| (CREDIT.into(), Provenance { participant: participant.into(), at: Timestamp(at) }));
    Known {
        record: Record {
            id: sample::ID,
            version: 1,
            document: Document::new(),
            home: home.into(),
            provenance: provenance.into_iter().collect::<BTreeMap<_, _>>(),
            deleted_at: None,
        },
        identities: holders.iter().map(identity).collect(),
        lanes: Vec::new(),
        merged_into: None,
    }
}

#[test]
fn whose_change_of_a_field_counts() {
    use Verdict::{Accept, Foreign};
    let all = &["crm-eu", "crm-us", "erp-eu", "erp-us"][..];
    let cases = [
        ("another role's, while an owner has the record", Tie::Home, "crm-eu", known("crm-eu", all, None), Foreign),
        ("another role's, until an owner has it", Tie::Home, "crm-us", known("crm-eu", &["crm-eu", "crm-us"], None), Accept),
        ("the owner where it was born", Tie::Home, "erp-us", known("erp-us", all, None), Accept),
        ("an owner where it was not", Tie::Home, "erp-eu", known("erp-us", all, None), Foreign),
        ("born elsewhere: the first owner by name", Tie::Home, "erp-eu", known("crm-us", all, None), Accept),
        ("born elsewhere: the second owner", Tie::Home, "erp-us", known("crm-us", all, None), Foreign),
        ("born elsewhere: the only owner that holds it", Tie::Home, "erp-us", known("crm-us", &["crm-us", "erp-us"], None), Accept),
        ("the later of two owners", Tie::Latest, "erp-us", known("erp-eu", all, Some(("erp-eu", 400))), Accept),
        ("the earlier of two owners", Tie::Latest, "erp-us", known("erp-us", all, Some(("erp-eu", 600))), Foreign),
        ("at one moment, the second by name", Tie::Latest, "erp-us", known("erp-us", all, Some(("erp-eu", 500))), Foreign),
        ("at one moment, the first by name", Tie::Latest, "erp-eu", known("erp-us", all, Some(("erp-us", 500))), Accept),
        ("again by the same one", Tie::Latest, "erp-us", known("erp-us", all, Some(("erp-us", 500))), Accept),
        ("another role's, however late", Tie::Latest, "crm-eu", known("crm-eu", all, Some(("erp-eu", 1))), Foreign),
    ];
    for (story, tie, source, known, expected) in cases {
        let unit = four(tie);
        let verdict = judge(&unit, unit.participant(source).unwrap(), &CREDIT.parse().unwrap(), Some(&known), Some(Timestamp(500)));
        assert_eq!(verdict, expected, "{story}");
    }
}

#[test]
fn the_participants_of_other_integrations_count_like_ones_own() {
    let mut unit = sample::unit();
    let sibling = |role: &str| Sibling {
        name: format!("europe/customers/{role}"),
        role: role.into(),
        reads: true,
        writes: true,
        load: InitialLoad::MatchOrCreate,
    };
    unit.master = Some(MasterUnit { siblings: vec![sibling("crm"), sibling("erp")] });
    let verdict = |source: &str, known: &Known| {
        judge(&unit, unit.participant(source).unwrap(), &CREDIT.parse().unwrap(), Some(known), Some(Timestamp(500)))
    };
    assert_eq!(verdict("crm", &known("crm", &["crm", "europe/customers/erp"], None)), Verdict::Foreign, "an owner elsewhere has it");
    assert_eq!(
        verdict("erp", &known("europe/customers/erp", &["erp", "europe/customers/erp"], None)),
        Verdict::Foreign,
        "it was born there"
    );
    assert_eq!(verdict("erp", &known("crm", &["crm", "erp", "europe/customers/erp"], None)), Verdict::Accept, "the first by name");
}

#[test]
fn who_may_have_the_word_on_a_field() {
    let all = &["crm-eu", "crm-us", "erp-eu", "erp-us"][..];
    let cases = [
        ("the owner where it was born", Tie::Home, "erp-us", known("erp-us", all, None), true),
        ("an owner where it was not", Tie::Home, "erp-eu", known("erp-us", all, None), false),
        ("another role", Tie::Home, "crm-eu", known("crm-eu", all, None), false),
        ("two owners of which the later wins", Tie::Latest, "erp-us", known("erp-us", all, None), true),
        ("another role than those", Tie::Latest, "crm-us", known("erp-us", all, None), false),
    ];
    for (what, tie, who, known, wanted) in cases {
        let unit = four(tie);
        let participant = unit.participants.iter().find(|participant| participant.name == who).unwrap();
        assert_eq!(may_have_the_word(&unit, participant, &CREDIT.parse().unwrap(), &known), wanted, "{what}");
    }
    let (two, known) = (sample::unit(), known("crm", &["crm", "erp"], None));
    assert!(may_have_the_word(&two, &two.participants[1], &CREDIT.parse().unwrap(), &known), "the only one of its role");
    assert!(!may_have_the_word(&two, &two.participants[0], &"note".parse().unwrap(), &known), "nobody owns it");
}
