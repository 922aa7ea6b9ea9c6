//! Connections: accepted, bounded in number and in patience, drained.
//!
//! HTTP/1.1 and HTTP/2; over TLS the client chooses by ALPN, in the clear by its first bytes. Draining stops accepting, asks every connection to
//! end (`Connection: close`, `GOAWAY`), answers what was asked, and after its time cuts what is left.

use crate::gateway::{Gateway, Shared};
use crate::handle::answer;
use crate::tls::Certificates;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// After a failed accept (no file handles left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server grants its clients.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// The most open connections; more wait to be accepted.
    pub connections: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, and for the next one on an idle HTTP/1.1 connection.
    pub head: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections: 10_000, handshake: Duration::from_secs(10), head: Duration::from_secs(30), idle: Duration::from_secs(120) }
    }
}

/// A listening gateway. Dropping it leaves it serving; [`Server::drain`] ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    closing: CancellationToken,
    cutting: CancellationToken,
    tasks: TaskTracker,
    writes: TaskTracker,
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut.
    pub cut: usize,
}

impl Gateway {
    /// Serves on `listener`: HTTPS with `certificates`, plain HTTP without.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn serve(&self, listener: TcpListener, certificates: Option<&Certificates>, limits: ServerLimits) -> std::io::Result<Server> {
        let server = Server {
            address: listener.local_addr()?,
            closing: CancellationToken::new(),
            cutting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            writes: self.0.writes.clone(),
        };
        let acceptor = Acceptor {
            shared: self.0.clone(),
            tls: certificates.map(|certificates| TlsAcceptor::from(certificates.config())),
            limits,
            cutting: server.cutting.clone(),
            tasks: server.tasks.clone(),
        };
        tokio::spawn(acceptor.run(listener, server.closing.clone()));
        Ok(server)
    }
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests and writes finish within `patience`, then cuts what is left.
    pub async fn drain(self, patience: Duration) -> Drained {
        self.closing.cancel();
        self.tasks.close();
        self.writes.close();
        let all = async {
            self.tasks.wait().await;
            self.writes.wait().await;
        };
        let cut = match tokio::time::timeout(patience, all).await {
            Ok(()) => 0,
            Err(_) => self.tasks.len(),
        };
        self.cutting.cancel();
        self.tasks.wait().await;
        Drained { cut }
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    limits: ServerLimits,
    cutting: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, closing: CancellationToken) {
        let this = Arc::new(self);
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(this.limits.connections));
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                accepted = accepted => accepted,
                () = closing.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (this, watcher) = (this.clone(), graceful.watcher());
            this.tasks.clone().spawn(async move {
                let _slot = slot;
                let _counted = this.shared.metrics.connection();
                tokio::select! {
                    () = this.clone().connection(stream, watcher) => {}
                    () = this.cutting.cancelled() => {}
                }
            });
        }
        drop(listener);
        graceful.shutdown().await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        // Small answers should not wait for more to come.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(self.limits.idle));
        stream.set_write_timeout(Some(self.limits.idle));
        let stream = Box::pin(stream);
        let Some(tls) = &self.tls else { return self.http(stream, false, None, watcher).await };
        let handshake = tokio::time::timeout(self.limits.handshake, tls.accept(stream)).await;
        self.shared.metrics.handshake(matches!(handshake, Ok(Ok(_))));
        match handshake {
            Ok(Ok(stream)) => {
                let second = stream.get_ref().1.alpn_protocol().is_some_and(|protocol| protocol == b"h2");
                self.http(stream, true, Some(second), watcher).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// Serves one connection. `second` is whether HTTP/2 was agreed on; not known without TLS.
    async fn http(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, secure: bool, second: Option<bool>, watcher: Watcher) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD as u32);
        let builder = match second {
            Some(true) => builder.http2_only(),
            Some(false) => builder.http1_only(),
            None => builder,
        };
        let shared = self.shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(answer(shared, secure, request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(io), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}
