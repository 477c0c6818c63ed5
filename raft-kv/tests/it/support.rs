//! Processes that cannot outlive their test, and waiting without guessing how long.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raft_kv::client::Client;
use raft_kv::config::ClusterConfig;
use raft_tokio::core::NodeId;
use tempfile::TempDir;

/// What is waited for happens within milliseconds; a busy machine gets all the time it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// So many lines of each node's log are shown when a test fails.
const LOG_TAIL_LINES: usize = 15;

/// The program under test, without what the environment might tell it.
pub(crate) fn raft_kv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-kv"));
    command.env_remove("RAFT_KV_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails the test unless the command ended with `status` and its message holds all of `parts`.
    pub(crate) fn expect_error(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "there is no \"{part}\" in the message of {self:#?}");
        }
        assert_eq!(self.stdout, "", "an error belongs to standard error");
    }

    /// The output of a command that ended well.
    pub(crate) fn expect_output(self) -> String {
        assert_eq!(self.status, Some(0), "{self:#?}");
        assert_eq!(self.stderr, "", "client commands are silent");
        self.stdout
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The document that a command printed, and nothing else.
pub(crate) fn as_json(ended: Ended) -> serde_json::Value {
    serde_json::from_str(&ended.expect_output()).expect("because the output is one JSON document")
}

/// Runs the program with these arguments to its end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    let output = raft_kv().args(arguments).output();
    output.expect("because the program was built for this test").into()
}

/// Runs the program with this standard input to its end.
pub(crate) fn run_with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = raft_kv();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("because the program was built for this test");
    let mut stdin = child.stdin.take().expect("because it is piped");
    // A program that refuses its input early closes the pipe, which is its good right.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("because a child can be waited for").into()
}

/// Polls until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A node's number as its type.
pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).expect("because the tests count from 1")
}

/// A folder that is removed with its test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("because a test machine has room for a folder")
}

/// The path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("because temporary folders have plain names")
}

/// A port after which `count` ports are free. No two tests meet, not even of two processes: each
/// range is locked until its process ends. The ranges lie below the demo's.
pub(crate) fn free_base(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static LOCKS: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());
    // Of this checkout: nobody else's files are in the way.
    let locks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    fs::create_dir_all(&locks).expect("because a test machine has room for a folder");
    let start = u64::from(std::process::id()) * 97;
    wait_for("free ports", || {
        let nth = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // In steps of the range, so that equal ports mean equal locks.
        let base = 4_000 + ((start + nth) % 375) as u16 * 16;
        let lock = fs::File::create(locks.join(base.to_string())).ok()?;
        lock.try_lock().ok()?;
        LOCKS.lock().expect("because nobody panics while holding it").push(lock);
        let sockets = (1..=count).map(|nth| UdpSocket::bind((Ipv4Addr::LOCALHOST, base + nth)));
        sockets.collect::<Result<Vec<_>, _>>().ok().map(|_| base)
    })
}

/// A process that ends with its owner, also if the test fails, and if the test is killed.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command; holding its standard input keeps it alive if it watches that.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().expect("because the program was built for this test"))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it with SIGKILL, as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("because the process is ours");
        self.0.wait().expect("because a child can be waited for");
    }

    /// Sends a signal by its name, as the shell does.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end; the exit status, or `None` if a signal killed it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_for("the end of a process", || self.0.try_wait().expect("because a child can be waited for")).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot send {name} to process {process}");
}

/// The processes whose command line mentions `path`.
pub(crate) fn processes_mentioning(path: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("because tests run on Linux");
    let command_lines = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        // A process may end between the listing and this.
        fs::read(entry.path().join("cmdline")).ok()
    });
    command_lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text(path)))
        .collect()
}

/// Every file below a folder with its content, to see that nothing was touched.
pub(crate) fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).expect("because the folder exists") {
            let path = entry.expect("because nobody else changes the folder").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let content = fs::read(&path).expect("because nobody else changes the folder");
                files.insert(path, content);
            }
        }
    }
    files
}

/// A cluster made by `init`, of which some nodes run.
pub(crate) struct Cluster {
    running: BTreeMap<u64, Process>,
    folder: TempDir,
    founders: u16,
    /// The port after the last founder's.
    spare_port: u16,
}

/// So many ports are kept for nodes that join later.
pub(crate) const SPARE_PORTS: u16 = 6;

impl Cluster {
    /// Makes a cluster; nothing runs yet.
    pub(crate) fn init(nodes: u16) -> Self {
        let folder = folder();
        let base_port = free_base(nodes + SPARE_PORTS);
        let spare_port = base_port + nodes + 1;
        let cluster = Self { running: BTreeMap::new(), folder, founders: nodes, spare_port };
        let (nodes, base_port) = (nodes.to_string(), base_port.to_string());
        let path = cluster.path();
        let arguments = ["init", "--nodes", &nodes, "--base-port", &base_port, text(&path)];
        run(&arguments).expect_output();
        cluster
    }

