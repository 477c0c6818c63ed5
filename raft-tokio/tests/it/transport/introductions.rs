//! Who is heard without being known, and where nodes say that they are.

use raft_tokio::transport::AddressFault;

use super::stranger::{Stranger, frame};
use super::*;

fn introduced(id: u64, address: &str) -> Incoming {
    Incoming::Introduced { node: node(id), address: address.to_owned() }
}

#[tokio::test]
async fn a_peer_that_nobody_has_named_is_heard() {
    let authority = authority(7);
    let mut station = Station::open(options(&authority, peer(1, 1)));
    let unknown = Station::open(options(&authority, peer(4, 1)));
    station.connect(2, "127.0.0.1:1");
    unknown.connect(1, station.address());
    assert_eq!(unknown.reach(1, &mut station).await, peer(4, 1));
    unknown.endpoint.send(node(1), append(1, 10_000));
    assert_eq!(station.news_of(peer(4, 1)).await, append(1, 10_000));
    station.endpoint.send(node(4), heartbeat(1));
    assert_eq!(station.endpoint.counters().urgent_dropped, 1, "it is heard, but nobody knows where it is");
}

#[tokio::test]
async fn a_node_that_connects_says_where_it_listens_before_anything_else() {
    let authority = authority(7);
    let mut station = Station::open(options(&authority, peer(1, 1)));
    for (boot, address) in [(1, "n4.example.com:7400"), (2, "[2001:db8::4]:7400")] {
        let advertise = Some(address.to_owned());
        let joiner = Station::open(Options { advertise, ..options(&authority, peer(4, boot)) });
        joiner.connect(1, station.address());
        joiner.endpoint.send(node(1), heartbeat(1));
        assert_eq!(station.incoming().await, introduced(4, address));
        assert_eq!(station.incoming().await, Incoming::Received { from: peer(4, boot), rpc: heartbeat(1) });
        joiner.endpoint.close().await;
    }
}

#[tokio::test]
async fn a_node_that_is_introduced_can_be_answered() {
    let authority = authority(7);
    let mut station = Station::open(options(&authority, peer(1, 1)));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("because a port is free");
    let listen = socket.local_addr().expect("because it is bound");
    drop(socket);
    let advertise = Some(listen.to_string());
    let mut joiner = Station::open(Options { listen, advertise, ..options(&authority, peer(4, 1)) });
    joiner.connect(1, station.address());
    let Incoming::Introduced { node, address } = station.incoming().await else { panic!("it is not introduced") };
    station.connect(node.as_u64(), address);
    assert_eq!(station.reach(4, &mut joiner).await, peer(1, 1));
}

#[tokio::test]
async fn a_node_does_not_start_with_an_address_that_nobody_could_connect_to() {
    let authority = authority(7);
    for (address, expected) in [("n1", AddressFault::Incomplete), ("0.0.0.0:7400", AddressFault::Unspecified)] {
        let advertise = Some(address.to_owned());
        let Err(error) = Station::try_open(Options { advertise, ..options(&authority, peer(1, 1)) }, None) else {
            panic!("it listens at {address}")
        };
        assert!(error.to_string().contains(&format!("'{address}'")), "{error}");
        assert!(matches!(error, TransportError::BadAddress { fault, .. } if fault == expected), "{error:?}");
    }
}

#[tokio::test]
async fn a_bad_address_is_not_passed_on_and_makes_nothing_else_bad() {
    let authority = authority(7);
    let mut station = Station::open(options(&authority, peer(1, 1)));
    let endless = format!("{}:1", "a".repeat(600));
    let bad = ["", "nowhere", "n2:0", "n2:7400\nWARN all is lost", endless.as_str()];
    for (address, boot) in bad.into_iter().zip(1..) {
        let stranger = Stranger::peer(&authority, peer(2, boot), &station, Some(address)).await;
        // "Your term is over", term 3.
        stranger.open_uni().await.write_all(&frame(3, &[10, 3])).await.expect("because the window is open");
        let received = Incoming::Received { from: peer(2, boot), rpc: Rpc::TermOver { term: Term::new(3) } };
        assert_eq!(station.incoming().await, received, "{address:?}");
    }
    let stranger = Stranger::peer(&authority, peer(2, 9), &station, Some("n2:7400")).await;
    assert_eq!(station.incoming().await, introduced(2, "n2:7400"));
    drop(stranger);
}
