//! When to stop: SIGTERM from Kubernetes, SIGINT from a terminal.

/// Ends when the process is asked to stop. It listens from the call on, not from the first await: the kernel drops a signal that the first
/// process of a container does not handle, and a pod that is stopped while it starts would be killed after its grace period only.
pub(crate) fn terminated() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    async move {
        let Ok((mut terminate, mut interrupt)) = signals else {
            tracing::warn!("signals cannot be handled; stop the process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: what is in flight settles first");
    }
}
