//! Pages: `limit` and `offset` of a request, and the envelope that every collection answers with.

use super::errors::Problem;
use super::render;
use crate::core::value::{Fields, Value};
use crate::core::vendor::Request;
use std::ops::Range;

/// The largest page, and the one without a `limit`.
const LARGEST: usize = 1_000;

/// Rows beyond this one cannot be paged to.
const REACH: usize = 100_000;

/// A wanted page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paging {
    limit: usize,
    offset: usize,
}

impl Paging {
    /// From the query parameters.
    pub(super) fn of(request: &Request) -> Result<Self, Problem> {
        let number = |name: &'static str, default: usize| match request.parameter(name) {
            None => Ok(default),
            Some(text) => {
                text.parse::<usize>().map_err(|_| Problem::parameter(name, format!("The {name} must be a whole number, not '{text}'.")))
            }
        };
        let (limit, offset) = (number("limit", LARGEST)?, number("offset", 0)?);
        if !(1..=LARGEST).contains(&limit) {
            return Err(Problem::parameter("limit", format!("The limit must be between 1 and {LARGEST}.")));
        }
        if offset >= REACH {
            return Err(Problem::parameter("offset", format!("Results beyond {REACH} rows cannot be paged to; narrow the query.")));
        }
        Ok(Self { limit, offset })
    }

    /// The positions of the page's rows.
    pub(super) fn range(self) -> Range<usize> {
        self.offset..self.offset + self.limit
    }

    /// The envelope around a page's items; `path` is the collection's URL without a query.
    pub(super) fn envelope(self, path: &str, items: Vec<Value>, total: usize) -> Value {
        let href = |offset: usize| format!("{path}?limit={}&offset={offset}", self.limit);
        let has_more = self.offset + items.len() < total;
        let last = total.saturating_sub(1) / self.limit * self.limit;
        let mut links = Vec::new();
        if has_more {
            links.push(render::link("next", href(self.offset + self.limit)));
            links.push(render::link("last", href(last)));
        }
        if self.offset > 0 {
            links.push(render::link("first", href(0)));
            links.push(render::link("previous", href(self.offset.saturating_sub(self.limit))));
        }
        links.push(render::link("self", href(self.offset)));
        let mut body = Fields::from_iter([("links".to_owned(), Value::List(links))]);
        body.extend(render::collection(items.len(), self.offset, has_more, total));
        body.insert("items".to_owned(), Value::List(items));
        Value::Object(body)
    }
}
