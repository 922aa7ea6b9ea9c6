//! Where a person would have a reader begin: whether that is a cursor of the kind that stands there, and what would be skipped by it.
//!
//! Readers spell a place in a stream as text: a moment, a number, or something that only the vendor understands. Between passes `from` holds
//! it; within one, `after` holds the last row's, and what lies before that is read already.

use fairlead_model::{Document, Timestamp};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// The fields of the cursors that readers give out.
const FIELDS: [&str; 10] = ["after", "again", "began", "from", "horizon", "lineage", "newest", "next", "pages", "turn"];

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// With everything.
    Beginning,
    /// With what changed since a moment.
    At(Timestamp),
    /// With a place as cursors spell it, or a whole cursor as it was printed.
    Text(String),
}

/// A cursor to set.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The cursor.
    pub cursor: Value,
    /// What nobody would read any more, if anything.
    pub skips: Option<String>,
}

/// How a cursor spells places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Moments with their zone.
    Moment,
    /// Moments of UTC without saying so, in whole seconds.
    Bare,
    Number,
    Opaque,
}

impl Spelling {
    fn of(place: &str) -> Self {
        if Timestamp::parse(place).is_some() {
            Self::Moment
        } else if moment(place).is_some() {
            Self::Bare
        } else if place.parse::<i64>().is_ok() {
            Self::Number
        } else {
            Self::Opaque
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Moment | Self::Bare => "moments (2026-01-31T10:00:00Z)",
            Self::Number => "whole numbers",
            Self::Opaque => "marks that only the system understands",
        }
    }

    fn spell(self, at: Timestamp) -> String {
        let text = at.to_rfc3339();
        if self == Self::Bare { text.get(..19).unwrap_or(&text).to_owned() } else { text }
    }
}

fn moment(place: &str) -> Option<Timestamp> {
    Timestamp::parse(place).or_else(|| Timestamp::parse(&format!("{place}Z")))
}

/// Up to where everything was read; what spells a place, at least.
fn reached(cursor: &Document) -> (Option<&str>, Option<&str>) {
    let text = |field: &str| cursor.get(field).and_then(Value::as_str);
    let after = cursor.get("after").and_then(|after| after.get(0)).and_then(Value::as_str);
    let reached = after.or_else(|| text("from"));
    (reached, reached.or_else(|| text("horizon")).or_else(|| text("newest")))
}

/// The cursor that begins where somebody wants, in place of the one that stands. `fresh` marks what follows as no continuation of what was
/// handed out before.
///
/// # Errors
/// What is wrong with it, in words.
pub fn place(standing: &Value, wanted: &Wanted, fresh: u64) -> Result<Move, String> {
    let nothing = Document::new();
    let before = match (standing, wanted) {
        (_, Wanted::Beginning) => return Ok(Move { cursor: Value::Null, skips: None }),
        (Value::Object(before), _) => before,
        (Value::Null, _) => {
            return Err("nothing was read yet, so there is no cursor whose kind another one must have; let it be read first".into());
        }
        _ => &nothing,
    };
    let (reached, sample) = reached(before);
    let Some(spelling) = sample.map(Spelling::of) else {
        return Err("the cursor that stands there names no place that another could be compared with; only the beginning can be set".into());
    };
    let (to, mut cursor) = match wanted {
        Wanted::At(at) if matches!(spelling, Spelling::Moment | Spelling::Bare) => (spelling.spell(*at), Document::new()),
        Wanted::At(_) => return Err(format!("its cursors are no moments but {}; name one of them", spelling.words())),
        Wanted::Text(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(whole)) => {
                if let Some(unknown) = whole.keys().find(|field| !FIELDS.contains(&field.as_str())) {
                    return Err(format!("a cursor has no field {unknown:?}; name a place, or a cursor as it was printed"));
                }
                if whole.contains_key("lineage") != before.contains_key("lineage") {
                    return Err("it is a cursor of another kind of reader; name one that was printed for this participant and slice".into());
                }
                let Some(to) = self::reached(&whole).0.map(str::to_owned) else {
                    return Err("the cursor names no place; name one with `from`, or set the beginning".into());
                };
                (to, whole)
            }
            _ => (text.trim().to_owned(), Document::new()),
        },
        Wanted::Beginning => return Ok(Move { cursor: Value::Null, skips: None }),
    };
    let kind = Spelling::of(&to);
    let alike = kind == spelling || matches!((kind, spelling), (Spelling::Moment | Spelling::Bare, Spelling::Moment | Spelling::Bare));
    if to.is_empty() || !alike {
        return Err(format!(
            "{to:?} is none of its places, which are {}; the one that stands there is {:?}",
            spelling.words(),
            sample.unwrap_or_default()
        ));
    }
    if cursor.is_empty() {
        let to = moment(&to).filter(|_| kind != spelling).map_or_else(|| to.clone(), |at| spelling.spell(at));
        cursor.insert("from".to_owned(), to.into());
    }
    if before.contains_key("lineage") {
        cursor.insert("lineage".to_owned(), json!(fresh));
        cursor.remove("turn");
    }
    let order = reached.and_then(|reached| compare(spelling, reached, &to));
    let skips = match order {
        Some(Ordering::Greater | Ordering::Equal) => None,
        Some(Ordering::Less) => Some(format!("what changed between {} and {to}", reached.unwrap_or_default())),
        None if reached.is_none() => Some(format!("what changed before {to}, since the first read has not come that far")),
        None => {
            Some(format!("what changed between {} and {to}, if that comes later, which only the system knows", reached.unwrap_or_default()))
        }
    };
    Ok(Move { cursor: Value::Object(cursor), skips })
}

