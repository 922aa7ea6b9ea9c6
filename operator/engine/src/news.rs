//! A value of which the newest counts, for many who wait for the next one.
//!
//! It is [`tokio::sync::watch`], but for the order in which those who wait are woken: that one draws it from a generator of its own, so that a run
//! of the simulation would not repeat itself; here it is the order in which they began to wait.

use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Whoever tells.
pub(crate) struct Teller<T> {
    /// Taken when it ends.
    newest: Option<watch::Sender<T>>,
    told: Arc<Notify>,
}

/// Whoever listens.
#[derive(Clone)]
pub(crate) struct News<T> {
    newest: watch::Receiver<T>,
    told: Arc<Notify>,
}

/// Both ends, for a first value that nobody has to be woken for.
pub(crate) fn channel<T>(first: T) -> (Teller<T>, News<T>) {
    let (tell, newest) = watch::channel(first);
    let told = Arc::new(Notify::new());
    (Teller { newest: Some(tell), told: Arc::clone(&told) }, News { newest, told })
}

impl<T> Teller<T> {
    /// Tells a value, if `change` made it another one.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut T) -> bool) {
        if self.newest.as_ref().is_some_and(|newest| newest.send_if_modified(change)) {
            self.told.notify_waiters();
        }
    }

    /// Waits until nobody listens any more.
    pub(crate) async fn closed(&self) {
        if let Some(newest) = &self.newest {
            newest.closed().await;
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        drop(self.newest.take());
        self.told.notify_waiters();
    }
}

impl<T> News<T> {
    /// The newest value.
    pub(crate) fn newest(&self) -> impl Deref<Target = T> {
        self.newest.borrow()
    }

    /// The newest value, which this one does not wait for any more.
    pub(crate) fn take(&mut self) -> impl Deref<Target = T> {
        self.newest.borrow_and_update()
    }

    /// Waits for a value that this one has not taken; `false` when there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // What is told from here on is not missed.
            told.as_mut().enable();
            match self.newest.has_changed() {
                Ok(true) => {
                    self.newest.mark_unchanged();
                    return true;
                }
                Ok(false) => told.await,
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn who_began_to_wait_first_is_woken_first_and_nobody_waits_for_one_who_has_ended() {
        for _ in 0..20 {
            let (tell, news) = channel(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..12)
                .map(|number| {
                    let (mut news, order) = (news.clone(), Arc::clone(&order));
                    tokio::spawn(async move {
                        assert!(news.changed().await);
                        order.lock().unwrap().push((number, *news.newest()));
                        assert!(!news.changed().await);
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            tell.tell(|_| false);
            tokio::task::yield_now().await;
            tell.tell(|value| {
                *value = 7;
                true
            });
            tokio::task::yield_now().await;
            drop((tell, news));
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.lock().unwrap(), (0..12).map(|number| (number, 7)).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_was_told_before_somebody_waits_is_not_missed() {
        let (tell, mut news) = channel(0);
        let told = |value| tell.tell(|newest| std::mem::replace(newest, value) != value);
        told(1);
        assert!(news.changed().await);
        told(2);
        assert_eq!(*news.take(), 2);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), news.changed());
        assert!(waits.await.is_err(), "it was taken");
    }
}
