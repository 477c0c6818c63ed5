//! The encoding of requests and responses, byte by byte, and against hostile bytes.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use raft_tokio::core::StoreId;

use super::*;
use crate::key::Key;

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("because the tests count from 1")
}

fn ticket() -> Ticket {
    Ticket { session: SessionId::new(300), sequence: Sequence::new(7), acknowledged: Sequence::new(5) }
}

/// Clients and servers of different builds speak to each other.
#[test]
fn the_encoding_of_requests_never_changes() {
    let key = Key::new("k").expect("because it has a byte");
    let vectors: [(Request, &[u8]); 14] = [
        (Request::Register { nonce: Nonce::new(0x81) }, b"\x00\x81\x01"),
        (
            Request::Put { ticket: ticket(), key: "k".into(), value: "vw".into(), if_revision: Some(Revision::new(9)) },
            b"\x01\xac\x02\x07\x05\x01k\x02vw\x01\x09",
        ),
        (Request::Delete { ticket: ticket(), key: "k".into(), if_revision: None }, b"\x02\xac\x02\x07\x05\x01k\x00"),
        (
            Request::Range { range: KeyRange::single(&key), limit: Some(1), freshness: Freshness::Linearizable },
            b"\x03\x01k\x01\x02k\x00\x01\x01\x00",
        ),
        (Request::Range { range: KeyRange::all(), limit: None, freshness: Freshness::Stale }, b"\x03\x00\x00\x00\x01"),
        (
            Request::Range { range: KeyRange::prefix("a"), limit: Some(300), freshness: Freshness::Linearizable },
            b"\x03\x01a\x01\x01b\x01\xac\x02\x00",
        ),
        (
            Request::Range { range: KeyRange::between("a", ""), limit: None, freshness: Freshness::Linearizable },
            b"\x03\x01a\x01\x00\x00\x00",
        ),
        (Request::Status, b"\x04"),
        (
            Request::Count { range: KeyRange::prefix("a"), freshness: Freshness::Linearizable },
            b"\x05\x01a\x01\x01b\x00",
        ),
        (Request::Range { range: KeyRange::all(), limit: None, freshness: Freshness::Lease }, b"\x03\x00\x00\x00\x02"),
        (
            Request::Change {
                expected: Some(Index::new(300)),
                changes: vec![
                    Change::AddLearner { store: StoreId::new(9), promote: true },
                    Change::Promote { node: node(2) },
                    Change::Demote { node: node(3) },
                    Change::Remove { node: node(4) },
                ],
            },
            b"\x06\x01\xac\x02\x04\x00\x09\x01\x01\x02\x02\x03\x03\x04",
        ),
        (Request::Change { expected: None, changes: Vec::new() }, b"\x06\x00\x00"),
        (Request::Transfer { to: Some(node(2)) }, b"\x07\x01\x02"),
        (Request::Snapshot, b"\x08"),
    ];
    for (request, content) in vectors {
        let bytes = encode_request(&request);
        assert_eq!(bytes.escape_ascii().to_string(), [&[0xc2, 3], content].concat().escape_ascii().to_string());
        assert_eq!(decode_request(&bytes), Ok(request));
    }
}

