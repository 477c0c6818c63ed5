use std::time::Duration;

use proptest::prelude::*;
use raft_core::{
    Boot, CampaignId, Change, Configuration, Entries, Entry, ForwardId, Index, Member, Membership, NodeId, Payload,
    Position, ReadMode, Rejection, Round, SnapshotFate, SnapshotMeta, SnapshotOffer, StoreId, Term, Verdict,
};

use super::*;

const MAX: usize = 1 << 20;

fn frame(rpc: &Rpc) -> BytesMut {
    let mut out = BytesMut::new();
    encode_frame(&mut out, Kind::Rpc, rpc, MAX).expect("because the message is small");
    out
}

fn decode(mut bytes: BytesMut) -> Result<Option<Rpc>, FrameError> {
    match decode_frame(&mut bytes, MAX)? {
        Some((Kind::Rpc, body)) => decode_body(Kind::Rpc, &body).map(Some),
        Some((found, _)) => Err(FrameError::OutOfPlace { found, wanted: Kind::Rpc }),
        None => Ok(None),
    }
}

fn position(index: u64, term: u64) -> Position {
    Position::new(Index::new(index), Term::new(term))
}

fn entry(index: u64, term: u64, payload: Payload) -> Entry {
    Entry { term: Term::new(term), index: Index::new(index), payload }
}

fn member(node: u64, store: u128) -> Member {
    Member { node: NodeId::new(node).expect("because no test asks for node 0"), store: StoreId::new(store) }
}

/// Joint, with a learner: n1 and n2 are to be replaced by n3, and n4 learns.
fn joint() -> Membership {
    let membership = Membership::new([member(1, 11), member(2, 12)]).expect("because they differ");
    let add = |store| Change::AddLearner { store: StoreId::new(store), promote: true };
    let taught = membership.changed(&[add(13), add(14)]).expect("because the stores are new");
    let [remove_first, remove_second] = [1, 2].map(|node| Change::Remove { node: member(node, 0).node });
    let promote = Change::Promote { node: member(3, 0).node };
    taught.changed(&[remove_first, remove_second, promote]).expect("because n3 is a learner")
}

fn offer() -> SnapshotOffer {
    let configuration = Configuration { index: Index::new(6), membership: Arc::new(joint()) };
    let meta = SnapshotMeta { last: position(7, 2), configuration, bytes: 70_000 };
    SnapshotOffer { term: Term::new(3), round: Round::new(300), meta: Arc::new(meta), source: member(1, 0).node }
}

/// One message of each kind, in the order of the golden file.
fn one_of_each() -> Vec<(&'static str, Rpc)> {
    let term = Term::new(3);
    let campaign = CampaignId { boot: Boot::new(2), number: 5 };
    let id = ForwardId { boot: Boot::new(2), number: 6 };
    let (last, granted) = (position(7, 2), Duration::from_millis(750));
    let (round, commit, matched) = (Round::new(300), Index::new(7), Index::new(8));
    let entries = Entries::new(vec![
        entry(8, 2, Payload::Blank),
        entry(9, 3, Payload::Command(Bytes::from_static(b"put a 1"))),
        entry(10, 3, Payload::Command(Bytes::new())),
        entry(11, 3, Payload::Configuration(Arc::new(joint()))),
    ]);
    let append = Append {
        term,
        round,
        prev: position(7, 2),
        commit,
        entries: entries.expect("because the indices rise by one"),
    };
    let rejection = Rejection { term, round, prev: Index::new(9), hint: position(7, 2), commit };
    vec![
        ("pre-vote", Rpc::PreVote { term, campaign, last: position(8, 2) }),
        ("pre-vote-reply", Rpc::PreVoteReply { term, campaign, verdict: Verdict::Granted }),
        ("vote", Rpc::Vote { term, last: position(8, 2), ordered_in: None }),
        ("vote-ordered", Rpc::Vote { term, last: position(8, 2), ordered_in: Some(Term::new(2)) }),
        ("vote-reply", Rpc::VoteReply { term, verdict: Verdict::LeaderAlive }),
        ("append", Rpc::Append(Arc::new(append))),
        ("append-reply", Rpc::AppendReply { term, round, matched }),
        ("append-rejected", Rpc::AppendRejected(Box::new(rejection))),
        ("heartbeat", Rpc::Heartbeat { term, round, commit, promise: Duration::from_millis(1_500) }),
        ("heartbeat-reply", Rpc::HeartbeatReply { term, round, matched, verified: Index::new(10), granted }),
        ("commit-notice", Rpc::CommitNotice { term, commit }),
        ("term-over", Rpc::TermOver { term }),
        ("timeout-now", Rpc::TimeoutNow { term }),
        ("resigned", Rpc::Resigned { term }),
        ("install-snapshot", Rpc::InstallSnapshot(Arc::new(offer()))),
        ("snapshot-received", Rpc::SnapshotStatus { term, last, fate: SnapshotFate::Received(300) }),
        ("snapshot-failed", Rpc::SnapshotStatus { term, last, fate: SnapshotFate::Failed }),
        ("regressed", Rpc::Regressed { term, acknowledged: last }),
        ("read-index", Rpc::ReadIndex { term, id, mode: ReadMode::Lease }),
        ("read-index-reply", Rpc::ReadIndexReply { term, id, index: Some(commit) }),
        ("read-index-refused", Rpc::ReadIndexReply { term, id, index: None }),
    ]
}

