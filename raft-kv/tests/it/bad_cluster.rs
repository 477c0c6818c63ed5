//! A cluster that is set up wrong: a node that cannot keep its promises does not start.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use raft_tokio::certs::{Authority, Validity};

use crate::support::{Cluster, contents, run, text};

/// Starts n1 in vain, and sees that it changed nothing.
fn expect_refusal(cluster: &Cluster, status: i32, parts: &[&str]) {
    let before = contents(&cluster.path());
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(status, parts);
    let after = contents(&cluster.path());
    assert!(before.keys().eq(after.keys()), "there are other files: {:?}", after.keys());
    for (path, content) in before {
        assert!(after[&path] == content, "{} was changed", path.display());
    }
}

#[test]
fn a_node_that_is_not_in_the_configuration_is_refused() {
    let cluster = Cluster::init(3);
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "4"]).expect_error(2, &["no node n4", "n1, n2, n3"]);
    cluster.run(&["get", "a", "--stale", "--node", "4"]).expect_error(2, &["n4 is not a node", "n1, n2, n3"]);
}

#[test]
fn the_data_directory_of_another_node_is_refused() {
    let cluster = Cluster::init(3);
    cluster.edit(&[("\"n1\"", "\"nx\""), ("\"n2\"", "\"n1\""), ("\"nx\"", "\"n2\"")]);
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
fn regress_a_data_directory_without_its_anchor_is_told_what_it_means() {
    let cluster = Cluster::init(1);
    fs::remove_file(cluster.path().join("n1/anchor")).expect("because init has written it");
    expect_refusal(&cluster, 1, &["n1/anchor is missing", "bring back the whole directory"]);
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
    cluster.edit(&[
        ("certs/n1.pem", "certs/nx.pem"),
        ("certs/n2.pem", "certs/n1.pem"),
        ("certs/nx.pem", "certs/n2.pem"),
    ]);
    expect_refusal(&cluster, 2, &["certs/n2.pem", "n1.key", "in pairs", "cluster.toml", "restore"]);
    cluster.edit(&[
        ("certs/n1.key", "certs/nx.key"),
        ("certs/n2.key", "certs/n1.key"),
        ("certs/nx.key", "certs/n2.key"),
    ]);
    let config = cluster.config_path();
    run(&["serve", "--config", text(&config), "--node", "1"])
        .expect_error(2, &["certs/n2.pem names node n2", "cluster.toml uses it for node n1", "issued for it"]);
}

#[test]
fn the_certificate_of_another_cluster_is_refused() {
    let (cluster, other) = (Cluster::init(1), Cluster::init(1));
    for file in ["n1.pem", "n1.key"] {
        fs::copy(other.path().join("certs").join(file), cluster.path().join("certs").join(file))
            .expect("because the test's folder is writable");
    }
    let config = cluster.config_path();
    let serve = || run(&["serve", "--config", text(&config), "--node", "1"]);
    serve().expect_error(2, &["certs/n1.pem", "not issued by", "certs/ca.pem", "cluster.toml", "restore"]);
    // With its authority, it is consistent, and still of another cluster.
    copy_certificates(&other, &cluster, &["ca.pem"]);
    let (ours, theirs) = (cluster.config().cluster().to_string(), other.config().cluster().to_string());
    serve().expect_error(2, &["certs/n1.pem", &ours, &theirs, "cluster.toml", "issued for it"]);
}

/// Puts certificates and keys of one cluster in the place of another's.
fn copy_certificates(from: &Cluster, to: &Cluster, files: &[&str]) {
    for file in files {
        fs::copy(from.path().join("certs").join(file), to.path().join("certs").join(file))
            .expect("because the test's folder is writable");
    }
}

#[test]
fn a_client_with_the_certificate_of_another_cluster_is_told_so() {
    let (cluster, other) = (Cluster::init(1), Cluster::init(1));
    copy_certificates(&other, &cluster, &["ca.pem", "client.pem", "client.key"]);
    let (ours, theirs) = (cluster.config().cluster().to_string(), other.config().cluster().to_string());
    let parts = ["certs/client.pem", &ours, &theirs, "cluster.toml", "issued for it"];
    cluster.run(&["get", "a"]).expect_error(2, &parts);
    cluster.run(&["status"]).expect_error(2, &parts);
    fs::remove_file(cluster.path().join("certs/client.key")).expect("because init has written it");
    cluster.run(&["get", "a"]).expect_error(2, &["certs/client.key", "No such file", "cluster.toml", "restore"]);
}

#[test]
fn regress_nodes_of_another_cluster_are_told_from_dead_ones_at_once() {
    let (cluster, other) = (Cluster::start(3), Cluster::init(3));
    cluster.wait_for_verdict("HEALTHY");
    // The configuration of the one, at the addresses of the other.
    let addresses = cluster.config().endpoints().into_values();
    let edits: Vec<(String, String)> = other.config().endpoints().into_values().zip(addresses).collect();
    let edits: Vec<(&str, &str)> = edits.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    other.edit(&edits);
    let parts = ["do not accept each other", "issued by another authority", "certs/client.pem", "certs/ca.pem"];
    // With an hour to try, so that it ends only if it is decided.
    for command in [&["get", "a"][..], &["put", "a", "1"], &["range"], &["get", "a", "--stale", "--node", "2"]] {
        other.run(&[command, &["--timeout", "60m"]].concat()).expect_error(1, &parts);
    }
    let ended = other.run(&["status", "--timeout", "60m"]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(1), ""), "{ended:#?}");
    for part in ["REFUSED – 3 of 3 nodes up", "n2 its certificate", "refused", "use the configuration"] {
        assert!(ended.stdout.contains(part), "there is no \"{part}\" in {ended:#?}");
    }
    assert!(!ended.stdout.contains("serve"), "nothing has to be started: {ended:#?}");
}

