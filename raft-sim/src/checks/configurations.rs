//! Configurations: I16 one change at a time, majorities that overlap, ids that are never used
//! again, and nobody leads who knows that it has been removed.

use raft_core::{Configuration, Membership, RoleKind, Term};

use super::logs::Logs;
use super::majorities::decides;
use super::{Step, Verdict, ensure};
use crate::slot;

/// The configuration in force is the last one in the log; and whoever leads may.
pub(super) fn on_step(step: &Step<'_>, logs: &Logs, elected: &[Term]) -> Verdict {
    let (node, status) = (step.node, step.after);
    let configurations = logs.configurations(node);
    let Some(latest) = configurations.last() else { return Ok(()) };
    ensure!(
        status.configuration == *latest,
        Configurations,
        "{node} takes {}: {} for the configuration in force; the last one in its log is {}: {}",
        status.configuration.index,
        status.configuration.membership,
        latest.index,
        latest.membership
    );
    let votes_in = |configuration: &Configuration| configuration.membership.voter(node).is_some();
    let is_committed = latest.index <= status.log.commit;
    let before = configurations.iter().rev().nth(1).filter(|_| !is_committed);
    ensure!(
        elected.is_empty() || votes_in(latest) || before.is_some_and(votes_in),
        Configurations,
        "{node} was elected in {elected:?}; it is no voter in {}: {}, nor in the one before",
        latest.index,
        latest.membership
    );
    ensure!(
        status.role != RoleKind::Leader || !is_committed || votes_in(latest),
        Configurations,
        "{node} leads on although {}: {} is committed, in which it is no voter",
        latest.index,
        latest.membership
    );
    Ok(())
}

/// A leader has appended `new`, in `term`, to a log in which `old` was in force before.
pub(super) fn on_created(
    step: &Step<'_>,
    term: Term,
    old: &Configuration,
    new: &Configuration,
    logs: &Logs,
) -> Verdict {
    let (node, commit) = (step.node, step.after.log.commit);
    let digest = logs.digest_at(node, old.index).unwrap_or_default();
    ensure!(
        old.index <= commit && decides(&old.membership, |voter| step.disks[slot(voter)].holds(old.index, digest)),
        Configurations,
        "{node} appends configuration {}: {} before {}: {} is committed; committed is {commit}",
        new.index,
        new.membership,
        old.index,
        old.membership
    );
    ensure!(
        logs.term_at(node, commit) == Some(term),
        Configurations,
        "{node} appends configuration {} in term {term} without a commit in it",
        new.index
    );
    ensure!(
        succeeds(&old.membership, &new.membership),
        Configurations,
        "{node} appends configuration {}: {} after {}: {}, which may have a majority without its majority",
        new.index,
        new.membership,
        old.index,
        old.membership
    );
    let (old, new) = (&old.membership, &new.membership);
    let is_same_or_new = new.members().all(|member| match old.member(member.node) {
        Some(known) => known.store == member.store,
        None => member.node.as_u64() >= old.next_id() && old.member_by_store(member.store).is_none(),
    });
    ensure!(
        is_same_or_new && new.next_id() >= old.next_id(),
        Configurations,
        "{node} appends {new} (next id {}) after {old} (next id {}): an id or a store is used again",
        new.next_id(),
        old.next_id()
    );
    Ok(())
}

/// §6, Thesis 4.1, 4.3 – every majority of the one overlaps with every majority of the other.
fn succeeds(old: &Membership, new: &Membership) -> bool {
    if old.is_joint() {
        return !new.is_joint() && new.voters() == old.voters();
    }
    if new.is_joint() {
        return new.outgoing() == old.voters();
    }
    let gone = old.voters().iter().filter(|voter| !new.voters().contains(voter)).count();
    let added = new.voters().iter().filter(|voter| !old.voters().contains(voter)).count();
    gone + added <= 1
}
