//! The record types of the simulated org and what `describe` says about them.
//!
//! Standard fields are a working subset of Account, Contact, User and Organization with the vendor's types and lengths;
//! custom fields (`__c`) are those that an administrator adds for master data. Only facts stand here: rules about writing
//! are in [`super::dml`].

use std::sync::LazyLock;

use crate::core::universe::{INDUSTRIES, SEGMENTS};
use crate::core::value::Value;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Text(usize),
    /// Long text of more than 255 characters cannot be filtered or sorted.
    Area(usize),
    Phone,
    Email,
    Url,
    Boolean,
    Int(usize),
    /// Digits in all, digits after the point.
    Currency(usize, usize),
    DateTime,
    Picklist {
        values: &'static [&'static str],
        restricted: bool,
    },
    /// The record type and the name of the relationship.
    Reference(&'static str, &'static str),
    /// A read-only compound of the fields with this prefix.
    Address(&'static str),
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Text(_) => "string",
            Self::Area(_) => "textarea",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Url => "url",
            Self::Boolean => "boolean",
            Self::Int(_) => "int",
            Self::Currency(..) => "currency",
            Self::DateTime => "datetime",
            Self::Picklist { .. } => "picklist",
            Self::Reference(..) => "reference",
            Self::Address(_) => "address",
        }
    }

    fn soap(self) -> &'static str {
        match self {
            Self::Id | Self::Reference(..) => "tns:ID",
            Self::Boolean => "xsd:boolean",
            Self::Int(_) => "xsd:int",
            Self::Currency(..) => "xsd:double",
            Self::DateTime => "xsd:dateTime",
            Self::Address(_) => "urn:address",
            _ => "xsd:string",
        }
    }

    /// The most characters it holds; 0 where it is not text.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Id | Self::Reference(..) => 18,
            Self::Text(length) | Self::Area(length) => length,
            Self::Phone => 40,
            Self::Email => 80,
            Self::Url | Self::Picklist { .. } => 255,
            _ => 0,
        }
    }

    pub(super) fn filterable(self) -> bool {
        !matches!(self, Self::Area(256..) | Self::Address(_))
    }
}

/// One field.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) kind: Kind,
    pub(super) nillable: bool,
    pub(super) createable: bool,
    pub(super) updateable: bool,
    /// Flagged External ID: records can be found by it in a path.
    pub(super) external: bool,
    /// Flagged Unique, case sensitive.
    pub(super) unique: bool,
    pub(super) compound: Option<&'static str>,
}

impl Field {
    pub(super) fn custom(&self) -> bool {
        self.name.ends_with("__c")
    }
}

/// One record type.
#[derive(Debug)]
pub(super) struct Entity {
    pub(super) name: &'static str,
    pub(super) plural: &'static str,
    pub(super) prefix: &'static str,
    pub(super) writable: bool,
    pub(super) fields: Vec<Field>,
    /// Name of the relationship, child record type, field of the child.
    pub(super) children: &'static [(&'static str, &'static str, &'static str)],
}

impl Entity {
    /// Position of a field by its name, in any case.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// The reference field and record type behind a relationship's name (`Parent`).
    pub(super) fn parent(&self, relationship: &str) -> Option<(usize, &'static str, &'static str)> {
        self.fields.iter().enumerate().find_map(|(position, field)| match field.kind {
            Kind::Reference(entity, name) if name.eq_ignore_ascii_case(relationship) => Some((position, entity, name)),
            _ => None,
        })
    }
}

/// The record types, by position.
pub(super) static ENTITIES: LazyLock<Vec<Entity>> = LazyLock::new(|| vec![account(), contact(), user(), organization()]);

/// Position of a record type by its name, in any case.
pub(super) fn entity(name: &str) -> Option<usize> {
    ENTITIES.iter().position(|entity| entity.name.eq_ignore_ascii_case(name))
}

/// Countries with their codes, as State and Country/Territory Picklists know them.
pub(super) const COUNTRIES: [(&str, &str); 40] = [
    ("AR", "Argentina"),
    ("AT", "Austria"),
    ("AU", "Australia"),
    ("BE", "Belgium"),
    ("BG", "Bulgaria"),
    ("BR", "Brazil"),
    ("CA", "Canada"),
    ("CH", "Switzerland"),
    ("CL", "Chile"),
    ("CN", "China"),
    ("CO", "Colombia"),
    ("CZ", "Czech Republic"),
    ("DE", "Germany"),
    ("DK", "Denmark"),
    ("EE", "Estonia"),
    ("ES", "Spain"),
    ("FI", "Finland"),
    ("FR", "France"),
    ("GB", "United Kingdom"),
    ("GR", "Greece"),
    ("HU", "Hungary"),
    ("IE", "Ireland"),
    ("IN", "India"),
    ("IT", "Italy"),
    ("JP", "Japan"),
    ("KR", "Korea, Republic of"),
    ("LU", "Luxembourg"),
    ("MX", "Mexico"),
    ("NL", "Netherlands"),
    ("NO", "Norway"),
    ("NZ", "New Zealand"),
    ("PL", "Poland"),
    ("PT", "Portugal"),
    ("RO", "Romania"),
    ("SE", "Sweden"),
    ("SG", "Singapore"),
    ("SK", "Slovakia"),
    ("TR", "Turkey"),
    ("US", "United States"),
    ("ZA", "South Africa"),
];

