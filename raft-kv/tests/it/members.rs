//! Members come, go and change, with the data in snapshots by then.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Cluster, as_json, contents, run, text, wait_for};

/// Snapshots so often that whoever comes later cannot be sent the log.
const OFTEN: &str = "[snapshots]\nentries = 100\nretain_bytes = 0\n";

/// Lines for `load`.
fn pairs(cluster: &Cluster, count: u32) -> std::path::PathBuf {
    let file = cluster.path().with_file_name("pairs.tsv");
    let lines: String = (0..count).map(|nth| format!("key/{nth:05}\tvalue {nth}\n")).collect();
    fs::write(&file, lines).expect("because the test's folder is writable");
    file
}

/// What a node says of itself.
fn node_status(cluster: &Cluster, number: u64) -> Value {
    let status: Value = serde_json::from_str(&cluster.run(&["status", "-o", "json"]).stdout).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["node"] == json!(format!("n{number}"))).unwrap_or_default()
}

/// Who belongs to the cluster, and as what.
fn members(cluster: &Cluster) -> Vec<(String, String)> {
    let list = as_json(cluster.run(&["member", "list", "-o", "json"]));
    let members = list["members"].as_array().expect("because it is a list");
    let word = |member: &Value, field: &str| member[field].as_str().unwrap_or_default().to_owned();
    members.iter().map(|member| (word(member, "node"), word(member, "member"))).collect()
}

fn wait_for_member(cluster: &Cluster, node: &str, kind: &str) {
    wait_for(kind, || members(cluster).contains(&(node.to_owned(), kind.to_owned())).then_some(()));
}

fn leader(cluster: &Cluster) -> u64 {
    wait_for("a leader", || {
        let status: Value = serde_json::from_str(&cluster.run(&["status", "-o", "json"]).stdout).ok()?;
        status["leader"].as_str()?.strip_prefix('n')?.parse().ok()
    })
}

/// All running nodes have applied the same, and hold the same.
fn wait_until_equal(cluster: &Cluster, nodes: &[u64]) {
    wait_for("equal replicas", || {
        let states: BTreeSet<String> = nodes
            .iter()
            .map(|node| {
                let status = node_status(cluster, *node);
                format!("{} {}", status["applied"], status["hash"])
            })
            .collect();
        (states.len() == 1 && !states.contains("null null")).then_some(())
    });
}

