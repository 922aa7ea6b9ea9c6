//! From SQL text to something that can be evaluated: names resolved to positions, functions known, the rest refused.
//!
//! Only what SuiteQL documents and integrations use is accepted; anything else is an error that names the construct, so
//! that a query which works here was at least understood whole.

use super::{Catalog, Cell, QueryError, evaluate};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use sqlparser::ast;
use sqlparser::dialect::OracleDialect;
use sqlparser::parser::Parser;
use std::cmp::Ordering;
use std::str::FromStr;

/// Parses one `SELECT`.
pub(super) fn parse(sql: &str) -> Result<ast::Query, QueryError> {
    let mut statements = Parser::parse_sql(&OracleDialect {}, sql).map_err(|e| QueryError::Syntax(e.to_string()))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(ast::Statement::Query(query)), true) => Ok(*query),
        _ => Err(unsupported("anything but one SELECT")),
    }
}

pub(super) fn unsupported(what: impl std::fmt::Display) -> QueryError {
    QueryError::Syntax(format!("SuiteQL does not support {what}."))
}

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub(super) struct ScopeColumn {
    /// The table's alias, or its name.
    pub(super) qualifier: String,
    /// The table's own name; empty for a nested query.
    pub(super) table: String,
    pub(super) name: String,
}

/// The columns of the rows that an expression is evaluated on, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(pub(super) Vec<ScopeColumn>);

impl Scope {
    fn find(&self, qualifier: Option<&str>, name: &str) -> Result<usize, QueryError> {
        let matches = |column: &ScopeColumn| {
            column.name.eq_ignore_ascii_case(name)
                && qualifier.is_none_or(|q| column.qualifier.eq_ignore_ascii_case(q) || column.table.eq_ignore_ascii_case(q))
        };
        let mut found = self.0.iter().enumerate().filter(|(_, column)| matches(column)).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (Some(at), None) => Ok(at),
            (Some(_), Some(_)) => Err(QueryError::Syntax(format!("Column '{name}' is ambiguous."))),
            (None, _) => Err(QueryError::UnknownField {
                record: qualifier.map_or_else(|| self.0.first().map_or_else(String::new, |c| c.table.clone()), str::to_owned),
                field: name.to_owned(),
            }),
        }
    }
}

/// An expression with its names resolved.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Column(usize),
    Const(Cell),
    RowNumber,
    Compare(Comparison, Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>),
    In(Box<Node>, Vec<Node>),
    Like {
        text: Box<Node>,
        pattern: Box<Node>,
        escape: Option<char>,
    },
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    /// `BUILTIN.DF(column)`.
    Display {
        table: String,
        column: String,
        value: Box<Node>,
    },
    Case {
        branches: Vec<(Node, Node)>,
        otherwise: Box<Node>,
    },
    Aggregate {
        function: Aggregate,
        distinct: bool,
        argument: Option<Box<Node>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Upper,
    Lower,
    Trim,
    Length,
    Substring,
    Concat,
    Replace,
    Nvl,
    Nvl2,
    ToChar,
    ToTime,
    ToNumber,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    Min,
    Max,
    Sum,
}

/// Whether `node` needs a group of rows.
pub(super) fn aggregates(node: &Node) -> bool {
    contains(node, &|node| matches!(node, Node::Aggregate { .. }))
}

/// Whether `node` depends on how many rows came before.
pub(super) fn counts_rows(node: &Node) -> bool {
    contains(node, &|node| matches!(node, Node::RowNumber))
}

fn contains(node: &Node, wanted: &dyn Fn(&Node) -> bool) -> bool {
    let any = |node: &Node| contains(node, wanted);
    wanted(node)
        || match node {
            Node::Column(_) | Node::Const(_) | Node::RowNumber => false,
            Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) | Node::Arithmetic(_, a, b) => any(a) || any(b),
            Node::Not(a) | Node::IsNull(a) | Node::Display { value: a, .. } => any(a),
            Node::In(a, list) => any(a) || list.iter().any(any),
            Node::Like { text, pattern, .. } => any(text) || any(pattern),
            Node::Call(_, arguments) => arguments.iter().any(any),
            Node::Case { branches, otherwise } => any(otherwise) || branches.iter().any(|(a, b)| any(a) || any(b)),
            Node::Aggregate { argument, .. } => argument.as_deref().is_some_and(any),
        }
}

