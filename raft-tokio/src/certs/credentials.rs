//! What a process proves itself with, and whom it trusts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::Identity;

/// The authority's certificate, an own certificate and its private key.
///
/// If it exists, the key belongs to the certificate, the certificate was issued by the authority,
/// and it names exactly one identity. It may be out of date: see
/// [`check_validity`](Self::check_validity).
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// What the secrets of this process that must survive a restart are derived from.
    key_der: Arc<PrivateKeyDer<'static>>,
}

/// One of the three parts of [`Credentials`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    kind: PartKind,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    Authority,
    Certificate,
    Key,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file could not be read.
    #[error("cannot read {part}: {source}")]
    Unreadable {
        /// Which part.
        part: Part,
        /// Why.
        source: std::io::Error,
    },
    /// A part is not what it should be.
    #[error("{part} is not usable: {found}")]
    Malformed {
        /// Which part.
        part: Part,
        /// What was found instead.
        found: String,
    },
    /// The private key belongs to another certificate.
    #[error("{key} does not belong to {certificate}; a certificate and its key come in pairs")]
    KeyMismatch {
        /// The key.
        key: Part,
        /// The certificate.
        certificate: Part,
    },
    /// The certificate names no node and no client of a cluster, or several.
    #[error(
        "{certificate} does not name one node or one client of a raft cluster; issue it with the cluster's authority"
    )]
    NoIdentity {
        /// The certificate.
        certificate: Part,
    },
    /// The certificate was issued by somebody else.
    #[error("{certificate} ({identity}) was not issued by {authority}; are they of two clusters?")]
    ForeignAuthority {
        /// The certificate.
        certificate: Part,
        /// Whom it names.
        identity: Identity,
        /// The authority.
        authority: Part,
    },
    /// The certificate is out of date, or not yet valid.
    #[error("the certificate of {identity} is not valid now: {reason}; issue a new one, or set the clock")]
    NotValidNow {
        /// Whom it names.
        identity: Identity,
        /// Expired, or not yet valid, and since or until when.
        reason: String,
    },
}

impl Credentials {
    /// Takes the three parts as PEM text.
    ///
    /// # Errors
    /// If a part cannot be used, or they do not belong together.
    pub fn from_pem(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, CredentialsError> {
        let part = |kind| Part { kind, file: None };
        Self::assemble(
            (part(PartKind::Authority), ca_pem.as_bytes()),
            (part(PartKind::Certificate), cert_pem.as_bytes()),
            (part(PartKind::Key), key_pem.as_bytes()),
        )
    }

    /// Takes the three parts from PEM files.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), naming the file; and if a file cannot be read.
    pub fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let read = |kind, path: &Path| {
            let part = Part { kind, file: Some(path.to_owned()) };
            match std::fs::read(path) {
                Ok(pem) => Ok((part, pem)),
                Err(source) => Err(CredentialsError::Unreadable { part, source }),
            }
        };
        let (authority, ca_pem) = read(PartKind::Authority, ca)?;
        let (certificate, cert_pem) = read(PartKind::Certificate, cert)?;
        let (key, key_pem) = read(PartKind::Key, key)?;
        Self::assemble((authority, &ca_pem), (certificate, &cert_pem), (key, &key_pem))
    }

    /// Whom the certificate names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the certificate is valid at `now`. Others refuse it as soon as it is not; whoever
    /// starts a process can say so earlier, and better.
    ///
    /// # Errors
    /// [`CredentialsError::NotValidNow`].
    pub fn check_validity(&self, now: SystemTime) -> Result<(), CredentialsError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let not_now = |reason| Err(CredentialsError::NotValidNow { identity: self.identity.clone(), reason });
        match self.verify(UnixTime::since_unix_epoch(now)) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                not_now(format!("it expired {} days ago", now.as_secs().saturating_sub(not_after.as_secs()) / 86_400))
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_now(format!(
                "it becomes valid in {} seconds by this machine's clock",
                not_before.as_secs().saturating_sub(now.as_secs())
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    pub(crate) fn secret(&self) -> &[u8] {
        self.key_der.secret_der()
    }

    fn assemble(
        (authority, ca_pem): (Part, &[u8]),
        (certificate, cert_pem): (Part, &[u8]),
        (key, key_pem): (Part, &[u8]),
    ) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&authority, ca_pem)? {
            roots
                .add(root)
                .map_err(|error| CredentialsError::Malformed { part: authority.clone(), found: error.to_string() })?;
        }
        let chain = certificates(&certificate, cert_pem)?;
        let key_der = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| CredentialsError::Malformed {
            part: key.clone(),
            found: found_in_pem(&error, "private key"),
        })?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = match CertifiedKey::from_der(chain, key_der.clone_key(), &provider) {
            Ok(certified) => certified,
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CredentialsError::KeyMismatch { key, certificate });
            }
            Err(rustls::Error::InvalidCertificate(error)) => {
                return Err(CredentialsError::Malformed { part: certificate, found: error.to_string() });
            }
            Err(error) => return Err(CredentialsError::Malformed { part: key, found: error.to_string() }),
        };
        let identity = certified.end_entity_cert().ok().and_then(Identity::from_certificate);
        let Some(identity) = identity else { return Err(CredentialsError::NoIdentity { certificate }) };
        let credentials =
            Self { identity, certified: Arc::new(certified), roots: Arc::new(roots), key_der: Arc::new(key_der) };
        match credentials.verify(UnixTime::now()) {
            // Not a matter of belonging together; `check_validity` tells.
            Ok(()) | Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => Ok(credentials),
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                let identity = credentials.identity;
                Err(CredentialsError::ForeignAuthority { certificate, identity, authority })
            }
            Err(error) => Err(CredentialsError::Malformed { part: certificate, found: error.to_string() }),
        }
    }

    /// Whether the authority vouches for the certificate at `now`.
    fn verify(&self, now: UnixTime) -> Result<(), webpki::Error> {
        let [leaf, intermediates @ ..] = self.certified.cert.as_slice() else {
            return Err(webpki::Error::BadDer);
        };
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        webpki::EndEntityCert::try_from(leaf)?
            .verify_for_usage(
                algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
    }
}

