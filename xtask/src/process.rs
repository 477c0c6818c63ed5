//! Runs programs. What they print is shown as it comes, and can be read on the way.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::output::say;

/// Longer than any healthy step takes on a slow machine. Nobody watches a run of continuous
/// integration, so somebody else has to end a program that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// A program with its arguments, not yet started. It gets no standard input: a step that waits
/// for a key would wait for ever.
pub(crate) struct Program {
    command: Command,
    shown: String,
    time_limit: Duration,
}

impl Program {
    /// The cargo that runs us, in the folder `directory`.
    pub(crate) fn cargo(directory: &Path) -> Self {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::new(&cargo, "cargo", directory)
    }

    /// The program at `path`.
    pub(crate) fn at(path: &Path, directory: &Path) -> Self {
        Self::new(path.as_os_str(), &path.display().to_string(), directory)
    }

    fn new(program: &OsStr, shown: &str, directory: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(directory).stdin(Stdio::null());
        // `cargo run` describes *our* package in the environment. Passed on, it would look to build
        // scripts like a change of theirs, and TLS would be compiled anew in every run.
        for (name, _) in env::vars_os() {
            let described = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
            });
            if described {
                command.env_remove(name);
            }
        }
        Self { command, shown: shown.to_owned(), time_limit: TIME_LIMIT }
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(argument.as_ref());
            self.command.arg(argument.as_ref());
        }
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        self.shown.insert_str(0, &format!("{name}={} ", value.to_string_lossy()));
        self.command.env(name, value);
        self
    }

    /// Ends the program if it takes longer than this, instead of an hour.
    pub(crate) fn time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Runs the program, shows what it prints and gives every line to `on_line`.
    ///
    /// # Errors
    /// If it cannot be started, takes too long, or ends with a status other than 0.
    pub(crate) fn watch(mut self, mut on_line: impl FnMut(&str)) -> Result<()> {
        say(format_args!("$ {self}"));
        let status = self.run(|line| {
            say(line);
            on_line(line);
        })?;
        self.succeeded(status)
    }

    /// Runs the program and shows what it prints.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub(crate) fn show(self) -> Result<()> {
        self.watch(|_| {})
    }

    /// Runs the program and returns what it prints, without showing it.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub(crate) fn capture(mut self) -> Result<String> {
        let mut output = String::new();
        let status = self.run(|line| {
            output.push_str(line);
            output.push('\n');
        })?;
        self.succeeded(status)?;
        Ok(output)
    }

    fn run(&mut self, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{}` could not be started; is it installed?", self.shown))?;
        let stdout = child.stdout.take().context("a piped child has no standard output")?;
        let lines = lines(stdout);
        let deadline = Instant::now() + self.time_limit;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => on_line(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return self.end(&mut child),
            }
        }
        child.wait().with_context(|| format!("cannot wait for `{self}`"))
    }

    /// Ends a child that takes too long. Its reader is left behind: a grandchild may still hold the
    /// pipe open.
    fn end(&self, child: &mut Child) -> Result<ExitStatus> {
        child.kill().with_context(|| format!("cannot end `{self}`"))?;
        child.wait().with_context(|| format!("cannot wait for `{self}`"))?;
        bail!("`{self}` was ended: it took more than {} s", self.time_limit.as_secs())
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        bail!("`{self}` failed: {status}")
    }
}

/// The command line, as it can be typed.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Reads lines on a thread of their own, so that waiting for the next one can time out.
fn lines(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // A read error means the same as the end: the exit status tells the rest.
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::at(Path::new("sh"), Path::new(".")).args(["-c", script])
    }

    #[test]
    fn output_comes_line_by_line_even_without_a_last_newline() {
        assert_eq!(shell("printf 'one\\ntwo'").capture().ok().as_deref(), Some("one\ntwo\n"));
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let error = shell("exit 3").capture().expect_err("because it exits with 3");
        assert_eq!(error.to_string(), "`sh -c exit 3` failed: exit status: 3");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = shell("echo begun; exec sleep 600").time_limit(Duration::from_millis(50)).capture();
        let error = error.expect_err("because it sleeps for ten minutes");
        assert!(error.to_string().contains("was ended: it took more than"), "{error}");
    }

    #[test]
    fn there_is_nothing_to_read_on_standard_input() {
        assert_eq!(shell("cat; echo end").capture().ok().as_deref(), Some("end\n"));
    }
}