fn the_append() -> Rpc {
    let found = one_of_each().into_iter().find(|(name, _)| *name == "append");
    found.expect("because there is one of each").1
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_has_the_bytes_that_it_always_had() {
    let written: String = one_of_each().iter().map(|(name, rpc)| format!("{name} {}\n", hex(&frame(rpc)))).collect();
    let golden: String = include_str!("golden.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(written, golden);
}

#[test]
fn every_message_is_read_back() {
    for (name, rpc) in one_of_each() {
        assert_eq!(decode(frame(&rpc)), Ok(Some(rpc)), "{name}");
    }
}

#[test]
fn frames_follow_each_other_and_wait_for_their_end() {
    let (first, second) = (frame(&Rpc::TermOver { term: Term::new(1) }), frame(&Rpc::TermOver { term: Term::new(2) }));
    let mut arriving = BytesMut::new();
    let mut seen = Vec::new();
    for byte in first.iter().chain(second.iter()) {
        arriving.put_u8(*byte);
        while let Some((kind, body)) = decode_frame(&mut arriving, MAX).expect("because the frames are whole") {
            seen.push(decode_body::<Rpc>(kind, &body).expect("because the frames are whole").term());
        }
    }
    assert_eq!(seen, [Term::new(1), Term::new(2)]);
    assert!(arriving.is_empty());
}

#[test]
fn a_length_over_the_limit_is_refused_by_the_header_alone() {
    let mut header = frame(&Rpc::TermOver { term: Term::new(1) });
    header.truncate(HEADER);
    header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = FrameError::TooLong { len: u32::MAX as usize, max: MAX };
    assert_eq!(decode_frame(&mut header, MAX), Err(refused));
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut out = BytesMut::new();
    encode_frame(&mut out, Kind::Rpc, &(Rpc::TermOver { term: Term::new(1) }, 0_u8), MAX)
        .expect("because the message is small");
    assert_eq!(decode(out), Err(FrameError::Body { kind: Kind::Rpc }));
}

#[test]
fn what_is_too_long_leaves_the_buffer_as_it_was() {
    let mut out = BytesMut::from(&b"before"[..]);
    let append = &the_append();
    assert_eq!(encode_frame(&mut out, Kind::Rpc, append, 16), Err(TooLong { max: 16 }));
    assert_eq!(encode_exchange(&mut out, Kind::Request, 1, &[0; 17], 16), Err(TooLong { max: 16 }));
    assert_eq!(&out[..], b"before");
}

#[test]
fn entries_out_of_order_are_refused() {
    // The same bytes as an `Append` of entries 8 and 10 would have.
    let wrong = vec![entry(8, 2, Payload::Blank), entry(10, 2, Payload::Blank)];
    let fields = (4_u8, Term::new(2), Round::new(1), position(7, 2), Index::new(7), wrong);
    let mut out = BytesMut::new();
    encode_frame(&mut out, Kind::Rpc, &fields, MAX).expect("because the message is small");
    assert_eq!(decode(out), Err(FrameError::Body { kind: Kind::Rpc }));
}

/// The message with these bytes inside, in which the real ones would be `right`.
fn forged(rpc: &Rpc, right: &impl serde::Serialize, wrong: &impl serde::Serialize) -> Result<Rpc, FrameError> {
    let bytes = |value: &dyn Fn() -> postcard::Result<Vec<u8>>| value().expect("because memory suffices");
    let (right, wrong) = (bytes(&|| postcard::to_stdvec(right)), bytes(&|| postcard::to_stdvec(wrong)));
    let body = bytes(&|| postcard::to_stdvec(rpc));
    let places: Vec<usize> =
        body.windows(right.len()).enumerate().filter(|(_, seen)| *seen == right).map(|(place, _)| place).collect();
    let [place] = places[..] else { panic!("{places:?}") };
    let mut forged = body;
    forged.splice(place..place + right.len(), wrong);
    decode_body(Kind::Rpc, &forged)
}

#[test]
fn a_membership_that_is_none_is_refused_wherever_it_comes() {
    let (first, second, third, fourth) = (member(1, 11), member(2, 12), member(3, 13), member(4, 14));
    // As the fields are written: voters, outgoing voters, learners, the next id.
    let right = (vec![third], vec![first, second], vec![(fourth, true)], 5_u64);
    let wrong = [
        (vec![third, third], vec![first, second], vec![(fourth, true)], 5_u64),
        (vec![third, member(4, 13)], vec![first, second], vec![], 5),
        (vec![third], vec![second, first], vec![(fourth, true)], 5),
        (vec![third], vec![first, member(3, 99)], vec![(fourth, true)], 5),
        (vec![third], vec![first, second], vec![(third, true)], 5),
        (vec![third], vec![first, second], vec![(fourth, true)], 4),
        ((1..=10).map(|node| member(node, u128::from(node))).collect(), vec![], vec![], 11),
    ];
    for rpc in [the_append(), Rpc::InstallSnapshot(Arc::new(offer()))] {
        assert_eq!(forged(&rpc, &joint(), &right), Ok(rpc.clone()), "these are the same bytes");
        for wrong in &wrong {
            assert_eq!(forged(&rpc, &joint(), wrong), Err(FrameError::Body { kind: Kind::Rpc }), "{wrong:?}");
        }
    }
}

#[test]
fn a_configuration_takes_no_more_on_the_wire_than_it_is_charged_for() {
    let most = |nth: u64| member(u64::MAX - 10 + nth, u128::MAX - u128::from(nth));
    for voters in 1..=9 {
        let membership = Membership::new((0..voters).map(most)).expect("because they differ");
        let entry = entry(u64::MAX, u64::MAX, Payload::Configuration(Arc::new(membership)));
        let wire = postcard::to_stdvec(&entry).expect("because memory suffices");
        assert!(wire.len() as u64 <= entry.cost(), "{voters} voters take {} bytes", wire.len());
    }
}

#[test]
fn rule_r7_a_payload_does_not_pin_the_buffer_that_it_came_in() {
    let append = &the_append();
    let mut buffer = BytesMut::with_capacity(1 << 16);
    let capacity = buffer.capacity();
    encode_frame(&mut buffer, Kind::Rpc, append, MAX).expect("because the message is small");
    let (kind, body) = decode_frame(&mut buffer, MAX).expect("because it is whole").expect("because it is complete");
    let decoded: Rpc = decode_body(kind, &body).expect("because it is whole");
    drop(body);
    assert!(buffer.try_reclaim(capacity), "the buffer is still referred to");
    assert_eq!(&decoded, append);

    encode_exchange(&mut buffer, Kind::Request, 1, b"small", MAX).expect("because the request is small");
    let (kind, body) = decode_frame(&mut buffer, MAX).expect("because it is whole").expect("because it is complete");
    let (_, request) = decode_exchange(kind, body).expect("because it has an id");
    let kept = detach(request, capacity);
    assert!(buffer.try_reclaim(capacity), "the buffer is still referred to");
    assert_eq!(kept, "small");
}

#[test]
fn an_append_for_several_peers_is_encoded_once() {
    let last = LastEncoded::default();
    let Rpc::Append(append) = &the_append() else { unreachable!("because it was found by its name") };
    let (first, second) = (append.clone(), append.clone());
    let first = last.frame(&first, MAX).expect("because the message is small");
    let again = last.frame(&second, MAX).expect("because the message is small");
    assert_eq!(first.as_ptr(), again.as_ptr());
    assert_eq!(&first[..], &frame(&Rpc::Append(append.clone()))[..]);
    let other = Arc::new(Append { round: Round::new(301), ..(**append).clone() });
    let other_frame = last.frame(&other, MAX).expect("because the message is small");
    assert_eq!(&other_frame[..], &frame(&Rpc::Append(other))[..]);
}

fn any_position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u64>()).prop_map(|(index, term)| position(index, term))
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Granted), Just(Verdict::Refused), Just(Verdict::LeaderAlive)]
}

