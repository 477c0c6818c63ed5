//! The layers of raft-core, and the check that its files only look down.
//!
//! The table is the one place where the layers are written down for a machine; the picture is in
//! `docs/ARCHITECTURE.md`. A needed upward arrow means that the concept is in the wrong file.

use anyhow::Result;

use crate::findings::Findings;
use crate::project::{Project, TextFile};

/// Files that belong together, in order: a file may use those before it.
struct Layer {
    /// How the first line of each of its files begins.
    heading: &'static str,
    modules: &'static [&'static str],
    /// Whether the files of the layer know nothing of one another at all.
    is_flat: bool,
}

/// From the bottom up.
///
/// Architecture invariant: rule files never call each other. Rules change facts, and `step` derives
/// the consequences; a rule that called another would hide a consequence inside a fact.
const LAYERS: [Layer; 6] = [
    Layer { heading: "Layer 0", modules: &["types", "rng", "error", "membership", "entry"], is_flat: false },
    Layer { heading: "Layer 1", modules: &["config", "machine", "ledger", "quorum"], is_flat: false },
    Layer { heading: "Layer 2", modules: &["durable", "message", "effect", "log", "progress"], is_flat: false },
    Layer { heading: "Layer 3", modules: &["outbox", "state", "role", "majority", "succession"], is_flat: false },
    Layer {
        heading: "Layer 4, rules",
        modules: &["election", "replication", "commit", "read", "reconfig", "snapshot", "transfer"],
        is_flat: true,
    },
    Layer { heading: "Hub", modules: &["status", "invariants", "step", "raft"], is_flat: false },
];

const FOLDER: &str = "raft-core/src/";

/// Where the layers are drawn for people.
const PICTURE: &str = "docs/ARCHITECTURE.md";

/// Every arrow inside raft-core points down, and the picture shows the same layers.
pub(crate) fn check(project: &Project) -> Result<String> {
    let files = project.texts(FOLDER.trim_end_matches('/'))?;
    let mut findings = find_upward(&files);
    let picture = project.read(PICTURE)?;
    for layer in &LAYERS {
        findings.expect(is_drawn(layer, &picture.text), || format!("{PICTURE} draws {} otherwise", layer.heading));
    }
    let rule = "A file of raft-core may use only what lies below it in xtask/src/layers.rs:";
    findings.into_result(rule, format!("{} files in {} layers", files.len(), LAYERS.len()))
}

/// Whether a row of the picture's table names exactly the layer's files:
/// "| 4, rules | `read` … | … |".
fn is_drawn(layer: &Layer, picture: &str) -> bool {
    let name = layer.heading.trim_start_matches("Layer ").to_lowercase();
    let start = format!("| {name} | ");
    let Some(row) = picture.lines().find_map(|line| line.strip_prefix(&start)) else { return false };
    let mut drawn: Vec<&str> = row.split(" | ").next().unwrap_or_default().split(' ').collect();
    let mut modules: Vec<String> = layer.modules.iter().map(|module| format!("`{module}`")).collect();
    drawn.sort_unstable();
    modules.sort_unstable();
    drawn == modules
}

fn find_upward(files: &[TextFile]) -> Findings {
    let mut findings = Findings::default();
    for file in files {
        // A module in a folder of its own counts as one: what it does inside is its own affair.
        let inside = file.path.trim_start_matches(FOLDER);
        let from = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if from == "lib" {
            continue;
        }
        let Some(place) = Place::of(from) else {
            findings.add(format!("{} has no layer; give it one", file.path));
            continue;
        };
        if !inside.contains('/') {
            let claim = format!("//! {}:", place.heading());
            findings.expect(file.text.starts_with(&claim), || format!("{} does not begin with `{claim}`", file.path));
        }
        for (line, code) in file.code() {
            let at = format!("{}:{line}", file.path);
            for to in used_modules(code) {
                match Place::of(&to) {
                    _ if to == from => {}
                    None => {
                        findings
                            .add(format!("{at}: `crate::{to}` names no file; import from the file that defines it"));
                    }
                    Some(below) => {
                        findings.expect(place.sees(below), || {
                            format!("{at}: {} → {}", place.named(from), below.named(&to))
                        });
                    }
                }
            }
            let climbs = !inside.contains('/') && code.contains("super::");
            findings.expect(!climbs, || format!("{at}: `super::` hides an arrow; write `crate::`"));
        }
    }
    findings
}

/// Where a file stands: its layer, and its place in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    layer: usize,
    nth: usize,
}

impl Place {
    fn of(module: &str) -> Option<Self> {
        LAYERS.iter().enumerate().find_map(|(layer, Layer { modules, .. })| {
            let nth = modules.iter().position(|name| *name == module)?;
            Some(Self { layer, nth })
        })
    }

    fn sees(self, other: Self) -> bool {
        let is_flat = LAYERS.get(self.layer).is_some_and(|layer| layer.is_flat);
        other < self && !(is_flat && other.layer == self.layer)
    }

