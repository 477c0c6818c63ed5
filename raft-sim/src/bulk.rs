//! Snapshots on their way: taken, sent piece by piece, stored, installed. And lost at each step.

use std::sync::Arc;
use std::time::Duration;

use raft_core::{Event, NodeId, Position, SnapshotMeta, Time};

use crate::checks::{Verdict, ensure};
use crate::disk::Snapshot;
use crate::node::HandOver;
use crate::slot;
use crate::world::{Happening, World};

/// A snapshot on its way from one process to another.
#[derive(Debug)]
pub(crate) struct Transfer {
    from: (NodeId, u64),
    to: (NodeId, u64),
    snapshot: Arc<Snapshot>,
    arrived: u64,
}

impl World {
    /// Queues something for the state machine of a node, and starts it if it was idle.
    pub(crate) fn hand_over(&mut self, id: NodeId, hand_over: HandOver) {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        if process.hand_over(hand_over) {
            let takes = self.chance.process.exponential(self.plan.process.apply_mean);
            self.schedule.plan(now.after(takes), Happening::Applied { node: id, life });
        }
    }

    /// The state machine of a node is at the point where it is to be written down. The writing is
    /// done beside it.
    pub(crate) fn take_snapshot(&mut self, id: NodeId, meta: &SnapshotMeta) -> Verdict {
        let machine = &self.nodes[slot(id)].machine;
        ensure!(
            machine.applied() == meta.last.index,
            SnapshotFidelity,
            "{id} is to write down its state machine as of {}, but it is at {}",
            meta.last,
            machine.applied()
        );
        self.write_down(id, meta)
    }

    fn write_down(&mut self, id: NodeId, meta: &SnapshotMeta) -> Verdict {
        let (now, life) = (self.schedule.now(), self.nodes[slot(id)].life);
        let machine = self.nodes[slot(id)].machine.image();
        let meta = SnapshotMeta { bytes: machine.len() as u64, ..meta.clone() };
        let Some(digest) = self.checks.commits.digest_at(meta.last.index) else {
            ensure!(false, SnapshotFidelity, "{id} takes a snapshot of {}, which is not committed", meta.last);
            return Ok(());
        };
        let snapshot = Arc::new(Snapshot { meta, digest, machine });
        let takes = self.chance.snapshot.exponential(self.plan.snapshots.write_mean);
        self.schedule.plan(now.after(takes), Happening::SnapshotTaken { node: id, life, snapshot });
        Ok(())
    }

    /// The application offers a snapshot of its own accord, at the index that it has reached.
    pub(crate) fn offer_snapshot(&mut self, id: NodeId) -> Verdict {
        let disk = &self.disks[slot(id)];
        let applied = self.nodes[slot(id)].machine.applied();
        // What was applied is durable, unless a snapshot is about to replace the log.
        let Some(last) = disk.position_at(applied).filter(|_| !disk.is_installing()) else { return Ok(()) };
        let configuration = disk.configuration_at(applied);
        if configuration.membership.voters().is_empty() {
            // Who is still joining does not know what was in force back then.
            return Ok(());
        }
        self.write_down(id, &SnapshotMeta { last, configuration, bytes: 0 })
    }

    pub(crate) fn on_snapshot_taken(&mut self, id: NodeId, life: u64, snapshot: &Arc<Snapshot>) -> Verdict {
        if self.nodes[slot(id)].alive(life).is_none() {
            return Ok(());
        }
        let (index, mut bytes) = (snapshot.meta.last.index, Some(snapshot.meta.bytes));
        if self.disks[slot(id)].has_failed() || self.chance.snapshot.chance(self.plan.snapshots.failures) {
            bytes = None;
        } else {
            self.counts.snapshots_taken += 1;
            self.checks.on_snapshot(id, snapshot)?;
            self.disks[slot(id)].keep_snapshot(snapshot.clone());
        }
        self.give(id, Event::SnapshotTaken { index, bytes });
        Ok(())
    }

