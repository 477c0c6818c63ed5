//! A cluster of three servers in one thread: `cargo run -p raft-core --example three_nodes`
//!
//! The core says what is to be done; here is all that a program has to do for it. The disk of this
//! world is durable at once, its network loses nothing and takes no time, and its clock jumps to
//! the next moment at which somebody wants to be woken.

use std::collections::{BTreeMap, VecDeque};
use std::{error::Error, time::Duration};

use raft_core::{
    Boot, ClusterId, Config, Durable, Effect, Event, Identity, Limits, Member, Membership, Message, NodeId, Payload,
    Raft, RequestId, RoleKind, Rpc, StoreId, Time, Timing,
};

/// The servers that live, each with its notebook; what is about to happen to them; and the time.
#[derive(Default)]
struct World {
    servers: BTreeMap<NodeId, (Raft, Vec<String>)>,
    events: VecDeque<(NodeId, Event)>,
    now: Time,
}

impl World {
    fn start(&mut self, node: NodeId, membership: &Membership) -> Result<(), Box<dyn Error>> {
        let store = StoreId::new(node.as_u64().into());
        let identity = Identity { cluster: ClusterId::new(7), node, store, boot: Boot::new(1) };
        let config = Config::new(Timing::LAN, Limits::DEFAULT, 42)?;
        let raft = Raft::new(config, Durable::first_boot(identity, membership.clone()))?;
        self.servers.insert(node, (raft, Vec::new()));
        Ok(())
    }

    /// One event in, some effects out; each is carried out, and most become events again.
    fn happen(&mut self, node: NodeId, event: Event) {
        // Whatever reaches the dead is lost.
        let Some((raft, notebook)) = self.servers.get_mut(&node) else { return };
        let (now, me) = (self.now, raft.status().identity.peer());
        for effect in raft.step(Message { at: now, event }) {
            match effect {
                Effect::Send { to, rpc } => {
                    if !matches!(rpc, Rpc::Heartbeat { .. } | Rpc::HeartbeatReply { .. }) {
                        println!("{now}   {node} → {to} {rpc}");
                    }
                    self.events.push_back((to, Event::Received { from: me, rpc }));
                }
                Effect::Persist { seq, .. } => self.events.push_back((node, Event::Persisted { seq })),
                Effect::Apply { entries, .. } => {
                    for entry in entries.iter() {
                        if let Payload::Command(line) = &entry.payload {
                            notebook.push(String::from_utf8_lossy(line).into_owned());
                        }
                    }
                    self.events.extend(entries.last().map(|last| (node, Event::Applied { index: last.index })));
                }
                Effect::Observe(observation) => println!("{now} {node}{observation}"),
                Effect::Reply { request, outcome } => println!("{now} {node} ends request {request}: {outcome:?}"),
                // Nobody joins or leaves, and a few lines fit into the log cache, and into the log.
                Effect::Configured { .. }
                | Effect::ReadLog { .. }
                | Effect::TakeSnapshot { .. }
                | Effect::SendSnapshot { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::Compact { .. } => {}
            }
        }
    }

    /// Lets everything happen that happens within `span`, and says who leads then.
    fn run(&mut self, span: Duration) -> NodeId {
        let end = self.now.after(span);
        loop {
            while let Some((node, event)) = self.events.pop_front() {
                self.happen(node, event);
            }
            let deadlines = self.servers.iter().filter_map(|(node, (raft, _))| Some((raft.deadline()?, *node)));
            let Some((deadline, node)) = deadlines.min().filter(|(deadline, _)| *deadline <= end) else { break };
            self.now = self.now.max(deadline);
            self.events.push_back((node, Event::Tick));
        }
        self.now = end;
        let mut statuses = self.servers.values().map(|(raft, _)| raft.status());
        statuses.find(|status| status.role == RoleKind::Leader).expect("a majority lives").identity.node
    }

    fn write(&mut self, leader: NodeId, line: &'static str) {
        println!("{} a client asks {leader} to write {line:?}", self.now);
        self.happen(leader, Event::Propose { request: RequestId::new(1), command: line.into() });
        self.run(Duration::from_millis(10));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let members = (1..=3).filter_map(NodeId::new).map(|node| (node, StoreId::new(node.as_u64().into())));
    let membership = Membership::new(members.map(|(node, store)| Member { node, store }))?;
    let mut world = World::default();
    membership.voters().iter().try_for_each(|voter| world.start(voter.node, &membership))?;

    println!("— three servers start; nobody leads");
    let first = world.run(Duration::from_secs(1));
    world.write(first, "buy milk");
    println!("— {first} dies; the others notice its silence");
    world.servers.remove(&first);
    let second = world.run(Duration::from_secs(1));
    world.write(second, "feed the cat");
    println!("— whoever lives has written the same");
    for (node, (_, notebook)) in &world.servers {
        println!("{node} {notebook:?}");
        assert_eq!(notebook, &["buy milk", "feed the cat"], "{node} disagrees");
    }
    Ok(())
}
