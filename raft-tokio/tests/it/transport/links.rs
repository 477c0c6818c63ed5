//! Between peers.

use std::net::UdpSocket;

use tokio::sync::oneshot;

use super::*;

pub(super) async fn pair() -> (Station, Station) {
    let authority = authority(7);
    let (mut first, mut second) =
        (Station::open(options(&authority, peer(1, 1))), Station::open(options(&authority, peer(2, 1))));
    first.connect(2, second.address());
    second.connect(1, first.address());
    first.reach(2, &mut second).await;
    second.reach(1, &mut first).await;
    (first, second)
}

#[tokio::test]
async fn messages_of_each_class_arrive_in_order_and_say_from_whom() {
    let (first, mut second) = pair().await;
    for round in 1..=100 {
        first.endpoint.send(node(2), append(round, 1_000));
        first.endpoint.send(node(2), heartbeat(round));
    }
    let (mut urgent, mut bulk) = (Vec::new(), Vec::new());
    while urgent.len() + bulk.len() < 200 {
        match second.news().await {
            Incoming::Received { from, rpc: rpc @ Rpc::Append(_) } => {
                assert_eq!(from, peer(1, 1));
                bulk.push(rpc);
            }
            Incoming::Received { from, rpc } => {
                assert_eq!(from, peer(1, 1));
                urgent.push(rpc);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(urgent.into_iter().eq((1..=100).map(heartbeat)));
    assert!(bulk.into_iter().eq((1..=100).map(|round| append(round, 1_000))));
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_behind_megabytes_of_appends() {
    let (first, mut second) = pair().await;
    for round in 1..=4 {
        first.endpoint.send(node(2), append(round, 6 << 20));
    }
    first.endpoint.send(node(2), heartbeat(5));
    let mut order = Vec::new();
    while order.len() < 5 {
        match second.news().await {
            Incoming::Received { rpc: Rpc::Append(append), .. } => order.push(append.round.as_u64()),
            Incoming::Received { rpc: Rpc::Heartbeat { round, .. }, .. } => order.push(round.as_u64()),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(order, [5, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_peer_that_comes_back_on_its_port_is_found_again() {
    let authority = authority(7);
    let mut first = Station::open(options(&authority, peer(1, 1)));
    let mut second = Station::open(options(&authority, peer(2, 1)));
    let address = second.address();
    first.connect(2, address.clone());
    second.connect(1, first.address());
    first.reach(2, &mut second).await;

    second.endpoint.close().await;
    assert_eq!(first.unreachable().await, node(2));
    let listen = address.parse().expect("because it was an address before");
    let mut again = Station::open(Options { listen, ..options(&authority, peer(2, 2)) });
    again.connect(1, first.address());
    assert_eq!(first.reach(2, &mut again).await, peer(1, 1));
    assert_eq!(again.reach(1, &mut first).await, peer(2, 2));
}

/// A station in a runtime of its own, which can be ended as a kill would end it: without a word.
struct Mortal {
    station: Station,
    kill: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Mortal {
    async fn open(options: Options) -> Self {
        let (opened, station) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("because the system has an event queue").block_on(async move {
                assert!(opened.send(Station::open(options)).is_ok(), "the test has ended");
                killed.await.expect("because the test kills it");
            });
            // The runtime is dropped here, and all tasks with it.
        });
        let station = in_time("the station", station).await.expect("because its thread has sent it");
        Self { station, kill, thread }
    }

    fn kill(self) {
        self.kill.send(()).expect("because it waits for this");
        self.thread.join().expect("because it was killed and did not panic");
    }
}

/// Well before the idle timeout of 3 s.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let within = Duration::from_millis(2_500);
    tokio::time::timeout(within, future).await.unwrap_or_else(|_| panic!("{what}: not within {within:?}"))
}

/// No packet says goodbye when a process is killed. Its successor does, as soon as it gets one
/// that was meant for the dead.
#[tokio::test]
async fn a_peer_that_was_killed_is_missed_as_soon_as_its_port_answers_again() {
    let authority = authority(7);
    let first = Station::open(options(&authority, peer(1, 1)));
    // The same key before and after: the resets are made from it.
    let reborn = options(&authority, peer(2, 2));
    let mut doomed = Mortal::open(Options { me: peer(2, 1), ..reborn.clone() }).await;
    let listen = doomed.station.endpoint.local_addr();
    first.connect(2, doomed.station.address());
    first.reach(2, &mut doomed.station).await;
    doomed.kill();
    // It does not dial: nothing but a reset can tell that the old connection is void.
    let mut again = Station::open(Options { listen, ..reborn });
    assert_eq!(soon("the reset", first.reach(2, &mut again)).await, peer(1, 1));
}

/// Where its packets do not arrive, or its key is another, what it says in its own hello tells.
#[tokio::test]
async fn a_peer_that_connects_in_a_newer_life_is_dialled_anew() {
    let authority = authority(7);
    let mut first = Station::open(options(&authority, peer(1, 1)));
    let mut doomed = Mortal::open(options(&authority, peer(2, 1))).await;
    let listen = doomed.station.endpoint.local_addr();
    first.connect(2, doomed.station.address());
    first.reach(2, &mut doomed.station).await;
    doomed.kill();
    let mut again = Station::open(Options { listen, ..options(&authority, peer(2, 2)) });
    again.connect(1, first.address());
    assert_eq!(soon("its hello", again.reach(1, &mut first)).await, peer(2, 2));
    assert_eq!(soon("the new dial", first.reach(2, &mut again)).await, peer(1, 1));
}

#[tokio::test]
async fn urgent_messages_that_wait_at_a_shutdown_still_leave() {
    let (first, mut second) = pair().await;
    for round in 1..=50 {
        first.endpoint.send(node(2), heartbeat(round));
    }
    first.endpoint.close().await;
    for round in 1..=50 {
        let received = Incoming::Received { from: peer(1, 1), rpc: heartbeat(round) };
        // Its own link to the one that stops ends, too.
        let news = match second.news().await {
            Incoming::Unreachable { .. } => second.news().await,
            news => news,
        };
        assert_eq!(news, received);
    }
}

#[tokio::test]
async fn rule_r5_what_cannot_be_sent_is_bounded_and_reported() {
    let authority = authority(7);
    // It takes every packet and answers none.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("because a port is free");
    let limits = Limits { urgent_queue_max: 10, bulk_queue_max: 4, ..Limits::DEFAULT };
    let mut station = Station::open(Options { limits, ..options(&authority, peer(1, 1)) });
    station.connect(2, silent.local_addr().expect("because it is bound").to_string());
    for round in 1..=25 {
        station.endpoint.send(node(2), heartbeat(round));
    }
    assert_eq!(station.endpoint.counters().urgent_dropped, 15);
    for round in 1..=5 {
        station.endpoint.send(node(2), append(round, 10));
    }
    assert_eq!(station.endpoint.counters().bulk_dropped, 5);
    assert_eq!(station.unreachable().await, node(2));
    station.endpoint.send(node(3), append(1, 10));
    assert_eq!(station.endpoint.counters().bulk_dropped, 6, "nobody has named n3");
}

#[tokio::test]
async fn an_append_that_is_too_long_is_lost_alone() {
    let authority = authority(7);
    let limits = Limits { rpc_bytes_max: 1 << 16, ..Limits::DEFAULT };
    let mut first = Station::open(Options { limits, ..options(&authority, peer(1, 1)) });
    let mut second = Station::open(options(&authority, peer(2, 1)));
    first.connect(2, second.address());
    first.reach(2, &mut second).await;
    first.endpoint.send(node(2), append(1, 1 << 17));
    assert_eq!(first.unreachable().await, node(2));
    first.endpoint.send(node(2), append(2, 1 << 10));
    assert_eq!(second.news().await, Incoming::Received { from: peer(1, 1), rpc: append(2, 1 << 10) });
}

#[tokio::test]
async fn a_peer_that_is_not_named_any_more_gets_nothing() {
    let (mut first, mut second) = pair().await;
    first.endpoint.connect_peers(BTreeMap::new());
    first.endpoint.send(node(2), heartbeat(1));
    assert_eq!(first.endpoint.counters().urgent_dropped, 1);
    assert_eq!(first.unreachable().await, node(2));
    // The other direction is not touched.
    second.endpoint.send(node(1), heartbeat(2));
    assert_eq!(first.news().await, Incoming::Received { from: peer(2, 1), rpc: heartbeat(2) });
    first.connect(2, second.address());
    first.reach(2, &mut second).await;
}

#[tokio::test]
async fn rule_x1_a_panic_while_a_message_is_handed_over_costs_one_connection() {
    let authority = authority(7);
    let mut first = Station::open(options(&authority, peer(1, 1)));
    let (outbox, inbox) = mpsc::unbounded_channel();
    let report = move |incoming| match incoming {
        Incoming::Received { rpc: Rpc::TermOver { .. }, .. } => panic!("the node cannot bear this message"),
        incoming => drop(outbox.send(incoming)),
    };
    let endpoint = Endpoint::bind(options(&authority, peer(2, 1)), report, None).expect("because a port is free");
    let mut second = Station { endpoint, inbox };
    first.connect(2, second.address());
    first.reach(2, &mut second).await;
    first.endpoint.send(node(2), Rpc::TermOver { term: Term::new(1) });
    assert_eq!(first.unreachable().await, node(2));
    first.reach(2, &mut second).await;
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let (first, mut second) = pair().await;
    let vandal = UdpSocket::bind("127.0.0.1:0").expect("because a port is free");
    // Deterministic noise: long headers, short headers, and neither.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2_000_u64 {
        let len = [1, 20, 300, 1_200, 1_452][(round % 5) as usize];
        let mut datagram: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        match round % 3 {
            // An initial packet of QUIC 1, as far as its first bytes go.
            0 => datagram.splice(0..len.min(6), [0xc3, 0, 0, 0, 1, 8].into_iter().take(len)).for_each(drop),
            1 => datagram[0] = 0x41,
            _ => {}
        }
        vandal.send_to(&datagram, second.endpoint.local_addr()).expect("because loopback takes it");
        if round % 100 == 0 {
            first.endpoint.send(node(2), heartbeat(round + 1));
            let received = Incoming::Received { from: peer(1, 1), rpc: heartbeat(round + 1) };
            assert_eq!(second.news().await, received);
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let authority = authority(7);
    let first = Station::open(options(&authority, peer(1, 1)));
    let listen = first.endpoint.local_addr();
    let Err(error) = Station::try_open(Options { listen, ..options(&authority, peer(2, 1)) }, None) else {
        panic!("two endpoints listen at {listen}")
    };
    assert!(matches!(error, TransportError::AddressInUse { address } if address == listen), "{error}");
    let text = error.to_string();
    assert!(text.contains(&listen.to_string()) && text.contains("already in use"), "{text}");
}

#[tokio::test]
async fn a_closed_endpoint_has_given_its_port_back() {
    let authority = authority(7);
    let mut listen = "127.0.0.1:0".parse().expect("because it is an address");
    let mut other = Station::open(options(&authority, peer(2, 1)));
    for boot in 1..=5 {
        let station = Station::open(Options { listen, ..options(&authority, peer(1, boot)) });
        listen = station.endpoint.local_addr();
        station.connect(2, other.address());
        assert_eq!(station.reach(2, &mut other).await, peer(1, boot));
        station.endpoint.close().await;
    }
}

#[test]
fn without_a_runtime_the_endpoint_says_so() {
    let Err(error) = Station::try_open(options(&authority(7), peer(1, 1)), None) else {
        panic!("an endpoint runs without a runtime")
    };
    assert!(matches!(error, TransportError::NoRuntime), "{error}");
}
