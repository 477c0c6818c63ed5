//! The store against what a real etcd 3.5.1 answered, and against a naive model.

use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::*;

const ALL: PageLimit = PageLimit { pairs: usize::MAX, bytes: usize::MAX };

fn key(text: &str) -> Key {
    Key::new(text.to_owned()).expect("because the tests name keys that are some")
}

/// `create mod version`, as in the transcript.
fn numbers(metadata: Option<Metadata>) -> Option<(u64, u64, u64)> {
    metadata.map(|metadata| (metadata.create_revision.as_u64(), metadata.mod_revision.as_u64(), metadata.version))
}

fn put(store: &mut Store, name: &str, value: &'static str) -> (u64, Option<(u64, u64, u64)>) {
    let change = store.put(key(name), Bytes::from_static(value.as_bytes()), None).expect("because it has no condition");
    (change.revision.as_u64(), numbers(change.previous))
}

fn delete(store: &mut Store, name: &str) -> (u64, bool) {
    let change = store.delete(&key(name), None).expect("because it has no condition");
    (change.revision.as_u64(), change.previous.is_some())
}

fn get(store: &Store, name: &str) -> Option<(u64, u64, u64, String)> {
    store.get(name.as_bytes()).map(|kv| {
        let value = String::from_utf8_lossy(&kv.value).into_owned();
        (kv.create_revision.as_u64(), kv.mod_revision.as_u64(), kv.version, value)
    })
}

#[test]
fn puts_gets_and_deletes_number_revisions_as_etcd_does() {
    let mut store = Store::new();
    assert_eq!((get(&store, "nokey"), store.revision().as_u64()), (None, 1));
    assert_eq!(delete(&mut store, "nokey"), (1, false));
    assert_eq!(put(&mut store, "a", "1"), (2, None));
    assert_eq!(put(&mut store, "a", "2"), (3, Some((2, 2, 1))));
    assert_eq!(get(&store, "a"), Some((2, 3, 2, "2".to_owned())));
    assert_eq!(delete(&mut store, "a"), (4, true));
    assert_eq!(put(&mut store, "a", "3"), (5, None));
    assert_eq!(get(&store, "a"), Some((5, 5, 1, "3".to_owned())));
}

#[test]
fn a_limited_range_says_that_there_is_more_and_how_many_there_are() {
    let mut store = Store::new();
    for name in ["p/1", "p/2", "p/3", "p/4", "p/5", "q", "o"] {
        put(&mut store, name, "v");
    }
    let range = KeyRange::prefix("p/");
    let page = store.range(&range, PageLimit { pairs: 2, ..ALL });
    let keys: Vec<_> = page.kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!((keys, page.more), (vec![&b"p/1"[..], b"p/2"], true));
    let page = store.range(&range, PageLimit { pairs: 5, ..ALL });
    assert_eq!((page.kvs.len(), page.more), (5, false));
    let page = store.range(&KeyRange::from_etcd(&key("p/4"), &[0]), ALL);
    assert_eq!((page.kvs.len(), page.more), (3, false));
    assert_eq!(store.count(&range, 5), Count { count: 5, rest: None });
    let counted = store.count(&range, 2);
    assert_eq!(counted, Count { count: 2, rest: Some(range.after(b"p/2")) });
    assert_eq!(store.count(&range.after(b"p/2"), 9), Count { count: 3, rest: None });
    assert_eq!(store.count(&KeyRange::all(), 1), Count { count: 7, rest: None });
    let page = store.range(&KeyRange::all(), PageLimit { pairs: 0, ..ALL });
    assert_eq!((page.kvs.len(), page.more), (0, true));
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let mut store = Store::new();
    put(&mut store, "b", "v");
    for (start, end) in [("c", "a"), ("b", "b")] {
        let page = store.range(&KeyRange::between(start, end), ALL);
        assert_eq!((page.kvs.len(), page.more), (0, false));
    }
}

#[test]
fn a_page_stops_before_its_limit_of_bytes_but_holds_at_least_one_pair() {
    let mut store = Store::new();
    for name in ["a", "b", "c"] {
        put(&mut store, name, "0123456789");
    }
    let pair = 1 + 10 + KeyValue::OVERHEAD;
    for (bytes, expected) in [(1, 1), (pair, 1), (2 * pair - 1, 1), (2 * pair, 2), (3 * pair, 3)] {
        let page = store.range(&KeyRange::all(), PageLimit { bytes, ..ALL });
        assert_eq!((page.kvs.len(), page.more), (expected, expected < 3), "{bytes} bytes");
    }
}