#[test]
fn the_encoding_of_responses_never_changes() {
    let metadata = Metadata { create_revision: Revision::new(2), mod_revision: Revision::new(3), version: 2 };
    let kv = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: Revision::new(2),
        mod_revision: Revision::new(3),
        version: 2,
    };
    let vectors: [(Response, &[u8]); 23] = [
        (Ok(Reply::Registered { session: SessionId::new(9) }), b"\x00\x00\x09"),
        (Ok(Reply::Put { revision: Revision::new(4), previous: Some(metadata) }), b"\x00\x01\x04\x01\x02\x03\x02"),
        (Ok(Reply::Deleted { revision: Revision::new(4), previous: None }), b"\x00\x02\x04\x00"),
        (
            Ok(Reply::Range { kvs: vec![kv], more: true, revision: Revision::new(8) }),
            b"\x00\x03\x01\x01k\x01v\x02\x03\x02\x01\x08",
        ),
        (Ok(Reply::Counted { count: 300, rest: None, revision: Revision::new(8) }), b"\x00\x05\xac\x02\x00\x08"),
        (
            Ok(Reply::Counted { count: 2, rest: Some(KeyRange::from("k")), revision: Revision::new(8) }),
            b"\x00\x05\x02\x01\x01k\x00\x08",
        ),
        (Err(Refusal::NotLeader { leader: Some(node(2)) }), b"\x01\x00\x01\x02"),
        (Err(Refusal::Busy { reason: "full".to_owned() }), b"\x01\x01\x04full"),
        (Err(Refusal::Unknown { leader: None }), b"\x01\x02\x00"),
        (Err(Refusal::StorageFailed), b"\x01\x03"),
        (Err(Refusal::Stopping), b"\x01\x04"),
        (Err(Refusal::TooLarge { what: Part::Request, size: 300, limit: 5 }), b"\x01\x05\x01\xac\x02\x05"),
        (Err(Refusal::EmptyKey), b"\x01\x06"),
        (Err(Refusal::CompareFailed { revision: Revision::new(3), current: None }), b"\x01\x07\x03\x00"),
        (Err(Refusal::SessionUnknown), b"\x01\x08"),
        (Err(Refusal::SequenceStale { floor: Sequence::new(5) }), b"\x01\x09\x05"),
        (Err(Refusal::SequenceAhead { ceiling: Sequence::new(6) }), b"\x01\x0a\x06"),
        (Err(Refusal::Misunderstood(DecodeError::Malformed)), b"\x01\x0b\x02"),
        (Err(Refusal::Misunderstood(DecodeError::UnsupportedVersion { found: 2, newest: 1 })), b"\x01\x0b\x01\x02\x01"),
        (Err(Refusal::Declined { reason: "no".to_owned() }), b"\x01\x0c\x02no"),
        (Ok(Reply::Changed { configuration: Index::new(8), node: Some(node(4)) }), b"\x00\x06\x08\x01\x04"),
        (Ok(Reply::Transferred { leader: None }), b"\x00\x07\x00"),
        (Ok(Reply::SnapshotTaken { last: Position::new(Index::new(8), Term::new(3)) }), b"\x00\x08\x03\x08"),
    ];
    for (response, content) in vectors {
        let bytes = encode_response(&response);
        assert_eq!(bytes.escape_ascii().to_string(), [&[0xc3, 3], content].concat().escape_ascii().to_string());
        assert_eq!(decode_response(&bytes), Ok(response));
    }
}

#[test]
fn a_status_survives_the_wire() {
    let status = NodeStatus {
        node: node(1),
        cluster: ClusterId::new(u128::MAX),
        version: "0.1.0".to_owned(),
        role: RoleKind::Leader,
        term: Term::new(3),
        leader: Some(node(1)),
        last: Index::new(9),
        durable: Index::new(8),
        commit: Index::new(7),
        applied: Index::new(6),
        state: StateSummary {
            index: Index::new(6),
            revision: Revision::new(5),
            keys: 4,
            sessions: 1,
            hash: crate::machine::Machine::new().hash(),
        },
        peers: vec![PeerProgress {
            node: node(2),
            matched: Index::new(8),
            next: Index::new(10),
            inflight: 1,
            supply: ProgressMode::Replicate,
            silent_for_ms: 12,
        }],
        configuration: Index::new(3),
        voters: vec![node(1), node(2)],
        outgoing: Vec::new(),
        learners: vec![node(3)],
        transfer: None,
        base: Index::new(2),
        log_bytes: 700,
        snapshot: Index::new(4),
        snapshot_bytes: 300,
        proposals: 3,
        reads: 2,
        held: 1,
        storage_full: false,
        storage_failed: false,
        runtime: RuntimeSummary { late_wakeups: 2, lateness_max_ms: 300, ..RuntimeSummary::default() },
    };
    let response: Response = Ok(Reply::Status(Box::new(status)));
    assert_eq!(decode_response(&encode_response(&response)), Ok(response));
}

proptest! {
    #[test]
    fn hostile_requests_are_refused_or_mean_one_request(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        // Behind the right envelope, so that the content is reached.
        if let Ok(request) = decode_request(&[&[0xc2, 3], &bytes[..]].concat()) {
            prop_assert_eq!(decode_request(&encode_request(&request)), Ok(request));
        }
        prop_assert!(decode_request(&bytes).is_err() || bytes.starts_with(&[0xc2, 3]));
    }

    #[test]
    fn hostile_responses_are_refused_or_mean_one_response(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(response) = decode_response(&[&[0xc3, 3], &bytes[..]].concat()) {
            prop_assert_eq!(decode_response(&encode_response(&response)), Ok(response));
        }
    }
}