/// Resolves `expr` against `scope`. Parts that do not depend on a row are computed here, once.
pub(super) fn expression(catalog: &dyn Catalog, scope: &Scope, expr: &ast::Expr) -> Result<Node, QueryError> {
    let sub = |e: &ast::Expr| expression(catalog, scope, e);
    let boxed = |e: &ast::Expr| sub(e).map(Box::new);
    let negate = |negated: bool, node: Node| if negated { Node::Not(Box::new(node)) } else { node };
    let node = match expr {
        ast::Expr::Identifier(name) => match name.value.to_ascii_uppercase().as_str() {
            "ROWNUM" => Node::RowNumber,
            "SYSDATE" | "CURRENT_TIMESTAMP" | "SYSTIMESTAMP" => Node::Const(Cell::Time(catalog.now())),
            _ => Node::Column(scope.find(None, &name.value)?),
        },
        ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [qualifier, name] => Node::Column(scope.find(Some(&qualifier.value), &name.value)?),
            _ => return Err(unsupported(expr)),
        },
        ast::Expr::Value(value) => Node::Const(literal(&value.value)?),
        ast::Expr::Nested(inner) => sub(inner)?,
        ast::Expr::IsNull(inner) => Node::IsNull(boxed(inner)?),
        ast::Expr::IsNotNull(inner) => Node::Not(Box::new(Node::IsNull(boxed(inner)?))),
        ast::Expr::In { expr, target: ast::InTarget::List(list), negated, .. } => {
            let list = list.iter().map(sub).collect::<Result<_, _>>()?;
            negate(*negated, Node::In(boxed(expr)?, list))
        }
        ast::Expr::Between { expr, negated, low, high } => {
            let low = Node::Compare(Comparison::GreaterOrEqual, boxed(expr)?, boxed(low)?);
            let high = Node::Compare(Comparison::LessOrEqual, boxed(expr)?, boxed(high)?);
            negate(*negated, Node::And(Box::new(low), Box::new(high)))
        }
        ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
            let escape = match escape_char.as_deref() {
                None => None,
                Some(character) => match sub(character)? {
                    Node::Const(Cell::Text(text)) if text.chars().count() == 1 => text.chars().next(),
                    _ => return Err(unsupported("an ESCAPE of more than one character")),
                },
            };
            negate(*negated, Node::Like { text: boxed(expr)?, pattern: boxed(pattern)?, escape })
        }
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Not, expr } => Node::Not(boxed(expr)?),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            Node::Arithmetic(Arithmetic::Subtract, Box::new(Node::Const(Cell::Number(BigDecimal::from(0)))), boxed(expr)?)
        }
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => sub(expr)?,
        ast::Expr::BinaryOp { left, op, right } => {
            let (left, right) = (boxed(left)?, boxed(right)?);
            match op {
                ast::BinaryOperator::And => Node::And(left, right),
                ast::BinaryOperator::Or => Node::Or(left, right),
                ast::BinaryOperator::Eq => Node::Compare(Comparison::Equal, left, right),
                ast::BinaryOperator::NotEq => Node::Compare(Comparison::NotEqual, left, right),
                ast::BinaryOperator::Lt => Node::Compare(Comparison::Less, left, right),
                ast::BinaryOperator::LtEq => Node::Compare(Comparison::LessOrEqual, left, right),
                ast::BinaryOperator::Gt => Node::Compare(Comparison::Greater, left, right),
                ast::BinaryOperator::GtEq => Node::Compare(Comparison::GreaterOrEqual, left, right),
                ast::BinaryOperator::StringConcat => Node::Call(Function::Concat, vec![*left, *right]),
                ast::BinaryOperator::Plus => Node::Arithmetic(Arithmetic::Add, left, right),
                ast::BinaryOperator::Minus => Node::Arithmetic(Arithmetic::Subtract, left, right),
                ast::BinaryOperator::Multiply => Node::Arithmetic(Arithmetic::Multiply, left, right),
                ast::BinaryOperator::Divide => Node::Arithmetic(Arithmetic::Divide, left, right),
                other => return Err(unsupported(format!("the operator {other}"))),
            }
        }
        ast::Expr::Trim { trim_where: None, trim_what: None, expr, trim_characters: None } => Node::Call(Function::Trim, vec![sub(expr)?]),
        ast::Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
            let mut arguments = vec![sub(expr)?, sub(from)?];
            if let Some(length) = substring_for {
                arguments.push(sub(length)?);
            }
            Node::Call(Function::Substring, arguments)
        }
        ast::Expr::Case { operand, conditions, else_result, .. } => {
            let operand = operand.as_deref().map(boxed).transpose()?;
            let mut branches = Vec::new();
            for branch in conditions {
                let condition = match &operand {
                    Some(value) => Node::Compare(Comparison::Equal, value.clone(), boxed(&branch.condition)?),
                    None => sub(&branch.condition)?,
                };
                branches.push((condition, sub(&branch.result)?));
            }
            let otherwise = else_result.as_deref().map_or(Ok(Box::new(Node::Const(Cell::Null))), boxed)?;
            Node::Case { branches, otherwise }
        }
        ast::Expr::Function(function) => call(catalog, scope, function)?,
        other => return Err(unsupported(other)),
    };
    folded(catalog, node)
}

