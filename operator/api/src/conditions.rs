//! Conditions: which types each kind has, how a new set follows an old one, and what may never be seen together.
//!
//! Positive types are always present; the others only while they are True. A transition time moves only when a status flips. The
//! invariants of [`judge`] are those that Flux, kstatus and Argo CD conclude from; library code, so that every test of every room
//! can hold what it wrote against them. No clock here: `now` comes from the caller.

use std::fmt;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::manifest::Kind;
use crate::reasons::Reason;

/// The types a condition may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The resource is valid.
    Accepted,
    /// Everything it refers to exists and may be used.
    ResolvedRefs,
    /// The last authenticated probe of the system succeeded.
    Reachable,
    /// The runtime holds this generation: the engine an Integration, the gateway a contract's operations. A contract without operations
    /// asks nothing of the gateway, so it holds.
    Programmed,
    /// Data moves within its objective.
    Healthy,
    /// What was declared is so.
    Ready,
    /// The operator or the runtime is on its way.
    Reconciling,
    /// A person must act before anything goes on.
    Stalled,
    /// It works, but not all of it.
    Degraded,
    /// Changes are delivered late. An advisory: Ready does not follow it.
    Lagging,
    /// It was told to stand still. An advisory.
    Paused,
    /// The system asks for fewer requests. An advisory.
    Throttled,
    /// The credentials end soon. An advisory.
    AuthExpiring,
}

/// What a condition's type says when it is True.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// Good; always present.
    Positive,
    /// Not what was declared (yet); present only while True, and forbids Ready.
    Negative,
    /// Worth knowing; present only while True.
    Advisory,
}

impl ConditionType {
    /// All types, in the order in which a status lists them.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::ResolvedRefs,
        Self::Reachable,
        Self::Programmed,
        Self::Healthy,
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::Degraded,
        Self::Lagging,
        Self::Paused,
        Self::Throttled,
        Self::AuthExpiring,
    ];

    /// The word in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Reachable => "Reachable",
            Self::Programmed => "Programmed",
            Self::Healthy => "Healthy",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Degraded => "Degraded",
            Self::Lagging => "Lagging",
            Self::Paused => "Paused",
            Self::Throttled => "Throttled",
            Self::AuthExpiring => "AuthExpiring",
        }
    }

    /// The type of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What it says when it is True.
    pub const fn polarity(self) -> Polarity {
        match self {
            Self::Accepted | Self::ResolvedRefs | Self::Reachable | Self::Programmed | Self::Healthy | Self::Ready => Polarity::Positive,
            Self::Reconciling | Self::Stalled | Self::Degraded => Polarity::Negative,
            Self::Lagging | Self::Paused | Self::Throttled | Self::AuthExpiring => Polarity::Advisory,
        }
    }

    /// The types that a resource of this kind may show.
    pub const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Connector => &[
                Self::Accepted,
                Self::ResolvedRefs,
                Self::Reachable,
                Self::Ready,
                Self::Reconciling,
                Self::Stalled,
                Self::Throttled,
                Self::AuthExpiring,
            ],
            Kind::ApiContract => &[Self::Accepted, Self::ResolvedRefs, Self::Programmed, Self::Ready, Self::Reconciling, Self::Stalled],
            Kind::Integration => &[
                Self::Accepted,
                Self::ResolvedRefs,
                Self::Programmed,
                Self::Healthy,
                Self::Ready,
                Self::Reconciling,
                Self::Stalled,
                Self::Degraded,
                Self::Lagging,
                Self::Paused,
                Self::Throttled,
            ],
        }
    }

    /// The types that a resource of this kind always shows.
    pub fn positives(kind: Kind) -> impl Iterator<Item = Self> {
        Self::of(kind).iter().copied().filter(|each| each.polarity() == Polarity::Positive)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl Truth {
    /// The word in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as it should be: everything but the times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The aspect.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Truth,
    /// Why.
    pub reason: Reason,
    /// What is so, where, and what to do. Cut to 4096 characters.
    pub message: String,
}

impl Wanted {
    /// A condition as it should be.
    pub fn new(kind: ConditionType, status: impl Into<Truth>, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: status.into(), reason, message: message.into() }
    }
}

/// The Kubernetes form of a moment; fractions of a second are cut off, as the API server would.
pub fn time(moment: DateTime<Utc>) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(moment.timestamp()).unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
}

/// The condition of a type, if the list has it.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of a type is there and True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// Puts one condition into the list, in its place. The transition time stays unless the status flips.
pub fn set_condition(conditions: &mut Vec<Condition>, wanted: Wanted, generation: i64, now: DateTime<Utc>) {
    let before = find(conditions, wanted.kind);
    let condition = follow(before, wanted, generation, now);
    let place = |condition: &Condition| rank(&condition.type_);
    match conditions.iter_mut().find(|each| each.type_ == condition.type_) {
        Some(slot) => *slot = condition,
        None => {
            let index = conditions.partition_point(|each| place(each) < place(&condition));
            conditions.insert(index, condition);
        }
    }
}

