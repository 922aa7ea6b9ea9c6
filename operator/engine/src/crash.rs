//! Named points where a crash must lose nothing. Builds with debug assertions end the process without further ado when
//! `FAIRLEAD_CRASH_AT=<point>:<nth pass>` names one, or tell whoever listens on the thread; release builds contain none of this.

/// Every point, so that tests can go through them all.
pub const POINTS: [&str; 9] = [
    "source.read",
    "source.absorbed",
    "source.merging",
    "lane.claimed",
    "lane.intended",
    "lane.written",
    "lane.created",
    "lane.settled",
    "lane.looked-up",
];

/// The same of writes by API callers.
pub const API_POINTS: [&str; 2] = ["api.written", "api.absorbed"];

/// Passes the point `name`.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Tells `listener` of every point that this thread passes from now on, so that a simulation can have a process of its own die there.
#[cfg(debug_assertions)]
pub fn listen(listener: impl Fn(&'static str) + 'static) {
    armed::LISTENER.set(Some(Box::new(listener)));
}

#[cfg(debug_assertions)]
mod armed {
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    type Listener = Box<dyn Fn(&'static str)>;

    thread_local! {
        pub(super) static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
    }

    pub(super) fn pass(name: &'static str) {
        debug_assert!(super::POINTS.contains(&name) || super::API_POINTS.contains(&name), "unlisted crash point {name}");
        LISTENER.with_borrow(|listener| {
            if let Some(listener) = listener {
                listener(name);
            }
        });
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("FAIRLEAD_CRASH_AT").ok()?;
            let (point, nth) = text.split_once(':').unwrap_or((&text, "1"));
            Some((point.to_owned(), AtomicU64::new(nth.parse().unwrap_or(1))))
        });
        if let Some((point, left)) = armed
            && point == name
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }
}