fn compare(spelling: Spelling, one: &str, other: &str) -> Option<Ordering> {
    match spelling {
        Spelling::Moment | Spelling::Bare => Some(moment(one)?.cmp(&moment(other)?)),
        Spelling::Number => Some(one.parse::<i64>().ok()?.cmp(&other.parse().ok()?)),
        Spelling::Opaque => (one == other).then_some(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wanted {
        Wanted::At(Timestamp::parse(text).unwrap())
    }

    fn text(text: &str) -> Wanted {
        Wanted::Text(text.into())
    }

    #[test]
    fn a_place_is_spelled_like_the_one_that_stands_there() {
        let keyset = json!({"from": "2026-01-31T10:00:00.000Z", "pages": 0, "lineage": 7, "turn": 3});
        let bare = json!({"from": "2026-01-31T10:00:00", "pages": 0, "lineage": 7, "turn": 3});
        let rest = json!({"from": "2026-01-31T10:00:00.000Z", "pages": 0});
        for (standing, wanted, cursor) in [
            (&keyset, at("2026-01-30T00:00:00Z"), json!({"from": "2026-01-30T00:00:00.000Z", "lineage": 9})),
            (&keyset, text("2026-01-30T00:00:00"), json!({"from": "2026-01-30T00:00:00.000Z", "lineage": 9})),
            (&bare, at("2026-01-30T01:00:00+01:00"), json!({"from": "2026-01-30T00:00:00", "lineage": 9})),
            (&rest, at("2026-01-30T00:00:00Z"), json!({"from": "2026-01-30T00:00:00.000Z"})),
            (&rest, text(r#"{"from": "2026-01-30T00:00:00.000Z", "pages": 0}"#), json!({"from": "2026-01-30T00:00:00.000Z", "pages": 0})),
            (&json!({"from": "41"}), text("40"), json!({"from": "40"})),
            (&keyset, Wanted::Beginning, Value::Null),
        ] {
            assert_eq!(place(standing, &wanted, 9), Ok(Move { cursor, skips: None }), "{wanted:?}");
        }
    }

    #[test]
    fn what_would_be_skipped_is_said() {
        let between = json!({"from": "2026-01-31T10:00:00.000Z"});
        let within =
            json!({"after": ["2026-01-20T00:00:00.000Z", "x"], "horizon": "2026-01-31T10:00:00.000Z", "pages": 4, "lineage": 1, "turn": 2});
        let first = json!({"next": {"page": "2"}, "newest": "2026-01-31T10:00:00.000Z", "pages": 1});
        for (standing, wanted, said) in [
            (&between, at("2026-01-31T10:00:00.001Z"), Some("between 2026-01-31T10:00:00.000Z and 2026-01-31T10:00:00.001Z")),
            (&between, at("2026-01-31T10:00:00Z"), None),
            (&within, at("2026-01-20T00:00:00Z"), None),
            (&within, at("2026-01-21T00:00:00Z"), Some("between 2026-01-20")),
            (&first, at("2026-01-21T00:00:00Z"), Some("the first read has not come that far")),
            (&json!({"from": "token-b"}), text("token-a"), Some("which only the system knows")),
            (&json!({"from": "9"}), text("10"), Some("between 9 and 10")),
        ] {
            let skips = place(standing, &wanted, 9).unwrap().skips;
            match said {
                None => assert_eq!(skips, None, "{wanted:?}"),
                Some(said) => assert!(skips.as_ref().is_some_and(|skips| skips.contains(said)), "{wanted:?}: {skips:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_cursor_of_the_kind_is_refused() {
        let moments = json!({"from": "2026-01-31T10:00:00.000Z", "pages": 0, "lineage": 7, "turn": 3});
        let numbers = json!({"from": "41", "pages": 0});
        for (standing, wanted, said) in [
            (&moments, text("yesterday"), "\"yesterday\" is none of its places, which are moments"),
            (&moments, text(""), "none of its places"),
            (&numbers, at("2026-01-31T10:00:00Z"), "its cursors are no moments but whole numbers"),
            (&numbers, text("2026-01-31T10:00:00Z"), "which are whole numbers; the one that stands there is \"41\""),
            (&moments, text(r#"{"since": "2026-01-31T10:00:00Z"}"#), "a cursor has no field \"since\""),
            (&numbers, text(r#"{"from": "40", "lineage": 3}"#), "another kind of reader"),
            (&Value::Null, at("2026-01-31T10:00:00Z"), "nothing was read yet"),
            (&json!({"pages": 0}), at("2026-01-31T10:00:00Z"), "only the beginning can be set"),
        ] {
            let refused = place(standing, &wanted, 9).unwrap_err();
            assert!(refused.contains(said), "{wanted:?}: {refused}");
        }
    }
}
