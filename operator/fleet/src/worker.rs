//! The side that runs: follows the planner's units, and tells it what came of them.

use crate::message::{Line, MAX_LINE, Posted};
use crate::{REPORTS, UNITS};
use bytes::BytesMut;
use fairlead_model::report::Reports;
use fairlead_model::unit::Units;
use fairlead_model::{Clock, Random, Timestamp};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use url::{Host, Url};

/// A stream that is silent for so long is broken: the planner's beat is shorter.
const SILENT: Duration = Duration::from_secs(20);
/// The wait before the planner is asked again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How soon a report that says something new follows the one before.
const REPORT: Duration = Duration::from_millis(500);
/// How often there is a report although it says nothing new.
const REPORT_ANYWAY: Duration = Duration::from_secs(5);
/// How long posting one may take.
const POST: Duration = Duration::from_secs(10);

/// Why there is no link to a planner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The URL will not do.
    #[error("{0:?} is no address of a planner; write one as https://fairlead.fairlead-system.svc:8082")]
    Url(String),
    /// The token would go over the network in the clear.
    #[error(
        "{0} is plain HTTP to another machine, where the token could be read on its way; use https, or say --plain-http if TLS is added in between"
    )]
    PlainHttp(String),
    /// The certificates to trust cannot be used.
    #[error("the certificates to trust: {0}")]
    Certificates(String),
    /// The client cannot be built.
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

/// The way to the planner.
#[derive(Clone)]
pub struct Link {
    url: Url,
    token_file: PathBuf,
    http: reqwest::Client,
}

impl Link {
    /// A link to the planner at `url`, with the token in a file, which is read again for every request: tokens of a cluster are renewed in place.
    /// `certificates` are trusted besides the system's own.
    ///
    /// # Errors
    /// The URL is none, or plain HTTP to another machine although that was not asked for; or the certificates are none.
    pub fn new(url: &str, plain_http: bool, token_file: PathBuf, certificates: Option<&[u8]>) -> Result<Self, LinkError> {
        let parsed = Url::parse(url).ok().filter(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.host().is_some());
        let parsed = parsed.ok_or_else(|| LinkError::Url(url.to_owned()))?;
        let loopback = match parsed.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if parsed.scheme() == "http" && !loopback && !plain_http {
            return Err(LinkError::PlainHttp(url.to_owned()));
        }
        let mut http = reqwest::Client::builder().no_proxy().connect_timeout(POST).redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = certificates {
            let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| LinkError::Certificates(error.to_string()))?;
            http = found.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(Self { url: parsed, token_file, http: http.build().map_err(|error| LinkError::Client(error.to_string()))? })
    }

    async fn token(&self) -> Result<String, String> {
        let text = tokio::fs::read_to_string(&self.token_file).await;
        let text = text.map_err(|error| format!("the token cannot be read from {}: {error}", self.token_file.display()))?;
        Ok(text.trim().to_owned())
    }

    fn address(&self, path: &str) -> Url {
        let mut address = self.url.clone();
        address.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        address
    }
}

fn told(status: StatusCode) -> String {
    match status {
        StatusCode::UNAUTHORIZED => "the planner does not take this worker's token".to_owned(),
        StatusCode::FORBIDDEN => "the planner, or what stands before it, refuses this worker; its log says why".to_owned(),
        status => format!("the planner answers {status}"),
    }
}

/// Follows the units of a planner, for as long as anybody listens.
pub struct Follower {
    link: Link,
    random: Arc<dyn Random>,
}

impl Follower {
    /// One that follows the planner over `link`.
    #[must_use]
    pub fn new(link: Link, random: Arc<dyn Random>) -> Self {
        Self { link, random }
    }

    /// Tells of every set of units that came whole; begins again when the stream breaks, ever more rarely while there is no planner.
    pub async fn follow(self, tell: watch::Sender<Option<Arc<Units>>>) {
        let mut wait = AGAIN.0;
        loop {
            let mut came = false;
            let ended = tokio::select! {
                biased;
                () = tell.closed() => return,
                ended = self.read(&tell, &mut came) => ended,
            };
            if came {
                wait = AGAIN.0;
            }
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let pause = Duration::from_millis(self.random.within(millis / 2..=millis));
            match ended {
                // It does so from time to time.
                Ok(()) if came => tracing::debug!("the planner has ended the stream; it is asked again"),
                Ok(()) => tracing::warn!(seconds = pause.as_secs_f32(), "the planner tells nothing; what runs goes on"),
                Err(reason) => tracing::warn!(%reason, seconds = pause.as_secs_f32(), "no units come from the planner; what runs goes on"),
            }
            tokio::select! {
                biased;
                () = tell.closed() => return,
                () = tokio::time::sleep(pause) => wait = (wait * 2).min(AGAIN.1),
            }
        }
    }

