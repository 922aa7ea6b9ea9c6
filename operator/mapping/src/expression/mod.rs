//! The thin layer behind which the expression language lies. The rest of the crate knows expressions, roots and results, not VRL.
//!
//! An expression sees `.record` (or, where what somebody sent is judged, `.input`), and `.item` inside a list; it makes one value and changes nothing. It is compiled once against the types of
//! both sides, so that what it can give is known before a record is seen. At run time it is bounded in steps, and what it gives is checked
//! again: a type is a promise of a schema, a value is what a system really sent.

mod check;
mod functions;
mod value;

pub(crate) use check::{Problem, Scope};

use crate::convert::Direction;
use crate::shape::{Field, nearest, word};
use ::vrl::compiler::runtime::Runtime;
use ::vrl::compiler::state::{ExternalEnv, LocalEnv, RuntimeState, TypeState};
use ::vrl::compiler::{CompileConfig, Compiler, Program, SecretTarget, Target, TimeZone};
use ::vrl::diagnostic::{Diagnostic, DiagnosticMessage};
use ::vrl::parser::ast::RootExpr;
use ::vrl::path::OwnedTargetPath;
use ::vrl::value::kind::{Collection, Kind};
use ::vrl::value::{ObjectMap, Value as Vrl};
use fairlead_model::schema::FieldType;
use fairlead_model::{Document, FieldPath};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// The language and version that tables are compiled with.
pub const LANGUAGE: &str = "vrl 0.38";
/// The longest expression, in characters (API.md).
pub const MAX_EXPRESSION: usize = 1024;
/// The most steps one evaluation may take.
const MAX_STEPS: u32 = 100_000;
/// The code of the diagnostics in which a function itself refuses an argument.
const FUNCTION: usize = 610;
/// The largest result, in bytes of its texts.
const MAX_RESULT: usize = 1024 * 1024;

/// Whatever runs must give the same result everywhere, so the machine's own time zone is never asked.
static UTC: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::parse("UTC").unwrap_or_default());

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
    result: Kind,
    inputs: Vec<FieldPath>,
    names: BTreeSet<String>,
    root: &'static str,
}

impl Expression {
    /// Compiles `source` against the types of its roots.
    pub(crate) fn compile(source: &str, scope: Scope<'_>) -> Result<Self, Vec<Problem>> {
        let length = source.chars().count();
        if length > MAX_EXPRESSION {
            return Err(vec![Problem::new(format!("has {length} characters, the most is {MAX_EXPRESSION}"), "")]);
        }
        if source.trim().is_empty() {
            return Err(vec![Problem::new("is empty", &format!("leave it out, or write an expression over .{}", scope.root))]);
        }
        // Brackets bound the depth of everything but chains of operators, which the walk bounds: nothing recursive runs before it.
        let ast = ::vrl::parser::parse(source).map_err(|error| problems(source, scope.root, vec![Diagnostic::from(boxed(error))]))?;
        let unreadable: Vec<Diagnostic> = ast
            .iter()
            .filter_map(|root| match root.inner() {
                RootExpr::Error(error) => Some(Diagnostic::from(boxed(error.clone()))),
                RootExpr::Expr(_) => None,
            })
            .collect();
        if !unreadable.is_empty() {
            return Err(problems(source, scope.root, unreadable));
        }
        let checked = check::check(ast.clone(), scope);
        if !checked.problems.is_empty() {
            return Err(checked.problems);
        }
        let state =
            TypeState { local: LocalEnv::default(), external: ExternalEnv::new_with_kind(roots(scope), Kind::object(Collection::empty())) };
        let mut config = CompileConfig::default();
        config.set_read_only();
        let compiled = Compiler::compile(&functions::FUNCTIONS, ast, &state, config)
            .map_err(|list| problems(source, scope.root, list.into_iter().collect()))?;
        let info = compiled.program.final_type_info().result;
        let result = info.kind().union(info.returns().clone());
        Ok(Self { program: compiled.program, result, inputs: checked.inputs.into_iter().collect(), names: checked.names, root: scope.root })
    }

    /// The fields it looks at.
    pub(crate) fn inputs(&self) -> &[FieldPath] {
        &self.inputs
    }

