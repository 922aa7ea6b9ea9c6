//! The grammar of SOQL: text to a tree of names. What the names mean is [`super::query`]'s business.
//!
//! Spoken: field lists with relationship paths, `FIELDS(..)`, child subqueries, `COUNT()`, `WHERE` with `AND`, `OR`, `NOT`,
//! parentheses, `= != <> < <= > >= LIKE IN NOT IN`, semi-joins, string, number, date, datetime, boolean and null literals,
//! `TODAY`, `YESTERDAY` and `LAST_N_DAYS:n`, `ORDER BY` several with `ASC`, `DESC`, `NULLS FIRST|LAST`, `LIMIT`, `OFFSET`.
//! As the platform, it refuses `AND` mixed with `OR` without parentheses. Not spoken: grouping, aggregates other than
//! `COUNT()`, `TYPEOF`, `WITH`, `FOR`. Pure: no state, no clock.

use chrono::{DateTime, NaiveDate, Utc};

use super::errors::ApiError;

/// How deep parentheses may nest.
const DEPTH: usize = 64;

/// The longest statement, in characters.
const LONGEST: usize = 100_000;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) selection: Vec<Item>,
    pub(super) from: Name,
    pub(super) filter: Option<Filter>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

/// A name and where it stands, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) at: usize,
}

/// One part of the field list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `Name` or `Parent.Name`.
    Field(Name),
    /// `FIELDS(ALL)`; the word in capitals.
    Group(Name),
    /// `(SELECT .. FROM Contacts)`.
    Children(Box<Statement>),
    /// `COUNT()`.
    Count,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Compare { field: Name, operator: Operator, value: Literal },
    In { field: Name, negated: bool, values: Values },
}

/// What stands after `IN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    List(Vec<Literal>),
    Query(Box<Statement>),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
}

/// A literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    Date(NaiveDate),
    DateTime(DateTime<Utc>),
    /// `TODAY`, `YESTERDAY`, `LAST_N_DAYS`: the days from today at which the span begins and how many days it has.
    Days {
        from: i64,
        count: i64,
    },
}

/// One key of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) field: Name,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

/// Reads a statement.
pub(super) fn parse(text: &str) -> Result<Statement, ApiError> {
    if text.chars().count() > LONGEST {
        let message = format!("SOQL statements cannot be longer than {LONGEST} characters");
        return Err(ApiError::data("MALFORMED_QUERY", message, &[]));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0 };
    let statement = parser.statement(false)?;
    match parser.tokens.get(parser.at) {
        None => Ok(statement),
        Some(_) => Err(parser.unexpected()),
    }
}

/// An error that shows the place in the statement as the platform does.
pub(super) fn error(text: &str, at: usize, code: &'static str, message: &str) -> ApiError {
    let from = text[..at.min(text.len())].char_indices().rev().nth(19).map_or(0, |(index, _)| index);
    let shown: String = text[from..].chars().take(50).collect();
    let column = text[..at.min(text.len())].chars().count() + 1;
    let pointer = " ".repeat(text[from..at.min(text.len())].chars().count());
    ApiError::data(code, format!("\n{shown}\n{pointer}^\nERROR at Row:1:Column:{column}\n{message}"), &[])
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Word(String),
    Text(String),
    Number(String),
    Date(NaiveDate),
    DateTime(DateTime<Utc>),
    Symbol(&'static str),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    at: usize,
    end: usize,
}

const SYMBOLS: [&str; 11] = ["!=", "<>", "<=", ">=", "(", ")", ",", "=", "<", ">", ":"];

fn tokens(text: &str) -> Result<Vec<Token>, ApiError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let (kind, length) = if first == '\'' {
            quoted(text, at)?
        } else if first.is_ascii_digit() || matches!(first, '+' | '-' | '.') {
            let length = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "+-:.".contains(letter))).unwrap_or(rest.len());
            (scalar(&rest[..length]).ok_or_else(|| unexpected(text, at, &rest[..length]))?, length)
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|letter: char| !(letter.is_alphanumeric() || "_.".contains(letter))).unwrap_or(rest.len());
            (Kind::Word(rest[..length].to_owned()), length)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| unexpected(text, at, &first.to_string()))?;
            (Kind::Symbol(symbol), symbol.len())
        };
        tokens.push(Token { kind, at, end: at + length });
        at += length;
    }
    Ok(tokens)
}

