//! The transport between nodes.
