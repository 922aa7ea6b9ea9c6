//! What an expression may be made of, judged on its syntax tree before anything is compiled.
//!
//! VRL itself knows neither decimals nor the bounds of a mapping. So here the traps are closed: binary floats, arithmetic and comparison on the
//! text of decimals (which would join or order them as text), assignments outside, functions that are not on the list, and depth.

use super::functions::{REFUSED, instead};
use crate::shape::Tree;
use ::vrl::parser::ast::{
    Assignment, AssignmentTarget, Block, Container, Expr, FunctionCall, Literal, Node, Opcode, Predicate, Program, Query, QueryTarget,
    RootExpr, Unary,
};
use ::vrl::path::{OwnedSegment, PathPrefix};
use fairlead_model::FieldPath;
use fairlead_model::schema::FieldType;
use std::collections::BTreeSet;

/// How deep an expression may nest. VRL's type check repeats work at every level, so depth costs more than length.
const MAX_DEPTH: usize = 24;

/// Something wrong in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>, hint: &str) -> Self {
        Self { message: message.into(), hint: (!hint.is_empty()).then(|| hint.to_owned()) }
    }
}

/// The named roots of an expression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// What `.record` is.
    pub(crate) record: &'a Tree,
    /// Inside a list: the path of the list, whose element `.item` is.
    pub(crate) item: Option<&'a FieldPath>,
    /// Whose fields they are: `native` or `canonical`.
    pub(crate) side: &'static str,
}

/// What the walk found out.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) problems: Vec<Problem>,
    /// The fields that the expression looks at.
    pub(crate) inputs: BTreeSet<FieldPath>,
    /// The top-level fields of `.record` that it looks at.
    pub(crate) names: BTreeSet<String>,
}

pub(crate) fn check(program: Program, scope: Scope<'_>) -> Checked {
    let mut walk = Walk { scope, checked: Checked::default(), decimals: BTreeSet::new() };
    for root in program {
        // What cannot be read was told before.
        if let RootExpr::Expr(expr) = root.into_inner() {
            walk.expr(expr.into_inner(), 0);
        }
    }
    walk.checked
}

struct Walk<'a> {
    scope: Scope<'a>,
    checked: Checked,
    /// Local names that hold decimals.
    decimals: BTreeSet<String>,
}

/// Whether an expression's value is the text of a decimal.
type IsDecimal = bool;