    /// A process begins to send a snapshot, if it still has it.
    pub(crate) fn send_snapshot(&mut self, id: NodeId, to: NodeId, last: Position) {
        let Some(snapshot) = self.disks[slot(id)].snapshot(last).cloned() else { return };
        let lives = (self.nodes[slot(id)].life, self.nodes[slot(to)].life);
        self.counts.snapshots_sent += 1;
        let transfer = Transfer { from: (id, lives.0), to: (to, lives.1), snapshot, arrived: 0 };
        self.next_piece(Box::new(transfer));
    }

    fn next_piece(&mut self, transfer: Box<Transfer>) {
        let takes = self.chance.snapshot.exponential(self.plan.snapshots.piece_mean);
        self.schedule.plan(self.now().after(takes), Happening::Piece { transfer });
    }

    /// A piece of a snapshot arrives, or the channel turns out to be broken.
    pub(crate) fn on_piece(&mut self, mut transfer: Box<Transfer>) {
        let ((from, sender), (to, receiver)) = (transfer.from, transfer.to);
        let last = transfer.snapshot.meta.last;
        if self.nodes[slot(to)].alive(receiver).is_none() {
            return;
        }
        let paused_until = self.nodes[slot(from)].paused_until.max(self.nodes[slot(to)].paused_until);
        if paused_until > self.now() {
            self.schedule.plan(paused_until, Happening::Piece { transfer });
            return;
        }
        let is_broken = self.nodes[slot(from)].alive(sender).is_none()
            || self.network.is_cut((from, to))
            || self.chance.snapshot.chance(self.plan.snapshots.losses);
        if is_broken {
            // Not everybody notices that nothing more comes.
            if let Some(at) = self.network.notice(self.schedule.now()) {
                self.schedule.plan(at, Happening::SnapshotLost { node: to, life: receiver, last });
            }
            return;
        }
        transfer.arrived += 1;
        let pieces = self.plan.snapshots.pieces;
        if transfer.arrived < pieces {
            let received = transfer.snapshot.meta.bytes * transfer.arrived / pieces;
            self.give(to, Event::SnapshotProgress { last, received });
            self.next_piece(transfer);
        } else {
            let takes = self.chance.snapshot.exponential(self.plan.snapshots.write_mean);
            let snapshot = transfer.snapshot;
            let event = Happening::SnapshotStored { node: to, life: receiver, snapshot };
            self.schedule.plan(self.schedule.now().after(takes), event);
        }
    }

    /// A snapshot from another node is on stable storage.
    pub(crate) fn on_snapshot_stored(&mut self, id: NodeId, life: u64, snapshot: Arc<Snapshot>) {
        if self.nodes[slot(id)].alive(life).is_none() {
            return;
        }
        let (last, complete) = (snapshot.meta.last, !self.disks[slot(id)].has_failed());
        if complete {
            self.disks[slot(id)].receive(snapshot);
        }
        self.give(id, Event::SnapshotReceived { last, complete });
    }

    /// The snapshot that a node was told to install has to be there.
    pub(crate) fn arrived_snapshot(&self, id: NodeId, meta: &SnapshotMeta) -> Result<Arc<Snapshot>, crate::Violation> {
        let found = self.disks[slot(id)].received(meta.last).cloned();
        found.ok_or_else(|| {
            let detail = format!("{id} is to install the snapshot of {}, which never arrived", meta.last);
            crate::Violation::new(crate::Invariant::SnapshotFidelity, detail)
        })
    }

    /// When the state machine of a node looks again whether the log has been replaced.
    pub(crate) fn look_again(&mut self, id: NodeId, life: u64) {
        let wait = self.plan.disk.sync_mean.max(Duration::from_micros(50));
        let at: Time = self.schedule.now().after(wait);
        self.schedule.plan(at, Happening::Applied { node: id, life });
    }
}
