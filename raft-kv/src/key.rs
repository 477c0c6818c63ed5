//! Layer 0: keys, ranges of keys, and revisions: valid if they exist.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A key: 1 to [`Key::BYTES_MAX`] bytes of any kind.
///
/// A key that was decoded from the log or from the wire was checked like one that was made here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Key(Bytes);

impl Key {
    /// The longest key, in bytes. Replicas refuse a longer one while they apply it, so this may
    /// only ever change together with the version of the command's encoding.
    pub const BYTES_MAX: usize = 4096;

    /// Checks the length.
    ///
    /// # Errors
    /// If the key is empty or longer than [`Key::BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            size if size > Self::BYTES_MAX => Err(KeyError::TooLarge { size, limit: Self::BYTES_MAX }),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for Key {
    type Error = KeyError;

    fn try_from(bytes: Bytes) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// Lets a map of keys be searched with plain bytes; both order by bytes.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Printable bytes as they are, others escaped.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no byte.
    #[error("the key is empty; a key has at least one byte")]
    Empty,
    /// There are too many bytes.
    #[error("the key has {size} bytes; the limit is {limit}")]
    TooLarge {
        /// How many bytes it has.
        size: usize,
        /// How many it may have.
        limit: usize,
    },
}

/// The keys from `start` (included) to `end` (excluded, or unbounded), in the order of their bytes.
///
/// Any pair is a range: one that ends before it starts contains nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub const fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// This key alone.
    pub fn single(key: &Key) -> Self {
        // The key followed by a zero byte is the next one in the order: nothing lies between.
        let mut end = Vec::with_capacity(key.0.len() + 1);
        end.extend_from_slice(&key.0);
        end.push(0);
        Self { start: key.0.clone(), end: Some(end.into()) }
    }

    /// From `start` up to, and without, `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// `start` and everything after it.
    pub fn from(start: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: None }
    }

    /// Every key that begins with `prefix`; the empty prefix begins them all.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        // The end is the prefix with its last byte raised, after dropping bytes that cannot be
        // raised: beyond ff ff there is no prefix, only the end of all keys.
        let raisable = start.iter().rposition(|byte| *byte != u8::MAX);
        let end = raisable.map(|last| {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Self { start, end }
    }

    /// A range as etcd's clients write it: no end means the one key, an end of one zero byte
    /// means everything from `key` on.
    pub fn from_etcd(key: &Key, range_end: &[u8]) -> Self {
        match range_end {
            [] => Self::single(key),
            [0] => Self::from(key.0.clone()),
            end => Self::between(key.0.clone(), Bytes::copy_from_slice(end)),
        }
    }

    /// The part after `key`: where the next page begins.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        Self { start: start.into(), end: self.end.clone() }
    }

    /// The first key that may belong to the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key that does not belong to it any more, if there is an end.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Counts the changes to a store: each command that changes something raises it by one. The
/// empty store has revision 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Before every store: what a key that does not exist was last changed at.
    pub const ZERO: Self = Self(0);
    /// The revision of the empty store.
    pub const FIRST: Self = Self(1);

    /// Wraps a bare number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The bare number, for encoding and printing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    fn contains(range: &KeyRange, key: &[u8]) -> bool {
        key >= &range.start()[..] && range.end().is_none_or(|end| key < &end[..])
    }

    /// Short keys of few letters, so that prefixes and neighbours are common.
    fn near_keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(vec![0, 1, b'a', 0xfe, 0xff]), 1..5)
    }

    #[test]
    fn a_key_has_one_to_4096_bytes() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(vec![7; Key::BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![7; 4097]), Err(KeyError::TooLarge { size: 4097, limit: 4096 }));
    }

    #[test]
    fn the_prefix_of_only_ff_has_no_end() {
        assert_eq!(
            KeyRange::prefix(&b"a\xff\xff"[..]),
            KeyRange::between("a\u{0}".as_bytes()[..1].to_vec(), "b").with_start(b"a\xff\xff")
        );
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).end(), None);
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    impl KeyRange {
        fn with_start(mut self, start: &'static [u8]) -> Self {
            self.start = Bytes::from_static(start);
            self
        }
    }

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_the_keys_that_begin_with_it(prefix in near_keys(), key in near_keys()) {
            prop_assert_eq!(contains(&KeyRange::prefix(prefix.clone()), &key), key.starts_with(&prefix));
        }

        #[test]
        fn a_single_range_holds_exactly_its_key(one in near_keys(), other in near_keys()) {
            let key = Key::new(one.clone()).expect("near keys are never empty");
            prop_assert_eq!(contains(&KeyRange::single(&key), &other), one == other);
        }

        #[test]
        fn the_page_after_a_key_holds_exactly_what_is_greater(key in near_keys(), other in near_keys()) {
            prop_assert_eq!(contains(&KeyRange::all().after(&key), &other), other > key);
        }

        #[test]
        fn etcd_ends_mean_what_they_mean_in_etcd(key in near_keys(), end in proptest::collection::vec(any::<u8>(), 0..3), other in near_keys()) {
            let range = KeyRange::from_etcd(&Key::new(key.clone()).expect("near keys are never empty"), &end);
            let expected = match &end[..] {
                [] => other == key,
                [0] => other >= key,
                end => other >= key && &other[..] < end,
            };
            prop_assert_eq!(contains(&range, &other), expected);
        }
    }
}
