//! What a configuration may say, and what is said of one that may not.

use super::*;

const GOOD: &str = r#"# two nodes
cluster = "000000000000000000000000deadbeef"

[tls]
authority = "certs/ca.pem"
client_certificate = "certs/client.pem"
client_key = "/elsewhere/client.key"

[[node]]
id = 1
address = "node1.example:7401"
listen = "[::]:7401"
data = "n1"
certificate = "certs/n1.pem"
key = "certs/n1.key"

[[node]]
id = 2
address = "10.0.0.2:7401"
data = "/var/lib/raft-kv"
certificate = "certs/n2.pem"
key = "certs/n2.key"
"#;

fn parse(text: &str) -> Result<ClusterConfig, String> {
    ClusterConfig::parse(Path::new("some/cluster.toml"), text).map_err(|error| error.to_string())
}

/// The complaint about the good file with `from` replaced by `to`.
fn complaint(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good file does not contain {from}");
    parse(&GOOD.replacen(from, to, 1)).expect_err("because the file was broken on purpose")
}

#[test]
fn a_good_file_is_read_and_its_paths_are_relative_to_it() {
    let config = parse(GOOD).expect("because it is good");
    assert_eq!(config.cluster(), ClusterId::new(0xdead_beef));
    let [first, second] = &config.nodes().collect::<Vec<_>>()[..] else { panic!("there are not two nodes") };
    assert_eq!(first.data, Path::new("some/n1"));
    assert_eq!(second.data, Path::new("/var/lib/raft-kv"));
    assert_eq!(first.identity.key, Path::new("some/certs/n1.key"));
    assert_eq!((first.listen.as_deref(), second.listen.as_deref()), (Some("[::]:7401"), None));
    assert_eq!(config.client.key, Path::new("/elsewhere/client.key"));
    assert_eq!(config.endpoints().into_values().collect::<Vec<_>>(), ["node1.example:7401", "10.0.0.2:7401"]);
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let complaint = complaint("data = \"n1\"", "data = \"n1\"\nadress = 1");
    assert!(complaint.starts_with("some/cluster.toml:14: unknown field `adress`, expected one of "), "{complaint}");
}

#[test]
fn a_missing_field_is_named_with_the_line_of_its_table() {
    assert_eq!(complaint("data = \"n1\"\n", ""), "some/cluster.toml:9: missing field `data` (in n1)");
}

#[test]
fn a_field_of_the_wrong_type_is_shown_with_its_line() {
    let complaint = complaint("id = 2", "id = \"two\"");
    assert_eq!(
        complaint,
        "some/cluster.toml:18: invalid type: string \"two\", expected a whole number (`id` of [[node]] number 2)"
    );
    let complaint = self::complaint("data = \"/var/lib/raft-kv\"", "data = 7");
    assert_eq!(complaint, "some/cluster.toml:20: invalid type: integer `7`, expected path string (`data` of n2)");
    let complaint = self::complaint("\"certs/ca.pem\"", "true");
    assert!(complaint.ends_with("(`authority` of the first [tls])"), "{complaint}");
}

#[test]
fn broken_toml_is_shown_with_its_line() {
    assert!(complaint("id = 1", "id = ").starts_with("some/cluster.toml:10: "));
}