    /// The top-level fields of its root that it looks at.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether what it gives fits `field`; if not, why.
    pub(crate) fn fits(&self, field: &Field, direction: Direction) -> Result<(), Problem> {
        let mut wanted = match field.kind {
            FieldType::String | FieldType::Date => Kind::bytes(),
            FieldType::Integer => Kind::integer(),
            FieldType::Decimal | FieldType::Float | FieldType::Reference => Kind::bytes().or_integer(),
            FieldType::Boolean => Kind::boolean(),
            FieldType::DateTime => Kind::bytes().or_timestamp(),
            FieldType::List => Kind::array(Collection::any()),
            FieldType::Object => Kind::object(Collection::any()),
            FieldType::Any => {
                Kind::bytes().or_integer().or_boolean().or_timestamp().or_array(Collection::any()).or_object(Collection::any())
            }
        };
        if field.nullable || field.kind == FieldType::Any {
            wanted = wanted.or_null().or_undefined();
        }
        if self.result.is_never() {
            return Err(Problem::new("never gives a value", "an expression ends with the value it makes"));
        }
        if wanted.is_superset(&self.result).is_ok() {
            return Ok(());
        }
        let given = value::words(&self.result);
        let hint = match (field.kind, given.as_slice()) {
            (_, [.., "null"]) if wanted.or_null().is_superset(&self.result).is_ok() => {
                "say what stands for a missing value: if .record.x == null { ... } else { ... }, or string!(...) to refuse the record"
            }
            (FieldType::Integer, words) if words.contains(&"string") => "parse_int!(..., 10) reads a whole number from a text",
            (FieldType::Integer, _) => "int!(...) insists on a whole number",
            (FieldType::Boolean, _) => "compare with ==, or bool!(...) insists on a boolean",
            (FieldType::List, _) => "array!(...) insists on a list",
            (FieldType::Object, _) => "object!(...) insists on an object",
            (FieldType::String, words) if words.contains(&"integer") && !words.contains(&"object") => "to_string(...) writes it as a text",
            (FieldType::Decimal, _) => "to_decimal!(...) insists on a decimal",
            _ => "string!(...) insists on a text",
        };
        Err(Problem::new(format!("{}, {} wants {}", given.join(" or "), direction.receiver(), word(field.kind)), hint))
    }

    /// Whether it gives a boolean and nothing else; if not, what it gives.
    pub(crate) fn is_boolean(&self) -> Result<(), String> {
        if self.result.is_boolean() { Ok(()) } else { Err(value::words(&self.result).join(" or ")) }
    }

    /// Evaluates it. The message of a failure holds none of the record's texts.
    pub(crate) fn run(&self, roots: &mut Roots<'_>) -> Result<Value, String> {
        roots.root = self.root;
        let mut steps = 0;
        let mut control = || {
            steps += 1;
            if steps > MAX_STEPS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = Runtime::new(RuntimeState::default()).resolve_with_control(roots.target(), &self.program, &UTC, &mut control);
        let result = result.map_err(|error| match error {
            ::vrl::compiler::runtime::Terminate::Interrupted => format!("took more than {MAX_STEPS} steps"),
            other => roots.mask(&other.to_string()),
        })?;
        if size(&result) > MAX_RESULT {
            return Err(format!("gives more than {MAX_RESULT} bytes"));
        }
        value::from_vrl(result)
    }
}

fn roots(scope: Scope<'_>) -> Kind {
    let mut known = std::collections::BTreeMap::new();
    known.insert(scope.root.into(), value::object(scope.record));
    if let Some(node) = scope.item.and_then(|list| scope.record.node(list)) {
        known.insert("item".into(), value::element(node));
    }
    Kind::object(Collection::from_parts(known, Kind::undefined()))
}

fn boxed(error: impl DiagnosticMessage + 'static) -> Box<dyn DiagnosticMessage> {
    Box::new(error)
}

/// The compiler's diagnostics as one line each, with the part of the source that is meant.
fn problems(source: &str, root: &str, list: Vec<Diagnostic>) -> Vec<Problem> {
    list.into_iter()
        .filter(Diagnostic::is_problem)
        .map(|found| {
            let label = found.labels.iter().find(|label| label.primary).or_else(|| found.labels.first());
            let place = label.and_then(|label| source.get(label.span.start()..label.span.end())).unwrap_or("").trim();
            let hint = match found.code {
                100 | 103 | 104 => "add ! to make a failure refuse the record, or ?? VALUE to give another value".to_owned(),
                105 => nearest(place, functions::FUNCTIONS.iter().map(|function| function.identifier().to_owned()))
                    .map_or_else(String::new, |meant| format!("did you mean {meant}?")),
                110 => "insist on the type first: string!(...), int!(...), array!(...)".to_owned(),
                701 => format!("fields begin with their root (.{root}.{place}), texts stand in double quotes"),
                _ => String::new(),
            };
            // The labels tell the story in order, except where they only repeat the message. The tokens that a grammar would have taken tell
            // nothing.
            let (told, of_argument) = match found.code {
                105 | 701 => (0, false),
                100 | 103 | 104 => (1, false),
                // What a function itself says of an argument: which one, what it got, what it takes.
                FUNCTION => (3, true),
                _ => (2, false),
            };
            let message = if of_argument {
                found.message.rsplit("] ").next().unwrap_or_default().trim_end_matches('"')
            } else {
                found.message.as_str()
            };
            let labels = found.labels.iter().map(|label| label.message.as_str()).filter(|text| !text.is_empty() && *text != message);
            let labels: Vec<&str> = labels.filter(|text| of_argument || !text.starts_with("expected one of")).take(told).collect();
            let about = match labels.as_slice() {
                [] => String::new(),
                [first, rest @ ..] if of_argument && first.starts_with(message) => {
                    format!("{}: {}", &first[message.len()..], rest.join(", "))
                }
                labels => format!(": {}", labels.join(" ")),
            };
            let about = about.replace("unexpected syntax token: \"InvalidToken\"", "nothing begins with this");
            let place = if place.is_empty() || place.len() > 60 { String::new() } else { format!(" at `{place}`") };
            Problem::new(format!("{message}{about}{place}").replace('\n', " "), &hint)
        })
        .collect()
}

/// Bytes of all texts in a value.
fn size(value: &Vrl) -> usize {
    match value {
        Vrl::Bytes(bytes) => bytes.len(),
        Vrl::String(text) => text.len(),
        Vrl::Array(items) => items.iter().map(|item| size(item).saturating_add(8)).sum(),
        Vrl::Object(fields) => fields.iter().map(|(name, value)| size(value).saturating_add(name.len())).sum(),
        _ => 8,
    }
}

/// The roots of one record's expressions. VRL's values are made when the first expression asks for them, once for all of them.
#[derive(Debug)]
pub(crate) struct Roots<'d> {
    document: &'d Document,
    /// What the document is called. One table's expressions all call it the same.
    root: &'static str,
    /// The top-level fields that any expression of the table looks at.
    names: &'d BTreeSet<String>,
    made: Option<Made>,
    item: Option<&'d Value>,
    item_made: bool,
}

