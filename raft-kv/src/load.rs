//! Layer 1: files of pairs to load: one `key<TAB>value` a line.
//!
//! A file is read and checked as a whole before anything of it is written anywhere, so a bad
//! line 60,000 does not leave 59,999 keys behind. Keys and values are bytes; a line ends at a
//! newline, a key at its first tab, and everything else belongs to them.
//!
//! What only looks like a part of a key or a value is refused, for nobody would see that it was
//! stored: a carriage return at the end of a line, and a byte order mark at the start of the file.
//! Both come from other systems' editors. Taking them away silently would change the values of
//! those who mean them; `put KEY -` stores any bytes.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::key::{Key, KeyError};
use crate::protocol::VALUE_BYTES_MAX;

/// The pairs of a file, in its order, each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    pairs: Vec<(Key, Bytes)>,
}

impl Pairs {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or has lines that are no pairs or repeat a key; all of them are
    /// named, up to [`LoadError::PROBLEMS_MAX`].
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LoadError::Missing { path: path.to_owned() },
            io::ErrorKind::IsADirectory => LoadError::Directory { path: path.to_owned() },
            _ => LoadError::Unreadable { path: path.to_owned(), error },
        })?;
        Self::parse(bytes.into()).map_err(|problems| LoadError::Malformed { path: path.to_owned(), problems })
    }

    /// Checks the content of a file.
    ///
    /// # Errors
    /// If it has lines that are no pairs or repeat a key.
    pub fn parse(content: Bytes) -> Result<Self, Problems> {
        let mut pairs = Vec::new();
        let mut problems = Problems::default();
        let mut first_lines = HashMap::new();
        let mut rest = content;
        let mut line = 0_u64;
        while !rest.is_empty() {
            line += 1;
            let end = rest.iter().position(|byte| *byte == b'\n');
            let text = rest.split_to(end.unwrap_or(rest.len()));
            rest = rest.slice(rest.len().min(1)..);
            let parsed = match line {
                1 if text.starts_with(BYTE_ORDER_MARK) => Err(ProblemKind::ByteOrderMark),
                _ => parse_line(&text),
            };
            match parsed {
                Ok((key, value)) => match first_lines.insert(key.clone(), line) {
                    None => pairs.push((key, value)),
                    Some(first) => {
                        problems.push(Problem { line, kind: ProblemKind::Duplicate { key: key.clone(), first } });
                        first_lines.insert(key, first);
                    }
                },
                Err(kind) => problems.push(Problem { line, kind }),
            }
        }
        problems.lines = line;
        if problems.total == 0 { Ok(Self { pairs }) } else { Err(problems) }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether the file had no line.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Key, Bytes)> {
        self.pairs.iter()
    }
}

impl IntoIterator for Pairs {
    type Item = (Key, Bytes);
    type IntoIter = std::vec::IntoIter<(Key, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.pairs.into_iter()
    }
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn parse_line(line: &Bytes) -> Result<(Key, Bytes), ProblemKind> {
    let tab = line.iter().position(|byte| *byte == b'\t').ok_or(ProblemKind::NoTab)?;
    let value = line.slice(tab + 1..);
    let key = match Key::new(line.slice(..tab)) {
        Ok(key) => key,
        Err(KeyError::Empty) => return Err(ProblemKind::EmptyKey),
        Err(KeyError::TooLarge { size, limit }) => return Err(ProblemKind::KeyTooLarge { size, limit }),
    };
    if value.last() == Some(&b'\r') {
        return Err(ProblemKind::CarriageReturn);
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(ProblemKind::ValueTooLarge { size: value.len(), limit: VALUE_BYTES_MAX });
    }
    Ok((key, value))
}

/// What is wrong with a file's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    listed: Vec<Problem>,
    total: u64,
    /// How many lines the file has, good and bad.
    lines: u64,
}

