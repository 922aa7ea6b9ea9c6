//! What is left of an account's quota, and for whom.
//!
//! Two windows: the day (UTC), of which `limits.dailyRequests` may be used, counted here; and the vendor's own, of which its answers tell. A
//! lower [`Priority`] leaves more of each untouched, so that the last requests are for what somebody waits for.
//!
//! A vendor's word is counted down with each request of ours. It holds until the end of the window that it states, else for
//! [`VENDOR_WORD`]: an account has other users, and quotas that roll come back by and by. When the vendor refused and the wait for that is over, it
//! is asked again, whatever it said before. The probe is always sent, so there is news of a quota that nobody may use.
//!
//! Where several processes work on one account, each takes no more than its part of what is left of the day until they have told each other what they sent
//! ([`Budget::ahead`]).
//!
//! Pure values; the moments come in. What was counted is lost with the process, but for what somebody notes ([`Usage`]).

use super::transport::Answer;
use super::turns::{Priority, Share};
use crate::definition::format::QuotaFormat;
use crate::reason;
use fairlead_model::report::{Quota, Spent, Window};
use fairlead_model::unit::Limits;
use fairlead_model::{ErrorClass, RemoteError, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a vendor's word is believed that states no end of its window.
pub(crate) const VENDOR_WORD: Duration = Duration::from_secs(300);

/// Whoever is refused asks again after so long at the latest; nothing is sent for it. Somebody may have raised the limit meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// Processes that share an account have learnt of each other's requests after so long.
const DIVIDED_AGAIN: Duration = Duration::from_secs(5);

/// The most that is kept from anybody, in percent: whatever the reserve, a little is for all.
const MOST_KEPT: u32 = 95;

const DAY: i64 = 24 * 3600 * 1000;

/// How many requests were sent on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// The day: how many lie between it and the first of January 1970 (UTC).
    pub day: i64,
    /// How many, requests for tokens left out.
    pub requests: u64,
}

impl Usage {
    /// What was known, and `fresh` requests that were sent since. The later day counts.
    #[must_use]
    pub fn and(self, fresh: Self) -> Self {
        match self.day.cmp(&fresh.day) {
            std::cmp::Ordering::Less => fresh,
            std::cmp::Ordering::Equal => Self { requests: self.requests.saturating_add(fresh.requests), ..self },
            std::cmp::Ordering::Greater => self,
        }
    }
}

/// How far a window is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Which.
    pub window: Window,
    /// Requests that were sent in it.
    pub used: u64,
    /// Requests that it has, if it is limited.
    pub limit: Option<u64>,
}

/// What a vendor told of its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// Requests of the window; 0 where that is not known.
    pub(crate) limit: u64,
    /// Those that are left.
    pub(crate) left: u64,
    /// When the window ends, if that was told.
    pub(crate) ends: Option<Timestamp>,
}

struct Told {
    word: Word,
    /// Until then it is believed.
    until: Timestamp,
    /// From then on it holds nobody back: the vendor refused, and the wait for that is over.
    asked_again: Option<Timestamp>,
}

/// The quota of one account.
pub(crate) struct Budget {
    daily: Option<u64>,
    reserve: u32,
    /// All of the day that is known of.
    used: Usage,
    /// Of these: what nobody has noted.
    unnoted: u64,
    told: Option<Told>,
    share: Share,
}

fn day_of(now: Timestamp) -> i64 {
    now.0.div_euclid(DAY)
}

/// What `priority` leaves untouched, in percent, when `reserve` is kept for interactive requests.
fn kept_from(priority: Priority, reserve: u32) -> u32 {
    let share = match priority {
        Priority::Interactive => return 0,
        Priority::Live => reserve,
        Priority::Flow => reserve.saturating_add(5),
        Priority::Backfill => reserve.saturating_add(20),
    };
    share.min(MOST_KEPT)
}

