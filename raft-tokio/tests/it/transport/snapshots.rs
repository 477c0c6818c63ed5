//! Snapshots, and what they must not get in the way of.

use std::net::UdpSocket;

use raft_tokio::core::{Configuration, Member, Membership, SnapshotMeta};

use super::links::pair;
use super::stranger::{Stranger, frame};
use super::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn last(index: u64) -> Position {
    Position::new(Index::new(index), Term::new(1))
}

/// A snapshot that ends at `index`.
fn meta(index: u64) -> SnapshotMeta {
    let members = [1, 2].map(|id| Member { node: node(id), store: peer(id, 1).store });
    let membership = Arc::new(Membership::new(members).expect("because they differ"));
    SnapshotMeta { last: last(index), configuration: Configuration { index: Index::ZERO, membership }, bytes: 0 }
}

/// Bytes among which none is easily taken for another: noise of a prime length, again and again.
/// Made of large pieces, because a test that computes for a second looks like a dead process.
fn state(len: usize) -> Bytes {
    let noise = (0..65_521_u64).map(|nth| (nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    let mut state = noise.collect::<Vec<u8>>().repeat(len / 65_521 + 1);
    state.truncate(len);
    state.into()
}

fn arrived(from: Peer, index: u64, data: Bytes) -> Incoming {
    Incoming::Snapshot { from, meta: meta(index), data }
}

fn failed(from: Peer, index: u64) -> Incoming {
    Incoming::SnapshotFailed { from, last: last(index) }
}

/// The first frame of a snapshot's stream, put together from the description of the format alone.
fn announcement(index: u64, bytes: u64, checksum: u32) -> Vec<u8> {
    frame(7, &postcard::to_stdvec(&(meta(index), bytes, checksum)).expect("because memory suffices"))
}

/// The whole stream of a snapshot that is as it should be.
fn announced(index: u64, data: &[u8]) -> Vec<u8> {
    let mut stream = announcement(index, data.len() as u64, crc32c::crc32c(data));
    stream.extend(data);
    stream
}

impl Station {
    /// What comes, besides news of progress.
    async fn outcome(&mut self) -> Incoming {
        loop {
            match self.news().await {
                Incoming::SnapshotProgress { .. } => {}
                other => return other,
            }
        }
    }

    /// Waits for news of progress, and for nothing else.
    async fn progress(&mut self) -> u64 {
        match self.news().await {
            Incoming::SnapshotProgress { received, .. } => received,
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// A station, and somebody else who has connected to it as n2.
async fn visited(limits: Limits) -> (Station, Stranger) {
    let authority = authority(7);
    let station = Station::open(Options { limits, ..options(&authority, peer(1, 1)) });
    let stranger = Stranger::peer(&authority, peer(2, 1), &station, None).await;
    (station, stranger)
}

async fn write(stream: &mut quinn::SendStream, bytes: &[u8]) {
    in_time("room in the window", stream.write_all(bytes)).await.expect("because the stream is read");
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_its_progress_is_told() {
    let (first, mut second) = pair().await;
    let data = state(3 * MIB + 17);
    first.endpoint.send_snapshot(node(2), meta(8), data.clone());
    let mut told = vec![0];
    let outcome = loop {
        match second.news().await {
            Incoming::SnapshotProgress { from, last: of, received } => {
                assert_eq!((from, of), (peer(1, 1), last(8)));
                told.push(received);
            }
            other => break other,
        }
    };
    assert_eq!(outcome, arrived(peer(1, 1), 8, data.clone()));
    assert!((8..=12).contains(&(told.len() - 1)), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[1] >= pair[0] + 256 * KIB as u64), "{told:?}");
    assert!(told.last() <= Some(&(data.len() as u64)), "{told:?}");
}

#[tokio::test]
async fn snapshots_follow_each_other_and_may_be_empty() {
    let (first, mut second) = pair().await;
    for (index, data) in (1..).zip([state(100), Bytes::new(), state(MIB)]) {
        first.endpoint.send_snapshot(node(2), meta(index), data.clone());
        assert_eq!(second.outcome().await, arrived(peer(1, 1), index, data));
    }
    assert_eq!(first.endpoint.counters().snapshots_dropped, 0);
}

/// Where the network is the limit, what matters more goes first: by order, not by time.
#[tokio::test]
async fn what_waits_with_a_snapshot_leaves_before_it() {
    let (first, mut second) = pair().await;
    first.endpoint.send_snapshot(node(2), meta(8), state(2 * MIB));
    first.endpoint.send(node(2), append(1, MIB));
    first.endpoint.send(node(2), heartbeat(2));
    let expected = [heartbeat(2), append(1, MIB)].map(|rpc| Incoming::Received { from: peer(1, 1), rpc });
    for expected in expected {
        assert_eq!(second.news().await, expected);
    }
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 8, state(2 * MIB)));
}

#[tokio::test]
async fn messages_pass_a_large_snapshot_that_is_under_way() {
    let (first, mut second) = pair().await;
    let data = state(64 * MIB);
    first.endpoint.send_snapshot(node(2), meta(8), data.clone());
    let (mut received, mut passed) = (0, 0);
    // What is on the wire already, and the appends themselves.
    let most = 4 * MIB as u64;
    while received + most < data.len() as u64 {
        received = second.progress().await;
        passed += 1;
        first.endpoint.send(node(2), append(passed, 100 * KIB));
        first.endpoint.send(node(2), Rpc::Vote { term: Term::new(passed), last: last(1), ordered_in: None });
        first.endpoint.send(node(2), heartbeat(passed));
        let mut missing = 3;
        while missing > 0 {
            match second.news().await {
                Incoming::Received { .. } => missing -= 1,
                Incoming::SnapshotProgress { received: since, .. } => {
                    assert!(since <= received + most, "{missing} messages wait while {} bytes pass", since - received);
                }
                other => panic!("unexpected {other:?} while {missing} messages are on their way"),
            }
        }
    }
    assert!(passed >= 10, "{passed} rounds");
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 8, data));
}

#[tokio::test]
async fn a_newer_snapshot_takes_the_place_of_the_one_under_way_and_of_one_that_waits() {
    let (first, mut second) = pair().await;
    first.endpoint.send_snapshot(node(2), meta(8), state(64 * MIB));
    second.progress().await;
    first.endpoint.send_snapshot(node(2), meta(9), state(10));
    first.endpoint.send_snapshot(node(2), meta(10), state(MIB));
    // Nobody is told of a failure: the leader might take it for one of the newer snapshot.
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 10, state(MIB)));
    assert_eq!(first.endpoint.counters().snapshots_dropped, 2);
}

