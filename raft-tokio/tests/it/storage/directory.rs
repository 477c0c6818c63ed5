//! The data directory on a real file system: whose it is, who uses it, and what is said otherwise.

use std::fs;
use std::path::Path;

use raft_core::{ClusterId, HardState};
use raft_tokio::storage::{self, Expected, Options, StorageError, Writer};

use super::{birth, expected, node, vote};

fn refusal(dir: &Path, expected: &Expected) -> StorageError {
    match storage::open(dir, expected, &Options::DEFAULT) {
        Ok(opened) => panic!("it opens: {opened:?}"),
        Err(error) => error,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn formatting_makes_the_folders_above_and_leaves_nothing_beside_it() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("a/b/n1");
    storage::format(&dir, &birth())?;
    assert_eq!(names(&folder.path().join("a/b")), ["n1"]);
    assert_eq!(names(&dir), ["anchor", "identity", "log-000000000001"]);
    // An empty directory will do as well, also the one at the end of a path with a slash.
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    storage::format(&folder.path().join("empty/"), &birth())
}

#[test]
fn a_directory_with_something_in_it_is_not_formatted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("precious.txt"), "data").expect("a file");
    let error = storage::format(folder.path(), &birth()).expect_err("there is something in it");
    assert!(matches!(&error, StorageError::NotEmpty { found, .. } if found == "precious.txt"), "{error}");
    assert_eq!(names(folder.path()), ["precious.txt"]);
    let file = folder.path().join("precious.txt");
    let error = storage::format(&file, &birth()).expect_err("it is a file");
    assert!(matches!(error, StorageError::NotADataDirectory { .. }), "{error}");
    let error = storage::format(&file.join("n1"), &birth()).expect_err("its parent is a file");
    assert!(error.to_string().contains("precious.txt"), "{error}");
}

#[test]
fn a_formatted_directory_is_not_formatted_again() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    let before = fs::read(dir.join("identity")).expect("the identity");
    assert!(matches!(storage::format(&dir, &birth()), Err(StorageError::NotEmpty { .. })));
    assert_eq!(fs::read(dir.join("identity")).expect("the identity"), before);
    assert_eq!(names(folder.path()), ["n1"]);
    Ok(())
}

#[test]
fn a_missing_directory_is_not_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    let error = refusal(&dir, &expected());
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    assert!(!dir.exists());
}

#[test]
fn an_empty_directory_never_resumes_an_identity() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = refusal(folder.path(), &expected());
    assert!(matches!(error, StorageError::Empty { .. }), "{error}");
    assert!(error.to_string().contains("never silently resumes an identity"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn something_else_is_no_data_directory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "hello").expect("a file");
    for path in [folder.path(), &file] {
        let error = refusal(path, &expected());
        assert!(matches!(error, StorageError::NotADataDirectory { .. }), "{error}");
    }
    assert_eq!(names(folder.path()), ["notes.txt"]);
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_and_both_are_named() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    let before = fs::read(dir.join("anchor")).expect("the anchor");
    let other_node = Expected { node: node(2), ..expected() };
    let other_cluster = Expected { cluster: ClusterId::new(0xc2), ..expected() };
    for (expected, said) in [(other_node, "n2"), (other_cluster, "000000c2")] {
        let error = refusal(&dir, &expected);
        assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
        let said_all = [said, "n1", "000000c1"].iter().all(|part| error.to_string().contains(part));
        assert!(said_all, "{error}");
    }
    assert_eq!(fs::read(dir.join("anchor")).expect("the anchor"), before, "it was not opened");
    Ok(())
}

#[test]
fn a_directory_in_use_is_refused_until_it_is_closed() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    let opened = storage::open(&dir, &expected(), &Options::DEFAULT)?;
    assert!(matches!(refusal(&dir, &expected()), StorageError::InUse { .. }));
    let writer = Writer::spawn(opened.log, |_| {})?;
    assert!(matches!(refusal(&dir, &expected()), StorageError::InUse { .. }));
    writer.write(vote(1, 7, 2));
    writer.close();
    let opened = storage::open(&dir, &expected(), &Options::DEFAULT)?;
    let HardState { term, voted_for, .. } = opened.durable.hard_state;
    assert_eq!((term.as_u64(), voted_for), (7, Some(node(2))));
    Ok(())
}

#[test]
fn another_format_version_is_refused_by_name() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["identity", "log-000000000001"] {
        let dir = folder.path().join(file);
        storage::format(&dir, &birth())?;
        let mut bytes = fs::read(dir.join(file)).expect("it was formatted");
        bytes[8] = 2;
        fs::write(dir.join(file), bytes).expect("it can be written");
        let error = refusal(&dir, &expected());
        assert!(matches!(error, StorageError::UnknownVersion { found: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains(file), "{error}");
    }
    Ok(())
}

#[test]
fn what_a_crash_left_of_a_segment_being_made_is_removed() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    fs::write(dir.join("log-000000000002.new"), "half").expect("a file");
    drop(storage::open(&dir, &expected(), &Options::DEFAULT)?);
    assert_eq!(names(&dir), ["anchor", "identity", "log-000000000001"]);
    Ok(())
}

#[test]
fn a_data_directory_is_for_its_owner_only() -> Result<(), Box<dyn std::error::Error>> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    assert_eq!(std::fs::metadata(&dir)?.permissions().mode() & 0o777, 0o700);
    Ok(())
}