    /// Makes a cluster and starts all of its nodes.
    pub(crate) fn start(nodes: u16) -> Self {
        let mut cluster = Self::init(nodes);
        (1..=u64::from(nodes)).for_each(|node| cluster.start_node(node));
        cluster
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.path().join("cluster.toml")
    }

    pub(crate) fn config(&self) -> ClusterConfig {
        ClusterConfig::load(&self.config_path()).expect("because init has just written it")
    }

    /// The log of a node, outside of the cluster's own folder.
    pub(crate) fn log(&self, node: u64) -> String {
        fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    fn log_path(&self, node: u64) -> PathBuf {
        self.folder.path().join(format!("n{node}.log"))
    }

    pub(crate) fn start_node(&mut self, node: u64) {
        self.start_node_with(node, &[]);
    }

    /// Starts a node with further flags.
    pub(crate) fn start_node_with(&mut self, node: u64, flags: &[&str]) {
        self.start_node_by(raft_kv(), node, flags);
    }

    /// Starts a node by a command that runs the program with the arguments that are added to it.
    pub(crate) fn start_node_by(&mut self, mut command: Command, node: u64, flags: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.log_path(node));
        let log = log.expect("because the test's folder is writable");
        command.arg("serve").arg("--until-stdin-closes").arg("--config").arg(self.config_path());
        command.arg("--node").arg(node.to_string()).args(flags).stderr(log);
        self.running.insert(node, Process::start(&mut command));
    }

    pub(crate) fn node(&mut self, node: u64) -> &mut Process {
        self.running.get_mut(&node).expect("because the test has started it")
    }

    /// Ends a node with SIGKILL.
    pub(crate) fn kill_node(&mut self, node: u64) {
        self.node(node).kill();
        self.running.remove(&node);
    }

    /// The address of the `nth` node, from 1, that joins.
    pub(crate) fn spare_address(&self, nth: u16) -> String {
        assert!((1..=SPARE_PORTS).contains(&nth), "there are {SPARE_PORTS} spare ports");
        format!("127.0.0.1:{}", self.spare_port + nth - 1)
    }

    /// Has a node join, which is expected to get this number, and keeps it running. Its address is
    /// the spare one of that number.
    pub(crate) fn join_node(&mut self, number: u64, flags: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.log_path(number));
        let address = self.spare_address(u16::try_from(number).expect("because it is small") - self.founders);
        let mut command = raft_kv();
        command.arg("join").arg("--config").arg(self.config_path()).args(["--address", &address]).args(flags);
        command.stderr(log.expect("because the test's folder is writable")).stdout(Stdio::null());
        self.running.insert(number, Process::start(&mut command));
        wait_for("a node to join", || self.config().node(node(number)).is_ok().then_some(()));
    }

    /// Replaces text in the configuration.
    pub(crate) fn edit(&self, edits: &[(&str, &str)]) {
        let path = self.config_path();
        let mut config = fs::read_to_string(&path).expect("because init has written it");
        for (from, to) in edits {
            assert!(config.contains(from), "there is no {from} in {config}");
            config = config.replace(from, to);
        }
        fs::write(path, config).expect("because the test's folder is writable");
    }

    /// Puts tables into the configuration, before the nodes.
    pub(crate) fn insert(&self, tables: &str) {
        let config = fs::read_to_string(self.config_path()).expect("because init has written it");
        let config = config.replacen("\n[[node]]", &format!("\n{tables}\n[[node]]"), 1);
        fs::write(self.config_path(), config).expect("because the test's folder is writable");
    }

    /// Takes a node out of the configuration.
    pub(crate) fn take_out(&self, number: u64) {
        let config = fs::read_to_string(self.config_path()).expect("because init has written it");
        let is_other = |part: &&str| !part.contains(&format!("id = {number}\n"));
        let parts: Vec<&str> = config.split("\n[[node]]\n").filter(is_other).collect();
        fs::write(self.config_path(), parts.join("\n[[node]]\n")).expect("because the test's folder is writable");
    }

    /// Runs a client command against the cluster.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let config = self.config_path();
        run(&[arguments, &["--config", text(&config)]].concat())
    }

    /// Waits until the status says this.
    pub(crate) fn wait_for_verdict(&self, verdict: &str) -> String {
        wait_for(verdict, || {
            let stdout = self.run(&["status"]).stdout;
            stdout.starts_with(verdict).then_some(stdout)
        })
    }

    /// A client that will find nodes that join later; needs a runtime.
    pub(crate) fn client(&self, timeout: Duration) -> Client {
        let mut config = self.config().client(timeout).expect("because init has made the certificates");
        let founders = config.endpoints.len() as u64;
        let spares = (1..=SPARE_PORTS).map(|nth| (node(founders + u64::from(nth)), self.spare_address(nth)));
        config.endpoints.extend(spares);
        Client::connect(config).expect("because the certificates are fresh")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Of a test that fails, the nodes may know why.
        if thread::panicking() {
            for node in self.running.keys() {
                let log = self.log(*node);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
                eprintln!("the last lines of n{node}:\n{tail}");
            }
        }
    }
}
