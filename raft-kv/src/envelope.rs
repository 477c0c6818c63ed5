//! Layer 0: two bytes around everything that is encoded: what it is, and in which version.
//!
//! Postcard describes nothing: bytes of another kind or version would decode into nonsense
//! without a word. What carries these bytes (the log, QUIC) has checksums and lengths of its
//! own, so neither is repeated here.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an envelope holds. The numbers are on disk and on the wire: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A replicated command, in the log.
    Command = 0xc0,
    /// The state machine's answer to a command; it lives between the machine and its server only.
    Answer = 0xc1,
    /// A client's request.
    Request = 0xc2,
    /// A server's response.
    Response = 0xc3,
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, serde::Deserialize)]
pub enum DecodeError {
    /// Too short to hold anything, or something else altogether.
    #[error("the message is not of the expected kind")]
    Foreign,
    /// Written by a newer program.
    #[error("the message has version {found}; this program reads up to version {newest}")]
    UnsupportedVersion {
        /// The version of the message.
        found: u8,
        /// The newest version that this program knows.
        newest: u8,
    },
    /// The content is no valid encoding.
    #[error("the message is malformed")]
    Malformed,
}

/// Encodes `content` behind its kind and version.
pub(crate) fn encode<T: Serialize>(kind: Kind, version: u8, content: &T) -> Bytes {
    // Types of this crate have a length for every sequence and no failing serialiser, and
    // memory grows as needed: the two ways in which postcard can refuse.
    let bytes = postcard::to_extend(content, vec![kind as u8, version])
        .expect("because our types always know their lengths and the buffer grows");
    bytes.into()
}

/// How many bytes [`encode`] would write, without writing them.
pub(crate) fn encoded_len<T: Serialize>(content: &T) -> usize {
    let content = postcard::serialize_with_flavor(content, postcard::ser_flavors::Size::default());
    2 + content.expect("because our types always know their lengths and nothing is written")
}

/// Decodes what [`encode`] wrote, if kind and version are the expected ones and nothing follows.
///
/// A length that lies cannot make it allocate much: byte strings are copied only once they are
/// known to be there, and a sequence reserves a bounded amount before it has read anything.
pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let [found_kind, found_version, content @ ..] = bytes else { return Err(DecodeError::Foreign) };
    if *found_kind != kind as u8 {
        return Err(DecodeError::Foreign);
    }
    if *found_version != version {
        return Err(DecodeError::UnsupportedVersion { found: *found_version, newest: version });
    }
    // Plain `from_bytes` would ignore trailing bytes, and two encodings of one command are one too many.
    match postcard::take_from_bytes(content) {
        Ok((decoded, [])) => Ok(decoded),
        Ok(_) | Err(_) => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_version_and_end_are_checked() {
        let bytes = encode(Kind::Command, 1, &300_u64);
        assert_eq!(&bytes[..], [0xc0, 1, 0xac, 2]);
        assert_eq!(encoded_len(&300_u64), 4);
        assert_eq!(decode::<u64>(Kind::Command, 1, &bytes), Ok(300));
        assert_eq!(decode::<u64>(Kind::Answer, 1, &bytes), Err(DecodeError::Foreign));
        assert_eq!(
            decode::<u64>(Kind::Command, 2, &bytes),
            Err(DecodeError::UnsupportedVersion { found: 1, newest: 2 })
        );
        assert_eq!(decode::<u64>(Kind::Command, 1, &bytes[..3]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(Kind::Command, 1, &[0xc0, 1, 0xac, 2, 0]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(Kind::Command, 1, &[0xc0]), Err(DecodeError::Foreign));
    }
}