const COUNTRY_CODES: [&str; 40] = {
    let mut codes = [""; 40];
    let mut index = 0;
    while index < codes.len() {
        codes[index] = COUNTRIES[index].0;
        index += 1;
    }
    codes
};

fn field(name: &'static str, label: &'static str, kind: Kind) -> Field {
    Field { name, label, kind, nillable: true, createable: true, updateable: true, external: false, unique: false, compound: None }
}

fn required(field: Field) -> Field {
    Field { nillable: false, ..field }
}

fn system(field: Field) -> Field {
    Field { createable: false, updateable: false, ..field }
}

fn external(field: Field) -> Field {
    Field { external: true, unique: true, ..field }
}

/// The five parts of an address, its code of the country where picklists are on, and the compound.
fn address(prefix: &'static str, names: [&'static str; 7]) -> Vec<Field> {
    let [compound, street, city, state, postal, country, code] = names;
    let part = |name, label, kind| Field { compound: Some(compound), ..field(name, label, kind) };
    vec![
        part(street, "Street", Kind::Area(255)),
        part(city, "City", Kind::Text(40)),
        part(state, "State/Province", Kind::Text(80)),
        part(postal, "Zip/Postal Code", Kind::Text(20)),
        part(country, "Country", Kind::Text(80)),
        part(code, "Country Code", Kind::Picklist { values: &COUNTRY_CODES, restricted: true }),
        system(field(compound, "Address", Kind::Address(prefix))),
    ]
}

fn stamps() -> Vec<Field> {
    vec![
        required(system(field("CreatedDate", "Created Date", Kind::DateTime))),
        required(system(field("CreatedById", "Created By ID", Kind::Reference("User", "CreatedBy")))),
        required(system(field("LastModifiedDate", "Last Modified Date", Kind::DateTime))),
        required(system(field("LastModifiedById", "Last Modified By ID", Kind::Reference("User", "LastModifiedBy")))),
        required(system(field("SystemModstamp", "System Modstamp", Kind::DateTime))),
    ]
}

const TYPES: &[&str] = &["Prospect", "Customer", "Former Customer", "Partner", "Reseller", "Competitor", "Other"];
const RATINGS: &[&str] = &["Hot", "Warm", "Cold"];
const SALUTATIONS: &[&str] = &["Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx."];
const SOURCES: &[&str] = &["Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other"];

fn account() -> Entity {
    let pick = |values, restricted| Kind::Picklist { values, restricted };
    let mut fields = vec![
        required(system(field("Id", "Account ID", Kind::Id))),
        required(system(field("IsDeleted", "Deleted", Kind::Boolean))),
        system(field("MasterRecordId", "Master Record ID", Kind::Reference("Account", "MasterRecord"))),
        required(field("Name", "Account Name", Kind::Text(255))),
        field("Type", "Account Type", pick(TYPES, false)),
        field("ParentId", "Parent Account ID", Kind::Reference("Account", "Parent")),
    ];
    fields.extend(address(
        "Billing",
        ["BillingAddress", "BillingStreet", "BillingCity", "BillingState", "BillingPostalCode", "BillingCountry", "BillingCountryCode"],
    ));
    fields.extend(address(
        "Shipping",
        [
            "ShippingAddress",
            "ShippingStreet",
            "ShippingCity",
            "ShippingState",
            "ShippingPostalCode",
            "ShippingCountry",
            "ShippingCountryCode",
        ],
    ));
    fields.extend([
        field("Phone", "Account Phone", Kind::Phone),
        field("Fax", "Account Fax", Kind::Phone),
        field("AccountNumber", "Account Number", Kind::Text(40)),
        field("Website", "Website", Kind::Url),
        field("Industry", "Industry", pick(&INDUSTRIES, false)),
        field("AnnualRevenue", "Annual Revenue", Kind::Currency(18, 2)),
        field("NumberOfEmployees", "Employees", Kind::Int(8)),
        field("Description", "Account Description", Kind::Area(32_000)),
        field("Rating", "Account Rating", pick(RATINGS, false)),
        field("AccountSource", "Account Source", pick(SOURCES, false)),
        required(field("OwnerId", "Owner ID", Kind::Reference("User", "Owner"))),
    ]);
    fields.extend(stamps());
    fields.extend([
        external(field("Fairlead_Id__c", "Fairlead Id", Kind::Text(64))),
        // An external id that is not unique: an administrator who forgot the second box.
        Field { external: true, ..field("Tax_Number__c", "Tax Number", Kind::Text(40)) },
        field("Credit_Limit__c", "Credit Limit", Kind::Currency(18, 2)),
        field("Segment__c", "Segment", pick(&SEGMENTS, true)),
        field("Email__c", "General Email", Kind::Email),
    ]);
    let children: &[_] = &[("ChildAccounts", "Account", "ParentId"), ("Contacts", "Contact", "AccountId")];
    Entity { name: "Account", plural: "Accounts", prefix: "001", writable: true, fields, children }
}