/// Without the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// `the private key in n1.key`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PartKind::Authority => "the authority's certificate",
            PartKind::Certificate => "the certificate",
            PartKind::Key => "the private key",
        })?;
        match &self.file {
            Some(file) => write!(f, " in {}", file.display()),
            None => Ok(()),
        }
    }
}

fn certificates(part: &Part, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let malformed = |found| CredentialsError::Malformed { part: part.clone(), found };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| malformed(found_in_pem(&error, "certificate")))?;
    if found.is_empty() {
        return Err(malformed("it contains no PEM block 'CERTIFICATE'".to_owned()));
    }
    Ok(found)
}

fn found_in_pem(error: &rustls::pki_types::pem::Error, wanted: &str) -> String {
    match error {
        rustls::pki_types::pem::Error::NoItemsFound => format!("it contains no PEM block with a {wanted}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft_core::{ClusterId, NodeId};

    use super::super::{Authority, Issued, Validity};
    use super::*;

    fn authority(cluster: u128) -> Authority {
        Authority::new(ClusterId::new(cluster)).expect("because the system has randomness")
    }

    fn node(authority: &Authority, node: u64) -> Issued {
        let node = NodeId::new(node).expect("because no test asks for node 0");
        authority.issue_node(node).expect("because the system has randomness")
    }

    #[test]
    fn a_key_of_another_certificate_is_told_apart() {
        let authority = authority(1);
        let (first, second) = (node(&authority, 1), node(&authority, 2));
        let error = Credentials::from_pem(authority.cert_pem(), &first.cert_pem, &second.key_pem)
            .expect_err("because the key is the one of n2");
        assert!(matches!(error, CredentialsError::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn a_certificate_of_another_authority_is_told_apart() {
        let issued = node(&authority(1), 1);
        let error = Credentials::from_pem(authority(1).cert_pem(), &issued.cert_pem, &issued.key_pem)
            .expect_err("because the authorities only share their name");
        assert!(matches!(error, CredentialsError::ForeignAuthority { .. }), "{error}");
    }

    #[test]
    fn an_authority_is_nobody() {
        let authority = authority(1);
        let error = Credentials::from_pem(authority.cert_pem(), authority.cert_pem(), &authority.key_pem())
            .expect_err("because an authority acts as neither node nor client");
        assert!(matches!(error, CredentialsError::NoIdentity { .. }), "{error}");
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().expect("because the system has a temporary directory");
        let authority = authority(1);
        let issued = node(&authority, 1);
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("because the directory is ours");
        write("ca.pem", authority.cert_pem());
        write("n1.pem", &issued.cert_pem);
        write("n1.key", &issued.key_pem);
        write("empty.pem", "");
        let load = |ca: &str, cert: &str, key: &str| Credentials::from_files(&path(ca), &path(cert), &path(key));
        assert!(load("ca.pem", "n1.pem", "n1.key").is_ok());
        for (ca, cert, key, file, what) in [
            ("ca.pem", "n1.pem", "absent.key", "absent.key", "No such file"),
            ("empty.pem", "n1.pem", "n1.key", "empty.pem", "no PEM block"),
            ("ca.pem", "n1.key", "n1.key", "n1.key", "no PEM block"),
            ("ca.pem", "n1.pem", "n1.pem", "n1.pem", "no PEM block"),
        ] {
            let error = load(ca, cert, key).expect_err("because a file is not what it should be").to_string();
            assert!(error.contains(file) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn an_expired_certificate_loads_and_says_so() {
        let authority = authority(1);
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let validity = Validity { not_before: now - 10 * day, not_after: now - 3 * day };
        let id = NodeId::new(1).expect("because 1 is not 0");
        let issued = authority.issue_node_for(id, validity).expect("because the system has randomness");
        let credentials = Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)
            .expect("because it belongs together");
        let error = credentials.check_validity(now).expect_err("because it expired").to_string();
        assert!(error.contains("expired 3 days ago"), "{error}");
        assert!(credentials.check_validity(now - 5 * day).is_ok());
    }
}
