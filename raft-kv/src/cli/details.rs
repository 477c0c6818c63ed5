//! Why a write may be stuck: what the leader waits for, where each disk stands, and which nodes do
//! not run when they have to. Nothing at all of a cluster that has nothing to wait for.

use raft_kv::protocol::{NodeStatus, PeerProgress, RuntimeSummary};
use raft_tokio::core::{NodeId, ProgressMode, RoleKind};

use super::health::{Finding, Kind, Members};
use super::output::{self, counted};

/// A peer that has answered nothing for so long, in milliseconds, is shown.
const SILENCE_MS: u64 = 1_000;

/// Paragraphs for people; all of them if `everything`, else those that tell what is amiss.
pub(crate) fn details(findings: &[Finding], everything: bool) -> String {
    let answers: Vec<&NodeStatus> = findings.iter().filter_map(|finding| finding.answer.as_ref().ok()).collect();
    let members = Members::of(answers.iter().copied());
    let leader = answers.iter().filter(|status| status.role == RoleKind::Leader).max_by_key(|status| status.term);
    let is_broken = |status: &&NodeStatus| status.storage_full || status.storage_failed;
    let waits = leader.is_some_and(|leader| is_waiting(leader, &members)) || answers.iter().any(is_broken);
    let mut paragraphs = Vec::new();
    if everything || waits {
        if let Some(leader) = leader {
            paragraphs.push(leader_text(leader));
            paragraphs.extend(peers_table(leader, &members));
        }
        paragraphs.push(disks_table(&answers));
    }
    paragraphs.extend(runtime_text(&answers));
    paragraphs.into_iter().map(|paragraph| format!("\n\n{paragraph}")).collect()
}

/// Whether the leader waits for somebody, or is in the middle of a change.
fn is_waiting(leader: &NodeStatus, members: &Members) -> bool {
    let is_late = |peer: &PeerProgress| {
        behind(leader, peer) > 0 || peer.supply != ProgressMode::Replicate || peer.silent_for_ms >= SILENCE_MS
    };
    leader.commit < leader.last
        || is_changing(leader)
        || leader.transfer.is_some()
        || member_peers(leader, members).any(is_late)
}

fn is_changing(leader: &NodeStatus) -> bool {
    !leader.outgoing.is_empty() || leader.configuration > leader.commit
}

fn member_peers<'a>(leader: &'a NodeStatus, members: &Members) -> impl Iterator<Item = &'a PeerProgress> {
    leader.peers.iter().filter(|peer| members.kind(peer.node) != Kind::Stranger)
}

fn behind(leader: &NodeStatus, peer: &PeerProgress) -> u64 {
    leader.last.as_u64().saturating_sub(peer.matched.as_u64())
}

/// What the leader goes by, and what waits there.
fn leader_text(leader: &NodeStatus) -> String {
    let NodeStatus { node, configuration, voters, outgoing, learners, .. } = leader;
    let mut text = format!("{node} leads; configuration {configuration}: voters {}", list(voters));
    if !learners.is_empty() {
        text += &format!(", learners {}", list(learners));
    }
    if !outgoing.is_empty() {
        text += &format!(", replacing voters {} (a majority of both is needed until then)", list(outgoing));
    }
    if configuration > &leader.commit {
        text += ", not committed yet";
    }
    if let Some(heir) = leader.transfer {
        text += &format!("\nhanding leadership over to {heir}");
    }
    let uncommitted = leader.last.as_u64().saturating_sub(leader.commit.as_u64());
    if uncommitted > 0 {
        let (first, last) = (leader.commit.as_u64() + 1, leader.last);
        let noun = if uncommitted == 1 { "entry" } else { "entries" };
        text += &format!("\n{uncommitted} {noun} ({first} to {last}) not on the disks of a majority yet");
    }
    if leader.proposals + leader.reads > 0 {
        let (writes, reads) = (counted(leader.proposals, "write"), counted(leader.reads, "read"));
        text += &format!("\n{writes} and {reads} without an answer yet");
    }
    text
}

fn peers_table(leader: &NodeStatus, members: &Members) -> Option<String> {
    let rows: Vec<Vec<String>> = member_peers(leader, members)
        .map(|peer| {
            vec![
                peer.node.to_string(),
                peer.supply.to_string(),
                peer.matched.to_string(),
                behind(leader, peer).to_string(),
                peer.next.to_string(),
                peer.inflight.to_string(),
                duration(peer.silent_for_ms),
            ]
        })
        .collect();
    let numbers = ["MATCHED", "BEHIND", "NEXT", "IN FLIGHT", "SILENT FOR"];
    let header = ["PEER", "SUPPLY", "MATCHED", "BEHIND", "NEXT", "IN FLIGHT", "SILENT FOR"];
    (!rows.is_empty()).then(|| output::table(&header, &numbers, rows))
}

fn disks_table(answers: &[&NodeStatus]) -> String {
    let rows = answers.iter().map(|status| {
        let disk = match (status.storage_failed, status.storage_full) {
            (true, _) => "FAILED",
            (false, true) => "FULL",
            (false, false) => "ok",
        };
        let entries = status.last.as_u64().saturating_sub(status.base.as_u64());
        let unsynced = status.last.as_u64().saturating_sub(status.durable.as_u64());
        vec![
            status.node.to_string(),
            disk.to_owned(),
            entries.to_string(),
            // The node counts bytes in coarse steps.
            size(if entries == 0 { 0 } else { status.log_bytes }),
            unsynced.to_string(),
            status.held.to_string(),
            status.snapshot.to_string(),
            size(status.snapshot_bytes),
        ]
    });
    let numbers = ["ENTRIES", "LOG", "UNSYNCED", "HELD", "SNAPSHOT", "SIZE"];
    let header = ["NODE", "DISK", "ENTRIES", "LOG", "UNSYNCED", "HELD", "SNAPSHOT", "SIZE"];
    output::table(&header, &numbers, rows)
}

