use raft_core::{Configuration, Member};

use super::*;

const SEED: StoreId = StoreId::new(7);

fn hard_state() -> HardState {
    HardState { term: Term::new(3), voted_for: NodeId::new(2), floor: None }
}

fn entries() -> Vec<Entry> {
    let entry = |index, payload| Entry { term: Term::new(3), index: Index::new(index), payload };
    vec![entry(9, Payload::Blank), entry(10, Payload::Command(bytes::Bytes::from_static(b"hello")))]
}

fn membership() -> Arc<Membership> {
    let member = |node, store| Member { node: NodeId::new(node).expect("not 0"), store: StoreId::new(store) };
    Membership::new([member(1, 0x11), member(2, 0x12)]).expect("two different members").into()
}

fn meta() -> SnapshotMeta {
    let configuration = Configuration { index: Index::new(7), membership: membership() };
    SnapshotMeta { last: Position::new(Index::new(300), Term::new(3)), configuration, bytes: 1_000 }
}

fn encoded(encoder: &mut Encoder, entries: &[Entry]) -> (Vec<u8>, Link) {
    let entries = Entries::new(entries.to_vec()).expect("the test's entries are in order");
    encoded_content(encoder, Content { hard_state: Some(hard_state()), reset: None, entries: &entries })
}

fn encoded_content(encoder: &mut Encoder, content: Content<'_>) -> (Vec<u8>, Link) {
    let length = Encoder::length(content).expect("it is short");
    let link = Link { group: 4, chain: 0xabcd };
    let (bytes, next) = encoder.encode(Seed::new(SEED, 1), 5, link, length, content);
    assert_eq!(bytes.len() as u64, Encoder::sectors(length) * SECTOR as u64);
    (bytes.to_vec(), next)
}

#[test]
fn a_group_is_these_bytes() {
    let (bytes, next) = encoded(&mut Encoder::default(), &entries());
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().concat();
    assert_eq!(part(0..20), "040000000000000050000000cdab0000c3ee1650");
    assert_eq!(part(20..45), "000000000102000000000000000300000000000000464380aa");
    assert_eq!(part(45..70), "0000000002090000000000000003000000000000003db5bfa2");
    assert_eq!(part(70..100), "05000000030a000000000000000300000000000000715ef63568656c6c6f");
    assert!(bytes.get(100..508).is_some_and(|padding| padding.iter().all(|byte| *byte == 0)));
    assert_eq!(part(508..512), "70471c96");
    assert_eq!(next, Link { group: 5, chain: 0x35f6_5e71 });
}