#[test]
fn a_cluster_takes_nodes_in_lets_its_leader_go_and_comes_back_from_its_snapshots() {
    let mut cluster = Cluster::init(3);
    cluster.insert(&format!("{OFTEN}\n[leases]\ndrift_ppm = 200\n"));
    (1..=3).for_each(|node| cluster.start_node(node));
    cluster.wait_for_verdict("HEALTHY");
    cluster.run(&["load", text(&pairs(&cluster, 500))]);
    let first = leader(&cluster);
    wait_for("a log that is cut", || (node_status(&cluster, first)["log_base"].as_u64() > Some(0)).then_some(()));

    // The log that it would need is gone: what it has, it has from a snapshot.
    cluster.join_node(4, &[]);
    wait_for_member(&cluster, "n4", "voter");
    wait_until_equal(&cluster, &[1, 2, 3, 4]);
    assert_eq!(node_status(&cluster, 4)["keys"], 500);
    cluster.wait_for_verdict("HEALTHY – 4 of 4 nodes");

    // Reads of all levels.
    let value = "value 77\n";
    assert_eq!(cluster.run(&["get", "key/00077"]).expect_output(), value);
    assert_eq!(cluster.run(&["get", "key/00077", "--lease"]).expect_output(), value);
    for node in ["1", "2", "3", "n4"] {
        assert_eq!(cluster.run(&["get", "key/00077", "--node", node]).expect_output(), value);
        assert_eq!(cluster.run(&["get", "key/00077", "--stale", "--node", node]).expect_output(), value);
        assert_eq!(cluster.run(&["range", "--count-only", "--node", node]).expect_output(), "500\n");
    }

    // The newcomer leads, and goes.
    assert_eq!(cluster.run(&["transfer", "--to", "4"]).expect_output(), "n4 leads\n");
    assert_eq!(leader(&cluster), 4);
    let removed = cluster.run(&["member", "remove", "n4"]).expect_output();
    assert!(removed.starts_with("n4 is removed, and its id is never used again; stop it, and take"), "{removed}");
    cluster.wait_for_verdict("HEALTHY – 3 of 3 nodes");
    assert_eq!(node_status(&cluster, 4)["role"], "follower", "it knows that it does not lead");
    cluster.kill_node(4);
    cluster.wait_for_verdict("HEALTHY – 3 of 3 nodes");

    // A voter learns, and votes again.
    let learner = first % 3 + 1;
    let name = format!("n{learner}");
    cluster.run(&["member", "demote", &name]).expect_output();
    assert!(members(&cluster).contains(&(name.clone(), "learner".to_owned())));
    cluster.wait_for_verdict("HEALTHY – 2 of 2 nodes");
    assert_eq!(cluster.run(&["get", "key/00003", "--node", &name]).expect_output(), "value 3\n");
    let promoted = cluster.run(&["member", "promote", &name]);
    assert_eq!(promoted.expect_output(), format!("{name} has a vote\n"));
    cluster.run(&["put", "last", "word"]).expect_output();
    wait_until_equal(&cluster, &[1, 2, 3]);

    // Everybody at once, from what is on the disks.
    let snapshots = cluster.run(&["snapshot", "--node", "1"]).expect_output();
    assert!(snapshots.starts_with("n1 has a snapshot up to "), "{snapshots}");
    (1..=3).for_each(|node| cluster.kill_node(node));
    (1..=3).for_each(|node| cluster.start_node(node));
    cluster.wait_for_verdict("HEALTHY – 3 of 3 nodes");
    wait_until_equal(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.run(&["range", "--count-only"]).expect_output(), "501\n");
    let kinds: Vec<String> = members(&cluster).into_iter().map(|(node, kind)| node + " " + &kind).collect();
    assert_eq!(kinds, ["n1 voter", "n2 voter", "n3 voter"]);
}

#[test]
fn regress_nodes_start_without_a_founder_that_was_removed_and_is_not_in_the_file_any_more() {
    let mut cluster = Cluster::start(3);
    cluster.wait_for_verdict("HEALTHY");
    cluster.run(&["member", "remove", "1"]).expect_output();
    (1..=3).for_each(|node| cluster.kill_node(node));
    cluster.take_out(1);
    [2, 3].into_iter().for_each(|node| cluster.start_node(node));
    cluster.wait_for_verdict("HEALTHY – 2 of 2 nodes");
    cluster.run(&["put", "a", "1"]).expect_output();
}

#[test]
fn a_member_is_added_without_being_run_and_stays_a_learner_if_told_so() {
    let mut cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    let address = cluster.spare_address(1);
    let added = as_json(cluster.run(&["member", "add", "--learner", "--address", &address, "-o", "json"]));
    let start = format!("raft-kv serve --config {} --node 2", text(&cluster.config_path()));
    assert_eq!(added, json!({ "node": "n2", "learner": true, "start": start }));
    // It is no member that others wait for, and no voter before somebody says so.
    cluster.run(&["put", "a", "1"]).expect_output();
    cluster.run(&["member", "promote", "2"]).expect_error(1, &["n2 was not promoted", "not caught up", "member list"]);
    cluster.start_node(2);
    wait_until_equal(&cluster, &[1, 2]);
    wait_for("a promotion", || (cluster.run(&["member", "promote", "2"]).status == Some(0)).then_some(()));
    cluster.wait_for_verdict("HEALTHY – 2 of 2 nodes");
    let list = cluster.run(&["member", "list"]).expect_output();
    assert!(list.contains(&address) && list.contains("leader"), "{list}");
}