/// Nodes whose machine, or whose own work, kept them from running when they had to.
fn runtime_text(answers: &[&NodeStatus]) -> Option<String> {
    let lines: Vec<String> = answers
        .iter()
        .filter_map(|status| {
            let RuntimeSummary { late_wakeups, lateness_max_ms, long_turns, turn_max_ms, .. } = status.runtime;
            let node = status.node;
            let late = (late_wakeups > 0).then(|| {
                let times = counted(late_wakeups, "time");
                format!("{node} ran too late {times} since its start, by {} at most", duration(lateness_max_ms))
            });
            let busy = (long_turns > 0).then(|| {
                let times = counted(long_turns, "time");
                format!("{node} was busy for too long {times} since its start, for {} at most", duration(turn_max_ms))
            });
            let said: Vec<String> = late.into_iter().chain(busy).collect();
            (!said.is_empty()).then(|| said.join("\n"))
        })
        .collect();
    (!lines.is_empty()).then(|| format!("{}\nleaders may change because of it: docs/operating.md", lines.join("\n")))
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn duration(millis: u64) -> String {
    if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1_000) }
}

/// `700 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1_024.0, 0);
    while amount >= 1_024.0 && unit + 1 < units.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use raft_tokio::core::Index;

    use super::super::health::tests::answer;
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).expect("because the tests count from 1")
    }

    fn peer(number: u64, matched: u64) -> PeerProgress {
        let (matched, next) = (Index::new(matched), Index::new(8));
        PeerProgress {
            node: node(number),
            matched,
            next,
            inflight: 0,
            supply: ProgressMode::Replicate,
            silent_for_ms: 12,
        }
    }

    /// Three nodes, led by n1, after `change`.
    fn findings(change: impl FnOnce(&mut NodeStatus)) -> Vec<Finding> {
        let mut all =
            [answer(1, RoleKind::Leader, 4, Some(1)), answer(2, RoleKind::Follower, 4, Some(1))].map(|mut finding| {
                if let Ok(status) = &mut finding.answer {
                    status.voters = vec![node(1), node(2), node(3)];
                    status.peers = vec![peer(2, 7), peer(3, 7)];
                }
                finding
            });
        if let Ok(status) = &mut all[0].answer {
            change(status);
        }
        all.into()
    }

    #[test]
    fn of_a_cluster_that_waits_for_nothing_nothing_is_told() {
        assert_eq!(details(&findings(|_| {}), false), "");
        let all = details(&findings(|_| {}), true);
        assert!(all.starts_with("\n\nn1 leads; configuration 0: voters n1, n2, n3\n\nPEER"), "{all}");
        assert!(all.contains("n2    ok          7  0 B"), "{all}");
    }

    #[test]
    fn a_write_that_waits_for_a_silent_peer_is_explained() {
        let text = details(
            &findings(|leader| {
                (leader.last, leader.proposals) = (Index::new(9), 2);
                leader.peers[1].silent_for_ms = 12_000;
                leader.peers[1].supply = ProgressMode::Probe;
            }),
            false,
        );
        assert!(text.contains("2 entries (8 to 9) not on the disks of a majority yet"), "{text}");
        assert!(text.contains("2 writes and 0 reads without an answer yet"), "{text}");
        assert!(text.contains("n3    probe            7       2     8          0        12 s"), "{text}");
    }

    #[test]
    fn a_change_that_is_not_finished_is_shown_with_who_decides() {
        let text = details(
            &findings(|leader| {
                (leader.outgoing, leader.learners) = (vec![node(1), node(4)], vec![node(5)]);
                leader.configuration = Index::new(8);
                leader.transfer = Some(node(2));
            }),
            false,
        );
        let first = "n1 leads; configuration 8: voters n1, n2, n3, learners n5, replacing voters n1, n4 (a majority of both is \
                     needed until then), not committed yet\nhanding leadership over to n2";
        assert!(text.starts_with(&format!("\n\n{first}\n\n")), "{text}");
    }

    #[test]
    fn a_change_alone_is_reason_enough_to_tell() {
        let text = details(&findings(|leader| leader.outgoing = vec![node(4)]), false);
        assert!(text.contains("replacing voters n4"), "{text}");
        let text = details(&findings(|leader| leader.transfer = Some(node(2))), false);
        assert!(text.contains("handing leadership over to n2"), "{text}");
    }

    #[test]
    fn full_and_failed_disks_and_late_nodes_are_named() {
        let text = details(&findings(|leader| leader.storage_full = true), false);
        assert!(text.contains("n1    FULL"), "{text}");
        let text = details(&findings(|leader| leader.storage_failed = true), false);
        assert!(text.contains("n1    FAILED"), "{text}");
        let text = details(
            &findings(|leader| (leader.runtime.late_wakeups, leader.runtime.lateness_max_ms) = (3, 218)),
            false,
        );
        assert_eq!(
            text,
            "\n\nn1 ran too late 3 times since its start, by 218 ms at most\nleaders may change because of it: docs/operating.md"
        );
    }

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!([0, 1_023, 1_536, 5 << 20, 3 << 40].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB"]);
        assert_eq!([0, 9_999, 10_000].map(duration), ["0 ms", "9999 ms", "10 s"]);
    }
}
