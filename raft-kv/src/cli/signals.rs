//! Requests to stop, from a terminal or from a supervisor.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to stop. From when this exists on, they no longer kill it.
pub(crate) struct StopSignals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-\\: of somebody whose patience with Ctrl-C has ended.
    Quit,
    /// What `kill` and supervisors send.
    Terminate,
    /// The terminal was closed.
    Hangup,
}

impl StopSignals {
    /// Takes the signals over. Needs a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.quit.recv() => Stop::Quit,
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.hangup.recv() => Stop::Hangup,
        }
    }
}

impl Stop {
    /// The name, as in `man 7 signal`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        }
    }

    /// The exit status by which a shell would report this signal; it tells callers such as make
    /// and xargs that the user wants to stop.
    pub(crate) fn exit_status(self) -> u8 {
        128 + match self {
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Terminate => 15,
            Self::Hangup => 1,
        }
    }
}
