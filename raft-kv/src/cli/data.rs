//! `put`, `get`, `del` and `range`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use raft_kv::client::{Client, Consistency, CountReply, DeleteOptions, PutOptions};
use raft_kv::key::{Key, KeyRange, Revision};
use raft_kv::protocol::VALUE_BYTES_MAX;
use raft_kv::store::{KeyValue, Metadata};
use serde_json::json;

use super::arguments::{Del, Format, Get, Put, Range, ReadFlags};
use super::connect;
use super::exit::{Exit, Failure};
use super::output::{self, pair_json, printable};

/// Stores a value.
pub(crate) async fn put(arguments: &Put) -> anyhow::Result<Exit> {
    let key = checked_key(&arguments.key)?;
    let value = read_value(&arguments.value)?;
    let client = connect::client(&arguments.client)?;
    let if_revision = arguments.if_rev.map(Revision::new);
    let reply = client.put(key.clone(), value, PutOptions { if_revision }).await?;
    match arguments.output.output {
        Format::Plain => output::write_line(&format!("revision {}", reply.revision))?,
        Format::Table => {
            let row = vec![printable(&key).into_owned(), reply.revision.to_string(), before(reply.previous)];
            output::write_line(&output::table(&["KEY", "REVISION", "BEFORE"], &["REVISION"], [row]))?;
        }
        Format::Json => {
            let previous = reply.previous.map(metadata_json);
            output::write_json(&json!({ "revision": reply.revision.as_u64(), "previous": previous }))?;
        }
    }
    Ok(Exit::Done)
}

/// Prints the value of a key.
pub(crate) async fn get(arguments: &Get) -> anyhow::Result<Exit> {
    let key = checked_key(&arguments.key)?;
    let client = connect::client(&arguments.client)?;
    let reply = client.get(key.clone(), consistency(&arguments.read)).await?;
    let revision = reply.revision;
    match (arguments.output.output, &reply.kv) {
        (Format::Json, pair) => {
            let pair = pair.as_ref().map(|pair| pair_json(pair, true));
            output::write_json(&json!({ "revision": revision.as_u64(), "kv": pair }))?;
        }
        (Format::Plain, Some(pair)) => output::write(&[&pair.value[..], b"\n"].concat())?,
        (Format::Table, Some(pair)) => output::write_line(&pairs_table(std::slice::from_ref(pair), true))?,
        (Format::Plain | Format::Table, None) => {
            let message = format!("there is no key \"{}\", as of revision {revision}", printable(&key));
            return Err(Failure::new(Exit::NotFound, message).into());
        }
    }
    Ok(if reply.kv.is_some() { Exit::Done } else { Exit::NotFound })
}

/// Deletes a key.
pub(crate) async fn del(arguments: &Del) -> anyhow::Result<Exit> {
    let key = checked_key(&arguments.key)?;
    let client = connect::client(&arguments.client)?;
    let reply = client.delete(key.clone(), DeleteOptions::default()).await?;
    let deleted = u64::from(reply.previous.is_some());
    match arguments.output.output {
        Format::Plain => {
            output::write_line(&format!("{} deleted, revision {}", output::counted(deleted, "key"), reply.revision))?;
        }
        Format::Table => {
            let row = vec![printable(&key).into_owned(), reply.revision.to_string(), before(reply.previous)];
            output::write_line(&output::table(&["KEY", "REVISION", "BEFORE"], &["REVISION"], [row]))?;
        }
        Format::Json => {
            let previous = reply.previous.map(metadata_json);
            let document = json!({ "deleted": deleted, "revision": reply.revision.as_u64(), "previous": previous });
            output::write_json(&document)?;
        }
    }
    Ok(Exit::Done)
}

/// Lists pairs.
pub(crate) async fn range(arguments: &Range) -> anyhow::Result<Exit> {
    let range = key_range(arguments);
    let client = connect::client(&arguments.client)?;
    let consistency = consistency(&arguments.read);
    if arguments.count_only {
        return print_count(client.count(range, consistency).await?, arguments.output.output);
    }
    let with_values = !arguments.keys_only;
    if arguments.output.output == Format::Plain {
        return print_pages(&client, range, arguments.limit, consistency, with_values).await;
    }
    let request = raft_kv::client::RangeRequest { range, limit: arguments.limit, consistency };
    let reply = client.range(request).await?;
    if arguments.output.output == Format::Table {
        output::write_line(&pairs_table(&reply.kvs, with_values))?;
    } else {
        let pairs: Vec<_> = reply.kvs.iter().map(|pair| pair_json(pair, with_values)).collect();
        let document = json!({
            "revision": reply.revision_last.as_u64(),
            "count": reply.count,
            "more": reply.more,
            "kvs": pairs,
        });
        output::write_json(&document)?;
    }
    Ok(Exit::Done)
}

