//! Bodies off the wire: JSON without floats, and without anything that two readers could read in two ways.
//!
//! A fraction, an exponent or a whole number beyond 64 bits is refused with its place (decimals are strings), and so are a member that stands
//! twice (RFC 8259 lets every reader choose one) and nesting beyond [`MAX_DEPTH`]. One pass; what is refused is not built.

use crate::problem::{Kind, Problem};
use fairlead_model::Document;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The deepest nesting of a body.
pub const MAX_DEPTH: usize = 32;

/// Reads `{"data": {...}}`.
pub(crate) fn data(bytes: &[u8]) -> Result<Document, Problem> {
    let problem = || Problem::new(Kind::InvalidBody);
    let value = json(bytes).map_err(|refused| problem().at(&refused.pointer, &refused.detail))?;
    let Value::Object(mut members) = value else { return Err(problem().at("", "is no object with a member data")) };
    let data = members.remove("data");
    if !members.is_empty() {
        return Err(members.keys().take(20).fold(problem(), |problem, name| {
            problem.at(&format!("/{}", escape(name)), "is no member of a request; the fields of the record stand in data")
        }));
    }
    match data {
        Some(Value::Object(data)) => Ok(data),
        Some(_) => Err(problem().at("/data", "is no object")),
        None => Err(problem().at("/data", "is required")),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Refused {
    pointer: String,
    detail: String,
}

fn json(bytes: &[u8]) -> Result<Value, Refused> {
    let mut walk = Walk { path: vec![], refused: None };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node(&mut walk).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| {
        walk.refused.unwrap_or_else(|| Refused {
            pointer: String::new(),
            // The parser's own words may hold what it read.
            detail: format!("is not JSON, at line {} column {}", error.line(), error.column()),
        })
    })
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

enum Step {
    Member(String),
    Element(usize),
}

struct Walk {
    path: Vec<Step>,
    refused: Option<Refused>,
}

impl Walk {
    fn refuse<E: serde::de::Error>(&mut self, detail: impl Into<String>) -> E {
        let pointer = self.path.iter().fold(String::new(), |pointer, step| match step {
            Step::Member(name) => format!("{pointer}/{}", escape(name)),
            Step::Element(index) => format!("{pointer}/{index}"),
        });
        self.refused.get_or_insert(Refused { pointer, detail: detail.into() });
        E::custom("refused")
    }

    fn enter<E: serde::de::Error>(&mut self, step: Step) -> Result<(), E> {
        // The new step's own container is what may be too deep; the pointer names the outermost one that is.
        if self.path.len() >= MAX_DEPTH {
            return Err(self.refuse(format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        self.path.push(step);
        Ok(())
    }
}

struct Node<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::from).map_err(|_| self.0.refuse("is a whole number beyond 64 bits; write it as a string"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(self.0.refuse("is no whole number of 64 bits; write decimals as strings"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = vec![];
        loop {
            self.0.enter(Step::Element(list.len()))?;
            let Some(item) = items.next_element_seed(Node(self.0))? else { break };
            self.0.path.pop();
            list.push(item);
        }
        self.0.path.pop();
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.enter(Step::Member(name.clone()))?;
            if fields.contains_key(&name) {
                return Err(self.0.refuse("stands twice"));
            }
            let value = members.next_value_seed(Node(self.0))?;
            self.0.path.pop();
            fields.insert(name, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refused(text: &str) -> (String, String) {
        let refused = json(text.as_bytes()).unwrap_err();
        (refused.pointer, refused.detail)
    }

    #[test]
    fn numbers_that_could_lose_digits_are_refused_at_their_place() {
        for text in ["1.5", "1e3", "-0", "123456789012345678901", "9223372036854775808"] {
            let (pointer, detail) = refused(&format!(r#"{{"data":{{"a":[1,{{"b/c":{text}}}]}}}}"#));
            assert_eq!(pointer, "/data/a/1/b~1c", "{text}");
            assert!(detail.contains("string") && !detail.contains(text), "{detail}");
        }
        assert_eq!(json(b"[9223372036854775807,-9223372036854775808]").unwrap(), json!([i64::MAX, i64::MIN]));
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        assert_eq!(refused(r#"{"a":1,"b":{"c":1,"c":2}}"#), ("/b/c".into(), "stands twice".into()));
        for text in ["", "{\"a\":", "[1] x", "{'a':1}", "\"\\ud800\"", "\u{feff}{}", "nan"] {
            assert!(refused(text).1.starts_with("is not JSON, at line 1"), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_before_anything_is_built() {
        assert!(json(format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)).as_bytes()).is_ok());
        assert!(refused(&"[".repeat(100_000)).1.contains("deeper"));
        assert!(refused(&"{\"a\":".repeat(100)).1.contains("deeper"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_give_no_float(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = json(&bytes) {
                prop_assert!(!fairlead_model::document::has_float(&value));
            }
        }

        #[test]
        fn what_is_taken_is_what_serde_json_reads(items in proptest::collection::vec(("[a-z]{1,3}", any::<i64>(), ".{0,8}"), 0..6)) {
            let value: Value = items.into_iter().map(|(name, number, text)| (name, json!([number, text, null, true]))).collect::<Map<_, _>>().into();
            prop_assert_eq!(json(value.to_string().as_bytes()).unwrap(), value);
        }
    }
}
