//! A TCP relay on loopback that a test tells to break connections: at once, for a while, or at the moment that matters.
//!
//! It knows no protocol. A moment is named by bytes that the client sends: cut before they are passed on, what they ask for has not happened; cut
//! when the answer to them arrives, it has, and the client cannot know. A cut ends every connection, as when the machine behind them goes down.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER: usize = 64 * 1024;

/// When a connection is cut that passes the awaited bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before they are passed on.
    Before,
    /// When the other side has answered.
    Answered,
}

/// A relay; its connections end with the last of its clones and the runtime.
#[derive(Clone, Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: u16,
    away: AtomicBool,
    /// Changes with each cut.
    cuts: watch::Sender<u64>,
    armed: Mutex<Option<(&'static [u8], Moment)>>,
}

impl Shared {
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    fn armed(&self) -> MutexGuard<'_, Option<(&'static [u8], Moment)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment that these bytes are the awaited ones for, which are awaited no more then.
    fn meets(&self, bytes: &[u8]) -> Option<Moment> {
        self.armed().take_if(|(awaited, _)| bytes.windows(awaited.len()).any(|window| window == *awaited)).map(|(_, moment)| moment)
    }
}

impl Relay {
    /// Starts a relay to this port of loopback.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn start(to: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = listener.local_addr().context("read the address")?;
        let shared = Arc::new(Shared { to, away: AtomicBool::new(false), cuts: watch::Sender::new(0), armed: Mutex::new(None) });
        let of_connections = Arc::clone(&shared);
        tokio::spawn(async move {
            // A failed accept is one of a connection that ended already.
            loop {
                if let Ok((client, _)) = listener.accept().await
                    && !of_connections.away.load(Ordering::Relaxed)
                {
                    tokio::spawn(carry(client, Arc::clone(&of_connections)));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection; new ones are carried.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts every connection when a client sends these bytes the next time.
    pub fn cut_at(&self, bytes: &'static [u8], moment: Moment) {
        *self.shared.armed() = Some((bytes, moment));
    }

    /// Whether bytes that were named to [`Relay::cut_at`] are still awaited.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.shared.armed().is_some()
    }

    /// Cuts every connection, and for so long each new one as soon as it is made.
    pub async fn away(&self, time: Duration) {
        self.away_during(tokio::time::sleep(time)).await;
    }

    /// The same, until this is over.
    pub async fn away_during<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        self.shared.away.store(true, Ordering::Relaxed);
        self.shared.cut();
        let over = meanwhile.await;
        self.shared.away.store(false, Ordering::Relaxed);
        over
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.to)).await else { return };
    // Whatever ends one way ends both.
    tokio::select! {
        biased;
        _ = cuts.changed() => {}
        _ = both_ways(client, server, &shared) => {}
    }
}

async fn both_ways(mut client: TcpStream, mut server: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asked = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            match shared.meets(&buffer[..count]) {
                Some(Moment::Before) => {
                    shared.cut();
                    return Ok(());
                }
                Some(Moment::Answered) => asked.store(true, Ordering::Relaxed),
                None => {}
            }
            to_server.write_all(&buffer[..count]).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if asked.load(Ordering::Relaxed) {
                shared.cut();
                return Ok(());
            }
            if count == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    tokio::try_join!(up, down).map(|_| ())
}
