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
fn a_cluster_has_one_to_nine_nodes() {
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
    assert!(nodes(9).is_ok());
    let many = nodes(10).expect_err("because there are too many");
    assert_eq!(many, "some/cluster.toml:1: `node` appears 10 times; a cluster has at most 9 nodes");
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
