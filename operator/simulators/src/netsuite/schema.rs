//! The record types of the account: which fields they have, of which kind, and what may be written.
//!
//! One table serves reading, writing, SuiteQL and the metadata catalogue, so that they cannot disagree. Lengths are the
//! simulated account's own.

use crate::core::universe::INDUSTRIES;

/// A record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Entity {
    Customer,
    Contact,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The internal id.
    Key,
    /// Text of at most so many characters.
    Text(usize),
    /// A mail address; stored in lower case.
    Email,
    /// A boolean.
    Flag,
    /// An amount with two decimals.
    Money,
    /// Another record.
    Reference(Target),
    /// The address book, the one sublist.
    Addresses,
    /// A point in time, in whole seconds.
    Stamp,
}

/// What a reference points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Customer,
    Subsidiary,
    Currency,
    Category,
}

/// A field of a record type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) kind: Kind,
}

const fn field(name: &'static str, title: &'static str, kind: Kind) -> Field {
    Field { name, title, kind }
}

const CUSTOMER: &[Field] = &[
    field("id", "Internal ID", Kind::Key),
    field("externalId", "External ID", Kind::Text(255)),
    field("entityId", "Customer ID", Kind::Text(83)),
    field("isPerson", "Type", Kind::Flag),
    field("companyName", "Company Name", Kind::Text(200)),
    field("firstName", "First Name", Kind::Text(32)),
    field("lastName", "Last Name", Kind::Text(32)),
    field("email", "Email", Kind::Email),
    field("phone", "Phone", Kind::Text(32)),
    field("url", "Web Address", Kind::Text(255)),
    field("subsidiary", "Primary Subsidiary", Kind::Reference(Target::Subsidiary)),
    field("currency", "Primary Currency", Kind::Reference(Target::Currency)),
    field("creditLimit", "Credit Limit", Kind::Money),
    field("vatRegNumber", "Tax Reg. Number", Kind::Text(32)),
    field("comments", "Comments", Kind::Text(100_000)),
    field("category", "Category", Kind::Reference(Target::Category)),
    field("parent", "Child Of", Kind::Reference(Target::Customer)),
    field("isInactive", "Inactive", Kind::Flag),
    field("custentity_segment", "Segment", Kind::Text(100)),
    field("custentity_credit_rating", "Credit Rating", Kind::Text(10)),
    field("addressBook", "Address Book", Kind::Addresses),
    field("dateCreated", "Date Created", Kind::Stamp),
    field("lastModifiedDate", "Last Modified Date", Kind::Stamp),
];

const CONTACT: &[Field] = &[
    field("id", "Internal ID", Kind::Key),
    field("externalId", "External ID", Kind::Text(255)),
    field("entityId", "Contact", Kind::Text(83)),
    field("firstName", "First Name", Kind::Text(32)),
    field("lastName", "Last Name", Kind::Text(32)),
    field("title", "Job Title", Kind::Text(99)),
    field("email", "Email", Kind::Email),
    field("phone", "Main Phone", Kind::Text(32)),
    field("company", "Company", Kind::Reference(Target::Customer)),
    field("subsidiary", "Subsidiary", Kind::Reference(Target::Subsidiary)),
    field("comments", "Comments", Kind::Text(100_000)),
    field("isInactive", "Inactive", Kind::Flag),
    field("dateCreated", "Date Created", Kind::Stamp),
    field("lastModifiedDate", "Last Modified Date", Kind::Stamp),
];

/// The account's subsidiaries: internal id and name.
pub(super) const SUBSIDIARIES: [(&str, &str); 3] =
    [("1", "Parent Company"), ("2", "Parent Company : Americas"), ("3", "Parent Company : Europe & Asia")];

/// The account's currencies: internal id and code.
pub(super) const CURRENCIES: [(&str, &str); 6] = [("1", "USD"), ("2", "EUR"), ("3", "GBP"), ("4", "CAD"), ("5", "PLN"), ("6", "JPY")];

/// Countries by code, as the address book shows them.
const COUNTRIES: [(&str, &str); 14] = [
    ("AT", "Austria"),
    ("AU", "Australia"),
    ("BE", "Belgium"),
    ("CA", "Canada"),
    ("CH", "Switzerland"),
    ("DE", "Germany"),
    ("ES", "Spain"),
    ("FR", "France"),
    ("GB", "United Kingdom"),
    ("IT", "Italy"),
    ("JP", "Japan"),
    ("NL", "Netherlands"),
    ("PL", "Poland"),
    ("US", "United States"),
];

impl Entity {
    pub(super) const ALL: [Self; 2] = [Self::Customer, Self::Contact];

    /// The name in paths, SuiteQL and the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Contact => "contact",
        }
    }

    /// By its exact name: record types in paths are case-sensitive.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.name() == name)
    }

    pub(super) const fn fields(self) -> &'static [Field] {
        match self {
            Self::Customer => CUSTOMER,
            Self::Contact => CONTACT,
        }
    }

    pub(super) fn field(self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }
}

impl Field {
    /// Whether a caller may set it; the rest is ignored when written, as the vendor does.
    pub(super) const fn writable(&self) -> bool {
        !matches!(self.kind, Kind::Key | Kind::Stamp)
    }
}

impl Target {
    /// The record type in links.
    pub(super) const fn record_type(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Subsidiary => "subsidiary",
            Self::Currency => "currency",
            Self::Category => "customerCategory",
        }
    }

    /// The entries of a fixed list; none for records.
    pub(super) fn entries(self) -> Vec<(String, &'static str)> {
        match self {
            Self::Customer => Vec::new(),
            Self::Subsidiary => owned(&SUBSIDIARIES),
            Self::Currency => owned(&CURRENCIES),
            Self::Category => INDUSTRIES.iter().enumerate().map(|(at, name)| ((at + 1).to_string(), *name)).collect(),
        }
    }

    /// The name of a fixed list's entry.
    pub(super) fn entry(self, id: &str) -> Option<&'static str> {
        match self {
            Self::Customer => None,
            Self::Subsidiary => find(&SUBSIDIARIES, id),
            Self::Currency => find(&CURRENCIES, id),
            Self::Category => id.parse::<usize>().ok().and_then(|at| INDUSTRIES.get(at.checked_sub(1)?)).copied(),
        }
    }
}

/// A country's name; its code where the name is not known here.
pub(super) fn country(code: &str) -> String {
    find(&COUNTRIES, code).unwrap_or(code).to_owned()
}

fn find(list: &[(&str, &'static str)], id: &str) -> Option<&'static str> {
    list.iter().find(|(key, _)| *key == id).map(|(_, name)| *name)
}

fn owned(list: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    list.iter().map(|(id, name)| ((*id).to_owned(), *name)).collect()
}
