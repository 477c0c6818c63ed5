//! A cluster that is set up wrong: a node that cannot keep its promises does not start.

use std::fs;
use std::net::UdpSocket;

use crate::support::{Cluster, contents, run, text};

/// Replaces text in the configuration of a cluster.
fn edit(cluster: &Cluster, edits: &[(&str, &str)]) {
    let path = cluster.config_path();
    let mut config = fs::read_to_string(&path).expect("because init has written it");
    for (from, to) in edits {
        assert!(config.contains(from), "there is no {from} in {config}");
        config = config.replace(from, to);
    }
    fs::write(path, config).expect("because the test's folder is writable");
}

/// Starts n1 in vain, and sees that it changed nothing.
fn expect_refusal(cluster: &Cluster, status: i32, parts: &[&str]) {
    let before = contents(&cluster.path());
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(status, parts);
    assert_eq!(contents(&cluster.path()), before);
}

#[test]
fn a_node_that_is_not_in_the_configuration_is_refused() {
    let cluster = Cluster::init(3);
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "4"]).expect_error(1, &["no node n4", "n1, n2, n3"]);
}

#[test]
fn the_data_directory_of_another_node_is_refused() {
    let cluster = Cluster::init(3);
    edit(&cluster, &[("\"n1\"", "\"nx\""), ("\"n2\"", "\"n1\""), ("\"nx\"", "\"n2\"")]);
    expect_refusal(&cluster, 1, &["n1", "belongs to n2", "point the configuration"]);
}

#[test]
fn the_data_directory_of_another_cluster_is_refused() {
    let (cluster, other) = (Cluster::init(1), Cluster::init(1));
    let data = cluster.path().join("n1");
    fs::remove_dir_all(&data).expect("because nobody uses it");
    fs::rename(other.path().join("n1"), &data).expect("because both are on one disk");
    let theirs = other.config().cluster().to_string();
    expect_refusal(&cluster, 1, &["n1", "cluster", &theirs, "point the configuration"]);
}

#[test]
fn an_empty_and_a_missing_data_directory_are_refused() {
    let cluster = Cluster::init(1);
    let data = cluster.path().join("n1");
    fs::remove_dir_all(&data).expect("because nobody uses it");
    expect_refusal(&cluster, 1, &[text(&data), "does not exist"]);
    fs::create_dir(&data).expect("because the test's folder is writable");
    expect_refusal(&cluster, 1, &[text(&data), "is empty", "never silently resumes"]);
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(1, &["in use by another process", "n1"]);
    cluster.wait_for_verdict("HEALTHY");
}

#[test]
fn a_port_that_is_taken_is_named_with_a_status_of_its_own() {
    let cluster = Cluster::init(1);
    let config = cluster.config();
    let address = config.nodes().next().expect("because there is one node").address.clone();
    let _taken = UdpSocket::bind(&address).expect("because it was free a moment ago");
    let path = cluster.config_path();
    run(&["serve", "--config", text(&path), "--node", "1"])
        .expect_error(7, &[&address, "already in use", "another port"]);
}

#[test]
fn the_certificate_of_another_node_is_refused() {
    let cluster = Cluster::init(3);
    edit(
        &cluster,
        &[("certs/n1.pem", "certs/nx.pem"), ("certs/n2.pem", "certs/n1.pem"), ("certs/nx.pem", "certs/n2.pem")],
    );
    expect_refusal(&cluster, 1, &["certificate", "n2"]);
    edit(
        &cluster,
        &[("certs/n1.key", "certs/nx.key"), ("certs/n2.key", "certs/n1.key"), ("certs/nx.key", "certs/n2.key")],
    );
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(1, &["certificate", "n2", "n1"]);
}

#[test]
fn the_certificate_of_another_cluster_is_refused() {
    let (cluster, other) = (Cluster::init(1), Cluster::init(1));
    for file in ["n1.pem", "n1.key"] {
        fs::copy(other.path().join("certs").join(file), cluster.path().join("certs").join(file))
            .expect("because the test's folder is writable");
    }
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(1, &["certificate"]);
}

#[test]
fn a_client_of_another_cluster_is_told_so() {
    let (cluster, other) = (Cluster::start(1), Cluster::init(1));
    cluster.wait_for_verdict("HEALTHY");
    for file in ["ca.pem", "client.pem", "client.key"] {
        fs::copy(other.path().join("certs").join(file), cluster.path().join("certs").join(file))
            .expect("because the test's folder is writable");
    }
    let (ours, theirs) = (cluster.config().cluster().to_string(), other.config().cluster().to_string());
    cluster.run(&["get", "a", "--timeout", "2s"]).expect_error(1, &["certificate", &ours, &theirs, "issued for it"]);
}
