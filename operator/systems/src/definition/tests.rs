//! The format: what is accepted, what is refused with which words, and how `extends` merges.

use super::*;
use crate::Catalog;

fn findings(text: &str) -> String {
    match Definition::parse(text) {
        Ok(_) => "accepted".into(),
        Err(findings) => findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

const MINIMAL: &str = "
system: acme
auth: [{method: ApiKey, header: X-Api-Key}]
probe: {path: /ping}
entities:
- name: things
  key: .id
  fields: [{name: id, type: String}]
  read: {request: {path: /things, query: {since: '{{cursor}}', limit: 200}}, records: .data}
";

#[test]
fn a_minimal_definition_is_accepted() {
    let definition = Definition::parse(MINIMAL).unwrap();
    assert_eq!(definition.system(), "acme");
    assert_eq!(definition.auth_methods()[0].secret_keys[0].name, "apiKey");
    let things = definition.entity("things").unwrap();
    assert!(things.readable() && !things.writable() && !things.creatable() && !things.can_archive() && !things.can_search());
    assert_eq!(things.slices(), ["main"]);
}

#[test]
fn every_wrong_word_is_named_with_its_place() {
    for (from, to, words) in [
        ("key: .id", "key: .id\n  kee: 1", "entities[things]"),
        ("type: String", "type: Text", "entities[things].fields[id].type: unknown variant `Text`"),
        ("path: /things", "path: https://evil.example/things", "entities[things].read.request.path: a path begins with '/'"),
        ("{{cursor}}", "{{nonsense}}", "{{nonsense}} has no value here"),
        ("method: ApiKey, header: X-Api-Key", "method: ApiKey, header: 'X Api'", "auth[ApiKey].header: \"X Api\" is not a header's name"),
        ("method: ApiKey, header: X-Api-Key", "method: Kerberos", "auth"),
        (", records: .data", "", "entities[things].read: does not say where the answer holds its records"),
        ("system: acme", "system: 'a b'", "system: \"a b\" is not a name"),
        ("system: acme", "extends: salesforce", "extends: this definition extends \"salesforce\""),
        (
            "fields: [{name: id, type: String}]",
            "fields: [{name: id, type: String}, {name: id, type: Integer}]",
            "there are two of this name",
        ),
        (
            "fields: [{name: id, type: String}]",
            "fields: [{name: id, type: String, correlation: true, maxLength: 20}]",
            "holds at least 36 characters",
        ),
        ("fields: [{name: id, type: String}]", "fields: [{name: 'l[]', type: List}]", "a list says how its children are written"),
    ] {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL, "{from}");
        assert!(findings(&text).contains(words), "{to}: {}", findings(&text));
    }
    assert!(findings("a: [").contains("not readable as YAML"));
    assert!(findings("[]").contains("a YAML mapping"));
}

#[test]
fn texts_that_would_exhaust_memory_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    for text in [bomb, "[".repeat(100_000), "x".repeat(MAX_TEXT + 1)] {
        let told = findings(&text);
        assert!(told.contains("not readable as YAML") || told.contains("longer than"), "{}", &told[..told.len().min(300)]);
    }
}

#[test]
fn extends_adds_fields_and_keeps_everything_else() {
    let base = Catalog::builtin().get("salesforce").unwrap();
    let text = "
extends: salesforce
entities:
- name: Account
  fields:
  - {name: Fairlead_Id__c, type: String, maxLength: 64, correlation: true}
  - {name: Credit_Limit__c, type: Decimal}
  - {name: Name, type: String, nullable: false, maxLength: 80}
  archive: {Segment__c: Inactive}
";
    let missing = Definition::extend(base, text).unwrap_err();
    assert!(missing[0].to_string().contains("entities[Account].archive.Segment__c: is not a writable field"), "{missing:?}");
    let definition =
        Definition::extend(base, &text.replace("- {name: Credit", "- {name: Segment__c, type: String}\n  - {name: Credit")).unwrap();
    let account = definition.entity("Account").unwrap();
    let field = |name: &str| account.native_schema().get(&name.parse().unwrap()).unwrap();
    assert_eq!(field("Name").max_length, Some(80));
    assert_eq!(field("Credit_Limit__c").kind, fairlead_model::schema::FieldType::Decimal);
    assert_eq!(field("Phone").max_length, Some(40));
    assert_eq!(account.key_fields().iter().map(ToString::to_string).collect::<Vec<_>>(), ["Fairlead_Id__c"]);
    assert!(
        account.idempotent_create(Some("Fairlead_Id__c")) && !account.idempotent_create(Some("Name")) && !account.idempotent_create(None)
    );
    assert!(account.can_archive());
    assert!(definition.entity("Contact").is_some());
    assert_eq!(Definition::parse(definition.text()).unwrap(), definition);
    assert_eq!(Catalog::builtin().resolve(definition.text()).unwrap(), definition);
    assert!(
        Definition::extend(Catalog::builtin().get("netsuite").unwrap(), text).unwrap_err()[0].message.contains("must extend \"netsuite\"")
    );
}

#[test]
fn the_built_in_systems_tell_what_they_can() {
    let salesforce = Catalog::builtin().get("salesforce").unwrap();
    assert_eq!(salesforce.default_version(), "67.0");
    assert_eq!(salesforce.end_of_life("29.0").unwrap().retired.as_deref(), Some("2025-06"));
    assert_eq!(salesforce.end_of_life("40.0").unwrap().deprecated.as_deref(), Some("2027-06"));
    assert_eq!(salesforce.end_of_life("67.0"), None);
    let names = |definition: &Definition| definition.auth_methods().into_iter().map(|method| method.name).collect::<Vec<_>>();
    assert_eq!(names(salesforce), ["ClientCredentials", "JwtBearer"]);
    assert_eq!(salesforce.entity("Account").unwrap().batch_max(), 200);
    assert_eq!(salesforce.entity("Account").unwrap().slices(), ["main", "Contacts"]);
    let netsuite = Catalog::builtin().get("netsuite").unwrap();
    assert_eq!(names(netsuite), ["M2M", "TokenBased"]);
    let customer = netsuite.entity("customer").unwrap();
    assert_eq!(customer.slices(), ["main", "deletes"]);
    assert!(customer.idempotent_create(Some("externalId")) && customer.can_archive() && customer.can_search() && customer.can_read_keys());
    assert_eq!(customer.batch_max(), 1);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(at in 0usize..400, cut in 0usize..40, put in "[ -~\n]{0,12}") {
        let at = at.min(MINIMAL.len());
        let end = (at + cut).min(MINIMAL.len());
        let text = format!("{}{put}{}", &MINIMAL[..at], &MINIMAL[end..]);
        if let Ok(definition) = Definition::parse(&text) {
            proptest::prop_assert_eq!(Definition::parse(definition.text()).unwrap(), definition);
        }
    }
}
