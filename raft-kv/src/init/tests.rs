//! A new cluster appears as a whole or not at all.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use raft_tokio::certs::Role;

use super::*;

fn temporary() -> TempDir {
    tempfile::tempdir().expect("because the tests need a place to write to")
}

fn addresses() -> Vec<String> {
    successive_addresses("127.0.0.1", 7401, 3).expect("because there are that many ports")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("because it exists");
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn whole() -> BTreeSet<String> {
    ["certs", "cluster.toml", "n1", "n2", "n3"].map(str::to_owned).into()
}

#[test]
fn a_new_cluster_has_everything_that_its_nodes_and_clients_need() {
    let parent = temporary();
    let target = parent.path().join("cluster");
    let config = init(&target, &addresses()).expect("because nothing is in the way");
    assert_eq!(names(&target), whole());
    assert_eq!(names(parent.path()), BTreeSet::from(["cluster".to_owned()]));
    assert_eq!(config.endpoints().into_values().collect::<Vec<_>>(), addresses());
    for node in config.nodes() {
        let credentials = config.node_credentials(node).expect("because they were just issued");
        assert_eq!(credentials.identity().role, Role::Node(node.id));
        assert_eq!(credentials.identity().cluster, config.cluster());
    }
    let client = config.client(Duration::from_secs(1)).expect("because it was just issued");
    assert_eq!(client.credentials.identity().role, Role::Client("client".to_owned()));
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let parent = temporary();
    let target = parent.path().join("cluster");
    init(&target, &addresses()).expect("because nothing is in the way");
    let certificates = target.join("certs");
    let modes = |suffix: &str| -> BTreeSet<u32> {
        let keys = names(&certificates).into_iter().filter(|name| name.ends_with(suffix));
        keys.map(|name| {
            fs::metadata(certificates.join(name)).expect("because it is listed").permissions().mode() & 0o777
        })
        .collect()
    };
    assert_eq!(modes(".key"), BTreeSet::from([0o600]));
    assert_eq!(names(&certificates).len(), 10);
}

#[test]
fn an_empty_directory_is_filled_in_place() {
    let target = temporary();
    init(target.path(), &addresses()).expect("because the directory is empty");
    assert_eq!(names(target.path()), whole());
}

#[test]
fn a_directory_in_use_is_refused_and_not_touched() {
    let target = temporary();
    fs::write(target.path().join("precious"), "data").expect("because the directory is ours");
    let error = init(target.path(), &addresses()).expect_err("because the directory is in use");
    assert!(matches!(&error, InitError::NotEmpty { found, .. } if found == "precious"), "{error}");
    assert_eq!(names(target.path()), BTreeSet::from(["precious".to_owned()]));
}

#[test]
fn a_second_init_does_not_touch_the_first_cluster() {
    let parent = temporary();
    let target = parent.path().join("cluster");
    let first = init(&target, &addresses()).expect("because nothing is in the way");
    assert!(matches!(init(&target, &addresses()), Err(InitError::NotEmpty { .. })));
    let again = ClusterConfig::load(&target.join(ClusterConfig::FILE_NAME)).expect("because it was not touched");
    assert_eq!(first, again);
}

#[test]
fn a_failure_half_way_leaves_nothing_behind() {
    let parent = temporary();
    let existing = temporary();
    for target in [&parent.path().join("cluster"), existing.path()] {
        let result = all_or_nothing(target, |staging| {
            fs::write(staging.join("half"), "a cluster").expect("because the staging directory is ours");
            Err(cannot_write(staging, io::ErrorKind::StorageFull.into()))
        });
        assert!(result.is_err());
    }
    assert_eq!(names(parent.path()), BTreeSet::new());
    assert_eq!(names(existing.path()), BTreeSet::new());
}

#[test]
fn a_failure_while_moving_into_an_existing_directory_takes_everything_back() {
    let target = temporary();
    let result = all_or_nothing(target.path(), |staging| {
        for name in ["certs", "cluster.toml"] {
            fs::create_dir(staging.join(name)).expect("because the staging directory is ours");
        }
        // Somebody else is faster: a directory that is not empty cannot be replaced.
        fs::create_dir_all(target.path().join("cluster.toml/theirs")).expect("because the directory is ours");
        Ok(())
    });
    assert!(
        matches!(&result, Err(InitError::CannotWrite { path, .. }) if path.ends_with("cluster.toml")),
        "{result:?}"
    );
    assert_eq!(names(target.path()), BTreeSet::from(["cluster.toml".to_owned()]));
}

#[test]
fn a_target_whose_parent_is_missing_is_named() {
    let parent = temporary();
    let target = parent.path().join("missing/cluster");
    let error = init(&target, &addresses()).expect_err("because the parent is missing");
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(names(parent.path()), BTreeSet::new());
}

#[test]
fn impossible_addresses_are_refused_before_anything_is_written() {
    let parent = temporary();
    let target = parent.path().join("cluster");
    let refused = |addresses: &[&str]| {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        init(&target, &addresses).expect_err("because the addresses are impossible").to_string()
    };
    assert_eq!(refused(&[]), "a cluster has at least one node");
    assert_eq!(
        refused(&["h:1", "h"]),
        "the address of n2 is \"h\"; an address is host:port, such as 127.0.0.1:7401 or [::1]:7401"
    );
    assert_eq!(refused(&["h:1", "h:1"]), "the address of n2 is already the address of n1");
    let ten: Vec<String> = (1..=10).map(|port| format!("h:{port}")).collect();
    assert!(matches!(init(&target, &ten), Err(InitError::Membership(_))));
    assert!(matches!(successive_addresses("h", 65_534, 3), Err(InitError::OutOfPorts { .. })));
    assert_eq!(names(parent.path()), BTreeSet::new());
}
