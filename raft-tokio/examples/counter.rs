//! A replicated counter: three nodes with durable logs, talking QUIC with mutual TLS.
//!
//! `cargo run -p raft-tokio --example counter`

use bytes::Bytes;
use raft_tokio::core::{Position, RestoreError, StateMachine};
use raft_tokio::local::{LocalSite, leader};

struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _position: Position, _command: &Bytes) -> Bytes {
        self.0 += 1;
        Bytes::from(self.0.to_string())
    }

    fn snapshot(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError> {
        let bytes = snapshot.as_ref().try_into().map_err(|_| RestoreError { reason: "not 8 bytes".into() })?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let nodes = LocalSite::form(folder.path(), 3)?.start_all(|| Counter(0))?;
    for _ in 0..5 {
        let proposed = leader(&nodes).await.propose("one more").await?;
        println!("{} counted to {}", proposed.position, String::from_utf8_lossy(&proposed.answer));
    }
    println!("as of now it is {}", leader(&nodes).await.read(|counter| counter.0).await?);
    for node in nodes.values() {
        node.shutdown().await;
    }
    Ok(())
}
