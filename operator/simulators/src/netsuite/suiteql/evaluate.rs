//! Runs a compiled query: sources and joins, `WHERE`, groups, order, page, projection.

use super::compile::{self, Aggregate, Arithmetic, Comparison, Function, Node, Scope, ScopeColumn, unsupported};
use super::{Catalog, Cell, Page, QueryError, Row, cell};
use bigdecimal::{BigDecimal, ToPrimitive, Zero};
use rand::RngCore;
use rand::seq::SliceRandom;
use sqlparser::ast;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Runs `query`; without a page the whole result is returned.
pub(super) fn run(
    catalog: &dyn Catalog,
    query: &ast::Query,
    page: Option<Range<usize>>,
    shuffle: &mut dyn RngCore,
) -> Result<Page, QueryError> {
    let select = checked(query)?;
    let (scope, mut rows) = source(catalog, select, shuffle)?;
    if let Some(condition) = &select.selection {
        let condition = compile::expression(catalog, &scope, condition)?;
        rows = filtered(catalog, &condition, rows)?;
    }
    // What the ORDER BY leaves tied has no order, here as there.
    rows.shuffle(shuffle);

    let outputs = projection(catalog, &scope, &select.projection)?;
    let order = ordering(catalog, &scope, &outputs, query.order_by.as_ref())?;
    let mut units = units(catalog, &scope, select, rows, &outputs, &order)?;
    if !order.is_empty() {
        let mut keyed = units
            .into_iter()
            .map(|unit| {
                let keys = order.iter().map(|term| unit.value(catalog, &term.node)).collect::<Result<Vec<_>, _>>()?;
                Ok((keys, unit))
            })
            .collect::<Result<Vec<_>, QueryError>>()?;
        keyed.sort_by(|(a, _), (b, _)| compare_keys(&order, a, b));
        units = keyed.into_iter().map(|(_, unit)| unit).collect();
    }

    let columns = outputs.iter().map(|(name, _)| name.clone()).collect();
    let project = |unit: &Unit| outputs.iter().map(|(_, node)| unit.value(catalog, node)).collect::<Result<Vec<_>, _>>();
    let within = |total: usize, wanted: Range<usize>| wanted.start.min(total)..wanted.end.min(total);
    let limit = window(catalog, query)?;
    if matches!(select.distinct, Some(ast::Distinct::Distinct)) {
        let mut seen = HashSet::new();
        let mut rows = Vec::new();
        for unit in &units {
            let row = project(unit)?;
            if seen.insert(row.iter().map(Cell::grouping_key).collect::<Vec<_>>()) {
                rows.push(row);
            }
        }
        let limited = rows[within(rows.len(), limit)].to_vec();
        let total = limited.len();
        let rows = limited[within(total, page.unwrap_or(0..total))].to_vec();
        return Ok(Page { columns, rows, total });
    }
    let limited = &units[within(units.len(), limit)];
    let total = limited.len();
    let rows = limited[within(total, page.unwrap_or(0..total))].iter().map(project).collect::<Result<_, _>>()?;
    Ok(Page { columns, rows, total })
}

/// The `SELECT` of a query, once everything that would silently be ignored has been refused.
fn checked(query: &ast::Query) -> Result<&ast::Select, QueryError> {
    let limited = match &query.limit_clause {
        None => false,
        Some(ast::LimitClause::LimitOffset { limit, limit_by, .. }) => limit.is_some() || !limit_by.is_empty(),
        Some(ast::LimitClause::OffsetCommaLimit { .. }) => true,
    };
    if limited {
        return Err(unsupported("LIMIT"));
    }
    if query.with.is_some() || !query.locks.is_empty() || query.for_clause.is_some() {
        return Err(unsupported("WITH and FOR"));
    }
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return Err(unsupported("set operations"));
    };
    if select.top.is_some() || select.having.is_some() || select.qualify.is_some() || !select.connect_by.is_empty() {
        return Err(unsupported("TOP, HAVING, QUALIFY and CONNECT BY"));
    }
    if matches!(select.distinct, Some(ast::Distinct::On(_))) {
        return Err(unsupported("DISTINCT ON"));
    }
    Ok(select)
}

