//! What a process proves itself with, and whom it trusts.

use std::fmt;
use std::path::Path;
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
    certificate: Part,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// What the secrets of this process that must survive a restart are derived from.
    key_der: Arc<PrivateKeyDer<'static>>,
}

/// One of the three parts of [`Credentials`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    kind: PartKind,
    file: Option<Box<Path>>,
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
    #[error("cannot read {part}: {source}; {}", remedy(.source.kind()))]
    Unreadable {
        /// Which part.
        part: Part,
        /// Why.
        source: std::io::Error,
    },
    /// A part is not what it should be.
    #[error("{part} is not usable: {found}; give the PEM file that was issued as {}", .part.kind)]
    Malformed {
        /// Which part.
        part: Part,
        /// What was found instead.
        found: String,
    },
    /// The private key belongs to another certificate.
    #[error(
        "{key} does not belong to {certificate}; they come in pairs: give the key that was issued with this \
         certificate, or issue both anew"
    )]
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
    #[error(
        "{certificate} ({identity}) was not issued by {authority}; if they are of two clusters, give those of one, \
         else issue the certificate anew"
    )]
    ForeignAuthority {
        /// The certificate.
        certificate: Part,
        /// Whom it names.
        identity: Identity,
        /// The authority.
        authority: Part,
    },
    /// The certificate is out of date, or not yet valid.
    #[error(
        "{certificate} ({identity}) is not valid now: {reason} by this machine's clock; issue a new one, or set the \
         clock if it is wrong"
    )]
    NotValidNow {
        /// The certificate.
        certificate: Part,
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
            let part = Part { kind, file: Some(path.into()) };
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
        let not_now = |reason| {
            let (certificate, identity) = (self.certificate.clone(), self.identity.clone());
            Err(CredentialsError::NotValidNow { certificate, identity, reason })
        };
        match self.verify(UnixTime::since_unix_epoch(now)) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                not_now(format!("it expired {} ago", Age(now.as_secs().saturating_sub(not_after.as_secs()))))
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
                not_now(format!("it becomes valid in {}", Age(not_before.as_secs().saturating_sub(now.as_secs()))))
            }
            _ => Ok(()),
        }
    }

    /// Which certificate that is, and where it came from.
    pub fn certificate(&self) -> &Part {
        &self.certificate
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
        let (certified, roots, key_der) = (Arc::new(certified), Arc::new(roots), Arc::new(key_der));
        let credentials = Self { identity, certificate: certificate.clone(), certified, roots, key_der };
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
        self.kind.fmt(f)?;
        match &self.file {
            Some(file) => write!(f, " in {}", file.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "the authority's certificate",
            Self::Certificate => "the certificate",
            Self::Key => "the private key",
        })
    }
}

/// Seconds, for people.
struct Age(u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            seconds @ 0..120 => (seconds, "seconds"),
            seconds @ 120..7_200 => (seconds / 60, "minutes"),
            seconds @ 7_200..172_800 => (seconds / 3_600, "hours"),
            seconds => (seconds / 86_400, "days"),
        };
        write!(f, "{number} {unit}")
    }
}

/// What to do about a file that cannot be read.
fn remedy(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::NotFound => "put the file there, or correct its path",
        std::io::ErrorKind::PermissionDenied => "let the user that this process runs as read it",
        _ => "correct its path, or replace the file",
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
        let other = node(&authority, 2);
        write("n2.key", &other.key_pem);
        for (ca, cert, key, said) in [
            (
                "ca.pem",
                "n1.pem",
                "absent.key",
                "cannot read the private key in absent.key: No such file or directory (os error 2); put the file \
                 there, or correct its path",
            ),
            (
                "ca.pem",
                "absent.pem",
                "n1.key",
                "cannot read the certificate in absent.pem: No such file or directory (os error 2); put the file \
                 there, or correct its path",
            ),
            (
                "empty.pem",
                "n1.pem",
                "n1.key",
                "the authority's certificate in empty.pem is not usable: it contains no PEM block 'CERTIFICATE'; give \
                 the PEM file that was issued as the authority's certificate",
            ),
            (
                "ca.pem",
                "n1.key",
                "n1.key",
                "the certificate in n1.key is not usable: it contains no PEM block 'CERTIFICATE'; give the PEM file \
                 that was issued as the certificate",
            ),
            (
                "ca.pem",
                "n1.pem",
                "n1.pem",
                "the private key in n1.pem is not usable: it contains no PEM block with a private key; give the PEM \
                 file that was issued as the private key",
            ),
            (
                "ca.pem",
                "n1.pem",
                "n2.key",
                "the private key in n2.key does not belong to the certificate in n1.pem; they come in pairs: give the \
                 key that was issued with this certificate, or issue both anew",
            ),
        ] {
            let error = load(ca, cert, key).expect_err("because a file is not what it should be").to_string();
            // Where the folder is depends on the machine.
            let error = error.replace(&format!("{}/", dir.path().display()), "");
            assert_eq!(error, said);
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
        assert_eq!(
            error,
            "the certificate (node n1 of cluster 00000000000000000000000000000001) is not valid now: it expired 3 days ago \
             by this machine's clock; issue a new one, or set the clock if it is wrong"
        );
        let early = credentials.check_validity(now - 11 * day).expect_err("because it was not issued yet").to_string();
        assert!(early.contains("it becomes valid in 24 hours by"), "{early}");
        assert!(credentials.check_validity(now - 5 * day).is_ok());
    }
}
