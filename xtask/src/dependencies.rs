//! What the crates depend on: one another, along the arrows of `docs/ARCHITECTURE.md`, and other
//! people's crates, along `.cargo/deny.toml`.

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::findings::Findings;
use crate::licences;
use crate::metadata::{self, Package};
use crate::process::Program;
use crate::project::Project;

/// Whom of its siblings a crate may name, in all code and in tests only.
struct Arrows {
    from: &'static str,
    to: &'static [&'static str],
    to_in_tests: &'static [&'static str],
}

/// Architecture invariant: the core depends on no sibling, not even in tests, so that it can be
/// taken away alone; and nothing that ships depends on the simulator.
const ARROWS: [Arrows; 5] = [
    Arrows { from: "raft-core", to: &[], to_in_tests: &[] },
    Arrows { from: "raft-tokio", to: &["raft-core"], to_in_tests: &["raft-sim"] },
    Arrows { from: "raft-sim", to: &["raft-core"], to_in_tests: &[] },
    Arrows { from: "raft-kv", to: &["raft-tokio"], to_in_tests: &["raft-sim"] },
    Arrows { from: "xtask", to: &[], to_in_tests: &[] },
];

/// Crates that raft-core may bring into a build, itself included.
const CORE_CRATES_MAX: usize = 8;

/// The crates of the workspace name one another only along [`ARROWS`].
pub(crate) fn arrows(project: &Project) -> Result<String> {
    let packages = metadata::packages(project)?;
    let rule = "A crate may depend on its siblings only as docs/ARCHITECTURE.md draws it:";
    find_arrows(&packages).into_result(rule, format!("{} crates", ARROWS.len()))
}

fn find_arrows(packages: &[Package]) -> Findings {
    let mut findings = Findings::default();
    let ours: Vec<&Package> = packages.iter().filter(|package| package.is_ours).collect();
    for package in &ours {
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.from == package.name) else {
            findings
                .add(format!("{} has no place in the picture; give it one in xtask/src/dependencies.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_sibling = ours.iter().any(|sibling| sibling.name == name);
            let allowed = arrows.to.contains(&name) || (dependency.is_dev && arrows.to_in_tests.contains(&name));
            findings.expect(!is_sibling || allowed, || {
                format!("{} → {name}{}", package.name, if dependency.is_dev { " (in tests)" } else { "" })
            });
        }
    }
    findings
}

/// Whoever embeds the core pays for little more than the core.
pub(crate) fn core_is_light(project: &Project) -> Result<String> {
    let tree = Program::cargo(project.root())
        .args(["tree", "-p", "raft-core", "--edges=normal", "--prefix=none", "--no-dedupe", "--locked"])
        .capture()?;
    let mut crates: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    crates.sort_unstable();
    crates.dedup();
    let mut findings = Findings::default();
    findings.expect(crates.len() <= CORE_CRATES_MAX, || format!("{}: {}", crates.len(), crates.join(" ")));
    let rule = format!("raft-core brings at most {CORE_CRATES_MAX} crates into a build, itself included:");
    findings.into_result(&rule, format!("{} crates", crates.len()))
}

/// What `.cargo/deny.toml` accepts and refuses. `cargo deny` reads the same file, and checks
/// more, but takes minutes to install; this takes a second.
struct Policy {
    licences: Vec<String>,
    banned: Vec<String>,
}

impl Policy {
    const PATH: &str = ".cargo/deny.toml";

    fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().with_context(|| format!("{} is not TOML", Self::PATH))?;
        let list = |section: &str, name: &str| {
            let list = table.get(section).and_then(|section| section.get(name)).and_then(Value::as_array);
            list.with_context(|| format!("{} has no list {section}.{name}", Self::PATH))
        };
        let licences = list("licenses", "allow")?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let banned = list("bans", "deny")?.iter().map(|entry| {
            let name = entry.get("crate").and_then(Value::as_str);
            name.map(str::to_owned).with_context(|| format!("{} bans something that is no crate: {entry}", Self::PATH))
        });
        Ok(Self { licences, banned: banned.collect::<Result<_>>()? })
    }
}