#[test]
fn a_condition_that_does_not_hold_changes_nothing() {
    let mut store = Store::new();
    put(&mut store, "a", "1");
    let before = (store.revision(), store.digest());
    let current = store.get(b"a").map(|kv| (kv.create_revision, kv.mod_revision, kv.version));
    for wrong in [0, 1, 3] {
        let mismatch = store.put(key("a"), "2".into(), Some(Revision::new(wrong)));
        let found = mismatch.expect_err("because the key is at revision 2").current;
        assert_eq!(found.map(|found| (found.create_revision, found.mod_revision, found.version)), current);
        assert!(store.delete(&key("a"), Some(Revision::new(wrong))).is_err());
    }
    assert_eq!(store.put(key("b"), "2".into(), Some(Revision::new(2))), Err(Mismatch { current: None }));
    assert_eq!((store.revision(), store.digest()), before);
    assert!(store.put(key("a"), "2".into(), Some(Revision::new(2))).is_ok());
    assert!(store.put(key("b"), "2".into(), Some(Revision::ZERO)).is_ok());
    assert!(store.delete(&key("a"), Some(Revision::new(3))).is_ok());
    assert_eq!(store.revision(), Revision::new(5));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, Option<u64>),
    Delete(u8, Option<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let condition = || proptest::option::weighted(0.3, 0_u64..12);
    let step = prop_oneof![
        (0_u8..5, any::<u8>(), condition()).prop_map(|(key, value, condition)| Step::Put(key, value, condition)),
        (0_u8..5, condition()).prop_map(|(key, condition)| Step::Delete(key, condition)),
    ];
    proptest::collection::vec(step, 0..40)
}

/// The same semantics, as plainly as they can be said: a list of everything that ever happened.
#[derive(Default)]
struct Naive {
    history: Vec<(u8, Option<u8>)>,
}

impl Naive {
    /// Value, create revision, mod revision, version.
    fn get(&self, key: u8) -> Option<(u8, u64, u64, u64)> {
        let events = self.history.iter().enumerate().filter(|(_, event)| event.0 == key);
        let mut found: Option<(u8, u64, u64, u64)> = None;
        for (nth, (_, value)) in events {
            let revision = nth as u64 + 2;
            found = match (value, found) {
                (None, _) => None,
                (Some(value), None) => Some((*value, revision, revision, 1)),
                (Some(value), Some((_, created, _, version))) => Some((*value, created, revision, version + 1)),
            };
        }
        found
    }

    fn apply(&mut self, step: &Step) {
        let (key, value, condition) = match *step {
            Step::Put(key, value, condition) => (key, Some(value), condition),
            Step::Delete(key, condition) => (key, None, condition),
        };
        let current = self.get(key);
        let holds = condition.is_none_or(|wanted| wanted == current.map_or(0, |(_, _, modified, _)| modified));
        if holds && (value.is_some() || current.is_some()) {
            self.history.push((key, value));
        }
    }
}

fn apply(store: &mut Store, step: &Step) {
    // Whether a condition held shows in the state.
    match *step {
        Step::Put(key, value, condition) => {
            store.put(name(key), vec![value].into(), condition.map(Revision::new)).ok();
        }
        Step::Delete(key, condition) => {
            store.delete(&name(key), condition.map(Revision::new)).ok();
        }
    }
}

fn name(key: u8) -> Key {
    Key::new(vec![key]).expect("because it has a byte")
}

/// The digest of a store's content, computed from nothing.
fn recomputed(store: &Store) -> Digest {
    let mut digest = Digest::default();
    digest.add(hash_revision(store.revision));
    for (key, record) in &store.records {
        digest.add(hash_record(key, &record.value, &record.metadata));
    }
    digest
}

proptest! {
    #[test]
    fn the_store_agrees_with_a_list_of_all_that_happened(steps in steps()) {
        let (mut store, mut naive) = (Store::new(), Naive::default());
        for step in &steps {
            apply(&mut store, step);
            naive.apply(step);
            prop_assert_eq!(store.revision().as_u64(), naive.history.len() as u64 + 1);
            for key in 0..5 {
                let found = store.get(&[key]).map(|kv| {
                    (kv.value[0], kv.create_revision.as_u64(), kv.mod_revision.as_u64(), kv.version)
                });
                prop_assert_eq!(found, naive.get(key));
            }
            prop_assert_eq!(store.digest(), recomputed(&store));
        }
    }

    #[test]
    fn stores_have_equal_hashes_exactly_if_their_content_is_equal(one in steps(), other in steps()) {
        let fill = |steps: &[Step]| {
            let mut store = Store::new();
            steps.iter().for_each(|step| apply(&mut store, step));
            store
        };
        let content = |store: &Store| (store.revision(), store.range(&KeyRange::all(), ALL));
        let (one, other) = (fill(&one), fill(&other));
        prop_assert_eq!(one.digest() == other.digest(), content(&one) == content(&other));
    }
}
