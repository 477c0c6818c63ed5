//! A panic inside quinn ends a connection or a socket, never the process (contract X1).
//!
//! quinn locks a mutex with `unwrap`. Once a panic has poisoned it, every later call on the same
//! connection panics too, the destructors of its handles included; and a destructor that panics
//! while another panic unwinds aborts the process. So quinn's own tasks are polled behind
//! [`catch_unwind`], and our handles are forgotten instead of dropped while a panic unwinds.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A handle of quinn's, which is leaked if its owner panics.
#[derive(Debug)]
pub(super) struct Held<T>(Option<T>);

impl<T> Held<T> {
    pub(super) fn new(handle: T) -> Self {
        Self(Some(handle))
    }

    /// For the calls that consume it.
    pub(super) fn into_inner(mut self) -> T {
        self.0.take().expect("because whoever takes it out owns it")
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("because whoever takes it out owns it")
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("because whoever takes it out owns it")
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Tokio for quinn, with its tasks contained and counted: they can be waited for, so that a
/// closed endpoint has given its port back.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    running: Mutex<JoinSet<()>>,
    sockets: Mutex<Vec<Weak<dyn AsyncUdpSocket>>>,
    panicked: Arc<watch::Sender<bool>>,
}

impl Drivers {
    /// Returns when one of quinn's tasks has panicked. It cannot be told which connection it
    /// belonged to, nor whether it was the socket's own; whoever still waits for it would wait for ever.
    pub(super) async fn panicked(&self) {
        // The sender lives as long as `self`.
        let _ = self.panicked.subscribe().wait_for(|panicked| *panicked).await;
    }

    pub(super) fn has_panicked(&self) -> bool {
        *self.panicked.borrow()
    }

    /// Stops what quinn has left running.
    pub(super) async fn stop(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.abort_all();
        while running.join_next().await.is_some() {}
    }

    /// Waits until the port is given back. Every stream refers to the socket, and the last ones
    /// go only when the runtime comes to their tasks. After a panic some never go.
    pub(super) async fn released(&self) {
        while !self.has_panicked() && self.holds_socket() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn holds_socket(&self) -> bool {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().any(|socket| socket.strong_count() > 0)
    }
}

impl Runtime for Drivers {
    fn new_timer(&self, deadline: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(deadline)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(Contained { future: Some(future), panicked: self.panicked.clone() });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&socket));
        Ok(socket)
    }
}

/// A task of quinn's that ends when it panics.
struct Contained {
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    panicked: Arc<watch::Sender<bool>>,
}

impl Future for Contained {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(future) = self.future.as_mut() else { return Poll::Ready(()) };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                self.future = None;
                Poll::Ready(())
            }
            Err(panic) => {
                tracing::error!(panic = panic_message(&*panic), "a task of the QUIC library panicked; it is given up");
                // Its destructor would lock the mutex that is poisoned now.
                std::mem::forget(self.future.take());
                self.panicked.send_replace(true);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // Stopped from outside, possibly with a poisoned mutex: what panics here ends here.
        if let Some(future) = self.future.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(no message)",
    }
}

/// What a task's failure said.
pub(super) fn failure(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic_message(&*panic).to_owned(),
        Err(_) => "it was stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, as quinn's handles do once their mutex is poisoned.
    struct Fragile;

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("the destructor's own panic");
        }
    }

    #[test]
    fn a_handle_is_leaked_by_a_panic_that_it_would_turn_into_an_abort() {
        let caught = catch_unwind(|| {
            let _handle = Held::new(Fragile);
            panic!("the first panic");
        });
        let panic = caught.expect_err("because it panicked");
        assert_eq!(panic_message(&*panic), "the first panic");
    }

    #[tokio::test]
    async fn a_task_of_quinn_that_panics_ends_and_is_noticed() {
        let drivers = Drivers::default();
        drivers.spawn(Box::pin(async {
            let _state = Held::new(Fragile);
            panic!("inside quinn");
        }));
        drivers.panicked().await;
        assert!(drivers.has_panicked());
        drivers.stop().await;
    }

    #[tokio::test]
    async fn stopping_survives_what_panics_when_it_is_dropped() {
        let drivers = Drivers::default();
        let fragile = Fragile;
        drivers.spawn(Box::pin(async move {
            let _fragile = fragile;
            std::future::pending::<()>().await;
        }));
        tokio::task::yield_now().await;
        drivers.stop().await;
        assert!(!drivers.has_panicked());
    }
}
