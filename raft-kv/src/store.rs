//! Layer 1: etcd's data model: what the cluster replicates, without the retries.
//!
//! One revision counts the changes of the whole store; each key remembers the revisions at which
//! it was created and last changed, and how often it was changed since. Only the current state is
//! kept: reading old revisions needs history and compaction, which are absent.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Element, ElementHash, ElementHasher};
use crate::key::{Key, KeyRange, Revision};

/// Keys with their values, revisions and versions.
///
/// Invariants: a record's `create_revision` ≤ its `mod_revision` ≤ the store's revision; no two
/// records share a `mod_revision`; the digest is the sum over all records and the revision.
#[derive(Clone, Debug)]
pub struct Store {
    revision: Revision,
    records: BTreeMap<Key, Record>,
    digest: Digest,
}

/// What the store keeps under a key.
#[derive(Clone, Debug)]
struct Record {
    metadata: Metadata,
    value: Bytes,
    /// Kept, so that replacing a record need not read its old value again.
    hash: ElementHash,
}

/// When a key was created and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The revision of the put that created it, after its last deletion if there was one.
    pub create_revision: Revision,
    /// The revision of its last put.
    pub mod_revision: Revision,
    /// How many puts there were since it was created, that one included.
    pub version: u64,
}

/// A key and everything that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision that changed it last.
    pub mod_revision: Revision,
    /// How many puts there were since it was created, that one included.
    pub version: u64,
}

impl KeyValue {
    /// Bytes charged for one pair in a page, besides key and value.
    pub const OVERHEAD: usize = 32;
}

/// What a put or a delete has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The store's revision afterwards.
    pub revision: Revision,
    /// What was there before; `None` if the key did not exist.
    pub previous: Option<Metadata>,
}

/// A condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What is there instead; `None` if the key does not exist.
    pub current: Option<Metadata>,
}

/// A part of a range, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The pairs.
    pub kvs: Vec<KeyValue>,
    /// Whether the range holds further pairs that did not fit.
    pub more: bool,
}

/// How many pairs a range holds, as far as they were counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// So many, up to the rest.
    pub count: u64,
    /// What was not counted; `None`: nothing.
    pub rest: Option<KeyRange>,
}