fn share(of: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            daily: limits.daily_requests,
            reserve: limits.interactive_reserve_percent,
            used: Usage::default(),
            unnoted: 0,
            told: None,
            share: Share::default(),
        }
    }

    /// Requests of this day.
    fn today(&self, now: Timestamp) -> u64 {
        if day_of(now) > self.used.day { 0 } else { self.used.requests }
    }

    fn turn_day(&mut self, now: Timestamp) {
        // A clock that is stepped back does not give the day anew.
        if day_of(now) > self.used.day {
            (self.used, self.unnoted) = (Usage { day: day_of(now), requests: 0 }, 0);
        }
    }

    /// What the vendor said, as long as it is believed.
    fn word(&self, now: Timestamp) -> Option<&Told> {
        self.told.as_ref().filter(|told| now < told.until)
    }

    /// The quota that is used up for `priority`, if one is; of two the one for longer.
    pub(crate) fn spent(&self, priority: Priority, now: Timestamp) -> Option<Spent> {
        self.spent_by(priority, now, |told| told.asked_again.is_none_or(|again| now < again))
    }

    fn spent_by(&self, priority: Priority, now: Timestamp, holds: impl Fn(&Told) -> bool) -> Option<Spent> {
        let kept = kept_from(priority, self.reserve);
        let day = self.daily.filter(|limit| limit.saturating_sub(self.today(now)) <= share(*limit, kept)).map(|_| {
            let next = Timestamp((day_of(now).max(self.used.day) + 1) * DAY);
            Spent { window: Window::Day, until: next, ends: true }
        });
        let vendor = self.word(now).filter(|told| holds(told) && told.word.left <= share(told.word.limit, kept)).map(|told| {
            let until = told.asked_again.map_or(told.until, |again| told.until.min(again));
            Spent { window: Window::Vendor, until, ends: told.word.ends == Some(until) }
        });
        [day, vendor].into_iter().flatten().max_by_key(|spent| spent.until)
    }

    /// So many processes take from the day.
    pub(crate) fn divide(&mut self, share: Share) {
        self.share = share;
    }

    /// Whether this process has sent its part of what was left of the day when it was last noted. One request is in it, however many share: else the
    /// last ones would be nobody's.
    pub(crate) fn ahead(&self, priority: Priority, now: Timestamp) -> bool {
        self.share.of > 1
            && day_of(now) <= self.used.day
            && self.daily.is_some_and(|limit| {
                let noted = self.used.requests.saturating_sub(self.unnoted);
                let left = limit.saturating_sub(share(limit, kept_from(priority, self.reserve))).saturating_sub(noted);
                self.unnoted >= self.share.part(left).max(1)
            })
    }

    /// Takes one request, or says which quota has none left for `priority`.
    pub(crate) fn take(&mut self, priority: Priority, now: Timestamp) -> Result<(), Spent> {
        match self.spent(priority, now) {
            Some(spent) => Err(spent),
            None => {
                self.count(now);
                Ok(())
            }
        }
    }

    /// A request is sent, whatever is left.
    pub(crate) fn count(&mut self, now: Timestamp) {
        self.turn_day(now);
        self.used.requests = self.used.requests.saturating_add(1);
        self.unnoted = self.unnoted.saturating_add(1);
        if let Some(told) = &mut self.told {
            told.word.left = told.word.left.saturating_sub(1);
        }
    }

    /// The vendor told what is left.
    pub(crate) fn told(&mut self, word: Word, now: Timestamp) {
        let until = word.ends.filter(|ends| *ends > now).unwrap_or_else(|| now.plus(VENDOR_WORD));
        self.told = Some(Told { word, until, asked_again: None });
    }

    /// The vendor refused and is asked again at `again`; with `exhausted`, because nothing is left.
    pub(crate) fn refused(&mut self, exhausted: bool, again: Timestamp, now: Timestamp) {
        if exhausted && self.word(now).is_none_or(|told| told.word.left > 0) {
            let limit = self.word(now).map_or(0, |told| told.word.limit);
            self.told(Word { limit, left: 0, ends: None }, now);
        }
        let unended = |told: &&mut Told| told.word.left == 0 && told.word.ends.is_none_or(|ends| ends <= now);
        if let Some(told) = self.told.as_mut().filter(unended) {
            told.asked_again = Some(again);
            // Nothing is told meanwhile.
            told.until = told.until.max(again.plus(VENDOR_WORD));
        }
    }

    /// The vendor served a request and tells nothing of what is left.
    pub(crate) fn unknown(&mut self) {
        self.told = None;
    }

    /// How much is left: for backfills, and for what keeps records in step.
    pub(crate) fn quota(&self, now: Timestamp) -> Quota {
        let spent = |priority| self.spent_by(priority, now, |_| true).is_some();
        if spent(Priority::Live) {
            Quota::Exhausted
        } else if spent(Priority::Backfill) {
            Quota::Low
        } else {
            Quota::Ample
        }
    }

    /// How far each window is used.
    pub(crate) fn uses(&self, now: Timestamp) -> Vec<Use> {
        let day = Use { window: Window::Day, used: self.today(now), limit: self.daily };
        let vendor = self.word(now).filter(|told| told.word.limit > 0).map(|told| {
            let Word { limit, left, .. } = told.word;
            Use { window: Window::Vendor, used: limit.saturating_sub(left), limit: Some(limit) }
        });
        std::iter::once(day).chain(vendor).collect()
    }

    /// What was sent today and is noted nowhere.
    pub(crate) fn unnoted(&mut self, now: Timestamp) -> Usage {
        self.turn_day(now);
        Usage { requests: self.unnoted, ..self.used }
    }

    /// It is noted that `all` were sent, `ours` among them, which were not noted before.
    pub(crate) fn noted(&mut self, all: Usage, ours: Usage) {
        if all.day == self.used.day && ours.day == self.used.day {
            self.unnoted = self.unnoted.saturating_sub(ours.requests);
            // A note of before, brought back with an old state, takes nothing back.
            self.used.requests = self.used.requests.max(all.requests.saturating_add(self.unnoted));
        }
    }
}