fn any_campaign() -> impl Strategy<Value = CampaignId> {
    (any::<u64>(), any::<u64>()).prop_map(|(boot, number)| CampaignId { boot: Boot::new(boot), number })
}

fn any_duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn any_forward() -> impl Strategy<Value = ForwardId> {
    (any::<u64>(), any::<u64>()).prop_map(|(boot, number)| ForwardId { boot: Boot::new(boot), number })
}

fn any_node() -> impl Strategy<Value = NodeId> {
    (1..=u64::MAX).prop_map(|node| member(node, 0).node)
}

/// Some voters, and then whatever of the changes can be made.
fn any_membership() -> impl Strategy<Value = Arc<Membership>> {
    let change = prop_oneof![
        (100..120_u128, any::<bool>())
            .prop_map(|(store, promote)| Change::AddLearner { store: StoreId::new(store), promote }),
        (1..12_u64).prop_map(|node| Change::Promote { node: member(node, 0).node }),
        (1..12_u64).prop_map(|node| Change::Demote { node: member(node, 0).node }),
        (1..12_u64).prop_map(|node| Change::Remove { node: member(node, 0).node }),
    ];
    (0..9_u64, proptest::collection::vec(proptest::collection::vec(change, 1..4), 0..6)).prop_map(
        |(voters, changes)| {
            let voters = (1..=voters).map(|node| member(node, u128::from(node)));
            let mut membership = Membership::new(voters).expect("because they differ");
            for changes in changes {
                membership = membership.changed(&changes).unwrap_or(membership);
            }
            Arc::new(membership)
        },
    )
}

