//! How far a long command is: a bar on a terminal, a line a second elsewhere.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::output::{self, OutputError, grouped};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the lines of a [`Progress`] go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The command prints nothing else there, or tells a story.
    Stdout,
    /// Standard output belongs to the result.
    Stderr,
}

/// Counts up to a total, visibly.
pub(crate) struct Progress {
    stream: Stream,
    started: Instant,
    counting: Option<Counting>,
}

/// While there is something to count.
struct Counting {
    total: u64,
    since: Instant,
    last_line: Instant,
    /// On a terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Counts nothing yet; lines carry the time since now.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, started: Instant::now(), counting: None }
    }

    /// When this began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Begins to count up to `total`.
    pub(crate) fn begin(&mut self, total: u64) {
        let now = Instant::now();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("  {bar:40} {human_pos} of {human_len}, {rate}, {eta} left")
            {
                let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
                    // A bar that cannot be drawn is no reason to stop.
                    let _ = write!(text, "{}/s", grouped(state.per_sec() as u64));
                };
                bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
            }
            bar
        });
        // A terminal that cannot move its cursor gets lines, as a file does.
        let bar = bar.filter(|bar| !bar.is_hidden());
        self.counting = Some(Counting { total, since: now, last_line: now, bar });
    }

    /// Shows that `done` of the total are done.
    pub(crate) fn reach(&mut self, done: u64) -> Result<(), OutputError> {
        let Some(counting) = &mut self.counting else { return Ok(()) };
        if let Some(bar) = &counting.bar {
            bar.set_position(done);
            return Ok(());
        }
        if counting.last_line.elapsed() < LINE_INTERVAL {
            return Ok(());
        }
        counting.last_line = Instant::now();
        let rate = done as f64 / counting.since.elapsed().as_secs_f64();
        let line = format!("{} of {} written, {}/s", grouped(done), grouped(counting.total), grouped(rate as u64));
        self.line(&line)
    }

    /// Ends counting and clears the bar.
    pub(crate) fn end(&mut self) {
        if let Some(Counting { bar: Some(bar), .. }) = self.counting.take() {
            bar.finish_and_clear();
        }
    }

    /// Writes a line with the time, above the bar if there is one.
    ///
    /// # Errors
    /// If it belongs to standard output and cannot be written there.
    pub(crate) fn line(&self, text: &str) -> Result<(), OutputError> {
        let line = format!("{:6.2} s  {text}\n", self.started.elapsed().as_secs_f64());
        self.raw(&line)
    }

    /// Writes text without the time.
    ///
    /// # Errors
    /// If it belongs to standard output and cannot be written there.
    pub(crate) fn raw(&self, text: &str) -> Result<(), OutputError> {
        let write = || match self.stream {
            Stream::Stdout => output::write(text.as_bytes()),
            Stream::Stderr => {
                // Progress that nobody sees is no reason to stop what makes it.
                let _ = io::stderr().write_all(text.as_bytes());
                Ok(())
            }
        };
        match &self.counting {
            Some(Counting { bar: Some(bar), .. }) => bar.suspend(write),
            Some(Counting { bar: None, .. }) | None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
