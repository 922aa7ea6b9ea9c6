//! Values of a query and the text forms of dates: Oracle format models (`YYYY-MM-DD"T"HH24:MI:SS`) in both directions.

use super::QueryError;
use bigdecimal::BigDecimal;
use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use std::cmp::Ordering;
use std::str::FromStr;
use std::sync::Arc;

/// One value. Text is never empty: Oracle stores the empty string as NULL, and so does [`Cell::text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// No value.
    Null,
    /// Text; booleans are `T` and `F`.
    Text(Arc<str>),
    /// A number, exact.
    Number(BigDecimal),
    /// A point in time; the account's zone is UTC.
    Time(DateTime<Utc>),
}

impl Cell {
    /// Text, or NULL for the empty string.
    pub fn text(value: impl AsRef<str>) -> Self {
        match value.as_ref() {
            "" => Self::Null,
            text => Self::Text(text.into()),
        }
    }

    /// Text or NULL.
    pub fn optional(value: Option<&str>) -> Self {
        value.map_or(Self::Null, Self::text)
    }

    /// `T` or `F`.
    pub fn boolean(value: bool) -> Self {
        Self::text(if value { "T" } else { "F" })
    }

    /// A number from its text; text that is no number stays text.
    pub fn number(text: &str) -> Self {
        BigDecimal::from_str(text).map_or_else(|_| Self::text(text), Self::Number)
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The value as the service prints it (all scalars are strings); nothing for NULL.
    pub fn print(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.to_string()),
            Self::Number(number) => Some(number.to_plain_string()),
            Self::Time(time) => Some(account_date(time)),
        }
    }

    /// The value with equal numbers spelled alike, for grouping and joining.
    pub(super) fn grouping_key(&self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.normalized().to_plain_string()),
            Self::Time(time) => Some(time.timestamp().to_string()),
            other => other.print(),
        }
    }

    pub(super) fn as_number(&self) -> Result<Option<BigDecimal>, QueryError> {
        match self {
            Self::Null => Ok(None),
            Self::Number(number) => Ok(Some(number.clone())),
            Self::Text(text) => {
                BigDecimal::from_str(text.trim()).map(Some).map_err(|_| QueryError::Value(format!("'{text}' is not a number.")))
            }
            Self::Time(_) => Err(QueryError::Value("A date cannot be used as a number.".into())),
        }
    }

    pub(super) fn as_time(&self) -> Result<Option<DateTime<Utc>>, QueryError> {
        match self {
            Self::Null => Ok(None),
            Self::Time(time) => Ok(Some(*time)),
            Self::Text(text) => parse_account_time(text).map(Some),
            Self::Number(_) => Err(QueryError::Value("A number cannot be used as a date.".into())),
        }
    }

    /// Compares as SQL does: numbers with numeric text as numbers, times with text of the account's date format as times;
    /// nothing when either side is NULL.
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>, QueryError> {
        let ordering = match (self, other) {
            (Self::Null, _) | (_, Self::Null) => return Ok(None),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Number(_), _) | (_, Self::Number(_)) => self.as_number()?.cmp(&other.as_number()?),
            (Self::Time(_), _) | (_, Self::Time(_)) => self.as_time()?.cmp(&other.as_time()?),
        };
        Ok(Some(ordering))
    }

    /// A total order for sorting values of one expression; NULL is last.
    pub(super) fn sort_order(&self, other: &Self) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.compare(other).ok().flatten().unwrap_or_else(|| self.print().cmp(&other.print())),
        }
    }
}

/// The account's date format, `M/D/YYYY`: what a date column shows when the query does not format it.
pub fn account_date(time: &DateTime<Utc>) -> String {
    format!("{}/{}/{}", time.month(), time.day(), time.year())
}

/// Text in the account's format, with or without a time of day.
fn parse_account_time(text: &str) -> Result<DateTime<Utc>, QueryError> {
    ["MM/DD/YYYY", "MM/DD/YYYY HH:MI:SS AM", "MM/DD/YYYY HH:MI AM"].into_iter().find_map(|model| parse_time(text, model).ok()).ok_or_else(
        || QueryError::Value(format!("'{text}' is not a date in the account's format MM/DD/YYYY; use TO_DATE or TO_TIMESTAMP.")),
    )
}

/// A piece of an Oracle format model.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Year,
    Month,
    Day,
    Hour24,
    Hour12,
    Minute,
    Second,
    /// Fractions of a second; the digits to print.
    Fraction(usize),
    Meridiem,
    Literal(String),
}