impl<'d> Roots<'d> {
    pub(crate) fn new(document: &'d Document, names: &'d BTreeSet<String>) -> Self {
        Self { document, root: "record", names, made: None, item: None, item_made: false }
    }

    /// Goes to the next element of a list, or leaves it.
    pub(crate) fn set_item(&mut self, item: Option<&'d Value>) {
        self.item = item;
        self.item_made = false;
    }

    fn target(&mut self) -> &mut Made {
        let made = self.made.get_or_insert_with(|| {
            let record: ObjectMap = self
                .names
                .iter()
                .filter_map(|name| self.document.get(name).map(|value| (name.as_str().into(), value::to_vrl(value))))
                .collect();
            Made(Vrl::Object(ObjectMap::from([(self.root.into(), Vrl::Object(record))])))
        });
        if !self.item_made {
            if let Vrl::Object(roots) = &mut made.0 {
                match self.item {
                    Some(item) => roots.insert("item".into(), value::to_vrl(item)),
                    None => roots.remove("item"),
                };
            }
            self.item_made = true;
        }
        made
    }

    /// `message` without any text of the record that it may quote.
    fn mask(&self, message: &str) -> String {
        fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
            match value {
                Value::String(text) if !text.is_empty() => found.push(text),
                Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
                Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
                _ => {}
            }
        }
        let mut found = vec![];
        self.names.iter().filter_map(|name| self.document.get(name)).chain(self.item).for_each(|value| texts(value, &mut found));
        // Longer ones first, so that no part of one is left when another lies in it. Short ones only where they stand in quotes: they are
        // parts of any sentence.
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let message = found.into_iter().fold(message.to_owned(), |message, text| {
            if text.chars().count() > 3 { message.replace(text, "...") } else { message.replace(&format!("\"{text}\""), "\"...\"") }
        });
        message.replace('\n', " ")
    }
}

/// The roots as VRL's target: readable, and nothing else.
#[derive(Debug)]
struct Made(Vrl);

impl Target for Made {
    fn target_insert(&mut self, _: &OwnedTargetPath, _: Vrl) -> Result<(), String> {
        Err("records cannot be changed".into())
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Vrl>, String> {
        Ok(self.0.get(&path.path))
    }

    fn target_get_mut(&mut self, _: &OwnedTargetPath) -> Result<Option<&mut Vrl>, String> {
        Err("records cannot be changed".into())
    }

    fn target_remove(&mut self, _: &OwnedTargetPath, _: bool) -> Result<Option<Vrl>, String> {
        Err("records cannot be changed".into())
    }
}

impl SecretTarget for Made {
    fn get_secret(&self, _: &str) -> Option<&str> {
        None
    }

    fn insert_secret(&mut self, _: &str, _: &str) {}

    fn remove_secret(&mut self, _: &str) {}
}
