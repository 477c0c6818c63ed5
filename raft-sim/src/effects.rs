//! Effects: what becomes of what a core asks for, and of what the world has done for it.

use raft_core::{Effect, Event, Message, NodeId, Outcome, ReadMode, RequestId, Rpc, Time};

use crate::checks::{Step, Verdict, ensure};
use crate::client::Answer;
use crate::disk::Write;
use crate::node::{HandOver, summary};
use crate::slot;
use crate::trace::Speaker;
use crate::world::{Happening, World};

impl World {
    /// One step of a core: the events go in, the effects come out, are checked and executed.
    pub(crate) fn step(&mut self, id: NodeId, (at, clock): (Time, Time), batch: Vec<Event>) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let Some(process) = &mut node.process else { return Ok(()) };
        if batch.is_empty() {
            return Ok(());
        }
        self.counts.steps += 1;
        let speaker = Speaker { node: id, term: process.status.hard_state.term };
        for event in &batch {
            self.trace.on_event(now, speaker, event);
        }
        let inbox = summary(&batch, &self.disks);
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        process.raft.step_into(batch.into_iter().map(|event| Message { at, event }), &mut effects);
        let after = process.raft.status();
        let speaker = Speaker { node: id, term: after.hard_state.term };
        for effect in &effects {
            self.trace.on_effect(now, speaker, effect);
        }
        let deadline = process.raft.deadline();
        ensure!(
            deadline.is_none_or(|deadline| deadline > at),
            Ordering,
            "{id} was stepped at {at} and wants to be woken at {deadline:?}, which is not later"
        );
        let before = std::mem::replace(&mut process.status, after);
        self.checks.on_step(&Step {
            node: id,
            now,
            clock,
            inbox,
            effects: &effects,
            before: &before,
            after: &process.status,
            disks: &self.disks,
        })?;
        self.on_configurations();
        self.execute_all(id, &mut effects)?;
        self.effects = effects;
        self.arm(id);
        Ok(())
    }

    /// Executes the effects of a step, unless the process dies on the way.
    fn execute_all(&mut self, id: NodeId, effects: &mut Vec<Effect>) -> Verdict {
        let dies = self.chance.effect_crash.chance(self.plan.process.effect_crashes);
        let survivors = if dies { self.chance.effect_crash.below(effects.len() as u64 + 1) } else { u64::MAX };
        for (nth, effect) in effects.drain(..).enumerate() {
            if nth as u64 == survivors {
                break;
            }
            self.execute(id, effect)?;
        }
        if dies {
            return self.crash(id);
        }
        Ok(())
    }

    fn execute(&mut self, id: NodeId, effect: Effect) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let life = node.life;
        match effect {
            Effect::Send { to, rpc } => self.send(id, to, rpc),
            Effect::Persist { seq, hard_state, entries } => {
                let hard_state = hard_state.map(|hard_state| *hard_state);
                self.disks[slot(id)].write(Write::Log { seq, hard_state, entries });
                self.sync(id);
            }
            Effect::Apply { entries, tokens } => self.hand_over(id, HandOver::Entries { entries, tokens }),
            Effect::Reply { request, outcome } => return self.on_reply(id, request, &outcome),
            Effect::ReadLog { id: read, from, through, max_bytes, .. } => {
                self.counts.log_reads += 1;
                let lost = self.chance.log_read.chance(self.plan.disk.read_failures / 2);
                if !lost {
                    let takes = self.chance.log_read.exponential(self.plan.disk.sync_mean);
                    let event = Happening::LogRead { node: id, life, id: read, from, through, max_bytes };
                    self.schedule.plan(now.after(takes), event);
                }
            }
            Effect::TakeSnapshot { meta } => self.hand_over(id, HandOver::Take { meta }),
            Effect::SendSnapshot { to, meta } => self.send_snapshot(id, to, meta.last),
            Effect::InstallSnapshot { seq, meta } => {
                let snapshot = self.arrived_snapshot(id, &meta)?;
                self.counts.snapshots_installed += 1;
                self.disks[slot(id)].write(Write::Install { seq, snapshot: snapshot.clone() });
                self.sync(id);
                self.hand_over(id, HandOver::Install { seq, snapshot });
            }
            Effect::Compact { through } => {
                if !self.chance.snapshot.chance(self.plan.snapshots.losses) {
                    self.disks[slot(id)].write(Write::Compact { through });
                    self.sync(id);
                }
            }
            Effect::Configured { .. } | Effect::Observe(_) => {}
        }
        Ok(())
    }

    fn send(&mut self, id: NodeId, to: NodeId, rpc: Rpc) {
        let now = self.schedule.now();
        let node = &self.nodes[slot(id)];
        let Some(status) = node.status() else { return };
        let (from, life) = (status.identity.peer(), node.life);
        let transit = self.network.send(now, (id, to));
        if let Some(at) = transit.duplicate {
            self.schedule.plan(at, Happening::Arrive { from, to, rpc: rpc.clone(), sent: now });
        }
        if let Some(at) = transit.arrival {
            self.schedule.plan(at, Happening::Arrive { from, to, rpc, sent: now });
        }
        if let Some(at) = transit.notice {
            self.schedule.plan(at, Happening::Notice { node: id, life, peer: to });
        }
    }

    /// Starts a sync if there is something to sync.
    fn sync(&mut self, id: NodeId) {
        let (now, node) = (self.schedule.now(), &self.nodes[slot(id)]);
        if self.disks[slot(id)].start_sync() {
            let spike = if self.chance.disk.chance(self.plan.disk.spikes) { 100 } else { 1 };
            let takes =
                self.chance.disk.exponential(self.plan.disk.sync_mean.saturating_mul(node.disk_factor.max(spike)));
            let at = now.after(takes).max(node.disk_stalled_until);
            self.schedule.plan(at, Happening::Synced { node: id, life: node.life });
        }
    }

    pub(crate) fn on_synced(&mut self, id: NodeId, life: u64) -> Verdict {
        let stalled_until = self.nodes[slot(id)].disk_stalled_until;
        if self.nodes[slot(id)].alive(life).is_none() {
            return Ok(());
        }
        if stalled_until > self.schedule.now() {
            self.schedule.plan(stalled_until, Happening::Synced { node: id, life });
            return Ok(());
        }
        let disk = &mut self.disks[slot(id)];
        let newest = disk.finish_sync();
        self.checks.on_synced(id, disk)?;
        if let Some(seq) = newest {
            self.give(id, Event::Persisted { seq });
        }
        self.sync(id);
        Ok(())
    }

    pub(crate) fn on_applied(&mut self, id: NodeId, life: u64) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        if node.life != life {
            return Ok(());
        }
        let Some(process) = &mut node.process else { return Ok(()) };
        // A machine that keeps its own state must not be ahead of the log after a crash.
        let waits = |seq| self.plan.process.durable_machine && self.disks[slot(id)].synced() < seq;
        if process.installs().is_some_and(waits) {
            self.look_again(id, life);
            return Ok(());
        }
        let Some(done) = process.apply(&mut node.machine) else { return Ok(()) };
        if process.is_applying() {
            let takes = self.chance.process.exponential(self.plan.process.apply_mean);
            self.schedule.plan(now.after(takes), Happening::Applied { node: id, life });
        }
        self.checks.on_applied(id, &node.machine)?;
        let applied = node.machine.applied();
        let tokens = match done {
            HandOver::Entries { tokens, .. } => tokens,
            HandOver::Install { .. } => Vec::new(),
            HandOver::Take { meta } => return self.take_snapshot(id, &meta),
        };
        for (index, request) in tokens {
            self.checks.history.on_acknowledged(id, request, index)?;
            self.answer(request, Answer::Done);
        }
        self.give(id, Event::Applied { index: applied });
        if self.chance.snapshot.chance(self.plan.snapshots.offers) {
            return self.offer_snapshot(id);
        }
        Ok(())
    }

    fn on_reply(&mut self, id: NodeId, request: RequestId, outcome: &Outcome) -> Verdict {
        if self.checks.history.errand(request).is_some() {
            self.on_errand_ended(outcome);
            return Ok(());
        }
        match outcome {
            Outcome::ReadReady { index } => {
                self.checks.history.on_read(id, request, *index, &self.nodes[slot(id)].machine)?;
                self.answer(request, Answer::Done);
            }
            Outcome::NotLeader { leader } => self.answer(request, Answer::TryAgain { leader: *leader }),
            Outcome::Busy(_) | Outcome::StorageFailed => self.answer(request, Answer::TryAgain { leader: None }),
            Outcome::Unknown { .. } => self.answer(request, Answer::Unknown),
            Outcome::Changed { .. }
            | Outcome::NotChanged(_)
            | Outcome::Transferred { .. }
            | Outcome::NotTransferred(_)
            | Outcome::SnapshotTaken { .. }
            | Outcome::SnapshotFailed => {}
        }
        Ok(())
    }

    /// Sends an answer to a client, if the network lets it.
    fn answer(&mut self, request: RequestId, answer: Answer) {
        if !self.chance.answer.chance(self.network.loss()) {
            let travel = self.chance.answer.exponential(self.plan.clients.travel_mean);
            self.schedule.plan(self.schedule.now().after(travel), Happening::Answer { request, answer });
        }
    }

    pub(crate) fn on_request(&mut self, to: NodeId, request: RequestId, padding: usize, mode: ReadMode) {
        if self.nodes[slot(to)].process.is_none() {
            // The connection is refused: nobody has heard of the request.
            self.answer(request, Answer::TryAgain { leader: None });
            return;
        }
        self.checks.history.on_handed_over(to, request);
        let event = match self.checks.history.command(request) {
            Some(command) => Event::Propose { request, command: command.encode(padding) },
            None => Event::Read { request, mode },
        };
        self.give(to, event);
    }
}
