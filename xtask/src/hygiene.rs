//! Rules about the text of the project that no compiler knows.

use anyhow::Result;

use crate::findings::Findings;
use crate::output::say;
use crate::project::{Project, TextFile};

/// A file longer than this asks for a second look; it is no error.
const COMFORTABLE_LINES: usize = 500;

/// Everything that may lie in the root. A reader meets this list first, so it is short on purpose.
const TOP_LEVEL: [&str; 16] = [
    ".cargo",
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "docs",
    "raft-core",
    "raft-kv",
    "raft-sim",
    "raft-tokio",
    "xtask",
];

/// What no source may contain, and why not. The words are written in two halves, so that this
/// file does not find itself.
const BANNED_IN_SOURCES: [(&str, &str); 8] = [
    (concat!("TO", "DO"), "an issue is a better place, and it can be closed"),
    (concat!("FIX", "ME"), "an issue is a better place, and it can be closed"),
    (concat!("todo", "!("), "what is not there is absent, not stubbed"),
    (concat!("unimplemented", "!("), "what is not there is absent, not stubbed"),
    (concat!("#[igno", "re"), "a test that does not run proves nothing"),
    (concat!("#[should_", "panic"), "it passes for the wrong panic too; catch it and look at it"),
    (concat!("#[all", "ow("), "`#[expect(…, reason = …)]` says why and goes away when it is over"),
    (concat!("thread::sle", "ep("), "a sleep is either too short or too long; wait for what you wait for"),
];

/// Folders that only one machine has. A path into one works for its author alone.
const MACHINE_FOLDERS: [&str; 6] = ["home", "root", "Users", "tmp", "mnt", "work"];

/// Checks every text file of the project.
pub(crate) fn check(project: &Project) -> Result<String> {
    let mut findings = Findings::default();
    for name in project.top_level()? {
        findings.expect(TOP_LEVEL.contains(&name.as_str()), || format!("{name} lies in the root"));
    }
    for name in TOP_LEVEL {
        findings.expect(project.has(name), || format!("{name} is missing from the root"));
    }
    let files = project.texts("")?;
    for file in &files {
        find_bad_text(file, &mut findings);
    }
    for krate in ["raft-core", "raft-tokio", "raft-sim", "raft-kv", "xtask"] {
        find_missing_attributes(project, krate, &mut findings)?;
    }
    findings.into_result("The project's text keeps its rules:", size_report(&files))
}

fn find_bad_text(file: &TextFile, findings: &mut Findings) {
    // Recorded input is as it was found.
    if file.path.contains("/testdata/") && !file.has_extension("md") {
        return;
    }
    findings
        .expect(file.text.ends_with('\n') || file.text.is_empty(), || format!("{}: no newline at the end", file.path));
    for (nth, line) in file.text.lines().enumerate() {
        let at = format!("{}:{}", file.path, nth + 1);
        findings.expect(line.trim_end() == line, || format!("{at}: white space at the end"));
        if let Some(path) = machine_path(line) {
            findings.add(format!("{at}: `{path}` exists on one machine only"));
        }
        if file.is_rust() {
            for (word, why) in BANNED_IN_SOURCES {
                findings.expect(!line.contains(word), || format!("{at}: `{word}`: {why}"));
            }
        }
    }
}

/// An absolute path into a folder of one machine, if the line has one.
fn machine_path(line: &str) -> Option<&str> {
    MACHINE_FOLDERS.iter().find_map(|folder| {
        let start = format!("/{folder}/");
        let (at, _) = line.match_indices(&start).find(|(at, _)| {
            // In the middle of a longer path, or of an address, it is somebody's folder name.
            let before = line.get(..*at).and_then(|before| before.chars().next_back());
            before.is_none_or(|c| c.is_whitespace() || "\"'`(=:<[".contains(c))
        })?;
        let path = line.get(at..)?;
        path.split(|c: char| c.is_whitespace() || "\"'`)>],;".contains(c)).next()
    })
}

/// Each crate forbids unsafe code by itself, and takes the workspace's lints.
fn find_missing_attributes(project: &Project, krate: &str, findings: &mut Findings) -> Result<()> {
    for root in ["src/lib.rs", "src/main.rs"].map(|root| format!("{krate}/{root}")) {
        if project.has(&root) {
            let file = project.read(&root)?;
            let forbids = file.text.lines().any(|line| line == "#![forbid(unsafe_code)]");
            findings.expect(forbids, || format!("{root} lacks #![forbid(unsafe_code)]"));
        }
    }
    let manifest = project.read(&format!("{krate}/Cargo.toml"))?;
    let takes_lints = manifest.text.contains("[lints]\nworkspace = true\n");
    findings.expect(takes_lints, || format!("{} does not take the workspace's lints", manifest.path));
    Ok(())
}

/// How many sources there are, and which of them are too long for comfort.
fn size_report(files: &[TextFile]) -> String {
    let sources: Vec<(usize, &TextFile)> =
        files.iter().filter(|file| file.is_rust()).map(|file| (file.text.lines().count(), file)).collect();
    for (lines, file) in sources.iter().filter(|(lines, _)| *lines > COMFORTABLE_LINES) {
        say(format_args!("note: {} has {lines} lines; is there a cut that few names cross?", file.path));
    }
    let long = sources.iter().filter(|(lines, _)| *lines > COMFORTABLE_LINES).count();
    let lines: usize = sources.iter().map(|(lines, _)| lines).sum();
    format!("{} files, {lines} lines of Rust, {long} files over {COMFORTABLE_LINES}", files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        find_bad_text(&TextFile { path: path.to_owned(), text: text.to_owned() }, &mut findings);
        findings.as_slice().to_vec()
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = format!("// {}: later\nlet x = {});\n", BANNED_IN_SOURCES[0].0, BANNED_IN_SOURCES[2].0);
        assert_eq!(findings("a/src/x.rs", &text).len(), 2);
        assert_eq!(findings("a/src/x.rs", "let done = 1;\n"), [""; 0]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let home = MACHINE_FOLDERS[0];
        assert_eq!(machine_path(&format!("run \"/{home}/ann/raft\" now")), Some(format!("/{home}/ann/raft").as_str()));
        assert_eq!(machine_path(&format!("/{home}/x")), Some(format!("/{home}/x").as_str()));
        assert_eq!(machine_path(&format!("https://example.org/{home}/x and src/{home}/y")), None);
        assert_eq!(machine_path("reads /dev/null and /proc/self"), None);
    }

    #[test]
    fn ragged_ends_are_found() {
        assert_eq!(findings("a.md", "one \ntwo"), ["a.md: no newline at the end", "a.md:1: white space at the end"]);
    }

    #[test]
    fn recorded_input_is_left_alone() {
        assert_eq!(findings("raft-kv/testdata/sample.tsv", "key\tvalue "), [""; 0]);
    }
}
