//! A cluster of three servers in one thread: an election, a few commands, a death, another
//! election, and in the end everybody who lives agrees.
//!
//! ```text
//! cargo run -p raft-core --example three_nodes
//! ```
//!
//! The core only says what is to be done; here is everything that a program has to do for it.
//! The disk of this world is durable at once, its network loses nothing and takes no time, and
//! its clock jumps to the next moment at which somebody wants to be woken.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Boot, ClusterId, Config, Durable, Effect, Entries, Event, HardState, Identity, Index, Limits, Member, Membership,
    Message, NodeId, Payload, Position, Raft, RequestId, RoleKind, Rpc, StateMachine, StoreId, Time, Timing,
};

/// What the cluster replicates: every command is written on the next line, and answered by its number.
#[derive(Default, PartialEq, Debug)]
struct Notebook(Vec<Bytes>);

impl StateMachine for Notebook {
    fn apply(&mut self, _: Position, command: &Bytes) -> Bytes {
        self.0.push(command.clone());
        format!("line {}", self.0.len()).into()
    }
}

struct Server {
    raft: Raft,
    identity: Identity,
    notebook: Notebook,
}

/// The world: the servers that live, what is about to happen to them, and the time.
struct World {
    now: Time,
    servers: BTreeMap<NodeId, Server>,
    events: VecDeque<(NodeId, Event)>,
}

impl World {
    /// Three servers that have never run before.
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let members = [1, 2, 3].map(|id| (NodeId::new(id).expect("ids start at 1"), StoreId::new(u128::from(id))));
        let membership = Membership::new(members.map(|(node, store)| Member { node, store }))?;
        let mut servers = BTreeMap::new();
        for (node, store) in members {
            let identity = Identity { cluster: ClusterId::new(7), node, store, boot: Boot::new(1) };
            let durable = Durable {
                identity,
                hard_state: HardState::default(),
                base: Position::ZERO,
                membership: membership.clone(),
                applied: Index::ZERO,
                last: Index::ZERO,
                runs: Vec::new(),
                tail: Entries::EMPTY,
            };
            let raft = Raft::new(Config::new(Timing::LAN, Limits::DEFAULT, 42)?, durable)?;
            servers.insert(node, Server { raft, identity, notebook: Notebook::default() });
        }
        Ok(Self { now: Time::ZERO, servers, events: VecDeque::new() })
    }

    /// One event in, some effects out; each effect is carried out, and most become events again.
    fn happen(&mut self, node: NodeId, event: Event) {
        // Whatever reaches the dead is lost.
        let Some(server) = self.servers.get_mut(&node) else { return };
        let now = self.now;
        for effect in server.raft.step(Message { at: now, event }) {
            match effect {
                Effect::Send { to, rpc } => {
                    // A story in which all hearts beat all the time is a dull one.
                    if !matches!(rpc, Rpc::Heartbeat { .. } | Rpc::HeartbeatReply { .. }) {
                        println!("{now}   {node} → {to} {rpc}");
                    }
                    self.events.push_back((to, Event::Received { from: server.identity.peer(), rpc }));
                }
                Effect::Persist { seq, .. } => self.events.push_back((node, Event::Persisted { seq })),
                Effect::Apply { entries, tokens } => {
                    for entry in entries.iter() {
                        let Payload::Command(command) = &entry.payload else { continue };
                        let answer = server.notebook.apply(entry.position(), command);
                        if tokens.iter().any(|(index, _)| *index == entry.index) {
                            println!("{now} {node} answers {command:?} with {answer:?}");
                        }
                    }
                    let index = entries.last().map_or(Index::ZERO, |entry| entry.index);
                    self.events.push_back((node, Event::Applied { index }));
                }
                Effect::Reply { request, outcome } => println!("{now} {node} ends request {request}: {outcome:?}"),
                Effect::Observe(observation) => println!("{now} {node}{observation}"),
                // Who is who never changes here.
                Effect::Configured { .. } => {}
                Effect::ReadLog { .. } => unreachable!("three commands fit into the log cache"),
            }
        }
    }

    /// Lets everything happen that happens until `end`.
    fn run_until(&mut self, end: Time) {
        loop {
            while let Some((node, event)) = self.events.pop_front() {
                self.happen(node, event);
            }
            let next = self.servers.iter().filter_map(|(node, server)| Some((server.raft.deadline()?, *node))).min();
            let Some((deadline, node)) = next.filter(|(deadline, _)| *deadline <= end) else { break };
            self.now = self.now.max(deadline);
            self.events.push_back((node, Event::Tick));
        }
        self.now = end;
    }

    /// The server that leads after a second; by then an election is long over.
    fn leader(&mut self) -> NodeId {
        self.run_until(self.now.after(Duration::from_secs(1)));
        let mut statuses = self.servers.values().map(|server| server.raft.status());
        let leader = statuses.find(|status| status.role == RoleKind::Leader).expect("a majority lives and can talk");
        leader.identity.node
    }

    fn propose(&mut self, leader: NodeId, request: u64, command: &'static str) {
        println!("{} a client asks {leader} to write {command:?}", self.now);
        let command = Bytes::from_static(command.as_bytes());
        self.happen(leader, Event::Propose { request: RequestId::new(request), command });
        self.run_until(self.now.after(Duration::from_millis(10)));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut world = World::new()?;

    println!("— three servers start; nobody leads");
    let first = world.leader();

    println!("— {first} leads; two commands");
    world.propose(first, 1, "buy milk");
    world.propose(first, 2, "feed the cat");

    println!("— {first} dies; the others notice its silence");
    world.servers.remove(&first);
    let second = world.leader();

    println!("— {second} leads; one more command");
    world.propose(second, 3, "buy another cat");

    println!("— everybody who lives has written the same");
    for (node, Server { notebook, .. }) in &world.servers {
        println!("{node} {notebook:?}");
        assert_eq!(notebook.0, ["buy milk", "feed the cat", "buy another cat"], "{node} disagrees");
    }
    Ok(())
}
