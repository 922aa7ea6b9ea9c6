//! The names of everything that can happen to a simulated world. A name that no seed of a whole run reaches is a hole in the simulation.

/// What a request may meet.
pub(crate) const REQUEST: [&str; 17] = [
    "request not sent",
    "request cut before its effect",
    "request cut after its effect",
    "request answered too late",
    "request slow to arrive",
    "answer slow",
    "answer 500 before the effect",
    "answer 500 after the effect",
    "answer 503",
    "answer 429 with seconds",
    "answer 429 with a date",
    "answer 429 bare",
    "answer maintenance page",
    "answer half a body",
    "answer some items refused",
    "answer the page before",
    "answer from an older state",
];

/// What a command of the store may meet.
pub(crate) const STORE: [&str; 5] =
    ["store full", "store read-only", "store fails before the commit", "store fails after the commit", "store slow"];

/// What befalls a process or a system, besides the deaths of [`deaths`].
pub(crate) const WORLD: [&str; 12] = [
    "process dies within a request",
    "process dies before a commit",
    "process dies after a commit",
    "process paused past its leases",
    "process stopped and started",
    "two processes",
    "lanes in partitions",
    "golden records",
    "resync",
    "tokens expire",
    "system away",
    "token refused",
];

/// What people do.
pub(crate) const PEOPLE: [&str; 10] = [
    "person creates",
    "person enters again what was deleted",
    "person edits what is theirs",
    "person edits what is not theirs",
    "person clears",
    "person commits late",
    "person refers elsewhere",
    "person deletes at home",
    "person deletes elsewhere",
    "person merges",
];

/// The point at which a process dies at one of the engine's crash points.
pub(crate) fn death(crash_point: &str) -> String {
    format!("process dies at {crash_point}")
}

/// Every point.
pub(crate) fn all() -> Vec<String> {
    let named = REQUEST.iter().chain(&STORE).chain(&WORLD).chain(&PEOPLE).map(|name| (*name).to_owned());
    named.chain(fairlead_engine::crash::POINTS.iter().map(|point| death(point))).collect()
}