/// Writes one of the files in a cluster's folder for certificates.
fn write_certificate(cluster: &Cluster, file: &str, pem: &str) {
    fs::write(cluster.path().join("certs").join(file), pem).expect("because the test's folder is writable");
}

#[test]
fn regress_a_client_that_the_nodes_do_not_accept_is_told_so_at_once() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    // An authority of the same cluster that only the client accepts, besides the right one.
    let other = Authority::new(cluster.config().cluster()).expect("because the system has randomness");
    let issued = other.issue_client("intruder").expect("because the system has randomness");
    let authorities = fs::read_to_string(cluster.path().join("certs/ca.pem")).expect("because init has written it");
    write_certificate(&cluster, "ca.pem", &format!("{authorities}{}", other.cert_pem()));
    write_certificate(&cluster, "client.pem", &issued.cert_pem);
    write_certificate(&cluster, "client.key", &issued.key_pem);
    let parts =
        ["does not accept this client's certificate", "another authority", "certs/client.pem", "client intruder"];
    cluster.run(&["put", "a", "1", "--timeout", "60m"]).expect_error(1, &parts);
    let status = cluster.run(&["status", "--timeout", "60m"]);
    assert!(status.status == Some(1) && status.stdout.starts_with("REFUSED – 1 of 1 nodes up"), "{status:#?}");
}

#[test]
fn an_expired_certificate_is_named_with_its_file() {
    let cluster = Cluster::init(1);
    let read = |file| fs::read_to_string(cluster.path().join("certs").join(file)).expect("because init has written it");
    let authority = Authority::load(&read("ca.pem"), &read("ca.key")).expect("because init has written it");
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let validity = Validity { not_before: now - 10 * day, not_after: now - 3 * day };
    let client = authority.issue_client_for("client", validity).expect("because the name is one");
    let node = authority.issue_node_for(crate::support::node(1), validity).expect("because the system has randomness");
    for (name, issued) in [("client", client), ("n1", node)] {
        write_certificate(&cluster, &format!("{name}.pem"), &issued.cert_pem);
        write_certificate(&cluster, &format!("{name}.key"), &issued.key_pem);
    }
    cluster.run(&["get", "a"]).expect_error(2, &["certs/client.pem", "expired 3 days ago", "issue a new one"]);
    expect_refusal(&cluster, 2, &["certs/n1.pem", "expired 3 days ago", "issue a new one"]);
}

#[test]
fn an_address_that_is_not_of_this_machine_is_refused() {
    let cluster = Cluster::init(1);
    let address = cluster.config().endpoints().into_values().next().expect("because there is one node");
    // For documentation only, by RFC 5737: no machine has it.
    cluster.edit(&[(&address, "192.0.2.1:7401")]);
    let config = cluster.config_path();
    let serve = || run(&["serve", "--config", text(&config), "--node", "1"]);
    serve().expect_error(
        2,
        &["192.0.2.1:7401", "this machine does not have it", "cluster.toml", "listen = \"0.0.0.0:7401\""],
    );
    // An empty label: no name server is even asked.
    cluster.edit(&[("192.0.2.1:7401", "no-such-host..invalid:7401")]);
    serve().expect_error(2, &["cannot resolve no-such-host..invalid:7401", "cluster.toml", "`listen`"]);
    cluster
        .run(&["get", "a", "--timeout", "2s"])
        .expect_error(6, &["no-such-host..invalid", "cannot be resolved", "correct the address"]);
}
