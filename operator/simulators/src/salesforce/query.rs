//! What a SOQL statement means: names become positions, conditions become tests, rows become JSON.
//!
//! Flow: [`Plan::new`] checks every name and the type of every literal against the schema; [`run`] finds the rows, in order;
//! [`page`] writes a part of them. As on the platform, text is compared without case, `!=` also finds nulls, nulls sort
//! first, and a row without children has `null` for its subquery.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Days, NaiveTime, SecondsFormat, Utc};

use super::errors::ApiError;
use super::ids;
use super::org::{Org, Row, stamp};
use super::schema::{self, ENTITIES, Entity, Field, Kind};
use super::soql::{self, Filter, Item, Literal, Name, Operator, Statement, Values};
use crate::core::value::{Fields, Value};

/// The largest offset that a statement may name.
const MAX_OFFSET: usize = 2_000;

/// A statement whose names are resolved.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) entity: usize,
    columns: Vec<Column>,
    filter: Option<Test>,
    order: Vec<Key>,
    limit: Option<usize>,
    offset: usize,
    /// `SELECT COUNT()`.
    pub(super) count: bool,
    /// Soft-deleted rows too.
    deleted: bool,
}

#[derive(Clone, Debug)]
enum Column {
    Field(usize),
    Parent { name: &'static str, position: usize, entity: usize, columns: Vec<Column> },
    Children { name: &'static str, plan: Box<Plan>, field: usize },
}

#[derive(Clone, Debug)]
struct Path {
    /// Reference fields to follow and where each leads.
    steps: Vec<(usize, usize)>,
    entity: usize,
    position: usize,
}

#[derive(Clone, Debug)]
struct Key {
    path: Path,
    descending: bool,
    nulls_last: bool,
}

#[derive(Clone, Debug)]
enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Compare { path: Path, operator: Operator, operand: Operand },
    Member { path: Path, values: HashSet<String>, null: bool, negated: bool },
    MemberOf { path: Path, plan: Box<Plan>, column: usize, negated: bool },
}

/// A literal in the form in which it is compared.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Null,
    Bool(bool),
    Number(BigDecimal),
    /// Lower case for text; as it is for ids and stamps.
    Text(String),
    /// From, and the first moment after.
    Span(String, String),
}

struct Context<'a> {
    text: &'a str,
    now: DateTime<Utc>,
}

impl Plan {
    /// Resolves a statement.
    pub(super) fn new(text: &str, deleted: bool, now: DateTime<Utc>) -> Result<Self, ApiError> {
        let statement = soql::parse(text)?;
        let context = Context { text, now };
        let Some(entity) = schema::entity(&statement.from.text) else {
            let message = format!(
                "sObject type '{}' is not supported. If you are attempting to use a custom object, be sure to append the '__c' after \
                 the entity name. Please reference your WSDL or the describe call for the appropriate names.",
                statement.from.text
            );
            return Err(soql::error(text, statement.from.at, "INVALID_TYPE", &message));
        };
        context.plan(&statement, entity, deleted)
    }

    /// True where a row carries its children.
    pub(super) fn wide(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Children { .. }))
    }
}