fn pieces(model: &str) -> Result<Vec<Piece>, QueryError> {
    const WORDS: [(&str, Piece); 12] = [
        ("YYYY", Piece::Year),
        ("HH24", Piece::Hour24),
        ("HH12", Piece::Hour12),
        ("HH", Piece::Hour12),
        ("MM", Piece::Month),
        ("MI", Piece::Minute),
        ("DD", Piece::Day),
        ("SS", Piece::Second),
        ("FF3", Piece::Fraction(3)),
        ("FF6", Piece::Fraction(6)),
        ("FF", Piece::Fraction(6)),
        ("AM", Piece::Meridiem),
    ];
    let mut found = Vec::new();
    let mut rest = model;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let (literal, after) = rest[1..]
                .split_once('"')
                .ok_or_else(|| QueryError::Value(format!("date format '{model}' has an unclosed quotation mark.")))?;
            found.push(Piece::Literal(literal.to_owned()));
            rest = after;
            continue;
        }
        let word = WORDS.iter().find(|(word, _)| starts_with(rest, word));
        if let Some((word, piece)) = word {
            found.push(piece.clone());
            rest = &rest[word.len()..];
        } else if starts_with(rest, "PM") {
            found.push(Piece::Meridiem);
            rest = &rest[2..];
        } else if first.is_ascii_alphanumeric() {
            return Err(QueryError::Value(format!("date format '{model}' is not recognized.")));
        } else {
            found.push(Piece::Literal(first.to_string()));
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(found)
}

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

/// Prints `time` by an Oracle format model (`TO_CHAR`).
pub fn format_time(time: &DateTime<Utc>, model: &str) -> Result<String, QueryError> {
    let mut text = String::new();
    for piece in pieces(model)? {
        let (pm, hour12) = time.hour12();
        match piece {
            Piece::Year => text.push_str(&format!("{:04}", time.year())),
            Piece::Month => text.push_str(&format!("{:02}", time.month())),
            Piece::Day => text.push_str(&format!("{:02}", time.day())),
            Piece::Hour24 => text.push_str(&format!("{:02}", time.hour())),
            Piece::Hour12 => text.push_str(&format!("{hour12:02}")),
            Piece::Minute => text.push_str(&format!("{:02}", time.minute())),
            Piece::Second => text.push_str(&format!("{:02}", time.second())),
            Piece::Fraction(digits) => text.push_str(&format!("{:09}", time.nanosecond())[..digits]),
            Piece::Meridiem => text.push_str(if pm { "PM" } else { "AM" }),
            Piece::Literal(literal) => text.push_str(&literal),
        }
    }
    Ok(text)
}

/// Reads `text` by an Oracle format model (`TO_DATE`, `TO_TIMESTAMP`); parts that the model leaves out are zero.
pub fn parse_time(text: &str, model: &str) -> Result<DateTime<Utc>, QueryError> {
    let bad = || QueryError::Value(format!("'{text}' does not match the date format '{model}'."));
    let (mut year, mut month, mut day, mut hour, mut minute, mut second, mut nanosecond) = (None, 1, 1, 0, 0, 0, 0);
    let mut meridiem = None;
    let mut rest = text;
    for piece in pieces(model)? {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_prefix(literal.as_str()).ok_or_else(bad)?,
            Piece::Meridiem => {
                meridiem = Some(match rest.get(..2) {
                    Some(half) if half.eq_ignore_ascii_case("AM") => 0,
                    Some(half) if half.eq_ignore_ascii_case("PM") => 12,
                    _ => return Err(bad()),
                });
                rest = &rest[2..];
            }
            number => {
                let widest = match number {
                    Piece::Year => 4,
                    Piece::Fraction(_) => 9,
                    _ => 2,
                };
                let length = rest.bytes().take(widest).take_while(u8::is_ascii_digit).count();
                let digits = &rest[..length];
                let value: u32 = digits.parse().map_err(|_| bad())?;
                rest = &rest[length..];
                match number {
                    Piece::Year => year = i32::try_from(value).ok(),
                    Piece::Month => month = value,
                    Piece::Day => day = value,
                    Piece::Hour24 | Piece::Hour12 => hour = value,
                    Piece::Minute => minute = value,
                    Piece::Second => second = value,
                    _ => nanosecond = format!("{digits:0<9}").parse().map_err(|_| bad())?,
                }
            }
        }
    }
    if let Some(half) = meridiem {
        hour = hour % 12 + half;
    }
    if !rest.is_empty() {
        return Err(bad());
    }
    let date = NaiveDate::from_ymd_opt(year.ok_or_else(bad)?, month, day).ok_or_else(bad)?;
    Ok(date.and_hms_nano_opt(hour, minute, second, nanosecond).ok_or_else(bad)?.and_utc())
}