/// Takes a condition out of the list.
pub fn remove_condition(conditions: &mut Vec<Condition>, kind: ConditionType) {
    conditions.retain(|condition| condition.type_ != kind.as_str());
}

/// A whole new list after an old one: exactly the wanted conditions, in their order, with the old transition times where the status
/// did not flip. A negative or advisory type that is not True is left out.
pub fn replace_conditions(
    before: &[Condition],
    wanted: impl IntoIterator<Item = Wanted>,
    generation: i64,
    now: DateTime<Utc>,
) -> Vec<Condition> {
    let mut after = Vec::new();
    for each in wanted {
        if each.kind.polarity() != Polarity::Positive && each.status != Truth::True {
            continue;
        }
        if let Some(old) = find(before, each.kind)
            && find(&after, each.kind).is_none()
        {
            after.push(old.clone());
        }
        set_condition(&mut after, each, generation, now);
    }
    after.sort_by_key(|condition| rank(&condition.type_));
    after
}

fn follow(before: Option<&Condition>, wanted: Wanted, generation: i64, now: DateTime<Utc>) -> Condition {
    let status = wanted.status.as_str();
    let last_transition_time = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        _ => time(now),
    };
    Condition {
        type_: wanted.kind.as_str().to_owned(),
        status: status.to_owned(),
        observed_generation: Some(generation),
        last_transition_time,
        reason: wanted.reason.as_str().to_owned(),
        message: wanted.message.chars().take(crate::common::MAX_MESSAGE).collect(),
    }
}

pub(crate) fn rank(word: &str) -> usize {
    ConditionType::ALL.iter().position(|kind| kind.as_str() == word).unwrap_or(ConditionType::ALL.len())
}

/// Holds a status against the invariants that other tools conclude from. Gives a sentence per breach; none is good.
///
/// `observed` is the status' own observed generation, `generation` the object's.
pub fn judge(kind: Kind, conditions: &[Condition], observed: Option<i64>, generation: i64) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut breach = |text: String| breaches.push(text);

    for (index, condition) in conditions.iter().enumerate() {
        let name = &condition.type_;
        if conditions[..index].iter().any(|earlier| earlier.type_ == *name) {
            breach(format!("{name} is listed twice"));
        }
        match ConditionType::parse(name).filter(|known| ConditionType::of(kind).contains(known)) {
            None => breach(format!("{name} is no condition of {kind}")),
            Some(known) if known.polarity() != Polarity::Positive && condition.status != "True" => {
                breach(format!("{name} is {} but may be present only while True", condition.status));
            }
            Some(_) => {}
        }
        if !["True", "False", "Unknown"].contains(&condition.status.as_str()) {
            breach(format!("{name} has the status {}", condition.status));
        }
        if condition.reason.parse::<Reason>().is_err() {
            breach(format!("{name} gives {} as its reason, which is not documented", condition.reason));
        }
        if condition.message.is_empty() && condition.status != "True" {
            breach(format!("{name} is {} without a message", condition.status));
        }
        match condition.observed_generation {
            None => breach(format!("{name} does not say which generation it speaks of")),
            Some(seen) if seen > generation => {
                breach(format!("{name} speaks of generation {seen}, but the object is at {generation}"));
            }
            Some(_) => {}
        }
    }

    for positive in ConditionType::positives(kind) {
        if find(conditions, positive).is_none() {
            breach(format!("{positive} is missing; it must always be present"));
        }
    }
    match observed {
        None => breach("the status does not say which generation it speaks of".into()),
        Some(seen) if seen > generation => {
            breach(format!("the status speaks of generation {seen}, but the object is at {generation}"));
        }
        Some(_) => {}
    }

    let reconciling = is_true(conditions, ConditionType::Reconciling);
    let stalled = is_true(conditions, ConditionType::Stalled);
    let degraded = is_true(conditions, ConditionType::Degraded);
    if reconciling && stalled {
        breach("Reconciling and Stalled are both True".into());
    }
    match find(conditions, ConditionType::Ready).map(|ready| ready.status.as_str()) {
        Some("True") => {
            for negative in [ConditionType::Reconciling, ConditionType::Stalled, ConditionType::Degraded] {
                if is_true(conditions, negative) {
                    breach(format!("Ready is True while {negative} is True"));
                }
            }
            for positive in ConditionType::positives(kind) {
                let Some(condition) = find(conditions, positive) else { continue };
                if condition.status != "True" {
                    breach(format!("Ready is True while {positive} is {}", condition.status));
                }
                if condition.observed_generation.is_some_and(|seen| seen < generation) {
                    breach(format!("Ready is True while {positive} speaks of an older generation"));
                }
            }
            if observed.is_some_and(|seen| seen < generation) {
                breach("Ready is True while the status speaks of an older generation".into());
            }
        }
        Some("Unknown") if !reconciling => breach("Ready is Unknown without Reconciling".into()),
        Some("False") if !reconciling && !stalled && !degraded => {
            breach("Ready is False, and neither Reconciling, Stalled nor Degraded says whether waiting helps".into());
        }
        _ => {}
    }
    breaches
}