fn any_offer() -> impl Strategy<Value = SnapshotOffer> {
    let meta =
        (any_position(), any::<u64>(), any_membership(), any::<u64>()).prop_map(|(last, index, membership, bytes)| {
            SnapshotMeta { last, configuration: Configuration { index: Index::new(index), membership }, bytes }
        });
    (any::<u64>(), any::<u64>(), meta, any_node()).prop_map(|(term, round, meta, source)| SnapshotOffer {
        term: Term::new(term),
        round: Round::new(round),
        meta: Arc::new(meta),
        source,
    })
}

fn any_entries() -> impl Strategy<Value = Entries> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Payload::Command(bytes.into())),
        any_membership().prop_map(Payload::Configuration),
    ];
    (0..u64::MAX / 2, proptest::collection::vec((0..3_u64, payload), 0..20)).prop_map(|(first, rest)| {
        let mut term = 1;
        let entries = rest.into_iter().zip(first..).map(|((later, payload), index)| {
            term += later;
            entry(index, term, payload)
        });
        Entries::new(entries.collect()).expect("because indices rise by one and terms do not fall")
    })
}

fn any_rpc() -> impl Strategy<Value = Rpc> {
    let term = || any::<u64>().prop_map(Term::new);
    let index = || any::<u64>().prop_map(Index::new);
    let round = || any::<u64>().prop_map(Round::new);
    prop_oneof![
        (term(), any_campaign(), any_position()).prop_map(|(term, campaign, last)| Rpc::PreVote {
            term,
            campaign,
            last
        }),
        (term(), any_campaign(), any_verdict()).prop_map(|(term, campaign, verdict)| Rpc::PreVoteReply {
            term,
            campaign,
            verdict
        }),
        (term(), any_position(), proptest::option::of(term())).prop_map(|(term, last, ordered_in)| Rpc::Vote {
            term,
            last,
            ordered_in
        }),
        (term(), any_verdict()).prop_map(|(term, verdict)| Rpc::VoteReply { term, verdict }),
        (term(), round(), any_position(), index(), any_entries()).prop_map(|(term, round, prev, commit, entries)| {
            Rpc::Append(Arc::new(Append { term, round, prev, commit, entries }))
        }),
        (term(), round(), index()).prop_map(|(term, round, matched)| Rpc::AppendReply { term, round, matched }),
        (term(), round(), index(), any_position(), index()).prop_map(|(term, round, prev, hint, commit)| {
            Rpc::AppendRejected(Box::new(Rejection { term, round, prev, hint, commit }))
        }),
        (term(), round(), index(), any_duration()).prop_map(|(term, round, commit, promise)| Rpc::Heartbeat {
            term,
            round,
            commit,
            promise
        }),
        (term(), round(), index(), index(), any_duration()).prop_map(|(term, round, matched, verified, granted)| {
            Rpc::HeartbeatReply { term, round, matched, verified, granted }
        }),
        (term(), index()).prop_map(|(term, commit)| Rpc::CommitNotice { term, commit }),
        any_later_rpc(),
    ]
}

