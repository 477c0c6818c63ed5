//! Requests to stop, from a terminal or from a supervisor.

use std::{fs, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to stop. From when this exists on, they no longer kill it.
pub(crate) struct StopSignals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    /// `None`: it is ignored, as `nohup` arranges, and stays so.
    hangup: Option<Signal>,
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
            hangup: if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.quit.recv() => Stop::Quit,
            _ = self.terminate.recv() => Stop::Terminate,
            () = received(self.hangup.as_mut()) => Stop::Hangup,
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process had it ignore SIGHUP. Taking a signal over ends that, and
/// asking for it with `sigaction` needs unsafe code; the kernel tells it in a file as well.
fn is_hangup_ignored() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Reads `SigIgn`: hexadecimal, bit 0 for signal 1, which is SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_read_from_the_mask() {
        let status = |mask: &str| format!("Name:\traft-kv\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000000001")));
        assert!(ignores_hangup(&status("0000000000001007")));
        assert!(!ignores_hangup(&status("0000000000001006")));
        assert!(!ignores_hangup(&status("?")) && !ignores_hangup(""));
    }
}