#[test]
fn two_nodes_that_join_at_once_are_both_in_the_file() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    std::thread::scope(|scope| {
        let add = |nth| {
            let (address, cluster) = (cluster.spare_address(nth), &cluster);
            scope.spawn(move || {
                cluster.run(&["member", "add", "--timeout", "60s", "--learner", "--address", &address]).expect_output()
            })
        };
        let (first, second) = (add(1), add(2));
        first.join().expect("because it succeeds");
        second.join().expect("because it succeeds");
    });
    let nodes: Vec<u64> = cluster.config().nodes().map(|node| node.id.as_u64()).collect();
    assert_eq!(nodes, [1, 2, 3]);
}

#[test]
fn a_join_that_fails_before_the_cluster_has_decided_leaves_nothing() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    let (config, spare) = (cluster.config(), cluster.spare_address(1));
    let taken = config.endpoints().into_values().next().expect("because there is one node");
    // The node's own files change as it likes.
    let files =
        || contents(&cluster.path()).into_iter().filter(|(path, _)| !path.starts_with(cluster.path().join("n1")));
    let before: Vec<_> = files().collect();
    let refused = |address: &str, status: i32, parts: &[&str]| {
        for command in [&["join"][..], &["member", "add"]] {
            cluster.run(&[command, &["--address", address]].concat()).expect_error(status, parts);
        }
        assert_eq!(members(&cluster), [("n1".to_owned(), "voter".to_owned())]);
    };
    refused("elsewhere", 2, &["the address of the new node is \"elsewhere\"", "host:port"]);
    refused(&taken, 2, &["the address of the new node is already the address of n1"]);
    cluster.run(&["join"]).expect_error(2, &["--address <HOST:PORT>"]);
    assert_eq!(files().collect::<Vec<_>>(), before);

    let (key, hidden) = (cluster.path().join("certs/ca.key"), cluster.path().with_file_name("ca.key"));
    fs::rename(&key, &hidden).expect("because init has written it");
    refused(&spare, 2, &[text(&key), "No such file", "raft-kv init", "certificate for a new node"]);
    fs::rename(&hidden, &key).expect("because it was moved there");
    assert_eq!(files().collect::<Vec<_>>(), before);

    // Where the certificates were is a file: nothing could be written there.
    let (certificates, moved) = (cluster.path().join("certs"), cluster.path().join("secrets"));
    fs::rename(&certificates, &moved).expect("because both are on one disk");
    fs::write(&certificates, "in the way").expect("because the test's folder is writable");
    cluster.edit(&[("certs/", "secrets/")]);
    let before: Vec<_> = files().collect();
    refused(&spare, 1, &["cannot write", text(&certificates)]);
    assert_eq!(files().collect::<Vec<_>>(), before);
}

#[test]
fn a_join_that_fails_after_the_cluster_has_decided_says_what_is_left_and_how_to_let_it_go() {
    let mut cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    // The last but one of what is moved into place: what was moved before it has to go back.
    let (key, address) = (cluster.path().join("certs/n2.key"), cluster.spare_address(1));
    fs::write(&key, "somebody's").expect("because the test's folder is writable");
    let files =
        || contents(&cluster.path()).into_iter().filter(|(path, _)| !path.starts_with(cluster.path().join("n1")));
    let before: Vec<_> = files().collect();
    let parts = ["n2 is a member of the cluster by now, without a vote", text(&key), "`raft-kv member remove n2`"];
    cluster.run(&["join", "--address", &address]).expect_error(1, &parts);
    assert_eq!(files().collect::<Vec<_>>(), before);

    let list = cluster.run(&["member", "list"]).expect_output();
    assert!(list.contains("n2    learner") && list.contains("not in this configuration file"), "{list}");
    let removed = cluster.run(&["member", "remove", "n2"]).expect_output();
    assert_eq!(removed, "n2 is removed, and its id is never used again\n", "it is in no file");
    cluster.join_node(3, &[]);
    wait_for_member(&cluster, "n3", "voter");
}

