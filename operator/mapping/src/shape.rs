//! Both sides of a table as one kind of tree: what stands at a path, what may stand there, and which name was probably meant.

use fairlead_model::path::{FieldPath, Segment};
use fairlead_model::schema::{CanonicalSchema, Classification, FieldType, NativeSchema};
use std::collections::BTreeMap;

/// What a mapping needs to know of one field, on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) kind: FieldType,
    /// May be null or absent.
    pub(crate) nullable: bool,
    pub(crate) writable: bool,
    pub(crate) max_length: Option<u32>,
    /// The closed set of values, where there is one.
    pub(crate) values: Vec<String>,
    pub(crate) classification: Option<Classification>,
}

impl Field {
    fn unknown(kind: FieldType) -> Self {
        Self { kind, nullable: true, writable: true, max_length: None, values: vec![], classification: None }
    }
}

/// The fields of one side, as a tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    field: Option<Field>,
    list: bool,
    children: BTreeMap<String, Tree>,
}

/// Why nothing stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// The path that was probably meant, or what to write instead.
    pub(crate) hint: Option<String>,
}

impl Tree {
    pub(crate) fn of_native(schema: &NativeSchema) -> Self {
        let mut tree = Self::default();
        for (path, field) in schema {
            tree.insert(
                path,
                Field {
                    kind: field.kind,
                    nullable: field.nullable,
                    writable: field.writable,
                    max_length: field.max_length,
                    values: field.values.clone(),
                    classification: None,
                },
            );
        }
        tree
    }

    pub(crate) fn of_canonical(schema: &CanonicalSchema) -> Self {
        let mut tree = Self::default();
        for (path, field) in schema {
            tree.insert(
                path,
                Field {
                    kind: field.kind,
                    nullable: field.nullable || !field.required,
                    writable: true,
                    max_length: None,
                    values: field.values.clone(),
                    classification: field.classification,
                },
            );
        }
        tree
    }

    fn insert(&mut self, path: &FieldPath, field: Field) {
        let mut node = self;
        for segment in path.segments() {
            node = node.children.entry(segment.name().to_owned()).or_default();
            node.list |= matches!(segment, Segment::List(_));
        }
        node.list |= field.kind == FieldType::List;
        node.field = Some(field);
    }

    /// The inner fields.
    pub(crate) fn children(&self) -> &BTreeMap<String, Self> {
        &self.children
    }

    /// Whether a list stands here.
    pub(crate) fn is_list(&self) -> bool {
        self.list
    }

    /// True when the schema says nothing of what lies inside, so that any path into it may exist.
    pub(crate) fn is_opaque(&self) -> bool {
        self.children.is_empty()
            && self.field.as_ref().is_some_and(|f| matches!(f.kind, FieldType::Any | FieldType::Object | FieldType::List))
    }

    /// What stands here; an object that only its inner fields tell of counts as one.
    pub(crate) fn field(&self) -> Field {
        self.field.clone().unwrap_or_else(|| Field::unknown(if self.list { FieldType::List } else { FieldType::Object }))
    }

    /// The part of the tree at `path`.
    pub(crate) fn node(&self, path: &FieldPath) -> Option<&Self> {
        path.segments().iter().try_fold(self, |node, segment| node.children.get(segment.name()))
    }

    /// The field at `path`. A list is only reached by its marked name (`contacts[]`).
    pub(crate) fn lookup(&self, path: &FieldPath) -> Result<Field, Unknown> {
        let mut node = self;
        let mut before = String::new();
        for segment in path.segments() {
            if node.is_opaque() {
                return Ok(Field::unknown(FieldType::Any));
            }
            let Some(next) = node.children.get(segment.name()) else {
                let meant = nearest(segment.name(), node.children.iter().map(|(name, child)| child.marked(name)));
                return Err(Unknown { hint: meant.map(|meant| format!("did you mean {before}{meant}?")) });
            };
            let marked = next.marked(segment.name());
            if next.list != matches!(segment, Segment::List(_)) {
                let hint = if next.list { "it is a list: write" } else { "it is no list: write" };
                return Err(Unknown { hint: Some(format!("{hint} {before}{marked}")) });
            }
            before = format!("{before}{marked}.");
            node = next;
        }
        Ok(node.field())
    }

    /// The paths of all fields at and below this node, which itself stands at `prefix`.
    pub(crate) fn paths_below(&self, prefix: &str, found: &mut Vec<FieldPath>) {
        if self.children.is_empty() {
            found.extend(prefix.parse::<FieldPath>().ok());
        }
        for (name, child) in &self.children {
            let dot = if prefix.is_empty() { "" } else { "." };
            child.paths_below(&format!("{prefix}{dot}{}", child.marked(name)), found);
        }
    }

    /// `name`, with `[]` when a list stands here.
    pub(crate) fn marked(&self, name: &str) -> String {
        if self.list { format!("{name}[]") } else { name.to_owned() }
    }
}

/// The candidate that was probably meant by `name`: the same but for case, or a few letters away.
pub(crate) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 2).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&wanted, &candidate.trim_end_matches("[]").to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (corner + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            corner = std::mem::replace(cell, best);
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// What a type is called in messages.
pub(crate) fn word(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "string",
        FieldType::Integer => "integer",
        FieldType::Decimal => "decimal",
        FieldType::Float => "float",
        FieldType::Boolean => "boolean",
        FieldType::Date => "date",
        FieldType::DateTime => "date-time",
        FieldType::Reference => "reference",
        FieldType::List => "list",
        FieldType::Object => "object",
        FieldType::Any => "anything",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_meant() {
        let names = || ["Name", "BillingCity", "Contacts[]", "AnnualRevenue"].map(String::from).into_iter();
        assert_eq!(nearest("name", names()).as_deref(), Some("Name"));
        assert_eq!(nearest("BilingCity", names()).as_deref(), Some("BillingCity"));
        assert_eq!(nearest("contact", names()).as_deref(), Some("Contacts[]"));
        assert_eq!(nearest("Turnover", names()), None);
    }
}