impl Walk<'_> {
    fn problem(&mut self, message: impl Into<String>, hint: &str) {
        let problem = Problem::new(message, hint);
        if !self.checked.problems.contains(&problem) {
            self.checked.problems.push(problem);
        }
    }

    fn expr(&mut self, expr: Expr, depth: usize) -> IsDecimal {
        if depth > MAX_DEPTH {
            self.problem(format!("nests deeper than {MAX_DEPTH} levels"), "split it with local names: a = ...; b = ... a ...");
            return false;
        }
        let depth = depth + 1;
        match expr {
            Expr::Literal(literal) => {
                if let Literal::Float(number) = literal.into_inner() {
                    self.problem(format!("{number} is a binary floating-point number"), &format!("write it as text: \"{number}\""));
                }
                false
            }
            Expr::Container(container) => self.container(container.into_inner(), depth),
            Expr::IfStatement(choice) => {
                let choice = choice.into_inner();
                match choice.predicate.into_inner() {
                    Predicate::One(expr) => {
                        self.expr(expr.into_inner(), depth);
                    }
                    Predicate::Many(exprs) => exprs.into_iter().for_each(|expr| {
                        self.expr(expr.into_inner(), depth);
                    }),
                }
                let first = self.block(choice.if_node.into_inner(), depth);
                let second = choice.else_node.is_some_and(|block| self.block(block.into_inner(), depth));
                first || second
            }
            Expr::Op(op) => {
                let op = op.into_inner();
                let (left, opcode, right) = (op.0.into_inner(), op.1.into_inner(), op.2.into_inner());
                let null = [&left, &right].into_iter().any(|side| matches!(side, Expr::Literal(l) if matches!(l.inner(), Literal::Null)));
                let (left, right) = (self.expr(left, depth), self.expr(right, depth));
                self.operator(opcode, left || right, null);
                matches!(opcode, Opcode::Or | Opcode::Err) && (left || right)
            }
            Expr::Assignment(assignment) => self.assignment(assignment.into_inner(), depth),
            Expr::Query(query) => self.query(query.into_inner(), depth),
            Expr::FunctionCall(call) => self.call(call.into_inner(), depth),
            Expr::Variable(name) => self.decimals.contains(name.inner().as_ref() as &str),
            Expr::Unary(unary) => {
                let Unary::Not(not) = unary.into_inner();
                self.expr(not.into_inner().take().1.into_inner(), depth);
                false
            }
            Expr::Abort(abort) => {
                if let Some(message) = abort.into_inner().message {
                    self.expr(message.into_inner(), depth);
                }
                false
            }
            Expr::Return(inner) => self.expr(inner.into_inner().expr.into_inner(), depth),
            Expr::Break(_) => false,
        }
    }

    fn operator(&mut self, opcode: Opcode, decimal: bool, with_null: bool) {
        match opcode {
            // On texts `*` repeats, which makes much out of little; on numbers it may leave 64 bits unseen.
            Opcode::Mul => self.problem("'*' is not available", "decimal_mul!(a, b) is exact; parse_int!(...) makes a whole number of it"),
            Opcode::Div => self.problem("'/' gives a binary floating-point number", "decimal_div!(a, b, scale) rounds to so many digits"),
            Opcode::Add if decimal => self.problem("'+' joins decimals as text", "decimal_add!(a, b)"),
            Opcode::Sub if decimal => self.problem("'-' does not work on decimals, which are text", "decimal_sub!(a, b)"),
            Opcode::Gt | Opcode::Ge | Opcode::Lt | Opcode::Le if decimal => {
                self.problem(
                    format!("'{}' orders decimals as text", opcode.as_str()),
                    &format!("decimal_compare!(a, b) {} 0", opcode.as_str()),
                );
            }
            Opcode::Eq | Opcode::Ne if decimal && !with_null => {
                self.problem(
                    format!("'{}' compares decimals as text", opcode.as_str()),
                    &format!("decimal_compare!(a, b) {} 0", opcode.as_str()),
                );
            }
            _ => {}
        }
    }

    fn block(&mut self, block: Block, depth: usize) -> IsDecimal {
        block.into_inner().into_iter().fold(false, |_, expr| self.expr(expr.into_inner(), depth))
    }

    fn container(&mut self, container: Container, depth: usize) -> IsDecimal {
        match container {
            Container::Group(group) => self.expr(group.into_inner().into_inner().into_inner(), depth),
            Container::Block(block) => self.block(block.into_inner(), depth),
            Container::Array(array) => {
                array.into_inner().into_iter().for_each(|expr| {
                    self.expr(expr.into_inner(), depth);
                });
                false
            }
            Container::Object(object) => {
                object.into_inner().into_iter().for_each(|(_, expr)| {
                    self.expr(expr.into_inner(), depth);
                });
                false
            }
        }
    }

    fn assignment(&mut self, assignment: Assignment, depth: usize) -> IsDecimal {
        let (targets, expr) = match assignment {
            Assignment::Single { target, expr, .. } => (vec![target], expr),
            Assignment::Infallible { ok, err, expr, .. } => (vec![ok, err], expr),
        };
        let decimal = self.expr(expr.into_inner(), depth);
        for (index, target) in targets.into_iter().map(Node::into_inner).enumerate() {
            match target {
                AssignmentTarget::External(_) => {
                    self.problem("assigns to a record", "an expression makes one value; use a local name without a dot");
                }
                AssignmentTarget::Internal(name, None) if decimal && index == 0 => {
                    self.decimals.insert(name.into_inner());
                }
                AssignmentTarget::Query(query) => {
                    if !matches!(query.target.inner(), QueryTarget::Internal(_)) {
                        self.problem("assigns to a record", "an expression makes one value; use a local name without a dot");
                    }
                }
                AssignmentTarget::Internal(..) | AssignmentTarget::Noop => {}
            }
        }
        decimal
    }

    fn call(&mut self, call: FunctionCall, depth: usize) -> IsDecimal {
        let name = call.ident.inner().as_ref().to_owned();
        if REFUSED.contains(name.as_str()) {
            self.problem(format!("{name} is not available in mappings"), instead(&name));
        }
        let mut decimal = false;
        for argument in call.arguments {
            let argument = argument.into_inner();
            let zone = argument.ident.as_ref().is_some_and(|ident| ident.inner().as_ref() as &str == "timezone");
            let expr = argument.expr.into_inner();
            if zone && !matches!(&expr, Expr::Literal(literal) if is_zone(literal.inner())) {
                self.problem("the time zone must be a name in quotes, and not \"local\"", "timezone: \"Europe/Berlin\"");
            }
            decimal |= self.expr(expr, depth);
        }
        if let Some(closure) = call.closure {
            self.block(closure.into_inner().block.into_inner(), depth);
        }
        match name.as_str() {
            "to_decimal" | "decimal_add" | "decimal_sub" | "decimal_mul" | "decimal_div" | "decimal_round" => true,
            "string" | "to_string" => decimal,
            _ => false,
        }
    }

    fn query(&mut self, query: Query, depth: usize) -> IsDecimal {
        match query.target.into_inner() {
            QueryTarget::Internal(name) => query.path.inner().segments.is_empty() && self.decimals.contains(name.as_ref() as &str),
            QueryTarget::FunctionCall(call) => {
                self.call(call, depth);
                false
            }
            QueryTarget::Container(container) => {
                self.container(container, depth);
                false
            }
            QueryTarget::External(PathPrefix::Metadata) => {
                self.problem("there is no metadata (%)", "use .record");
                false
            }
            QueryTarget::External(PathPrefix::Event) => self.field(&query.path.inner().segments),
        }
    }

    /// A path such as `.record.address.country` or `.item.Email`.
    fn field(&mut self, segments: &[OwnedSegment]) -> IsDecimal {
        let roots = if self.scope.item.is_some() { ".record or .item" } else { ".record" };
        let root = match segments.first() {
            Some(OwnedSegment::Field(name)) => name.as_str(),
            _ => {
                self.problem("'.' alone is not available", &format!("begin with {roots}"));
                return false;
            }
        };
        let (mut node, mut path) = match (root, self.scope.item) {
            ("record", _) => (self.scope.record, String::new()),
            ("item", Some(list)) => match self.scope.record.node(list) {
                Some(node) => (node, list.to_string()),
                None => return false,
            },
            ("item", None) => {
                self.problem(".item is only there in rows of a list", "use .record");
                return false;
            }
            (other, _) => {
                self.problem(format!("there is no .{other}"), &format!("begin with {roots}: .record.{other}"));
                return false;
            }
        };
        if root == "record" {
            match segments.get(1) {
                Some(OwnedSegment::Field(name)) => self.checked.names.extend([name.to_string()]),
                _ => self.checked.names.extend(node.children().keys().cloned()),
            }
        }
        // The element itself stands for the list that holds it.
        let mut in_list = root == "item";
        for segment in segments.iter().skip(1) {
            match segment {
                OwnedSegment::Index(_) if node.is_list() && !in_list => in_list = true,
                OwnedSegment::Index(_) if node.is_opaque() => return self.input(&path),
                OwnedSegment::Index(_) => {
                    self.problem(format!("{path} is no list"), "");
                    return false;
                }
                OwnedSegment::Field(_) if node.is_opaque() && (in_list || !node.is_list()) => return self.input(&path),
                OwnedSegment::Field(name) if node.is_list() && !in_list => {
                    self.problem(
                        format!("{path} is a list"),
                        &format!("name one element ([0].{name}), or go through them: map_values, filter, for_each"),
                    );
                    return false;
                }
                OwnedSegment::Field(name) => {
                    let Some(next) = node.children().get(name.as_str()) else {
                        let meant = crate::shape::nearest(name, node.children().keys().cloned());
                        let hint = meant.map_or_else(String::new, |meant| format!("did you mean {meant}?"));
                        let whole = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                        self.problem(format!("there is no {} field {whole}", self.scope.side), &hint);
                        return false;
                    };
                    let dot = if path.is_empty() { "" } else { "." };
                    path = format!("{path}{dot}{}", next.marked(name));
                    (node, in_list) = (next, false);
                }
            }
        }
        if path.is_empty() {
            let mut all = vec![];
            node.paths_below("", &mut all);
            self.checked.inputs.extend(all);
            return false;
        }
        let mut below = vec![];
        node.paths_below(&path, &mut below);
        self.checked.inputs.extend(below);
        node.field().kind == FieldType::Decimal || node.field().kind == FieldType::Float
    }

    /// Something inside a field whose inside is not described.
    fn input(&mut self, path: &str) -> IsDecimal {
        self.checked.inputs.extend(path.parse::<FieldPath>().ok());
        false
    }
}

fn is_zone(literal: &Literal) -> bool {
    match literal {
        Literal::String(text) => text.as_literal_string().is_some_and(|text| !matches!(text, "" | "local")),
        Literal::RawString(text) => !matches!(text.as_str(), "" | "local"),
        _ => false,
    }
}
