//! How often a consumer may call: GCRA, told in the headers of draft-ietf-httpapi-ratelimit-headers (revision 10 and later).

use fairlead_model::route::Rate;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::HeaderValue;
use std::num::NonZeroU32;
use std::time::Duration;

/// One consumer's limit on one contract. Its state outlives the unit: the same limit in a newer unit goes on counting.
pub(crate) struct Limit {
    rate: Rate,
    /// Time for one request to be given back.
    each: Duration,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    /// `RateLimit-Policy`, which does not change.
    pub(crate) policy: HeaderValue,
}

/// A request was counted, or refused.
pub(crate) struct Verdict {
    /// `RateLimit`.
    pub(crate) header: HeaderValue,
    /// Set when refused: how long to wait.
    pub(crate) wait: Option<Duration>,
}

impl Limit {
    /// # Errors
    /// The rate is no rate.
    pub(crate) fn new(rate: Rate) -> Result<Self, String> {
        let no_rate = || format!("a rate of {} requests per {:?} is none", rate.requests, rate.per);
        let requests = NonZeroU32::new(rate.requests).ok_or_else(no_rate)?;
        let each = rate.per / requests.get();
        let quota = Quota::with_period(each).ok_or_else(no_rate)?.allow_burst(requests);
        let clock = DefaultClock::default();
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware::<StateInformationMiddleware>();
        let policy = format!("\"consumer\";q={};w={}", rate.requests, crate::problem::seconds_up(rate.per));
        let policy = HeaderValue::try_from(policy).map_err(|_| no_rate())?;
        Ok(Self { rate, each, limiter, clock, policy })
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts a request.
    pub(crate) fn check(&self) -> Verdict {
        let (left, reset, wait) = match self.limiter.check() {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                (left, self.each.saturating_mul(self.rate.requests.saturating_sub(left)), None)
            }
            Err(refused) => {
                let wait = refused.wait_time_from(self.clock.now());
                (0, wait, Some(wait))
            }
        };
        // `t`: until everything is there again; after a refusal, until the next request is.
        let text = format!("\"consumer\";r={left};t={}", crate::problem::seconds_up(reset));
        Verdict { header: HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"consumer\";r=0")), wait }
    }
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_and_the_next_request_told_when_to_come() {
        let limit = Limit::new(Rate { requests: 2, per: Duration::from_secs(3600) }).unwrap();
        assert_eq!(limit.policy, "\"consumer\";q=2;w=3600");
        assert_eq!(limit.check().header, "\"consumer\";r=1;t=1800");
        assert!(limit.check().wait.is_none());
        let refused = limit.check();
        assert!(refused.wait.is_some_and(|wait| wait > Duration::from_secs(1790)), "{:?}", refused.wait);
        assert!(refused.header.to_str().unwrap().starts_with("\"consumer\";r=0;t="));
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        assert!(Limit::new(Rate { requests: 0, per: Duration::from_secs(1) }).is_err());
        assert!(Limit::new(Rate { requests: 1, per: Duration::ZERO }).is_err());
    }
}
