//! Clients: each has one operation under way, follows hints, and tries again what was refused.
//!
//! A write whose end is unknown is not tried again: it may yet happen, and there are no sessions
//! here that would make it happen once. The history keeps it as open for ever.

use raft_core::{NodeId, ReadMode, RequestId, Time};

use crate::checks::history::History;
use crate::machine::{Command, Key};
use crate::node_at;
use crate::plan::ClientPlan;
use crate::rng::Rng;
use crate::schedule::Schedule;
use crate::world::Happening;

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// Not done, certainly; perhaps somebody else can.
    TryAgain { leader: Option<NodeId> },
    /// Nobody knows.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Put,
    Append,
}

/// An operation, until it is done or given up.
#[derive(Clone, Copy, Debug)]
struct Operation {
    kind: Kind,
    key: Key,
    mode: ReadMode,
    /// A read that any node will do for.
    anywhere: bool,
    give_up_at: Time,
    /// The attempt under way; none between two attempts.
    attempt: Option<RequestId>,
}

#[derive(Debug)]
struct Client {
    rng: Rng,
    /// Whom it takes for the leader.
    target: NodeId,
    operation: Option<Operation>,
    /// Acknowledged writes since healing.
    writes_since_heal: u64,
}

/// All clients of the cluster.
#[derive(Debug)]
pub(crate) struct Clients {
    plan: ClientPlan,
    nodes: u64,
    clients: Vec<Client>,
    /// Which client each attempt belongs to.
    owners: Vec<usize>,
    /// After healing: only writes until every client has one.
    healed: bool,
    stopped: bool,
    started: u64,
}

impl Clients {
    pub(crate) fn new(plan: ClientPlan, nodes: usize, rng: &Rng) -> Self {
        let nodes = nodes as u64;
        let clients = (0..plan.clients).map(|nth| {
            let mut rng = rng.fork_nth("client", nth);
            let target = node_at(rng.below(nodes) as usize);
            Client { rng, target, operation: None, writes_since_heal: 0 }
        });
        Self { plan, nodes, clients: clients.collect(), owners: Vec::new(), healed: false, stopped: false, started: 0 }
    }

    /// How many operations were begun.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    /// There are so many nodes now.
    pub(crate) fn meet(&mut self, nodes: usize) {
        self.nodes = self.nodes.max(nodes as u64);
    }

    /// From now on every client must get a write through.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
    }

    /// Whether every client got a write through since healing.
    pub(crate) fn all_wrote(&self) -> bool {
        self.clients.iter().all(|client| client.writes_since_heal > 0)
    }

    /// No client begins anything new.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether no client waits for anything.
    pub(crate) fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.operation.is_none())
    }

    /// A client has rested long enough, or tries again.
    pub(crate) fn on_ready(&mut self, nth: usize, schedule: &mut Schedule<Happening>, history: &mut History) {
        let now = schedule.now();
        let client = &mut self.clients[nth];
        if client.operation.is_none() {
            if self.stopped {
                return;
            }
            self.started += 1;
            client.operation = Some(client.begin(now, &self.plan, self.healed));
        }
        let Some(operation) = &mut client.operation else { return };
        if operation.attempt.is_some() {
            return;
        }
        let attempt = match operation.kind {
            Kind::Read => history.begin_read(operation.key),
            Kind::Put => history.begin_write(operation.key, |attempt| Command::Put { key: operation.key, attempt }),
            Kind::Append => {
                history.begin_write(operation.key, |attempt| Command::Append { key: operation.key, attempt })
            }
        };
        operation.attempt = Some(attempt);
        self.owners.push(nth);
        let stray = client.rng.chance(self.plan.strays) || operation.anywhere;
        let to = if stray { node_at(client.rng.below(self.nodes) as usize) } else { client.target };
        let padding = client.rng.below(self.plan.padding_max + 1) as usize;
        let travel = client.rng.exponential(self.plan.travel_mean);
        schedule.plan(now.after(travel), Happening::Request { to, request: attempt, padding, mode: operation.mode });
        schedule.plan(now.after(self.plan.timeout), Happening::GiveUp { request: attempt });
    }

    /// A client hears of an attempt.
    pub(crate) fn on_answer(
        &mut self,
        request: RequestId,
        answer: Answer,
        schedule: &mut Schedule<Happening>,
        history: &mut History,
    ) {
        let nth = self.owners[request.as_u64() as usize - 1];
        let client = &mut self.clients[nth];
        let Some(operation) = client.operation.as_mut().filter(|operation| operation.attempt == Some(request)) else {
            return;
        };
        let now = schedule.now();
        let is_write = operation.kind != Kind::Read;
        let tries_again = match answer {
            Answer::Done => {
                client.writes_since_heal += u64::from(is_write && self.healed);
                false
            }
            Answer::TryAgain { leader } => {
                history.on_given_up(request, true);
                client.target = leader.unwrap_or_else(|| node_at(client.rng.below(self.nodes) as usize));
                operation.attempt = None;
                now < operation.give_up_at
            }
            Answer::Unknown => {
                history.on_given_up(request, false);
                client.target = node_at(client.rng.below(self.nodes) as usize);
                operation.attempt = None;
                // Nobody minds if a read happens twice.
                !is_write && now < operation.give_up_at
            }
        };
        let rest = if tries_again { self.plan.backoff_mean } else { self.plan.think_mean };
        if !tries_again {
            client.operation = None;
        }
        schedule.plan(now.after(client.rng.exponential(rest)), Happening::ClientReady { client: nth });
    }
}

impl Client {
    fn begin(&mut self, now: Time, plan: &ClientPlan, healed: bool) -> Operation {
        let wants_write = healed && self.writes_since_heal == 0;
        let kind = if !wants_write && self.rng.chance(plan.reads) {
            Kind::Read
        } else if self.rng.chance(plan.appends) {
            Kind::Append
        } else {
            Kind::Put
        };
        let key = self.rng.below(plan.keys) as Key;
        let mode = if self.rng.chance(plan.lease_reads) { ReadMode::Lease } else { ReadMode::Quorum };
        let anywhere = kind == Kind::Read && self.rng.chance(plan.reads_anywhere);
        Operation { kind, key, mode, anywhere, give_up_at: now.after(plan.timeout * 3), attempt: None }
    }
}