/// How much of a range to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// So many pairs at most.
    pub pairs: usize,
    /// Stop before exceeding so many bytes, but return at least one pair, if `pairs` allows.
    pub bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// The empty store, at revision 1.
    pub fn new() -> Self {
        let mut digest = Digest::default();
        digest.add(hash_revision(Revision::FIRST));
        Self { revision: Revision::FIRST, records: BTreeMap::new(), digest }
    }

    /// Sets `key` to `value`, if the key was last changed at `if_revision` (0: if it does not
    /// exist; `None`: in any case). Otherwise nothing changes, and the revision does not move.
    ///
    /// # Errors
    /// If the condition does not hold.
    pub fn put(&mut self, key: Key, value: Bytes, if_revision: Option<Revision>) -> Result<Change, Mismatch> {
        let previous = self.metadata(&key);
        check(previous, if_revision)?;
        let revision = self.advance();
        let metadata = match previous {
            Some(before) => Metadata { mod_revision: revision, version: before.version.saturating_add(1), ..before },
            None => Metadata { create_revision: revision, mod_revision: revision, version: 1 },
        };
        let hash = hash_record(&key, &value, &metadata);
        self.digest.add(hash);
        if let Some(replaced) = self.records.insert(key, Record { metadata, value, hash }) {
            self.digest.remove(replaced.hash);
        }
        Ok(Change { revision, previous })
    }

    /// Removes `key`, under the same kind of condition as [`Self::put`]. Removing a key that does
    /// not exist changes nothing, and the revision does not move.
    ///
    /// # Errors
    /// If the condition does not hold.
    pub fn delete(&mut self, key: &Key, if_revision: Option<Revision>) -> Result<Change, Mismatch> {
        let previous = self.metadata(key);
        check(previous, if_revision)?;
        if let Some(removed) = self.records.remove(key) {
            self.digest.remove(removed.hash);
            self.advance();
        }
        Ok(Change { revision: self.revision, previous })
    }

    /// The pair under `key`.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.records.get_key_value(key).map(|(key, record)| pair(key, record))
    }

    /// The first pairs of `range`, as many as `limit` allows. The work is that of the page: what
    /// lies behind it is not even looked at.
    pub fn range(&self, range: &KeyRange, limit: PageLimit) -> Page {
        let mut page = Page { kvs: Vec::new(), more: false };
        let mut bytes = 0_usize;
        for (key, record) in self.records_in(range) {
            bytes = bytes.saturating_add(key.as_bytes().len() + record.value.len() + KeyValue::OVERHEAD);
            if page.kvs.len() >= limit.pairs || (bytes > limit.bytes && !page.kvs.is_empty()) {
                page.more = true;
                break;
            }
            page.kvs.push(pair(key, record));
        }
        page
    }

    /// All pairs, in the order of their keys.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = KeyValue> {
        self.records.iter().map(|(key, record)| pair(key, record))
    }

    /// The store with these pairs; `None` if there can be no such store.
    pub(crate) fn restored(revision: Revision, pairs: Vec<KeyValue>) -> Option<Self> {
        let mut digest = Digest::default();
        digest.add(hash_revision(revision));
        let mut records = BTreeMap::new();
        for KeyValue { key, value, create_revision, mod_revision, version } in pairs {
            let key = Key::new(key).ok()?;
            let metadata = Metadata { create_revision, mod_revision, version };
            if create_revision > mod_revision || mod_revision > revision {
                return None;
            }
            let hash = hash_record(&key, &value, &metadata);
            digest.add(hash);
            if records.insert(key, Record { metadata, value, hash }).is_some() {
                return None;
            }
        }
        Some(Self { revision, records, digest })
    }

    /// Counts the pairs of `range`, but walks no further than `steps_max` of them. Counting the
    /// whole store takes no step.
    pub fn count(&self, range: &KeyRange, steps_max: usize) -> Count {
        if range.start().is_empty() && range.end().is_none() {
            return Count { count: self.records.len() as u64, rest: None };
        }
        let mut records = self.records_in(range);
        let mut count = Count { count: 0, rest: None };
        let mut last = None;
        for (key, _) in records.by_ref().take(steps_max.max(1)) {
            count.count += 1;
            last = Some(key);
        }
        if let (Some(last), Some(_)) = (last, records.next()) {
            count.rest = Some(range.after(last.as_bytes()));
        }
        count
    }

    fn records_in(&self, range: &KeyRange) -> impl Iterator<Item = (&Key, &Record)> {
        // A map panics when asked for a range that ends before it starts.
        let bounds = (!range.is_empty()).then(|| {
            let end = range.end().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
            (Bound::Included(&range.start()[..]), end)
        });
        bounds.into_iter().flat_map(|bounds| self.records.range::<[u8], _>(bounds))
    }

    /// How many changes there were, plus one.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The sum of the hashes of everything in the store.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    fn metadata(&self, key: &Key) -> Option<Metadata> {
        self.records.get(key).map(|record| record.metadata)
    }

    fn advance(&mut self) -> Revision {
        self.digest.remove(hash_revision(self.revision));
        self.revision = self.revision.next();
        self.digest.add(hash_revision(self.revision));
        self.revision
    }
}

/// Whether a key with this past satisfies the condition.
fn check(current: Option<Metadata>, if_revision: Option<Revision>) -> Result<(), Mismatch> {
    let found = current.map_or(Revision::ZERO, |metadata| metadata.mod_revision);
    match if_revision {
        Some(expected) if expected != found => Err(Mismatch { current }),
        Some(_) | None => Ok(()),
    }
}

fn pair(key: &Key, record: &Record) -> KeyValue {
    let Metadata { create_revision, mod_revision, version } = record.metadata;
    KeyValue { key: key.as_bytes().clone(), value: record.value.clone(), create_revision, mod_revision, version }
}

fn hash_revision(revision: Revision) -> ElementHash {
    ElementHasher::new(Element::Revision).number(revision.as_u64()).finish()
}

fn hash_record(key: &Key, value: &[u8], metadata: &Metadata) -> ElementHash {
    let Metadata { create_revision, mod_revision, version } = metadata;
    ElementHasher::new(Element::Record)
        .bytes(key.as_bytes())
        .bytes(value)
        .number(create_revision.as_u64())
        .number(mod_revision.as_u64())
        .number(*version)
        .finish()
}

#[cfg(test)]
mod tests;