impl Context<'_> {
    fn plan(&self, statement: &Statement, entity: usize, deleted: bool) -> Result<Plan, ApiError> {
        let count = statement.selection.contains(&Item::Count);
        if count && statement.selection.len() > 1 {
            return Err(ApiError::data("MALFORMED_QUERY", "COUNT() must be the only item of the select list", &[]));
        }
        let mut columns = Vec::new();
        for item in &statement.selection {
            match item {
                Item::Count => {}
                Item::Field(name) => self.select(&mut columns, entity, &name.text, name)?,
                Item::Group(group) => self.group(&mut columns, entity, group, statement.limit)?,
                Item::Children(inner) => columns.push(self.children(entity, inner, deleted)?),
            }
        }
        if statement.offset > MAX_OFFSET {
            let message = format!("Maximum SOQL offset allowed is {MAX_OFFSET}");
            return Err(ApiError::data("NUMBER_OUTSIDE_VALID_RANGE", message, &[]));
        }
        let order = statement.order.iter().map(|order| {
            let (path, field) = self.path(entity, &order.field)?;
            if !field.kind.filterable() {
                let message = format!("field '{}' can not be sorted in a query call", field.name);
                return Err(soql::error(self.text, order.field.at, "INVALID_FIELD", &message));
            }
            Ok(Key { path, descending: order.descending, nulls_last: order.nulls_last })
        });
        Ok(Plan {
            entity,
            order: order.collect::<Result<_, _>>()?,
            columns,
            filter: statement.filter.as_ref().map(|filter| self.test(entity, filter)).transpose()?,
            limit: statement.limit,
            offset: statement.offset,
            count,
            deleted,
        })
    }

    /// Adds a field, or a field of a parent to what is already selected of that parent.
    fn select(&self, columns: &mut Vec<Column>, entity: usize, rest: &str, name: &Name) -> Result<(), ApiError> {
        let (first, rest) = rest.split_once('.').map_or((rest, None), |(first, rest)| (first, Some(rest)));
        // `Account.Name` in a query on Account names the entity itself.
        if let Some(rest) = rest.filter(|_| ENTITIES[entity].name.eq_ignore_ascii_case(first) && ENTITIES[entity].parent(first).is_none()) {
            return self.select(columns, entity, rest, name);
        }
        let Some(rest) = rest else {
            let position = self.column(entity, first, name)?;
            if columns.iter().any(|column| matches!(column, Column::Field(known) if *known == position)) {
                let message = format!("duplicate field selected: {}", ENTITIES[entity].fields[position].name);
                return Err(soql::error(self.text, name.at, "INVALID_FIELD", &message));
            }
            columns.push(Column::Field(position));
            return Ok(());
        };
        let (position, parent, relationship) = self.relationship(entity, first, name)?;
        for column in columns.iter_mut() {
            if let Column::Parent { position: known, columns, .. } = column
                && *known == position
            {
                return self.select(columns, parent, rest, name);
            }
        }
        let mut inner = Vec::new();
        self.select(&mut inner, parent, rest, name)?;
        columns.push(Column::Parent { name: relationship, position, entity: parent, columns: inner });
        Ok(())
    }

    fn group(&self, columns: &mut Vec<Column>, entity: usize, group: &Name, limit: Option<usize>) -> Result<(), ApiError> {
        let wanted: fn(&Field) -> bool = match group.text.as_str() {
            "ALL" => |_| true,
            "CUSTOM" => Field::custom,
            "STANDARD" => |field| !field.custom(),
            _ => return Err(soql::error(self.text, group.at, "MALFORMED_QUERY", &format!("unexpected token: '{}'", group.text))),
        };
        if group.text != "STANDARD" && limit.is_none_or(|limit| limit > 200) {
            let message = "The SOQL FIELDS function must have a LIMIT of at most 200";
            return Err(ApiError::data("MALFORMED_QUERY", message, &[]));
        }
        let fields = ENTITIES[entity].fields.iter().enumerate();
        columns.extend(fields.filter(|(_, field)| wanted(field)).map(|(position, _)| Column::Field(position)));
        Ok(())
    }

    fn children(&self, entity: usize, inner: &Statement, deleted: bool) -> Result<Column, ApiError> {
        let children = ENTITIES[entity].children.iter();
        let found = children.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(&inner.from.text));
        let resolved = found.and_then(|(name, child, field)| {
            let child = schema::entity(child)?;
            Some((*name, child, ENTITIES[child].position(field)?))
        });
        let Some((name, child, field)) = resolved else {
            let message = format!(
                "Didn't understand relationship '{}' in FROM part of query call. If you are attempting to use a custom relationship, be \
                 sure to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the \
                 appropriate names.",
                inner.from.text
            );
            return Err(soql::error(self.text, inner.from.at, "INVALID_TYPE", &message));
        };
        let plan = self.plan(inner, child, deleted)?;
        if plan.count {
            return Err(soql::error(self.text, inner.from.at, "MALFORMED_QUERY", "COUNT() is not allowed in a subquery"));
        }
        Ok(Column::Children { name, plan: Box::new(plan), field })
    }

    fn column(&self, entity: usize, field: &str, name: &Name) -> Result<usize, ApiError> {
        ENTITIES[entity].position(field).ok_or_else(|| {
            let message = format!(
                "No such column '{field}' on entity '{}'. If you are attempting to use a custom field, be sure to append the '__c' after \
                 the custom field name. Please reference your WSDL or the describe call for the appropriate names.",
                ENTITIES[entity].name
            );
            soql::error(self.text, name.at, "INVALID_FIELD", &message)
        })
    }

    fn relationship(&self, entity: usize, relationship: &str, name: &Name) -> Result<(usize, usize, &'static str), ApiError> {
        let found = ENTITIES[entity].parent(relationship);
        found.and_then(|(position, parent, proper)| Some((position, schema::entity(parent)?, proper))).ok_or_else(|| {
            let message = format!(
                "Didn't understand relationship '{relationship}' in field path. If you are attempting to use a custom relationship, be sure \
                 to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the \
                 appropriate names."
            );
            soql::error(self.text, name.at, "INVALID_FIELD", &message)
        })
    }

    fn path(&self, from: usize, name: &Name) -> Result<(Path, &'static Field), ApiError> {
        let mut entity = from;
        let mut steps = Vec::new();
        let mut parts = name.text.split('.').peekable();
        let mut last = "";
        while let Some(part) = parts.next() {
            last = part;
            if parts.peek().is_none() {
                break;
            }
            if steps.is_empty() && ENTITIES[entity].name.eq_ignore_ascii_case(part) && ENTITIES[entity].parent(part).is_none() {
                continue;
            }
            let (position, parent, _) = self.relationship(entity, part, name)?;
            steps.push((position, parent));
            entity = parent;
        }
        let position = self.column(entity, last, name)?;
        Ok((Path { steps, entity, position }, &ENTITIES[entity].fields[position]))
    }

    fn test(&self, entity: usize, filter: &Filter) -> Result<Test, ApiError> {
        let all = |parts: &[Filter]| parts.iter().map(|part| self.test(entity, part)).collect::<Result<Vec<_>, _>>();
        Ok(match filter {
            Filter::All(parts) => Test::All(all(parts)?),
            Filter::Any(parts) => Test::Any(all(parts)?),
            Filter::Not(inner) => Test::Not(Box::new(self.test(entity, inner)?)),
            Filter::Compare { field, operator, value } => {
                let (path, known) = self.filterable(entity, field)?;
                let operand = self.operand(known, field, value)?;
                let ordered = !matches!(operator, Operator::Equal | Operator::Unequal);
                let wrong = match known.kind {
                    Kind::Boolean => ordered,
                    Kind::Int(_) | Kind::Currency(..) | Kind::DateTime | Kind::Id | Kind::Reference(..) => *operator == Operator::Like,
                    _ => false,
                };
                if wrong {
                    let message = format!("invalid operator on {} field", known.kind.name());
                    return Err(soql::error(self.text, field.at, "INVALID_QUERY_FILTER_OPERATOR", &message));
                }
                Test::Compare { path, operator: *operator, operand }
            }
            Filter::In { field, negated, values: Values::List(list) } => {
                let (path, known) = self.filterable(entity, field)?;
                self.member(path, known, field, list, *negated)?
            }
            Filter::In { field, negated, values: Values::Query(inner) } => {
                let (path, _) = self.filterable(entity, field)?;
                let inner_entity = schema::entity(&inner.from.text).ok_or_else(|| {
                    let message = format!("sObject type '{}' is not supported.", inner.from.text);
                    soql::error(self.text, inner.from.at, "INVALID_TYPE", &message)
                })?;
                let plan = self.plan(inner, inner_entity, false)?;
                let [Column::Field(column)] = plan.columns.as_slice() else {
                    let message = "The inner select must have exactly one column";
                    return Err(soql::error(self.text, inner.from.at, "MALFORMED_QUERY", message));
                };
                let column = *column;
                Test::MemberOf { path, plan: Box::new(plan), column, negated: *negated }
            }
        })
    }

    fn member(&self, path: Path, known: &Field, name: &Name, list: &[Literal], negated: bool) -> Result<Test, ApiError> {
        let operands: Vec<Operand> = list.iter().map(|literal| self.operand(known, name, literal)).collect::<Result<_, _>>()?;
        if operands.iter().all(|operand| matches!(operand, Operand::Text(_) | Operand::Null)) {
            let null = operands.contains(&Operand::Null);
            let values = operands.into_iter().filter_map(|operand| match operand {
                Operand::Text(text) => Some(text),
                _ => None,
            });
            return Ok(Test::Member { path, values: values.collect(), null, negated });
        }
        let equal = |operand| Test::Compare { path: path.clone(), operator: Operator::Equal, operand };
        let any = Test::Any(operands.into_iter().map(equal).collect());
        Ok(if negated { Test::Not(Box::new(any)) } else { any })
    }

    fn filterable(&self, entity: usize, name: &Name) -> Result<(Path, &'static Field), ApiError> {
        let (path, field) = self.path(entity, name)?;
        if field.kind.filterable() {
            return Ok((path, field));
        }
        let message = format!("field '{}' can not be filtered in a query call", field.name);
        Err(soql::error(self.text, name.at, "INVALID_FIELD", &message))
    }

    fn operand(&self, field: &Field, name: &Name, literal: &Literal) -> Result<Operand, ApiError> {
        let wrong = |wanted: &str| {
            let message = format!("value of filter criterion for field '{}' must be of type {wanted}", field.name);
            soql::error(self.text, name.at, "INVALID_FIELD", &message)
        };
        match (field.kind, literal) {
            (_, Literal::Null) => Ok(Operand::Null),
            (Kind::Boolean, Literal::Bool(flag)) => Ok(Operand::Bool(*flag)),
            (Kind::Boolean, _) => Err(wrong("boolean and should not be enclosed in quotes")),
            (Kind::Int(_) | Kind::Currency(..), Literal::Number(number)) => {
                BigDecimal::from_str(number).map(Operand::Number).map_err(|_| wrong("double"))
            }
            (Kind::Int(_) | Kind::Currency(..), _) => Err(wrong("double and should not be enclosed in quotes")),
            (Kind::DateTime, Literal::DateTime(at)) => {
                let text = at.to_rfc3339_opts(SecondsFormat::Millis, true);
                Ok(Operand::Text(format!("{}+0000", text.trim_end_matches('Z'))))
            }
            (Kind::DateTime, Literal::Days { from, count }) => {
                let day = |offset: i64| {
                    let today = self.now.date_naive();
                    let step = Days::new(offset.unsigned_abs());
                    let day = if offset < 0 { today.checked_sub_days(step) } else { today.checked_add_days(step) };
                    stamp(day.unwrap_or(today).and_time(NaiveTime::MIN).and_utc())
                };
                Ok(Operand::Span(day(*from), day(from + count)))
            }
            (Kind::DateTime, _) => Err(wrong("dateTime and should not be enclosed in quotes")),
            (Kind::Id | Kind::Reference(..), Literal::Text(text)) if text.is_empty() => Ok(Operand::Null),
            (Kind::Id | Kind::Reference(..), Literal::Text(text)) => ids::normal(text)
                .map(Operand::Text)
                .ok_or_else(|| soql::error(self.text, name.at, "INVALID_QUERY_FILTER_OPERATOR", &format!("invalid ID field: {text}"))),
            (_, Literal::Text(text)) if text.is_empty() => Ok(Operand::Null),
            (_, Literal::Text(text)) if field.unique => Ok(Operand::Text(text.clone())),
            (_, Literal::Text(text)) => Ok(Operand::Text(text.to_lowercase())),
            _ => Err(wrong("string and should be enclosed in quotes")),
        }
    }
}

