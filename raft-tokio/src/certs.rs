//! Who may speak: the cluster's certificate authority, the certificates that it issues, and the
//! identity that a certificate proves.
//!
//! Every connection is mutually authenticated, and what a certificate allows is in its one name:
//!
//! | certificate | DNS name | may |
//! |---|---|---|
//! | node 1 | `n1.<cluster>.raft-node` | accept connections, and act as node 1 towards its peers |
//! | client `ops` | `ops.<cluster>.raft-client` | send requests to any node |
//!
//! `<cluster>` is the cluster's id, 32 hexadecimal digits. The role is part of the name, so a
//! client's certificate never passes for a peer's, nor a node's for a client's: a stolen node key
//! is no key to the data, and a request is always traceable to a client. Node certificates also
//! carry `any.<cluster>.raft-node`, by which a client can insist on "a node of my cluster" before
//! it knows which one answers.
//!
//! ```
//! use raft_tokio::certs::{Authority, Credentials, Role};
//! use raft_tokio::core::{ClusterId, NodeId};
//!
//! let cluster = ClusterId::new(0x1234);
//! let node = NodeId::new(1).expect("because 1 is not 0");
//! let authority = Authority::new(cluster)?;
//! let issued = authority.issue_node(node)?;
//! let credentials = Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)?;
//! assert_eq!(credentials.identity().role, Role::Node(node));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authority;
mod credentials;

pub use authority::{Authority, IssueError, Issued, Validity};
pub use credentials::{Credentials, CredentialsError, Part};

use std::fmt;

use raft_core::{ClusterId, NodeId};

/// What a certificate proves: a role in one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role.
    pub role: Role,
}

/// What the holder of a certificate may act as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member of the cluster.
    Node(NodeId),
    /// A client, by its name.
    Client(String),
}

impl Identity {
    /// The name that carries this identity in a certificate.
    pub fn dns_name(&self) -> String {
        let Self { cluster, role } = self;
        match role {
            Role::Node(node) => node_name(*cluster, *node),
            Role::Client(name) => format!("{name}.{cluster}.{CLIENT_SUFFIX}"),
        }
    }

    /// Reads a name back; `None` if it names no identity.
    pub fn from_dns_name(name: &str) -> Option<Self> {
        let mut labels = name.split('.');
        let (Some(first), Some(cluster), Some(suffix), None) =
            (labels.next(), labels.next(), labels.next(), labels.next())
        else {
            return None;
        };
        let role = match suffix {
            NODE_SUFFIX => Role::Node(node_from_label(first)?),
            CLIENT_SUFFIX => Role::Client(first.to_owned()),
            _ => return None,
        };
        let identity = Self { cluster: cluster_from_label(cluster)?, role };
        // One spelling only: `n01` is not `n1`, and `ABC` is not `abc`.
        (identity.dns_name() == name).then_some(identity)
    }

    /// The identity that a certificate proves; `None` if it names none, or several.
    pub(crate) fn from_certificate(certificate: &rustls::pki_types::CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut identities = parsed.valid_dns_names().filter_map(Self::from_dns_name);
        let identity = identities.next()?;
        identities.next().is_none().then_some(identity)
    }
}

/// `n1 of cluster 0000…`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {}", self.role, self.cluster)
    }
}

/// `node n1`, `client ops`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

/// The name that proves to be this very node.
pub(crate) fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("{node}.{cluster}.{NODE_SUFFIX}")
}

/// The name that proves to be some node of the cluster.
pub(crate) fn any_node_name(cluster: ClusterId) -> String {
    format!("any.{cluster}.{NODE_SUFFIX}")
}

fn node_from_label(label: &str) -> Option<NodeId> {
    NodeId::new(label.strip_prefix('n')?.parse().ok()?)
}

fn cluster_from_label(label: &str) -> Option<ClusterId> {
    u128::from_str_radix(label, 16).ok().map(ClusterId::new)
}

const NODE_SUFFIX: &str = "raft-node";
const CLIENT_SUFFIX: &str = "raft-client";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_who_and_is_read_back() {
        let cluster = ClusterId::new(0xabc);
        let node = Identity { cluster, role: Role::Node(NodeId::new(12).expect("because 12 is not 0")) };
        assert_eq!(node.dns_name(), "n12.00000000000000000000000000000abc.raft-node");
        assert_eq!(Identity::from_dns_name(&node.dns_name()), Some(node));
        let client = Identity { cluster, role: Role::Client("ops".to_owned()) };
        assert_eq!(client.dns_name(), "ops.00000000000000000000000000000abc.raft-client");
        assert_eq!(Identity::from_dns_name(&client.dns_name()), Some(client));
    }

    #[test]
    fn other_names_and_other_spellings_name_nobody() {
        for name in [
            "",
            "n1",
            "n0.00000000000000000000000000000abc.raft-node",
            "n01.00000000000000000000000000000abc.raft-node",
            "n1.abc.raft-node",
            "n1.00000000000000000000000000000ABC.raft-node",
            "any.00000000000000000000000000000abc.raft-node",
            "n1.00000000000000000000000000000abc.raft-node.example.org",
            "n1.00000000000000000000000000000abc.example",
            "n1.+0000000000000000000000000000abc.raft-node",
        ] {
            assert_eq!(Identity::from_dns_name(name), None, "{name}");
        }
    }
}
