//! The certificates that a configuration names: read, and compared with what it uses them for.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raft_tokio::certs::{Credentials, CredentialsError, Identity as Proven, Role};
use raft_tokio::core::NodeId;

use super::{ClusterConfig, Identity, NodeConfig};
use crate::client::{ClientConfig, CredentialFiles};

impl ClusterConfig {
    /// What a node proves itself with.
    ///
    /// # Errors
    /// If one of the files cannot be read, is not what it should be, or is not this node's.
    pub fn node_credentials(&self, node: &NodeConfig) -> Result<Credentials, IdentityError> {
        self.credentials(&node.identity, User::Node(node.id))
    }

    /// What a client of this cluster needs to know.
    ///
    /// # Errors
    /// If one of the credentials' files cannot be read, is not what it should be, or is not that
    /// of a client of this cluster.
    pub fn client(&self, timeout: Duration) -> Result<ClientConfig, IdentityError> {
        Ok(ClientConfig {
            endpoints: self.endpoints(),
            cluster: self.cluster,
            credentials: self.credentials(&self.client, User::Client)?,
            credential_files: Some(CredentialFiles {
                authority: self.authority.clone(),
                certificate: self.client.certificate.clone(),
            }),
            timeout,
        })
    }

    fn credentials(&self, files: &Identity, user: User) -> Result<Credentials, IdentityError> {
        let config = || self.path().to_owned();
        let credentials =
            Credentials::from_files(&self.authority, &files.certificate, &files.key).map_err(|error| {
                IdentityError::Unusable { config: config(), user: user.to_string(), error: error.into() }
            })?;
        let found = credentials.identity();
        if found.cluster != self.cluster || !user.is(&found.role) {
            return Err(IdentityError::Foreign {
                certificate: files.certificate.clone(),
                found: Box::new(found.clone()),
                config: config(),
                wanted: format!("{user} of cluster {}", self.cluster),
            });
        }
        credentials.check_validity(SystemTime::now()).map_err(|error| IdentityError::NotValidNow {
            certificate: files.certificate.clone(),
            error: error.into(),
        })?;
        Ok(credentials)
    }
}

/// Who uses a certificate.
#[derive(Clone, Copy)]
enum User {
    Node(NodeId),
    Client,
}

impl User {
    fn is(self, role: &Role) -> bool {
        match (self, role) {
            (Self::Node(node), Role::Node(found)) => node == *found,
            (Self::Client, Role::Client(_)) => true,
            (Self::Node(_), Role::Client(_)) | (Self::Client, Role::Node(_)) => false,
        }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Client => f.write_str("a client"),
        }
    }
}

/// Credentials that are not what the configuration uses them for.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or the files do not belong together.
    #[error(
        "{error}; {} names the files of {user}: correct it, or restore what `raft-kv init` made for this cluster",
        display(config)
    )]
    Unusable {
        /// The configuration.
        config: PathBuf,
        /// Whose credentials they are to be.
        user: String,
        /// What is wrong.
        error: Box<CredentialsError>,
    },
    /// The certificate names somebody else.
    #[error(
        "the certificate in {} names {found}, but {} uses it for {wanted}; name the one that was issued for it there",
        display(certificate),
        display(config)
    )]
    Foreign {
        /// The file with the certificate.
        certificate: PathBuf,
        /// Whom it names.
        found: Box<Proven>,
        /// The configuration.
        config: PathBuf,
        /// Whom it should name.
        wanted: String,
    },
    /// The certificate has expired, or is not valid yet.
    #[error("the certificate in {} cannot be used: {error}", display(certificate))]
    NotValidNow {
        /// The file with the certificate.
        certificate: PathBuf,
        /// Since or until when.
        error: Box<CredentialsError>,
    },
}

fn display(path: &Path) -> std::path::Display<'_> {
    path.display()
}