/// The rows that a plan finds, in order. `horizon`: as a reader sees them who knows nothing later.
pub(super) fn run(org: &Org, plan: &Plan, horizon: Option<DateTime<Utc>>) -> Vec<Arc<Row>> {
    let table = &org.tables[plan.entity];
    // What a row was before may have other values than the index knows.
    match plan.filter.as_ref().filter(|_| horizon.is_none()).and_then(|filter| candidates(org, plan, filter)) {
        Some(ids) => select(org, plan, ids.iter().filter_map(|id| table.rows.get(id)), None),
        None => select(org, plan, table.rows.values(), horizon),
    }
}

/// The ids among which all rows lie that a condition can select, where an index tells.
fn candidates(org: &Org, plan: &Plan, filter: &Test) -> Option<BTreeSet<String>> {
    let by = |path: &Path, values: &mut dyn Iterator<Item = &String>| -> Option<BTreeSet<String>> {
        let field = &ENTITIES[path.entity].fields[path.position];
        let found = |value: &String| org.matching(path.entity, path.position, value);
        match field.kind {
            _ if !path.steps.is_empty() => None,
            Kind::Id => Some(values.cloned().collect()),
            // The index knows no external ids of deleted rows.
            _ if field.external && !plan.deleted => Some(values.flat_map(found).collect()),
            _ => None,
        }
    };
    match filter {
        Test::All(parts) => parts.iter().find_map(|part| candidates(org, plan, part)),
        Test::Compare { path, operator: Operator::Equal, operand: Operand::Text(value) } => by(path, &mut std::iter::once(value)),
        Test::Member { path, values, null: false, negated: false } => by(path, &mut values.iter()),
        _ => None,
    }
}

