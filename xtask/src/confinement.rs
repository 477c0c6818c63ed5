//! Names that only one place may know, so that what stands behind them can be replaced there.

use anyhow::Result;

use crate::findings::Findings;
use crate::project::{Project, TextFile, has_word};

/// Words, and the beginnings of the paths of those sources that may say them.
struct Confined {
    words: &'static [&'static str],
    places: &'static [&'static str],
    why: &'static str,
}

const CONFINED: [Confined; 3] = [
    Confined {
        words: &["quinn::"],
        places: &["raft-tokio/src/transport/"],
        why: "nothing above the transport knows that the network is QUIC",
    },
    Confined {
        words: &["rustls::", "rcgen::", "webpki::", "ring::"],
        places: &["raft-tokio/src/transport/", "raft-tokio/src/certs/", "raft-tokio/src/certs.rs"],
        why: "nothing above transport and certificates knows who does the cryptography",
    },
    Confined {
        words: &["println!", "print!", "eprintln!", "eprint!", "io::stdout", "io::stderr", "process::exit"],
        places: &["raft-kv/src/main.rs", "raft-kv/src/cli/", "raft-kv/src/demo", "raft-sim/src/main.rs"],
        why: "a library neither prints nor ends the process; it returns",
    },
];

/// The sources of the crates that ship.
const FOLDERS: [&str; 4] = ["raft-core/src", "raft-tokio/src", "raft-kv/src", "raft-sim/src"];

/// Each name is said only where it belongs.
pub(crate) fn check(project: &Project) -> Result<String> {
    let mut findings = Findings::default();
    let mut count = 0;
    for folder in FOLDERS {
        for file in project.texts(folder)?.iter().filter(|file| file.is_rust()) {
            find_strays(file, &mut findings);
            count += 1;
        }
    }
    findings.into_result("Some names belong into one place:", format!("{count} files"))
}

fn find_strays(file: &TextFile, findings: &mut Findings) {
    for Confined { words, places, why } in CONFINED {
        if places.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        for (line, code) in file.code() {
            for word in words.iter().filter(|word| has_word(code, word)) {
                findings.add(format!("{}:{line}: `{word}`: {why}", file.path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        let mut findings = Findings::default();
        find_strays(&TextFile { path: path.to_owned(), text: text.to_owned() }, &mut findings);
        findings.as_slice().len()
    }

    #[test]
    fn a_name_outside_of_its_place_is_found() {
        let text = "use quinn::Connection;\nuse rustls::pki_types;\n";
        assert_eq!(findings("raft-tokio/src/transport/link.rs", text), 0);
        assert_eq!(findings("raft-tokio/src/certs.rs", text), 1);
        assert_eq!(findings("raft-tokio/src/node.rs", text), 2);
    }

    #[test]
    fn a_library_that_prints_is_found() {
        assert_eq!(findings("raft-kv/src/cli/output.rs", "println!();\n"), 0);
        assert_eq!(findings("raft-kv/src/store.rs", "println!();\nlet offspring::x = string::new();\n"), 1);
    }
}