fn contact() -> Entity {
    let mut fields = vec![
        required(system(field("Id", "Contact ID", Kind::Id))),
        required(system(field("IsDeleted", "Deleted", Kind::Boolean))),
        system(field("MasterRecordId", "Master Record ID", Kind::Reference("Contact", "MasterRecord"))),
        field("AccountId", "Account ID", Kind::Reference("Account", "Account")),
        required(Field { compound: Some("Name"), ..field("LastName", "Last Name", Kind::Text(80)) }),
        Field { compound: Some("Name"), ..field("FirstName", "First Name", Kind::Text(40)) },
        Field { compound: Some("Name"), ..field("Salutation", "Salutation", Kind::Picklist { values: SALUTATIONS, restricted: false }) },
        required(system(field("Name", "Full Name", Kind::Text(121)))),
    ];
    fields.extend(address(
        "Mailing",
        ["MailingAddress", "MailingStreet", "MailingCity", "MailingState", "MailingPostalCode", "MailingCountry", "MailingCountryCode"],
    ));
    fields.extend([
        field("Phone", "Business Phone", Kind::Phone),
        field("MobilePhone", "Mobile Phone", Kind::Phone),
        field("Email", "Email", Kind::Email),
        field("Title", "Title", Kind::Text(128)),
        field("Department", "Department", Kind::Text(80)),
        field("Description", "Contact Description", Kind::Area(32_000)),
        required(field("OwnerId", "Owner ID", Kind::Reference("User", "Owner"))),
    ]);
    fields.extend(stamps());
    fields.push(external(field("Fairlead_Id__c", "Fairlead Id", Kind::Text(64))));
    Entity { name: "Contact", plural: "Contacts", prefix: "003", writable: true, fields, children: &[] }
}

fn user() -> Entity {
    let mut fields = vec![
        required(system(field("Id", "User ID", Kind::Id))),
        required(system(field("Username", "Username", Kind::Text(80)))),
        required(system(field("Name", "Full Name", Kind::Text(121)))),
        required(system(field("Email", "Email", Kind::Email))),
        required(system(field("IsActive", "Active", Kind::Boolean))),
    ];
    fields.extend(stamps());
    Entity { name: "User", plural: "Users", prefix: "005", writable: false, fields, children: &[] }
}

fn organization() -> Entity {
    let mut fields = vec![
        required(system(field("Id", "Organization ID", Kind::Id))),
        required(system(field("Name", "Name", Kind::Text(80)))),
        required(system(field("IsSandbox", "Is Sandbox", Kind::Boolean))),
        system(field("InstanceName", "Instance Name", Kind::Text(5))),
        system(field("OrganizationType", "Edition", Kind::Text(40))),
        system(field("NamespacePrefix", "Namespace Prefix", Kind::Text(15))),
        system(field("TrialExpirationDate", "Trial Expiration Date", Kind::DateTime)),
    ];
    fields.extend(stamps());
    Entity { name: "Organization", plural: "Organizations", prefix: "00D", writable: false, fields, children: &[] }
}

/// The short description that the list of record types and a record type's own page carry.
pub(super) fn summary(entity: &Entity, base: &str) -> Value {
    let yes = Value::Bool;
    let path = format!("{base}/sobjects/{}", entity.name);
    Value::object([
        ("activateable", yes(false)),
        ("createable", yes(entity.writable)),
        ("custom", yes(false)),
        ("customSetting", yes(false)),
        ("deletable", yes(entity.writable)),
        ("deprecatedAndHidden", yes(false)),
        ("feedEnabled", yes(false)),
        ("hasSubtypes", yes(false)),
        ("keyPrefix", Value::text(entity.prefix)),
        ("label", Value::text(entity.name)),
        ("labelPlural", Value::text(entity.plural)),
        ("layoutable", yes(entity.writable)),
        ("mergeable", yes(entity.writable)),
        ("name", Value::text(entity.name)),
        ("queryable", yes(true)),
        ("replicateable", yes(true)),
        ("retrieveable", yes(true)),
        ("searchable", yes(true)),
        ("triggerable", yes(entity.writable)),
        ("undeletable", yes(entity.writable)),
        ("updateable", yes(entity.writable)),
        (
            "urls",
            Value::object([
                ("rowTemplate", Value::text(format!("{path}/{{ID}}"))),
                ("describe", Value::text(format!("{path}/describe"))),
                ("sobject", Value::text(&path)),
            ]),
        ),
    ])
}

