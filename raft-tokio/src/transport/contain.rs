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
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::sync::Notify;
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
    panicked: Arc<Notify>,
}

impl Drivers {
    /// Returns when one of quinn's tasks has panicked. It cannot be told which connection it
    /// belonged to, nor whether it was the socket's own; whoever still waits for it would wait for ever.
    pub(super) async fn panicked(&self) {
        self.panicked.notified().await;
    }

    /// Stops what quinn has left running, and with it gives back the socket.
    pub(super) async fn stop(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.abort_all();
        while running.join_next().await.is_some() {}
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
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// A task of quinn's that ends when it panics.
struct Contained {
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    panicked: Arc<Notify>,
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
                self.panicked.notify_one();
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
