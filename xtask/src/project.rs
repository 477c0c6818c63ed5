//! The checkout: where it is and which files belong to it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout that xtask was built from.
pub(crate) struct Project {
    root: PathBuf,
}

/// A file of the project that holds text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextFile {
    /// Relative to the root, with `/` between folders.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Project {
    pub(crate) fn here() -> Self {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: xtask.parent().unwrap_or(xtask).to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The text of one file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&self, path: &str) -> Result<TextFile> {
        let text = fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))?;
        Ok(TextFile { path: path.to_owned(), text })
    }

    /// What lies directly in the root, without what git keeps or cargo builds.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn top_level(&self) -> Result<Vec<String>> {
        let mut names = folder(&self.root)?;
        names.retain(|name| name != ".git" && name != "target");
        Ok(names)
    }

    /// Every text file under `path`, sorted. It asks no git: what lies in the checkout is about
    /// to be committed, and a source archive can be checked as well.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub(crate) fn texts(&self, path: &str) -> Result<Vec<TextFile>> {
        let mut found = Vec::new();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            let full = self.root.join(&path);
            if full.is_dir() {
                let names = if path.is_empty() { self.top_level()? } else { folder(&full)? };
                waiting.extend(names.iter().map(|name| join(&path, name)));
                continue;
            }
            let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            // What is not UTF-8 is a picture or a recorded input: no text to have rules about.
            if let Ok(text) = String::from_utf8(bytes) {
                found.push(TextFile { path, text });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// The lines of code before the tests, without comments, each with its number.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let code = self.text.get(..tests).unwrap_or_default();
        code.lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }
}

/// Whether `word` stands in `code` with no letter, digit or underscore directly around it.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_letter) && (word.ends_with([':', '!']) || !after.is_some_and(is_letter))
    })
}

fn folder(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot list {}", path.display()))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ends_where_the_tests_begin_and_has_no_comments() {
        let text =
            "//! doc\nuse a; // why\n#[cfg(test)]\nfn only_here() {}\n\n#[cfg(test)]\nmod tests {\n    use b;\n}\n";
        let file = TextFile { path: "x.rs".to_owned(), text: text.to_owned() };
        let code: Vec<_> = file.code().filter(|(_, line)| !line.is_empty()).collect();
        assert_eq!(code, [(2, "use a; "), (3, "#[cfg(test)]"), (4, "fn only_here() {}")]);
    }

    #[test]
    fn knows_its_own_files() {
        let files = Project::here().texts("xtask/src").expect("because the sources lie where they were built from");
        assert!(files.iter().any(|file| file.path == "xtask/src/project.rs" && file.is_rust()));
    }
}