impl Problems {
    /// The first problems, up to [`LoadError::PROBLEMS_MAX`], in the order of the lines.
    pub fn listed(&self) -> &[Problem] {
        &self.listed
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn push(&mut self, problem: Problem) {
        self.total += 1;
        if self.listed.len() < LoadError::PROBLEMS_MAX {
            self.listed.push(problem);
        }
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.listed.iter().enumerate() {
            let gap = if nth == 0 { "" } else { "\n" };
            write!(f, "{gap}  {problem}")?;
        }
        match self.total.saturating_sub(self.listed.len() as u64) {
            0 => Ok(()),
            unlisted => write!(f, "\n  and {unlisted} more"),
        }
    }
}

/// `1 of 1 line is bad`, `1 of 7 lines is bad`, `2 of 7 lines are bad`.
fn how_many(problems: &Problems) -> String {
    let Problems { total, lines, .. } = problems;
    let noun = if *lines == 1 { "line" } else { "lines" };
    let verb = if *total == 1 { "is" } else { "are" };
    format!("{total} of {lines} {noun} {verb} bad")
}

/// What to do about problems that are the same on every line, and invisible in most editors.
fn cure(problems: &Problems) -> &'static str {
    let is_foreign =
        |problem: &Problem| matches!(problem.kind, ProblemKind::CarriageReturn | ProblemKind::ByteOrderMark);
    if !problems.listed.iter().any(is_foreign) {
        return "";
    }
    "\n  without carriage returns and byte order mark: sed '1s/^\\xEF\\xBB\\xBF//; s/\\r$//' FILE >NEW_FILE"
}

/// A line that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct Problem {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// Nothing separates a key from a value.
    #[error("there is no tab between a key and a value")]
    NoTab,
    /// The line begins with its tab.
    #[error("the key before the tab is empty")]
    EmptyKey,
    /// The key is too long.
    #[error("the key has {size} bytes; the limit is {limit}")]
    KeyTooLarge {
        /// How many bytes it has.
        size: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The value is too long.
    #[error("the value has {size} bytes; the limit is {limit}")]
    ValueTooLarge {
        /// How many bytes it has.
        size: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The line ends as on Windows.
    #[error("the value ends in a carriage return, which would be stored with it")]
    CarriageReturn,
    /// The file begins as those of some editors do.
    #[error("the key begins with a byte order mark, which would be stored with it")]
    ByteOrderMark,
    /// An earlier line has the same key.
    #[error("the key {key:?} is also on line {first}")]
    Duplicate {
        /// The key.
        key: Key,
        /// The first line with it.
        first: u64,
    },
}

/// A file that cannot be loaded; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none.
    #[error("cannot load {}: there is no such file; name a file of lines key<TAB>value, or - for standard input", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is no file.
    #[error("cannot load {}: it is a directory; name a file of lines key<TAB>value, or - for standard input", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// It has bad lines.
    #[error(
        "{} cannot be loaded: {}, and nothing was written\n{problems}\n  \
         a line is a key of 1 to {} bytes, a tab, and a value of at most {VALUE_BYTES_MAX} bytes; each key once{}",
        path.display(), how_many(problems), Key::BYTES_MAX, cure(problems)
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The lines.
        problems: Problems,
    },
}

