//! `load`: stores the lines of a file.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use raft_kv::key::Key;
use raft_kv::load::{LoadError, Pairs};
use serde_json::json;

use super::arguments::{Format, Load};
use super::connect;
use super::exit::Exit;
use super::output::{self, counted, grouped};
use super::progress::{Progress, Stream};
use super::writers::Writers;

/// Stores the lines of a file.
pub(crate) async fn load(arguments: &Load) -> anyhow::Result<Exit> {
    let pairs = read_pairs(&arguments.file)?;
    let client = connect::client(&arguments.client)?;
    let mut progress = Progress::new(Stream::Stderr);
    let mut writers = Writers::begin(&client, &pairs, usize::from(arguments.inflight), pairs.len());
    progress.begin(pairs.len() as u64);
    let begun = Instant::now();
    let mut written = 0;
    let mut revision = None;
    while let Some(outcome) = writers.next().await {
        let acknowledged = outcome.with_context(|| {
            let file = arguments.file.display();
            format!(
                "{} of {} of {file} stored before this; loading it again is harmless",
                grouped(written),
                counted(pairs.len() as u64, "line")
            )
        })?;
        written += 1;
        revision = revision.max(Some(acknowledged.revision.as_u64()));
        progress.reach(written)?;
    }
    progress.end();
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