/// The rows that `OFFSET ... ROWS` and `FETCH FIRST n ROWS ONLY` leave.
fn window(catalog: &dyn Catalog, query: &ast::Query) -> Result<Range<usize>, QueryError> {
    let count = |expr: &ast::Expr| -> Result<usize, QueryError> {
        let node = compile::expression(catalog, &Scope::default(), expr)?;
        let number = constant(catalog, &node)?.as_number()?.and_then(|n| n.to_usize());
        number.ok_or_else(|| QueryError::Syntax("OFFSET and FETCH take a whole number.".into()))
    };
    let start = match &query.limit_clause {
        Some(ast::LimitClause::LimitOffset { offset: Some(offset), .. }) => count(&offset.value)?,
        _ => 0,
    };
    let length = match &query.fetch {
        None => usize::MAX,
        Some(ast::Fetch { with_ties: false, percent: false, quantity }) => quantity.as_ref().map_or(Ok(1), count)?,
        Some(_) => return Err(unsupported("FETCH with PERCENT or WITH TIES")),
    };
    Ok(start..start.saturating_add(length))
}

// === Sources ===

/// A row of the source: the row of its first table, and those that joins put beside it. Rows are shared, not copied.
#[derive(Clone)]
struct Line {
    first: Row,
    more: Vec<Row>,
}

