//! The seam to business systems: what the engine asks of one connector. [`fairlead_systems::Client`] is the real thing; tests put scripted
//! systems here.

use async_trait::async_trait;
use fairlead_model::report::{Circuit, Failure, Quota, Spent};
use fairlead_model::{ExternalId, FieldPath, RemoteError, Timestamp};
use fairlead_systems::{Client, NativeRecord, Page, Priority, ReadRequest, Share, Usage, Use, WriteBatch, Written};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Asked before each request that writes.
pub type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

/// One connector, live, for requests of one priority.
#[async_trait]
pub trait System: Send + Sync {
    /// The cheapest authenticated call.
    async fn probe(&self) -> Result<(), RemoteError>;
    /// One page of changes.
    async fn read_page(&self, request: &ReadRequest) -> Result<Page, RemoteError>;
    /// Records by id, positionally; `None` is gone.
    async fn read_keys(&self, entity: &str, fields: &[FieldPath], ids: &[ExternalId]) -> Result<Vec<Option<NativeRecord>>, RemoteError>;
    /// Records whose fields equal the criteria, a few at most.
    async fn search(&self, entity: &str, fields: &[FieldPath], criteria: &[(FieldPath, Value)]) -> Result<Vec<NativeRecord>, RemoteError>;
    /// Writes, positionally. `may_send` is asked while a request stands in line, and before it goes out; once it says no, what is left fails without having been sent.
    async fn write(&self, batch: &WriteBatch, may_send: MaySend) -> Vec<Result<Written, RemoteError>>;
    /// The longest that one request may take.
    fn request_timeout(&self) -> Duration;
    /// State of the circuit breaker.
    fn circuit(&self) -> Circuit;
    /// What is left of the quota.
    fn quota(&self) -> Quota;
    /// The quota that is used up for requests of this priority, if one is.
    fn spent(&self) -> Option<Spent>;
    /// Requests of this priority are throttled until then.
    fn throttled_until(&self) -> Option<Timestamp>;
    /// This process has this part of the account's limits.
    fn divide(&self, share: Share);
    /// Nothing is to be sent for so long: the vendor asked another process for that.
    fn hold(&self, wait: Duration);
    /// Until when the vendor asked this very process to wait.
    fn told_to_wait(&self) -> Option<Timestamp>;
    /// How far each window of the quota is used.
    fn uses(&self) -> Vec<Use>;
    /// How many requests wait for their turn, by priority.
    fn waiting(&self) -> [(Priority, usize); 4];
    /// What was sent today and is noted nowhere.
    fn unnoted(&self) -> Usage;
    /// It is noted that `all` were sent, `ours` of what was not noted among it.
    fn noted(&self, all: Usage, ours: Usage);
    /// The last error of any call.
    fn last_error(&self) -> Option<Failure>;
    /// Set while the credentials are refused.
    fn auth_paused(&self) -> Option<Failure>;
    /// Reads the Secret again, and goes on if it changed.
    async fn refresh_secret(&self);
}

#[async_trait]
impl System for Client {
    async fn probe(&self) -> Result<(), RemoteError> {
        Self::probe(self).await
    }

    async fn read_page(&self, request: &ReadRequest) -> Result<Page, RemoteError> {
        Self::read_page(self, request).await
    }

    async fn read_keys(&self, entity: &str, fields: &[FieldPath], ids: &[ExternalId]) -> Result<Vec<Option<NativeRecord>>, RemoteError> {
        Self::read_keys(self, entity, fields, ids).await
    }

    async fn search(&self, entity: &str, fields: &[FieldPath], criteria: &[(FieldPath, Value)]) -> Result<Vec<NativeRecord>, RemoteError> {
        Self::search(self, entity, fields, criteria).await
    }

    async fn write(&self, batch: &WriteBatch, may_send: MaySend) -> Vec<Result<Written, RemoteError>> {
        Self::write_while(self, batch, may_send).await
    }

    fn request_timeout(&self) -> Duration {
        Self::request_timeout(self)
    }

    fn circuit(&self) -> Circuit {
        Self::circuit(self)
    }

    fn quota(&self) -> Quota {
        Self::quota(self)
    }

    fn spent(&self) -> Option<Spent> {
        Self::spent(self)
    }

    fn throttled_until(&self) -> Option<Timestamp> {
        Self::throttled_until(self)
    }

    fn divide(&self, share: Share) {
        Self::divide(self, share);
    }

    fn hold(&self, wait: Duration) {
        Self::hold(self, wait);
    }

    fn told_to_wait(&self) -> Option<Timestamp> {
        Self::told_to_wait(self)
    }

    fn uses(&self) -> Vec<Use> {
        Self::uses(self)
    }

    fn waiting(&self) -> [(Priority, usize); 4] {
        Self::waiting(self)
    }

    fn unnoted(&self) -> Usage {
        Self::unnoted(self)
    }

    fn noted(&self, all: Usage, ours: Usage) {
        Self::noted(self, all, ours);
    }

    fn last_error(&self) -> Option<Failure> {
        Self::last_error(self)
    }

    fn auth_paused(&self) -> Option<Failure> {
        Self::auth_paused(self)
    }

    async fn refresh_secret(&self) {
        // What is wrong with the Secret, the probe that follows will say.
        let _ = Self::refresh_secret(self).await;
    }
}
