//! Layer 2: what a leader believes of one peer. All transitions are in this file.
//!
//! ```text
//!             acknowledged up to next-1
//!   Probe ───────────────────────────────▶ Replicate
//!     ▲   one append, then wait             appends as far as the window allows
//!     └────────────────────────────────────────┘
//!        rejected · unreachable · nothing arrives
//!
//!   Probe, Replicate ──(what it needs is compacted)──▶ Snapshot ──(acknowledged)──▶ Replicate
//!                                                         └──(failed · no progress)──▶ Probe
//! ```

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::config::Limits;
use crate::effect::ProgressMode;
use crate::log::Reading;
use crate::message::SnapshotFate;
use crate::types::{Index, ReadId, Round, StoreId, Time};

/// What a leader believes of one peer.
///
/// Invariants: `matched < next`; in `Probe` at most one append is under way; `confirmed` and
/// `anchor` never fall, nor does `matched` but for a regression.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The store that it is a member with; only from there its answers count (contract V9).
    store: StoreId,
    matched: Index,
    /// The newest round that had been sent when it was heard that far: whatever it says to a later
    /// one, it says with that much on its disk.
    matched_by: Round,
    next: Index,
    mode: Mode,
    /// The mode that was last told to the world.
    observed: ProgressMode,
    /// The newest round that it has answered in this term.
    confirmed: Round,
    /// When the newest round that it has answered was sent, or a little earlier.
    anchor: Time,
    /// It elects nobody else until then, by this leader's clock (contract T3).
    promised_until: Time,
    /// The highest commit index that a message under way may have told it.
    noticed: Index,
    /// It has forgotten what it verified (a restart does that): an append has to remind it, even
    /// an empty one, or it will not believe any commit index.
    unverified: bool,
    /// The highest index that is known to have arrived there, durable or not, and since when: a
    /// link that is slow but moves on has lost nothing.
    arrived: (Index, Time),
    /// The read that brings back entries for it, and when that was asked for.
    reading: Option<Reading>,
    /// How fast it catches up, round by round (Thesis 4.2.1).
    chase: Chase,
    /// It is no member any more, and goes when it knows.
    farewell: Option<Farewell>,
}

/// A learner's race with the end of the log. Each round lasts until it has what the log held when
/// the round began.
#[derive(Debug)]
struct Chase {
    target: Index,
    began: Time,
    /// Successive rounds that were short enough.
    short: u8,
}

/// What is left to tell a removed member.
#[derive(Debug)]
struct Farewell {
    /// The configuration without it.
    through: Index,
    /// When we stop trying; set when that configuration is committed.
    until: Option<Time>,
}

#[derive(Debug)]
enum Mode {
    /// Looking for the point where the logs agree: one append at a time.
    Probe(Probe),
    /// The logs agree up to `next - 1`, once everything under way has arrived.
    Replicate { window: Window },
    /// It is sent a snapshot that ends at `last`, and no entries meanwhile.
    Snapshot {
        last: Index,
        received: u64,
        /// When it was last heard to make progress.
        heard: Time,
    },
}

#[derive(Debug)]
enum Probe {
    /// The next append may leave.
    Ready,
    /// It has left.
    Sent(Flight),
    /// The peer cannot be reached: an append would only be lost. A heartbeat that comes back ends
    /// this; without it, a transport that reports every lost message would keep us spinning.
    Paused,
}

/// Appends under way.
#[derive(Debug, Default)]
struct Window {
    appends: VecDeque<Flight>,
    bytes: u64,
}

#[derive(Debug)]
struct Flight {
    last: Index,
    bytes: u64,
    sent: Time,
}

impl Window {
    fn launch(&mut self, flight: Flight) {
        self.bytes = self.bytes.saturating_add(flight.bytes);
        self.appends.push_back(flight);
    }

    fn land(&mut self, through: Index) {
        while let Some(flight) = self.appends.front().filter(|flight| flight.last <= through) {
            self.bytes = self.bytes.saturating_sub(flight.bytes);
            self.appends.pop_front();
        }
    }
}

/// What a rejection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It is the answer to something that is over.
    Stale,
    /// The logs agree less far than was hoped.
    News,
    /// The peer had acknowledged `from`, and has at most `to`.
    Regression { from: Index, to: Index },
}