#[test]
fn changes_that_cannot_be_made_say_why_and_where_to_look() {
    let mut cluster = Cluster::start(3);
    cluster.wait_for_verdict("HEALTHY");
    // In the file, by hand, and never joined.
    let of_nobody = "\n[[node]]\nid = 5\naddress = \"127.0.0.1:9\"\ndata = \"n5\"\ncertificate = \"c\"\nkey = \"k\"\n";
    let config = fs::read_to_string(cluster.config_path()).expect("because init has written it");
    fs::write(cluster.config_path(), config + of_nobody).expect("because the test's folder is writable");
    for (arguments, parts) in [
        (&["member", "promote", "1"][..], ["n1 was not promoted", "n1 is not a learner"]),
        (&["member", "promote", "9"], ["n9 was not promoted", "n9 is not a"]),
        (&["member", "demote", "9"], ["n9 was not demoted", "n9 is not a"]),
        (&["member", "remove", "9"], ["n9 was not removed", "n9 is not a member"]),
        (&["member", "remove", "5"], ["n5 was not removed", "n5 is not a member"]),
    ] {
        let ended = cluster.run(arguments);
        ended.expect_error(1, &[parts[0], parts[1], "`raft-kv member list`"]);
    }
    let now = leader(&cluster);
    for (to, part) in [(9, "n9 is not a voter"), (5, "n5 is not a voter"), (now, "is the leader already")] {
        let ended = cluster.run(&["transfer", "--to", &to.to_string()]);
        ended.expect_error(1, &["leadership was not handed over", part, "`raft-kv status`"]);
    }
    cluster.run(&["snapshot", "--node", "9"]).expect_error(2, &["n9 is not a node of this cluster"]);
    cluster.run(&["member", "remove", "x"]).expect_error(2, &["'x'", "1 or n1"]);
    cluster.run(&["member"]).expect_error(2, &["Usage:"]);

    // What is gone is gone, and was removed once.
    let gone = now % 3 + 1;
    cluster.run(&["member", "remove", &gone.to_string()]).expect_output();
    let ended = cluster.run(&["member", "remove", &gone.to_string(), "-o", "json"]);
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    let document: Value = serde_json::from_str(&ended.stdout).expect("because JSON was asked for");
    assert_eq!((&document["code"], &document["exit_status"]), (&json!("failed"), &json!(1)), "{document}");
    cluster.kill_node(gone);
    cluster.wait_for_verdict("HEALTHY – 2 of 2");
}

#[test]
fn somebody_has_to_decide() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    for (word, done) in [("remove", "removed"), ("demote", "demoted")] {
        let ended = cluster.run(&["member", word, "1"]);
        ended.expect_error(1, &[&format!("n1 was not {done}"), "leave no voter", "`raft-kv member list`"]);
    }
    cluster.run(&["transfer"]).expect_error(1, &["leadership was not handed over", "no other voter"]);
    assert_eq!(cluster.run(&["put", "a", "1"]).expect_output(), "revision 2\n");
}

#[test]
fn a_cluster_that_is_down_or_has_no_quorum_changes_nothing_and_says_so() {
    let mut cluster = Cluster::init(3);
    let (address, before) = (cluster.spare_address(1), contents(&cluster.path()));
    let commands: [&[&str]; 8] = [
        &["member", "list"],
        &["member", "add", "--address", &address],
        &["join", "--address", &address],
        &["member", "remove", "1"],
        &["member", "promote", "1"],
        &["member", "demote", "1"],
        &["transfer"],
        &["snapshot", "--node", "1"],
    ];
    for command in commands {
        cluster.run(&[command, &["--timeout", "500ms"]].concat()).expect_error(6, &["500ms"]);
    }
    cluster.run(&["snapshot", "--timeout", "500ms"]).expect_error(1, &["n1 has written none", "n3 has written none"]);
    assert_eq!(contents(&cluster.path()), before);

    // One of three: it is up, and decides nothing.
    cluster.start_node(1);
    wait_for("n1 to be up", || node_status(&cluster, 1)["role"].is_string().then_some(()));
    for command in &commands[..7] {
        let parts: &[&str] = if *command == ["transfer"] || command.contains(&"list") {
            &["no leader answered"]
        } else {
            &["no leader could", "nothing was changed"]
        };
        cluster.run(&[*command, &["--timeout", "500ms"][..]].concat()).expect_error(6, parts);
    }
    let n1 = cluster.path().join("n1");
    let files = |all: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        all.into_iter().filter(|(path, _)| !path.starts_with(&n1)).collect::<Vec<_>>()
    };
    assert_eq!(files(contents(&cluster.path())), files(before));
}

