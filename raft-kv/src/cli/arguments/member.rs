//! What may be typed to change a cluster that runs.

use clap::{Args, Subcommand};
use raft_tokio::core::NodeId;

use super::{ClientFlags, OutputFlag, parse_node};

/// Add a new node to a running cluster, and run it
///
/// Makes its certificate and its data directory beside the configuration file, adds it to that
/// file, and then does what `serve` does. It gets a vote as soon as it has caught up. The other nodes
/// learn its address from itself. After a stop, `raft-kv serve` runs it again. Needs the key of the
/// cluster's authority, certs/ca.key. To run it elsewhere, see `raft-kv member add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  raft-kv join --config mycluster/cluster.toml --address 127.0.0.1:7404")]
pub(crate) struct Join {
    #[command(flatten)]
    pub(crate) newcomer: Newcomer,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
}

/// Show or change who belongs to the cluster
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// List the members, as the leader sees them
    List(MemberList),
    /// Add a new node, without running it
    ///
    /// Makes its certificate and its data directory beside the configuration file and adds it to that
    /// file; copy them to where it is to run, and run it there with `raft-kv serve`.
    Add(MemberAdd),
    /// Let a member go; its id is never used again
    ///
    /// If it leads, it hands over first. Stop it afterwards, and remove its part of the configuration file.
    Remove(MemberChange),
    /// Give a learner a vote; it has to have caught up
    Promote(MemberChange),
    /// Take a member's vote away; it goes on to learn
    Demote(MemberChange),
}

/// Flags of `member list`.
#[derive(Debug, Args)]
pub(crate) struct MemberList {
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// The node that is to come.
#[derive(Debug, Args)]
pub(crate) struct Newcomer {
    /// Where the others reach it, as host:port
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// Leave it without a vote, also when it has caught up
    #[arg(long)]
    pub(crate) learner: bool,
}

/// Flags of `member add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  raft-kv member add --address 10.0.0.4:7401")]
pub(crate) struct MemberAdd {
    #[command(flatten)]
    pub(crate) newcomer: Newcomer,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Flags of `member remove`, `promote` and `demote`.
#[derive(Debug, Args)]
pub(crate) struct MemberChange {
    /// Which member: 1 or n1
    #[arg(value_name = "N", value_parser = parse_node)]
    pub(crate) node: NodeId,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Hand leadership over, without the pause of an election
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  raft-kv transfer               to the member that has most
  raft-kv transfer --to 2")]
pub(crate) struct Transfer {
    /// Who is to lead: 1 or n1 [default: the member that has most]
    #[arg(long, value_name = "N", value_parser = parse_node)]
    pub(crate) to: Option<NodeId>,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}

/// Have nodes write a snapshot now, and cut their logs
///
/// They do so by themselves when their logs have grown enough.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// Which node: 1 or n1 [default: all]
    #[arg(long, value_name = "N", value_parser = parse_node)]
    pub(crate) node: Option<NodeId>,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlag,
}
