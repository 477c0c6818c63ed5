//! Layer 0: the running hash of the replicated state.
//!
//! The hash is a *sum*: every element of the state (a record, a session, a cached answer) is
//! hashed by itself, and the hashes are added modulo 2^128. Replacing an element subtracts the
//! old hash and adds the new one, so a command costs a few small hashes however large the state
//! is; and the result depends on the content alone, not on the way that led there, so a state
//! that was replayed and one that will be restored from a snapshot agree.
//!
//! It finds replicas that drifted apart by a fault. It is no defence against somebody who may
//! write arbitrary keys and *wants* two states to collide.

use std::fmt;
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// The hash of a machine's whole content; equal states have equal hashes.
///
/// Printed as 32 hexadecimal digits; text formats such as JSON get that string, as many readers
/// of JSON round large numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(u128);

impl StateHash {
    /// The bare number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for StateHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for StateHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u128::deserialize(deserializer).map(Self);
        }
        let digits = String::deserialize(deserializer)?;
        u128::from_str_radix(&digits, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A sum of element hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u128);

impl Digest {
    /// The element joins the state.
    pub(crate) fn add(&mut self, element: ElementHash) {
        self.0 = self.0.wrapping_add(element.0);
    }

    /// The element leaves the state.
    pub(crate) fn remove(&mut self, element: ElementHash) {
        self.0 = self.0.wrapping_sub(element.0);
    }

    /// The sum of both, which must hold different kinds of elements.
    pub(crate) fn and(self, other: Self) -> StateHash {
        StateHash(self.0.wrapping_add(other.0))
    }
}

/// The hash of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ElementHash(u128);

/// Hashes one element, field by field. Byte strings carry their length, so that no two
/// sequences of fields run together into the same bytes.
pub(crate) struct ElementHasher(SipHasher13);

impl ElementHasher {
    /// Starts an element of this kind.
    pub(crate) fn new(element: Element) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(&[element as u8]);
        Self(hasher)
    }

    /// A number, as eight bytes in a fixed order: hashes are compared across machines.
    pub(crate) fn number(mut self, value: u64) -> Self {
        self.0.write(&value.to_le_bytes());
        self
    }

    /// A byte string.
    pub(crate) fn bytes(self, value: &[u8]) -> Self {
        let mut hasher = self.number(value.len() as u64);
        hasher.0.write(value);
        hasher
    }

    /// The hash of what was given.
    pub(crate) fn finish(self) -> ElementHash {
        ElementHash(self.0.finish128().as_u128())
    }
}

/// The kinds of elements. The numbers enter the hash: never change one.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Element {
    /// The store's revision.
    Revision = 1,
    /// A key with its value and revisions.
    Record = 2,
    /// A session without its answers.
    Session = 3,
    /// An answer that a session remembers.
    Answer = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(fields: &[&[u8]]) -> ElementHash {
        fields.iter().fold(ElementHasher::new(Element::Record), |hasher, field| hasher.bytes(field)).finish()
    }

    /// Replicas of different versions compare hashes: the function is part of the format.
    #[test]
    fn the_hash_of_an_element_never_changes() {
        let hash = ElementHasher::new(Element::Revision).number(1).finish();
        assert_eq!(StateHash(hash.0).to_string(), "4f3b620bbeb3494e0c96668e87072e32");
    }

    #[test]
    fn fields_do_not_run_together() {
        assert_ne!(element(&[b"ab", b"c"]), element(&[b"a", b"bc"]));
        assert_ne!(element(&[b"", b"a"]), element(&[b"a", b""]));
    }

    #[test]
    fn what_leaves_the_sum_leaves_no_trace() {
        let (one, two) = (element(&[b"one"]), element(&[b"two"]));
        let mut sum = Digest::default();
        sum.add(one);
        sum.add(two);
        let mut other_order = Digest::default();
        other_order.add(two);
        other_order.add(one);
        assert_eq!(sum, other_order);
        sum.remove(one);
        other_order.remove(two);
        assert_ne!(sum, other_order);
        sum.remove(two);
        assert_eq!(sum, Digest::default());
    }

    #[test]
    fn a_hash_is_text_in_json_and_comes_back() {
        let hash = StateHash(0xabc);
        let json = serde_json::to_string(&hash).expect("because a string always serialises");
        assert_eq!(json, "\"00000000000000000000000000000abc\"");
        assert_eq!(serde_json::from_str::<StateHash>(&json).ok(), Some(hash));
    }
}