/// The rows among these that a plan finds, in order.
fn select<'a>(org: &Org, plan: &Plan, rows: impl Iterator<Item = &'a Arc<Row>>, horizon: Option<DateTime<Utc>>) -> Vec<Arc<Row>> {
    let filter = plan.filter.as_ref().map(|filter| ready(org, filter, horizon));
    let seen = rows.filter_map(|row| match horizon {
        Some(horizon) => row.at(horizon),
        None => Some(row),
    });
    let mut rows: Vec<Arc<Row>> = seen
        .filter(|row| (plan.deleted || !row.deleted) && filter.as_ref().is_none_or(|filter| holds(org, filter, row)))
        .cloned()
        .collect();
    if !plan.order.is_empty() {
        let mut keyed: Vec<(Vec<SortKey>, Arc<Row>)> = rows
            .into_iter()
            .map(|row| (plan.order.iter().map(|key| SortKey::of(&lookup(org, &key.path, &row), &key.path)).collect(), row))
            .collect();
        keyed.sort_by(|(one, _), (two, _)| {
            let pairs = plan.order.iter().zip(one.iter().zip(two));
            pairs.map(|(key, (one, two))| SortKey::order(one, two, key)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        rows = keyed.into_iter().map(|(_, row)| row).collect();
    }
    rows.drain(..plan.offset.min(rows.len()));
    rows.truncate(plan.limit.unwrap_or(usize::MAX));
    rows
}

/// Runs semi-joins once, before rows are looked at.
fn ready(org: &Org, test: &Test, horizon: Option<DateTime<Utc>>) -> Test {
    let all = |parts: &[Test]| parts.iter().map(|part| ready(org, part, horizon)).collect();
    match test {
        Test::All(parts) => Test::All(all(parts)),
        Test::Any(parts) => Test::Any(all(parts)),
        Test::Not(inner) => Test::Not(Box::new(ready(org, inner, horizon))),
        Test::MemberOf { path, plan, column, negated } => {
            let kind = ENTITIES[plan.entity].fields[*column].kind;
            let found = run(org, plan, horizon);
            let values = found.iter().filter_map(|row| row.values[*column].as_str());
            let values =
                values.map(|text| if matches!(kind, Kind::Id | Kind::Reference(..)) { text.to_owned() } else { text.to_lowercase() });
            Test::Member { path: path.clone(), values: values.collect(), null: false, negated: *negated }
        }
        other => other.clone(),
    }
}

fn lookup(org: &Org, path: &Path, row: &Row) -> Value {
    if path.steps.is_empty() {
        return row.values[path.position].clone();
    }
    let mut values = &row.values;
    for (position, entity) in &path.steps {
        let parent = values[*position].as_str().and_then(|id| org.tables[*entity].rows.get(id));
        match parent {
            Some(parent) => values = &parent.values,
            None => return Value::Null,
        }
    }
    values[path.position].clone()
}

fn holds(org: &Org, test: &Test, row: &Row) -> bool {
    match test {
        Test::All(parts) => parts.iter().all(|part| holds(org, part, row)),
        Test::Any(parts) => parts.iter().any(|part| holds(org, part, row)),
        Test::Not(inner) => !holds(org, inner, row),
        Test::Compare { path, operator, operand } => compare(&lookup(org, path, row), path, *operator, operand),
        Test::Member { path, values, null, negated } => {
            let found = match text_key(&lookup(org, path, row), path) {
                Some(text) => values.contains(&text),
                None => *null,
            };
            found != *negated
        }
        // `ready` has replaced these.
        Test::MemberOf { .. } => false,
    }
}

/// A text in the form in which texts of its field are compared.
fn text_key(value: &Value, path: &Path) -> Option<String> {
    let field = &ENTITIES[path.entity].fields[path.position];
    let exact = field.unique || matches!(field.kind, Kind::Id | Kind::Reference(..) | Kind::DateTime);
    value.as_str().map(|text| if exact { text.to_owned() } else { text.to_lowercase() })
}

fn compare(value: &Value, path: &Path, operator: Operator, operand: &Operand) -> bool {
    let order = match (value, operand) {
        (Value::Null, Operand::Null) => return operator == Operator::Equal,
        (Value::Null, _) | (_, Operand::Null) => return operator == Operator::Unequal,
        (Value::Bool(one), Operand::Bool(two)) => one.cmp(two),
        (Value::Number(one), Operand::Number(two)) => match BigDecimal::from_str(one) {
            Ok(one) => one.cmp(two),
            Err(_) => return false,
        },
        (Value::Text(stamp), Operand::Span(from, to)) => {
            return match operator {
                Operator::Equal => stamp >= from && stamp < to,
                Operator::Unequal => stamp < from || stamp >= to,
                Operator::Less => stamp < from,
                Operator::LessOrEqual => stamp < to,
                Operator::Greater => stamp >= to,
                Operator::GreaterOrEqual => stamp >= from,
                Operator::Like => false,
            };
        }
        (Value::Text(_), Operand::Text(two)) => match text_key(value, path) {
            Some(one) if operator == Operator::Like => return like(&one, two),
            Some(one) => one.cmp(two),
            None => return false,
        },
        _ => return false,
    };
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        Operator::Like => false,
    }
}

/// `%` stands for any text, `_` for one character, `\` takes the meaning from the next one.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '%' => None,
            '_' => Some(None),
            '\\' => Some(Some(letters.next().unwrap_or('\\'))),
            plain => Some(Some(plain)),
        });
    }
    // Where the last `%` was, to come back to: the position after it in the pattern, and in the text.
    let (mut at, mut in_text, mut back) = (0, 0, None);
    while in_text < text.len() {
        match parts.get(at) {
            Some(None) => {
                at += 1;
                back = Some((at, in_text));
            }
            Some(Some(wanted)) if wanted.is_none_or(|wanted| wanted == text[in_text]) => {
                at += 1;
                in_text += 1;
            }
            _ => match back {
                Some((pattern_at, text_at)) => {
                    at = pattern_at;
                    in_text = text_at + 1;
                    back = Some((pattern_at, in_text));
                }
                None => return false,
            },
        }
    }
    parts[at..].iter().all(Option::is_none)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Null,
    Bool(bool),
    Number(BigDecimal),
    Text(String),
}

