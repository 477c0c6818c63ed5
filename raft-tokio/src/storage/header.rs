//! The header of a segment, laid out as `format.rs` says, and the little that all fixed layouts share.

use raft_core::StoreId;

use super::format::{SECTOR, VERSION};

const SEGMENT_MAGIC: [u8; 8] = *b"raft-log";

/// What a segment's first sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) store: StoreId,
    pub(super) number: u64,
    pub(super) sectors: u64,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Version(u32),
    Damaged,
}

impl SegmentHeader {
    const LENGTH: usize = 48;

    pub(super) fn encode(&self) -> [u8; SECTOR] {
        let mut covered = [0; Self::LENGTH - 4];
        put(
            &mut covered,
            &[
                &SEGMENT_MAGIC,
                &VERSION.to_le_bytes(),
                &self.store.as_u128().to_le_bytes(),
                &self.number.to_le_bytes(),
                &self.sectors.to_le_bytes(),
            ],
        );
        let mut sector = [0; SECTOR];
        put(&mut sector, &[&covered, &crc32c::crc32c(&covered).to_le_bytes()]);
        sector
    }

    pub(super) fn decode(sector: &[u8]) -> Result<Self, BadHeader> {
        let mut fields = Fields(sector);
        let mut parse = || {
            let magic = fields.take::<8>()?;
            let (version, store) = (fields.u32()?, StoreId::new(fields.u128()?));
            let (number, sectors, crc) = (fields.u64()?, fields.u64()?, fields.u32()?);
            Some((magic, version, Self { store, number, sectors }, crc))
        };
        let (magic, version, header, crc) = parse().ok_or(BadHeader::Damaged)?;
        let covered = sector.get(..Self::LENGTH - 4).unwrap_or_default();
        match (magic == SEGMENT_MAGIC, version == VERSION, crc == crc32c::crc32c(covered)) {
            (true, true, true) if header.sectors > 1 => Ok(header),
            // Another version may keep its checksum elsewhere: its number is believed without.
            (true, false, _) => Err(BadHeader::Version(version)),
            _ => Err(BadHeader::Damaged),
        }
    }
}

/// Writes the parts one after the other to the beginning of `target`, which is as long as all of them or longer.
pub(super) fn put(target: &mut [u8], parts: &[&[u8]]) {
    let mut rest = target;
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
}

/// Takes little-endian numbers off the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_is_these_bytes() {
        let header = SegmentHeader { store: StoreId::new(7), number: 2, sectors: 128 };
        let sector = header.encode();
        assert_eq!(SegmentHeader::decode(&sector), Ok(header));
        let hex: String = sector.iter().take(48).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "726166742d6c6f6701000000070000000000000000000000000000000200000000000000800000000000000000a2978b"
        );
    }
}
