//! The demonstration, and that nothing of it is left behind.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::pty::Terminal;
use crate::support::{Ended, Process, folder, processes_mentioning, raft_kv, run, text, wait_for};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sample.tsv");

/// A demo under way, with a place of its own for temporary folders.
struct Demo {
    process: Process,
    stdout: BufReader<File>,
    temporary: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let temporary = folder();
        let log = File::create(temporary.path().join("stderr")).expect("because the test's folder is writable");
        let mut process = Process::start(command(arguments, &temporary).stdout(Stdio::piped()).stderr(log));
        let stdout = OwnedFd::from(process.child().stdout.take().expect("because it is piped"));
        Self { process, stdout: BufReader::new(stdout.into()), temporary }
    }

    /// Its standard output and standard error are a terminal.
    fn start_on(terminal: Terminal, arguments: &[&str]) -> Self {
        let temporary = folder();
        let mut command = command(arguments, &temporary);
        command.stdout(terminal.inner()).stderr(terminal.inner());
        Self { process: Process::start(&mut command), stdout: BufReader::new(terminal.into_outer()), temporary }
    }

    /// Reads the demo's lines up to one with this text.
    fn read_until(&mut self, part: &str) {
        let mut lines = String::new();
        while !lines.contains(part) {
            let count = self.stdout.read_line(&mut lines).expect("because the demo prints text");
            assert!(count > 0, "the demo ended without \"{part}\":\n{lines}{}", self.stderr());
        }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.temporary.path().join("stderr")).unwrap_or_default()
    }

    /// Sees that neither a process nor a folder is left.
    fn expect_nothing_left(&self) {
        wait_for("the end of all nodes", || {
            let left = processes_mentioning(self.temporary.path());
            left.is_empty().then_some(())
        });
        assert_eq!(names(self.temporary.path()), ["stderr"], "{}", self.stderr());
    }
}

fn command(arguments: &[&str], temporary: &TempDir) -> Command {
    let mut command = raft_kv();
    command.arg("demo").args(arguments).env("TMPDIR", temporary.path());
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("because the test's folder exists");
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned())).collect()
}

#[test]
fn the_demo_survives_the_death_of_its_leader_and_shows_it() {
    let temporary = folder();
    let output = raft_kv().args(["demo", "--load", SAMPLE, "--seed", "7"]).env("TMPDIR", temporary.path()).output();
    let story = Ended::from(output.expect("because the program was built for this test")).expect_output();
    for part in [
        "seed 7",
        "3 nodes up, TLS on, leader n",
        "killed the leader n",
        "new leader n",
        "writes are acknowledged again",
        "restarted from its disk",
        "2,000 writes acknowledged to 2,000 keys",
        "converged on state hash",
        "2,000 keys read back",
        "in mid-load, after ",
        " of 2,000 writes",
        "leaders elected",
        "failover",
        "latency p99",
        "everything held",
    ] {
        assert!(story.contains(part), "there is no \"{part}\" in\n{story}");
    }
    assert!(names(temporary.path()).is_empty());
}

/// A demo that loads these lines.
fn story_of(nodes: &str, lines: &str) -> String {
    let folder = folder();
    let file = folder.path().join("few.tsv");
    fs::write(&file, lines).expect("because the test's folder is writable");
    run(&["demo", "--nodes", nodes, "--load", text(&file)]).expect_output()
}

#[test]
fn a_cluster_without_failover_waits_for_its_node_and_loses_nothing() {
    for (nodes, left) in
        [("1", "0 nodes of 1 left, which is no majority"), ("2", "1 node of 2 left, which is no majority")]
    {
        let story = story_of(nodes, "first\t1\nsecond\t2\n");
        for part in [left, "writes wait", "restarted from its disk", "everything held"] {
            assert!(story.contains(part), "there is no \"{part}\" in\n{story}");
        }
    }
}

#[test]
fn regress_of_two_lines_one_is_written_before_the_kill_and_one_after() {
    let story = story_of("3", "first\t1\nsecond\t2\n");
    for part in ["in mid-load, after 1 of 2 writes", "writes are acknowledged again", "everything held"] {
        assert!(story.contains(part), "there is no \"{part}\" in\n{story}");
    }
}