fn quoted(text: &str, at: usize) -> Result<(Kind, usize), ApiError> {
    let mut value = String::new();
    let mut letters = text[at + 1..].char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '\'' => return Ok((Kind::Text(value), index + 2)),
            '\\' => match letters.next().map(|(_, letter)| letter) {
                Some('n' | 'N') => value.push('\n'),
                Some('r' | 'R') => value.push('\r'),
                Some('t' | 'T') => value.push('\t'),
                Some('b' | 'B') => value.push('\u{8}'),
                Some('f' | 'F') => value.push('\u{c}'),
                Some(same @ ('\'' | '"' | '\\')) => value.push(same),
                // In LIKE these stand for themselves; the mark must survive until then.
                Some(wild @ ('%' | '_')) => value.extend(['\\', wild]),
                _ => return Err(error(text, at, "MALFORMED_QUERY", "invalid string literal: illegal character sequence '\\' in it")),
            },
            other => value.push(other),
        }
    }
    Err(error(text, at, "MALFORMED_QUERY", "unterminated string literal"))
}

fn scalar(word: &str) -> Option<Kind> {
    if let Ok(date) = NaiveDate::parse_from_str(word, "%Y-%m-%d") {
        return (word.len() == 10).then_some(Kind::Date(date));
    }
    if word.contains('T') {
        let at = DateTime::parse_from_rfc3339(word).or_else(|_| DateTime::parse_from_str(word, "%Y-%m-%dT%H:%M:%S%.f%z"));
        return at.ok().map(|at| Kind::DateTime(at.with_timezone(&Utc)));
    }
    let digits = word.trim_start_matches(['+', '-']);
    let signed = word.len() - digits.len() <= 1;
    let plain = digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.') && digits.matches('.').count() <= 1;
    (signed && plain && digits.chars().any(|letter| letter.is_ascii_digit())).then(|| Kind::Number(word.trim_start_matches('+').to_owned()))
}

