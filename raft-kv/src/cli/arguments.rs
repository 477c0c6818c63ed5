//! What may be typed: commands, flags and their help.

mod member;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use raft_kv::config::ClusterConfig;
use raft_tokio::core::NodeId;

pub(crate) use self::member::{Join, Member, MemberAdd, MemberChange, MemberList, Newcomer, Snapshot, Transfer};
use super::exit;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "raft-kv",
    version,
    about = "A replicated key/value store: server, client and demonstration in one binary",
    after_help = exit::TABLE,
    after_long_help = concat_examples(),
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Log more to standard error: -v what happens, -vv in detail; RUST_LOG is honoured as well
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

fn concat_examples() -> String {
    format!("{EXAMPLES}\n\n{}", exit::TABLE)
}

const EXAMPLES: &str = "\
Examples:
  raft-kv demo                         three nodes, one of them killed; nothing is left behind
  raft-kv init --nodes 3 mycluster     configuration, certificates and data directories
  raft-kv serve --config mycluster/cluster.toml --node 1
  raft-kv put hello world --config mycluster/cluster.toml
  raft-kv get hello --config mycluster/cluster.toml";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Init(Init),
    Serve(Serve),
    Put(Put),
    Get(Get),
    Del(Del),
    Range(Range),
    Load(Load),
    Status(Status),
    Join(Join),
    #[command(subcommand)]
    Member(Member),
    Transfer(Transfer),
    Snapshot(Snapshot),
}

impl Command {
    /// How its result is to be printed, if that can be chosen.
    pub(crate) fn output(&self) -> Option<Format> {
        let flag = match self {
            Self::Demo(_) | Self::Init(_) | Self::Serve(_) | Self::Join(_) => return None,
            Self::Member(Member::List(list)) => list.output,
            Self::Member(Member::Add(add)) => add.output,
            Self::Member(Member::Remove(change) | Member::Promote(change) | Member::Demote(change)) => change.output,
            Self::Transfer(transfer) => transfer.output,
            Self::Snapshot(snapshot) => snapshot.output,
            Self::Put(put) => put.output,
            Self::Get(get) => get.output,
            Self::Del(del) => del.output,
            Self::Range(range) => range.output,
            Self::Load(load) => load.output,
            Self::Status(status) => status.output,
        };
        Some(flag.output)
    }
}

/// Start a cluster of real processes, kill its leader while it is written to, and check what is left
///
/// Starts `--nodes` processes of this program with TLS on, in a temporary folder and on free
/// ports; writes through the client; kills the leader with SIGKILL while writes go on; restarts
/// it; and then checks that every acknowledged write is there and that all nodes hold the same.
/// Ends with exit status 0 if everything held, and leaves no process and no folder behind; neither
/// does a signal that asks it to stop, nor a terminal or pipe that is closed. If it fails, it keeps
/// its folder and says where. `kill -9` leaves no process either, but the folder raft-kv-demo-…
/// under TMPDIR or /tmp, which is then yours to remove.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv demo
  raft-kv demo --nodes 5 --seed 7
  raft-kv demo --load packages.tsv        lines of key<TAB>value
  raft-kv demo --keep mycluster           keep the folder and go on with `raft-kv serve`")]
pub(crate) struct Demo {
    /// How many nodes to start
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// Draws the generated writes and the moment of the kill; printed, so that a run can be repeated [default: random]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// Write the lines of this file, each `key<TAB>value`, instead of generated ones
    #[arg(long, value_name = "FILE")]
    pub(crate) load: Option<PathBuf>,
    /// Keep configuration, certificates, data and logs in this folder, which must be empty or absent
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// Write configuration, certificates and a formatted data directory for each member
///
/// Everything goes into DIR, which must be empty or absent; nothing is started. Copy the folder
/// to other machines as a whole or in parts: paths in cluster.toml are relative to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv init mycluster
  raft-kv init --nodes 5 --base-port 9000 mycluster      UDP ports 9001 to 9005")]
pub(crate) struct Init {
    /// Where to write
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// How many members the cluster has; an even number tolerates no more failures than the odd one below it
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// The address or name at which all members are reached; edit cluster.toml to spread them over machines
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Member n1 listens at the UDP port above this one, n2 at the next, and so on
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, default_value_t = 7400)]
    pub(crate) base_port: u16,
}

/// Run one member of a cluster until it is asked to stop
///
/// Logs to standard error. SIGINT, SIGQUIT, SIGTERM and SIGHUP stop it in order, with exit status 0;
/// under `nohup`, SIGHUP does not. Killing it is safe as well: nothing that was acknowledged is
/// lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  raft-kv serve --config mycluster/cluster.toml --node 1")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) cluster: ClusterFile,
    /// Which member to run: 1 or n1
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_node)]
    pub(crate) node: NodeId,
    /// Stop when standard input ends, as it does when the process that holds its other end dies
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// Store a value under a key
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv put hello world
  raft-kv put hello - <file            the value from standard input
  raft-kv put lock me --if-rev 0       only if the key does not exist
  raft-kv put hello you --if-rev 2     only if it was last changed at revision 2")]
