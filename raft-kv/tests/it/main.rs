//! The `raft-kv` program, as its users meet it: real processes, real sockets, real disks.

mod bad_cluster;
mod bad_input;
mod demo;
mod end_to_end;
mod kill_rounds;
mod members;
mod pty;
mod support;