#[test]
fn broken_settings_are_named_with_file_and_line() {
    let cluster = Cluster::init(1);
    let good = fs::read_to_string(cluster.config_path()).expect("because init has written it");
    let lines = good.lines().count();
    for (settings, line, part) in [
        ("\n[snapshots]\nentries = 0\n", 3, "`entries` is 0"),
        ("\n[leases]\ndrift_ppm = 200000\n", 3, "`drift_ppm` is too much"),
        ("\n[timing]\nheartbeat_ms = 100\n", 3, "under three times the heartbeat interval"),
        ("priority = \"eager\"\n", 1, "unknown variant `eager`"),
    ] {
        fs::write(cluster.config_path(), format!("{good}{settings}")).expect("because the test's folder is writable");
        let config = cluster.config_path();
        let place = format!("{}:{}: ", text(&config), lines + line);
        cluster.run(&["status"]).expect_error(2, &[&place, part]);
        run(&["serve", "--config", text(&config), "--node", "1"]).expect_error(2, &[&place, part]);
        cluster.run(&["join", "--address", "127.0.0.1:9"]).expect_error(2, &[&place, part]);
    }
}

#[test]
fn status_says_what_a_write_waits_for_and_is_short_when_it_waits_for_nothing() {
    let mut cluster = Cluster::init(3);
    cluster.insert("[timing]\npreset = \"wan\"\n");
    (1..=3).for_each(|node| cluster.start_node(node));
    cluster.run(&["put", "a", "1", "--timeout", "60s"]).expect_output();
    let healthy = wait_for("a quiet cluster", || {
        let status = cluster.run(&["status"]).stdout;
        (status.starts_with("HEALTHY") && !status.contains("PEER")).then_some(status)
    });
    assert!(!healthy.contains("UNSYNCED") && !healthy.contains("configuration"), "{healthy}");
    let all = cluster.run(&["status", "-o", "table"]).stdout;
    for part in ["PEER", "SILENT FOR", "configuration 0: voters n1, n2, n3", "UNSYNCED", "replicate"] {
        assert!(all.contains(part), "there is no \"{part}\" in {all}");
    }
    let dead = leader(&cluster) % 3 + 1;
    cluster.kill_node(dead);
    cluster.run(&["put", "a", "2"]).expect_output();
    let status = wait_for("a silent peer", || {
        let status = cluster.run(&["status"]).stdout;
        status.contains("SILENT FOR").then_some(status)
    });
    assert!(status.starts_with("DEGRADED – 2 of 3 nodes"), "{status}");
    let peer = status.lines().find(|line| line.starts_with(&format!("n{dead}")) && line.contains("ms"));
    assert!(peer.is_some_and(|line| !line.contains(" 0 ms")), "{status}");
    let document: Value =
        serde_json::from_str(&cluster.run(&["status", "-o", "json"]).stdout).expect("because it is JSON");
    let nodes = document["nodes"].as_array().expect("because it is a list");
    let leader = nodes.iter().find(|node| node["role"] == "leader").expect("because there is one");
    assert_eq!(leader["peers"].as_array().map(Vec::len), Some(2), "{leader}");
    assert!(leader["runtime"]["late_wakeups"].is_u64() && leader["snapshot_bytes"].is_u64(), "{leader}");
}
