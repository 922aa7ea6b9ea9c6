//! The times by which the planner and the status rules judge. Plain values; the binary fills them from its flags.

use std::time::Duration;

/// How long is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The age of the oldest undelivered change beyond which an Integration lags (API.md: `objectives.lag`).
    pub lag_objective: Duration,
    /// A runtime that has not reported for so long is not reporting: what it runs becomes Unknown. A worker's death must show within 30 s.
    pub silent_after: Duration,
    /// A runtime that has not reported for so long counts as gone: Unknown becomes False.
    pub lost_after: Duration,
    /// Noise (a number that leaves zero, a lag bucket, an error) is written at most this often; conditions are written at once.
    pub noise_interval: Duration,
    /// Where callers reach the gateway, as a URL without the contracts' paths; nothing where no gateway runs.
    pub gateway: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lag_objective: Duration::from_secs(60),
            silent_after: Duration::from_secs(20),
            lost_after: Duration::from_secs(60),
            noise_interval: Duration::from_secs(60),
            gateway: None,
        }
    }
}