    fn heading(self) -> &'static str {
        LAYERS.get(self.layer).map_or("", |layer| layer.heading)
    }

    fn named(self, module: &str) -> String {
        format!("{module} ({})", self.heading())
    }
}

/// The first names behind each `crate::` in a line of code, those of a group included.
fn used_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let is_whole_word =
            !code.get(..at).is_some_and(|before| before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let Some(path) = code.get(at + start.len()..).filter(|_| is_whole_word) else { continue };
        match path.strip_prefix('{') {
            Some(group) => modules.extend(group_heads(group)),
            None => modules.push(head(path)),
        }
    }
    modules
}

/// The heads of `a::X, b::{Y, Z}, c}`.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_u32;
    let mut item = 0;
    for (at, character) in group.char_indices() {
        let ends_item = depth == 0 && matches!(character, ',' | '}');
        if ends_item {
            heads.push(head(group.get(item..at).unwrap_or_default().trim()));
            item = at + 1;
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a file whose first line is as it should be.
    fn findings(path: &str, text: &str) -> Vec<String> {
        let heading = Place::of(path.trim_end_matches(".rs")).map_or("", Place::heading);
        findings_of_whole(path, &format!("//! {heading}: what it is.\n{text}"))
    }

    fn findings_of_whole(path: &str, text: &str) -> Vec<String> {
        let file = TextFile { path: format!("{FOLDER}{path}"), text: text.to_owned() };
        find_upward(&[file]).as_slice().to_vec()
    }

    #[test]
    fn downward_arrows_are_fine() {
        assert_eq!(findings("effect.rs", "use crate::message::Rpc;\nuse crate::types::{Index, Term};\n"), [""; 0]);
        assert_eq!(findings("lib.rs", "pub use crate::raft::Raft;\n"), [""; 0]);
    }

    #[test]
    fn an_upward_arrow_is_found() {
        assert_eq!(
            findings("types.rs", "\nuse crate::step::settle;\n"),
            ["raft-core/src/types.rs:3: types (Layer 0) → step (Hub)"]
        );
        assert_eq!(
            findings("message.rs", "fn f(e: crate::effect::Effect) {}\n"),
            ["raft-core/src/message.rs:2: message (Layer 2) → effect (Layer 2)"]
        );
    }

    #[test]
    fn rules_do_not_call_each_other() {
        assert_eq!(findings("commit.rs", "use crate::state::State;\n"), [""; 0]);
        assert_eq!(
            findings("commit.rs", "use crate::election;\n"),
            ["raft-core/src/commit.rs:2: commit (Layer 4, rules) → election (Layer 4, rules)"]
        );
    }

    #[test]
    fn a_group_and_a_detour_hide_nothing() {
        assert_eq!(
            findings("log.rs", "use crate::{types::{Index, Term}, raft::Raft};\nuse super::step;\n"),
            [
                "raft-core/src/log.rs:2: log (Layer 2) → raft (Hub)",
                "raft-core/src/log.rs:3: `super::` hides an arrow; write `crate::`",
            ]
        );
        assert_eq!(
            findings("log.rs", "use crate::Raft;\n"),
            ["raft-core/src/log.rs:2: `crate::Raft` names no file; import from the file that defines it"]
        );
    }

    #[test]
    fn a_folder_is_one_module() {
        assert_eq!(
            findings("log/cache.rs", "use super::Run;\nuse crate::log::Run;\nuse crate::types::Index;\n"),
            [""; 0]
        );
        assert_eq!(
            findings("log/cache.rs", "use crate::state::State;\n"),
            ["raft-core/src/log/cache.rs:2: log (Layer 2) → state (Layer 3)"]
        );
    }

    #[test]
    fn an_unknown_file_is_found() {
        assert_eq!(findings("helper.rs", ""), ["raft-core/src/helper.rs has no layer; give it one"]);
    }

    #[test]
    fn a_picture_that_shows_other_files_is_found() {
        let layer = Layer { heading: "Layer 4, rules", modules: &["election", "read"], is_flat: true };
        assert!(is_drawn(&layer, "| hub | `step` | x |\n| 4, rules | `read` `election` | what |\n"));
        assert!(!is_drawn(&layer, "| 4, rules | `read` `election` `commit` | what |\n"));
        assert!(!is_drawn(&layer, "| 4, rules | `read` | what |\n"));
        assert!(!is_drawn(&layer, "no table\n"));
    }

    #[test]
    fn a_file_says_in_which_layer_it_is() {
        assert_eq!(findings_of_whole("entry.rs", "//! Layer 0: entries.\n"), [""; 0]);
        assert_eq!(
            findings_of_whole("entry.rs", "//! Layer 1: entries.\n"),
            ["raft-core/src/entry.rs does not begin with `//! Layer 0:`"]
        );
    }

    #[test]
    fn comments_and_tests_may_look_anywhere() {
        let text = "//! See [`crate::raft::Raft`].\nuse crate::types::Index; // crate::step\n#[cfg(test)]\nmod tests {\n    use crate::raft::Raft;\n}\n";
        assert_eq!(findings("entry.rs", text), [""; 0]);
    }
}