#[tokio::test]
async fn the_same_snapshot_sent_anew_is_not_failed_by_its_predecessor() {
    let (first, mut second) = pair().await;
    for _ in 0..3 {
        first.endpoint.send_snapshot(node(2), meta(8), state(16 * MIB));
        second.progress().await;
    }
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 8, state(16 * MIB)));
}

#[tokio::test]
async fn a_snapshot_is_lost_with_the_connection_and_both_sides_learn_it() {
    let (mut first, mut second) = pair().await;
    first.endpoint.send_snapshot(node(2), meta(8), state(64 * MIB));
    second.progress().await;
    first.endpoint.connect_peers(BTreeMap::new());
    assert_eq!(first.unreachable().await, node(2));
    assert_eq!(second.outcome().await, failed(peer(1, 1), 8));
    // The next connection begins with nothing of it.
    first.connect(2, second.address());
    first.reach(2, &mut second).await;
    first.endpoint.send_snapshot(node(2), meta(9), state(10));
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 9, state(10)));
}

#[tokio::test]
async fn a_snapshot_for_nobody_is_dropped_and_one_for_a_silent_peer_reported() {
    let authority = authority(7);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("because a port is free");
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::DEFAULT };
    let mut station = Station::open(Options { limits, ..options(&authority, peer(1, 1)) });
    station.endpoint.send_snapshot(node(3), meta(8), state(10));
    assert_eq!(station.endpoint.counters().snapshots_dropped, 1, "nobody has named n3");
    station.connect(2, silent.local_addr().expect("because it is bound").to_string());
    station.endpoint.send_snapshot(node(2), meta(8), state(10));
    assert_eq!(station.unreachable().await, node(2));
}

#[tokio::test]
async fn the_documented_bytes_are_enough_to_send_a_snapshot() {
    let (mut station, stranger) = visited(Limits::DEFAULT).await;
    let mut stream = stranger.open_uni().await;
    write(&mut stream, &announced(8, &state(1_000))).await;
    stream.finish().expect("because it is open");
    assert_eq!(station.incoming().await, arrived(peer(2, 1), 8, state(1_000)));
}

#[tokio::test]
async fn what_is_wrong_with_a_snapshot_fails_that_snapshot_alone() {
    let (mut station, stranger) = visited(Limits::DEFAULT).await;
    let mut messages = stranger.open_uni().await;
    let data = state(1_000);
    let checksum = crc32c::crc32c(&data);
    let wrong_checksum = [announcement(1, 1_000, !checksum), data.to_vec()].concat();
    let too_short = [announcement(2, 1_001, checksum), data.to_vec()].concat();
    let too_long = [announcement(3, 999, checksum), data.to_vec()].concat();
    let nothing = announcement(4, 1_000, checksum);
    for (stream, index) in [wrong_checksum, too_short, too_long, nothing].into_iter().zip(1..) {
        let mut snapshot = stranger.open_uni().await;
        write(&mut snapshot, &stream).await;
        // It may have been stopped already.
        let _ = snapshot.finish();
        assert_eq!(station.incoming().await, failed(peer(2, 1), index));
        // "Your term is over".
        write(&mut messages, &frame(3, &[10, index as u8])).await;
        assert_eq!(station.received().await, (peer(2, 1), Rpc::TermOver { term: Term::new(index) }));
    }
    let mut snapshot = stranger.open_uni().await;
    write(&mut snapshot, &announced(9, &data)).await;
    snapshot.finish().expect("because it is open");
    assert_eq!(station.incoming().await, arrived(peer(2, 1), 9, data));
}

