//! raft-core is a function of its inputs: no clock, no randomness from outside, no hash order, no
//! float, no thread, no file. The compiler (`no_std`), clippy (`raft-core/clippy.toml`) and this
//! text check watch over it together; each sees what the others cannot.

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::findings::Findings;
use crate::process::Program;
use crate::project::{Project, TextFile, has_word};

/// What no code of the core may name, and why not.
const BANNED_WORDS: [(&str, &str); 6] = [
    ("std::", "the standard library has clocks, threads, files and hash maps"),
    ("f32", "floats round differently"),
    ("f64", "floats round differently"),
    ("HashMap", "its order differs between runs"),
    ("HashSet", "its order differs between runs"),
    ("unsafe", "there is no reason for it"),
];

/// What clippy has to refuse in the core, in its tests too.
const BANS: [(&str, &[&str]); 2] = [
    (
        "disallowed-types",
        &["std::collections::HashMap", "std::collections::HashSet", "std::time::Instant", "std::time::SystemTime"],
    ),
    ("disallowed-methods", &["std::thread::spawn", "std::thread::sleep"]),
];

/// The text of the core and of its `clippy.toml`.
pub(crate) fn check(project: &Project) -> Result<String> {
    let mut findings = Findings::default();
    let root = project.read("raft-core/src/lib.rs")?;
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        let is_there = root.text.lines().any(|line| line == attribute);
        findings.expect(is_there, || format!("raft-core/src/lib.rs lacks {attribute}"));
    }
    let files = project.texts("raft-core/src")?;
    for file in &files {
        find_banned_words(file, &mut findings);
    }
    find_missing_bans(&project.read("raft-core/clippy.toml")?.text, &mut findings)?;
    findings.into_result("raft-core is a pure function of its inputs:", format!("{} files", files.len()))
}

/// The core compiles without any of its features.
pub(crate) fn compiles_alone(project: &Project) -> Result<String> {
    Program::cargo(project.root()).args(["check", "-p", "raft-core", "--no-default-features", "--locked"]).show()?;
    Ok(String::new())
}

fn find_banned_words(file: &TextFile, findings: &mut Findings) {
    for (line, code) in file.code() {
        // The attribute that forbids it names it.
        let code = code.replace("forbid(unsafe_code)", "");
        for (word, why) in BANNED_WORDS {
            findings.expect(!has_word(&code, word), || format!("{}:{line}: `{word}`: {why}", file.path));
        }
    }
}

fn find_missing_bans(text: &str, findings: &mut Findings) -> Result<()> {
    let table: Table = text.parse().context("raft-core/clippy.toml is not TOML")?;
    for (list, paths) in BANS {
        let entries = table.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let field = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        for path in paths {
            let is_there = entries.iter().any(|entry| field(entry, "path").as_deref() == Some(path));
            findings.expect(is_there, || format!("raft-core/clippy.toml: {list} lacks {path}"));
        }
        for entry in entries {
            let has_reason = field(entry, "reason").is_some_and(|reason| !reason.is_empty());
            findings.expect(has_reason, || format!("raft-core/clippy.toml: {entry} has no reason"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> usize {
        let mut findings = Findings::default();
        find_banned_words(&TextFile { path: "x.rs".to_owned(), text: text.to_owned() }, &mut findings);
        findings.as_slice().len()
    }

    #[test]
    fn banned_words_are_found_where_they_are_code() {
        assert_eq!(words("use std::time::Instant;\nlet share: f64 = 0.5;\n"), 2);
        assert_eq!(words("#![no_std]\n// no std::time here\n#![forbid(unsafe_code)]\nlet buf64 = my_std::x();\n"), 0);
    }

    #[test]
    fn a_missing_ban_and_a_ban_without_reason_are_found() {
        let bans = BANS.map(|(list, paths)| {
            let entries = paths.iter().map(|path| format!("{{ path = '{path}', reason = 'because' }}"));
            format!("{list} = [{}]", entries.collect::<Vec<_>>().join(", "))
        });
        let complete = bans.join("\n");
        let count = |text: &str| {
            let mut findings = Findings::default();
            find_missing_bans(text, &mut findings).map(|()| findings.as_slice().len()).ok()
        };
        assert_eq!(count(&complete), Some(0));
        assert_eq!(count(&complete.replacen("std::time::Instant'", "std::time::Later'", 1)), Some(1));
        assert_eq!(count(&complete.replacen("'because'", "''", 1)), Some(1));
    }
}
