//! Pseudo-terminals: what the program takes for a terminal, and the test reads and closes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal that is nobody's controlling terminal: closing it sends no signal.
pub(crate) struct Terminal {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Terminal {
    /// Opens one of this width.
    pub(crate) fn open(columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let open = || {
            let outer = openpt(flags)?;
            grantpt(&outer)?;
            unlockpt(&outer)?;
            tcsetwinsize(&outer, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
            let inner = ioctl_tiocgptpeer(&outer, flags)?;
            rustix::io::Result::Ok(Self { outer, inner })
        };
        open().expect("because tests run on Linux with /dev/pts")
    }

    /// The end that the program gets.
    pub(crate) fn inner(&self) -> Stdio {
        self.inner.try_clone().expect("because descriptors are not used up").into()
    }

    /// The end that the test keeps, once the program has got its own. Reading from it fails when
    /// the program has ended; dropping it closes the terminal.
    pub(crate) fn into_outer(self) -> File {
        self.outer.into()
    }
}
