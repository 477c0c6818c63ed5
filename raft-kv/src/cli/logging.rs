//! Where log lines go: to standard error, and only as many as were asked for.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::EnvFilter;

/// How much is logged when nothing was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// Client commands: their output is their message.
    Silent,
    /// Servers: what an operator wants to know of.
    Info,
}

/// Starts logging to standard error, by `-v` flags or, where there are none, by `RUST_LOG`.
pub(crate) fn start(default: Default, verbose: u8) {
    let filter = match (verbose, std::env::var("RUST_LOG")) {
        (0, Ok(directives)) if !directives.is_empty() => EnvFilter::new(directives),
        (verbose, _) => EnvFilter::new(directives(default, verbose)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(verbose > 0)
        // A log that cannot be written, on a full disk or to a closed terminal, must not panic.
        .log_internal_errors(false)
        .init();
}

/// Our own crates one level above the libraries below them, whose details rarely help.
fn directives(default: Default, verbose: u8) -> &'static str {
    match (default, verbose) {
        (Default::Silent, 0) => "off",
        (Default::Silent, 1) | (Default::Info, 0) => "warn,raft_kv=info,raft_tokio=info",
        (Default::Silent, 2) | (Default::Info, 1) => "info,raft_kv=debug,raft_tokio=debug",
        (Default::Silent | Default::Info, _) => "debug,raft_kv=trace,raft_tokio=trace",
    }
}