#[test]
fn regress_a_single_line_is_written_before_the_kill_and_said_to_be_too_few() {
    let story = story_of("3", "only\tline\n");
    for part in ["after the only write", "1 key read back", "no write was left to begin after the kill"] {
        assert!(story.contains(part), "there is no \"{part}\" in\n{story}");
    }
    assert!(!story.contains("mid-load"), "{story}");
}

#[test]
fn regress_an_interrupted_demo_says_that_the_folder_to_keep_stays() {
    let folder = folder();
    let kept = folder.path().join("kept");
    let mut demo = Demo::start(&["--keep", text(&kept)]);
    demo.read_until("nodes up");
    demo.process.signal("INT");
    assert_eq!(demo.process.wait(), Some(130), "{}", demo.stderr());
    let message = format!("configuration, data and logs stay in {}", text(&kept));
    assert!(demo.stderr().contains(&message), "there is no \"{message}\" in {}", demo.stderr());
    assert!(kept.join("cluster.toml").exists());
}

#[test]
fn signals_end_the_demo_without_a_trace() {
    for (signal, status) in [("INT", 130), ("QUIT", 131), ("TERM", 143), ("HUP", 129)] {
        let mut demo = Demo::start(&[]);
        demo.read_until("nodes up");
        assert_eq!(processes_mentioning(demo.temporary.path()).len(), 3);
        demo.process.signal(signal);
        assert_eq!(demo.process.wait(), Some(status), "{}", demo.stderr());
        assert!(demo.stderr().contains(&format!("SIG{signal}: stopped")), "{}", demo.stderr());
        demo.expect_nothing_left();
    }
}

#[test]
fn a_signal_while_the_nodes_start_ends_the_demo_without_a_trace() {
    let mut demo = Demo::start(&["--nodes", "5"]);
    demo.read_until("starting");
    demo.process.signal("INT");
    assert_eq!(demo.process.wait(), Some(130), "{}", demo.stderr());
    demo.expect_nothing_left();
}

#[test]
fn a_closed_standard_output_ends_the_demo_without_a_trace() {
    let mut demo = Demo::start(&[]);
    demo.read_until("nodes up");
    let Demo { mut process, stdout, temporary } = demo;
    drop(stdout);
    assert_eq!(process.wait(), Some(1));
    let message = fs::read_to_string(temporary.path().join("stderr")).unwrap_or_default();
    assert!(message.contains("standard output was closed"), "{message}");
    wait_for("the end of all nodes", || processes_mentioning(temporary.path()).is_empty().then_some(()));
    assert_eq!(names(temporary.path()), ["stderr"]);
}

#[test]
fn regress_what_cannot_be_printed_is_named_and_nothing_is_left() {
    let temporary = folder();
    let full = File::options().write(true).open("/dev/full").expect("because every Linux has it");
    let output = command(&[], &temporary).stdout(full).output().expect("because the program was built for this test");
    Ended::from(output).expect_error(1, &["cannot write to standard output", "No space left"]);
    assert!(names(temporary.path()).is_empty());
}

/// A limit on the size of files stands in for the disk: the nodes have room to start, but not for a
/// second piece of their logs.
#[test]
fn regress_a_full_disk_ends_the_demo_at_once_and_is_named() {
    let temporary = folder();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""]).arg(raft_kv().get_program());
    limited.args(["demo", "--load", SAMPLE]).env("TMPDIR", temporary.path()).stdin(Stdio::null());
    let ended = Ended::from(limited.output().expect("because every Linux has a shell"));
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    for part in ["the demo failed: the storage of n", " says: cannot write ", "File too large", "are kept in "] {
        assert!(ended.stderr.contains(part), "there is no \"{part}\" in {ended:#?}");
    }
    wait_for("the end of all nodes", || processes_mentioning(temporary.path()).is_empty().then_some(()));
}

/// A terminal that is closed sends SIGHUP only to those whose controlling terminal it was: not to
/// what runs in a container, or was moved out of its session.
#[test]
fn regress_a_terminal_that_is_closed_without_a_signal_ends_the_demo_without_a_trace() {
    let mut demo = Demo::start_on(Terminal::open(80), &[]);
    demo.read_until("nodes up");
    let Demo { mut process, stdout: outer, temporary } = demo;
    drop(outer);
    assert_eq!(process.wait(), Some(1));
    wait_for("the end of all nodes", || processes_mentioning(temporary.path()).is_empty().then_some(()));
    assert!(names(temporary.path()).is_empty(), "{:?}", names(temporary.path()));
}

