//! `host:port`, as nodes tell it each other.

use std::net::{IpAddr, Ipv6Addr};

/// Why nobody can connect to an address, whatever it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressFault {
    /// It is longer than any name with a port.
    #[error("it has {bytes} bytes; at most {BYTES_MAX} make sense")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is no colon, or nothing before it.
    #[error("it does not consist of a host, a colon and a port")]
    Incomplete,
    /// What follows the last colon is no port.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// The host is no name and no IP address.
    #[error("its host is neither a name nor an IP address; IPv6 addresses stand in brackets")]
    Host,
    /// It is the address that means all of a machine's own.
    #[error("its host means every address of whoever uses it, and so nobody else's")]
    Unspecified,
}

/// Whether others could connect to this address, as far as its form tells.
pub(super) fn check(address: &str) -> Result<(), AddressFault> {
    if address.len() > BYTES_MAX {
        return Err(AddressFault::TooLong { bytes: address.len() });
    }
    let (host, port) = address.rsplit_once(':').ok_or(AddressFault::Incomplete)?;
    if host.is_empty() {
        return Err(AddressFault::Incomplete);
    }
    // `parse` would take a sign.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse().is_ok_and(|port: u16| port != 0) {
        return Err(AddressFault::Port);
    }
    let ip = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bracketed) => Some(IpAddr::V6(bracketed.parse::<Ipv6Addr>().map_err(|_| AddressFault::Host)?)),
        None if is_name(host) => host.parse().ok(),
        None => return Err(AddressFault::Host),
    };
    if ip.is_some_and(|ip| ip.to_canonical().is_unspecified()) { Err(AddressFault::Unspecified) } else { Ok(()) }
}

/// Whether a resolver could be asked for it; IPv4 addresses look like that, too.
fn is_name(host: &str) -> bool {
    host.split('.').all(|label| !label.is_empty())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// The longest name (RFC 1035, 2.3.4), a colon, and the longest port.
const BYTES_MAX: usize = 253 + 1 + 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_a_port_are_addresses() {
        for address in ["n1.example.com:7400", "n_1-a:1", "10.0.0.1:65535", "[::1]:7400", "[2001:db8::7]:80"] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        let longest = format!("{}:65535", ["a".repeat(63).as_str(); 4].join(".").split_at(253).0);
        assert_eq!(check(&longest), Ok(()));
        assert_eq!(check(&format!("a{longest}")), Err(AddressFault::TooLong { bytes: 260 }));
    }

    #[test]
    fn what_nobody_can_connect_to_is_named() {
        let wrong = [
            ("", AddressFault::Incomplete),
            ("n1", AddressFault::Incomplete),
            (":7400", AddressFault::Incomplete),
            ("n1:", AddressFault::Port),
            ("n1:0", AddressFault::Port),
            ("n1:+80", AddressFault::Port),
            ("n1:65536", AddressFault::Port),
            ("n1:http", AddressFault::Port),
            ("::1:7400", AddressFault::Host),
            ("[n1]:7400", AddressFault::Host),
            ("[::1:7400", AddressFault::Host),
            ("n1..com:7400", AddressFault::Host),
            ("n 1:7400", AddressFault::Host),
            ("n1\n:7400", AddressFault::Host),
            ("https://n1:7400", AddressFault::Host),
            ("0.0.0.0:7400", AddressFault::Unspecified),
            ("[::]:7400", AddressFault::Unspecified),
            ("[::ffff:0.0.0.0]:7400", AddressFault::Unspecified),
        ];
        for (address, fault) in wrong {
            assert_eq!(check(address), Err(fault), "{address:?}");
        }
    }
}