    /// One stream until the planner ends it, or why it broke.
    async fn read(&self, tell: &watch::Sender<Option<Arc<Units>>>, came: &mut bool) -> Result<(), String> {
        let request = self.link.http.get(self.link.address(UNITS)).bearer_auth(self.link.token().await?).send();
        let silent = |_| format!("the planner was silent for {SILENT:?}");
        let mut answer = tokio::time::timeout(SILENT, request).await.map_err(silent)?.map_err(|error| error.without_url().to_string())?;
        if !answer.status().is_success() {
            return Err(told(answer.status()));
        }
        let (mut lines, mut units) = (Lines::default(), Units::default());
        loop {
            let piece = tokio::time::timeout(SILENT, answer.chunk()).await.map_err(silent)?;
            let Some(piece) = piece.map_err(|error| error.without_url().to_string())? else { return Ok(()) };
            lines.add(&piece);
            while let Some(line) = lines.next() {
                let line = serde_json::from_slice(&line).map_err(|error| format!("the planner speaks another language: {error}"))?;
                *came = true;
                if let Line::Units(change) = line {
                    let more = change.more;
                    change.apply(&mut units);
                    if !more {
                        // A stream begins with everything, which is often what runs already.
                        tell.send_if_modified(|known| {
                            let other = known.as_deref() != Some(&units);
                            if other {
                                *known = Some(Arc::new(units.clone()));
                            }
                            other
                        });
                    }
                }
            }
            if lines.rest() > MAX_LINE {
                return Err(format!("the planner's line is longer than {MAX_LINE} bytes"));
            }
        }
    }
}

/// Lines out of pieces, each byte of which is looked at once.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// So many bytes of it hold no end of a line.
    seen: usize,
}

impl Lines {
    fn add(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line.
    fn next(&mut self) -> Option<BytesMut> {
        match self.buffer.iter().skip(self.seen).position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = self.buffer.split_to(self.seen + end + 1);
                self.seen = 0;
                Some(line)
            }
            None => {
                self.seen = self.buffer.len();
                None
            }
        }
    }

    /// How long the line is that has no end yet.
    fn rest(&self) -> usize {
        self.buffer.len()
    }
}

