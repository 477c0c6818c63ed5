//! The state machine that the simulator replicates: named registers that remember who wrote them.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use raft_core::{Index, Position, RequestId, RestoreError, StateMachine};

use crate::digest::{mix, of_position};

/// The name of a register.
pub type Key = u16;

/// What a client asks the registers to do.
///
/// The value written is the number of the attempt that writes it. No two attempts share one, so
/// a value says which attempt it came from, and an attempt that took effect twice shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The register holds this attempt's number, and nothing else.
    Put {
        /// Which register.
        key: Key,
        /// Who writes, and what.
        attempt: RequestId,
    },
    /// The register holds what it held, and this attempt's number after it.
    Append {
        /// Which register.
        key: Key,
        /// Who writes, and what.
        attempt: RequestId,
    },
}

impl Command {
    const PUT: u8 = 1;
    const APPEND: u8 = 2;

    /// Which register it writes.
    pub fn key(self) -> Key {
        match self {
            Self::Put { key, .. } | Self::Append { key, .. } => key,
        }
    }

    /// Which attempt it belongs to.
    pub fn attempt(self) -> RequestId {
        match self {
            Self::Put { attempt, .. } | Self::Append { attempt, .. } => attempt,
        }
    }

    /// The command as bytes, with `padding` bytes of no meaning, so that byte limits bite.
    pub fn encode(self, padding: usize) -> Bytes {
        let tag = match self {
            Self::Put { .. } => Self::PUT,
            Self::Append { .. } => Self::APPEND,
        };
        let mut bytes = BytesMut::with_capacity(11 + padding);
        bytes.put_u8(tag);
        bytes.put_u16_le(self.key());
        bytes.put_u64_le(self.attempt().as_u64());
        bytes.put_bytes(tag, padding);
        bytes.freeze()
    }

    /// The command in these bytes, if they hold one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk::<2>()?;
        let (attempt, _padding) = rest.split_first_chunk::<8>()?;
        let (key, attempt) = (Key::from_le_bytes(*key), RequestId::new(u64::from_le_bytes(*attempt)));
        match *tag {
            Self::PUT => Some(Self::Put { key, attempt }),
            Self::APPEND => Some(Self::Append { key, attempt }),
            _ => None,
        }
    }
}

/// The registers.
///
/// Invariant: `fingerprint` covers every command applied and every answer given so far, so two
/// machines with equal fingerprints have the same history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    values: BTreeMap<Key, Vec<u64>>,
    applied: Index,
    fingerprint: u64,
}

impl Registers {
    /// What register `key` holds: the numbers of the attempts since its last put.
    pub fn read(&self, key: Key) -> &[u64] {
        self.values.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The newest position that has been applied or skipped.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// A digest of all that has happened to this machine.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// All registers that hold something.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &[u64])> {
        self.values.iter().map(|(key, value)| (*key, value.as_slice()))
    }

    /// The whole machine as bytes: equal machines, equal bytes.
    pub fn image(&self) -> Bytes {
        let length = self.values.values().map(|value| 6 + 8 * value.len()).sum::<usize>();
        let mut bytes = BytesMut::with_capacity(16 + length);
        bytes.put_u64_le(self.applied.as_u64());
        bytes.put_u64_le(self.fingerprint);
        for (key, value) in &self.values {
            bytes.put_u16_le(*key);
            bytes.put_u32_le(value.len() as u32);
            value.iter().for_each(|attempt| bytes.put_u64_le(*attempt));
        }
        bytes.freeze()
    }

    /// The machine that [`Registers::image`] wrote; `None` if these are not its bytes.
    pub fn of_image(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.as_ref();
        let (applied, fingerprint) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
        let mut values = BTreeMap::new();
        while !rest.is_empty() {
            let (key, length) = (rest.try_get_u16_le().ok()?, rest.try_get_u32_le().ok()?);
            let value: Option<Vec<u64>> = (0..length).map(|_| rest.try_get_u64_le().ok()).collect();
            values.insert(key, value?);
        }
        Some(Self { values, applied: Index::new(applied), fingerprint })
    }

    /// Executes a command; returns the digest of what the register held before.
    pub fn execute(&mut self, position: Position, command: Command) -> u64 {
        self.skip(position);
        let value = self.values.entry(command.key()).or_default();
        let before = value_digest(value);
        if let Command::Put { .. } = command {
            value.clear();
        }
        value.push(command.attempt().as_u64());
        self.fingerprint = mix(mix(self.fingerprint, command.attempt().as_u64()), before);
        before
    }

    /// Takes note of an entry without a command.
    pub fn skip(&mut self, position: Position) {
        self.applied = position.index;
        self.fingerprint = mix(self.fingerprint, of_position(position));
    }
}

/// The digest of a register's value.
pub(crate) fn value_digest(value: &[u64]) -> u64 {
    value.iter().fold(value.len() as u64, |hash, attempt| mix(hash, *attempt))
}

impl StateMachine for Registers {
    /// Answers with the digest of what the register held before.
    fn apply(&mut self, position: Position, command: &Bytes) -> Bytes {
        let answer = match Command::decode(command) {
            Some(command) => self.execute(position, command),
            None => {
                // Every replica answers nonsense alike.
                self.skip(position);
                0
            }
        };
        Bytes::copy_from_slice(&answer.to_le_bytes())
    }

    fn snapshot(&self) -> Bytes {
        self.image()
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError> {
        *self = Self::of_image(snapshot).ok_or_else(|| RestoreError { reason: "these are no registers".to_owned() })?;
        Ok(())
    }
}