#[tokio::test]
async fn a_snapshot_that_is_reset_has_failed() {
    let (mut station, stranger) = visited(Limits::DEFAULT).await;
    let mut snapshot = stranger.open_uni().await;
    write(&mut snapshot, &announcement(8, MIB as u64, 0)).await;
    write(&mut snapshot, &state(512 * KIB)).await;
    station.progress().await;
    // Not with the number that says that a newer one follows.
    snapshot.reset(7_u32.into()).expect("because it is open");
    assert_eq!(station.outcome().await, failed(peer(2, 1), 8));
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_is_refused_by_its_announcement() {
    let (mut station, stranger) = visited(Limits { snapshot_bytes_max: 1_000, ..Limits::DEFAULT }).await;
    for (index, bytes) in [(1, 1_001), (2, u64::MAX)] {
        let mut snapshot = stranger.open_uni().await;
        write(&mut snapshot, &announcement(index, bytes, 0)).await;
        assert_eq!(station.incoming().await, failed(peer(2, 1), index));
        let stopped = in_time("the refusal", snapshot.stopped()).await.expect("because the connection stands");
        assert_eq!(stopped, Some(1_u32.into()));
    }
    let mut snapshot = stranger.open_uni().await;
    write(&mut snapshot, &announced(3, &state(1_000))).await;
    snapshot.finish().expect("because it is open");
    assert_eq!(station.incoming().await, arrived(peer(2, 1), 3, state(1_000)));
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_for_the_other_side_leaves_the_link_alone() {
    let authority = authority(7);
    let mut first = Station::open(options(&authority, peer(1, 1)));
    let limits = Limits { snapshot_bytes_max: MIB as u64, ..Limits::DEFAULT };
    let mut second = Station::open(Options { limits, ..options(&authority, peer(2, 1)) });
    first.connect(2, second.address());
    first.reach(2, &mut second).await;
    first.endpoint.send_snapshot(node(2), meta(8), state(8 * MIB));
    assert_eq!(second.outcome().await, failed(peer(1, 1), 8));
    first.endpoint.send_snapshot(node(2), meta(9), state(MIB));
    assert_eq!(second.outcome().await, arrived(peer(1, 1), 9, state(MIB)));
    assert!(first.inbox.try_recv().is_err(), "the link was lost");
}

#[tokio::test]
async fn a_snapshot_that_comes_no_further_is_given_up() {
    let limits = Limits { snapshot_silence_max: Duration::from_millis(100), ..Limits::DEFAULT };
    let (mut station, stranger) = visited(limits).await;
    let mut snapshot = stranger.open_uni().await;
    write(&mut snapshot, &announced(8, &state(1_000))).await;
    // Not finished.
    assert_eq!(station.incoming().await, failed(peer(2, 1), 8));
    let stopped = in_time("the end", snapshot.stopped()).await.expect("because the connection stands");
    assert_eq!(stopped, Some(3_u32.into()));
}

#[tokio::test]
async fn a_peer_has_one_snapshot_on_its_way_at_a_time() {
    let (mut station, stranger) = visited(Limits::DEFAULT).await;
    let (first, second) = (announced(8, &state(MIB)), announced(9, &state(100)));
    let (half, rest) = first.split_at(MIB / 2);
    let mut stream = stranger.open_uni().await;
    write(&mut stream, half).await;
    station.progress().await;
    let mut other = stranger.open_uni().await;
    write(&mut other, &second).await;
    other.finish().expect("because it is open");
    // By the time that a message has come, the second snapshot could have.
    for term in 1..=10 {
        let mut messages = stranger.open_uni().await;
        write(&mut messages, &frame(3, &[10, term])).await;
        messages.finish().expect("because it is open");
        assert!(matches!(station.outcome().await, Incoming::Received { .. }), "the second did not wait");
    }
    write(&mut stream, rest).await;
    stream.finish().expect("because it is open");
    assert_eq!(station.outcome().await, arrived(peer(2, 1), 8, state(MIB)));
    assert_eq!(station.outcome().await, arrived(peer(2, 1), 9, state(100)));
}

#[tokio::test]
async fn a_snapshot_among_messages_is_not_understood() {
    let (station, stranger) = visited(Limits::DEFAULT).await;
    let mut stream = stranger.open_uni().await;
    write(&mut stream, &[frame(3, &[10, 3]), announced(8, &state(10))].concat()).await;
    let (code, words) = stranger.turned_away().await;
    assert_eq!(code, 10, "{words}");
    assert!(words.contains("Snapshot"), "{words}");
    drop(station);
}