/// Tells the planner what `worker` reports, until nobody reports any more.
pub async fn report(link: Link, worker: String, clock: Arc<dyn Clock>, mut reports: watch::Receiver<Arc<Reports>>) {
    let (mut last, mut failing): (Option<(Reports, Instant)>, bool) = (None, false);
    loop {
        let now = Arc::clone(&reports.borrow_and_update());
        let age = clock.now().since(now.at);
        // That time has passed is nothing new.
        let timeless = Reports { at: Timestamp(0), ..Reports::clone(&now) };
        if last.as_ref().is_none_or(|(said, at)| *said != timeless || at.elapsed() >= REPORT_ANYWAY) {
            let posted = Posted { worker: worker.clone(), age, reports: Some(Reports::clone(&now)) };
            match post(&link, &posted).await {
                Ok(()) => {
                    last = Some((timeless, Instant::now()));
                    failing = false;
                }
                Err(why) if failing => tracing::debug!(reason = %why, "the planner cannot be told anything"),
                Err(why) => {
                    tracing::warn!(reason = %why, "the planner cannot be told anything; what runs goes on");
                    failing = true;
                }
            }
        }
        tokio::time::sleep(REPORT).await;
        if reports.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the planner that `worker` leaves, so that what it said last counts no more.
pub async fn leave(link: &Link, worker: String) {
    if let Err(why) = post(link, &Posted { worker, age: Duration::ZERO, reports: None }).await {
        tracing::debug!(reason = %why, "the planner could not be told that this worker leaves");
    }
}

async fn post(link: &Link, posted: &Posted) -> Result<(), String> {
    let body = serde_json::to_vec(posted).map_err(|error| format!("a report cannot be written as JSON: {error}"))?;
    let request = link.http.post(link.address(REPORTS)).bearer_auth(link.token().await?).timeout(POST);
    let answer =
        request.header(CONTENT_TYPE, "application/json").body(body).send().await.map_err(|error| error.without_url().to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(told(answer.status())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::{Planner, SharedToken};
    use fairlead_model::hash::Digest;
    use fairlead_model::report::{IntegrationReport, Phase};
    use fairlead_model::unit::{DeletionPolicy, ObjectKey};
    use fairlead_model::{SystemClock, SystemRandom};
    use fairlead_store::SqliteStore;
    use std::collections::BTreeMap;

    const TOKEN: &str = "a token of sixteen characters and more";

    fn removed(keys: impl IntoIterator<Item = u32>) -> Units {
        let removed = keys.into_iter().map(|key| (ObjectKey(format!("a/{key}")), DeletionPolicy::Retain)).collect();
        Units { removed, ..Units::default() }
    }

    struct World {
        folder: tempfile::TempDir,
        planner: Arc<Planner>,
        /// What serves, so that all of it can end at once.
        serving: Option<tokio::runtime::Runtime>,
        port: u16,
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.end();
        }
    }

    impl World {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
            let (planner, serving, port) = Self::serve(&folder, 0).await;
            Self { folder, planner, serving: Some(serving), port }
        }

        async fn serve(folder: &tempfile::TempDir, port: u16) -> (Arc<Planner>, tokio::runtime::Runtime, u16) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let token = SharedToken::read(&folder.path().join("token")).unwrap();
            let begun = runtime.spawn(async move {
                let store = Arc::new(SqliteStore::open_in_memory().unwrap());
                let planner = Planner::start(store, Arc::new(SystemClock), Arc::new(SystemRandom), token);
                // The one before may still be about to let go of it.
                let listener = loop {
                    match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                };
                let port = listener.local_addr().unwrap().port();
                tokio::spawn(Arc::clone(&planner).serve(listener));
                (planner, port)
            });
            let (planner, port) = begun.await.unwrap();
            (planner, runtime, port)
        }

        fn end(&mut self) {
            if let Some(serving) = self.serving.take() {
                serving.shutdown_background();
            }
        }

        /// The planner goes away; another one takes its place, which has not planned yet.
        async fn replace(&mut self) {
            self.end();
            let (planner, serving, port) = Self::serve(&self.folder, self.port).await;
            assert_eq!(port, self.port);
            (self.planner, self.serving) = (planner, Some(serving));
        }

        fn link(&self, token: &str) -> Link {
            Link::new(&format!("http://127.0.0.1:{}", self.port), false, self.folder.path().join(token), None).unwrap()
        }

        fn follow(&self) -> watch::Receiver<Option<Arc<Units>>> {
            let (tell, units) = watch::channel(None);
            tokio::spawn(Follower::new(self.link("token"), Arc::new(SystemRandom)).follow(tell));
            units
        }
    }

    async fn until(units: &mut watch::Receiver<Option<Arc<Units>>>, wanted: &Units) {
        let seen = units.wait_for(|units| units.as_deref() == Some(wanted));
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the units never came").unwrap();
    }

    #[tokio::test]
    async fn units_come_whole_and_then_as_they_change_and_again_after_a_break() {
        let mut world = World::start().await;
        let mut units = world.follow();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(units.borrow().is_none(), "before anything was planned, nothing is to be stopped");
        world.planner.publish(&removed(0..100));
        until(&mut units, &removed(0..100)).await;
        world.planner.publish(&removed(50..120));
        until(&mut units, &removed(50..120)).await;
        world.replace().await;
        world.planner.publish(&removed(7..9));
        until(&mut units, &removed(7..9)).await;
    }

    #[tokio::test]
    async fn reports_come_back_as_one_and_a_worker_that_leaves_counts_no_more() {
        let world = World::start().await;
        let of = |digest: &str| {
            let report = IntegrationReport::begun(Digest(digest.into()), Phase::Live);
            let integrations = BTreeMap::from([(ObjectKey("a/b".into()), report)]);
            Arc::new(Reports { at: SystemClock.now(), integrations, forgotten: vec![ObjectKey("a/gone".into())], ..Reports::default() })
        };
        let (one, receive) = watch::channel(of("d"));
        tokio::spawn(report(world.link("token"), "one".into(), Arc::new(SystemClock), receive));
        let (two, receive) = watch::channel(Arc::new(Reports { forgotten: Vec::new(), ..Reports::clone(&of("d")) }));
        let reporting = tokio::spawn(report(world.link("token"), "two".into(), Arc::new(SystemClock), receive));
        let mut merged = world.planner.reports();
        let mut seen = async |what: &str, wanted: &dyn Fn(&Reports) -> bool| {
            let seen = merged.wait_for(|reports| wanted(reports));
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap_or_else(|_| panic!("{what}")).unwrap();
        };
        seen("both", &|reports| reports.integrations.len() == 1 && reports.forgotten.is_empty()).await;
        drop(two);
        reporting.await.unwrap();
        leave(&world.link("token"), "two".into()).await;
        seen("one alone", &|reports| reports.forgotten.len() == 1).await;
        one.send_replace(of("e"));
        seen("what is new", &|reports| reports.integrations[&ObjectKey("a/b".into())].digest.0 == "e").await;
    }

    #[tokio::test]
    async fn nobody_without_the_token_is_told_or_heard() {
        let world = World::start().await;
        world.planner.publish(&removed(0..1));
        std::fs::write(world.folder.path().join("other"), "another token of sixteen characters").unwrap();
        let (tell, units) = watch::channel(None);
        let why = Follower::new(world.link("other"), Arc::new(SystemRandom)).read(&tell, &mut false).await.unwrap_err();
        assert!(why.contains("does not take this worker's token"), "{why}");
        let posted = Posted { worker: "x".into(), age: Duration::ZERO, reports: Some(Reports::default()) };
        assert!(post(&world.link("other"), &posted).await.is_err());
        assert!(units.borrow().is_none() && world.planner.heard_of().is_empty());
        let why = Follower::new(world.link("nowhere"), Arc::new(SystemRandom)).read(&tell, &mut false).await.unwrap_err();
        assert!(why.contains("the token cannot be read from"), "{why}");
    }

    #[test]
    fn lines_come_out_of_pieces_however_these_are_cut() {
        let text = b"one\n\nthree and more\nfour";
        for cut in 1..text.len() {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            for piece in text.chunks(cut) {
                lines.add(piece);
                while let Some(line) = lines.next() {
                    told.push(String::from_utf8(line.to_vec()).unwrap());
                }
                assert_eq!(lines.seen, lines.rest(), "what was looked at is not looked at again");
            }
            assert_eq!((told.concat().as_str(), lines.rest()), ("one\n\nthree and more\n", 4));
            assert_eq!(told.len(), 3);
        }
    }

    #[tokio::test]
    async fn a_worker_is_listened_to_under_a_name_of_the_right_form() {
        let world = World::start().await;
        let posted = |worker: &str| Posted { worker: worker.into(), age: Duration::ZERO, reports: Some(Reports::default()) };
        for bad in ["", "a b", "a/b", "ä", &"a".repeat(254)] {
            let refused = post(&world.link("token"), &posted(bad)).await;
            assert!(refused.is_err_and(|why| why.contains("400")), "{bad}");
        }
        assert_eq!(post(&world.link("token"), &posted("1-a.b_C")).await, Ok(()));
        assert_eq!(world.planner.heard_of(), ["1-a.b_C"]);
    }

    #[test]
    fn a_token_goes_in_the_clear_only_where_somebody_said_so() {
        let link = |url: &str, plain| Link::new(url, plain, PathBuf::new(), None).map(|_| ());
        for url in ["http://127.0.0.1:8082", "http://[::1]:8082", "http://localhost:1", "https://planner.example"] {
            assert_eq!(link(url, false), Ok(()), "{url}");
        }
        let far = "http://planner.example:8082";
        assert_eq!(link(far, false), Err(LinkError::PlainHttp(far.into())));
        assert_eq!(link(far, true), Ok(()));
        for url in ["planner.example:8082", "ftp://planner.example", "/units", ""] {
            assert_eq!(link(url, true), Err(LinkError::Url(url.into())));
        }
        assert!(SharedToken::read(&PathBuf::from("/nowhere/token")).is_err_and(|why| why.contains("/nowhere/token")));
    }
}
