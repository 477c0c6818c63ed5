//! The integration tests of raft-tokio, in one binary.

mod cluster;
mod storage;
mod transport;