fn literal(value: &ast::Value) -> Result<Cell, QueryError> {
    match value {
        ast::Value::Number(text, _) => {
            BigDecimal::from_str(text).map(Cell::Number).map_err(|_| QueryError::Syntax(format!("'{text}' is not a number.")))
        }
        ast::Value::SingleQuotedString(text) | ast::Value::NationalStringLiteral(text) => Ok(Cell::text(text)),
        ast::Value::Null => Ok(Cell::Null),
        other => Err(unsupported(format!("the literal {other}"))),
    }
}

fn call(catalog: &dyn Catalog, scope: &Scope, function: &ast::Function) -> Result<Node, QueryError> {
    if function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty() {
        return Err(unsupported(format!("{function}")));
    }
    let name = function.name.to_string().to_ascii_uppercase();
    let (arguments, distinct) = match &function.args {
        ast::FunctionArguments::None => (&[][..], false),
        ast::FunctionArguments::List(list) => {
            (list.args.as_slice(), matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct)))
        }
        ast::FunctionArguments::Subquery(_) => return Err(unsupported(function)),
    };
    let aggregate = match name.as_str() {
        "COUNT" => Some(Aggregate::Count),
        "MIN" => Some(Aggregate::Min),
        "MAX" => Some(Aggregate::Max),
        "SUM" => Some(Aggregate::Sum),
        _ => None,
    };
    if let Some(function) = aggregate {
        let argument = match arguments {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] if function == Aggregate::Count => None,
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e))] => Some(Box::new(expression(catalog, scope, e)?)),
            _ => return Err(unsupported(format!("{name} with these arguments"))),
        };
        return Ok(Node::Aggregate { function, distinct, argument });
    }
    let nodes = arguments
        .iter()
        .map(|argument| match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) => expression(catalog, scope, e),
            other => Err(unsupported(format!("the argument {other}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (function, arity) = match name.as_str() {
        "SYSDATE" | "CURRENT_TIMESTAMP" | "SYSTIMESTAMP" => return Ok(Node::Const(Cell::Time(catalog.now()))),
        "BUILTIN.DF" => return display(scope, nodes),
        "UPPER" => (Function::Upper, 1..=1),
        "LOWER" => (Function::Lower, 1..=1),
        "TRIM" => (Function::Trim, 1..=1),
        "LENGTH" => (Function::Length, 1..=1),
        "SUBSTR" => (Function::Substring, 2..=3),
        "CONCAT" => (Function::Concat, 2..=2),
        "REPLACE" => (Function::Replace, 2..=3),
        "NVL" | "COALESCE" => (Function::Nvl, 2..=16),
        "NVL2" => (Function::Nvl2, 3..=3),
        "TO_CHAR" => (Function::ToChar, 1..=2),
        "TO_DATE" | "TO_TIMESTAMP" => (Function::ToTime, 1..=2),
        "TO_NUMBER" => (Function::ToNumber, 1..=1),
        _ => return Err(QueryError::Syntax(format!("Unknown function {name}."))),
    };
    if !arity.contains(&nodes.len()) {
        return Err(QueryError::Syntax(format!("Wrong number of arguments for {name}.")));
    }
    Ok(Node::Call(function, nodes))
}

fn display(scope: &Scope, mut arguments: Vec<Node>) -> Result<Node, QueryError> {
    match (arguments.pop(), arguments.is_empty()) {
        (Some(Node::Column(at)), true) => {
            let column = scope.0.get(at).ok_or_else(|| unsupported("BUILTIN.DF of this"))?;
            Ok(Node::Display { table: column.table.clone(), column: column.name.clone(), value: Box::new(Node::Column(at)) })
        }
        _ => Err(unsupported("BUILTIN.DF of anything but a column")),
    }
}

/// Computes a call or calculation whose parts are all constants.
fn folded(catalog: &dyn Catalog, node: Node) -> Result<Node, QueryError> {
    let constant = |node: &Node| matches!(node, Node::Const(_));
    let foldable = match &node {
        Node::Call(_, arguments) => arguments.iter().all(constant),
        Node::Arithmetic(_, a, b) => constant(a) && constant(b),
        _ => false,
    };
    if foldable { evaluate::constant(catalog, &node).map(Node::Const) } else { Ok(node) }
}

/// Days as a duration, for date arithmetic.
pub(super) fn shifted(time: DateTime<Utc>, days: &BigDecimal) -> Result<DateTime<Utc>, QueryError> {
    use bigdecimal::ToPrimitive;
    let seconds = (days * BigDecimal::from(86_400)).round(0).to_i64();
    seconds
        .and_then(chrono::TimeDelta::try_seconds)
        .and_then(|delta| time.checked_add_signed(delta))
        .ok_or_else(|| QueryError::Value("The date is out of range.".into()))
}