impl SortKey {
    fn of(value: &Value, path: &Path) -> Self {
        match value {
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => BigDecimal::from_str(number).map_or(Self::Null, Self::Number),
            Value::Text(_) => text_key(value, path).map_or(Self::Null, Self::Text),
            _ => Self::Null,
        }
    }

    fn order(one: &Self, two: &Self, key: &Key) -> Ordering {
        match (one, two) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => {
                if key.nulls_last {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (_, Self::Null) => {
                if key.nulls_last {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            _ if key.descending => two.cmp(one),
            _ => one.cmp(two),
        }
    }
}

/// Writes rows as records.
pub(super) fn page(org: &Org, plan: &Plan, rows: &[Arc<Row>], base: &str) -> Value {
    Value::List(rows.iter().map(|row| record(org, plan.entity, &plan.columns, row, base)).collect())
}

fn record(org: &Org, entity: usize, columns: &[Column], row: &Row, base: &str) -> Value {
    let mut fields = attributes(entity, &row.id, base);
    for column in columns {
        match column {
            Column::Field(position) => {
                fields.insert(ENTITIES[entity].fields[*position].name.to_owned(), value(entity, *position, row));
            }
            Column::Parent { name, position, entity, columns } => {
                let parent = row.values[*position].as_str().and_then(|id| org.tables[*entity].rows.get(id));
                let shown = parent.map_or(Value::Null, |parent| record(org, *entity, columns, parent, base));
                fields.insert((*name).to_owned(), shown);
            }
            Column::Children { name, plan, field } => {
                let table = &org.tables[plan.entity];
                let ids = table.find(&ENTITIES[plan.entity], *field, &row.id);
                let rows = select(org, plan, ids.iter().filter_map(|id| table.rows.get(id)), None);
                let records: Vec<Value> = rows.iter().map(|row| record(org, plan.entity, &plan.columns, row, base)).collect();
                let shown = if records.is_empty() {
                    Value::Null
                } else {
                    Value::object([
                        ("totalSize", Value::Number(records.len().to_string())),
                        ("done", Value::Bool(true)),
                        ("records", Value::List(records)),
                    ])
                };
                fields.insert((*name).to_owned(), shown);
            }
        }
    }
    Value::Object(fields)
}

fn attributes(entity: usize, id: &str, base: &str) -> Fields {
    let name = ENTITIES[entity].name;
    let attributes = Value::object([("type", Value::text(name)), ("url", Value::Text(format!("{base}/sobjects/{name}/{id}")))]);
    Fields::from_iter([("attributes".to_owned(), attributes)])
}

/// One record with these fields (by position), or with all.
pub(super) fn single(entity: usize, row: &Row, only: Option<&[usize]>, base: &str) -> Value {
    let mut fields = attributes(entity, &row.id, base);
    let all: Vec<usize>;
    let positions = match only {
        Some(positions) => positions,
        None => {
            all = (0..ENTITIES[entity].fields.len()).collect();
            &all
        }
    };
    for position in positions {
        fields.insert(ENTITIES[entity].fields[*position].name.to_owned(), value(entity, *position, row));
    }
    Value::Object(fields)
}

fn value(entity: usize, position: usize, row: &Row) -> Value {
    let schema = &ENTITIES[entity];
    match schema.fields[position].kind {
        Kind::Address(prefix) => address(schema, prefix, row),
        _ => row.values[position].clone(),
    }
}

fn address(schema: &Entity, prefix: &str, row: &Row) -> Value {
    let part = |name: &str| schema.position(&format!("{prefix}{name}")).map_or(Value::Null, |at| row.values[at].clone());
    let names = ["City", "Country", "CountryCode", "PostalCode", "State", "Street"];
    if names.iter().all(|name| part(name).is_null()) {
        return Value::Null;
    }
    Value::object([
        ("city", part("City")),
        ("country", part("Country")),
        ("countryCode", part("CountryCode")),
        ("geocodeAccuracy", Value::Null),
        ("latitude", Value::Null),
        ("longitude", Value::Null),
        ("postalCode", part("PostalCode")),
        ("state", part("State")),
        ("stateCode", Value::Null),
        ("street", part("Street")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_as_the_platform_does() {
        for (text, pattern, expected) in [
            ("acme", "ac%", true),
            ("acme", "%me", true),
            ("acme", "a_me", true),
            ("acme", "a_e", false),
            ("acme", "%", true),
            ("", "%", true),
            ("", "_", false),
            ("50%", "50\\%", true),
            ("500", "50\\%", false),
            ("aXbXc", "a%X%c", true),
            ("mississippi", "%iss%pi", true),
        ] {
            assert_eq!(like(text, pattern), expected, "{text} like {pattern}");
        }
    }

    #[test]
    fn what_an_index_narrows_is_what_a_full_pass_finds() {
        let setting =
            crate::Setting { endpoint: String::new(), seed: 1, universe: crate::core::universe::Universe::new(1), companies: 0..200 };
        let mut org = Org::new(&setting);
        let ids: Vec<String> = org.tables[0].rows.keys().cloned().collect();
        for (number, id) in ids.iter().enumerate().take(60) {
            let values = Fields::from_iter([
                ("Tax_Number__c".to_owned(), Value::Text(format!("Tax{}", number % 7))),
                ("Fairlead_Id__c".to_owned(), Value::Text(format!("F{number}"))),
            ]);
            org.write(0, &super::super::dml::Target::Id(id.clone()), &values, Utc::now()).unwrap();
        }
        org.delete(0, &ids[8], Utc::now()).unwrap();
        let mut narrowed = 0;
        for condition in [
            format!("Id = '{}'", ids[8]),
            format!("Id IN ('{}', '{}') AND Tax_Number__c = 'TAX3'", ids[3], &ids[8][..15]),
            "Tax_Number__c = 'tax1'".to_owned(),
            "Tax_Number__c IN ('tax1', 'TAX2', 'none') AND Name != null".to_owned(),
            "Fairlead_Id__c IN ('F1', 'f2', 'F8')".to_owned(),
            "(Fairlead_Id__c = 'F1' OR Fairlead_Id__c = 'F2')".to_owned(),
            "Fairlead_Id__c NOT IN ('F1')".to_owned(),
            "Tax_Number__c IN ('tax1', null)".to_owned(),
        ] {
            for deleted in [false, true] {
                let plan = Plan::new(&format!("SELECT Id FROM Account WHERE {condition} ORDER BY Id"), deleted, Utc::now()).unwrap();
                let all = select(&org, &plan, org.tables[0].rows.values(), None);
                let found = run(&org, &plan, None);
                let ids = |rows: &[Arc<Row>]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
                assert_eq!(ids(&found), ids(&all), "{condition} deleted={deleted}");
                narrowed += usize::from(candidates(&org, &plan, plan.filter.as_ref().unwrap()).is_some());
            }
        }
        assert!(narrowed >= 7, "{narrowed}");
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place() {
        let error = Plan::new("SELECT Id, Nope__c FROM Account", false, Utc::now()).unwrap_err();
        assert_eq!(error.code, "INVALID_FIELD");
        assert!(error.message.contains("No such column 'Nope__c' on entity 'Account'"), "{}", error.message);
        assert!(error.message.contains("Column:12"), "{}", error.message);
    }

    #[test]
    fn a_literal_of_the_wrong_type_is_refused() {
        for (condition, code) in [
            ("Name = 5", "INVALID_FIELD"),
            ("Credit_Limit__c = '5'", "INVALID_FIELD"),
            ("SystemModstamp > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
            ("Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"),
            ("Description = 'x'", "INVALID_FIELD"),
            ("CreatedDate LIKE null", "INVALID_QUERY_FILTER_OPERATOR"),
        ] {
            let error = Plan::new(&format!("SELECT Id FROM Account WHERE {condition}"), false, Utc::now()).unwrap_err();
            assert_eq!(error.code, code, "{condition}: {}", error.message);
        }
    }
}
