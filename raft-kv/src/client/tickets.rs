//! The client's side of a session: which numbers its writes have, and which still wait.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::protocol::Ticket;
use crate::session::{Sequence, SessionId, SessionLimits};

/// The session that all writes of a client go through, if one is open.
pub(super) struct Sessions {
    current: tokio::sync::Mutex<Option<Arc<OpenSession>>>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { current: tokio::sync::Mutex::new(None) }
    }

    /// The current session, locked while whoever has it opens one. `None` when the time is up.
    pub(super) async fn lock_until(
        &self,
        deadline: Instant,
    ) -> Option<tokio::sync::MutexGuard<'_, Option<Arc<OpenSession>>>> {
        timeout_at(deadline, self.current.lock()).await.ok()
    }

    /// The servers do not know `session` any more: the next write opens another one.
    pub(super) async fn discard(&self, session: &Arc<OpenSession>, deadline: Instant) {
        // Whoever holds the lock for long opens a session, so this one is gone already.
        let Some(mut current) = self.lock_until(deadline).await else { return };
        // Another write may have replaced it already.
        if current.as_ref().is_some_and(|open| Arc::ptr_eq(open, session)) {
            *current = None;
        }
    }

    pub(super) async fn id(&self) -> Option<SessionId> {
        self.current.lock().await.as_ref().map(|open| open.id)
    }
}

/// A session that the cluster has opened for this client.
pub(super) struct OpenSession {
    id: SessionId,
    book: Mutex<Book>,
    /// Told whenever a write stops waiting, as that may move the window.
    released: Notify,
}

/// Invariant: every number in `waiting` is below `next`.
struct Book {
    next: Sequence,
    waiting: BTreeSet<Sequence>,
}

impl Book {
    fn floor(&self) -> Sequence {
        self.waiting.first().copied().unwrap_or(self.next)
    }
}

impl OpenSession {
    pub(super) fn new(id: SessionId) -> Self {
        let book = Book { next: Sequence::FIRST, waiting: BTreeSet::new() };
        Self { id, book: Mutex::new(book), released: Notify::new() }
    }

    /// The number for the next write, once the window has room for it. `None` when the time is up.
    pub(super) async fn take_place(self: &Arc<Self>, deadline: Instant) -> Option<Place> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // From here on no release is missed, even one between the look and the wait.
            released.as_mut().enable();
            if let Some(sequence) = self.try_take() {
                return Some(Place { session: self.clone(), sequence });
            }
            timeout_at(deadline, released).await.ok()?;
        }
    }

    fn try_take(&self) -> Option<Sequence> {
        let mut book = self.lock();
        let sequence = book.next;
        if sequence >= book.floor().plus(SessionLimits::DEFAULT.window) {
            return None;
        }
        book.next = sequence.next();
        book.waiting.insert(sequence);
        Some(sequence)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while the book is half changed.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of one write. Dropping it says that nobody waits for the answer any more, be it
/// because it came or because its caller gave up.
pub(super) struct Place {
    session: Arc<OpenSession>,
    sequence: Sequence,
}

impl Place {
    /// What to send along with the write, as of now.
    pub(super) fn ticket(&self) -> Ticket {
        let acknowledged = self.session.lock().floor();
        Ticket { session: self.session.id, sequence: self.sequence, acknowledged }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.lock().waiting.remove(&self.sequence);
        self.session.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<OpenSession> {
        Arc::new(OpenSession::new(SessionId::new(1)))
    }

    fn take(session: &Arc<OpenSession>) -> Option<Place> {
        session.try_take().map(|sequence| Place { session: session.clone(), sequence })
    }

    #[test]
    fn the_floor_is_the_lowest_write_that_waits() {
        let session = session();
        let (first, second, third) = (take(&session), take(&session), take(&session));
        let floor = |place: &Option<Place>| place.as_ref().map(|place| place.ticket().acknowledged.as_u64());
        assert_eq!(floor(&third), Some(1));
        drop(second);
        assert_eq!(floor(&third), Some(1));
        drop(first);
        assert_eq!(floor(&third), Some(3));
        drop(third);
        assert_eq!(floor(&take(&session)), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_window_waits_for_its_oldest_write() {
        let session = session();
        let window = SessionLimits::DEFAULT.window as usize;
        let mut places: Vec<Place> = std::iter::from_fn(|| take(&session)).take(window + 1).collect();
        assert_eq!(places.len(), window);
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        drop(places.pop());
        assert!(session.take_place(deadline).await.is_none(), "the newest write does not hold the window back");
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        let (place, ()) = tokio::join!(session.take_place(deadline), async { drop(places.remove(0)) });
        assert_eq!(place.map(|place| place.sequence.as_u64()), Some(SessionLimits::DEFAULT.window + 1));
    }
}
