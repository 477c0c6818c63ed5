//! Three processes and every client command against them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Cluster, Ended, as_json, raft_kv, run, run_with_input, text};

/// What `load` prints, whether or not it took so long that it told how far it was.
fn loaded(ended: &Ended) -> Value {
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    parsed(&ended.stdout)
}

fn parsed(document: &str) -> Value {
    serde_json::from_str(document).expect("because the output is one JSON document")
}

#[test]
fn what_is_put_can_be_read_listed_changed_and_deleted() {
    let cluster = Cluster::start(3);
    cluster.wait_for_verdict("HEALTHY");

    assert_eq!(cluster.run(&["put", "hello", "world"]).expect_output(), "revision 2\n");
    assert_eq!(cluster.run(&["get", "hello"]).expect_output(), "world\n");
    let pair = json!({ "key": "hello", "value": "world", "create_revision": 2, "mod_revision": 2, "version": 1 });
    let document = as_json(cluster.run(&["get", "hello", "--output", "json"]));
    assert_eq!(document, json!({ "revision": 2, "kv": pair }));

    // Conditions: on the right revision, on a wrong one, and on absence.
    assert_eq!(cluster.run(&["put", "hello", "you", "--if-rev", "2"]).expect_output(), "revision 3\n");
    cluster.run(&["put", "hello", "all", "--if-rev", "2"]).expect_error(4, &["nothing was changed", "revision 3"]);
    assert_eq!(cluster.run(&["put", "lock", "me", "--if-rev", "0"]).expect_output(), "revision 4\n");
    cluster.run(&["put", "lock", "us", "--if-rev", "0"]).expect_error(4, &["nothing was changed", "revision 4"]);
    cluster.run(&["put", "nobody", "x", "--if-rev", "1"]).expect_error(4, &["does not exist"]);

    // Listings.
    for key in ["a", "b/1", "b/2", "c"] {
        cluster.run(&["put", key, key]).expect_output();
    }
    let all = "a\ta\nb/1\tb/1\nb/2\tb/2\nc\tc\nhello\tyou\nlock\tme\n";
    assert_eq!(cluster.run(&["range"]).expect_output(), all);
    assert_eq!(cluster.run(&["range", "--prefix", "b/", "--keys-only"]).expect_output(), "b/1\nb/2\n");
    assert_eq!(cluster.run(&["range", "b", "hello"]).expect_output(), "b/1\tb/1\nb/2\tb/2\nc\tc\n");
    assert_eq!(cluster.run(&["range", "c", "--limit", "2"]).expect_output(), "c\tc\nhello\tyou\n");
    let document = as_json(cluster.run(&["range", "--limit", "1", "--keys-only", "-o", "json"]));
    let pair = json!({ "key": "a", "create_revision": 5, "mod_revision": 5, "version": 1 });
    assert_eq!(document, json!({ "revision": 8, "count": 6, "more": true, "kvs": [pair] }));

    assert_eq!(cluster.run(&["range", "--count-only"]).expect_output(), "6\n");
    assert_eq!(cluster.run(&["range", "--prefix", "b/", "--count-only"]).expect_output(), "2\n");
    let document = as_json(cluster.run(&["range", "b", "--count-only", "-o", "json"]));
    assert_eq!(document, json!({ "revision": 8, "count": 5 }));

    // Deletion.
    assert_eq!(cluster.run(&["del", "hello"]).expect_output(), "1 key deleted, revision 9\n");
    assert_eq!(cluster.run(&["del", "hello"]).expect_output(), "0 keys deleted, revision 9\n");
    cluster.run(&["get", "hello"]).expect_error(3, &["no key \"hello\"", "revision 9"]);
    let document = cluster.run(&["get", "hello", "--output", "json"]);
    assert_eq!(document.status, Some(3));
    assert!(document.stdout.contains("\"kv\": null"), "{document:?}");
}

