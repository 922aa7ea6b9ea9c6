//! Checked-in files are what the types and tables generate, and nothing else lies beside them.

use std::collections::BTreeMap;
use std::fs;

use fairlead_api::{Reason, crds_yaml, reference};

use crate::repository;

fn is_current(folder: &str, wanted: impl IntoIterator<Item = (String, String)>) {
    let found: BTreeMap<String, String> = fs::read_dir(repository(folder))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    let wanted: BTreeMap<String, String> = wanted.into_iter().collect();
    let regenerate = "run `cargo run -p fairlead-api --example generate`";
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "{folder} has other files than are generated; {regenerate}");
    for (name, text) in wanted {
        assert!(found[&name] == text, "{folder}/{name} is not what is generated; {regenerate}");
    }
}

#[test]
fn the_checked_in_definitions_are_what_the_types_generate() {
    is_current("crds", crds_yaml());
}

#[test]
fn every_reason_has_its_page_and_no_page_lacks_a_reason() {
    let pages = Reason::ALL.iter().map(|reason| (format!("{reason}.md"), reason.page()));
    is_current("docs/reasons", pages.chain([("README.md".to_owned(), Reason::index())]));
}

#[test]
fn the_field_reference_is_what_the_schemas_generate() {
    let metrics = ("metrics.md".to_owned(), fairlead_model::metric::page());
    is_current("docs/reference", reference::pages().into_iter().chain([metrics]));
}

#[test]
fn the_yaml_of_a_definition_reads_back_as_the_definition() {
    for (crd, (name, text)) in fairlead_api::crds().iter().zip(crds_yaml()) {
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(&text).unwrap();
        assert_eq!(&read, crd, "{name}");
    }
}

#[test]
fn kubectl_shows_the_columns_that_people_were_promised() {
    let columns = |index: usize| {
        let version = &fairlead_api::crds()[index].spec.versions[0];
        let columns = version.additional_printer_columns.as_ref().unwrap();
        columns.iter().map(|column| column.name.to_uppercase()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns(0), "ENTITY VERSION PHASE READY REASON AGE");
    assert_eq!(columns(1), "SYSTEM READY REASON QUOTA AGE");
    assert_eq!(columns(2), "CONTRACT READY REASON LAG DEADLETTERS LASTSYNC AGE");
}

#[test]
fn every_reason_is_a_word_that_a_condition_may_carry() {
    for reason in Reason::ALL {
        let word = reason.as_str();
        assert!(word.len() <= 128 && word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
        assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        assert_eq!(word.parse::<Reason>(), Ok(*reason));
        assert!(reason.meaning().ends_with('.') && reason.heals().ends_with('.'), "{word} wants whole sentences");
    }
}
