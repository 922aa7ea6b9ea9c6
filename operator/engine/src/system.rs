//! The seam to business systems: what the engine asks of one connector. [`fairlead_systems::Client`] is the real thing; tests put scripted
//! systems here.

use async_trait::async_trait;
use fairlead_model::report::{Circuit, Failure, Quota};
use fairlead_model::{ExternalId, FieldPath, RemoteError, Timestamp};
use fairlead_systems::{Client, NativeRecord, Page, ReadRequest, WriteBatch, Written};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Asked before each request that writes.
pub type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

/// One connector, live.
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
    /// Writes, positionally. `may_send` is asked before each request; once it says no, what is left fails without having been sent.
    async fn write(&self, batch: &WriteBatch, may_send: MaySend) -> Vec<Result<Written, RemoteError>>;
    /// The longest that one request may take.
    fn request_timeout(&self) -> Duration;
    /// State of the circuit breaker.
    fn circuit(&self) -> Circuit;
    /// What is left of the quota.
    fn quota(&self) -> Quota;
    /// Throttled until then.
    fn throttled_until(&self) -> Option<Timestamp>;
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

    fn throttled_until(&self) -> Option<Timestamp> {
        Self::throttled_until(self)
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
