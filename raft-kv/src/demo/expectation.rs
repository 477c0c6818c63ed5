//! What must be in the store after a set of acknowledged writes, and in what way it is not.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use raft_kv::key::{Key, Revision};
use raft_kv::store::KeyValue;

/// What follows from acknowledged writes to an empty store in which nobody else writes.
///
/// The order of writes to one key that were under way together is known from the revisions in
/// their acknowledgements, so every field of the final state is determined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    keys: BTreeMap<Key, Record>,
    writes: u64,
}

/// What must be known of one key.
#[derive(Clone, Debug)]
struct Record {
    /// Of the first write.
    created: Revision,
    /// Of the last write.
    modified: Revision,
    /// Of the last write.
    value: Bytes,
    /// One for each write: more would mean that a retried write was applied twice.
    version: u64,
}

impl Expectation {
    /// A write was acknowledged with this revision.
    pub(crate) fn acknowledged(&mut self, key: &Key, value: &Bytes, revision: Revision) {
        self.writes += 1;
        let record = self.keys.entry(key.clone()).or_insert_with(|| Record {
            created: revision,
            modified: revision,
            value: value.clone(),
            version: 0,
        });
        record.version += 1;
        record.created = record.created.min(revision);
        if revision > record.modified {
            record.modified = revision;
            record.value = value.clone();
        }
    }

    /// How many writes were acknowledged.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// How many keys they were to.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The store's revision, if each write was applied exactly once.
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(Revision::FIRST.as_u64() + self.writes)
    }

    /// Compares a complete listing with what must be there.
    pub(crate) fn check(&self, listing: &[KeyValue]) -> Differences {
        let mut differences = Differences::default();
        let mut found: BTreeMap<&[u8], &KeyValue> = listing.iter().map(|pair| (&pair.key[..], pair)).collect();
        for (key, record) in &self.keys {
            let Some(pair) = found.remove(&key.as_bytes()[..]) else {
                differences.add(|| format!("{key}: acknowledged at revision {}, but missing", record.modified));
                continue;
            };
            if pair.value != record.value {
                let (wanted, is) = (record.value.escape_ascii(), pair.value.escape_ascii());
                differences.add(|| format!("{key}: acknowledged as \"{wanted}\", but is \"{is}\""));
            }
            let wanted = (record.created, record.modified, record.version);
            let is = (pair.create_revision, pair.mod_revision, pair.version);
            if is != wanted {
                differences.add(|| format!("{key}: should have {}, but has {}", numbers(wanted), numbers(is)));
            }
        }
        for key in found.keys() {
            differences.add(|| format!("{}: is there, but was never written", key.escape_ascii()));
        }
        differences
    }
}

fn numbers((created, modified, version): (Revision, Revision, u64)) -> String {
    format!("create revision {created}, mod revision {modified}, version {version}")
}

/// Compares two complete listings.
pub(crate) fn compare(reference: &[KeyValue], other: &[KeyValue]) -> Differences {
    let mut differences = Differences::default();
    let mut left: BTreeMap<&[u8], &KeyValue> = other.iter().map(|pair| (&pair.key[..], pair)).collect();
    for pair in reference {
        let key = pair.key.escape_ascii();
        match left.remove(&pair.key[..]) {
            None => differences.add(|| format!("{key}: missing")),
            Some(same) if same == pair => {}
            Some(different) => differences.add(|| format!("{key}: {different:?} instead of {pair:?}")),
        }
    }
    for key in left.keys() {
        differences.add(|| format!("{}: is there, but should not be", key.escape_ascii()));
    }
    differences
}

/// The first few differences, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    listed: Vec<String>,
    total: u64,
}

impl Differences {
    const LISTED_MAX: usize = 10;

    fn add(&mut self, describe: impl FnOnce() -> String) {
        self.total += 1;
        if self.listed.len() < Self::LISTED_MAX {
            self.listed.push(describe());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// One difference a line.
impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.listed {
            writeln!(f, "  {line}")?;
        }
        match self.total - self.listed.len() as u64 {
            0 => Ok(()),
            unlisted => writeln!(f, "  and {unlisted} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Key {
        Key::new(name).expect("because the tests name keys that are some")
    }

    fn pair(name: &'static str, value: &'static str, created: u64, modified: u64, version: u64) -> KeyValue {
        KeyValue {
            key: Bytes::from(name),
            value: Bytes::from(value),
            create_revision: Revision::new(created),
            mod_revision: Revision::new(modified),
            version,
        }
    }

    /// Acknowledged out of order, as answers to concurrent requests are.
    fn three_writes_to_two_keys() -> Expectation {
        let mut expectation = Expectation::default();
        expectation.acknowledged(&key("a"), &Bytes::from("new"), Revision::new(4));
        expectation.acknowledged(&key("b"), &Bytes::from("only"), Revision::new(3));
        expectation.acknowledged(&key("a"), &Bytes::from("old"), Revision::new(2));
        expectation
    }

    #[test]
    fn the_highest_revision_decides_which_write_was_last() {
        let expectation = three_writes_to_two_keys();
        let differences = expectation.check(&[pair("a", "new", 2, 4, 2), pair("b", "only", 3, 3, 1)]);
        assert_eq!(differences, Differences::default());
        assert_eq!((expectation.writes(), expectation.keys(), expectation.revision()), (3, 2, Revision::new(4)));
    }

    #[test]
    fn a_lost_write_a_wrong_value_and_a_write_applied_twice_are_named() {
        let listing = [pair("a", "old", 2, 5, 3), pair("c", "", 6, 6, 1)];
        assert_eq!(
            three_writes_to_two_keys().check(&listing).to_string(),
            "  a: acknowledged as \"new\", but is \"old\"\n  \
             a: should have create revision 2, mod revision 4, version 2, but has create revision 2, mod revision 5, version 3\n  \
             b: acknowledged at revision 3, but missing\n  \
             c: is there, but was never written\n"
        );
    }

    #[test]
    fn listings_differ_by_any_field_of_any_pair() {
        let reference = [pair("a", "1", 2, 2, 1), pair("b", "2", 3, 3, 1)];
        assert!(compare(&reference, &reference).is_empty());
        for other in [
            vec![],
            vec![pair("a", "1", 2, 2, 1)],
            vec![pair("a", "1", 2, 2, 1), pair("b", "3", 3, 3, 1)],
            vec![pair("a", "1", 2, 2, 1), pair("b", "2", 3, 4, 1)],
            vec![pair("a", "1", 2, 2, 1), pair("b", "2", 3, 3, 2)],
            vec![pair("a", "1", 2, 2, 1), pair("b", "2", 3, 3, 1), pair("c", "3", 4, 4, 1)],
        ] {
            assert!(!compare(&reference, &other).is_empty(), "{other:?}");
        }
    }

    #[test]
    fn more_differences_than_a_screen_holds_are_counted() {
        let mut differences = Differences::default();
        (0..25).for_each(|nth| differences.add(|| nth.to_string()));
        assert_eq!(differences.total(), 25);
        assert!(differences.to_string().ends_with("  9\n  and 15 more\n"));
    }
}
