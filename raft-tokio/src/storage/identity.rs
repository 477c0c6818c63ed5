//! The file `identity`: whose directory this is. Written once, by `format`, and never again.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `raftstor` |
//! | 8–11 | format version of the whole directory, 1 |
//! | 12–27 | the cluster's id |
//! | 28–35 | the node's id |
//! | 36–51 | the store's id |
//! | 52–55 | how many voters the first configuration has |
//! | 56– | for each of them: node id (8 bytes), store id (16 bytes) |
//! | last 4 | checksum (CRC32C) of everything before |

use std::path::Path;

use raft_core::{ClusterId, Member, Membership, NodeId, StoreId};

use super::disk::{Disk, read_whole};
use super::error::StorageError;
use super::format::VERSION;
use super::header::Fields;
use super::{Birth, Expected};

/// Its name.
pub(super) const FILE: &str = "identity";

const MAGIC: [u8; 8] = *b"raftstor";

/// Tells a data directory from an empty one and from one that is something else.
pub(super) fn recognise(dir: &Path, names: &[String]) -> Result<(), StorageError> {
    if names.iter().any(|name| name == FILE) {
        return Ok(());
    }
    match names.first() {
        None => Err(StorageError::Empty { dir: dir.to_path_buf() }),
        Some(name) => {
            let found = format!("it has no file {FILE:?}, but holds {name:?}");
            Err(StorageError::NotADataDirectory { dir: dir.to_path_buf(), found })
        }
    }
}

pub(super) fn encode(birth: &Birth) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&birth.cluster.as_u128().to_le_bytes());
    bytes.extend_from_slice(&birth.node.as_u64().to_le_bytes());
    bytes.extend_from_slice(&birth.store.as_u128().to_le_bytes());
    // A configuration has at most `Membership::VOTERS_MAX` voters.
    bytes.extend_from_slice(&(birth.membership.voters().len() as u32).to_le_bytes());
    for member in birth.membership.voters() {
        bytes.extend_from_slice(&member.node.as_u64().to_le_bytes());
        bytes.extend_from_slice(&member.store.as_u128().to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Birth> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut fields = Fields(covered);
    let (_magic, _version) = (fields.u64()?, fields.u32()?);
    let cluster = ClusterId::new(fields.u128()?);
    let node = NodeId::new(fields.u64()?)?;
    let store = StoreId::new(fields.u128()?);
    let mut voters = Vec::new();
    for _ in 0..fields.u32()? {
        voters.push(Member { node: NodeId::new(fields.u64()?)?, store: StoreId::new(fields.u128()?) });
    }
    let membership = Membership::new(voters).ok()?;
    fields.0.is_empty().then_some(Birth { cluster, node, store, membership })
}

/// Reads whose directory this is, and compares.
pub(super) fn read(disk: &dyn Disk, expected: &Expected) -> Result<Birth, StorageError> {
    let bytes = read_whole(disk, FILE)?;
    let path = disk.path(FILE);
    let mut fields = Fields(&bytes);
    if fields.take::<8>() != Some(MAGIC) {
        let found = "the file does not begin like one".to_owned();
        return Err(StorageError::Damaged { path, offset: 0, found });
    }
    match fields.u32() {
        Some(VERSION) => {}
        Some(found) => return Err(StorageError::UnknownVersion { path, found, known: VERSION }),
        None => {
            let found = format!("the file ends after {} bytes", bytes.len());
            return Err(StorageError::Damaged { path, offset: 0, found });
        }
    }
    let Some(birth) = decode(&bytes) else {
        let found = format!("the checksum of its {} bytes is wrong", bytes.len());
        return Err(StorageError::Damaged { path, offset: 0, found });
    };
    if birth.cluster == expected.cluster && birth.node == expected.node {
        return Ok(birth);
    }
    Err(StorageError::Foreign {
        dir: disk.path(""),
        expected_cluster: expected.cluster,
        expected_node: expected.node,
        found_cluster: birth.cluster,
        found_node: birth.node,
    })
}
