//! The socket's lives: starts the QUIC endpoint, supervises its tasks, and starts it anew when it is lost.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::NodeId;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::timeout;

use super::contain::{Drivers, Held, failure};
use super::endpoint::Shared;
use super::error::Refusal;
use super::limits::{CLOSE_TIMEOUT, FLUSH_TIMEOUT};
use super::link::{self, Pause, Slot, closed};
use super::{Incoming, accept};

/// What every generation of the socket is made from.
pub(super) struct Ground {
    pub(super) socket: UdpSocket,
    pub(super) endpoint: quinn::EndpointConfig,
    pub(super) server: quinn::ServerConfig,
    pub(super) client: quinn::ClientConfig,
}

/// One life of the QUIC endpoint on the socket.
pub(super) struct Generation {
    shared: Arc<Shared>,
    drivers: Arc<Drivers>,
    quinn: Arc<Held<quinn::Endpoint>>,
    accept: JoinSet<()>,
    links: JoinSet<()>,
    linked: BTreeMap<NodeId, (Arc<Slot>, AbortHandle)>,
}

/// How a generation ended.
enum End {
    Closed,
    Lost(String),
}

/// Keeps a generation running until the endpoint closes.
pub(super) async fn supervise(shared: Arc<Shared>, ground: Ground, first: Generation) {
    let mut pause = Pause::new((Duration::from_millis(10), Duration::from_secs(1)));
    let mut next = Some(first);
    loop {
        let since = Instant::now();
        let end = match next.take().map_or_else(|| Generation::start(&shared, &ground), Ok) {
            Ok(generation) => {
                // In a task of its own, so that its panic is seen here.
                let mut running = JoinSet::new();
                running.spawn(generation.run());
                match running.join_next().await {
                    Some(Ok(end)) => end,
                    Some(Err(error)) => End::Lost(failure(error)),
                    None => End::Lost("it was stopped".to_owned()),
                }
            }
            Err(error) => End::Lost(error.to_string()),
        };
        let reason = match end {
            End::Closed => return,
            End::Lost(reason) => reason,
        };
        tracing::error!(reason, "the QUIC endpoint is lost and started anew; every connection with it");
        let slots: Vec<_> = shared.slots().values().cloned().collect();
        for slot in slots {
            slot.queue.clear();
            shared.report(Incoming::Unreachable { node: slot.node });
        }
        pause.on_lived(since.elapsed());
        let mut closing = shared.closing();
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = closed(&mut closing) => return,
        }
    }
}

impl Generation {
    pub(super) fn start(shared: &Arc<Shared>, ground: &Ground) -> std::io::Result<Self> {
        let drivers = Arc::new(Drivers::default());
        // Each generation has its own handle of the one socket: what a panic leaks cannot keep the port.
        let socket = ground.socket.try_clone()?;
        let mut quinn =
            quinn::Endpoint::new(ground.endpoint.clone(), Some(ground.server.clone()), socket, drivers.clone())?;
        quinn.set_default_client_config(ground.client.clone());
        let quinn = Arc::new(Held::new(quinn));
        let mut accept = JoinSet::new();
        accept.spawn(accept::run(shared.clone(), quinn.clone()));
        Ok(Self { shared: shared.clone(), drivers, quinn, accept, links: JoinSet::new(), linked: BTreeMap::new() })
    }

    async fn run(mut self) -> End {
        let mut closing = self.shared.closing();
        let shared = self.shared.clone();
        let drivers = self.drivers.clone();
        loop {
            self.link();
            let reason = tokio::select! {
                // The tasks see it too, and end: that must not be taken for a loss.
                biased;
                () = closed(&mut closing) => {
                    self.close().await;
                    return End::Closed;
                }
                () = shared.slots_changed.notified() => continue,
                Some(ended) = self.links.join_next_with_id(), if !self.links.is_empty() => {
                    self.on_link_ended(ended);
                    continue;
                }
                ended = self.accept.join_next() => match ended {
                    Some(Err(error)) => failure(error),
                    _ => "it accepts no more".to_owned(),
                },
                () = drivers.panicked() => "a task of the QUIC library panicked".to_owned(),
            };
            self.links.abort_all();
            self.accept.abort_all();
            self.drivers.stop().await;
            // Its destructor may meet a poisoned mutex, and there is nothing left for it to do.
            std::mem::forget(self.quinn);
            return End::Lost(reason);
        }
    }

