//! Which replica writes: one `coordination.k8s.io` Lease, as client-go's leader election uses it.
//!
//! The lease lasts 15 s, is renewed every 2 s, and its holder considers itself one for only 10 s after the start of its last successful
//! renewal, so it has stopped before anybody else may begin. Expiry is judged by how long the *record* has not changed on the own
//! monotonic clock, never by comparing wall clocks. A replica that lost the lease campaigns again; nothing else of it stops.
//!
//! The lease is an optimisation: what makes a late write of a former holder harmless is the resourceVersion that every write names.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;

/// The lease's name, one per install (the namespace tells installs apart).
pub const LEASE_NAME: &str = "fairlead-controller";

/// How long others leave the lease alone after its record last changed.
const LEASE_LASTS: Duration = Duration::from_secs(15);
/// How long a holder trusts its last renewal.
const TRUST: Duration = Duration::from_secs(10);
/// The time between two attempts to renew or acquire.
const RETRY: Duration = Duration::from_secs(2);
/// One attempt takes no longer.
const CALL_DEADLINE: Duration = Duration::from_secs(4);
/// How long to wait for the release at the end.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// Where the lease lies and who campaigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// This replica; unique per start, so that a restarted pod does not take its predecessor's lease for its own.
    pub identity: String,
}

/// Until when this replica may write; `None` while another holds the lease.
pub(crate) type Leadership = watch::Receiver<Option<Instant>>;

/// Whether a write that takes at most `duration` may begin now.
pub(crate) fn may_write(until: Option<Instant>, duration: Duration) -> bool {
    until.is_some_and(|until| Instant::now() + duration < until)
}

/// What to do about a lease that reads like this.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    /// It is ours: renew.
    Renew,
    /// It is free or expired: take it.
    Take,
    /// Somebody holds it.
    Wait,
}

/// Decides from the record and how long it has stood unchanged before our eyes.
fn decide(spec: &LeaseSpec, identity: &str, unchanged_for: Duration) -> Move {
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == identity => Move::Renew,
        None | Some("") => Move::Take,
        Some(_) => {
            let lasts =
                spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LEASE_LASTS, Duration::from_secs);
            if unchanged_for >= lasts { Move::Take } else { Move::Wait }
        }
    }
}

/// The record after our move.
fn written(before: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_LASTS.as_secs()).ok(),
        acquire_time: if ours { before.and_then(|spec| spec.acquire_time.clone()) } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

/// Campaigns until cancelled.
pub(crate) struct Campaign {
    leases: Api<Lease>,
    identity: String,
    /// The lease as last seen, and since when it has not changed.
    seen: Option<(Lease, Instant)>,
    failing: bool,
    publish: watch::Sender<Option<Instant>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Campaign {
    pub(crate) fn new(client: Client, settings: &LeaseSettings, metrics: Arc<Metrics>, health: Arc<Health>) -> (Self, Leadership) {
        let (publish, leadership) = watch::channel(None);
        let leases = Api::namespaced(client, &settings.namespace);
        (Self { leases, identity: settings.identity.clone(), seen: None, failing: false, publish, metrics, health }, leadership)
    }

    /// Campaigns and renews. When `stop` is cancelled, nothing is renewed any more; the lease is given back when `release` is.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut until: Option<Instant> = None;
        loop {
            self.health.beat("lease");
            let started = Instant::now();
            match timeout(CALL_DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => (until, self.failing) = (Some(started + TRUST), false),
                Ok(Ok(false)) => (until, self.failing) = (None, false),
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("no answer in time"),
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                until = None;
            }
            self.tell(until);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.tell(None);
        self.health.retire("lease");
        if until.is_some() && !matches!(timeout(RELEASE_DEADLINE, self.release()).await, Ok(Ok(()))) {
            tracing::warn!("the lease could not be given back; the next replica waits until it ends");
        }
    }

    /// Told once per failure that lasts, not every two seconds.
    fn failed(&mut self, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(error, "the lease cannot be read or renewed; nothing is written until it can");
        }
    }

    fn tell(&self, until: Option<Instant>) {
        let before = self.publish.send_replace(until);
        if before.is_some() != until.is_some() {
            tracing::info!(identity = %self.identity, "{}", if until.is_some() { "leading: this replica writes status" } else { "not leading: another replica writes status" });
        }
        self.metrics.leads(until.is_some());
    }

