//! The core needs no standard library.

use std::path::Path;
use std::process::Command;

/// Builds and runs `tests/no_std_program`. It has its own panic handler and allocator, so it does
/// not even compile if anything in the core's dependencies links std. Offline and locked: a test
/// downloads nothing and changes nothing.
#[test]
#[cfg(unix)]
fn a_program_without_std_links_the_core_and_commits_a_command() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/no_std_program/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_std_program");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--offline", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .output()
        .expect("cargo runs this test, so cargo can be run");
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}