    /// Makes the links those that are configured.
    fn link(&mut self) {
        let slots = self.shared.slots().clone();
        self.linked.retain(|node, (slot, task)| {
            let stays = slots.get(node).is_some_and(|wanted| Arc::ptr_eq(wanted, slot));
            if !stays {
                // What was on its way is lost, as with any other end of a connection.
                task.abort();
                self.shared.report(Incoming::Unreachable { node: *node });
            }
            stays
        });
        for (node, slot) in slots {
            let (shared, quinn) = (&self.shared, &self.quinn);
            let links = &mut self.links;
            self.linked.entry(node).or_insert_with(|| {
                let task = links.spawn(link::run(shared.clone(), quinn.clone(), slot.clone()));
                (slot, task)
            });
        }
    }

    /// A link ends by itself only if it panicked: it is started anew, on a clean slate.
    fn on_link_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let found = self.linked.iter().find(|(_, (_, task))| task.id() == id).map(|(node, _)| *node);
        let Some((slot, _)) = found.and_then(|node| self.linked.remove(&node)) else { return };
        if let Err(error) = ended {
            self.shared
                .log_failure(slot.node, &format_args!("its link failed and is started anew: {}", failure(error)));
        }
        slot.queue.clear();
        self.shared.report(Incoming::Unreachable { node: slot.node });
    }

    async fn close(mut self) {
        let flushed = async {
            while self.links.join_next().await.is_some() {}
            while self.accept.join_next().await.is_some() {}
        };
        let _ = timeout(FLUSH_TIMEOUT, flushed).await;
        self.links.shutdown().await;
        self.accept.shutdown().await;
        self.quinn.close(Refusal::ShuttingDown.code(), b"");
        let _ = timeout(CLOSE_TIMEOUT, self.quinn.wait_idle()).await;
        drop(self.quinn);
        self.drivers.stop().await;
        // The deadline of the whole close ends this one, too.
        self.drivers.released().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use bytes::Bytes;
    use quinn::Runtime as _;
    use raft_core::{Boot, ClusterId, Peer, StoreId};

    use super::super::endpoint::prepare;
    use super::super::{Bound, Caller, ClientEndpoint, Limits, Service};
    use super::*;
    use crate::certs::{Authority, Credentials};

    struct Echo;

    impl Service for Echo {
        fn call(&self, _: &Caller, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
            Box::pin(async move { request })
        }
    }

    #[tokio::test]
    async fn rule_x1_a_panic_inside_quinn_costs_connections_and_neither_the_port_nor_the_process() {
        let authority = Authority::new(ClusterId::new(7)).expect("because the system has randomness");
        let node = NodeId::new(1).expect("because 1 is not 0");
        let issued = authority.issue_node(node).expect("because the system has randomness");
        let client = authority.issue_client("ops").expect("because the name is plain");
        let [server, client] = [issued, client].map(|issued| {
            Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)
                .expect("because they were issued together")
        });
        let listen = "127.0.0.1:0".parse().expect("because it is an address");
        let bound = Bound::new(listen, None, node, authority.cluster(), &server).expect("because a port is free");
        let me = Peer { node, store: StoreId::new(1), boot: Boot::new(1) };
        let (shared, ground) = prepare(bound, me, Limits::DEFAULT, Box::new(|_| {}), Some(Arc::new(Echo)))
            .expect("because it is the node that the socket was bound for");
        let first = Generation::start(&shared, &ground).expect("because the socket is bound");
        let drivers = first.drivers.clone();
        let address = ground.socket.local_addr().expect("because it is bound").to_string();
        let root = tokio::spawn(supervise(shared.clone(), ground, first));

        let clients = ClientEndpoint::new(&client, Limits::DEFAULT).expect("because a port is free");
        let before = clients.connect(&address, None).await.expect("because the node serves");
        assert_eq!(before.call("one".into()).await, Ok("one".into()));
        drivers.spawn(Box::pin(async { panic!("inside quinn") }));
        drivers.panicked().await;
        let after = clients.connect(&address, None).await.expect("because the node serves again");
        assert_eq!(after.call("two".into()).await, Ok("two".into()));
        let closed = timeout(Duration::from_secs(20), before.closed()).await;
        assert!(closed.is_ok(), "the client has not noticed that its connection is gone");

        shared.closing.send_replace(true);
        assert!(timeout(Duration::from_secs(20), root).await.is_ok(), "the endpoint does not close");
    }
}