/// Every dependency has a licence that we accept, is not banned, and works with the compiler that
/// we promise to support.
pub(crate) fn policy(project: &Project) -> Result<String> {
    let policy = Policy::parse(&project.read(Policy::PATH)?.text)?;
    let packages = metadata::packages(project)?;
    let rule = format!("Every dependency fits {} and the workspace's rust-version:", Policy::PATH);
    find_offenders(&packages, &policy).into_result(&rule, format!("{} packages", packages.len()))
}

fn find_offenders(packages: &[Package], policy: &Policy) -> Findings {
    let mut findings = Findings::default();
    let ours = packages.iter().filter(|package| package.is_ours).filter_map(|package| package.rust_version).min();
    for package in packages {
        let Package { name, version, license, rust_version, .. } = package;
        let licence = license.as_deref().unwrap_or("none stated");
        findings.expect(licences::is_accepted(licence, &policy.licences), || {
            format!("{name} {version}: licence {licence}")
        });
        findings.expect(!policy.banned.contains(name), || format!("{name} {version} is banned"));
        if let (Some(needed), Some(ours)) = (rust_version, ours) {
            findings.expect(*needed <= ours, || format!("{name} {version} needs Rust {needed}, we promise {ours}"));
        }
    }
    findings.expect(ours.is_some(), || "no crate of ours states its rust-version".to_owned());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Dependency, RustVersion};

    fn ours(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependencies =
            dependencies.iter().map(|(name, is_dev)| Dependency { name: (*name).to_owned(), is_dev: *is_dev });
        Package {
            name: name.to_owned(),
            license: Some("MIT".to_owned()),
            rust_version: RustVersion::parse("1.89"),
            is_ours: true,
            dependencies: dependencies.collect(),
            ..Package::default()
        }
    }

    fn theirs(name: &str, license: &str, rust_version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some(license.to_owned()),
            rust_version: RustVersion::parse(rust_version),
            ..Package::default()
        }
    }

    #[test]
    fn an_arrow_against_the_picture_is_found() {
        let core = ours("raft-core", &[("bytes", false), ("raft-sim", true)]);
        let tokio = ours("raft-tokio", &[("raft-core", false), ("raft-sim", true)]);
        let sim = ours("raft-sim", &[("raft-core", false)]);
        let kv = ours("raft-kv", &[("raft-tokio", false), ("raft-sim", false)]);
        let findings = find_arrows(&[core, tokio, sim, kv]);
        assert_eq!(findings.as_slice(), ["raft-core → raft-sim (in tests)", "raft-kv → raft-sim"]);
    }

    #[test]
    fn a_crate_outside_of_the_picture_is_found() {
        let findings = find_arrows(&[ours("raft-extra", &[])]);
        assert!(matches!(findings.as_slice(), [one] if one.starts_with("raft-extra has no place")));
    }

    #[test]
    fn bad_licences_bans_and_newer_compilers_are_found() {
        let policy = Policy { licences: vec!["MIT".to_owned()], banned: vec!["bincode".to_owned()] };
        let packages = [
            ours("raft-core", &[]),
            theirs("fine", "MIT OR GPL-3.0-only", "1.89"),
            theirs("bincode", "MIT", "1.60"),
            theirs("copyleft", "GPL-3.0-only", "1.60"),
            theirs("modern", "MIT", "1.95"),
        ];
        assert_eq!(
            find_offenders(&packages, &policy).as_slice(),
            [
                "bincode 1.0.0 is banned",
                "copyleft 1.0.0: licence GPL-3.0-only",
                "modern 1.0.0 needs Rust 1.95, we promise 1.89",
            ]
        );
    }

    #[test]
    fn the_policy_is_read_from_the_file_of_cargo_deny() {
        let policy =
            Policy::parse("[licenses]\nallow = ['MIT']\n[bans]\ndeny = [{ crate = 'sled', reason = 'stale' }]");
        let policy = policy.expect("because both lists are there");
        assert_eq!((policy.licences, policy.banned), (vec!["MIT".to_owned()], vec!["sled".to_owned()]));
        assert!(Policy::parse("[licenses]\nallow = []").is_err());
        assert!(Policy::parse("[licenses]\nallow = []\n[bans]\ndeny = ['sled']").is_err());
    }
}
