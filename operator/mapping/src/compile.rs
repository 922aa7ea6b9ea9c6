//! Compiling a table: every row is judged by itself, then the rows together.
//!
//! Everything that is wrong is told at once, in the words of the person who wrote the row. A row that is wrong makes no rules, so that one
//! mistake is told once and not again by its consequences.

use crate::convert::{Convert, Direction, copyable};
use crate::expression::{Expression, Problem, Scope};
use crate::finding::{Column, Finding, Severity, label};
use crate::lookup::Twice;
use crate::shape::{Field, Tree, Unknown, nearest, word};
use crate::table::{Empty, Rule, Source, Table, TableSource};
use fairlead_model::FieldPath;
use fairlead_model::hash::ValueHash;
use fairlead_model::path::Segment;
use fairlead_model::schema::FieldType;
use fairlead_model::unit::{LookupRow, Reference, RowUnit};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The text form of a canonical id has so many characters.
const ID_LENGTH: u32 = 36;

pub(crate) fn compile(source: &TableSource<'_>) -> Result<Table, Vec<Finding>> {
    let mut compiler = Compiler {
        source,
        native: Tree::of_native(source.native),
        canonical: Tree::of_canonical(source.canonical),
        findings: vec![],
        lists: BTreeMap::new(),
        inbound: vec![],
        outbound: vec![],
        inner_inbound: BTreeMap::new(),
        inner_outbound: BTreeMap::new(),
    };
    compiler.rows();
    compiler.close_lists();
    compiler.conflicts();
    let key = compiler.key();
    let when = compiler.when();
    compiler.emptiness();
    compiler.finish(key, when)
}

struct Compiler<'a> {
    source: &'a TableSource<'a>,
    native: Tree,
    canonical: Tree,
    findings: Vec<Finding>,
    /// List rows by index.
    lists: BTreeMap<usize, ListRow>,
    inbound: Vec<Rule>,
    outbound: Vec<Rule>,
    /// Rules inside lists, by the index of the list's row.
    inner_inbound: BTreeMap<usize, Vec<Rule>>,
    inner_outbound: BTreeMap<usize, Vec<Rule>>,
}

/// A row that maps a list element by element.
#[derive(Debug, Clone)]
struct ListRow {
    canonical: FieldPath,
    native: FieldPath,
    reads: bool,
    writes: bool,
}