/// The kinds that `prop_oneof` has no room for.
fn any_later_rpc() -> impl Strategy<Value = Rpc> {
    let term = || any::<u64>().prop_map(Term::new);
    let fate = prop_oneof![any::<u64>().prop_map(SnapshotFate::Received), Just(SnapshotFate::Failed)];
    let mode = prop_oneof![Just(ReadMode::Quorum), Just(ReadMode::Lease)];
    let index = proptest::option::of(any::<u64>().prop_map(Index::new));
    prop_oneof![
        term().prop_map(|term| Rpc::TermOver { term }),
        term().prop_map(|term| Rpc::TimeoutNow { term }),
        term().prop_map(|term| Rpc::Resigned { term }),
        any_offer().prop_map(|offer| Rpc::InstallSnapshot(Arc::new(offer))),
        (term(), any_position(), fate).prop_map(|(term, last, fate)| Rpc::SnapshotStatus { term, last, fate }),
        (term(), any_forward(), mode).prop_map(|(term, id, mode)| Rpc::ReadIndex { term, id, mode }),
        (term(), any_forward(), index).prop_map(|(term, id, index)| Rpc::ReadIndexReply { term, id, index }),
    ]
}

proptest! {
    #[test]
    fn any_message_is_read_back(rpc in any_rpc()) {
        prop_assert_eq!(decode(frame(&rpc)), Ok(Some(rpc)));
    }

    #[test]
    fn one_flipped_bit_never_passes(rpc in any_rpc(), place in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = frame(&rpc);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        // A longer length only makes the frame incomplete.
        prop_assert!(!matches!(decode(bytes), Ok(Some(_))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(BytesMut::from(&bytes[..]));
        let _ = decode_body::<Rpc>(Kind::Rpc, &bytes);
    }

    #[test]
    fn a_damaged_body_with_a_right_checksum_never_panics(
        rpc in any_rpc(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..8),
    ) {
        let mut bytes = frame(&rpc);
        let mut body = bytes.split_off(HEADER);
        for (place, bit) in flips {
            let place = place.index(body.len());
            body[place] ^= 1 << bit;
        }
        let _ = decode_body::<Rpc>(Kind::Rpc, &body);
    }
}
