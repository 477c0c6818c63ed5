//! What one server does, rule by rule: each test hands messages to the core and compares what
//! comes out. Tests of contract rules are named `rule_…`, tests of bugs that other systems had
//! `regress_t…`.

mod batches;
mod cluster;
mod cold_reads;
mod durability;
mod elections;
mod follower_reads;
mod full_disk;
mod hostile;
mod joint;
mod leases;
mod members;
mod membership;
mod no_std;
mod priority;
mod progress;
mod promotion;
mod proposals;
mod reads;
mod removal;
mod replication;
mod rig;
mod stalls;
mod stories;
mod terms;
mod transfer;
mod turnover;
