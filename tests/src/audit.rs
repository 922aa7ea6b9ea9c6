//! Reads the API server's audit log: who wrote what, when. Status budgets and "zero writes after settling" are
//! judged from here, since it sees every client and cannot be fooled by ours.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

/// The audit policy of test control planes: every request once, with the body for Fairlead's own resources.
pub(crate) const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "omitManagedFields": true,
  "rules": [
    {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
    {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"],
     "resources": [{"group": "fairlead.dev"}, {"group": "events.k8s.io"}, {"group": "coordination.k8s.io"}]},
    {"level": "Metadata"}
  ]
}
"#;

/// A position in the log.
#[derive(Clone, Copy, Debug)]
pub struct AuditMark(u64);

/// The audit log of a control plane.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

/// One answered request.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// Who asked, as authenticated.
    pub user: String,
    /// Whom they acted as, when they impersonated somebody.
    pub acted_as: Option<String>,
    /// What the client calls itself.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete`, `get`, `list`, `watch`, ...
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name of the resource, empty for requests outside the resource paths.
    pub resource: String,
    /// `status`, `scale`, ... or empty.
    pub subresource: String,
    /// Namespace of the object, empty when it has none.
    pub namespace: String,
    /// Name of the object, empty for lists and generated names.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// When the request arrived.
    pub received: DateTime<Utc>,
    /// The body, for writes to Fairlead's resources, events and leases.
    pub body: Option<Value>,
}

impl AuditEvent {
    /// Whether the request changes something, refused or not.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether `user` asked, directly or by impersonation.
    pub fn is_by(&self, user: &str) -> bool {
        self.acted_as.as_deref().unwrap_or(&self.user) == user
    }
}

impl AuditLog {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file, for a failure message.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The present end of the log.
    ///
    /// The API server writes an entry as it answers, so what a client had answered a moment ago may still be about
    /// to be written: await what must be there, and mark before the act that matters.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn mark(&self) -> anyhow::Result<AuditMark> {
        let length = std::fs::metadata(&self.path).with_context(|| format!("read {}", self.path.display()))?.len();
        Ok(AuditMark(length))
    }

    /// Everything after `mark`, in the order of the answers.
    ///
    /// # Errors
    /// When the log cannot be read or holds something other than audit events.
    pub fn since(&self, mark: AuditMark) -> anyhow::Result<Vec<AuditEvent>> {
        let mut text = String::new();
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(mark.0)).context("find the mark in the audit log")?;
        file.read_to_string(&mut text).context("read the audit log")?;
        // The last line may be half written; it belongs to the next read.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(parse).filter_map(Result::transpose).collect()
    }

    /// Everything since the control plane started.
    ///
    /// # Errors
    /// When the log cannot be read or holds something other than audit events.
    pub fn all(&self) -> anyhow::Result<Vec<AuditEvent>> {
        self.since(AuditMark(0))
    }

    /// The writes of `user` (refused ones included) that arrived from `from` until before `to`.
    ///
    /// # Errors
    /// When the log cannot be read or holds something other than audit events.
    pub fn writes(&self, user: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> anyhow::Result<Vec<AuditEvent>> {
        let mut events = self.all()?;
        events.retain(|event| event.is_write() && event.is_by(user) && (from..to).contains(&event.received));
        Ok(events)
    }
}

/// One line; `None` for entries that repeat a request (a watch is told when it starts and when it ends).
fn parse(line: &str) -> anyhow::Result<Option<AuditEvent>> {
    let raw: Raw = serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
    // Who is not known is told at this stage only.
    if raw.stage == "ResponseStarted" && raw.response_status.code != 401 {
        return Ok(None);
    }
    Ok(Some(AuditEvent {
        user: raw.user.username,
        acted_as: raw.impersonated_user.map(|user| user.username),
        user_agent: raw.user_agent,
        verb: raw.verb,
        group: raw.object_ref.api_group,
        resource: raw.object_ref.resource,
        subresource: raw.object_ref.subresource,
        namespace: raw.object_ref.namespace,
        name: raw.object_ref.name,
        code: raw.response_status.code,
        received: raw.request_received_timestamp,
        body: raw.request_object,
    }))
}

/// `audit.k8s.io/v1` Event, as far as we read it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    stage: String,
    verb: String,
    #[serde(default)]
    user: RawUser,
    impersonated_user: Option<RawUser>,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: RawObject,
    #[serde(default)]
    response_status: RawStatus,
    request_object: Option<Value>,
    request_received_timestamp: DateTime<Utc>,
}

#[derive(Default, Deserialize)]
struct RawUser {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawObject {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    code: u16,
}
