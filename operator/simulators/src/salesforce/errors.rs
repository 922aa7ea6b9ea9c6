//! Errors as Salesforce words them: a JSON array for a whole request, an object with `statusCode` for an item of a batch.

use std::borrow::Cow;

use super::API;
use crate::core::value::Value;
use crate::core::vendor::Reply;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
    pub(super) fields: Vec<String>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: Cow::Borrowed(code), message: message.into(), fields: Vec::new() }
    }

    /// A rejection of data; always HTTP 400.
    pub(super) fn data(code: &'static str, message: impl Into<String>, fields: &[&str]) -> Self {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        Self { status: 400, code: Cow::Borrowed(code), message: message.into(), fields }
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "NOT_FOUND", "The requested resource does not exist")
    }

    pub(super) fn deleted() -> Self {
        Self::new(404, "ENTITY_IS_DELETED", "entity is deleted")
    }

    pub(super) fn malformed_id(id: &str) -> Self {
        Self::data("MALFORMED_ID", format!("bad id {id}"), &["Id"])
    }

    pub(super) fn method() -> Self {
        Self::new(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed for this resource")
    }

    pub(super) fn session() -> Self {
        Self::new(401, "INVALID_SESSION_ID", "Session expired or invalid")
    }

    /// What the platform says when another transaction holds a row; a fault script may name another code.
    pub(super) fn lock(code: Option<&str>) -> Self {
        let message = "unable to obtain exclusive access to this record or 1 records";
        match code {
            Some(code) => Self { status: 400, code: Cow::Owned(code.to_owned()), message: message.to_owned(), fields: Vec::new() },
            None => Self::data("UNABLE_TO_LOCK_ROW", message, &[]),
        }
    }

    fn field_list(&self) -> Value {
        Value::List(self.fields.iter().map(Value::text).collect())
    }

    /// The answer to a whole request.
    pub(super) fn reply(&self) -> Reply {
        let mut error = vec![("message", Value::text(&self.message)), ("errorCode", Value::text(self.code.as_ref()))];
        if self.status == 400 && !self.fields.is_empty() {
            error.push(("fields", self.field_list()));
        }
        Reply::json(self.status, API, &Value::List(vec![Value::object(error)]))
    }

    /// The entry in a batch's list of results.
    pub(super) fn item(&self) -> Value {
        let error = Value::object([
            ("statusCode", Value::text(self.code.as_ref())),
            ("message", Value::text(&self.message)),
            ("fields", self.field_list()),
        ]);
        Value::object([("success", Value::Bool(false)), ("errors", Value::List(vec![error]))])
    }
}