fn unexpected(text: &str, at: usize, token: &str) -> ApiError {
    error(text, at, "MALFORMED_QUERY", &format!("unexpected token: '{token}'"))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn unexpected(&self) -> ApiError {
        match self.tokens.get(self.at) {
            Some(token) => unexpected(self.text, token.at, &self.text[token.at..token.end]),
            None => error(self.text, self.text.len(), "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Symbol(found)) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, symbol: &str) -> Result<(), ApiError> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead).map(|token| &token.kind), Some(Kind::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.at += usize::from(found);
        found
    }

    fn need_word(&mut self, word: &str) -> Result<(), ApiError> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn name(&mut self) -> Result<Name, ApiError> {
        match self.tokens.get(self.at) {
            Some(Token { kind: Kind::Word(text), at, .. }) if !text.ends_with('.') && !text.contains("..") => {
                let name = Name { text: text.clone(), at: *at };
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ApiError>) -> Result<T, ApiError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ApiError::data("MALFORMED_QUERY", "the statement nests too deep", &[]));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn statement(&mut self, inner: bool) -> Result<Statement, ApiError> {
        self.need_word("SELECT")?;
        let mut selection = vec![self.item(inner)?];
        while self.symbol(",") {
            selection.push(self.item(inner)?);
        }
        self.need_word("FROM")?;
        let from = self.name()?;
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        let mut order = Vec::new();
        if self.word("ORDER") {
            self.need_word("BY")?;
            order.push(self.order()?);
            while self.symbol(",") {
                order.push(self.order()?);
            }
        }
        let limit = if self.word("LIMIT") { Some(self.count()?) } else { None };
        let offset = if self.word("OFFSET") { self.count()? } else { 0 };
        Ok(Statement { selection, from, filter, order, limit, offset })
    }

    fn item(&mut self, inner: bool) -> Result<Item, ApiError> {
        if self.symbol("(") {
            if inner {
                return Err(self.unexpected());
            }
            let statement = self.statement(true)?;
            self.need(")")?;
            return Ok(Item::Children(Box::new(statement)));
        }
        let name = self.name()?;
        if !self.symbol("(") {
            return Ok(Item::Field(name));
        }
        let item = match name.text.to_ascii_uppercase().as_str() {
            "COUNT" => Item::Count,
            "FIELDS" => {
                let group = self.name()?;
                Item::Group(Name { text: group.text.to_ascii_uppercase(), at: group.at })
            }
            _ => return Err(self.unexpected()),
        };
        self.need(")")?;
        Ok(item)
    }

    fn order(&mut self) -> Result<Order, ApiError> {
        let field = self.name()?;
        let descending = self.word("DESC");
        if !descending {
            self.word("ASC");
        }
        let mut nulls_last = false;
        if self.word("NULLS") {
            nulls_last = self.word("LAST");
            if !nulls_last {
                self.need_word("FIRST")?;
            }
        }
        Ok(Order { field, descending, nulls_last })
    }

    fn count(&mut self) -> Result<usize, ApiError> {
        let number = match self.peek() {
            Some(Kind::Number(number)) => number.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.at += 1;
        Ok(number)
    }

    /// One level of conditions: all joined by the same word.
    fn condition(&mut self) -> Result<Filter, ApiError> {
        let first = self.single()?;
        let word = match () {
            () if self.is_word(0, "AND") => "AND",
            () if self.is_word(0, "OR") => "OR",
            () => return Ok(first),
        };
        let mut parts = vec![first];
        while self.word(word) {
            parts.push(self.single()?);
        }
        if self.is_word(0, "AND") || self.is_word(0, "OR") {
            return Err(self.unexpected());
        }
        Ok(if word == "AND" { Filter::All(parts) } else { Filter::Any(parts) })
    }

    fn single(&mut self) -> Result<Filter, ApiError> {
        if self.symbol("(") {
            let inner = self.deeper(Self::condition)?;
            self.need(")")?;
            return Ok(inner);
        }
        if self.word("NOT") {
            return Ok(Filter::Not(Box::new(self.deeper(Self::single)?)));
        }
        let field = self.name()?;
        let negated = self.is_word(0, "NOT") && self.is_word(1, "IN");
        self.at += usize::from(negated);
        if self.word("IN") {
            return self.membership(field, negated);
        }
        let operator = match self.peek() {
            Some(Kind::Symbol("=")) => Operator::Equal,
            Some(Kind::Symbol("!=" | "<>")) => Operator::Unequal,
            Some(Kind::Symbol("<")) => Operator::Less,
            Some(Kind::Symbol("<=")) => Operator::LessOrEqual,
            Some(Kind::Symbol(">")) => Operator::Greater,
            Some(Kind::Symbol(">=")) => Operator::GreaterOrEqual,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("LIKE") => Operator::Like,
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        let value = self.literal()?;
        Ok(Filter::Compare { field, operator, value })
    }

    fn membership(&mut self, field: Name, negated: bool) -> Result<Filter, ApiError> {
        self.need("(")?;
        let values = if self.is_word(0, "SELECT") {
            Values::Query(Box::new(self.deeper(|parser| parser.statement(true))?))
        } else {
            let mut list = vec![self.literal()?];
            while self.symbol(",") {
                list.push(self.literal()?);
            }
            Values::List(list)
        };
        self.need(")")?;
        Ok(Filter::In { field, negated, values })
    }

    fn literal(&mut self) -> Result<Literal, ApiError> {
        let literal = match self.peek() {
            Some(Kind::Text(text)) => Literal::Text(text.clone()),
            Some(Kind::Number(number)) => Literal::Number(number.clone()),
            Some(Kind::Date(date)) => Literal::Date(*date),
            Some(Kind::DateTime(at)) => Literal::DateTime(*at),
            Some(Kind::Word(word)) => match word.to_ascii_uppercase().as_str() {
                "NULL" => Literal::Null,
                "TRUE" => Literal::Bool(true),
                "FALSE" => Literal::Bool(false),
                "TODAY" => Literal::Days { from: 0, count: 1 },
                "YESTERDAY" => Literal::Days { from: -1, count: 1 },
                "LAST_N_DAYS" => {
                    self.at += 1;
                    self.need(":")?;
                    let days = i64::try_from(self.count()?).unwrap_or(i64::from(u16::MAX)).min(i64::from(u16::MAX));
                    return Ok(Literal::Days { from: -days, count: days + 1 });
                }
                _ => return Err(self.unexpected()),
            },
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(literal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fails(text: &str, part: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code, "MALFORMED_QUERY");
        assert!(error.message.contains(part), "{text}: {}", error.message);
    }

    #[test]
    fn a_keyset_page_reads_as_it_is_meant() {
        let statement = parse(
            "select Id, Parent.Name, (SELECT Id FROM Contacts ORDER BY Id) FROM Account WHERE (SystemModstamp = 2026-05-06T00:00:00Z AND Id > \
             '001') OR SystemModstamp > 2026-05-06T02:00:00+02:00 ORDER BY SystemModstamp ASC, Id DESC NULLS LAST LIMIT 200",
        )
        .unwrap();
        assert_eq!(statement.selection.len(), 3);
        let Some(Filter::Any(parts)) = statement.filter else { panic!("no OR") };
        assert!(matches!(&parts[0], Filter::All(both) if both.len() == 2));
        let at: DateTime<Utc> = "2026-05-06T00:00:00Z".parse().unwrap();
        assert!(matches!(&parts[1], Filter::Compare { value: Literal::DateTime(found), .. } if *found == at));
        assert_eq!(statement.order.len(), 2);
        assert!(statement.order[1].descending && statement.order[1].nulls_last);
        assert_eq!(statement.limit, Some(200));
    }

    #[test]
    fn and_mixed_with_or_needs_parentheses() {
        fails("SELECT Id FROM Account WHERE Name = 'a' AND Name = 'b' OR Name = 'c'", "unexpected token: 'OR'");
        parse("SELECT Id FROM Account WHERE (Name = 'a' AND Name = 'b') OR Name = 'c'").unwrap();
    }

    #[test]
    fn wrong_statements_name_the_token_that_is_wrong() {
        fails("SELECT FROM Account", "unexpected token: 'Account'");
        fails("SELECT Id FROM Account WHERE", "unexpected token: '<EOF>'");
        fails("SELECT Id FROM Account WHERE Name = 'a", "unterminated");
        fails("SELECT Id FROM Account LIMIT x", "unexpected token: 'x'");
        fails("SELECT Id FROM Account;", "unexpected token: ';'");
        fails("SELECT Id FROM Account WHERE CreatedDate > 2026-13-01T00:00:00Z", "unexpected token");
        fails(&format!("SELECT Id FROM Account WHERE {}", "(".repeat(500)), "too deep");
    }

    /// As a client escapes a text for a SOQL string.
    fn escape(text: &str) -> String {
        text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r")
    }

    proptest! {
        #[test]
        fn any_text_survives_quoting(value in "[^\u{0}]{0,40}") {
            let statement = parse(&format!("SELECT Id FROM Account WHERE Name = '{}'", escape(&value))).unwrap();
            let Some(Filter::Compare { value: Literal::Text(found), .. }) = statement.filter else { panic!("no text") };
            prop_assert_eq!(found, value);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(SELECT |FROM |WHERE |Id|'|\\\\|\\(|\\)|,|=|é|[ -~]){0,30}") {
            drop(parse(&text));
        }
    }
}