/// The error of a request for which nothing is left.
pub(crate) fn refusal(spent: Spent, now: Timestamp) -> RemoteError {
    let until = if spent.ends { format!("before {}", spent.until) } else { "before the vendor has some again".to_owned() };
    let text = match spent.window {
        Window::Day => format!("the requests of spec.limits.dailyRequests are used up for this kind of request; nothing is sent {until}"),
        Window::Vendor => format!("the vendor's quota is used up for this kind of request; nothing is sent {until}"),
    };
    let wait = spent.until.since(now).min(ASK_AGAIN);
    RemoteError::new(ErrorClass::Throttled, reason::QUOTA_EXHAUSTED, text).retry_after(Some(wait))
}

/// The error of a request that has to wait until the processes have told each other what they sent.
pub(crate) fn ahead_refusal() -> RemoteError {
    let text =
        "this process's part of the requests that are left of spec.limits.dailyRequests is used up; they are divided anew within seconds";
    RemoteError::new(ErrorClass::Throttled, reason::QUOTA_EXHAUSTED, text).retry_after(Some(DIVIDED_AGAIN))
}

// === What the vendor tells ===

/// What an answer tells of the quota, by the definition's words for it.
pub(crate) fn read(format: &QuotaFormat, answer: &Answer, now: Timestamp) -> Option<Word> {
    let header = |name: &Option<String>| name.as_deref().and_then(|name| answer.header(name)).map(str::trim);
    let number = |name: &Option<String>| header(name).and_then(|text| text.parse::<u64>().ok());
    if let (Some(text), Some(usage)) = (header(&format.header), &format.usage) {
        // `api-usage=18/5000; per-app-api-usage=17/250(appName=x)`
        let own = text.split(';').map(str::trim).find_map(|part| part.strip_prefix(usage.as_str())?.strip_prefix('='))?;
        let (used, limit) = own.split_once('/')?;
        let limit: String = limit.trim().chars().take_while(char::is_ascii_digit).collect();
        let (used, limit) = (used.trim().parse::<u64>().ok()?, limit.parse::<u64>().ok()?);
        return Some(Word { limit, left: limit.saturating_sub(used), ends: None });
    }
    let limit = number(&format.limit)?;
    let left = number(&format.remaining).or_else(|| Some(limit.saturating_sub(number(&format.used)?)))?;
    Some(Word { limit, left, ends: header(&format.reset).and_then(|text| moment(text, now)) })
}

