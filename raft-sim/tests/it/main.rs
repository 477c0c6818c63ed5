//! What the simulator does, and whether its checks would notice.
//!
//! The checks are fed histories that no correct core can cause, made by hand: a check that never
//! fires is worth nothing, and nobody would find out from clean runs.

mod checks_of_clients;
mod checks_of_configurations;
mod checks_of_elections;
mod checks_of_logs;
mod checks_of_promises;
mod checks_of_snapshots;
mod parts;
mod rig;
mod seeds;