impl From<Row> for Line {
    fn from(first: Row) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl Line {
    /// The cell at this position of the scope.
    fn cell(&self, mut at: usize) -> &Cell {
        for row in std::iter::once(&self.first).chain(&self.more) {
            match row.get(at) {
                Some(cell) => return cell,
                None => at -= row.len(),
            }
        }
        &Cell::Null
    }

    fn with(&self, other: &Self) -> Self {
        let more = self.more.iter().chain(std::iter::once(&other.first)).chain(&other.more).cloned().collect();
        Self { first: self.first.clone(), more }
    }
}

fn source(catalog: &dyn Catalog, select: &ast::Select, shuffle: &mut dyn RngCore) -> Result<(Scope, Vec<Line>), QueryError> {
    let [table] = select.from.as_slice() else {
        return Err(unsupported("several tables without JOIN"));
    };
    let (mut scope, mut rows) = factor(catalog, &table.relation, shuffle)?;
    // A condition that speaks of the first table alone spares the joins the rows that it drops. It is checked again after
    // them, with every name in scope, so that an ambiguous one is found.
    if !table.joins.is_empty()
        && let Some(condition) = &select.selection
        && let Ok(condition) = compile::expression(catalog, &scope, condition)
        && !compile::counts_rows(&condition)
    {
        rows = filtered(catalog, &condition, rows)?;
    }
    for join in &table.joins {
        let (kept, condition) = match &join.join_operator {
            ast::JoinOperator::Join(ast::JoinConstraint::On(on)) | ast::JoinOperator::Inner(ast::JoinConstraint::On(on)) => (false, on),
            ast::JoinOperator::Left(ast::JoinConstraint::On(on)) | ast::JoinOperator::LeftOuter(ast::JoinConstraint::On(on)) => (true, on),
            _ => return Err(unsupported("joins other than INNER and LEFT JOIN ... ON")),
        };
        let (right_scope, right_rows) = factor(catalog, &join.relation, shuffle)?;
        let width = scope.0.len();
        scope.0.extend(right_scope.0);
        let condition = compile::expression(catalog, &scope, condition)?;
        rows = joined(catalog, rows, &right_rows, width, scope.0.len() - width, &condition, kept)?;
    }
    Ok((scope, rows))
}

fn factor(catalog: &dyn Catalog, factor: &ast::TableFactor, shuffle: &mut dyn RngCore) -> Result<(Scope, Vec<Line>), QueryError> {
    let qualifier = |alias: &Option<ast::TableAlias>| alias.as_ref().map(|a| a.name.value.clone());
    match factor {
        ast::TableFactor::Table { name, alias, .. } => {
            let written = name.to_string();
            let name = written.to_ascii_lowercase();
            let table = catalog.table(&name).ok_or(QueryError::UnknownTable(written))?;
            let qualifier = qualifier(alias).unwrap_or_else(|| name.clone());
            let column = |column: &String| ScopeColumn { qualifier: qualifier.clone(), table: name.clone(), name: column.clone() };
            Ok((Scope(table.columns.iter().map(column).collect()), table.rows.into_iter().map(Line::from).collect()))
        }
        ast::TableFactor::Derived { lateral: false, subquery, alias, .. } => {
            let nested = run(catalog, subquery, None, shuffle)?;
            let qualifier = qualifier(alias).unwrap_or_default();
            let column = |name: String| ScopeColumn { qualifier: qualifier.clone(), table: String::new(), name };
            Ok((
                Scope(nested.columns.into_iter().map(column).collect()),
                nested.rows.into_iter().map(|cells| Line::from(Row::from(cells))).collect(),
            ))
        }
        other => Err(unsupported(other)),
    }
}

/// Joins by the condition's first equality between the two sides where there is one, by comparing all pairs otherwise.
fn joined(
    catalog: &dyn Catalog,
    left: Vec<Line>,
    right: &[Line],
    left_width: usize,
    right_width: usize,
    condition: &Node,
    keep_left: bool,
) -> Result<Vec<Line>, QueryError> {
    let equality = equality(condition, left_width);
    let mut index: HashMap<String, Vec<&Line>> = HashMap::new();
    if let Some((_, at)) = equality {
        for row in right {
            if let Some(key) = row.cell(at - left_width).grouping_key() {
                index.entry(key).or_default().push(row);
            }
        }
    }
    let all: Vec<&Line> = right.iter().collect();
    let nothing = Line::from(std::iter::repeat_n(Cell::Null, right_width).collect::<Row>());
    let none = Vec::new();
    let mut rows = Vec::new();
    for row in left {
        let candidates = match equality {
            Some((at, _)) => row.cell(at).grouping_key().and_then(|key| index.get(&key)).unwrap_or(&none),
            None => &all,
        };
        let mut found = false;
        for candidate in candidates {
            let pair = row.with(candidate);
            if Frame::of(&pair).holds(catalog, condition)? == Some(true) {
                found = true;
                rows.push(pair);
            }
        }
        if keep_left && !found {
            rows.push(row.with(&nothing));
        }
    }
    Ok(rows)
}

fn equality(condition: &Node, left_width: usize) -> Option<(usize, usize)> {
    match condition {
        Node::And(a, b) => equality(a, left_width).or_else(|| equality(b, left_width)),
        Node::Compare(Comparison::Equal, a, b) => match (a.as_ref(), b.as_ref()) {
            (&Node::Column(a), &Node::Column(b)) if a < left_width && b >= left_width => Some((a, b)),
            (&Node::Column(b), &Node::Column(a)) if a < left_width && b >= left_width => Some((a, b)),
            _ => None,
        },
        _ => None,
    }
}

fn filtered(catalog: &dyn Catalog, condition: &Node, rows: Vec<Line>) -> Result<Vec<Line>, QueryError> {
    let mut kept: Vec<Line> = Vec::new();
    for row in rows {
        let frame = Frame { row: Some(&row), group: None, number: kept.len() + 1 };
        if frame.holds(catalog, condition)? == Some(true) {
            kept.push(row);
        }
    }
    Ok(kept)
}

// === Output ===

/// What becomes one output row: a source row, or a group of them.
enum Unit {
    Row(Line, usize),
    Group(Vec<Line>),
}

impl Unit {
    fn value(&self, catalog: &dyn Catalog, node: &Node) -> Result<Cell, QueryError> {
        match self {
            Self::Row(row, number) => Frame { row: Some(row), group: None, number: *number },
            Self::Group(rows) => Frame { row: rows.first(), group: Some(rows), number: 1 },
        }
        .value(catalog, node)
    }
}

fn units(
    catalog: &dyn Catalog,
    scope: &Scope,
    select: &ast::Select,
    rows: Vec<Line>,
    outputs: &[(String, Node)],
    order: &[OrderTerm],
) -> Result<Vec<Unit>, QueryError> {
    let by = match &select.group_by {
        ast::GroupByExpr::Expressions(by, modifiers) if modifiers.is_empty() => {
            by.iter().map(|e| compile::expression(catalog, scope, e)).collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(unsupported("GROUP BY ALL, ROLLUP and CUBE")),
    };
    let aggregated = outputs.iter().map(|(_, node)| node).chain(order.iter().map(|term| &term.node)).any(compile::aggregates);
    if by.is_empty() && !aggregated {
        return Ok(rows.into_iter().enumerate().map(|(at, row)| Unit::Row(row, at + 1)).collect());
    }
    if by.is_empty() {
        return Ok(vec![Unit::Group(rows)]);
    }
    let mut groups: Vec<Vec<Line>> = Vec::new();
    let mut places: HashMap<Vec<Option<String>>, usize> = HashMap::new();
    for row in rows {
        let key =
            by.iter().map(|node| Frame::of(&row).value(catalog, node).map(|cell| cell.grouping_key())).collect::<Result<Vec<_>, _>>()?;
        let place = *places.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(row);
    }
    Ok(groups.into_iter().map(Unit::Group).collect())
}

fn projection(catalog: &dyn Catalog, scope: &Scope, items: &[ast::SelectItem]) -> Result<Vec<(String, Node)>, QueryError> {
    let mut outputs = Vec::new();
    let mut unnamed = 0;
    for item in items {
        match item {
            ast::SelectItem::Wildcard(_) => {
                outputs.extend(scope.0.iter().enumerate().map(|(at, column)| (column.name.clone(), Node::Column(at))));
            }
            ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(table), _) => {
                let table = table.to_string();
                let named = scope.0.iter().enumerate().filter(|(_, column)| column.qualifier.eq_ignore_ascii_case(&table));
                outputs.extend(named.map(|(at, column)| (column.name.clone(), Node::Column(at))));
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                outputs.push((alias.value.to_ascii_lowercase(), compile::expression(catalog, scope, expr)?));
            }
            ast::SelectItem::UnnamedExpr(expr) => {
                let node = compile::expression(catalog, scope, expr)?;
                let name = match &node {
                    Node::Column(at) => scope.0[*at].name.clone(),
                    _ => {
                        unnamed += 1;
                        format!("expr{unnamed}")
                    }
                };
                outputs.push((name, node));
            }
            other => return Err(unsupported(other)),
        }
    }
    Ok(outputs)
}

struct OrderTerm {
    node: Node,
    descending: bool,
    nulls_first: bool,
}

fn ordering(
    catalog: &dyn Catalog,
    scope: &Scope,
    outputs: &[(String, Node)],
    order_by: Option<&ast::OrderBy>,
) -> Result<Vec<OrderTerm>, QueryError> {
    let terms = match order_by.map(|order| &order.kind) {
        None => return Ok(Vec::new()),
        Some(ast::OrderByKind::Expressions(terms)) => terms,
        Some(ast::OrderByKind::All(_)) => return Err(unsupported("ORDER BY ALL")),
    };
    let mut order = Vec::new();
    for term in terms {
        let node = match &term.expr {
            ast::Expr::Identifier(name) if outputs.iter().any(|(output, _)| output.eq_ignore_ascii_case(&name.value)) => outputs
                .iter()
                .find(|(output, _)| output.eq_ignore_ascii_case(&name.value))
                .map(|(_, node)| node.clone())
                .unwrap_or(Node::Const(Cell::Null)),
            expr => match compile::expression(catalog, scope, expr)? {
                Node::Const(Cell::Number(position)) => {
                    let output = position.to_usize().and_then(|at| outputs.get(at.checked_sub(1)?));
                    output
                        .map(|(_, node)| node.clone())
                        .ok_or_else(|| QueryError::Syntax(format!("ORDER BY position {position} does not exist.")))?
                }
                node => node,
            },
        };
        let descending = match &term.options.sort {
            None | Some(ast::OrderBySort::Asc) => false,
            Some(ast::OrderBySort::Desc) => true,
            Some(other) => return Err(unsupported(format!("ORDER BY {other:?}"))),
        };
        order.push(OrderTerm { node, descending, nulls_first: term.options.nulls_first.unwrap_or(descending) });
    }
    Ok(order)
}

fn compare_keys(order: &[OrderTerm], a: &[Cell], b: &[Cell]) -> Ordering {
    for ((term, a), b) in order.iter().zip(a).zip(b) {
        let ordering = match (a.is_null(), b.is_null()) {
            (false, false) if term.descending => b.sort_order(a),
            (false, false) => a.sort_order(b),
            (true, true) => Ordering::Equal,
            (true, false) if term.nulls_first => Ordering::Less,
            (false, true) if !term.nulls_first => Ordering::Less,
            _ => Ordering::Greater,
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

// === Expressions ===

/// What an expression is evaluated on.
#[derive(Clone, Copy)]
struct Frame<'a> {
    row: Option<&'a Line>,
    group: Option<&'a [Line]>,
    number: usize,
}

/// Evaluates a node that depends on no row.
pub(super) fn constant(catalog: &dyn Catalog, node: &Node) -> Result<Cell, QueryError> {
    Frame { row: None, group: None, number: 0 }.value(catalog, node)
}

impl<'a> Frame<'a> {
    fn of(row: &'a Line) -> Self {
        Self { row: Some(row), group: None, number: 1 }
    }

    /// The truth of a condition; nothing for SQL's "unknown".
    fn holds(&self, catalog: &dyn Catalog, node: &Node) -> Result<Option<bool>, QueryError> {
        Ok(match node {
            Node::Compare(comparison, a, b) => {
                self.value(catalog, a)?.compare(&self.value(catalog, b)?)?.map(|ordering| comparison.holds(ordering))
            }
            Node::And(a, b) => match self.holds(catalog, a)? {
                Some(false) => Some(false),
                first => match (first, self.holds(catalog, b)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), second) => second,
                    _ => None,
                },
            },
            Node::Or(a, b) => match self.holds(catalog, a)? {
                Some(true) => Some(true),
                first => match (first, self.holds(catalog, b)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), second) => second,
                    _ => None,
                },
            },
            Node::Not(inner) => self.holds(catalog, inner)?.map(|held| !held),
            Node::IsNull(inner) => Some(self.value(catalog, inner)?.is_null()),
            Node::In(value, list) => {
                let value = self.value(catalog, value)?;
                let mut unknown = false;
                for candidate in list {
                    match value.compare(&self.value(catalog, candidate)?)? {
                        Some(Ordering::Equal) => return Ok(Some(true)),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                if unknown { None } else { Some(false) }
            }
            Node::Like { text, pattern, escape } => match (self.value(catalog, text)?.print(), self.value(catalog, pattern)?.print()) {
                (Some(text), Some(pattern)) => Some(like(&text, &pattern, *escape)),
                _ => None,
            },
            _ => return Err(unsupported("a value where a condition is needed")),
        })
    }

    fn value(&self, catalog: &dyn Catalog, node: &Node) -> Result<Cell, QueryError> {
        Ok(match node {
            Node::Column(at) => self.row.map_or(Cell::Null, |row| row.cell(*at).clone()),
            Node::Const(cell) => cell.clone(),
            Node::RowNumber => Cell::Number(BigDecimal::from(u64::try_from(self.number).unwrap_or(u64::MAX))),
            Node::Arithmetic(operation, a, b) => calculated(*operation, &self.value(catalog, a)?, &self.value(catalog, b)?)?,
            Node::Call(function, arguments) => {
                let arguments = arguments.iter().map(|a| self.value(catalog, a)).collect::<Result<Vec<_>, _>>()?;
                called(*function, &arguments)?
            }
            Node::Display { table, column, value } => {
                let value = self.value(catalog, value)?;
                if value.is_null() {
                    return Ok(value);
                }
                catalog.display(table, column, &value).map_or_else(|| value.print().map_or(Cell::Null, Cell::text), Cell::text)
            }
            Node::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    if self.holds(catalog, condition)? == Some(true) {
                        return self.value(catalog, result);
                    }
                }
                self.value(catalog, otherwise)?
            }
            Node::Aggregate { function, distinct, argument } => self.aggregate(catalog, *function, *distinct, argument.as_deref())?,
            _ => return Err(unsupported("a condition where a value is needed")),
        })
    }

    fn aggregate(&self, catalog: &dyn Catalog, function: Aggregate, distinct: bool, argument: Option<&Node>) -> Result<Cell, QueryError> {
        let rows = self.group.ok_or_else(|| unsupported("an aggregate here"))?;
        let Some(argument) = argument else {
            return Ok(Cell::Number(BigDecimal::from(u64::try_from(rows.len()).unwrap_or(u64::MAX))));
        };
        let mut values = Vec::new();
        let mut seen = HashSet::new();
        for row in rows {
            let value = Frame::of(row).value(catalog, argument)?;
            if !value.is_null() && (!distinct || seen.insert(value.grouping_key())) {
                values.push(value);
            }
        }
        Ok(match function {
            Aggregate::Count => Cell::Number(BigDecimal::from(u64::try_from(values.len()).unwrap_or(u64::MAX))),
            Aggregate::Min => values.into_iter().min_by(Cell::sort_order).unwrap_or(Cell::Null),
            Aggregate::Max => values.into_iter().max_by(Cell::sort_order).unwrap_or(Cell::Null),
            Aggregate::Sum if values.is_empty() => Cell::Null,
            Aggregate::Sum => {
                let mut sum = BigDecimal::zero();
                for value in values {
                    sum += value.as_number()?.unwrap_or_default();
                }
                Cell::Number(sum)
            }
        })
    }
}