#[test]
fn a_floor_is_these_bytes_and_comes_back() {
    let floor = Some(Position::new(Index::new(9), Term::new(2)));
    let state = HardState { floor, ..hard_state() };
    let content = Content { hard_state: Some(state), reset: None, entries: &Entries::EMPTY };
    let length = Encoder::length(content).expect("it is short");
    let mut encoder = Encoder::default();
    let link = Link { group: 4, chain: 0xabcd };
    let (bytes, _) = encoder.encode(Seed::new(SEED, 1), 5, link, length, content);
    let payload: String = bytes.iter().skip(45).take(16).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(payload, "02000000000000000900000000000000");
    let header = GroupHeader::decode(bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
    let mut group = Vec::new();
    strip(bytes, &mut group);
    let mut records = Records::new(&header, &group).expect("it is complete");
    assert_eq!(records.take(), Some(Record::HardState(state)));
}

#[test]
fn a_group_is_right_only_where_it_belongs() {
    let (bytes, next) = encoded(&mut Encoder::default(), &entries());
    let header = GroupHeader::decode(&bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
    let mut records = Records::new(&header, &bytes).expect("it is complete");
    let mut taken = Vec::new();
    while !records.is_empty() {
        taken.push(records.take().expect("each checksum is right"));
    }
    let entry = |index, stored| Record::Entry(Position::new(Index::new(index), Term::new(3)), stored);
    let hello = Stored::Command(b"hello");
    assert_eq!(taken, [Record::HardState(hard_state()), entry(9, Stored::Blank), entry(10, hello)]);
    assert_eq!(records.chain(), next.chain);
    for (store, segment, place) in [(7, 1, 4), (7, 1, 6), (7, 2, 5), (8, 1, 5)] {
        let seed = Seed::new(StoreId::new(store), segment);
        assert!(GroupHeader::decode(&bytes, seed, place).is_none(), "store {store} segment {segment} at {place}");
    }
    for (store, segment) in [(7, 2), (8, 1)] {
        let seed = Seed::new(StoreId::new(store), segment);
        assert_eq!(seed.stamp_of(&bytes), Stamp::Wrong, "store {store} segment {segment}");
    }
}

#[test]
fn every_sector_of_a_group_of_any_length_ends_with_its_stamp() {
    let mut encoder = Encoder::default();
    for length in 0..1_600 {
        let command = Payload::Command(bytes::Bytes::from(vec![0; length]));
        let entry = Entry { term: Term::new(1), index: Index::new(1), payload: command };
        let (bytes, _) = encoded(&mut encoder, &[entry]);
        let stamps: Vec<Stamp> = bytes.chunks(SECTOR).map(|sector| Seed::new(SEED, 1).stamp_of(sector)).collect();
        assert_eq!(stamps.first(), Some(&Stamp::First));
        assert!(stamps.iter().skip(1).all(|stamp| *stamp == Stamp::Later), "{length} bytes");
        let header = GroupHeader::decode(&bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
        assert_eq!(header.sectors(), stamps.len() as u64);
    }
}

/// What is between the group's header and its padding.
fn records(bytes: &[u8]) -> String {
    let header = GroupHeader::decode(bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
    let mut group = Vec::new();
    strip(bytes, &mut group);
    let records = group.get(GROUP_HEADER..GROUP_HEADER + header.length).unwrap_or_default();
    records.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn first_record(bytes: &[u8]) -> Option<Record<'_>> {
    let header = GroupHeader::decode(bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
    Records::new(&header, bytes).expect("it is complete").take()
}

#[test]
fn a_configuration_is_these_bytes() {
    let entry = Entry { term: Term::new(3), index: Index::new(9), payload: Payload::Configuration(membership()) };
    let entries = Entries::new(vec![entry]).expect("one entry is in order");
    let content = Content { hard_state: None, reset: None, entries: &entries };
    let (bytes, _) = encoded_content(&mut Encoder::default(), content);
    assert_eq!(records(&bytes), "080000000409000000000000000300000000000000112985560201110212000003");
    let position = Position::new(Index::new(9), Term::new(3));
    assert_eq!(first_record(&bytes), Some(Record::Entry(position, Stored::Configuration(membership()))));
}

#[test]
fn a_reset_is_these_bytes() {
    let meta = meta();
    let content = Content { hard_state: None, reset: Some(&meta), entries: &Entries::EMPTY };
    let (bytes, _) = encoded_content(&mut Encoder::default(), content);
    assert_eq!(records(&bytes), "0e000000052c010000000000000300000000000000b663d47503ac02070201110212000003e807");
    assert_eq!(first_record(&bytes), Some(Record::Reset(meta)));
}

/// A group with one record of any kind, number and payload, right in all its checksums.
fn forged(kind: u8, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let (seed, mut covered) = (Seed::new(SEED, 1), [0; GROUP_HEADER - 4]);
    let length = (RECORD_HEADER + payload.len()) as u32;
    put(&mut covered, &[&4_u64.to_le_bytes(), &length.to_le_bytes(), &0_u32.to_le_bytes()]);
    let chain = header_crc(seed, 5, &covered);
    encoder.push(seed, &covered);
    encoder.push(seed, &chain.to_le_bytes());
    encoder.record(seed, chain, kind, number, Term::new(3), payload);
    encoder.finish(seed);
    encoder.bytes
}

#[test]
fn a_record_that_says_something_impossible_is_no_record() {
    let (membership, reset) = (postcard_of(&membership()), postcard_of(&meta()));
    assert!(first_record(&forged(CONFIGURATION, 9, &membership)).is_some());
    assert!(first_record(&forged(RESET, 300, &reset)).is_some());
    // Two voters with one id: what Membership itself refuses.
    let twice: Vec<u8> = membership.iter().map(|byte| if *byte == 2 { 1 } else { *byte }).collect();
    let longer: Vec<u8> = membership.iter().copied().chain([0]).collect();
    let shorter = membership.get(..membership.len() - 1).unwrap_or_default();
    for payload in [&[][..], &twice, &longer, shorter, b"anything"] {
        assert_eq!(first_record(&forged(CONFIGURATION, 9, payload)), None, "{payload:?}");
    }
    assert_eq!(first_record(&forged(RESET, 299, &reset)), None, "another position than the snapshot's");
    assert_eq!(first_record(&forged(BLANK, 9, b"x")), None);
    assert_eq!(first_record(&forged(6, 9, &[])), None, "a kind that is not known");
}
