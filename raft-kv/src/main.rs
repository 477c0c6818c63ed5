//! The `raft-kv` program: parses what was typed, runs it, and says how it ended.
#![forbid(unsafe_code)]

mod cli;
mod demo;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use crate::cli::arguments::{Arguments, Command, Format};
use crate::cli::exit::Exit;
use crate::cli::{admin, data, init, json_error, load, logging, member, output, serve, status};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let default = match arguments.command {
        Command::Serve(_) | Command::Join(_) => logging::Default::Info,
        Command::Demo(_)
        | Command::Init(_)
        | Command::Put(_)
        | Command::Get(_)
        | Command::Del(_)
        | Command::Range(_)
        | Command::Load(_)
        | Command::Status(_)
        | Command::Member(_)
        | Command::Transfer(_)
        | Command::Snapshot(_) => logging::Default::Silent,
    };
    logging::start(default, arguments.global.verbose);
    match run(&arguments.command) {
        Ok(exit) => exit,
        Err(error) if Exit::is_closed_output(&error) => Exit::Done.into(),
        Err(error) => {
            // Nothing can be done about a closed standard error, and nobody is there to tell.
            let _ = writeln!(io::stderr(), "error: {}", Exit::explain(&error));
            if arguments.command.output() == Some(Format::Json) {
                // The message was told already, and this cannot be told by a broken output.
                let _ = output::write_json(&json_error::document(&error));
            }
            Exit::of(&error).into()
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let exit = match command {
        Command::Demo(demo) => return runtime()?.block_on(demo::run(demo)),
        Command::Serve(serve) => runtime()?.block_on(serve::serve(serve))?,
        Command::Init(init) => init::init(init)?,
        Command::Put(put) => runtime()?.block_on(data::put(put))?,
        Command::Get(get) => runtime()?.block_on(data::get(get))?,
        Command::Del(del) => runtime()?.block_on(data::del(del))?,
        Command::Range(range) => runtime()?.block_on(data::range(range))?,
        Command::Load(load) => runtime()?.block_on(load::load(load))?,
        Command::Status(status) => runtime()?.block_on(status::status(status))?,
        Command::Join(join) => runtime()?.block_on(member::join(join))?,
        Command::Member(member) => runtime()?.block_on(member::member(member))?,
        Command::Transfer(transfer) => runtime()?.block_on(admin::transfer(transfer))?,
        Command::Snapshot(snapshot) => runtime()?.block_on(admin::snapshot(snapshot))?,
    };
    Ok(exit.into())
}

/// One thread: a request crosses no thread between its socket and the state machine, which is
/// faster than anything that more threads could save. Only the log's disk has a thread of its own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