/// Whatever it was doing: making the folder, starting the first node, waiting for the others, or
/// writing.
#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed_at_any_moment() {
    let moments: [fn(&mut Demo); 5] = [
        |demo| wait_for("a folder", || (names(demo.temporary.path()).len() > 1).then_some(())),
        |demo| demo.read_until("starting"),
        |demo| wait_for("a node", || (!processes_mentioning(demo.temporary.path()).is_empty()).then_some(())),
        |demo| demo.read_until("nodes up"),
        |demo| demo.read_until("killed the leader"),
    ];
    for reach in moments {
        let mut demo = Demo::start(&["--nodes", "5"]);
        reach(&mut demo);
        demo.process.kill();
        wait_for("the end of all nodes", || processes_mentioning(demo.temporary.path()).is_empty().then_some(()));
    }
}

#[test]
fn what_is_kept_can_be_gone_on_with() {
    let folder = folder();
    let kept = folder.path().join("kept");
    let story = run(&["demo", "--load", SAMPLE, "--keep", text(&kept)]).expect_output();
    let config = kept.join("cluster.toml");
    let next = format!("raft-kv serve --config {} --node 2", text(&config));
    assert!(story.contains(&next), "there is no \"{next}\" in\n{story}");
    for name in ["cluster.toml", "certs", "n1", "n1.log", "n3.log"] {
        assert!(names(&kept).iter().any(|found| found == name), "there is no {name} in {:?}", names(&kept));
    }

    let _nodes = [1, 2, 3].map(|node| {
        let mut command = raft_kv();
        command.args(["serve", "--until-stdin-closes", "--config", text(&config), "--node", &node.to_string()]);
        Process::start(command.stderr(Stdio::null()))
    });
    let listing = wait_for("the cluster to serve again", || {
        let ended = run(&["range", "--keys-only", "--config", text(&config)]);
        (ended.status == Some(0)).then_some(ended.stdout)
    });
    assert_eq!(listing.lines().count(), 2000);
}

/// The port of the last node, taken after the demo has chosen it and before the node has it.
fn take_a_port(kept: &Path) -> Option<UdpSocket> {
    let config = fs::read_to_string(kept.join("cluster.toml")).ok()?;
    let address = config.lines().rev().find_map(|line| line.strip_prefix("address = "))?;
    UdpSocket::bind(address.trim_matches('"')).ok()
}

#[test]
fn regress_a_port_that_is_taken_meanwhile_costs_the_user_nothing() {
    let folder = folder();
    let kept = folder.path().join("kept");
    // On a busy machine the node may be faster: then nothing has happened yet.
    let (mut demo, taken) = wait_for("the port of a node that has not started yet", || {
        fs::remove_dir_all(&kept).ok();
        let mut demo = Demo::start(&["--keep", text(&kept), "--load", SAMPLE]);
        demo.read_until("starting");
        let taken = take_a_port(&kept)?;
        Some((demo, taken))
    });
    fs::write(kept.join("diary.txt"), "mine").expect("because the folder is writable");
    demo.read_until("everything held");
    assert_eq!(demo.process.wait(), Some(0), "{}", demo.stderr());
    let config = fs::read_to_string(kept.join("cluster.toml")).unwrap_or_default();
    let port = taken.local_addr().expect("because it is bound").port().to_string();
    assert!(!config.contains(&port), "no node was moved away from port {port}:\n{config}");
    assert!(kept.join("diary.txt").exists());
}

#[test]
fn each_demo_draws_a_seed_of_its_own() {
    let seeds = [(), ()].map(|()| {
        let mut demo = Demo::start(&["--nodes", "1"]);
        let mut line = String::new();
        demo.stdout.read_line(&mut line).expect("because the demo prints text");
        line.split("seed ").nth(1).map(str::to_owned)
    });
    assert!(seeds[0].is_some());
    assert_ne!(seeds[0], seeds[1]);
}