fn calculated(operation: Arithmetic, a: &Cell, b: &Cell) -> Result<Cell, QueryError> {
    if a.is_null() || b.is_null() {
        return Ok(Cell::Null);
    }
    match (operation, a, b) {
        (Arithmetic::Add, Cell::Time(time), days) | (Arithmetic::Add, days, Cell::Time(time)) => {
            return Ok(Cell::Time(compile::shifted(*time, &days.as_number()?.unwrap_or_default())?));
        }
        (Arithmetic::Subtract, Cell::Time(time), days) if !matches!(days, Cell::Time(_)) => {
            return Ok(Cell::Time(compile::shifted(*time, &-days.as_number()?.unwrap_or_default())?));
        }
        _ => {}
    }
    let (a, b) = (a.as_number()?.unwrap_or_default(), b.as_number()?.unwrap_or_default());
    Ok(Cell::Number(match operation {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide if b.is_zero() => return Err(QueryError::Value("Division by zero.".into())),
        Arithmetic::Divide => a / b,
    }))
}

fn called(function: Function, arguments: &[Cell]) -> Result<Cell, QueryError> {
    let first = arguments.first().unwrap_or(&Cell::Null);
    let second = arguments.get(1).unwrap_or(&Cell::Null);
    let mapped = |map: &dyn Fn(String) -> String| first.print().map_or(Cell::Null, |text| Cell::text(map(text)));
    Ok(match function {
        Function::Upper => mapped(&|text| text.to_uppercase()),
        Function::Lower => mapped(&|text| text.to_lowercase()),
        Function::Trim => mapped(&|text| text.trim().to_owned()),
        Function::Length => {
            first.print().map_or(Cell::Null, |text| Cell::Number(BigDecimal::from(u64::try_from(text.chars().count()).unwrap_or(u64::MAX))))
        }
        Function::Substring => substring(first, second, arguments.get(2))?,
        Function::Concat => Cell::text(arguments.iter().filter_map(Cell::print).collect::<String>()),
        Function::Replace => match second.print() {
            None => first.clone(),
            Some(old) => mapped(&|text| text.replace(&old, &arguments.get(2).and_then(Cell::print).unwrap_or_default())),
        },
        Function::Nvl => arguments.iter().find(|cell| !cell.is_null()).cloned().unwrap_or(Cell::Null),
        Function::Nvl2 => if first.is_null() { arguments.get(2).unwrap_or(&Cell::Null) } else { second }.clone(),
        Function::ToChar => match (first, second.print()) {
            (Cell::Time(time), Some(model)) => Cell::text(cell::format_time(time, &model)?),
            (_, None) => first.print().map_or(Cell::Null, Cell::text),
            (Cell::Null, _) => Cell::Null,
            _ => return Err(unsupported("TO_CHAR of a number with a format")),
        },
        Function::ToTime => match (first, second.print()) {
            (Cell::Text(text), Some(model)) => Cell::Time(cell::parse_time(text, &model)?),
            _ => first.as_time()?.map_or(Cell::Null, Cell::Time),
        },
        Function::ToNumber => first.as_number()?.map_or(Cell::Null, Cell::Number),
    })
}

