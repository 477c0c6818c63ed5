//! The documents tell the truth where a machine can see it: the README's commands are the ones
//! that are run, links and citations lead somewhere, and the bird's-eye view stays one.

use anyhow::{Context, Result};

use crate::findings::Findings;
use crate::project::{Project, TextFile};

/// What a newcomer types, in this order.
const COMMANDS: [&str; 2] = ["cargo run --release -p raft-kv -- demo", "cargo xtask test"];

/// Longer, and nobody reads it before changing something.
const ARCHITECTURE_LINES_MAX: usize = 300;

/// The rules that the sources cite.
const CONTRACT: &str = "docs/contract.md";

/// The README's commands, the links of all documents, the index of the decisions, the rules cited.
pub(crate) fn check(project: &Project) -> Result<String> {
    let mut findings = Findings::default();
    let readme = project.read("README.md")?;
    let commands = commands(&readme.text);
    findings.expect(commands == COMMANDS, || format!("README.md begins with {commands:?}, not with {COMMANDS:?}"));

    let architecture = project.read("docs/ARCHITECTURE.md")?;
    let lines = architecture.text.lines().count();
    findings.expect(lines <= ARCHITECTURE_LINES_MAX, || format!("{} has {lines} lines", architecture.path));
    let states_absences = architecture.text.contains("Architecture invariant:");
    findings.expect(states_absences, || format!("{} states no invariant", architecture.path));

    let texts = project.texts("")?;
    let documents: Vec<&TextFile> = texts.iter().filter(|file| file.has_extension("md")).collect();
    for document in &documents {
        for link in links(&document.text) {
            let target = resolve(&document.path, link);
            findings.expect(project.has(&target), || format!("{}: `{link}` leads nowhere", document.path));
        }
    }
    let index = project.read("docs/decisions/README.md")?;
    for document in documents.iter().filter(|document| document.path.starts_with("docs/decisions/")) {
        let name = document.path.trim_start_matches("docs/decisions/");
        let is_listed = name == "README.md" || links(&index.text).any(|link| link == name);
        findings.expect(is_listed, || format!("{} does not list {name}", index.path));
    }
    let contract = project.read(CONTRACT)?;
    for source in texts.iter().filter(|file| file.is_rust() && !file.path.starts_with("xtask/")) {
        find_unknown_rules(source, &contract.text, &mut findings);
    }
    findings.into_result("The documents tell the truth:", format!("{} documents", documents.len()))
}

/// Each rule that a source cites is one of the contract's: `* **D1** – …`.
fn find_unknown_rules(source: &TextFile, contract: &str, findings: &mut Findings) {
    for (nth, line) in source.text.lines().enumerate() {
        for rule in line.match_indices("contract ").flat_map(|(at, _)| cited_rules(&line[at..])) {
            let is_known = contract.contains(&format!("\n* **{rule}** – "));
            findings.expect(is_known, || format!("{}:{}: {CONTRACT} has no rule {rule}", source.path, nth + 1));
        }
    }
}

/// The rules in `contract D1, D7` or `contract V1–V6; …`, as far as the list goes.
fn cited_rules(citation: &str) -> impl Iterator<Item = &str> {
    let list = citation.trim_start_matches("contract ").split(|c: char| !(c.is_alphanumeric() || ", –".contains(c)));
    let words =
        list.take(1).flat_map(|list| list.split([',', ' ', '–'])).filter(|word| !word.is_empty() && *word != "and");
    words.take_while(|word| {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
        digits.len() + 1 == word.len() && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    })
}

/// The README's first command, as its reader types it.
///
/// # Errors
/// If the README has no command.
pub(crate) fn first_command(project: &Project) -> Result<Vec<String>> {
    let readme = project.read("README.md")?;
    let command = commands(&readme.text).into_iter().next().context("README.md has no fenced block with a command")?;
    Ok(command.split_whitespace().map(str::to_owned).collect())
}

/// The lines of the first fenced block, without comments.
fn commands(markdown: &str) -> Vec<&str> {
    let mut lines = markdown.lines().skip_while(|line| !line.starts_with("```"));
    lines.next();
    let block = lines.take_while(|line| !line.starts_with("```"));
    block.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()).collect()
}

/// Where the links to other files lead: `](target)`, without addresses and without anchors.
fn links(markdown: &str) -> impl Iterator<Item = &str> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or(target))
}

/// The path from the root to which `link` leads from `document`.
fn resolve(document: &str, link: &str) -> String {
    let mut folders: Vec<&str> = document.split('/').collect();
    folders.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(folders.pop()),
            "" | "." => {}
            name => folders.push(name),
        }
    }
    folders.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_first_block() {
        let markdown = "# Name\n\nText.\n\n```sh\ncargo run -p x -- demo   # the main job\n# a comment\ncargo xtask test\n```\n\n```sh\nother\n```\n";
        assert_eq!(commands(markdown), ["cargo run -p x -- demo", "cargo xtask test"]);
        assert!(commands("no block").is_empty());
    }

    #[test]
    fn a_citation_of_no_rule_is_found() {
        let text =
            "//! contract D1, D7 and D9\n// the contract says (contract Q1): contract V1–V6; contract: nothing\n";
        let source = TextFile { path: "x.rs".to_owned(), text: text.to_owned() };
        let mut findings = Findings::default();
        find_unknown_rules(&source, "\n* **D1** – a\n* **Q1** – b\n* **V1** – c\n", &mut findings);
        let expected = ["D7", "D9", "V6"].map(|rule| format!("has no rule {rule}"));
        let found = findings.as_slice();
        assert!(found.len() == 3 && found.iter().zip(&expected).all(|(found, end)| found.ends_with(end)), "{found:?}");
    }

    #[test]
    fn links_lead_from_the_folder_of_their_document() {
        let markdown = "[a](../xtask/src/layers.rs) [b](https://example.org) [c](#here) [d](decisions/README.md#list)";
        let targets: Vec<String> = links(markdown).map(|link| resolve("docs/ARCHITECTURE.md", link)).collect();
        assert_eq!(targets, ["xtask/src/layers.rs", "docs/decisions/README.md"]);
    }
}
