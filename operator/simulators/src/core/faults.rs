//! Fault scripts: which requests go wrong, how, and how often.
//!
//! A script is a list of rules; the first rule that matches a request and is due decides. A rule counts its matching calls,
//! lets `after` of them pass, then fires `times` times (once, unless `forever`, `percent` or `forSeconds` say otherwise).
//! Random choices come from the simulator's seed. This file decides only; the server carries out.
//!
//! ```yaml
//! rules:
//! - match: {operation: write, entity: Account}
//!   fault: timeoutAfterEffect
//!   after: 3
//! - match: {pathContains: /query}
//!   fault: status
//!   status: 503
//!   percent: 10
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::vendor::{Class, Operation, Refusal, Request};

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultScript {
    /// The rules; the first that matches and is due decides.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl FaultScript {
    /// Reads a script from YAML or JSON (which is YAML too). The error names the place.
    pub fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(text)
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Which requests; left out: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What goes wrong.
    pub fault: Fault,
    /// How many matching calls pass before the rule fires.
    #[serde(default)]
    pub after: u64,
    /// How often it fires; once if neither this nor `percent` nor `forSeconds` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// Fires on this share of the matching calls (0 to 100), drawn with the simulator's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Ends this many seconds after the rule fired first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// For `status`: the status, 503 if left out. For `maintenancePage`: 200 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For `limit`: seconds for a `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// For timeouts: how long the connection hangs before it is cut, 1,000 if left out. For `slowDrip`: how long the whole
    /// body takes, 5,000 if left out. For `staleRead`: how old the shown state is, 30,000 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// For `partialBatchFailure`: the positions (from 0) that fail; left out: about half, drawn with the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<usize>>,
    /// For `partialBatchFailure`: the vendor's error code; left out: the vendor's usual transient one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Which requests a rule speaks of; all given parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The HTTP method, in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the path as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// The vendor's name of the record type, any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// `read`, `write` or `auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Refused for its quota, in the vendor's own way.
    Limit,
    /// Refused with an error status.
    Status,
    /// The work is done, the answer never comes, the connection is cut.
    TimeoutAfterEffect,
    /// Nothing is done, no answer comes, the connection is cut.
    TimeoutBeforeEffect,
    /// Some items of a batch fail; the batch succeeds.
    PartialBatchFailure,
    /// All tokens become invalid before this request is looked at.
    TokenExpiry,
    /// An HTML page where JSON is expected.
    MaintenancePage,
    /// The right answer, byte by byte.
    SlowDrip,
    /// The connection is closed at once.
    Outage,
    /// The answer shows an older state.
    StaleRead,
}

/// How often a rule fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Times {
    /// So many times.
    Count(u64),
    /// Without end.
    Forever(Forever),
}

/// The word `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Forever {
    /// Without end.
    Forever,
}

/// Which items of a batch fail, and with which code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialFailure {
    items: Option<Vec<usize>>,
    draw: u64,
    /// The code the script asks for.
    pub code: Option<String>,
}

impl PartialFailure {
    /// True where the item at this position (from 0) fails.
    pub fn fails(&self, position: usize) -> bool {
        match &self.items {
            Some(items) => items.contains(&position),
            None => super::universe::mix(self.draw ^ position as u64) & 1 == 0,
        }
    }
}

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it.
    Pass,
    /// Let the vendor word a refusal; no effect.
    Refuse(Refusal),
    /// Do the work, wait, cut.
    CutAfter(Duration),
    /// Wait, cut; no effect.
    CutBefore(Duration),
    /// Answer, failing some items.
    Partial(PartialFailure),
    /// Invalidate tokens, then answer.
    ExpireTokens,
    /// Answer within this time, in small pieces.
    Drip(Duration),
    /// Answer from a state this old.
    Stale(Duration),
}

/// A script at work.
#[derive(Debug)]
pub struct Faults {
    inner: Mutex<Inner>,
    seed: u64,
}

#[derive(Debug)]
struct Inner {
    rules: Vec<(Rule, Progress)>,
    rng: StdRng,
}

#[derive(Debug, Default)]
struct Progress {
    seen: u64,
    fired: u64,
    since: Option<Instant>,
}

impl Faults {
    /// A script at work from now on.
    pub fn new(script: FaultScript, seed: u64) -> Self {
        Self { inner: Mutex::new(Inner::new(script, seed)), seed }
    }

    /// Replaces the script; counts start again.
    pub fn replace(&self, script: FaultScript) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner::new(script, self.seed);
    }

    /// How often each rule fired, in the order of the rules.
    pub fn fired(&self) -> Vec<u64> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.rules.iter().map(|(_, progress)| progress.fired).collect()
    }

    /// Decides about one request.
    pub fn verdict(&self, request: &Request, class: &Class, now: Instant) -> Verdict {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { rules, rng } = &mut *inner;
        for (rule, progress) in rules {
            if rule.matches.holds(request, class) && rule.due(progress, rng, now) {
                return rule.verdict(rng);
            }
        }
        Verdict::Pass
    }
}

impl Inner {
    fn new(script: FaultScript, seed: u64) -> Self {
        let rules = script.rules.into_iter().map(|rule| (rule, Progress::default())).collect();
        Self { rules, rng: StdRng::seed_from_u64(seed) }
    }
}

impl Match {
    fn holds(&self, request: &Request, class: &Class) -> bool {
        self.method.as_deref().is_none_or(|method| request.method.as_str().eq_ignore_ascii_case(method))
            && self.path_contains.as_deref().is_none_or(|part| request.path.contains(part))
            && self.operation.is_none_or(|operation| class.operation == operation)
            && self.entity.as_deref().is_none_or(|wanted| class.entity.as_deref().is_some_and(|entity| entity.eq_ignore_ascii_case(wanted)))
    }
}

