//! What an expression may be made of, judged on its syntax tree before anything is compiled.
//!
//! VRL itself knows neither decimals nor the bounds of a mapping. So here the traps are closed: binary floats, arithmetic and comparison on the
//! text of decimals (which would join or order them as text), assignments outside, functions that are not on the list, depth, and growth (a
//! text that is put into itself again and again).

use super::functions::{REFUSED, instead};
use crate::shape::Tree;
use ::vrl::parser::ast::{
    Assignment, AssignmentOp, AssignmentTarget, Block, Container, Expr, FunctionCall, FunctionClosure, Literal, Node, Opcode, Predicate,
    Program, Query, QueryTarget, RootExpr, Unary,
};
use ::vrl::path::{OwnedSegment, PathPrefix};
use fairlead_model::FieldPath;
use fairlead_model::schema::FieldType;
use std::collections::{BTreeMap, BTreeSet};

/// How deep an expression may nest. VRL's type check repeats work at every level, so depth costs more than length.
const MAX_DEPTH: usize = 24;
/// How many copies of the record's texts one value may hold.
const MAX_COPIES: u64 = 64;
const TOO_MUCH: &str = "makes too much out of one record";

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
    /// What the root is called: `record`, or `input`.
    pub(crate) root: &'static str,
    /// What the root is.
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
    /// The top-level fields of the root that it looks at.
    pub(crate) names: BTreeSet<String>,
}

pub(crate) fn check(program: Program, scope: Scope<'_>) -> Checked {
    let mut decimal_names = BTreeSet::new();
    names_of_decimals(scope.record, &mut decimal_names);
    let mut walk = Walk { scope, checked: Checked::default(), locals: BTreeMap::new(), decimal_names, closed: BTreeSet::new() };
    for root in program {
        // What cannot be read was told before.
        if let RootExpr::Expr(expr) = root.into_inner() {
            walk.expr(expr.into_inner(), 0);
        }
    }
    walk.checked
}

/// The last names of all fields that hold decimals: how the walk knows them in a closure, where only the name is left.
fn names_of_decimals(node: &Tree, found: &mut BTreeSet<String>) {
    for (name, child) in node.children() {
        if is_decimal(child) {
            found.insert(name.clone());
        }
        names_of_decimals(child, found);
    }
}

/// A field that is a decimal in a document: one that really is a float is there as text as well.
fn is_decimal(node: &Tree) -> bool {
    matches!(node.field().kind, FieldType::Decimal | FieldType::Float)
}

struct Walk<'a> {
    scope: Scope<'a>,
    checked: Checked,
    /// Local names and what they hold.
    locals: BTreeMap<String, Worth>,
    decimal_names: BTreeSet<String>,
    /// Names outside the closure that is being looked at.
    closed: BTreeSet<String>,
}

/// What the walk knows of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Worth {
    /// Whether it is the text of a decimal.
    decimal: bool,
    /// How many copies of the record's texts it holds at most.
    copies: u64,
}

impl Worth {
    /// One text, number or flag.
    const ONE: Self = Self { decimal: false, copies: 1 };

    fn of(decimal: bool) -> Self {
        Self { decimal, ..Self::ONE }
    }

    /// Both in one.
    fn with(self, other: Self) -> Self {
        Self { decimal: self.decimal || other.decimal, copies: self.copies.saturating_add(other.copies) }
    }

    /// One or the other.
    fn or(self, other: Self) -> Self {
        Self { decimal: self.decimal || other.decimal, copies: self.copies.max(other.copies) }
    }

    fn plain(self) -> Self {
        Self { decimal: false, ..self }
    }
}