#[test]
fn each_impossible_value_is_explained_with_its_line_and_field() {
    let cases = [
        ("deadbeef", "dead", "2: `cluster` is not a cluster id, which is 32 hexadecimal digits"),
        ("000000000000", "+00000000000", "2: `cluster` is not a cluster id, which is 32 hexadecimal digits"),
        ("certs/ca.pem", "", "5: `authority` is empty; it names a file or directory"),
        ("id = 1", "id = 0", "10: `id` is 0; node ids start at 1"),
        ("id = 2", "id = 1", "18: `id` repeats n1, which is already a node"),
        ("10.0.0.2:7401", "node1.example:7401", "19: `address` is already the address of n1"),
        ("/var/lib/raft-kv", "n1", "20: `data` is already the data directory of n1"),
        (
            "10.0.0.2:7401",
            "10.0.0.2",
            "19: `address` is \"10.0.0.2\"; an address is host:port, such as 127.0.0.1:7401 or [::1]:7401",
        ),
        (
            "[::]:7401",
            ":::7401",
            "12: `listen` is \":::7401\"; an address is host:port, such as 127.0.0.1:7401 or [::1]:7401",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(complaint(from, to), format!("some/cluster.toml:{expected}"));
    }
}

/// The good file with more tables in front of the first node, at line 9.
fn with(tables: &str) -> Result<ClusterConfig, String> {
    parse(&GOOD.replacen("\n[[node]]", &format!("\n{tables}\n[[node]]"), 1))
}

#[test]
fn what_is_not_written_has_the_defaults_of_the_core() {
    let config = parse(GOOD).expect("because it is good");
    assert_eq!((config.timing(), config.limits(), config.leases()), (Timing::LAN, Limits::DEFAULT, None));
    assert!(config.nodes().all(|node| node.priority == Priority::High));
    // Tables without a field are as good as none.
    let config = with("[snapshots]\n[timing]\n").expect("because nothing is demanded");
    assert_eq!((config.timing(), config.limits()), (Timing::LAN, Limits::DEFAULT));
}

#[test]
fn snapshots_leases_and_priorities_are_read() {
    let config = with("[snapshots]\nentries = 7\nbytes = 8\nretain_bytes = 0\n\n[leases]\ndrift_ppm = 200\n");
    let config = config.expect("because it is good");
    let limits = Limits { snapshot_entries: 7, snapshot_bytes: 8, retain_bytes: 0, ..Limits::DEFAULT };
    assert_eq!((config.limits(), config.leases()), (limits, Leases::new(200).ok()));
    for (name, priority) in
        [("high", Priority::High), ("middle", Priority::Middle), ("low", Priority::Low), ("never", Priority::Never)]
    {
        let text = GOOD.replacen("id = 2", &format!("id = 2\npriority = \"{name}\""), 1);
        let config = parse(&text).expect("because it is good");
        assert_eq!(config.nodes().map(|node| node.priority).collect::<Vec<_>>(), [Priority::High, priority]);
    }
}

#[test]
fn timing_is_a_preset_and_what_is_to_be_different() {
    let timing = |text: &str| with(&format!("[timing]\n{text}\n")).map(|config| config.timing());
    let millis = std::time::Duration::from_millis;
    assert_eq!(timing("preset = \"lan\""), Ok(Timing::LAN));
    assert_eq!(timing("preset = \"wan\""), Ok(Timing::WAN));
    let expected = Timing {
        heartbeat_interval: millis(100),
        election_timeout_min: millis(500),
        election_timeout_max: millis(1_000),
        stall_limit: millis(2_000),
    };
    assert_eq!(timing("heartbeat_ms = 100\nelection_timeout_ms = [500, 1000]\nstall_limit_ms = 2000"), Ok(expected));
    let expected = Timing { stall_limit: millis(9_000), ..Timing::WAN };
    assert_eq!(timing("preset = \"wan\"\nstall_limit_ms = 9000"), Ok(expected));
}

#[test]
fn each_impossible_setting_is_explained_with_its_line_and_field() {
    let cases = [
        ("[snapshots]\nentries = 0", "10: `entries` is 0; it is at least 1"),
        ("[snapshots]\nbytes = 0", "10: `bytes` is 0; it is at least 1"),
        (
            "[snapshots]\nentries = -1",
            "10: invalid value: integer `-1`, expected a whole number (`entries` of the first [snapshots])",
        ),
        (
            "[snapshots]\nretain_bytes = \"1\"",
            "10: invalid type: string \"1\", expected a whole number (`retain_bytes` of the first [snapshots])",
        ),
        (
            "[snapshots]\nentires = 1",
            "10: unknown field `entires`, expected one of `entries`, `bytes`, `retain_bytes` (`entires` of the first [snapshots])",
        ),
        ("[leases]", "9: missing field `drift_ppm` (in the first [leases])"),
        (
            "[leases]\ndrift_ppm = 100001",
            "10: `drift_ppm` is too much: clocks that drift by more than 100000 ppm cannot be relied on; do without [leases]",
        ),
        (
            "[timing]\npreset = \"moon\"",
            "10: unknown variant `moon`, expected `lan` or `wan` (`preset` of the first [timing])",
        ),
        ("[timing]\nheartbeat_ms = 0", "10: `heartbeat_ms` is 0; it is at least 1"),
        (
            "[timing]\nheartbeat_ms = 51",
            "10: `heartbeat_ms` cannot be: the shortest election timeout 150ms is under three times the heartbeat interval 51ms; raise the timeout or shorten the interval",
        ),
        (
            "[timing]\nheartbeat_ms = 60\nelection_timeout_ms = [100, 300]",
            "11: `election_timeout_ms` cannot be: the shortest election timeout 100ms is under three times the heartbeat interval 60ms; raise the timeout or shorten the interval",
        ),
        (
            "[timing]\nelection_timeout_ms = [200, 250]",
            "10: `election_timeout_ms` cannot be: election timeouts are drawn from 200ms to 250ms; the upper end must be at least 1.5 times the lower one",
        ),
        (
            "[timing]\nelection_timeout_ms = [200]",
            "10: invalid length 1, expected an array of length 2 (`election_timeout_ms` of the first [timing])",
        ),
        (
            "[timing]\nelection_timeout_ms = [900, 1800]",
            "10: `election_timeout_ms` cannot be: the stall limit 1s is shorter than the longest election timeout 1.8s; raise it",
        ),
        (
            "[timing]\nstall_limit_ms = 299",
            "10: `stall_limit_ms` cannot be: the stall limit 299ms is shorter than the longest election timeout 300ms; raise it",
        ),
    ];
    for (tables, expected) in cases {
        assert_eq!(with(&format!("{tables}\n")).expect_err(tables), format!("some/cluster.toml:{expected}"));
    }
    let complaint = complaint("id = 2", "id = 2\npriority = \"highest\"");
    assert_eq!(
        complaint,
        "some/cluster.toml:19: unknown variant `highest`, expected one of `high`, `middle`, `low`, `never` (`priority` of n2)"
    );
}

#[test]
fn ports_are_numbers_from_1_to_65535() {
    for good in ["h:1", "127.0.0.1:65535", "[::1]:80", "a.b-c.example:7401"] {
        assert_eq!(check_address(good), Ok(()), "{good}");
    }
    for bad in ["", "h", ":80", "h:0", "h:65536", "h:-1", "h:http", "::1:80", "a b:80"] {
        assert!(check_address(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_cluster_has_as_many_nodes_as_voters_and_learners_at_most() {
    let (head, _) = GOOD.split_once("\n[[node]]").expect("because the good file has nodes");
    let none = parse(head).expect_err("because there is no node");
    assert_eq!(none, "some/cluster.toml:1: `node` is missing: a cluster has at least one [[node]]");
    let nodes = |count: u32| {
        let node = |id| {
            let paths = "certificate = \"c\"\nkey = \"k\"";
            format!("\n[[node]]\nid = {id}\naddress = \"h:{id}\"\ndata = \"n{id}\"\n{paths}\n")
        };
        parse(&(1..=count).fold(head.to_owned(), |text, id| text + &node(id)))
    };
    assert!(nodes(41).is_ok());
    let many = nodes(42).expect_err("because there are too many");
    assert_eq!(many, "some/cluster.toml:1: `node` appears 42 times; a cluster has at most 41 nodes");
}

#[test]
fn a_node_that_is_not_in_the_file_is_refused_with_those_that_are() {
    let config = parse(GOOD).expect("because it is good");
    let node = NodeId::new(3).expect("because it is not 0");
    let error = config.node(node).expect_err("because there are two nodes");
    assert_eq!(error.to_string(), "some/cluster.toml has no node n3; it has n1, n2");
}

#[test]
fn a_file_that_does_not_exist_is_named_with_what_to_do() {
    let error = ClusterConfig::load(Path::new("no/cluster.toml")).expect_err("because it does not exist").to_string();
    assert!(error.starts_with("cannot read the configuration file no/cluster.toml: "), "{error}");
    assert!(error.ends_with("`raft-kv init` makes one, `--config` names another"), "{error}");
}
