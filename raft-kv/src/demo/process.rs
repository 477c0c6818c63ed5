//! A node as a process of its own, which cannot outlive its owner.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use raft_tokio::core::NodeId;
use tokio::time::Instant;

/// How often a process is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A running process, or one that has not been noticed to be dead yet.
///
/// Invariants:
/// * The process is gone when this is gone: dropping kills and reaps it.
/// * It is gone soon after this *program* is gone, however that ends: the process watches its
///   standard input, whose other end only this program holds.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    node: NodeId,
    child: Child,
}

impl NodeProcess {
    /// Starts `raft-kv serve` for this node; its output is appended to `log`.
    pub(crate) fn start(config: &Path, node: NodeId, log: &Path) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--until-stdin-closes");
        command.arg("--config").arg(config).arg("--node").arg(node.to_string());
        Self::spawn(command, node, log)
    }

    fn spawn(mut command: Command, node: NodeId, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // A group of its own, so that Ctrl-C reaches this program alone, which then decides
        // in which order things end.
        command.process_group(0);
        Ok(Self { node, child: command.spawn()? })
    }

    /// Whose process this is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// The operating system's number for it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it with SIGKILL: it gets no chance to write, send or close anything. It is gone when
    /// this returns.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end in order, which has no effect on one that has ended.
    pub(crate) fn ask_to_stop(&mut self) {
        self.child.stdin = None;
    }

    /// Waits until it has ended; `None` if it has not after `patience`.
    pub(crate) async fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended()? {
                Some(status) => return Ok(Some(status)),
                None if Instant::now() >= deadline => return Ok(None),
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Fails only if it was reaped already.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat(folder: &Path) -> NodeProcess {
        let node = NodeId::new(1).expect("because 1 is not 0");
        NodeProcess::spawn(Command::new("cat"), node, &folder.join("n1.log")).expect("because cat is everywhere")
    }

    fn is_alive(process: u32) -> bool {
        Path::new(&format!("/proc/{process}")).exists()
    }

    #[test]
    fn a_panic_of_the_owner_ends_the_process_and_removes_the_folder() {
        let folder = tempfile::tempdir().expect("because a test machine has room for a folder");
        let (path, process) = (folder.path().to_owned(), cat(folder.path()));
        let id = process.id();
        assert!(is_alive(id));
        let outcome = std::panic::catch_unwind(move || {
            let _owned = (process, folder);
            panic!("the demo has a bug");
        });
        assert!(outcome.is_err());
        assert!(!is_alive(id));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_process_that_is_asked_to_stop_ends_by_itself() {
        let folder = tempfile::tempdir().expect("because a test machine has room for a folder");
        let mut process = cat(folder.path());
        process.ask_to_stop();
        let status = process.wait(Duration::from_secs(10)).await.expect("because a child can be waited for");
        assert!(status.is_some_and(|status| status.success()), "cat ended with {status:?}");
    }
}