impl Progress {
    /// A peer of which nothing is known, when the leader's log ends before `next`.
    pub(crate) fn new(store: StoreId, next: Index, now: Time) -> Self {
        Self {
            store,
            matched: Index::ZERO,
            matched_by: Round::ZERO,
            next,
            mode: Mode::Probe(Probe::Ready),
            observed: ProgressMode::Probe,
            confirmed: Round::ZERO,
            anchor: now,
            promised_until: Time::ZERO,
            noticed: Index::ZERO,
            unverified: false,
            arrived: (Index::ZERO, now),
            reading: None,
            chase: Chase { target: next.prev(), began: now, short: 0 },
            farewell: None,
        }
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    pub(crate) fn promised_until(&self) -> Time {
        self.promised_until
    }

    /// It has promised to elect nobody else before then.
    pub(crate) fn on_promised(&mut self, until: Time) {
        self.promised_until = self.promised_until.max(until);
    }

    /// How it is supplied.
    pub(crate) fn mode(&self) -> ProgressMode {
        match self.mode {
            Mode::Probe(_) => ProgressMode::Probe,
            Mode::Replicate { .. } => ProgressMode::Replicate,
            Mode::Snapshot { .. } => ProgressMode::Snapshot,
        }
    }

    /// How it is supplied, if that has changed since the last time this was asked.
    pub(crate) fn take_change_of_mode(&mut self) -> Option<ProgressMode> {
        let mode = self.mode();
        (core::mem::replace(&mut self.observed, mode) != mode).then_some(mode)
    }

    /// Looks at the race: how far the peer is, when the log ends at `last`. A round counts as short
    /// if it took less than `limit`.
    pub(crate) fn on_chased(&mut self, last: Index, now: Time, limit: Duration) {
        if self.matched >= self.chase.target {
            let is_short = now.since(self.chase.began) < limit;
            let short = if is_short { self.chase.short.saturating_add(1) } else { 0 };
            self.chase = Chase { target: last, began: now, short };
        }
    }

    /// Whether it would hold nobody up as a voter: it has answered lately, two successive rounds
    /// were short, and it lags behind the end by no more than `lag_max` entries (contract M3).
    pub(crate) fn has_caught_up(&self, last: Index, lag_max: u64, now: Time, limit: Duration) -> bool {
        self.chase.short >= 2 && last.since(self.matched) <= lag_max && now.since(self.anchor) < limit
    }

    /// The configuration set at `index` does not list it any more.
    pub(crate) fn on_removed(&mut self, index: Index) {
        self.farewell.get_or_insert(Farewell { through: index, until: None });
    }

    /// Whether it is still a member.
    pub(crate) fn is_member(&self) -> bool {
        self.farewell.is_none()
    }

    /// Whether a removed member knows that it is, or has been waited for long enough: `patience`
    /// from the commit of its removal.
    pub(crate) fn is_gone(&mut self, commit: Index, now: Time, patience: Duration) -> bool {
        let Some(farewell) = self.farewell.as_mut().filter(|farewell| farewell.through <= commit) else { return false };
        let until = *farewell.until.get_or_insert(now.after(patience));
        now >= until || (self.matched >= farewell.through && self.noticed >= farewell.through)
    }

    /// The last entry to send it, when the log ends at `last`. A removed member gets the entry that
    /// removes it, but not before that is committed: it might campaign on the strength of it (M4).
    pub(crate) fn last_to_send(&self, last: Index, commit: Index) -> Index {
        match &self.farewell {
            None => last,
            Some(farewell) if farewell.through <= commit => farewell.through,
            Some(farewell) => farewell.through.prev(),
        }
    }

    pub(crate) fn matched(&self) -> Index {
        self.matched
    }

    pub(crate) fn next(&self) -> Index {
        self.next
    }

    pub(crate) fn confirmed(&self) -> Round {
        self.confirmed
    }

    pub(crate) fn anchor(&self) -> Time {
        self.anchor
    }

    /// Appends under way.
    pub(crate) fn inflight(&self) -> usize {
        match &self.mode {
            Mode::Probe(probe) => usize::from(matches!(probe, Probe::Sent(_))),
            Mode::Replicate { window } => window.appends.len(),
            Mode::Snapshot { .. } => 0,
        }
    }

    /// Whether another append may leave now.
    pub(crate) fn may_send(&self, limits: &Limits) -> bool {
        match &self.mode {
            Mode::Probe(probe) => matches!(probe, Probe::Ready),
            Mode::Replicate { window } => {
                window.appends.len() < limits.inflight_messages_max && window.bytes < limits.inflight_bytes_max
            }
            Mode::Snapshot { .. } => false,
        }
    }

    /// Whether there is something to append, when the leader's log ends at `last`.
    pub(crate) fn wants_append(&self, last: Index) -> bool {
        self.next <= last || self.unverified
    }

    /// An append with entries up to `last` leaves.
    pub(crate) fn on_sent(&mut self, last: Index, bytes: u64, now: Time) {
        self.unverified = false;
        let flight = Flight { last, bytes, sent: now };
        match &mut self.mode {
            Mode::Probe(probe) => *probe = Probe::Sent(flight),
            Mode::Replicate { window } => {
                window.launch(flight);
                self.next = last.next();
            }
            Mode::Snapshot { .. } => unreachable!("an append leaves for a peer that is sent a snapshot"),
        }
    }

    /// A snapshot that ends at `last` leaves.
    pub(crate) fn on_snapshot_offered(&mut self, last: Index, now: Time) {
        self.reading = None;
        self.mode = Mode::Snapshot { last, received: 0, heard: now };
    }

    /// It says how it fares with the snapshot that ends at `of`.
    pub(crate) fn on_snapshot_status(&mut self, of: Index, fate: SnapshotFate, now: Time) {
        if let Mode::Snapshot { last, received, heard } = &mut self.mode
            && *last == of
        {
            match fate {
                SnapshotFate::Received(bytes) if bytes > *received => (*received, *heard) = (bytes, now),
                SnapshotFate::Received(_) => {}
                // It is offered again when it is heard from again: not in a busy loop.
                SnapshotFate::Failed => self.mode = Mode::Probe(Probe::Paused),
            }
        }
    }

    /// If it has made no progress with its snapshot for `patience`, the snapshot is lost.
    pub(crate) fn on_snapshot_silence(&mut self, now: Time, patience: Duration) {
        if let Mode::Snapshot { heard, .. } = self.mode
            && now.since(heard) >= patience
        {
            self.mode = Mode::Probe(Probe::Paused);
        }
    }

    /// It needs the log from the entry after this one on.
    pub(crate) fn needs_log_after(&self) -> Index {
        match self.mode {
            Mode::Snapshot { last, .. } => last.max(self.matched),
            Mode::Probe(_) | Mode::Replicate { .. } => self.matched,
        }
    }

    /// The peer has answered a message of `round`, which was sent at `anchor` or later.
    pub(crate) fn on_confirmed(&mut self, round: Round, anchor: Option<Time>) {
        self.confirmed = self.confirmed.max(round);
        self.anchor = anchor.map_or(self.anchor, |anchor| anchor.max(self.anchor));
    }

    /// The peer holds the leader's log, durably, up to `matched`.
    /// `newest` is the newest round that was sent.
    pub(crate) fn on_matched(&mut self, matched: Index, newest: Round, now: Time) {
        if matched > self.matched {
            self.matched_by = newest;
        }
        self.matched = self.matched.max(matched);
        self.on_arrived(matched, now);
        match &mut self.mode {
            // An answer to something older than the probe says nothing about the probe.
            Mode::Probe(_) if self.matched < self.next.prev() => {}
            Mode::Probe(probe) => {
                // The probe's entries have arrived, but need not be durable yet: they stay under way.
                let mut window = Window::default();
                self.next = self.matched.next();
                if let Probe::Sent(flight) = core::mem::replace(probe, Probe::Ready)
                    && flight.last > self.matched
                {
                    self.next = flight.last.next();
                    window.launch(flight);
                }
                self.mode = Mode::Replicate { window };
            }
            Mode::Replicate { window } => {
                window.land(self.matched);
                self.next = self.next.max(self.matched.next());
            }
            // It has the snapshot, or never needed it.
            Mode::Snapshot { last, .. } if self.matched >= *last => {
                self.next = self.matched.next();
                self.mode = Mode::Replicate { window: Window::default() };
            }
            // It has caught up a little by an earlier snapshot, or by late acknowledgements.
            Mode::Snapshot { .. } => self.next = self.next.max(self.matched.next()),
        }
    }

    fn on_arrived(&mut self, index: Index, now: Time) {
        if index > self.arrived.0 {
            self.arrived = (index, now);
        }
    }

    /// The peer does not hold `prev`; the logs may agree up to `candidate`.
    ///
    /// R1 – if its acknowledgement of `prev` was here before `round` was even sent, and it denies
    /// `prev` to that round, it has lost entries: no correct disk forgets what it has acknowledged.
    /// (That the round is newer than that of the acknowledgement would not do: if appends overtake
    /// each other, the later one is denied first, and the earlier one acknowledged after: ADR-0005.)
    pub(crate) fn on_rejected(&mut self, round: Round, prev: Index, candidate: Index) -> Denied {
        // Nobody can deny the beginning of all logs.
        if prev > Index::ZERO && prev <= self.matched && round > self.matched_by {
            let (from, to) = (self.matched, candidate.min(prev.prev()));
            self.matched = to;
            self.probe_from(to.next());
            return Denied::Regression { from, to };
        }
        let news = match &self.mode {
            // T44: a late answer to an earlier append must not pull `next` back.
            Mode::Probe(_) => prev == self.next.prev() && prev > self.matched,
            Mode::Replicate { .. } => prev > self.matched && prev < self.next,
            Mode::Snapshot { .. } => false,
        };
        if news {
            self.probe_from(candidate.max(self.matched).min(prev.prev()).next());
            return Denied::News;
        }
        Denied::Stale
    }

    /// What was under way is lost.
    pub(crate) fn on_unreachable(&mut self) {
        self.probe_from(self.matched.next());
        self.mode = Mode::Probe(Probe::Paused);
    }

    /// A heartbeat came back: `verified` is what has arrived there.
    ///
    /// If the oldest append under way, sent long before, is not among it, it never will be (T42,
    /// T48). If nothing is under way, and still the peer knows of less than it has acknowledged,
    /// it has to be reminded (T57).
    pub(crate) fn on_heartbeat_reply(&mut self, verified: Index, now: Time, patience: Duration) {
        self.on_arrived(verified, now);
        let moved = self.arrived.1;
        let overdue = |flight: &Flight| flight.last > verified && now.since(flight.sent.max(moved)) >= patience;
        match &mut self.mode {
            Mode::Probe(Probe::Sent(flight)) if now.since(flight.sent) < patience => {}
            Mode::Probe(probe) => {
                *probe = Probe::Ready;
                self.unverified = true;
            }
            Mode::Replicate { window } => match window.appends.front() {
                Some(oldest) if overdue(oldest) => self.probe_from(verified.max(self.matched).next()),
                Some(_) => {}
                None if verified < self.matched => {
                    self.probe_from(self.matched.next());
                    self.unverified = true;
                }
                None => {}
            },
            Mode::Snapshot { .. } => {}
        }
    }

    fn probe_from(&mut self, next: Index) {
        self.next = next;
        self.mode = Mode::Probe(Probe::Ready);
        self.reading = None;
    }

    /// The commit index worth telling an idle peer, if it has not been told.
    pub(crate) fn commit_to_notice(&self, commit: Index) -> Option<Index> {
        let known = commit.min(self.matched);
        (known > self.noticed).then_some(known)
    }

    /// A message that tells `commit` is under way.
    pub(crate) fn on_noticed(&mut self, commit: Index) {
        self.noticed = self.noticed.max(commit);
    }

    /// Whether entries for this peer are being read back; an overdue read no longer counts.
    pub(crate) fn is_read_pending(&self, now: Time) -> bool {
        self.reading.is_some_and(|reading| reading.is_pending(now))
    }

    /// Whether `id` is the read that was asked for last.
    pub(crate) fn is_reading(&self, id: ReadId) -> bool {
        self.reading.is_some_and(|reading| reading.id == id)
    }

    /// Entries were asked for.
    pub(crate) fn on_read_asked(&mut self, id: ReadId, now: Time, patience: Duration) {
        self.reading = Some(Reading::ask(id, self.reading, now, patience));
    }

    /// They came back.
    pub(crate) fn on_read_answered(&mut self) {
        self.reading = None;
    }
}
