//! Layer 3: the machine written down: what a snapshot holds.
//!
//! | part | encoding (postcard) |
//! |---|---|
//! | version | 1, a varint |
//! | applied | term and index of the last command applied |
//! | revision | of the store |
//! | pairs | their number, then each: key, value, create revision, mod revision, version; in order of the keys |
//! | sessions | their number, then each: id, nonce, index of its last use, floor, answers by sequence; in order of the ids |
//! | hash | the machine's digest, 32 bytes |
//!
//! Two machines that have applied the same commands write the same bytes. What is read is
//! believed only if it adds up to the hash.

use bytes::Bytes;
use raft_tokio::core::{Position, RestoreError};
use serde::{Deserialize, Serialize};

use crate::digest::StateHash;
use crate::key::Revision;
use crate::session::SessionImage;
use crate::store::KeyValue;

/// The version of the encoding; others are refused by name.
const VERSION: u16 = 1;

/// Everything that a machine consists of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) applied: Position,
    pub(crate) revision: Revision,
    pub(crate) pairs: Vec<KeyValue>,
    pub(crate) sessions: Vec<SessionImage>,
    pub(crate) hash: StateHash,
}

impl Image {
    pub(crate) fn encode(&self) -> Bytes {
        // Writing to memory cannot fail, and nothing in an image has a length that is not known.
        let bytes = postcard::to_stdvec(&(VERSION, self)).unwrap_or_else(|error| unreachable!("{error}"));
        Bytes::from(bytes)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, RestoreError> {
        let unreadable = |error: postcard::Error| RestoreError { reason: error.to_string() };
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(unreadable)?;
        if version != VERSION {
            let reason = format!("it is of version {version}, and this program knows version {VERSION} only");
            return Err(RestoreError { reason });
        }
        let (image, rest) = postcard::take_from_bytes::<Self>(rest).map_err(unreadable)?;
        if rest.is_empty() {
            Ok(image)
        } else {
            Err(RestoreError { reason: format!("{} bytes follow its end", rest.len()) })
        }
    }
}
