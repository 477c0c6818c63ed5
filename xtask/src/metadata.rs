//! The packages of the workspace and everything they pull in, as `cargo metadata` tells them.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Program;
use crate::project::Project;

/// One package, with what the checks want to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) rust_version: Option<RustVersion>,
    /// Whether it lies in this workspace.
    pub(crate) is_ours: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests, examples and benchmarks have it.
    pub(crate) is_dev: bool,
}

/// A version of the compiler, as far as it matters: `1.89`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RustVersion {
    major: u64,
    minor: u64,
}

impl RustVersion {
    /// Reads `1.89` or `1.89.0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some(Self { major: parts.next()??, minor: parts.next()?? })
    }
}

/// `1.89`.
impl std::fmt::Display for RustVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// All packages, with every feature of ours on, for every platform.
///
/// # Errors
/// If cargo fails, or says something else than it used to.
pub(crate) fn packages(project: &Project) -> Result<Vec<Package>> {
    let cargo = Program::cargo(project.root()).args(["metadata", "--format-version=1", "--all-features", "--locked"]);
    parse(&cargo.capture()?)
}

fn parse(json: &str) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(json).context("cargo metadata prints no JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("cargo metadata names no packages")?;
    packages.iter().map(package).collect()
}

fn package(json: &Value) -> Result<Package> {
    let dependencies = json.get("dependencies").and_then(Value::as_array).context("a package without dependencies")?;
    Ok(Package {
        name: text(json, "name").context("a package without a name")?,
        version: text(json, "version").context("a package without a version")?,
        license: text(json, "license"),
        rust_version: text(json, "rust_version").as_deref().and_then(RustVersion::parse),
        is_ours: json.get("source").is_some_and(Value::is_null),
        dependencies: dependencies.iter().map(dependency).collect::<Result<_>>()?,
    })
}

fn dependency(json: &Value) -> Result<Dependency> {
    let name = text(json, "name").context("a dependency without a name")?;
    Ok(Dependency { name, is_dev: text(json, "kind").as_deref() == Some("dev") })
}

fn text(json: &Value, field: &str) -> Option<String> {
    json.get(field).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_prints() {
        let json = r#"{"packages": [{
            "name": "raft-kv", "version": "0.1.0", "license": "MIT OR Apache-2.0", "rust_version": "1.89",
            "source": null,
            "dependencies": [{"name": "bytes", "kind": null}, {"name": "proptest", "kind": "dev"}]
        }]}"#;
        let expected = Package {
            name: "raft-kv".to_owned(),
            version: "0.1.0".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            rust_version: RustVersion::parse("1.89.0"),
            is_ours: true,
            dependencies: vec![
                Dependency { name: "bytes".to_owned(), is_dev: false },
                Dependency { name: "proptest".to_owned(), is_dev: true },
            ],
        };
        assert_eq!(parse(json).ok(), Some(vec![expected]));
    }

    #[test]
    fn compiler_versions_compare_as_numbers() {
        assert!(RustVersion::parse("1.100") > RustVersion::parse("1.89.3"));
        assert_eq!(RustVersion::parse("1.56.1").map(|version| version.to_string()).as_deref(), Some("1.56"));
        assert_eq!(RustVersion::parse("stable"), None);
    }
}
