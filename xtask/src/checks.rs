//! The checks that cargo's own tools make, and what they can mend.

use anyhow::{Context, Result};

use crate::process::Program;
use crate::project::Project;

const CLIPPY: [&str; 5] = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];

/// The code is formatted.
pub(crate) fn formatting(project: &Project) -> Result<String> {
    Program::cargo(project.root()).args(["fmt", "--all", "--", "--check"]).show()?;
    Ok(String::new())
}

/// Clippy has nothing to say, about tests and examples either.
pub(crate) fn clippy(project: &Project) -> Result<String> {
    Program::cargo(project.root()).args(CLIPPY).args(["--", "-D", "warnings"]).show()?;
    Ok(String::new())
}

/// The documentation builds without a warning, that of private items included.
pub(crate) fn documentation(project: &Project) -> Result<String> {
    Program::cargo(project.root())
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(["doc", "--workspace", "--all-features", "--no-deps", "--document-private-items", "--locked"])
        .show()?;
    Ok(String::new())
}

/// Formats, and applies what clippy proposes; the only task that writes to the checkout.
pub(crate) fn fix(project: &Project) -> Result<()> {
    Program::cargo(project.root())
        .args(["clippy", "--workspace", "--all-targets", "--all-features"])
        .args(["--fix", "--allow-dirty", "--allow-staged"])
        .show()?;
    Program::cargo(project.root()).args(["fmt", "--all"]).show()
}

/// Runs cargo-deny, which knows the advisories that the built-in check does not.
pub(crate) fn audit(project: &Project) -> Result<()> {
    let version = Program::cargo(project.root()).args(["deny", "--version"]).capture();
    version.context("cargo-deny is not installed; `cargo install --locked cargo-deny` does it")?;
    Program::cargo(project.root()).args(["deny", "check"]).show()
}
