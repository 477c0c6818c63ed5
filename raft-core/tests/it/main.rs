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
mod observations;
mod priority;
mod progress;
mod promises;
mod proposals;
mod raft_paper_elections;
mod raft_paper_log;
mod reads;
mod replication;
mod rig;
mod rules;
mod sharp;
mod stalls;
mod startup;
mod stories;
mod terms;
mod transfer;
mod trap_links;
mod traps;
mod turnover;
