//! What the cache holds, for whoever asks: the main loop alone owns it, so a question is sent there and answered with a copy.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait at once.
const WAITING: usize = 16;

/// Asks a running operator for the resources it knows.
#[derive(Debug, Clone)]
pub struct Directory(mpsc::Sender<oneshot::Sender<Value>>);

/// The other end.
pub(crate) type Questions = mpsc::Receiver<oneshot::Sender<Value>>;

impl Directory {
    pub(crate) fn new() -> (Self, Questions) {
        let (send, receive) = mpsc::channel(WAITING);
        (Self(send), receive)
    }

    /// Every resource with its status as the API server has it, as a Kubernetes List; `None` while the operator does not run.
    pub async fn listing(&self) -> Option<Value> {
        let (answer, listing) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        listing.await.ok()
    }
}
