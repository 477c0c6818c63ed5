//! `load`: stores the lines of a file.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use raft_kv::key::Key;
use raft_kv::load::{LoadError, Pairs};
use serde_json::{Value, json};

use super::arguments::{Format, Load};
use super::connect;
use super::exit::Exit;
use super::output::{self, counted, grouped};
use super::progress::{Progress, Stream};
use super::writers::{WriteFailure, Writers};

/// Stores the lines of a file.
pub(crate) async fn load(arguments: &Load) -> anyhow::Result<Exit> {
    let pairs = read_pairs(&arguments.file)?;
    let client = connect::client(&arguments.client)?;
    let mut progress = Progress::new(Stream::Stderr);
    let mut writers = Writers::begin(&client, &pairs, usize::from(arguments.inflight), pairs.len());
    progress.begin(pairs.len() as u64);
    let begun = Instant::now();
    let (mut written, mut unknown) = (0, 0);
    let mut revision = None;
    let mut failure: Option<WriteFailure> = None;
    while let Some(outcome) = writers.next().await {
        match outcome {
            Ok(acknowledged) => {
                written += 1;
                revision = revision.max(Some(acknowledged.revision.as_u64()));
                progress.reach(written)?;
            }
            Err(failed) => {
                unknown += u64::from(failed.is_unknown());
                let heavier = failure.as_ref().is_none_or(|failure| failed.weight() > failure.weight());
                failure = if heavier { Some(failed) } else { failure };
            }
        }
    }
    progress.end();
    if let Some(cause) = failure {
        let (file, lines) = (arguments.file.display().to_string(), pairs.len() as u64);
        return Err(LoadFailure { file, lines, stored: written, unknown, cause }.into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    // Never more than fits: a file of 2^64 lines does not exist.
    let per_second = (written as f64 / seconds.max(1e-9)) as u64;
    match arguments.output.output {
        Format::Plain => {
            let keys = counted(written, "key");
            output::write_line(&format!("{keys} stored in {seconds:.2} s, {} a second", grouped(per_second)))?;
        }
        Format::Table => {
            let row = vec![written.to_string(), format!("{seconds:.2}"), per_second.to_string()];
            let header = ["KEYS", "SECONDS", "KEYS/S"];
            output::write_line(&output::table(&header, &header, [row]))?;
        }
        Format::Json => {
            let document =
                json!({ "stored": written, "seconds": seconds, "per_second": per_second, "revision": revision });
            output::write_json(&document)?;
        }
    }
    Ok(Exit::Done)
}

/// A file that was not stored as a whole.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of {} of {file} stored, {} perhaps stored, {} not; loading it again is harmless",
    grouped(*stored), counted(*lines, "line"), grouped(*unknown), grouped(self.missing())
)]
pub(crate) struct LoadFailure {
    file: String,
    lines: u64,
    stored: u64,
    unknown: u64,
    #[source]
    cause: WriteFailure,
}

impl LoadFailure {
    /// Lines that certainly are not stored.
    fn missing(&self) -> u64 {
        self.lines.saturating_sub(self.stored + self.unknown)
    }

    /// How many lines came how far.
    pub(crate) fn json(&self) -> Value {
        json!({ "stored": self.stored, "unknown": self.unknown, "not_stored": self.missing() })
    }
}

/// Reads and checks a file, or standard input.
pub(crate) fn read_pairs(file: &Path) -> Result<Arc<[(Key, Bytes)]>, LoadError> {
    let pairs = if file == Path::new("-") { read_stdin()? } else { Pairs::read(file)? };
    Ok(pairs.into_iter().collect())
}

fn read_stdin() -> Result<Pairs, LoadError> {
    let path = Path::new("standard input");
    let mut content = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut content)
        .map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
    Pairs::parse(content.into()).map_err(|problems| LoadError::Malformed { path: path.to_owned(), problems })
}
