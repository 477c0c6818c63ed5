//! The command line: what may be typed, what it does, what it prints, and how it ends.

pub(crate) mod admin;
pub(crate) mod arguments;
pub(crate) mod connect;
pub(crate) mod data;
pub(crate) mod details;
pub(crate) mod exit;
pub(crate) mod health;
pub(crate) mod init;
pub(crate) mod json_error;
pub(crate) mod leader;
pub(crate) mod load;
pub(crate) mod logging;
pub(crate) mod member;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod writers;