/// How a row gives a value in one direction.
enum Want<'r> {
    Nothing,
    Copy,
    Values,
    Reference(&'r Reference),
    Lookup(&'r LookupRow),
    Constant(&'r Value),
    Expression(&'r str),
}

fn want(row: &RowUnit, direction: Direction) -> Want<'_> {
    let (own, other, target, source) = match direction {
        Direction::ToCanonical => (&row.to_canonical, &row.from_canonical, &row.canonical, &row.native),
        Direction::FromCanonical => (&row.from_canonical, &row.to_canonical, &row.native, &row.canonical),
    };
    if target.is_none() {
        return Want::Nothing;
    }
    if let (Some(value), Direction::FromCanonical) = (&row.value, direction) {
        return Want::Constant(value);
    }
    match (own, other, source) {
        (Some(expression), _, _) => Want::Expression(expression),
        // An expression for the other direction alone: undoing it would be a guess.
        (None, Some(_), _) | (None, None, None) => Want::Nothing,
        (None, None, Some(_)) => match (&row.reference, &row.lookup) {
            (Some(reference), _) => Want::Reference(reference),
            (None, Some(lookup)) => Want::Lookup(lookup),
            (None, None) if row.values.is_empty() => Want::Copy,
            (None, None) => Want::Values,
        },
    }
}

impl Compiler<'_> {
    fn find(&mut self, severity: Severity, row: usize, column: Column, message: &str, hint: Option<String>) {
        let unit = self.source.rows.get(row);
        let name = unit.map_or_else(String::new, |unit| label(unit.canonical.as_ref(), unit.native.as_ref()));
        let finding = Finding { severity, row: Some(row), column, message: format!("{name}: {message}"), hint };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn error(&mut self, row: usize, column: Column, message: &str, hint: &str) {
        self.find(Severity::Error, row, column, message, (!hint.is_empty()).then(|| hint.to_owned()));
    }

    fn warn(&mut self, row: usize, column: Column, message: &str, hint: &str) {
        self.find(Severity::Warning, row, column, message, (!hint.is_empty()).then(|| hint.to_owned()));
    }

    /// How a row is called in messages about another one.
    fn called(&self, row: usize) -> String {
        self.source.rows.get(row).map_or_else(|| format!("row {row}"), |unit| unit.called(row))
    }

    fn rows(&mut self) {
        let rows = self.source.rows;
        let mut seen: BTreeMap<(Option<&FieldPath>, Option<&FieldPath>), usize> = BTreeMap::new();
        let mut good = vec![];
        for (index, row) in rows.iter().enumerate() {
            if let Some(first) = seen.get(&(row.canonical.as_ref(), row.native.as_ref())) {
                let message = format!("stands in {} already, with the same canonical and native field", self.called(*first));
                self.error(index, Column::Row, &message, "keep one of them");
                continue;
            }
            seen.insert((row.canonical.as_ref(), row.native.as_ref()), index);
            if self.columns_agree(index, row) && self.paths_exist(index, row) {
                good.push((index, row));
            }
        }
        // Lists first: rows inside them need to know where they belong.
        let (lists, others): (Vec<_>, Vec<_>) = good.into_iter().partition(|(_, row)| row.canonical.as_ref().is_some_and(is_list));
        for (index, row) in lists {
            self.list_row(index, row);
        }
        for (index, row) in others {
            self.row(index, row);
        }
    }

    /// Whether the filled columns of a row make sense together.
    fn columns_agree(&mut self, index: usize, row: &RowUnit) -> bool {
        let expressions = row.to_canonical.is_some() || row.from_canonical.is_some();
        let both = row.canonical.is_some() && row.native.is_some();
        let wrong: Option<(Column, &str, &str)> = if row.canonical.is_none() && row.native.is_none() {
            Some((Column::Row, "names neither a canonical nor a native field", "name one or both"))
        } else if row.value.is_some()
            && (row.canonical.is_some() || expressions || !row.values.is_empty() || row.reference.is_some() || row.lookup.is_some())
        {
            Some((Column::Value, "a constant goes to a native field and stands alone", "leave only native and value in the row"))
        } else if !row.values.is_empty() && (expressions || row.reference.is_some()) {
            Some((Column::Values, "a value table and an expression or reference exclude each other", "keep one of them"))
        } else if row.reference.is_some() && expressions {
            Some((Column::Reference, "a reference and an expression exclude each other", "keep one of them"))
        } else if row.lookup.is_some() && (expressions || !row.values.is_empty() || row.reference.is_some()) {
            Some((Column::Lookup, "a lookup table and another way to make the value exclude each other", "keep one of them"))
        } else if row.lookup.is_some() && !both {
            Some((Column::Lookup, "a lookup table needs both fields", "name canonical and native"))
        } else if !row.values.is_empty() && !both {
            Some((Column::Values, "a value table needs both fields", "name canonical and native"))
        } else if row.reference.is_some() && !both {
            Some((Column::Reference, "a reference needs both fields", "name canonical and native"))
        } else if row.to_canonical.is_some() && row.canonical.is_none() {
            Some((Column::ToCanonical, "there is no canonical field to give a value to", "name canonical, or take toCanonical away"))
        } else if row.from_canonical.is_some() && row.native.is_none() {
            Some((Column::FromCanonical, "there is no native field to give a value to", "name native, or take fromCanonical away"))
        } else if !both && row.value.is_none() && !expressions {
            let hint = "name the other field, or give a value or an expression";
            Some((Column::Row, "says nothing of where its value comes from", hint))
        } else if row.key.is_some() && !row.canonical.as_ref().is_some_and(is_list) {
            Some((Column::Key, "only a row that maps a list has a key", "put it on the row of the list itself (contacts[])"))
        } else {
            None
        };
        if let Some((column, message, hint)) = wrong {
            self.error(index, column, message, hint);
        }
        wrong.is_none()
    }

    fn paths_exist(&mut self, index: usize, row: &RowUnit) -> bool {
        let mut exist = true;
        for (path, column, side) in [(&row.canonical, Column::Canonical, "canonical"), (&row.native, Column::Native, "native")] {
            let Some(path) = path else { continue };
            let tree = if column == Column::Canonical { &self.canonical } else { &self.native };
            if let Err(Unknown { hint }) = tree.lookup(path) {
                let hint = hint.unwrap_or_else(|| match column {
                    Column::Canonical => "add it to the contract's schema, or name another".into(),
                    _ => "declare it in a system definition that extends the built-in one, or name another".into(),
                });
                self.error(index, column, &format!("there is no {side} field {path}"), &hint);
                exist = false;
            } else if lists_in(path) > 1 {
                self.error(
                    index,
                    column,
                    &format!("{path} is a list inside a list, which is not mapped"),
                    "map the outer list with an expression",
                );
                exist = false;
            }
        }
        exist
    }

    /// The row of a list as a whole: `contacts[]`.
    fn list_row(&mut self, index: usize, row: &RowUnit) {
        let (Some(canonical), false) = (&row.canonical, row.reference.is_some() || row.lookup.is_some() || !row.values.is_empty()) else {
            return self.error(
                index,
                Column::Row,
                "a list has neither value table, lookup table nor reference",
                "put them on the rows of its elements",
            );
        };
        let copied = matches!(want(row, Direction::ToCanonical), Want::Copy) || matches!(want(row, Direction::FromCanonical), Want::Copy);
        let by_element = self.source.rows.iter().any(|other| inside(other, canonical, row.native.as_ref()))
            || self.canonical.node(canonical).is_some_and(|node| !node.children().is_empty());
        let (true, true, Some(native)) = (copied, by_element, &row.native) else {
            return self.row(index, row);
        };
        if !is_list(native) {
            let message = format!("{}, contract wants list", word(self.native.lookup(native).map_or(FieldType::Any, |field| field.kind)));
            return self.error(index, Column::Native, &message, "name a native list (marked []), or build the list with toCanonical");
        }
        let writable = self.native.lookup(native).is_ok_and(|field| field.writable);
        let list = ListRow {
            canonical: canonical.clone(),
            native: native.clone(),
            reads: self.source.read,
            writes: self.source.write && self.writable(index, native, writable, self.source.read, false),
        };
        self.lists.insert(index, list);
    }

    /// Any other row.
    fn row(&mut self, index: usize, row: &RowUnit) {
        let whole = row.canonical.as_ref().is_some_and(is_list);
        let list = if whole { None } else { self.list_of(index, row) };
        let Some(list) = list.map_or(Some(None), |found| found.map(Some)) else { return };
        if list.is_none()
            && !whole
            && let (Some(native), Want::Copy | Want::Values | Want::Lookup(_) | Want::Reference(_)) =
                (&row.native, want(row, Direction::ToCanonical))
            && lists_in(native) > 0
        {
            let message = format!("{native} is in a list, the canonical field is not");
            return self.error(
                index,
                Column::Native,
                &message,
                &format!("choose one element: toCanonical: '.record.{}'", first_of(native)),
            );
        }
        let (reads, writes) = list.as_ref().map_or((self.source.read, self.source.write), |(_, list)| (list.reads, list.writes));
        let before = self.findings.len();
        let inbound = if reads { self.rule(index, row, Direction::ToCanonical, list.as_ref().map(|(_, list)| list)) } else { None };
        let inbound_failed = self.findings.get(before..).is_some_and(|new| new.iter().any(|f| f.severity == Severity::Error));
        let outbound = if writes {
            let kept = self.findings.len();
            let rule = self.rule(index, row, Direction::FromCanonical, list.as_ref().map(|(_, list)| list));
            if inbound_failed
                && matches!(want(row, Direction::FromCanonical), Want::Copy | Want::Values | Want::Lookup(_) | Want::Reference(_))
            {
                // The way back of a wrong two-way row is wrong for the same reason.
                self.findings.truncate(kept);
            }
            rule
        } else {
            None
        };
        match list {
            Some((at, _)) => {
                self.inner_inbound.entry(at).or_default().extend(inbound);
                self.inner_outbound.entry(at).or_default().extend(outbound);
            }
            None => {
                self.inbound.extend(inbound);
                self.outbound.extend(outbound);
            }
        }
    }

    /// The list that a row lies in: `None` when in none, `Some(None)` when it should lie in one and does not.
    #[allow(clippy::option_option)]
    fn list_of(&mut self, index: usize, row: &RowUnit) -> Option<Option<(usize, ListRow)>> {
        let canonical = row.canonical.as_ref().and_then(FieldPath::list_root);
        // A row without canonical field lies where its native field does.
        let native = row.native.as_ref().filter(|path| !is_list(path)).and_then(FieldPath::list_root);
        let found = match (&canonical, &native) {
            (Some(canonical), _) => self.lists.iter().find(|(_, list)| list.canonical == *canonical),
            (None, Some(native)) if row.canonical.is_none() => self.lists.iter().find(|(_, list)| list.native == *native),
            _ => return None,
        };
        let found = found.map(|(at, list)| (*at, list.clone()));
        let Some((at, list)) = found else {
            let root = canonical.as_ref().or(native.as_ref()).map_or_else(String::new, ToString::to_string);
            let owner = self.source.rows.iter().position(|other| canonical.is_some() && other.canonical == canonical);
            match owner {
                None => {
                    let hint = "add the row of the list itself: {canonical: contacts[], native: Contacts.records[], key: Id}";
                    self.error(index, Column::Canonical, &format!("lies in the list {root}, which has no row"), hint);
                }
                // A list row that is wrong has its own finding; one that makes the list as a whole leaves nothing to its elements.
                Some(row) if !self.findings.iter().any(|f| f.row == Some(row) && f.severity == Severity::Error) => {
                    let hint = "leave the expressions of that row out, or this row";
                    self.error(
                        index,
                        Column::Canonical,
                        &format!("lies in the list {root}, which {} makes as a whole", self.called(row)),
                        hint,
                    );
                }
                Some(_) => {}
            }
            return Some(None);
        };
        if let Some(path) = &row.native
            && path.list_root().as_ref() != Some(&list.native)
        {
            let message = format!("{path} does not lie in {}, from which {} maps the list", list.native, self.called(at));
            self.error(index, Column::Native, &message, "name a field of that list");
            return Some(None);
        }
        if row.reference.is_some() {
            self.error(index, Column::Reference, "a reference inside a list is not resolved yet", "take it away, or copy the id as text");
            return Some(None);
        }
        Some(Some((at, list)))
    }

    /// The rule of a row in one direction, if it has one and nothing is wrong with it.
    fn rule(&mut self, index: usize, row: &RowUnit, direction: Direction, list: Option<&ListRow>) -> Option<Rule> {
        let want = want(row, direction);
        let (target, source) = match direction {
            Direction::ToCanonical => (row.canonical.as_ref()?, row.native.as_ref()),
            Direction::FromCanonical => (row.native.as_ref()?, row.canonical.as_ref()),
        };
        if matches!(want, Want::Nothing) {
            return None;
        }
        let (from_tree, to_tree) = match direction {
            Direction::ToCanonical => (&self.native, &self.canonical),
            Direction::FromCanonical => (&self.canonical, &self.native),
        };
        let to = to_tree.lookup(target).ok()?;
        let from = source.and_then(|source| from_tree.lookup(source).ok());
        if direction == Direction::FromCanonical {
            let readable = self.source.read && matches!(want, Want::Copy | Want::Values | Want::Lookup(_) | Want::Reference(_));
            let explicit = matches!(want, Want::Constant(_) | Want::Expression(_));
            if !self.writable(index, target, to.writable, readable, explicit) {
                return None;
            }
        }
        let local = |path: &FieldPath| if list.is_some() { path.within_list() } else { Some(path.clone()) };
        let own = source.and_then(local);
        let convert = Convert::to(&to, direction);
        let mut inputs: Vec<FieldPath> = source.cloned().into_iter().collect();
        let source = match want {
            Want::Nothing => return None,
            Want::Constant(value) => self.constant(index, value, &convert).inspect(|_| inputs.clear())?,
            Want::Expression(text) => {
                let expression = self.expression(index, text, direction, list, &to)?;
                inputs = expression.inputs().to_vec();
                Source::Expression(Box::new(expression))
            }
            Want::Copy => {
                let (from, own) = (from?, own.clone()?);
                self.copy(index, row, &from, &to, direction, list.is_some())?;
                Source::Copy(own)
            }
            Want::Values => self.values(index, row, own.clone()?, (&from?, &to), direction)?,
            Want::Reference(reference) => self.reference(index, reference, own.clone()?, (&from?, &to), direction)?,
            Want::Lookup(lookup) => self.lookup(index, lookup, own.clone()?, (&from?, &to), direction)?,
        };
        Some(Rule {
            row: index,
            origin: row.origin.clone(),
            digest: digest(row),
            canonical: row.canonical.clone(),
            native: row.native.clone(),
            unit: row.canonical.as_ref().map(|path| path.list_root().unwrap_or_else(|| path.clone())),
            target: local(target)?,
            source,
            own,
            inputs,
            convert,
            on_error: row.on_error,
        })
    }

    /// Whether the native field takes writes; told when not.
    fn writable(&mut self, index: usize, native: &FieldPath, writable: bool, readable: bool, explicit: bool) -> bool {
        if !writable {
            let message = format!("{native} cannot be written");
            if readable && !explicit {
                self.warn(index, Column::Native, &message, "the row is read only; say so with toCanonical");
            } else {
                self.error(index, Column::Native, &message, "name a field that the system lets you write");
            }
        }
        writable
    }

    fn constant(&mut self, index: usize, value: &Value, convert: &Convert) -> Option<Source> {
        match convert.apply(value) {
            Ok(value) => Some(Source::Constant(value)),
            Err(message) => {
                self.error(index, Column::Value, &format!("the constant {message}"), "");
                None
            }
        }
    }

    fn expression(&mut self, index: usize, text: &str, direction: Direction, list: Option<&ListRow>, to: &Field) -> Option<Expression> {
        let column = match direction {
            Direction::ToCanonical => Column::ToCanonical,
            Direction::FromCanonical => Column::FromCanonical,
        };
        let scope = match direction {
            Direction::ToCanonical => Scope { root: "record", record: &self.native, item: list.map(|list| &list.native), side: "native" },
            Direction::FromCanonical => {
                Scope { root: "record", record: &self.canonical, item: list.map(|list| &list.canonical), side: "canonical" }
            }
        };
        match Expression::compile(text, scope) {
            Ok(expression) => match expression.fits(to, direction) {
                Ok(()) => Some(expression),
                Err(Problem { message, hint }) => {
                    self.find(Severity::Error, index, column, &message, hint);
                    None
                }
            },
            Err(problems) => {
                for Problem { message, hint } in problems {
                    self.find(Severity::Error, index, column, &format!("{column}: {message}"), hint);
                }
                None
            }
        }
    }

    fn copy(&mut self, index: usize, row: &RowUnit, from: &Field, to: &Field, direction: Direction, in_list: bool) -> Option<()> {
        let column = match direction {
            Direction::ToCanonical => Column::Native,
            Direction::FromCanonical => Column::Canonical,
        };
        let source = match direction {
            Direction::ToCanonical => row.native.as_ref()?,
            Direction::FromCanonical => row.canonical.as_ref()?,
        };
        let spoken = if in_list { format!(".item.{}", source.within_list()?) } else { format!(".record.{source}") };
        let missing = from.nullable && !to.nullable;
        let given = format!("{}{}", word(from.kind), if missing { " or null" } else { "" });
        let message = format!("{given}, {} wants {}", direction.receiver(), word(to.kind));
        if let Err(mut hint) = copyable(from.kind, to.kind, direction, &spoken) {
            if direction == Direction::ToCanonical && self.source.write && !hint.contains("way back") && !hint.starts_with("say which") {
                hint.push_str("; and fromCanonical for the way back");
            }
            self.error(index, column, &message, &hint);
            return None;
        }
        if missing {
            self.null_warning(index, column, &message, direction);
        }
        if direction == Direction::ToCanonical && from.kind == FieldType::Reference && to.kind == FieldType::String {
            let hint = format!("if it is a {} that is kept in step, add reference: {{entity: {}}}", self.source.entity, self.source.entity);
            self.warn(index, Column::Native, "the system's own id of another record is copied as text", &hint);
        }
        let strange: Vec<&String> =
            from.values.iter().filter(|value| !to.values.is_empty() && !to.values.contains(value)).take(3).collect();
        if !strange.is_empty() {
            let list = strange.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ");
            let message = format!("{list} cannot be copied, the {} has other values", direction.receiver());
            self.warn(index, column, &message, "say which value means which: values: [{canonical: ..., native: ...}]");
        }
        let long = from.values.iter().find(|value| to.max_length.is_some_and(|most| value.chars().count() > most as usize));
        if let (Some(long), Some(most)) = (long, to.max_length) {
            let message = format!("{long:?} has {} characters, the {} takes {most}", long.chars().count(), direction.receiver());
            self.warn(index, column, &message, "a record with it becomes a dead letter; use a value table, or a longer field");
        }
        Some(())
    }

    fn null_warning(&mut self, index: usize, column: Column, message: &str, direction: Direction) {
        let hint = match direction {
            Direction::ToCanonical => "a record without it becomes a dead letter; toCanonical can give another value",
            Direction::FromCanonical => "the system may refuse a record without it; fromCanonical can give another value",
        };
        self.warn(index, column, message, hint);
    }

    fn values(&mut self, index: usize, row: &RowUnit, from: FieldPath, fields: (&Field, &Field), direction: Direction) -> Option<Source> {
        let (source, target) = fields;
        let (canonical, native) = match direction {
            Direction::ToCanonical => (target, source),
            Direction::FromCanonical => (source, target),
        };
        let before = self.findings.len();
        let mut table = HashMap::new();
        for pair in &row.values {
            let sides = [(canonical, &pair.canonical, "contract"), (native, &pair.native, "native field")];
            for (field, text, whose) in sides {
                if let Some(wrong) = typed(field, text, whose).err() {
                    let hint =
                        nearest(text, field.values.iter().cloned()).map_or_else(String::new, |meant| format!("did you mean {meant}?"));
                    self.error(index, Column::Values, &wrong, &hint);
                }
            }
            let (key, field, value) = match direction {
                Direction::ToCanonical => (&pair.native, canonical, &pair.canonical),
                Direction::FromCanonical => (&pair.canonical, native, &pair.native),
            };
            let Ok(value) = typed(field, value, "") else { continue };
            if table.insert(key.clone(), value).is_some() {
                let (which, hint) = match direction {
                    Direction::ToCanonical => ("native", "give it one canonical value"),
                    Direction::FromCanonical => {
                        ("canonical", "give it one native value; reading several as one takes a row of its own with toCanonical")
                    }
                };
                self.error(index, Column::Values, &format!("the {which} value {key:?} stands in the table twice"), hint);
            }
        }
        if self.findings.get(before..).is_some_and(|new| new.iter().any(|f| f.severity == Severity::Error)) {
            return None;
        }
        let missing: Vec<&String> = source.values.iter().filter(|value| !table.contains_key(*value)).collect();
        if !missing.is_empty() {
            let list = missing.iter().take(5).map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ");
            let which = if direction == Direction::ToCanonical { "native" } else { "canonical" };
            self.warn(
                index,
                Column::Values,
                &format!("the table lacks the {which} values {list}"),
                "a record with one of them becomes a dead letter",
            );
        }
        if source.nullable && !target.nullable {
            let column = if direction == Direction::ToCanonical { Column::Native } else { Column::Canonical };
            let message = format!("{} or null, {} wants {}", word(source.kind), direction.receiver(), word(target.kind));
            self.null_warning(index, column, &message, direction);
        }
        Some(Source::Values { from, table, quote: canonical.classification.is_none() })
    }

    fn reference(
        &mut self,
        index: usize,
        reference: &Reference,
        from: FieldPath,
        fields: (&Field, &Field),
        direction: Direction,
    ) -> Option<Source> {
        let (canonical, native) = match direction {
            Direction::ToCanonical => (fields.1, fields.0),
            Direction::FromCanonical => (fields.0, fields.1),
        };
        if reference.entity != self.source.entity {
            let message = format!("refers to {:?}; only the table's own entity can be referred to so far", reference.entity);
            self.error(index, Column::Reference, &message, &format!("reference: {{entity: {}}}", self.source.entity));
            return None;
        }
        if !matches!(canonical.kind, FieldType::String | FieldType::Any) {
            let message = format!("{}, a reference wants string", word(canonical.kind));
            self.error(index, Column::Canonical, &message, "a canonical id is text: type: string in the contract");
            return None;
        }
        if !matches!(native.kind, FieldType::Reference | FieldType::String | FieldType::Integer | FieldType::Any) {
            let message = format!("{}, a reference wants reference, string or integer", word(native.kind));
            self.error(index, Column::Native, &message, "name the native field that holds the other record's id");
            return None;
        }
        Some(Source::Reference { from, reference: reference.clone() })
    }

    fn lookup(&mut self, index: usize, row: &LookupRow, from: FieldPath, fields: (&Field, &Field), direction: Direction) -> Option<Source> {
        /// So many wrong lines are told; more are a wall.
        const TOLD: usize = 3;
        let name = &row.name;
        let Some(table) = self.source.lookups.get(name).cloned() else {
            self.error(index, Column::Lookup, &format!("there is no lookup table {name}"), "create its ConfigMap, or correct the name");
            return None;
        };
        let (source, target) = fields;
        let (canonical, native) = match direction {
            Direction::ToCanonical => (target, source),
            Direction::FromCanonical => (source, target),
        };
        let (twice, otherwise) = match direction {
            Direction::ToCanonical => (&table.native_twice, &row.canonical),
            Direction::FromCanonical => (&table.canonical_twice, &row.native),
        };
        if let Some(Twice { value, stands_for: [one, other] }) = twice {
            match direction {
                Direction::ToCanonical => {
                    let message = format!("the native value {value:?} of {name} stands for {one:?} and for {other:?}");
                    self.error(index, Column::Lookup, &message, "give it one canonical value");
                }
                Direction::FromCanonical if self.source.read => {
                    let message =
                        format!("{name} cannot be inverted, since {value:?} stands for {one:?} and for {other:?}: the row is only read");
                    self.warn(index, Column::Lookup, &message, "give each canonical value one native value to have it written");
                }
                Direction::FromCanonical => {
                    let message = format!("{name} cannot be inverted, since {value:?} stands for {one:?} and for {other:?}");
                    self.error(index, Column::Lookup, &message, "give each canonical value one native value");
                }
            }
            return None;
        }
        let mut wrong: Vec<(String, String)> = vec![];
        for (canonical_text, native_text) in &table.pairs {
            for (field, text, whose) in [(canonical, canonical_text, "contract"), (native, native_text, "native field")] {
                if let Err(message) = typed(field, text, whose) {
                    let hint =
                        nearest(text, field.values.iter().cloned()).map_or_else(String::new, |meant| format!("did you mean {meant}?"));
                    wrong.push((message, hint));
                }
            }
        }
        for (message, hint) in wrong.iter().take(TOLD) {
            self.error(index, Column::Lookup, &format!("{name}: {message}"), hint);
        }
        if wrong.len() > TOLD {
            self.error(index, Column::Lookup, &format!("{name}: {} more values do not fit", wrong.len() - TOLD), "");
        }
        let otherwise = match otherwise.as_ref().map(|text| typed(target, text, direction.receiver())).transpose() {
            Ok(otherwise) => otherwise,
            Err(message) => {
                self.error(index, Column::Lookup, &format!("otherwise: {message}"), "");
                return None;
            }
        };
        if !wrong.is_empty() {
            return None;
        }
        if source.nullable && !target.nullable {
            let column = if direction == Direction::ToCanonical { Column::Native } else { Column::Canonical };
            let message = format!("{} or null, {} wants {}", word(source.kind), direction.receiver(), word(target.kind));
            self.null_warning(index, column, &message, direction);
        }
        Some(Source::Lookup { from, name: name.clone(), table, direction, otherwise })
    }

    /// Makes the rules of lists from the rules inside them.
    fn close_lists(&mut self) {
        let rows = self.source.rows;
        for (index, list) in std::mem::take(&mut self.lists) {
            let Some(row) = rows.get(index) else { continue };
            let inbound = self.inner_inbound.remove(&index).unwrap_or_default();
            let outbound = self.inner_outbound.remove(&index).unwrap_or_default();
            let own_findings = self.findings.iter().any(|f| f.severity == Severity::Error);
            if inbound.is_empty() && outbound.is_empty() {
                if !own_findings {
                    let message = format!("no row says how the elements of {} are mapped", list.canonical);
                    self.error(
                        index,
                        Column::Row,
                        &message,
                        &format!("add rows such as {{canonical: {}.x, native: {}.X}}", list.canonical, list.native),
                    );
                }
                continue;
            }
            let key = row.key.as_ref().and_then(|key| self.element_key(index, &list, key));
            let canonical = self.canonical.lookup(&list.canonical);
            let native = self.native.lookup(&list.native);
            let digests = |rules: &[Rule]| {
                let all: Vec<Value> =
                    std::iter::once(digest(row)).chain(rules.iter().map(|rule| rule.digest)).map(|d| d.to_string().into()).collect();
                ValueHash::of(Some(&Value::Array(all))).0
            };
            let rule = |elements: Vec<Rule>, direction: Direction, field: &Field| {
                let (from, target) = match direction {
                    Direction::ToCanonical => (&list.native, &list.canonical),
                    Direction::FromCanonical => (&list.canonical, &list.native),
                };
                let own_key = key.clone().filter(|_| direction == Direction::ToCanonical);
                let key_path = own_key.as_ref().and_then(|key| format!("{from}.{key}").parse::<FieldPath>().ok());
                let inputs: BTreeSet<FieldPath> = elements.iter().flat_map(|rule| rule.inputs.iter().cloned()).chain(key_path).collect();
                let empty = match direction {
                    Direction::FromCanonical => Empty::Same,
                    Direction::ToCanonical if field.nullable => Empty::Absent,
                    Direction::ToCanonical => Empty::List,
                };
                Rule {
                    row: index,
                    origin: row.origin.clone(),
                    digest: digests(&elements),
                    canonical: row.canonical.clone(),
                    native: row.native.clone(),
                    unit: Some(list.canonical.clone()),
                    target: target.clone(),
                    own: Some(from.clone()),
                    inputs: inputs.into_iter().collect(),
                    convert: Convert::to(field, direction),
                    on_error: row.on_error,
                    source: Source::List { from: from.clone(), key: own_key, elements, empty },
                }
            };
            if let (Ok(field), false) = (&canonical, inbound.is_empty()) {
                self.inbound.push(rule(inbound, Direction::ToCanonical, field));
            }
            if let (Ok(field), false) = (&native, outbound.is_empty()) {
                self.outbound.push(rule(outbound, Direction::FromCanonical, field));
            }
        }
        self.inbound.sort_by_key(|rule| rule.row);
        self.outbound.sort_by_key(|rule| rule.row);
    }

    fn element_key(&mut self, index: usize, list: &ListRow, key: &FieldPath) -> Option<FieldPath> {
        let whole = format!("{}.{key}", list.native).parse::<FieldPath>().ok()?;
        match self.native.lookup(&whole) {
            Ok(_) => Some(key.clone()),
            Err(Unknown { hint }) => {
                let message = format!("there is no native field {whole}");
                self.error(index, Column::Key, &message, hint.as_deref().unwrap_or("name the field by which an element is known (Id)"));
                None
            }
        }
    }

    /// No two rows may give one field a value, in either direction.
    fn conflicts(&mut self) {
        fn clashes(rules: &[Rule]) -> Vec<(usize, usize, FieldPath, bool)> {
            let mut found = vec![];
            for (position, rule) in rules.iter().enumerate() {
                let earlier = rules
                    .iter()
                    .take(position)
                    .find(|other| rule.target.starts_with(&other.target) || other.target.starts_with(&rule.target));
                if let Some(other) = earlier {
                    found.push((rule.row, other.row, rule.target.clone(), rule.target == other.target));
                }
                if let Source::List { elements, .. } = &rule.source {
                    found.extend(clashes(elements));
                }
            }
            found
        }
        for (row, other, target, same) in clashes(&self.inbound) {
            let message = if same {
                format!("{} reads it already", self.called(other))
            } else {
                format!("{target} overlaps with what {} reads", self.called(other))
            };
            self.error(row, Column::Canonical, &message, "keep one of them, or let one only write (fromCanonical alone)");
        }
        for (row, other, target, same) in clashes(&self.outbound) {
            let message = if same {
                format!("{} writes {target} already", self.called(other))
            } else {
                format!("{target} overlaps with what {} writes", self.called(other))
            };
            self.error(row, Column::Native, &message, "keep one of them, or let one only read (toCanonical alone)");
        }
    }

    /// The correlation field.
    fn key(&mut self) -> Option<FieldPath> {
        let name = self.source.key?;
        let mut wrong = |message: String, hint: &str| {
            self.findings.push(Finding {
                severity: Severity::Error,
                row: None,
                column: Column::Key,
                message: format!("key: {message}"),
                hint: Some(hint.into()),
            });
        };
        let path = match name.parse::<FieldPath>() {
            Ok(path) => path,
            Err(error) => {
                wrong(format!("{name:?} is no field path: {error}"), "name a native field");
                return None;
            }
        };
        let field = match self.native.lookup(&path) {
            Ok(field) => field,
            Err(Unknown { hint }) => {
                let create = format!(
                    "create {path} in the system as a unique text field of {ID_LENGTH} characters (an external id where the system has such), let the account read and write it, and declare it in a definition that extends the built-in one"
                );
                wrong(format!("there is no native field {path}"), hint.as_deref().unwrap_or(&create));
                return None;
            }
        };
        if !matches!(field.kind, FieldType::String | FieldType::Any) {
            wrong(format!("{path} is {}, a canonical id is text", word(field.kind)), "name a text field");
        } else if !field.writable {
            wrong(format!("{path} cannot be written"), "name a field that the system lets you write");
        } else if field.max_length.is_some_and(|most| most < ID_LENGTH) {
            let most = field.max_length.unwrap_or_default();
            wrong(format!("{path} takes {most} characters, a canonical id has {ID_LENGTH}"), "make the field longer");
        }
        let clash = self.outbound.iter().find(|rule| rule.target == path).map(|rule| rule.row);
        if let Some(row) = clash {
            self.error(
                row,
                Column::Native,
                &format!("{path} is the key, which holds the canonical id and nothing else"),
                "take the row away",
            );
        }
        Some(path)
    }

    fn when(&mut self) -> Option<Expression> {
        let text = self.source.when?;
        let scope = Scope { root: "record", record: &self.canonical, item: None, side: "canonical" };
        let mut wrong = |message: String, hint: Option<String>| {
            self.findings.push(Finding {
                severity: Severity::Error,
                row: None,
                column: Column::When,
                message: format!("when: {message}"),
                hint,
            });
        };
        match Expression::compile(text, scope) {
            Ok(expression) => match expression.is_boolean() {
                Ok(()) => Some(expression),
                Err(given) => {
                    wrong(format!("{given}, a condition is boolean"), Some("compare with ==, or bool!(...)".into()));
                    None
                }
            },
            Err(problems) => {
                problems.into_iter().for_each(|problem| wrong(problem.message, problem.hint));
                None
            }
        }
    }

    /// A participant that reads reads something, and one that writes writes something.
    fn emptiness(&mut self) {
        if self.findings.iter().any(|finding| finding.severity == Severity::Error) {
            return;
        }
        let cases = [(self.source.read && self.inbound.is_empty(), "reads"), (self.source.write && self.outbound.is_empty(), "writes")];
        for (empty, verb) in cases {
            if empty {
                let message = format!("the participant {verb}, and no row of its table {verb} a field");
                let hint = Some("add a row such as {canonical: name, native: Name}".into());
                self.findings.push(Finding { severity: Severity::Error, row: None, column: Column::Row, message, hint });
            }
        }
    }

    fn finish(self, key: Option<FieldPath>, when: Option<Expression>) -> Result<Table, Vec<Finding>> {
        let mut findings = self.findings;
        findings.sort_by_key(|finding| finding.row.unwrap_or(usize::MAX));
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(findings);
        }
        let mut native_paths: BTreeSet<FieldPath> = key.into_iter().collect();
        for input in self.inbound.iter().flat_map(|rule| &rule.inputs) {
            let mut below = vec![];
            if let Some(node) = self.native.node(input) {
                node.paths_below(&input.to_string(), &mut below);
            }
            native_paths.extend(if below.is_empty() { vec![input.clone()] } else { below });
        }
        let units = |rules: &[Rule]| -> Vec<FieldPath> {
            let mut units: Vec<FieldPath> = vec![];
            rules.iter().filter_map(|rule| rule.unit.clone()).for_each(|unit| {
                if !units.contains(&unit) {
                    units.push(unit);
                }
            });
            units
        };
        let (readable_units, writable_units) = (units(&self.inbound), units(&self.outbound));
        let mapped: Vec<FieldPath> = self
            .source
            .rows
            .iter()
            .filter_map(|row| row.canonical.as_ref())
            .map(|path| path.list_root().unwrap_or_else(|| path.clone()))
            .collect();
        let mut canonical_units: Vec<FieldPath> = vec![];
        for unit in mapped {
            if (readable_units.contains(&unit) || writable_units.contains(&unit)) && !canonical_units.contains(&unit) {
                canonical_units.push(unit);
            }
        }
        let told = self.canonical.children().iter().filter(|(_, node)| !node.is_list() && !node.children().is_empty());
        let objects = told.map(|(name, node)| (name.clone(), node.children().keys().cloned().collect())).collect();
        Ok(Table {
            objects,
            rows: self.source.rows.len(),
            native_names: names(&self.inbound),
            canonical_names: names(&self.outbound),
            inbound: self.inbound,
            outbound: self.outbound,
            when,
            warnings: findings,
            native_paths: native_paths.into_iter().collect(),
            canonical_units,
            readable_units,
            writable_units,
        })
    }
}

/// The top-level fields that the expressions of `rules` look at.
fn names(rules: &[Rule]) -> BTreeSet<String> {
    rules
        .iter()
        .flat_map(|rule| match &rule.source {
            Source::Expression(expression) => expression.names().clone(),
            Source::List { elements, .. } => names(elements),
            _ => BTreeSet::new(),
        })
        .collect()
}

/// A text of a value table as a value of `field`.
fn typed(field: &Field, text: &str, whose: &str) -> Result<Value, String> {
    let value = match field.kind {
        FieldType::String | FieldType::Reference | FieldType::Any => Value::from(text),
        FieldType::Boolean => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return Err(format!("{text:?} is neither \"true\" nor \"false\", the {whose} wants boolean")),
        },
        FieldType::Integer => {
            text.parse::<i64>().map(Value::from).map_err(|_| format!("{text:?} is no whole number, the {whose} wants integer"))?
        }
        other => return Err(format!("a value table is for texts, whole numbers and booleans, the {whose} wants {}", word(other))),
    };
    if !field.values.is_empty() && !field.values.iter().any(|known| known == text) {
        return Err(format!("{text:?} is none of the values of the {whose}"));
    }
    match (field.max_length, text.chars().count()) {
        (Some(most), length) if length > most as usize => Err(format!("{text:?} has {length} characters, the {whose} takes {most}")),
        _ => Ok(value),
    }
}

/// Where a row stands makes no other row of it.
fn digest(row: &RowUnit) -> u64 {
    let row = RowUnit { origin: None, ..row.clone() };
    ValueHash::of(serde_json::to_value(row).ok().as_ref()).0
}

/// True for a list as a whole (`contacts[]`).
fn is_list(path: &FieldPath) -> bool {
    matches!(path.segments().last(), Some(Segment::List(_)))
}

fn lists_in(path: &FieldPath) -> usize {
    path.segments().iter().filter(|segment| matches!(segment, Segment::List(_))).count()
}

/// True when `row` maps something inside the list.
fn inside(row: &RowUnit, canonical: &FieldPath, native: Option<&FieldPath>) -> bool {
    let within = |path: &Option<FieldPath>, list: &FieldPath| {
        path.as_ref().is_some_and(|path| path != list && path.list_root().as_ref() == Some(list))
    };
    within(&row.canonical, canonical) || row.canonical.is_none() && native.is_some_and(|native| within(&row.native, native))
}

/// The path of the first element's field, as an expression writes it (`Contacts.records[0].Email`).
fn first_of(path: &FieldPath) -> String {
    path.to_string().replace("[]", "[0]")
}
