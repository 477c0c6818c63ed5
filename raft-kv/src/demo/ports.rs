//! Finds addresses for the nodes.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};

/// Ports below those that operating systems hand out by themselves (from 32768 on Linux, from
/// 49152 elsewhere): while a node is down, nobody is given its port by accident.
const FIRST: u16 = 10_240;
const LAST: u16 = 32_000;

/// A port after which `count` ports are free at this moment, so that node `n` can have port
/// `base + n`.
///
/// Another program may still take one before a node does; whoever starts the nodes must expect
/// that and ask again. `draw` spreads concurrent callers.
pub(crate) fn free_base(count: u16, draw: u64) -> io::Result<u16> {
    let span = u64::from(LAST - FIRST - count);
    let mut last_error = None;
    for attempt in 0..64 {
        // A stride that is prime to the span visits all of it before it repeats.
        let offset = draw.wrapping_add(attempt * 7919) % span;
        // The offset is below the span, which came from a u16.
        let base = FIRST + offset as u16;
        match (1..=count).map(|nth| UdpSocket::bind((Ipv4Addr::LOCALHOST, base + nth))).collect::<io::Result<Vec<_>>>()
        {
            Ok(_) => return Ok(base),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let base = free_base(3, 99).expect("because a test machine has free ports");
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, base + 2)).expect("because it was free a moment ago");
        let other = free_base(3, 99).expect("because a test machine has free ports");
        assert!(!(other + 1..=other + 3).contains(&(base + 2)));
        drop(taken);
    }
}
