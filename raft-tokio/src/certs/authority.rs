//! The cluster's own certificate authority.

use std::fmt;
use std::time::{Duration, SystemTime};

use raft_core::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Credentials, CredentialsError, Identity, Role, any_node_name};

/// Issues the certificates of one cluster.
///
/// Its key is needed to admit new nodes and clients only; no running node holds it.
pub struct Authority {
    cluster: ClusterId,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, in PEM.
    pub cert_pem: String,
    /// The private key, PKCS #8 in PEM. Keep it readable by its owner only.
    pub key_pem: String,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before this moment.
    pub not_before: SystemTime,
    /// Not after this one.
    pub not_after: SystemTime,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A client's name becomes a DNS label, and must look like one.
    #[error(
        "'{name}' cannot name a client: use 1 to {CLIENT_NAME_MAX} lower-case letters, digits and inner hyphens, such as 'ops-1'"
    )]
    ClientName {
        /// What was asked for.
        name: String,
    },
    /// The certificate is not one of a cluster's authority.
    #[error("this is not the certificate of a raft cluster's authority: {found}")]
    NotAnAuthority {
        /// What it is instead.
        found: &'static str,
    },
    /// The private key is not the one of the authority's certificate.
    #[error("the private key does not belong to the authority's certificate; they come in pairs, from one directory")]
    KeyMismatch,
    /// The private key could not be read, or a certificate not be signed.
    #[error("the certificate could not be made: {0}")]
    Signing(#[from] rcgen::Error),
}

impl Authority {
    /// Founds the authority of a new cluster, with a fresh ECDSA P-256 key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(cluster: ClusterId) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(cluster)?;
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster, cert_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority again, from what [`cert_pem`](Self::cert_pem) and
    /// [`key_pem`](Self::key_pem) gave.
    ///
    /// # Errors
    /// If one of them cannot be read, or they do not belong together.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, IssueError> {
        let not = |found| IssueError::NotAnAuthority { found };
        let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| not("no PEM certificate"))?;
        let cluster = cluster_of(&certificate).ok_or_else(|| not("it does not name a cluster"))?;
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::new(authority_params(cluster)?, key);
        let authority = Self { cluster, cert_pem: cert_pem.to_owned(), issuer };
        // Whether the key fits shows in what it signs.
        let probe = authority.issue_client("probe")?;
        match Credentials::from_pem(cert_pem, &probe.cert_pem, &probe.key_pem) {
            Ok(_) => Ok(authority),
            Err(CredentialsError::ForeignAuthority { .. }) => Err(IssueError::KeyMismatch),
            Err(_) => Err(not("nothing that it signs can be verified")),
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's certificate, in PEM: what everybody needs to know.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key, PKCS #8 in PEM: what nobody else may know.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a node's certificate, good for ten years: with it the node dials its peers, and accepts them and clients.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn issue_node(&self, node: NodeId) -> Result<Issued, IssueError> {
        self.issue_node_for(node, Validity::years(LEAF_YEARS))
    }

    /// As [`issue_node`](Self::issue_node), with a validity of the caller's choice.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn issue_node_for(&self, node: NodeId, validity: Validity) -> Result<Issued, IssueError> {
        let name = Identity { cluster: self.cluster, role: Role::Node(node) }.dns_name();
        let names = vec![name, any_node_name(self.cluster)];
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(format!("raft node {node}"), names, usages, validity)
    }

    /// Issues a client's certificate, good for ten years.
    ///
    /// # Errors
    /// If the name cannot be part of a DNS name.
    pub fn issue_client(&self, name: &str) -> Result<Issued, IssueError> {
        self.issue_client_for(name, Validity::years(LEAF_YEARS))
    }

    /// As [`issue_client`](Self::issue_client), with a validity of the caller's choice.
    ///
    /// # Errors
    /// If the name cannot be part of a DNS name.
    pub fn issue_client_for(&self, name: &str, validity: Validity) -> Result<Issued, IssueError> {
        if !is_client_name(name) {
            return Err(IssueError::ClientName { name: name.to_owned() });
        }
        let names = vec![Identity { cluster: self.cluster, role: Role::Client(name.to_owned()) }.dns_name()];
        self.issue(format!("raft client {name}"), names, vec![ExtendedKeyUsagePurpose::ClientAuth], validity)
    }

    fn issue(
        &self,
        common_name: String,
        names: Vec<String>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = distinguished_name(common_name);
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

impl Validity {
    /// From yesterday (clocks differ) for so many years.
    pub fn years(years: u32) -> Self {
        let now = SystemTime::now();
        // 1970 is a safe answer where the clock stands before its second day.
        let not_before = now.checked_sub(CLOCK_SKEW).unwrap_or(SystemTime::UNIX_EPOCH);
        let not_after = now.checked_add(YEAR * years).unwrap_or(now);
        Self { not_before, not_after }
    }
}

/// Without the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Without the key.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Depends on nothing but the cluster, so that a loaded authority signs under the very name that
/// its certificate bears.
fn authority_params(cluster: ClusterId) -> Result<CertificateParams, IssueError> {
    let validity = Validity::years(AUTHORITY_YEARS);
    let mut params = CertificateParams::new(vec![format!("ca.{cluster}.{AUTHORITY_SUFFIX}")])?;
    params.distinguished_name = distinguished_name(format!("raft cluster {cluster}"));
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    // Signs certificates of nodes and clients and nothing else: no authority below it, no use as one of them.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn distinguished_name(common_name: String) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn cluster_of(certificate: &CertificateDer<'_>) -> Option<ClusterId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().find_map(|name| {
        let label = name.strip_prefix("ca.")?.strip_suffix(AUTHORITY_SUFFIX)?.strip_suffix('.')?;
        super::cluster_from_label(label)
    })
}

fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

const AUTHORITY_SUFFIX: &str = "raft-authority";
/// A DNS label has at most 63 bytes; a common name 64.
const CLIENT_NAME_MAX: usize = 40;
const AUTHORITY_YEARS: u32 = 20;
const LEAF_YEARS: u32 = 10;
const YEAR: Duration = Duration::from_secs(31_556_952);
/// A node whose clock is late must still find the certificate valid.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_authority_goes_on_issuing() {
        let founded = Authority::new(ClusterId::new(7)).expect("because the system has randomness");
        let loaded = Authority::load(founded.cert_pem(), &founded.key_pem()).expect("because it was just written");
        assert_eq!(loaded.cluster(), ClusterId::new(7));
        let node = NodeId::new(3).expect("because 3 is not 0");
        let issued = loaded.issue_node(node).expect("because the authority is whole");
        let credentials = Credentials::from_pem(founded.cert_pem(), &issued.cert_pem, &issued.key_pem)
            .expect("because the founded authority and the loaded one are the same");
        assert_eq!(credentials.identity().role, Role::Node(node));
    }

    #[test]
    fn a_foreign_key_does_not_pass_for_the_authority() {
        let cluster = ClusterId::new(7);
        let ours = Authority::new(cluster).expect("because the system has randomness");
        let theirs = Authority::new(cluster).expect("because the system has randomness");
        let error = Authority::load(ours.cert_pem(), &theirs.key_pem()).expect_err("because the key is another");
        assert!(matches!(error, IssueError::KeyMismatch), "{error}");
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let ours = Authority::new(ClusterId::new(7)).expect("because the system has randomness");
        let leaf = ours.issue_client("ops").expect("because the name is plain");
        let error = Authority::load(&leaf.cert_pem, &leaf.key_pem).expect_err("because it is a client's");
        assert!(matches!(error, IssueError::NotAnAuthority { .. }), "{error}");
    }

    #[test]
    fn a_client_cannot_be_named_like_something_else() {
        let authority = Authority::new(ClusterId::new(7)).expect("because the system has randomness");
        for name in ["", "a.b", "-a", "a-", "A", "a b", "ä", &"x".repeat(CLIENT_NAME_MAX + 1)] {
            let error = authority.issue_client(name).expect_err("because the name is not plain");
            assert!(matches!(error, IssueError::ClientName { .. }), "{error}");
        }
    }
}
