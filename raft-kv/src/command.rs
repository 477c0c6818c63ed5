//! Layer 1: what is replicated: commands, and the machine's answers to them.
//!
//! Both are postcard behind an envelope. Postcard numbers variants and fields by their order, so
//! here nothing may be reordered or removed; a variant may be added at the end, together with a
//! new version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::envelope::{self, DecodeError, Kind};
use crate::key::{Key, Revision};
use crate::session::{Nonce, Sequence, SessionId};
use crate::store::Metadata;

/// The version of the encoding of commands, and of answers.
const VERSION: u8 = 1;

/// What one log entry asks of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Open a session. The log gives it its name: the index of this command.
    Register {
        /// Drawn by the client; the same number again means the same session.
        nonce: Nonce,
    },
    /// Change the store, once, however often this command is repeated.
    Write {
        /// Whose write it is.
        session: SessionId,
        /// Which of its writes.
        sequence: Sequence,
        /// The lowest sequence number whose answer the client still waits for.
        acknowledged: Sequence,
        /// The change.
        operation: Operation,
    },
}

/// A change to the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Set a key.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// Only if the key was last changed at this revision; 0 means: only if it does not exist.
        if_revision: Option<Revision>,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: Key,
        /// Only if the key was last changed at this revision; 0 means: only if it does not exist.
        if_revision: Option<Revision>,
    },
}

impl Command {
    /// As bytes for the log.
    pub fn encode(&self) -> Bytes {
        envelope::encode(Kind::Command, VERSION, self)
    }

    /// From the bytes of a log entry.
    ///
    /// # Errors
    /// If they are no command of a known version, or its key is no [`Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        envelope::decode(Kind::Command, VERSION, bytes)
    }
}

/// What the state machine answers. Every replica gives the same answer to the same command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The session is open.
    Registered {
        /// Its name.
        session: SessionId,
    },
    /// The key has its new value.
    Put {
        /// The store's revision, which is also the key's.
        revision: Revision,
        /// What the key was before.
        previous: Option<Metadata>,
    },
    /// The key does not exist any more, or did not before.
    Deleted {
        /// The store's revision.
        revision: Revision,
        /// What the key was before; `None` if there was nothing to delete.
        previous: Option<Metadata>,
    },
    /// Nothing was done: the key was not last changed at the revision that was demanded.
    CompareFailed {
        /// The store's revision.
        revision: Revision,
        /// What the key is instead.
        current: Option<Metadata>,
    },
    /// Nothing was done *now*: there is no such session, or no more.
    SessionUnknown,
    /// Nothing was done *now*: the client has said that it waits for this answer no more.
    SequenceStale {
        /// The lowest number that is still accepted.
        floor: Sequence,
    },
    /// Nothing was done: too far ahead of the oldest write that the client waits for.
    SequenceAhead {
        /// The lowest number that is too high.
        ceiling: Sequence,
    },
    /// Nothing was done: the entry is no command that this version knows.
    Malformed(DecodeError),
}

impl Answer {
    /// As bytes for whoever proposed the command.
    pub fn encode(&self) -> Bytes {
        envelope::encode(Kind::Answer, VERSION, self)
    }

    /// From the bytes that the machine answered.
    ///
    /// # Errors
    /// If they are no answer of this version: the machine is another one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        envelope::decode(Kind::Answer, VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn put(key: &'static str) -> Command {
        Command::Write {
            session: SessionId::new(300),
            sequence: Sequence::new(7),
            acknowledged: Sequence::new(5),
            operation: Operation::Put {
                key: Key::new(key).expect("because the tests name keys that are some"),
                value: Bytes::from_static(b"world"),
                if_revision: Some(Revision::ZERO),
            },
        }
    }

    /// These bytes are in the logs of running clusters.
    #[test]
    fn the_encoding_of_commands_never_changes() {
        assert_eq!(&Command::Register { nonce: Nonce::new(0x81) }.encode()[..], [0xc0, 1, 0, 0x81, 1]);
        assert_eq!(&put("hello").encode()[..], b"\xc0\x01\x01\xac\x02\x07\x05\x00\x05hello\x05world\x01\x00");
        let delete = Command::Write {
            session: SessionId::new(1),
            sequence: Sequence::new(1),
            acknowledged: Sequence::new(1),
            operation: Operation::Delete { key: Key::new("k").expect("because it has a byte"), if_revision: None },
        };
        assert_eq!(&delete.encode()[..], b"\xc0\x01\x01\x01\x01\x01\x01\x01k\x00");
    }

    #[test]
    fn the_encoding_of_answers_never_changes() {
        let metadata = Metadata { create_revision: Revision::new(2), mod_revision: Revision::new(3), version: 2 };
        let vectors: [(Answer, &[u8]); 8] = [
            (Answer::Registered { session: SessionId::new(9) }, &[0, 9]),
            (Answer::Put { revision: Revision::new(4), previous: Some(metadata) }, &[1, 4, 1, 2, 3, 2]),
            (Answer::Deleted { revision: Revision::new(4), previous: None }, &[2, 4, 0]),
            (Answer::CompareFailed { revision: Revision::new(3), current: Some(metadata) }, &[3, 3, 1, 2, 3, 2]),
            (Answer::SessionUnknown, &[4]),
            (Answer::SequenceStale { floor: Sequence::new(5) }, &[5, 5]),
            (Answer::SequenceAhead { ceiling: Sequence::new(6) }, &[6, 6]),
            (Answer::Malformed(DecodeError::UnsupportedVersion { found: 2, newest: 1 }), &[7, 1, 2, 1]),
        ];
        for (answer, expected) in vectors {
            assert_eq!(&answer.encode()[2..], expected, "{answer:?}");
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn a_decoded_key_obeys_the_limits_of_keys() {
        let empty = b"\xc0\x01\x01\x01\x01\x01\x01\x00\x00";
        assert_eq!(Command::decode(empty), Err(DecodeError::Malformed));
        let mut long = b"\xc0\x01\x01\x01\x01\x01\x01\x81\x20".to_vec();
        long.extend([b'x'; 4097]);
        long.push(0);
        assert_eq!(Command::decode(&long), Err(DecodeError::Malformed));
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut bytes = put("k").encode().to_vec();
        bytes[1] = 2;
        assert_eq!(Command::decode(&bytes), Err(DecodeError::UnsupportedVersion { found: 2, newest: 1 }));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_mean_one_command(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // Behind the right envelope, so that the content is reached.
            let bytes = [&[0xc0, 1], &bytes[..]].concat();
            if let Ok(command) = Command::decode(&bytes) {
                // Varints may be padded, so bytes may differ; what they mean may not.
                prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
            }
        }

        #[test]
        fn every_truncation_and_extension_is_refused(cut in 0_usize..20, extra in any::<u8>()) {
            let bytes = put("hello").encode();
            prop_assert!(Command::decode(&bytes[..cut.min(bytes.len() - 1)]).is_err());
            prop_assert!(Command::decode(&[&bytes[..], &[extra]].concat()).is_err());
        }
    }
}
