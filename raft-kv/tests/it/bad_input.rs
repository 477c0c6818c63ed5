//! What is typed wrong: a message that says what was found and what to do, and nothing happens.

use std::fs;

use crate::support::{contents, folder, raft_kv, run, run_with_input, text};

#[test]
fn an_unknown_flag_is_refused_with_a_suggestion() {
    run(&["put", "a", "b", "--if-revv", "1"]).expect_error(2, &["--if-revv", "--if-rev", "Usage:"]);
    run(&["demo", "--node", "5"]).expect_error(2, &["--node", "--nodes"]);
}

#[test]
fn regress_a_negative_number_is_no_flag() {
    run(&["put", "a", "b", "--if-rev", "-1"]).expect_error(2, &["'-1'", "a revision is a whole number from 0 on"]);
    run(&["range", "--limit", "-1"]).expect_error(2, &["'-1'", "--limit"]);
    run(&["get", "a", "--timeout", "-1s"]).expect_error(2, &["'-1s'", "--timeout", "500ms"]);
    run(&["get", "a", "--stale", "--node", "-1"]).expect_error(2, &["'-1'", "1 or n1"]);
    run(&["init", "x", "--base-port", "-1"]).expect_error(2, &["-1", "--base-port"]);
}

#[test]
fn regress_the_configuration_is_never_called_required() {
    let mut command = raft_kv();
    let output = command.args(["put", "a"]).env("RAFT_KV_CONFIG", "elsewhere.toml").output();
    let ended: crate::support::Ended = output.expect("because the program was built for this test").into();
    ended.expect_error(2, &["Usage: raft-kv put <KEY> <VALUE>"]);
    assert!(!ended.stderr.contains("--config"), "{ended:#?}");
    let help = run(&["get", "--help"]).expect_output();
    assert!(help.contains("RAFT_KV_CONFIG") && help.contains("[default: cluster.toml]"), "{help}");
}

#[test]
fn an_unknown_command_is_refused() {
    run(&["jion", "127.0.0.1:7400"]).expect_error(2, &["jion", "Usage:"]);
}

#[test]
fn help_lists_the_exit_statuses_and_examples() {
    let help = run(&["--help"]).expect_output();
    for part in ["Exit status:", "the outcome is unknown", "Examples:", "raft-kv demo"] {
        assert!(help.contains(part), "{help}");
    }
    let version = run(&["--version"]).expect_output();
    assert!(version.starts_with("raft-kv "), "{version}");
}

#[test]
fn an_impossible_number_of_nodes_is_refused() {
    run(&["demo", "--nodes", "0"]).expect_error(2, &["0 is not in 1..=9"]);
    run(&["init", "--nodes", "10", "x"]).expect_error(2, &["10 is not in 1..=9"]);
}

#[test]
fn an_empty_key_and_keys_and_values_over_the_limit_are_refused_before_anything_is_sent() {
    run(&["get", ""]).expect_error(2, &["the key is empty", "at least one byte"]);
    run(&["put", &"k".repeat(4097), "v"]).expect_error(2, &["4097 bytes", "limit is 4096"]);
    let value = vec![b'v'; 1_600_000];
    run_with_input(&["put", "k", "-"], &value).expect_error(2, &["the value has more than", "limit"]);
}

#[test]
fn a_missing_configuration_is_named_and_how_to_make_one() {
    run(&["get", "a", "--config", "no/such/cluster.toml"])
        .expect_error(2, &["no/such/cluster.toml", "raft-kv init", "--config"]);
    let mut command = raft_kv();
    let output = command.args(["status"]).env("RAFT_KV_CONFIG", "elsewhere.toml").output();
    let ended: crate::support::Ended = output.expect("because the program was built for this test").into();
    ended.expect_error(2, &["elsewhere.toml"]);
}

#[test]
fn a_broken_configuration_is_named_with_line_and_field() {
    let folder = folder();
    let file = folder.path().join("cluster.toml");
    for (content, line, part) in [
        ("cluster = \n", ":1:", "value"),
        (
            "cluster = \"xyz\"\n[tls]\nauthority = \"a\"\nclient_certificate = \"b\"\nclient_key = \"c\"\n",
            ":1:",
            "hexadecimal",
        ),
        ("\n\nclutser = \"x\"\n", ":3:", "clutser"),
    ] {
        fs::write(&file, content).expect("because the test's folder is writable");
        run(&["serve", "--config", text(&file), "--node", "1"]).expect_error(2, &[text(&file), line, part]);
    }
}

#[test]
fn init_leaves_a_folder_that_is_not_empty_as_it_was() {
    let folder = folder();
    fs::write(folder.path().join("diary.txt"), "mine").expect("because the test's folder is writable");
    let before = contents(folder.path());
    run(&["init", text(folder.path())]).expect_error(1, &["is not empty", "diary.txt", "nothing was changed"]);
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn init_refuses_addresses_that_cannot_be() {
    let folder = folder();
    let target = folder.path().join("cluster");
    run(&["init", text(&target), "--base-port", "65534"]).expect_error(2, &["65535"]);
    run(&["init", text(&target), "--host", "two words"]).expect_error(2, &["two words", "host:port"]);
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn bad_lines_of_a_file_are_named_and_nothing_is_started() {
    let folder = folder();
    let (file, temporary) = (folder.path().join("pairs.tsv"), folder.path().join("tmp"));
    fs::create_dir(&temporary).expect("because the test's folder is writable");
    fs::write(&file, "a\t1\nno tab here\na\t2\n").expect("because the test's folder is writable");
    for arguments in [["demo", "--load", text(&file)], ["load", text(&file), "--timeout=1s"]] {
        let output = raft_kv().args(arguments).env("TMPDIR", &temporary).output();
        let ended: crate::support::Ended = output.expect("because the program was built for this test").into();
        ended.expect_error(1, &[text(&file), "line 2", "no tab", "line 3", "also on line 1", "nothing was written"]);
    }
    assert!(fs::read_dir(&temporary).is_ok_and(|mut entries| entries.next().is_none()));
}

#[test]
fn an_empty_file_is_no_demo() {
    let folder = folder();
    let file = folder.path().join("empty.tsv");
    fs::write(&file, "").expect("because the test's folder is writable");
    run(&["demo", "--load", text(&file)]).expect_error(1, &["empty.tsv", "no lines"]);
}

#[test]
fn the_demo_leaves_a_folder_that_is_not_empty_as_it_was() {
    let folder = folder();
    fs::write(folder.path().join("diary.txt"), "mine").expect("because the test's folder is writable");
    let before = contents(folder.path());
    // Before a word of the story is told.
    run(&["demo", "--keep", text(folder.path())])
        .expect_error(1, &["is not empty", "diary.txt", "nothing was changed"]);
    assert_eq!(contents(folder.path()), before);
}