/// The whole of `describe`.
pub(super) fn describe(entity: &Entity, base: &str) -> Value {
    let mut described = summary(entity, base);
    if let Value::Object(members) = &mut described {
        let fields = entity.fields.iter().map(|field| describe_field(entity, field)).collect();
        members.insert("fields".to_owned(), Value::List(fields));
        let children = entity.children.iter().map(|(name, child, field)| {
            Value::object([
                ("cascadeDelete", Value::Bool(false)),
                ("childSObject", Value::text(*child)),
                ("deprecatedAndHidden", Value::Bool(false)),
                ("field", Value::text(*field)),
                ("relationshipName", Value::text(*name)),
                ("restrictedDelete", Value::Bool(false)),
            ])
        });
        members.insert("childRelationships".to_owned(), Value::List(children.collect()));
        members.insert("recordTypeInfos".to_owned(), Value::List(Vec::new()));
        members.insert("supportedScopes".to_owned(), Value::List(Vec::new()));
    }
    described
}

fn describe_field(entity: &Entity, field: &Field) -> Value {
    let yes = Value::Bool;
    let size = |number: usize| Value::Number(number.to_string());
    let kind = field.kind;
    let (precision, scale) = match kind {
        Kind::Currency(precision, scale) => (precision, scale),
        _ => (0, 0),
    };
    let digits = match kind {
        Kind::Int(digits) => digits,
        _ => 0,
    };
    let (refers, relationship) = match kind {
        Kind::Reference(to, name) => (vec![Value::text(to)], Value::text(name)),
        _ => (Vec::new(), Value::Null),
    };
    let (values, restricted) = match kind {
        Kind::Picklist { values, restricted } => (values, restricted),
        _ => (&[][..], false),
    };
    let picklist = values.iter().map(|value| {
        let label = COUNTRIES.iter().find(|(code, _)| value == code).map_or(*value, |(_, name)| name);
        Value::object([
            ("active", yes(true)),
            ("defaultValue", yes(false)),
            ("label", Value::text(label)),
            ("validFor", Value::Null),
            ("value", Value::text(*value)),
        ])
    });
    let id = matches!(kind, Kind::Id);
    Value::object([
        ("aggregatable", yes(kind.filterable() && !matches!(kind, Kind::Boolean))),
        ("autoNumber", yes(false)),
        ("byteLength", size(if id { 18 } else { kind.length() * 3 })),
        ("calculated", yes(false)),
        ("caseSensitive", yes(field.unique)),
        ("compoundFieldName", Value::maybe(field.compound)),
        ("createable", yes(field.createable && entity.writable)),
        ("custom", yes(field.custom())),
        ("defaultValue", if matches!(kind, Kind::Boolean) { yes(false) } else { Value::Null }),
        ("defaultedOnCreate", yes(!field.nillable && (!field.createable || field.name == "OwnerId"))),
        ("dependentPicklist", yes(false)),
        ("deprecatedAndHidden", yes(false)),
        ("digits", size(digits)),
        ("encrypted", yes(false)),
        ("externalId", yes(field.external)),
        ("filterable", yes(kind.filterable())),
        ("groupable", yes(kind.filterable() && !matches!(kind, Kind::Currency(..) | Kind::DateTime))),
        ("idLookup", yes(id || field.external || matches!(kind, Kind::Email))),
        ("label", Value::text(field.label)),
        ("length", size(kind.length())),
        ("name", Value::text(field.name)),
        ("nameField", yes(field.name == "Name")),
        ("namePointing", yes(false)),
        ("nillable", yes(field.nillable)),
        ("permissionable", yes(field.nillable && field.createable)),
        ("picklistValues", Value::List(picklist.collect())),
        ("precision", size(precision)),
        ("referenceTo", Value::List(refers)),
        ("relationshipName", relationship),
        ("restrictedPicklist", yes(restricted)),
        ("scale", size(scale)),
        ("soapType", Value::text(kind.soap())),
        ("sortable", yes(kind.filterable())),
        ("type", Value::text(kind.name())),
        ("unique", yes(field.unique)),
        ("updateable", yes(field.updateable && entity.writable)),
    ])
}