impl Rule {
    fn due(&self, progress: &mut Progress, rng: &mut StdRng, now: Instant) -> bool {
        progress.seen += 1;
        if progress.seen <= self.after {
            return false;
        }
        let limit = match self.times {
            Some(Times::Count(count)) => count,
            Some(Times::Forever(_)) => u64::MAX,
            None if self.percent.is_some() || self.for_seconds.is_some() => u64::MAX,
            None => 1,
        };
        let ended = match (self.for_seconds, progress.since) {
            (Some(seconds), Some(since)) => now.duration_since(since) >= Duration::from_secs(seconds),
            _ => false,
        };
        if progress.fired >= limit || ended {
            return false;
        }
        if self.percent.is_some_and(|percent| rng.random_range(0..100) >= u32::from(percent)) {
            return false;
        }
        progress.fired += 1;
        progress.since.get_or_insert(now);
        true
    }

    fn verdict(&self, rng: &mut StdRng) -> Verdict {
        let millis = |default| Duration::from_millis(self.millis.unwrap_or(default));
        match self.fault {
            Fault::Limit => Verdict::Refuse(Refusal::Limit { retry_after: self.retry_after.map(Duration::from_secs) }),
            Fault::Status => Verdict::Refuse(Refusal::Status(self.status.unwrap_or(503))),
            Fault::TimeoutAfterEffect => Verdict::CutAfter(millis(1_000)),
            Fault::TimeoutBeforeEffect => Verdict::CutBefore(millis(1_000)),
            Fault::PartialBatchFailure => {
                Verdict::Partial(PartialFailure { items: self.items.clone(), draw: rng.random(), code: self.code.clone() })
            }
            Fault::TokenExpiry => Verdict::ExpireTokens,
            Fault::MaintenancePage => Verdict::Refuse(Refusal::Maintenance(self.status.unwrap_or(200))),
            Fault::SlowDrip => Verdict::Drip(millis(5_000)),
            Fault::Outage => Verdict::CutBefore(Duration::ZERO),
            Fault::StaleRead => Verdict::Stale(millis(30_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fires(script: &str, seed: u64, calls: &[(&str, Operation)]) -> Vec<bool> {
        let faults = Faults::new(FaultScript::parse(script).unwrap(), seed);
        let now = Instant::now();
        let verdict = |(path, operation): &(&str, Operation)| {
            let request = Request {
                method: http::Method::GET,
                endpoint: String::new(),
                path: (*path).to_owned(),
                segments: Vec::new(),
                query: Vec::new(),
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            };
            let class = Class { operation: *operation, kind: "any", entity: Some("Account".to_owned()) };
            faults.verdict(&request, &class, now) != Verdict::Pass
        };
        calls.iter().map(verdict).collect()
    }

    const READ: (&str, Operation) = ("/query", Operation::Read);
    const WRITE: (&str, Operation) = ("/sobjects", Operation::Write);

    #[test]
    fn a_rule_lets_calls_pass_then_fires_so_often() {
        let script = "rules: [{match: {operation: write}, fault: status, after: 1, times: 2}]";
        assert_eq!(fires(script, 1, &[WRITE, READ, WRITE, WRITE, WRITE]), [false, false, true, true, false]);
        assert_eq!(fires("rules: [{fault: limit}]", 1, &[READ, READ]), [true, false]);
        assert_eq!(fires("rules: [{fault: limit, times: forever}]", 1, &[READ; 50]), [true; 50]);
    }

    #[test]
    fn all_parts_of_a_match_must_hold() {
        let script =
            "rules: [{match: {method: get, pathContains: /query, entity: account, operation: read}, fault: outage, times: forever}]";
        assert_eq!(fires(script, 1, &[READ, WRITE]), [true, false]);
        assert_eq!(fires("rules: [{match: {entity: Contact}, fault: outage}]", 1, &[READ]), [false]);
    }

    #[test]
    fn a_share_of_calls_is_drawn_with_the_seed() {
        let script = "rules: [{fault: status, percent: 30}]";
        let one = fires(script, 7, &[READ; 1_000]);
        assert_eq!(one, fires(script, 7, &[READ; 1_000]));
        assert_ne!(one, fires(script, 8, &[READ; 1_000]));
        let share = one.iter().filter(|fired| **fired).count();
        assert!((250..350).contains(&share), "{share}");
    }

    #[test]
    fn a_span_ends_after_its_seconds() {
        let faults = Faults::new(FaultScript::parse("{rules: [{fault: outage, forSeconds: 30}]}").unwrap(), 1);
        let rule = |at| {
            let mut inner = faults.inner.lock().unwrap();
            let Inner { rules, rng } = &mut *inner;
            let (rule, progress) = &mut rules[0];
            rule.due(progress, rng, at)
        };
        let start = Instant::now();
        assert_eq!([0, 29, 30, 31].map(|seconds| rule(start + Duration::from_secs(seconds))), [true, true, false, false]);
    }

    #[test]
    fn a_script_reads_from_json_too_and_names_what_it_does_not_know() {
        let script = FaultScript::parse(r#"{"rules":[{"match":{"operation":"auth"},"fault":"tokenExpiry","times":3}]}"#).unwrap();
        assert_eq!(script.rules[0].times, Some(Times::Count(3)));
        assert!(FaultScript::parse("rules: [{fault: limit, tims: 3}]").unwrap_err().to_string().contains("tims"));
    }
}