pub(crate) struct Put {
    /// 1 to 4096 bytes
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// The value; `-` reads it from standard input, byte for byte
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    /// Write only if the key was last changed at this revision (0: only if it does not exist); else exit status 4
    #[arg(long, value_name = "REVISION", allow_negative_numbers = true, value_parser = parse_revision)]
    pub(crate) if_rev: Option<u64>,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Print the value of a key
///
/// Prints the value and a line feed; --output json gives revisions as well. Exit status 3 if
/// there is no such key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv get hello
  raft-kv get hello --output json
  raft-kv get hello --stale --node 2     what n2 has, which may be out of date")]
pub(crate) struct Get {
    /// The key to look up
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    #[command(flatten)]
    pub(crate) read: ReadFlags,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Delete a key
///
/// Says how many keys were deleted: 1, or 0 if there was none, which is no failure.
#[derive(Debug, Args)]
pub(crate) struct Del {
    /// The key to delete
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// List keys and values in the order of the keys' bytes
///
/// Prints `key<TAB>value` lines. Control characters and bytes that are no UTF-8 are printed as
/// \xNN; --output json is exact. Its `count` is that of the whole range, whatever the limit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv range                          everything
  raft-kv range a c                      from a (included) to c (excluded)
  raft-kv range --prefix users/ --limit 10")]
pub(crate) struct Range {
    /// The first key [default: the first of all]
    #[arg(conflicts_with = "prefix", allow_negative_numbers = true)]
    pub(crate) start: Option<OsString>,
    /// The key before which the list ends [default: after the last of all]
    #[arg(allow_negative_numbers = true)]
    pub(crate) end: Option<OsString>,
    /// Only keys that begin with this
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Option<OsString>,
    /// At most so many keys
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Keys without their values
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Only how many keys there are
    #[arg(long, conflicts_with_all = ["limit", "keys_only"])]
    pub(crate) count_only: bool,
    #[command(flatten)]
    pub(crate) read: ReadFlags,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Store the lines of a file, each `key<TAB>value`
///
/// The whole file is checked before anything is written: a line without a tab, a key that appears
/// twice, and a line that ends in a carriage return, as on Windows, are reported with their numbers.
/// Many requests are under way at once; loading the same file again is harmless.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The file; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How many requests may be under way at once
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) inflight: u16,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Show whether the cluster is healthy, and how each node stands
///
/// Asks every node, also when there is no leader. Exit status 6 if the cluster cannot serve. If the
/// leader waits for something, it says for what: how far each node is, how it is supplied, how long it
/// has been silent; the configuration; logs, snapshots and disks. --output table shows these always.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Where the cluster is described.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterFile {
    /// The configuration that `raft-kv init` wrote; the environment variable RAFT_KV_CONFIG sets the default
    #[arg(long, value_name = "FILE", default_value_os_t = default_config())]
    pub(crate) config: PathBuf,
}

/// Not clap's own way to look into the environment: its usage lines call such an argument required.
fn default_config() -> PathBuf {
    let named = std::env::var_os("RAFT_KV_CONFIG").filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from(ClusterConfig::FILE_NAME), PathBuf::from)
}

/// Flags of the commands that ask a cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientFlags {
    #[command(flatten)]
    pub(crate) cluster: ClusterFile,
    /// How long to try before giving up, such as 500ms, 10s or 2m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// Flags of the commands that read.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReadFlags {
    /// Let any node answer from what it has, which may be out of date, even without a leader
    #[arg(long)]
    pub(crate) stale: bool,
    /// Rely on the leader's lease instead of asking a majority, if the configuration has leases
    #[arg(long, conflicts_with_all = ["stale", "node"])]
    pub(crate) lease: bool,
    /// Which node's copy to read: 1 or n1; without --stale it asks the leader up to where to wait
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_node)]
    pub(crate) node: Option<NodeId>,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputFlag {
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Format::Plain)]
    pub(crate) output: Format,
}

/// The formats of [`OutputFlag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people and for pipes
    Plain,
    /// With every field, in columns
    Table,
    /// One JSON document, also for an error: with error, code and exit_status
    Json,
}

/// `1` or `n1`.
fn parse_node(text: &str) -> Result<NodeId, String> {
    let digits = text.strip_prefix('n').unwrap_or(text);
    digits
        .parse()
        .ok()
        .and_then(NodeId::new)
        .ok_or_else(|| "a node is a number from 1 on, as in cluster.toml: 1 or n1".to_owned())
}

fn parse_revision(text: &str) -> Result<u64, String> {
    let error = "a revision is a whole number from 0 on, such as `get --output json` shows it as mod_revision";
    text.parse().map_err(|_| error.to_owned())
}

/// `500ms`, `10s`, `2m`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_millis = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => return Err("use ms, s or m as the unit, such as 500ms, 10s or 2m".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "use a whole number and a unit, such as 500ms or 10s".to_owned())?;
    match count.checked_mul(unit_millis) {
        None | Some(0) => Err("use a time above 0, such as 500ms or 10s".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_node_is_named_by_its_number_with_or_without_n() {
        assert_eq!(parse_node("2"), parse_node("n2"));
        for wrong in ["0", "n0", "x1", "", "n", "-1", "1.5"] {
            assert!(parse_node(wrong).is_err(), "{wrong} was taken for a node");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "0s", "1h", "s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was taken for a duration");
        }
    }
}