/// `SUBSTR`: positions count from one, a negative one from the end.
fn substring(text: &Cell, from: &Cell, length: Option<&Cell>) -> Result<Cell, QueryError> {
    let whole = |cell: &Cell| -> Result<Option<i64>, QueryError> { Ok(cell.as_number()?.and_then(|n| n.to_i64())) };
    let (Some(text), Some(from)) = (text.print(), whole(from)?) else {
        return Ok(Cell::Null);
    };
    let characters: Vec<char> = text.chars().collect();
    let start = match from {
        0 | 1 => 0,
        2.. => usize::try_from(from - 1).unwrap_or(usize::MAX),
        _ => match characters.len().checked_sub(usize::try_from(from.unsigned_abs()).unwrap_or(usize::MAX)) {
            Some(start) => start,
            None => return Ok(Cell::Null),
        },
    };
    let length = match length {
        None => usize::MAX,
        Some(cell) => usize::try_from(whole(cell)?.unwrap_or(0)).unwrap_or(0),
    };
    Ok(Cell::text(characters.into_iter().skip(start).take(length).collect::<String>()))
}

/// `LIKE` with `%` and `_`; the escape character takes the next one literally.
fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    enum Part {
        Any,
        One,
        Exactly(char),
    }
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            c if Some(c) == escape => Part::Exactly(characters.next().unwrap_or(c)),
            '%' => Part::Any,
            '_' => Part::One,
            c => Part::Exactly(c),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut part) = (0, 0);
    // Where to go back to: the part after the last `%`, and the text position it was tried from.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                retry = Some((part + 1, at));
                part += 1;
            }
            Some(Part::One) => (at, part) = (at + 1, part + 1),
            Some(Part::Exactly(c)) if *c == text[at] => (at, part) = (at + 1, part + 1),
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (at, part) = (from + 1, after);
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| matches!(part, Part::Any))
}