    /// One move. Whether the lease is ours now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        // A holder renews what it knows, without reading first; whoever else wrote makes that a conflict.
        if let Some((lease, _)) = &self.seen
            && lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity)
            && self.publish.borrow().is_some()
        {
            match self.replace(lease.clone()).await {
                Err(Error::Api(status)) if status.code == 409 || status.code == 404 => {}
                other => return other,
            }
        }
        let Some(lease) = self.leases.get_opt(LEASE_NAME).await? else {
            let spec = written(None, &self.identity, Timestamp::now());
            let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() };
            let created = self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await;
            return self.took(created);
        };
        let unchanged_since = match &self.seen {
            Some((seen, since)) if seen.metadata.resource_version == lease.metadata.resource_version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((lease.clone(), unchanged_since));
        let spec = lease.spec.clone().unwrap_or_default();
        match decide(&spec, &self.identity, unchanged_since.elapsed()) {
            Move::Renew | Move::Take => self.replace(lease).await,
            Move::Wait => Ok(false),
        }
    }

    async fn replace(&mut self, lease: Lease) -> Result<bool, Error> {
        let spec = written(lease.spec.as_ref(), &self.identity, Timestamp::now());
        let replaced = self.leases.replace(LEASE_NAME, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await;
        self.took(replaced)
    }

    /// Remembers the lease as written. A conflict while taking means that somebody was quicker.
    fn took(&mut self, answer: Result<Lease, Error>) -> Result<bool, Error> {
        match answer {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(error) => {
                if matches!(&error, Error::Api(status) if status.code == 409) {
                    let leading = self.publish.borrow().is_some();
                    return if leading { Err(error) } else { Ok(false) };
                }
                Err(error)
            }
        }
    }

    async fn release(&mut self) -> Result<(), Error> {
        let Some((lease, _)) = self.seen.take() else { return Ok(()) };
        let mut spec = lease.spec.clone().unwrap_or_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.leases.replace(LEASE_NAME, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, Request, answer, failure};
    use serde_json::{Value, json};
    use std::sync::Mutex;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(15), ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_or_unchanged_for_its_whole_length() {
        let second = Duration::from_secs;
        assert_eq!(decide(&held_by("me"), "me", second(60)), Move::Renew);
        assert_eq!(decide(&held_by("other"), "me", second(14)), Move::Wait);
        assert_eq!(decide(&held_by("other"), "me", second(15)), Move::Take);
        assert_eq!(decide(&held_by(""), "me", second(0)), Move::Take);
        assert_eq!(decide(&LeaseSpec::default(), "me", second(0)), Move::Take);
        let brief = LeaseSpec { lease_duration_seconds: Some(1), ..held_by("other") };
        assert_eq!(decide(&brief, "me", second(1)), Move::Take, "as long as the holder said");
    }

    #[test]
    fn transitions_count_changes_of_the_holder_only() {
        let now = Timestamp::now();
        let first = written(None, "a", now);
        let renewed = written(Some(&first), "a", now);
        let taken = written(Some(&renewed), "b", now);
        assert_eq!([&first, &renewed, &taken].map(|spec| spec.lease_transitions), [Some(0), Some(0), Some(1)]);
        assert_eq!(renewed.acquire_time, first.acquire_time);
    }

    /// A lease on a server with optimistic locking; `down` makes it refuse everything.
    #[derive(Default)]
    struct Server {
        lease: Option<Value>,
        version: u64,
        down: bool,
    }

    impl Server {
        fn handle(&mut self, request: &Request) -> http::Response<kube::client::Body> {
            if self.down {
                return failure(503);
            }
            match (request.method.as_str(), &self.lease) {
                ("GET", Some(lease)) => answer(200, lease),
                ("GET", None) => failure(404),
                ("POST", Some(_)) => failure(409),
                ("PUT", Some(lease)) if lease["metadata"]["resourceVersion"] != request.body["metadata"]["resourceVersion"] => failure(409),
                ("POST" | "PUT", _) => {
                    self.version += 1;
                    let mut stored = request.body.clone();
                    stored["metadata"]["resourceVersion"] = json!(self.version.to_string());
                    self.lease = Some(stored.clone());
                    answer(200, &stored)
                }
                _ => failure(405),
            }
        }
    }

    fn campaign(server: &Arc<Mutex<Server>>, identity: &str) -> (Leadership, CancellationToken, tokio::task::JoinHandle<()>) {
        let server = Arc::clone(server);
        let (_, client) = FakeApi::new(move |request| server.lock().unwrap().handle(request));
        let settings = LeaseSettings { namespace: "fairlead".into(), identity: identity.into() };
        let (campaign, leadership) = Campaign::new(client, &settings, Arc::default(), Arc::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(campaign.run(stop.clone()));
        (leadership, stop, task)
    }

    async fn until_leading(leadership: &mut Leadership, leads: bool) -> Duration {
        let started = Instant::now();
        leadership.wait_for(|until| until.is_some() == leads).await.unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_leader_hands_over_within_three_seconds() {
        let server = Arc::<Mutex<Server>>::default();
        let (mut first, stop, task) = campaign(&server, "a");
        until_leading(&mut first, true).await;
        let (mut second, _stop, _task) = campaign(&server, "b");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(second.borrow().is_none(), "one at a time");
        stop.cancel();
        assert!(until_leading(&mut second, true).await <= Duration::from_secs(3));
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_leader_is_followed_within_twenty_seconds_and_never_overlaps() {
        let server = Arc::<Mutex<Server>>::default();
        let (mut first, _stop, task) = campaign(&server, "a");
        until_leading(&mut first, true).await;
        let (mut second, _stop, _task) = campaign(&server, "b");
        tokio::time::sleep(Duration::from_secs(7)).await;
        task.abort();
        let trusted_until = first.borrow().unwrap();
        let took = until_leading(&mut second, true).await;
        assert!(took <= Duration::from_secs(20), "{took:?}");
        assert!(Instant::now() > trusted_until, "the former leader stopped before");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_server_ends_leading_in_time_and_the_campaign_goes_on() {
        let server = Arc::<Mutex<Server>>::default();
        let (mut leadership, _stop, _task) = campaign(&server, "a");
        until_leading(&mut leadership, true).await;
        server.lock().unwrap().down = true;
        assert!(until_leading(&mut leadership, false).await <= TRUST + RETRY);
        server.lock().unwrap().down = false;
        until_leading(&mut leadership, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_lease_is_made_anew_by_its_holder() {
        let server = Arc::<Mutex<Server>>::default();
        let (mut leadership, _stop, _task) = campaign(&server, "a");
        until_leading(&mut leadership, true).await;
        server.lock().unwrap().lease = None;
        tokio::time::sleep(RETRY * 2).await;
        assert!(leadership.borrow().is_some());
        assert_eq!(server.lock().unwrap().lease.as_ref().unwrap()["spec"]["holderIdentity"], "a");
    }
}
