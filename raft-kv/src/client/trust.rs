//! When client and node do not accept each other: what exactly is wrong, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use raft_tokio::certs::Identity;
use raft_tokio::transport::{CertificateFault, DialError, Refusal};

/// Why a client and a node do not accept each other. Trying again does not change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The client does not accept the node's certificate.
    #[error("its certificate is not accepted here: {fault} ({detail})")]
    Theirs {
        /// What is wrong with it.
        fault: CertificateFault,
        /// In the words of the TLS library.
        detail: String,
    },
    /// The node does not accept the client's certificate.
    #[error("does not accept this client's certificate: {fault}")]
    Ours {
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The certificates are good, but not for this.
    #[error("refuses this client: {refusal}{}", if .detail.is_empty() { String::new() } else { format!(" ({detail})") })]
    Refused {
        /// The reason.
        refusal: Refusal,
        /// What the node said besides.
        detail: String,
    },
}

/// The TLS alert `internal_error`, which says nothing of certificates.
const INTERNAL_ERROR: u8 = 80;

impl Distrust {
    /// Takes those failures that stay until somebody changes a certificate, an address or a program.
    pub(super) fn from_dial(error: DialError) -> Result<Self, DialError> {
        match error {
            DialError::Distrusted { fault: CertificateFault::Other(INTERNAL_ERROR), .. }
            | DialError::NotTrusted { fault: CertificateFault::Other(INTERNAL_ERROR) } => Err(error),
            DialError::Distrusted { fault, detail } => Ok(Self::Theirs { fault, detail }),
            DialError::NotTrusted { fault } => Ok(Self::Ours { fault }),
            DialError::Refused {
                refusal:
                    refusal @ (Refusal::WrongRole
                    | Refusal::WrongCluster
                    | Refusal::WrongNode
                    | Refusal::NoCommonVersion
                    | Refusal::NotServed),
                detail,
            } => Ok(Self::Refused { refusal, detail }),
            passing => Err(passing),
        }
    }

    /// What to do.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Theirs { fault: CertificateFault::OtherAuthority, .. }
            | Self::Ours { fault: CertificateFault::OtherAuthority }
            | Self::Refused { refusal: Refusal::WrongCluster, .. } => {
                "use the configuration and the certificates of the cluster that runs at these addresses"
            }
            Self::Theirs { fault: CertificateFault::NotValidNow, .. } => {
                "give the node a new certificate of the cluster's authority, or set this machine's clock"
            }
            Self::Ours { fault: CertificateFault::NotValidNow } => {
                "give this client a new certificate of the cluster's authority, or set the node's clock"
            }
            Self::Theirs { fault: CertificateFault::OtherName, .. }
            | Self::Refused { refusal: Refusal::WrongNode, .. } => {
                "another node is at this address: correct the addresses in the configuration"
            }
            Self::Theirs { fault: CertificateFault::WrongUse, .. } => {
                "give the node a certificate that was issued to a node"
            }
            Self::Ours { fault: CertificateFault::WrongUse } | Self::Refused { refusal: Refusal::WrongRole, .. } => {
                "use a certificate that was issued to a client"
            }
            Self::Refused { refusal: Refusal::NoCommonVersion, .. } => "upgrade the older one of both programs",
            Self::Theirs { .. } | Self::Ours { .. } | Self::Refused { .. } => {
                "see that the addresses are those of the cluster's nodes, and the certificates of this cluster"
            }
        }
    }
}

/// Where a client's credentials were read from; for messages only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The certificate of the authority that it trusts.
    pub authority: PathBuf,
    /// Its own certificate.
    pub certificate: PathBuf,
}

/// What a client shows, and what it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presented {
    pub(super) identity: Identity,
    pub(super) files: Option<CredentialFiles>,
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, files } = self;
        match files {
            Some(CredentialFiles { authority, certificate }) => write!(
                f,
                "this client shows {} ({identity}), and accepts what {} has issued",
                certificate.display(),
                authority.display()
            ),
            None => write!(f, "this client shows the certificate of {identity}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_as_it_is_counts_as_distrust() {
        let refused = |refusal| DialError::Refused { refusal, detail: String::new() };
        for passing in [
            DialError::Broken { reason: "reset".to_owned() },
            DialError::NotTrusted { fault: CertificateFault::Other(INTERNAL_ERROR) },
            refused(Refusal::ShuttingDown),
            refused(Refusal::Overloaded),
            refused(Refusal::TooSlow),
        ] {
            assert_eq!(Distrust::from_dial(passing.clone()), Err(passing));
        }
        for lasting in [
            DialError::Distrusted { fault: CertificateFault::OtherName, detail: String::new() },
            DialError::NotTrusted { fault: CertificateFault::NotValidNow },
            refused(Refusal::WrongCluster),
            refused(Refusal::NoCommonVersion),
        ] {
            assert!(Distrust::from_dial(lasting.clone()).is_ok(), "{lasting}");
        }
    }
}