impl LoadError {
    /// So many bad lines are listed; more are counted.
    pub const PROBLEMS_MAX: usize = 20;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    fn parse(content: &str) -> Result<Pairs, String> {
        Pairs::parse(Bytes::copy_from_slice(content.as_bytes())).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_line_is_a_key_a_tab_and_a_value_which_may_hold_anything_but_a_newline() {
        let pairs = parse("a\t1\nb\t\nc\tx\ty\r \n\u{e4}\t2").map(|pairs| {
            pairs.iter().map(|(key, value)| format!("{key}={}", value.escape_ascii())).collect::<Vec<_>>()
        });
        assert_eq!(pairs, Ok(vec!["a=1".into(), "b=".into(), "c=x\\ty\\r ".into(), "\\xc3\\xa4=2".into()]));
    }

    #[test]
    fn a_last_newline_ends_a_line_and_begins_none() {
        assert_eq!(parse("a\t1\n").map(|pairs| pairs.len()), Ok(1));
        assert_eq!(parse("").map(|pairs| pairs.is_empty()), Ok(true));
    }

    #[test]
    fn every_bad_line_is_named() {
        let long_key = "k".repeat(Key::BYTES_MAX + 1);
        let long_value = "v".repeat(VALUE_BYTES_MAX + 1);
        let problems = parse(&format!("a\t1\nno tab\n\t2\na\t3\n{long_key}\t4\nb\t{long_value}\n\na\t5\n"));
        assert_eq!(
            problems,
            Err([
                "  line 2: there is no tab between a key and a value",
                "  line 3: the key before the tab is empty",
                "  line 4: the key \"a\" is also on line 1",
                "  line 5: the key has 4097 bytes; the limit is 4096",
                &format!("  line 6: the value has {} bytes; the limit is {VALUE_BYTES_MAX}", long_value.len()),
                "  line 7: there is no tab between a key and a value",
                "  line 8: the key \"a\" is also on line 1",
            ]
            .join("\n"))
        );
    }

    #[test]
    fn more_problems_than_a_screen_holds_are_counted() {
        let problems = Pairs::parse(Bytes::from("x\n".repeat(50))).expect_err("because no line has a tab");
        assert_eq!((problems.listed().len(), problems.total()), (20, 50));
        assert!(problems.to_string().ends_with("\n  and 30 more"));
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named_and_what_to_do() {
        for (path, what) in [("no/such/file.tsv", "there is no such file"), ("/", "it is a directory")] {
            let error = Pairs::read(Path::new(path)).expect_err("because it is no file").to_string();
            assert!(error.starts_with(&format!("cannot load {path}: {what}; name a file")), "{error}");
        }
    }

    fn malformed(content: &str) -> String {
        let problems = Pairs::parse(Bytes::copy_from_slice(content.as_bytes())).expect_err("because it is malformed");
        LoadError::Malformed { path: PathBuf::from("file.tsv"), problems }.to_string()
    }

    #[test]
    fn regress_carriage_returns_and_byte_order_marks_are_refused_and_not_stored_unseen() {
        let text = malformed("\u{feff}a\t1\r\nb\t2\r\nc\t3\nd\t\r");
        for part in [
            "file.tsv cannot be loaded: 3 of 4 lines are bad, and nothing was written\n",
            "line 1: the key begins with a byte order mark",
            "line 2: the value ends in a carriage return",
            "line 4: the value ends in a carriage return",
            "sed '1s/^\\xEF\\xBB\\xBF//; s/\\r$//' FILE",
        ] {
            assert!(text.contains(part), "there is no \"{part}\" in {text}");
        }
        assert!(!malformed("x").contains("sed"));
    }

    #[test]
    fn regress_one_line_is_and_two_are() {
        assert!(malformed("x").starts_with("file.tsv cannot be loaded: 1 of 1 line is bad, "));
        assert!(malformed("x\na\t1").starts_with("file.tsv cannot be loaded: 1 of 2 lines is bad, "));
        assert!(malformed("x\ny\na\t1").starts_with("file.tsv cannot be loaded: 2 of 3 lines are bad, "));
    }

    proptest! {
        #[test]
        fn any_pairs_survive_being_written_and_read(
            pairs in proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>().prop_filter("", |byte| !b"\t\n".contains(byte)), 1..9)
                    .prop_filter("", |key| !key.starts_with(BYTE_ORDER_MARK)),
                proptest::collection::vec(any::<u8>().prop_filter("", |byte| *byte != b'\n'), 0..9)
                    .prop_filter("", |value| value.last() != Some(&b'\r')),
                0..9,
            )
        ) {
            let mut content = Vec::new();
            for (key, value) in &pairs {
                content.extend([&key[..], b"\t", value, b"\n"].concat());
            }
            let read = Pairs::parse(content.into()).map(|pairs| {
                pairs.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect()
            });
            prop_assert_eq!(read, Ok(pairs));
        }
    }
}
