//! Fingerprints: of entries, of logs, of whole runs.
//!
//! Not cryptographic: nobody in the simulator forges anything. The chained digest of a log names
//! it together with everything before it, which turns "identical prefix" into one comparison.

use raft_core::{Entry, Member, Membership, Payload, Position};

/// Combines two words into one.
pub fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ 0x9E37_79B9_7F4A_7C15) * u128::from(right.rotate_left(32) ^ 0xD6E8_FEB8_6659_FD93);
    ((product >> 64) as u64 ^ product as u64).wrapping_add(left.rotate_left(17)) ^ right
}

/// The digest of a byte string.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

/// The digest of the log that ends with `entry`, given that of the log before it.
pub fn chain(before: u64, entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        Payload::Blank => 1,
        Payload::Command(command) => mix(2, of_bytes(command)),
        Payload::Configuration(membership) => mix(3, of_membership(membership)),
    };
    mix(mix(before, of_position(entry.position())), payload)
}

/// The digest of a configuration.
pub fn of_membership(membership: &Membership) -> u64 {
    let of_member = |hash: u64, member: &Member| {
        let store = member.store.as_u128();
        mix(hash, mix(member.node.as_u64(), store as u64 ^ (store >> 64) as u64))
    };
    let voters = membership.voters().iter().fold(1, of_member);
    let outgoing = membership.outgoing().iter().fold(mix(voters, 2), of_member);
    let learners = membership.learners().iter();
    let learners = learners
        .fold(mix(outgoing, 3), |hash, learner| of_member(mix(hash, u64::from(learner.promote)), &learner.member));
    mix(learners, membership.next_id())
}

/// The digest of an index with its term.
pub fn of_position(position: Position) -> u64 {
    mix(position.term.as_u64(), position.index.as_u64())
}
