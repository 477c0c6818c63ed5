//! The core's limits and the transport's, compared.

use raft_core::{Entry, Limits};

use crate::error::StartError;
use crate::transport;

/// Whether everything that the core may send at once gets through (contract R5): an append that
/// no frame can hold would be sent again for ever.
pub(crate) fn check(core: &Limits, command_bytes_max: usize, transport: &transport::Limits) -> Result<(), StartError> {
    // One entry goes even if it is larger than the limit of an append.
    let entry = (command_bytes_max as u64).saturating_add(Entry::OVERHEAD);
    let append = core.message_bytes_max.max(entry);
    let checks = [
        (
            "message_bytes_max",
            append.saturating_add(APPEND_HEADER_MAX),
            "rpc_bytes_max",
            transport.rpc_bytes_max as u64,
        ),
        ("inflight_messages_max", core.inflight_messages_max as u64, "bulk_queue_max", transport.bulk_queue_max as u64),
        // The last append sets out while there is room for a byte.
        (
            "inflight_bytes_max",
            core.inflight_bytes_max.saturating_add(append),
            "bulk_queue_bytes_max",
            transport.bulk_queue_bytes_max,
        ),
    ];
    match checks.into_iter().find(|(_, needed, _, carried)| needed > carried) {
        Some((core, needed, transport, carried)) => Err(StartError::Limits { core, needed, transport, carried }),
        None => Ok(()),
    }
}

/// More than an append's terms, indices and lengths take on the wire, besides its entries.
const APPEND_HEADER_MAX: u64 = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{Bytes, BytesMut};
    use raft_core::{Append, Entries, Index, Payload, Position, Round, Rpc, Term};

    use super::*;
    use crate::codec::{self, Kind};

    const COMMAND: usize = 2 << 20;

    fn refused(change: impl FnOnce(&mut Limits)) -> Option<(&'static str, u64, &'static str, u64)> {
        let mut core = Limits::DEFAULT;
        change(&mut core);
        match check(&core, COMMAND, &transport::Limits::DEFAULT) {
            Ok(()) => None,
            Err(StartError::Limits { core, needed, transport, carried }) => Some((core, needed, transport, carried)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_defaults_go_together() {
        assert_eq!(refused(|_| {}), None);
    }

    #[test]
    fn rule_r5_what_the_transport_does_not_carry_is_refused_by_name() {
        let most = 16 << 20;
        assert_eq!(refused(|core| core.message_bytes_max = most - APPEND_HEADER_MAX), None);
        assert_eq!(
            refused(|core| core.message_bytes_max = most - APPEND_HEADER_MAX + 1),
            Some(("message_bytes_max", most + 1, "rpc_bytes_max", most))
        );
        assert_eq!(refused(|core| core.inflight_messages_max = 1_024), None);
        assert_eq!(
            refused(|core| core.inflight_messages_max = 1_025),
            Some(("inflight_messages_max", 1_025, "bulk_queue_max", 1_024))
        );
        let largest = COMMAND as u64 + Entry::OVERHEAD;
        assert_eq!(refused(|core| core.inflight_bytes_max = (32 << 20) - largest), None);
        assert_eq!(
            refused(|core| core.inflight_bytes_max = (32 << 20) - largest + 1),
            Some(("inflight_bytes_max", (32 << 20) + 1, "bulk_queue_bytes_max", 32 << 20))
        );
    }

    #[test]
    fn an_append_never_takes_more_on_the_wire_than_it_was_taken_for() {
        let most = Term::new(u64::MAX);
        for length in [0, 1, 127, 128, 70_000] {
            let payload = Payload::Command(Bytes::from(vec![0xff; length]));
            let entries: Vec<Entry> = (0..3)
                .map(|nth| Entry { term: most, index: Index::new(u64::MAX - 2 + nth), payload: payload.clone() })
                .collect();
            let entries = Entries::new(entries).expect("because they are in order");
            let body_max = entries.cost() + APPEND_HEADER_MAX;
            let (prev, round) = (Position::new(Index::new(u64::MAX), most), Round::new(u64::MAX));
            let append = Append { term: most, round, prev, commit: Index::new(u64::MAX), entries };
            let mut wire = BytesMut::new();
            let encoded = codec::encode_frame(&mut wire, Kind::Rpc, &Rpc::Append(Arc::new(append)), body_max as usize);
            assert_eq!(encoded, Ok(()), "{length} bytes");
        }
    }
}