/// When a window ends: in so many seconds, at a second since 1970 (or a millisecond, by its size), or at a date.
fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    const SECONDS: i64 = 1_000_000_000;
    const MILLIS: i64 = SECONDS * 1000;
    match text.parse::<i64>() {
        Ok(number @ MILLIS..) => Some(Timestamp(number)),
        Ok(number @ SECONDS..) => Some(Timestamp(number.saturating_mul(1000))),
        Ok(number) => Some(now.plus(Duration::from_secs(u64::try_from(number).ok()?))),
        Err(_) => Timestamp::parse(text)
            .or_else(|| chrono::DateTime::parse_from_rfc2822(text).ok().map(|date| Timestamp(date.timestamp_millis()))),
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Backfill, Flow, Interactive, Live};
    use super::*;
    use http::HeaderMap;

    /// Noon of a day.
    const NOON: Timestamp = Timestamp(20_000 * DAY + DAY / 2);

    fn budget(daily: Option<u64>, reserve: u32) -> Budget {
        Budget::new(&Limits { requests_per_second: None, concurrency: 1, daily_requests: daily, interactive_reserve_percent: reserve })
    }

    fn after(seconds: u64) -> Timestamp {
        NOON.plus(Duration::from_secs(seconds))
    }

    fn word(limit: u64, left: u64) -> Word {
        Word { limit, left, ends: None }
    }

    /// How many requests each priority gets, one after the other, the least urgent first.
    fn taken(budget: &mut Budget) -> [u64; 4] {
        let mut count = |priority| (0..).take_while(|_| budget.take(priority, NOON).is_ok()).count() as u64;
        [Backfill, Flow, Live, Interactive].map(&mut count)
    }

    #[test]
    fn a_lower_priority_leaves_more_untouched() {
        for (reserve, wanted) in [
            (0, [80, 15, 5, 0]),
            (20, [60, 15, 5, 20]),
            (75, [5, 15, 5, 75]),
            // Something is for all, however much is kept.
            (90, [5, 0, 5, 90]),
        ] {
            assert_eq!(taken(&mut budget(Some(100), reserve)), wanted, "of the day, {reserve} % kept");
            let mut vendor = budget(None, reserve);
            vendor.told(word(100, 100), NOON);
            assert_eq!(taken(&mut vendor), wanted, "of the vendor's word, {reserve} % kept");
        }
        assert_eq!(taken(&mut budget(Some(1), 90)), [1, 0, 0, 0], "the smallest budget is one request");
    }

    #[test]
    fn two_that_share_a_day_take_no_more_than_there_is_left_until_they_have_told_each_other() {
        let mut each = [budget(Some(11), 0), budget(Some(11), 0)];
        let spend = |each: &mut [Budget; 2]| -> u64 {
            let mut sent = 0;
            for budget in each.iter_mut() {
                while !budget.ahead(Interactive, NOON) && budget.take(Interactive, NOON).is_ok() {
                    sent += 1;
                }
            }
            sent
        };
        for (place, budget) in (0..).zip(&mut each) {
            budget.divide(Share { place, of: 2 });
            budget.take(Interactive, NOON).unwrap();
        }
        assert_eq!(spend(&mut each), 9, "six and five of eleven");
        let mut all = Usage::default();
        for budget in &mut each {
            let ours = budget.unnoted(NOON);
            all = all.and(ours);
            budget.noted(all, ours);
        }
        assert_eq!(all.requests, 11);
        each[0].noted(all, Usage { requests: 0, ..all });
        assert!(each.iter().all(|budget| budget.spent(Interactive, NOON).is_some()), "all know that it is used up");
        let mut alone = budget(Some(11), 0);
        alone.divide(Share { place: 1, of: 2 });
        alone.take(Interactive, NOON).unwrap();
        alone.divide(Share::default());
        assert_eq!((0..).take_while(|_| !alone.ahead(Interactive, NOON) && alone.take(Interactive, NOON).is_ok()).count(), 10);
    }

    #[test]
    fn a_day_ends_at_midnight_and_begins_at_nothing() {
        let mut budget = budget(Some(2), 0);
        assert_eq!((budget.take(Live, NOON), budget.take(Live, NOON)), (Ok(()), Ok(())));
        let midnight = Timestamp(20_001 * DAY);
        let spent = Spent { window: Window::Day, until: midnight, ends: true };
        assert_eq!(budget.take(Interactive, midnight.before(Duration::from_millis(1))), Err(spent));
        assert_eq!(budget.quota(NOON), Quota::Exhausted);
        assert_eq!((budget.quota(midnight), budget.uses(midnight)[0].used), (Quota::Ample, 0));
        assert_eq!(budget.take(Live, midnight), Ok(()));
        assert_eq!(budget.take(Live, NOON), Ok(()), "a clock that is stepped back goes on with the day that it knows");
        assert_eq!(budget.take(Live, NOON).map_err(|spent| spent.until), Err(Timestamp(20_002 * DAY)));
    }

    #[test]
    fn a_vendors_word_is_counted_down_and_believed_for_a_while() {
        let mut budget = budget(None, 0);
        budget.told(word(5000, 2), NOON);
        assert_eq!((budget.take(Live, NOON), budget.take(Live, NOON)), (Ok(()), Ok(())));
        let spent = Spent { window: Window::Vendor, until: after(300), ends: false };
        assert_eq!(budget.take(Live, after(299)), Err(spent));
        assert_eq!(budget.take(Live, after(300)), Ok(()), "it is old: nobody knows");
        budget.told(Word { ends: Some(after(4000)), ..word(5000, 0) }, after(300));
        assert_eq!(budget.take(Live, after(3999)), Err(Spent { until: after(4000), ends: true, ..spent }), "a stated end is kept to");
        assert_eq!(budget.take(Live, after(4000)), Ok(()));
        budget.told(word(5000, 0), after(4000));
        budget.told(word(5000, 4000), after(4001));
        assert_eq!(budget.take(Backfill, after(4001)), Ok(()), "the newest word counts");
        budget.told(Word { ends: Some(NOON), ..word(5000, 0) }, after(5000));
        assert!(budget.take(Live, after(5001)).is_err(), "an end that is over states nothing");
    }

    #[test]
    fn of_two_quotas_the_one_for_longer_is_told() {
        let mut budget = budget(Some(1), 0);
        budget.told(word(100, 1), NOON);
        budget.count(NOON);
        assert_eq!(budget.spent(Live, NOON).map(|spent| spent.window), Some(Window::Day));
        let late = Timestamp(20_001 * DAY).before(Duration::from_secs(1));
        budget.told(word(100, 0), late);
        assert_eq!(budget.spent(Live, late).map(|spent| spent.window), Some(Window::Vendor));
    }

    #[test]
    fn after_a_refusal_the_vendor_is_asked_again_when_the_wait_is_over() {
        let mut budget = budget(None, 0);
        budget.told(word(5000, 0), NOON);
        budget.refused(true, after(15), NOON);
        assert!(budget.take(Live, after(14)).is_err());
        assert_eq!(budget.take(Live, after(15)), Ok(()));
        assert_eq!(budget.quota(after(15)), Quota::Exhausted, "until it says otherwise");
        budget.told(word(5000, 4000), after(16));
        assert_eq!(budget.quota(after(16)), Quota::Ample);

        budget.refused(false, after(20), after(17));
        assert!(budget.take(Live, after(20)).is_ok() && budget.spent(Backfill, after(20)).is_none(), "a rate is no quota");
        budget.told(Word { ends: Some(after(90)), ..word(5000, 0) }, after(30));
        budget.refused(true, after(40), after(30));
        assert!(budget.take(Live, after(89)).is_err(), "a stated end is kept to");

        let mut silent = self::budget(None, 0);
        silent.refused(false, after(15), NOON);
        assert_eq!(silent.quota(NOON), Quota::Ample, "too fast is not too much");
        silent.refused(true, after(15), NOON);
        assert_eq!(silent.quota(NOON), Quota::Exhausted, "it may say so by the refusal alone");
        assert_eq!(silent.uses(NOON).len(), 1, "of how many, nobody knows");
        silent.unknown();
        assert_eq!(silent.quota(NOON), Quota::Ample);
    }

    #[test]
    fn the_quota_is_low_where_backfills_wait() {
        for (left, quota) in [(5000, Quota::Ample), (1001, Quota::Ample), (1000, Quota::Low), (1, Quota::Low), (0, Quota::Exhausted)] {
            let mut budget = budget(None, 0);
            budget.told(word(5000, left), NOON);
            assert_eq!(budget.quota(NOON), quota, "{left}");
        }
        let mut budget = budget(Some(100), 10);
        for _ in 0..90 {
            budget.count(NOON);
        }
        assert_eq!(budget.quota(NOON), Quota::Exhausted, "but for what is kept");
        assert_eq!(budget.take(Interactive, NOON), Ok(()));
    }

    #[test]
    fn what_was_counted_is_noted_once_and_goes_on_after_a_restart() {
        let mut first = budget(Some(10), 0);
        (0..4).for_each(|_| first.count(NOON));
        let fresh = first.unnoted(NOON);
        assert_eq!(fresh, Usage { day: 20_000, requests: 4 });
        // One more is sent while the note is written, over three that another process had noted.
        first.count(NOON);
        let note = Usage { day: 20_000, requests: 3 }.and(fresh);
        first.noted(note, fresh);
        assert_eq!((first.today(NOON), first.unnoted(NOON).requests), (8, 1));

        let mut next = budget(Some(10), 0);
        next.count(NOON);
        let fresh = next.unnoted(NOON);
        next.noted(note.and(fresh), fresh);
        assert_eq!(next.today(NOON), 8);
        let tomorrow = after(24 * 3600);
        assert_eq!(next.unnoted(tomorrow), Usage { day: 20_001, requests: 0 });
        next.count(tomorrow);
        next.noted(Usage { day: 20_000, requests: 10 }, fresh);
        assert_eq!(next.today(tomorrow), 1, "a note of yesterday says nothing of today");
        assert_eq!(Usage { day: 20_000, requests: 9 }.and(next.unnoted(tomorrow)), Usage { day: 20_001, requests: 1 });
        assert_eq!(Usage { day: 20_002, requests: 9 }.and(next.unnoted(tomorrow)), Usage { day: 20_002, requests: 9 });
    }

    #[test]
    fn vendors_tell_what_is_left_in_their_ways() {
        let told = |format: &str, headers: &[(&'static str, &str)]| {
            let format: QuotaFormat = serde_saphyr::from_str(format).unwrap();
            let map: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            read(&format, &Answer { status: 200, headers: map, body: Vec::new() }, NOON)
        };
        let salesforce = "{header: Sforce-Limit-Info, usage: api-usage}";
        for (text, wanted) in [
            ("api-usage=18/5000", Some(word(5000, 4982))),
            ("per-app-api-usage=17/250(appName=x); api-usage= 5001/5000(soft)", Some(word(5000, 0))),
            ("per-app-api-usage=17/250(appName=x)", None),
            ("api-usage=many/5000", None),
            ("", None),
        ] {
            assert_eq!(told(salesforce, &[("sforce-limit-info", text)]), wanted, "{text}");
        }
        let limit = ("x-limit", "650000");
        assert_eq!(told("{limit: X-Limit, remaining: X-Left}", &[limit, ("x-left", "12")]), Some(word(650_000, 12)));
        assert_eq!(told("{limit: X-Limit, used: X-Used}", &[limit, ("x-used", "12")]), Some(word(650_000, 649_988)));
        assert_eq!(told("{limit: X-Limit, used: X-Used}", &[limit]), None);
        assert_eq!(told("{limit: X-Limit, used: X-Used}", &[("x-used", "12")]), None);
        for (text, ends) in [
            ("90", Some(after(90))),
            ("1728000000", Some(Timestamp(1_728_000_000_000))),
            ("1728000000500", Some(Timestamp(1_728_000_000_500))),
            ("Thu, 01 Jan 1970 00:01:00 GMT", Some(Timestamp(60_000))),
            ("1970-01-01T00:01:00Z", Some(Timestamp(60_000))),
            ("soon", None),
            ("-1", None),
        ] {
            let told = told("{limit: X-Limit, remaining: X-Left, reset: X-Reset}", &[limit, ("x-left", "1"), ("x-reset", text)]);
            assert_eq!(told, Some(Word { ends, ..word(650_000, 1) }), "{text}");
        }
    }
}
