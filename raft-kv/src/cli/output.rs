//! What goes to standard output: text for people and pipes, tables, and JSON for programs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;

use comfy_table::{CellAlignment, Table, presets};
use raft_kv::store::KeyValue;
use serde_json::{Map, Value, json};

/// Writes to standard output, and makes sure that it arrived.
pub(crate) fn write(bytes: &[u8]) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| OutputError::new(error, stdout.as_fd()))
}

/// Something that was not printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The reader went away, as `head` does when it has seen enough, or the terminal was closed.
    #[error("standard output was closed")]
    Closed,
    /// There may be a reader, who would miss something.
    #[error(
        "cannot write to standard output: {0}; the command itself was carried out, but its result is not printed, or \
         not as a whole; make room, or send the output elsewhere"
    )]
    Failed(io::Error),
}

impl OutputError {
    /// EIO: what a terminal answers that was closed, but also a disk that is broken.
    const IO_ERROR: i32 = 5;

    fn new(error: io::Error, stdout: BorrowedFd<'_>) -> Self {
        let terminal_is_gone = || error.raw_os_error() == Some(Self::IO_ERROR) && is_device(stdout);
        if error.kind() == io::ErrorKind::BrokenPipe || terminal_is_gone() {
            return Self::Closed;
        }
        Self::Failed(error)
    }
}

/// Whether this is no file. A terminal that is gone no longer says that it is one.
fn is_device(descriptor: BorrowedFd<'_>) -> bool {
    let metadata = descriptor.try_clone_to_owned().and_then(|descriptor| File::from(descriptor).metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Writes text and a line feed to standard output.
pub(crate) fn write_line(text: &str) -> Result<(), OutputError> {
    write(format!("{text}\n").as_bytes())
}

/// Writes one JSON document to standard output.
pub(crate) fn write_json(document: &Value) -> Result<(), OutputError> {
    write_line(&format!("{document:#}"))
}

/// A pair as JSON: text as it is, bytes that are no text in base 64 under another name, so that
/// a reader can tell them apart and nothing is lost.
pub(crate) fn pair_json(pair: &KeyValue, with_value: bool) -> Value {
    let mut fields = Map::new();
    insert_bytes(&mut fields, "key", &pair.key);
    if with_value {
        insert_bytes(&mut fields, "value", &pair.value);
    }
    fields.insert("create_revision".to_owned(), json!(pair.create_revision.as_u64()));
    fields.insert("mod_revision".to_owned(), json!(pair.mod_revision.as_u64()));
    fields.insert("version".to_owned(), json!(pair.version));
    Value::Object(fields)
}

fn insert_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(name.to_owned(), json!(text)),
        Err(_) => fields.insert(format!("{name}_b64"), json!(base64(bytes))),
    };
}

/// Bytes for a line of text: what would break the line, move the cursor or is no UTF-8 becomes
/// `\xNN`.
pub(crate) fn printable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(char::is_control)
    {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut buffer = [0; 4];
                escape(&mut printable, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                printable.push(character);
            }
        }
        escape(&mut printable, chunk.invalid());
    }
    Cow::Owned(printable)
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Base 64 with the standard alphabet and padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let padded = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for digit in 0..4 {
            let sextet = (bits >> (18 - 6 * digit)) & 0x3f;
            text.push(if digit <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// A table of left-aligned columns without borders, whose lines a pipe can take apart; columns
/// named in `numbers` are aligned right.
pub(crate) fn table(header: &[&str], numbers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for (name, column) in header.iter().zip(table.column_iter_mut()) {
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // Without borders, the padding at the outside would only indent the table.
    let mut lines = String::new();
    for line in table.trim_fmt().lines() {
        lines.push_str(line.strip_prefix(' ').unwrap_or(line));
        lines.push('\n');
    }
    lines.truncate(lines.trim_end().len());
    lines
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 key`, `2 keys`, `1,000 keys`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_disk_is_no_closed_terminal() {
        let broken = || io::Error::from_raw_os_error(OutputError::IO_ERROR);
        let file = tempfile::tempfile().expect("because a test machine has room for a file");
        let device = File::open("/dev/null").expect("because it is everywhere");
        assert!(matches!(OutputError::new(broken(), file.as_fd()), OutputError::Failed(_)));
        assert!(matches!(OutputError::new(broken(), device.as_fd()), OutputError::Closed));
        assert!(matches!(OutputError::new(io::ErrorKind::BrokenPipe.into(), file.as_fd()), OutputError::Closed));
    }

    #[test]
    fn base64_agrees_with_the_examples_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn text_is_printed_as_it_is_and_what_breaks_lines_is_escaped() {
        assert_eq!(printable("grün".as_bytes()), "grün");
        assert_eq!(printable(b"a\tb\nc"), "a\\x09b\\x0ac");
        assert_eq!(printable(b"a\xffb"), "a\\xffb");
        assert_eq!(printable("\u{9b}1m".as_bytes()), "\\xc2\\x9b1m");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 63_666, 1_234_567].map(grouped), ["0", "999", "1,000", "63,666", "1,234,567"]);
        assert_eq!([1, 2].map(|number| counted(number, "key")), ["1 key", "2 keys"]);
    }

    #[test]
    fn a_table_has_a_header_and_aligns_numbers_right() {
        let rows = [vec!["n1".to_owned(), "7".to_owned()], vec!["n2".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&["NODE", "KEYS"], &["KEYS"], rows), "NODE  KEYS\nn1       7\nn2    1234");
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_under_another_name() {
        let mut fields = Map::new();
        insert_bytes(&mut fields, "key", b"a");
        insert_bytes(&mut fields, "value", b"\xff");
        assert_eq!(Value::Object(fields), json!({"key": "a", "value_b64": "/w=="}));
    }
}