fn print_count(reply: CountReply, format: Format) -> anyhow::Result<Exit> {
    let CountReply { count, revision_last, .. } = reply;
    match format {
        Format::Plain => output::write_line(&count.to_string())?,
        Format::Table => {
            let header = ["COUNT", "REVISION"];
            let row = vec![count.to_string(), revision_last.to_string()];
            output::write_line(&output::table(&header, &header, [row]))?;
        }
        Format::Json => output::write_json(&json!({ "revision": revision_last.as_u64(), "count": count }))?,
    }
    Ok(Exit::Done)
}

/// Prints page by page, so that a large listing begins at once and is never held as a whole.
async fn print_pages(
    client: &Client,
    mut range: KeyRange,
    limit: Option<u64>,
    consistency: Consistency,
    with_values: bool,
) -> anyhow::Result<Exit> {
    let mut wanted = limit;
    loop {
        let page = client.range_page(range.clone(), wanted, consistency).await?;
        let mut lines = String::new();
        for pair in &page.kvs {
            lines.push_str(&printable(&pair.key));
            if with_values {
                lines.push('\t');
                lines.push_str(&printable(&pair.value));
            }
            lines.push('\n');
        }
        output::write(lines.as_bytes())?;
        wanted = wanted.map(|wanted| wanted.saturating_sub(page.kvs.len() as u64));
        match page.kvs.last() {
            Some(last) if page.more && wanted != Some(0) => range = range.after(&last.key),
            Some(_) | None => return Ok(Exit::Done),
        }
    }
}

fn pairs_table(pairs: &[KeyValue], with_values: bool) -> String {
    let mut header = vec!["KEY", "CREATED", "MODIFIED", "VERSION"];
    if with_values {
        header.push("VALUE");
    }
    let rows = pairs.iter().map(|pair| {
        let mut row = vec![
            printable(&pair.key).into_owned(),
            pair.create_revision.to_string(),
            pair.mod_revision.to_string(),
            pair.version.to_string(),
        ];
        if with_values {
            row.push(printable(&pair.value).into_owned());
        }
        row
    });
    output::table(&header, &["CREATED", "MODIFIED", "VERSION"], rows)
}

fn before(previous: Option<Metadata>) -> String {
    match previous {
        Some(metadata) => format!("version {} of revision {}", metadata.version, metadata.mod_revision),
        None => "absent".to_owned(),
    }
}

/// Revisions and version as JSON.
pub(crate) fn metadata_json(metadata: Metadata) -> serde_json::Value {
    json!({
        "create_revision": metadata.create_revision.as_u64(),
        "mod_revision": metadata.mod_revision.as_u64(),
        "version": metadata.version,
    })
}

fn consistency(flags: &ReadFlags) -> Consistency {
    match flags.node {
        node if flags.stale => Consistency::Stale { node },
        Some(node) => Consistency::LinearizableAt { node },
        None if flags.lease => Consistency::Lease,
        None => Consistency::Linearizable,
    }
}

fn key_range(arguments: &Range) -> KeyRange {
    match (&arguments.prefix, &arguments.start, &arguments.end) {
        (Some(prefix), _, _) => KeyRange::prefix(bytes_of(prefix)),
        (None, None, _) => KeyRange::all(),
        (None, Some(start), None) => KeyRange::from(bytes_of(start)),
        (None, Some(start), Some(end)) => KeyRange::between(bytes_of(start), bytes_of(end)),
    }
}

/// The bytes that were typed; on the systems that this runs on, an argument is its bytes.
fn bytes_of(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_encoded_bytes())
}

/// A key that the server will take, so that a wrong one is told before anything is connected.
fn checked_key(text: &OsString) -> anyhow::Result<Bytes> {
    let bytes = bytes_of(text);
    match Key::new(bytes.clone()) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(Exit::Usage, format!("{error}; nothing was sent")).into()),
    }
}

fn read_value(text: &OsString) -> anyhow::Result<Bytes> {
    let value = if text == "-" {
        let mut value = Vec::new();
        // One byte more than can be stored is enough to know that it is too much.
        let enough = VALUE_BYTES_MAX as u64 + 1;
        let read = io::stdin().lock().take(enough).read_to_end(&mut value);
        read.context("cannot read the value from standard input")?;
        value.into()
    } else {
        bytes_of(text)
    };
    if value.len() > VALUE_BYTES_MAX {
        let message = format!("the value has more than {VALUE_BYTES_MAX} bytes, which is the limit; nothing was sent");
        return Err(Failure::new(Exit::Usage, message).into());
    }
    Ok(value)
}