#[test]
fn values_and_keys_are_any_bytes() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    let path = cluster.config_path();
    let config = text(&path);
    let value = [&b"two\nlines and \xff"[..], &[0]].concat();
    assert_eq!(run_with_input(&["put", "raw", "-", "--config", config], &value).expect_output(), "revision 2\n");
    let output = raft_kv().args(["get", "raw", "--config", config]).output();
    assert_eq!(output.expect("because the program was built for this test").stdout, [&value[..], b"\n"].concat());
    assert_eq!(cluster.run(&["range"]).expect_output(), "raw\ttwo\\x0alines and \\xff\\x00\n");
    let document = as_json(cluster.run(&["get", "raw", "-o", "json"]));
    assert_eq!(document["kv"]["value_b64"], json!("dHdvCmxpbmVzIGFuZCD/AA=="));
    // The largest value there is.
    let value = vec![b'v'; raft_kv::protocol::VALUE_BYTES_MAX];
    run_with_input(&["put", "large", "-", "--config", config], &value).expect_output();
    assert_eq!(cluster.run(&["get", "large"]).expect_output().len(), value.len() + 1);
    // A key that looks like a flag.
    cluster.run(&["put", "--", "--key", "--value"]).expect_error(2, &["--config"]);
}

#[test]
fn regress_what_client_and_server_do_is_logged_if_that_is_asked_for() {
    let mut cluster = Cluster::init(1);
    cluster.start_node_with(1, &["-v"]);
    cluster.wait_for_verdict("HEALTHY");
    let address = cluster.config().endpoints().into_values().next().expect("because there is one node");

    let put = cluster.run(&["put", "secret-key", "secret-value", "-v"]);
    assert_eq!((put.status, put.stdout.as_str()), (Some(0), "revision 2\n"));
    for part in ["INFO", "dialling node=n1", &address, "connected node=n1", "session opened session="] {
        assert!(put.stderr.contains(part), "there is no \"{part}\" in {put:#?}");
    }
    assert!(!put.stderr.contains("attempt="), "each attempt is a detail: {put:#?}");
    let get = cluster.run(&["get", "secret-key", "-vv"]);
    assert_eq!((get.status, get.stdout.as_str()), (Some(0), "secret-value\n"));
    for part in ["DEBUG", "asking node=n1 attempt=1", "settled node=n1 attempt=1 outcome=answered elapsed="] {
        assert!(get.stderr.contains(part), "there is no \"{part}\" in {get:#?}");
    }
    let (path, mut command) = (cluster.config_path(), raft_kv());
    command.args(["get", "secret-key", "--config", text(&path)]).env("RUST_LOG", "raft_kv::client=info");
    let get = Ended::from(command.output().expect("because the program was built for this test"));
    assert!(get.stderr.contains("dialling node=n1") && get.stdout == "secret-value\n", "{get:#?}");

    // Nobody leads any more: each retry is told, with its reason.
    cluster.kill_node(1);
    let get = cluster.run(&["get", "secret-key", "--timeout", "3s", "-v"]);
    let retry = get.stderr.lines().find(|line| line.contains("asking again"));
    let retry = retry.expect("because it is asked more than once");
    for part in ["node=n1", "attempt=", "outcome=", "pause="] {
        assert!(retry.contains(part), "there is no \"{part}\" in {retry}");
    }

    // The server names the kind of each request, but no keys and values.
    let log = cluster.log(1);
    for part in
        ["asked client=\"client\"", "request=\"register\"", "request=\"put\"", "request=\"range\"", "answered client="]
    {
        assert!(log.contains(part), "there is no \"{part}\" in {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_file_is_loaded_and_every_node_has_it() {
    let cluster = Cluster::start(3);
    cluster.wait_for_verdict("HEALTHY");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sample.tsv");
    let document = loaded(&cluster.run(&["load", sample, "-o", "json"]));
    assert_eq!((&document["stored"], &document["revision"]), (&json!(2000), &json!(2001)));
    let mut lines: Vec<String> =
        fs::read_to_string(sample).expect("because the sample is committed").lines().map(str::to_owned).collect();
    lines.sort();
    let listing = lines.join("\n") + "\n";
    assert_eq!(cluster.run(&["range"]).expect_output(), listing);
    for node in ["1", "n2", "3"] {
        crate::support::wait_for("the replica to catch up", || {
            (cluster.run(&["range", "--stale", "--node", node]).stdout == listing).then_some(())
        });
    }
    // From a pipe, over what is there: every key once more.
    let content = fs::read(sample).expect("because the sample is committed");
    let path = cluster.config_path();
    let document = loaded(&run_with_input(&["load", "-", "--config", text(&path), "-o", "json"], &content));
    assert_eq!(document["revision"], json!(4001));
}

#[test]
fn regress_a_load_without_a_quorum_says_what_was_tried_and_how_far_it_came() {
    let cluster = Cluster::init(3);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sample.tsv");
    let ended = cluster.run(&["load", sample, "--timeout", "1s"]);
    ended
        .expect_error(6, &["0 of 2,000 lines of", "sample.tsv", "0 perhaps stored, 2,000 not", "no leader could take"]);
    assert!(!ended.stderr.contains("waited for its turn") && ended.stderr.contains("did not answer"), "{ended:#?}");
    let ended = cluster.run(&["load", sample, "--timeout", "1s", "-o", "json"]);
    let document = parsed(&ended.stdout);
    assert_eq!(document["code"], json!("unavailable"));
    assert_eq!(
        (&document["stored"], &document["unknown"], &document["not_stored"]),
        (&json!(0), &json!(0), &json!(2000))
    );
}

#[test]
fn regress_a_failure_is_json_as_well_if_json_was_asked_for() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    cluster.run(&["put", "a", "1"]).expect_output();
    let ended = cluster.run(&["put", "a", "2", "--if-rev", "7", "-o", "json"]);
    assert_eq!(ended.status, Some(4), "{ended:#?}");
    assert!(ended.stderr.starts_with("error: nothing was changed"), "{ended:#?}");
    let document = parsed(&ended.stdout);
    let current = json!({ "create_revision": 2, "mod_revision": 2, "version": 1 });
    let error = "nothing was changed, because the key is at revision 2";
    let expected =
        json!({ "error": error, "code": "condition_failed", "exit_status": 4, "revision": 2, "current": current });
    assert_eq!(document, expected);
    let document = parsed(&run(&["get", "a", "--config", "no/such.toml", "-o", "json"]).stdout);
    assert_eq!((&document["code"], &document["exit_status"]), (&json!("usage"), &json!(2)));
}

#[test]
fn status_says_how_the_cluster_is_while_nodes_fail_and_come_back() {
    let mut cluster = Cluster::start(3);
    let status = cluster.wait_for_verdict("HEALTHY – 3 of 3 nodes, leader n");
    assert!(status.contains("tolerates 1 more failure"), "{status}");
    assert!(status.contains("NODE") && status.contains("follower"), "{status}");
    cluster.run(&["put", "a", "1"]).expect_output();

    let document = as_json(cluster.run(&["status", "-o", "json"]));
    assert_eq!((&document["verdict"], &document["nodes"][0]["node"]), (&json!("HEALTHY"), &json!("n1")));
    let leader = document["leader"].as_str().and_then(|leader| leader.strip_prefix('n')?.parse().ok());
    let leader: u64 = leader.expect("because a healthy cluster has a leader");

    // The leader dies: the others go on.
    cluster.kill_node(leader);
    let status = cluster.wait_for_verdict("DEGRADED – 2 of 3 nodes");
    assert!(status.contains(&format!("n{leader} does not answer")), "{status}");
    cluster.run(&["put", "a", "2", "--timeout", "30s"]).expect_output();

    // Another one dies: nothing can be done, and the message says what was tried.
    let other = leader % 3 + 1;
    cluster.kill_node(other);
    let ended = cluster.run(&["status", "--timeout", "2s"]);
    assert_eq!(ended.status, Some(6), "{ended:#?}");
    assert!(ended.stdout.starts_with("DOWN"), "{ended:#?}");
    for command in [&["get", "a"][..], &["range"], &["del", "a"]] {
        let arguments = [command, &["--timeout", "1s"]].concat();
        let ended = cluster.run(&arguments);
        // A delete may have reached the log of the node that is left.
        assert!(matches!(ended.status, Some(5 | 6)), "{ended:#?}");
        for part in ["127.0.0.1:", "n1", "n2", "n3"] {
            assert!(ended.stderr.contains(part), "{ended:#?}");
        }
    }
    let left = (1..=3).find(|node| *node != leader && *node != other).expect("because two of three are down");
    assert_eq!(cluster.run(&["get", "a", "--stale", "--node", &left.to_string()]).expect_output(), "2\n");
    assert_eq!(cluster.run(&["get", "a", "--stale"]).expect_output(), "2\n");

    // They come back with everything they had promised.
    cluster.start_node(leader);
    cluster.start_node(other);
    cluster.wait_for_verdict("HEALTHY");
    let ended = cluster.run(&["get", "a", "--timeout", "30s"]);
    // The delete of unknown outcome may have happened after all.
    assert!(ended.status == Some(3) || ended.stdout == "2\n", "{ended:#?}");
}

#[test]
fn a_server_that_is_asked_to_stop_ends_in_order_and_says_so() {
    let mut cluster = Cluster::start(3);
    cluster.wait_for_verdict("HEALTHY");
    for (node, signal) in [(1, "TERM"), (2, "INT"), (3, "HUP")] {
        cluster.node(node).signal(signal);
        assert_eq!(cluster.node(node).wait(), Some(0));
        let log = cluster.log(node);
        assert!(log.contains(&format!("n{node} shuts down: SIG{signal}")), "{log}");
        assert!(log.contains(&format!("n{node} has shut down")), "{log}");
    }
}

#[test]
fn regress_a_server_under_nohup_outlives_its_terminal() {
    let mut cluster = Cluster::init(1);
    // What nohup does, without its redirections.
    let mut nohup = std::process::Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_raft-kv")]);
    cluster.start_node_by(nohup, 1, &[]);
    cluster.wait_for_verdict("HEALTHY");
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.node(1).id()));
    let status = status.expect("because the node runs");
    let mask = |name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(mask.expect("because Linux shows it").trim(), 16).expect("because it is hexadecimal")
    };
    assert_eq!((mask("SigIgn:") & 1, mask("SigCgt:") & 1), (1, 0), "SIGHUP is to be ignored, not caught");
    cluster.node(1).signal("HUP");
    cluster.run(&["put", "a", "1"]).expect_output();
    cluster.node(1).signal("TERM");
    assert_eq!(cluster.node(1).wait(), Some(0));
    let log = cluster.log(1);
    assert!(log.contains("n1 shuts down: SIGTERM") && !log.contains("SIGHUP"), "{log}");
}

#[test]
fn regress_a_result_that_cannot_be_printed_is_told_from_a_command_that_failed() {
    let cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    let full = fs::File::options().write(true).open("/dev/full").expect("because tests run on Linux");
    let path = cluster.config_path();
    let mut command = raft_kv();
    command.args(["put", "a", "1", "--config", text(&path)]).stdout(full).stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("because the program was built for this test");
    let ended = Ended::from(child.wait_with_output().expect("because a child can be waited for"));
    ended.expect_error(1, &["standard output", "No space left", "itself was carried out", "elsewhere"]);
    assert_eq!(cluster.run(&["get", "a"]).expect_output(), "1\n");
}

#[test]
fn a_server_whose_owner_dies_ends_as_well() {
    let mut cluster = Cluster::start(1);
    cluster.wait_for_verdict("HEALTHY");
    drop(cluster.node(1).child().stdin.take());
    assert_eq!(cluster.node(1).wait(), Some(0));
}
