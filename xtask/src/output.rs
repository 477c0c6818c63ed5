//! Standard output, into which a reader may stop looking at any time.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line. When whoever read it has gone (`cargo xtask ci | head`), the work goes on: its
/// exit status still tells how it ended.
pub(crate) fn say(line: impl Display) {
    if cfg!(test) {
        // The harness captures this alone; results of make-believe tests must not reach whoever
        // counts the real ones.
        println!("{line}");
    } else {
        // There is nobody left to tell about an error here.
        let _ = writeln!(io::stdout(), "{line}");
    }
}