impl Walk<'_> {
    fn problem(&mut self, message: impl Into<String>, hint: &str) {
        let problem = Problem::new(message, hint);
        if !self.checked.problems.contains(&problem) {
            self.checked.problems.push(problem);
        }
    }

    fn expr(&mut self, expr: Expr, depth: usize) -> Worth {
        if depth > MAX_DEPTH {
            self.problem(format!("nests deeper than {MAX_DEPTH} levels"), "split it with local names: a = ...; b = ... a ...");
            return Worth::ONE;
        }
        let worth = self.expr_within(expr, depth + 1);
        if worth.copies > MAX_COPIES {
            self.problem(TOO_MUCH, &format!("a value may hold its texts {MAX_COPIES} times"));
            return Worth { copies: 1, ..worth };
        }
        worth
    }

    fn expr_within(&mut self, expr: Expr, depth: usize) -> Worth {
        match expr {
            Expr::Literal(literal) => self.literal(literal.into_inner(), depth),
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
                choice.else_node.map_or(first, |block| first.or(self.block(block.into_inner(), depth)))
            }
            Expr::Op(op) => {
                let op = op.into_inner();
                let (left, opcode, right) = (op.0.into_inner(), op.1.into_inner(), op.2.into_inner());
                let null = [&left, &right].into_iter().any(|side| matches!(side, Expr::Literal(l) if matches!(l.inner(), Literal::Null)));
                let (left, right) = (self.expr(left, depth), self.expr(right, depth));
                self.operator(opcode, left.decimal || right.decimal, null);
                match opcode {
                    Opcode::Or | Opcode::Err => left.or(right),
                    Opcode::Add | Opcode::Merge => left.with(right).plain(),
                    _ => Worth::ONE,
                }
            }
            Expr::Assignment(assignment) => self.assignment(assignment.into_inner(), depth),
            Expr::Query(query) => self.query(query.into_inner(), depth),
            Expr::FunctionCall(call) => self.call(call.into_inner(), depth),
            Expr::Variable(name) => self.local(name.inner().as_ref()),
            Expr::Unary(unary) => {
                let Unary::Not(not) = unary.into_inner();
                self.expr(not.into_inner().take().1.into_inner(), depth);
                Worth::ONE
            }
            Expr::Abort(abort) => abort.into_inner().message.map_or(Worth::ONE, |message| self.expr(message.into_inner(), depth)),
            Expr::Return(inner) => self.expr(inner.into_inner().expr.into_inner(), depth),
            Expr::Break(_) => Worth::ONE,
        }
    }

    fn local(&self, name: &str) -> Worth {
        self.locals.get(name).copied().unwrap_or(Worth::ONE)
    }

    fn literal(&mut self, literal: Literal, depth: usize) -> Worth {
        match literal {
            Literal::Float(number) => {
                self.problem(format!("{number} is a binary floating-point number"), &format!("write it as text: \"{number}\""));
                Worth::ONE
            }
            Literal::String(template) if template.as_literal_string().is_none() => {
                // A template is a sum of its parts; that decimals become text in it is meant.
                let known = self.checked.problems.len();
                let worth = self.expr(template.rewrite_to_concatenated_strings(), depth);
                let new = self.checked.problems.split_off(known);
                self.checked.problems.extend(new.into_iter().filter(|problem| problem.message == TOO_MUCH));
                worth.plain()
            }
            _ => Worth::ONE,
        }
    }

    fn operator(&mut self, opcode: Opcode, decimal: bool, with_null: bool) {
        match opcode {
            // On texts `*` repeats, which makes much out of little; on numbers it may leave 64 bits unseen.
            Opcode::Mul => {
                self.problem("'*' is not available", "decimal_mul!(a, b) is exact; parse_int!(..., 10) makes a whole number of it")
            }
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

    fn block(&mut self, block: Block, depth: usize) -> Worth {
        block.into_inner().into_iter().fold(Worth::ONE, |_, expr| self.expr(expr.into_inner(), depth))
    }

    fn container(&mut self, container: Container, depth: usize) -> Worth {
        match container {
            Container::Group(group) => self.expr(group.into_inner().into_inner().into_inner(), depth),
            Container::Block(block) => self.block(block.into_inner(), depth),
            Container::Array(array) => {
                array.into_inner().into_iter().fold(Worth::ONE, |sum, expr| sum.with(self.expr(expr.into_inner(), depth)).plain())
            }
            Container::Object(object) => {
                object.into_inner().into_iter().fold(Worth::ONE, |sum, (_, expr)| sum.with(self.expr(expr.into_inner(), depth)).plain())
            }
        }
    }

    fn assignment(&mut self, assignment: Assignment, depth: usize) -> Worth {
        let (targets, op, expr) = match assignment {
            Assignment::Single { target, op, expr } => (vec![target], op, expr),
            Assignment::Infallible { ok, err, op, expr } => (vec![ok, err], op, expr),
        };
        let given = self.expr(expr.into_inner(), depth);
        for (index, target) in targets.into_iter().map(Node::into_inner).enumerate() {
            let (name, whole) = match target {
                AssignmentTarget::Internal(name, path) => (name, path.is_none()),
                AssignmentTarget::Query(Query { target, path }) if matches!(target.inner(), QueryTarget::Internal(_)) => {
                    match target.into_inner() {
                        QueryTarget::Internal(name) => (name, path.inner().segments.is_empty()),
                        _ => continue,
                    }
                }
                AssignmentTarget::Noop => continue,
                AssignmentTarget::External(_) | AssignmentTarget::Query(_) => {
                    self.problem("assigns to a record", "an expression makes one value; use a local name without a dot");
                    continue;
                }
            };
            // The second name of `value, error = ...` holds a message.
            let mut worth = if index == 0 { given } else { Worth::ONE };
            let name = name.into_inner();
            if self.closed.contains(&name) {
                self.problem(
                    format!("the closure sets {name}, which stands outside it"),
                    "a closure gives a value: map_values, filter; decimal_sum! adds up",
                );
            }
            if !whole || op == AssignmentOp::Merge {
                worth = self.local(&name).with(worth).plain();
            }
            self.locals.insert(name, worth);
        }
        given
    }

    fn call(&mut self, call: FunctionCall, depth: usize) -> Worth {
        let name = call.ident.inner().as_ref().to_owned();
        if REFUSED.contains(name.as_str()) {
            self.problem(format!("{name} is not available in mappings"), instead(&name));
        }
        if name == "parse_int" && call.arguments.len() < 2 {
            self.problem("parse_int without a base reads \"010\" as 8", "parse_int!(text, 10)");
        }
        let mut all = Worth::ONE;
        let mut first = None;
        for (index, argument) in call.arguments.into_iter().enumerate() {
            let argument = argument.into_inner();
            let keyword = argument.ident.as_ref().map(|ident| (ident.inner().as_ref() as &str).to_owned());
            let expr = argument.expr.into_inner();
            let fixed = matches!(&expr, Expr::Literal(literal) if is_fixed(literal.inner()));
            let named = |word: &str, position: usize| keyword.as_deref().map_or(index == position, |keyword| keyword == word);
            let zone = matches!(name.as_str(), "format_timestamp" | "parse_timestamp") && named("timezone", 2);
            if zone && !matches!(&expr, Expr::Literal(literal) if is_zone(literal.inner())) {
                self.problem("the time zone must be a name in quotes, and not \"local\"", "timezone: \"Europe/Berlin\"");
            }
            // What is put in at every place must not be as long as the record makes it.
            if !fixed && (name == "replace" && named("with", 2) || name == "join" && named("separator", 1)) {
                self.problem(format!("{name} puts in a fixed text only"), "write it in quotes");
            }
            let worth = self.expr(expr, depth);
            first = first.or(Some(worth));
            all = all.with(worth);
        }
        let own = match name.as_str() {
            "to_decimal" | "decimal_add" | "decimal_sub" | "decimal_mul" | "decimal_div" | "decimal_round" | "decimal_sum" => {
                Worth::of(true)
            }
            // The first argument again, or a part of it.
            "string" | "to_string" | "int" | "bool" | "array" | "object" | "upcase" | "downcase" | "strip_whitespace" | "slice"
            | "truncate" | "split" | "filter" | "compact" | "unique" | "flatten" | "keys" | "values" | "find" | "get" => {
                let first = first.unwrap_or(Worth::ONE);
                if matches!(name.as_str(), "string" | "to_string") { first } else { first.plain() }
            }
            "length" | "strlen" | "contains" | "contains_all" | "starts_with" | "ends_with" | "includes" | "match" | "match_any"
            | "is_empty" | "is_null" | "is_nullish" | "is_string" | "is_integer" | "is_boolean" | "is_array" | "is_object" | "exists"
            | "parse_int" | "decimal_compare" | "parse_timestamp" | "format_timestamp" => Worth::ONE,
            _ => all.plain(),
        };
        match call.closure {
            Some(closure) => self.closure(closure.into_inner(), own, depth),
            None => own,
        }
    }

    /// A closure runs once for each element: what it makes of one it makes of all. It changes no name outside it, for that could double with
    /// every element.
    fn closure(&mut self, closure: FunctionClosure, over: Worth, depth: usize) -> Worth {
        let outside = self.locals.clone();
        let names: Vec<String> = closure.variables.iter().map(|name| (name.inner().as_ref() as &str).to_owned()).collect();
        names.iter().for_each(|name| {
            self.locals.insert(name.clone(), Worth::ONE);
        });
        let closed = std::mem::replace(&mut self.closed, outside.keys().filter(|name| !names.contains(name)).cloned().collect());
        let inner = self.block(closure.block.into_inner(), depth);
        self.closed = closed;
        self.locals = outside;
        Worth { decimal: false, copies: over.copies.saturating_mul(inner.copies) }
    }

    fn query(&mut self, query: Query, depth: usize) -> Worth {
        match query.target.into_inner() {
            QueryTarget::Internal(name) => {
                let local = self.local(name.as_ref());
                match query.path.inner().segments.iter().rev().find_map(|segment| match segment {
                    OwnedSegment::Field(name) => Some(name.as_str()),
                    OwnedSegment::Index(_) => None,
                }) {
                    Some(last) => Worth { decimal: self.decimal_names.contains(last), ..local },
                    None => local,
                }
            }
            QueryTarget::FunctionCall(call) => self.call(call, depth).plain(),
            QueryTarget::Container(container) => self.container(container, depth).plain(),
            QueryTarget::External(PathPrefix::Metadata) => {
                self.problem("there is no metadata (%)", &format!("use .{}", self.scope.root));
                Worth::ONE
            }
            QueryTarget::External(PathPrefix::Event) => Worth::of(self.field(&query.path.inner().segments)),
        }
    }

    /// A path such as `.record.address.country` or `.item.Email`.
    fn field(&mut self, segments: &[OwnedSegment]) -> bool {
        let name = self.scope.root;
        let roots = if self.scope.item.is_some() { format!(".{name} or .item") } else { format!(".{name}") };
        let root = match segments.first() {
            Some(OwnedSegment::Field(name)) => name.as_str(),
            _ => {
                self.problem("'.' alone is not available", &format!("begin with {roots}"));
                return false;
            }
        };
        let (mut node, mut path) = match (root, self.scope.item) {
            (root, _) if root == name => (self.scope.record, String::new()),
            ("item", Some(list)) => match self.scope.record.node(list) {
                Some(node) => (node, list.to_string()),
                None => return false,
            },
            ("item", None) => {
                self.problem(".item is only there in rows of a list", &format!("use .{name}"));
                return false;
            }
            (other, _) => {
                self.problem(format!("there is no .{other}"), &format!("begin with {roots}: .{name}.{other}"));
                return false;
            }
        };
        if root == name {
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
        is_decimal(node)
    }

    /// Something inside a field whose inside is not described.
    fn input(&mut self, path: &str) -> bool {
        self.checked.inputs.extend(path.parse::<FieldPath>().ok());
        false
    }
}

/// A literal without names in it.
fn is_fixed(literal: &Literal) -> bool {
    !matches!(literal, Literal::String(template) if template.as_literal_string().is_none())
}

fn is_zone(literal: &Literal) -> bool {
    match literal {
        Literal::String(text) => text.as_literal_string().is_some_and(|text| !matches!(text, "" | "local")),
        Literal::RawString(text) => !matches!(text.as_str(), "" | "local"),
        _ => false,
    }
}
