use proptest::prelude::*;
use raft_core::{Boot, CampaignId, Entries, Entry, Index, Payload, Position, Rejection, Round, Term, Verdict};

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

/// One message of each kind, in the order of the golden file.
fn one_of_each() -> Vec<(&'static str, Rpc)> {
    let term = Term::new(3);
    let campaign = CampaignId { boot: Boot::new(2), number: 5 };
    let (round, commit, matched) = (Round::new(300), Index::new(7), Index::new(8));
    let entries = Entries::new(vec![
        entry(8, 2, Payload::Blank),
        entry(9, 3, Payload::Command(Bytes::from_static(b"put a 1"))),
        entry(10, 3, Payload::Command(Bytes::new())),
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
        ("vote", Rpc::Vote { term, last: position(8, 2) }),
        ("vote-reply", Rpc::VoteReply { term, verdict: Verdict::LeaderAlive }),
        ("append", Rpc::Append(Arc::new(append))),
        ("append-reply", Rpc::AppendReply { term, round, matched }),
        ("append-rejected", Rpc::AppendRejected(Box::new(rejection))),
        ("heartbeat", Rpc::Heartbeat { term, round, commit }),
        ("heartbeat-reply", Rpc::HeartbeatReply { term, round, matched, verified: Index::new(10) }),
        ("commit-notice", Rpc::CommitNotice { term, commit }),
        ("term-over", Rpc::TermOver { term }),
    ]
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
    let [_, _, _, _, (_, append), ..] = &one_of_each()[..] else { unreachable!("because there are eleven") };
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

#[test]
fn rule_r7_a_payload_does_not_pin_the_buffer_that_it_came_in() {
    let [_, _, _, _, (_, append), ..] = &one_of_each()[..] else { unreachable!("because there are eleven") };
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
    let [_, _, _, _, (_, Rpc::Append(append)), ..] = &one_of_each()[..] else {
        unreachable!("because the fifth is the append")
    };
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

fn any_entries() -> impl Strategy<Value = Entries> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Payload::Command(bytes.into())),
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
        (term(), any_position()).prop_map(|(term, last)| Rpc::Vote { term, last }),
        (term(), any_verdict()).prop_map(|(term, verdict)| Rpc::VoteReply { term, verdict }),
        (term(), round(), any_position(), index(), any_entries()).prop_map(|(term, round, prev, commit, entries)| {
            Rpc::Append(Arc::new(Append { term, round, prev, commit, entries }))
        }),
        (term(), round(), index()).prop_map(|(term, round, matched)| Rpc::AppendReply { term, round, matched }),
        (term(), round(), index(), any_position(), index()).prop_map(|(term, round, prev, hint, commit)| {
            Rpc::AppendRejected(Box::new(Rejection { term, round, prev, hint, commit }))
        }),
        (term(), round(), index()).prop_map(|(term, round, commit)| Rpc::Heartbeat { term, round, commit }),
        (term(), round(), index(), index()).prop_map(|(term, round, matched, verified)| Rpc::HeartbeatReply {
            term,
            round,
            matched,
            verified
        }),
        (term(), index()).prop_map(|(term, commit)| Rpc::CommitNotice { term, commit }),
        term().prop_map(|term| Rpc::TermOver { term }),
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
