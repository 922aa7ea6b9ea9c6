//! Certificates that change while connections run.
//!
//! New handshakes use the newest good pair; running connections stay as they are. A pair that cannot be used (unreadable, key and certificate not
//! of each other) leaves the last good one in use and is told. Files are looked at from time to time rather than watched: a mounted Secret changes
//! by a symbolic link, and between its two files one may be read before the change and one after; the next look mends it.

use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use fairlead_model::hash::Digest;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// Where a certificate chain and its key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A pair that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file is no PEM of the wanted kind.
    #[error("{} holds no {wanted} in PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The two do not belong together, or are of a kind that TLS cannot use.
    #[error("the certificate {} and the key {} cannot be used together: {problem}", files.certificate.display(), files.key.display())]
    Mismatch {
        /// The files.
        files: CertificateFiles,
        /// Why.
        problem: String,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Which pair is in use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateStatus {
    /// Rises with every pair that was taken into use.
    pub generation: u64,
    /// Why the files' present content is not in use, if so.
    pub failure: Option<TlsError>,
}

/// A certificate and key, reloaded from their files.
#[derive(Debug)]
pub struct Certificates {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    resolver: Arc<Current>,
    config: Arc<ServerConfig>,
    /// Digest of the content in use.
    content: Mutex<Digest>,
    status: watch::Sender<CertificateStatus>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// Loads the pair.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn load(files: CertificateFiles, metrics: Arc<Metrics>) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (content, pair) = read(&files, &provider)?;
        let resolver = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let status = watch::Sender::new(CertificateStatus { generation: 1, failure: None });
        Ok(Arc::new(Self { files, provider, resolver, config: Arc::new(config), content: Mutex::new(content), status, metrics }))
    }

    /// Looks at the files, and takes their pair into use if it is another one and good. True if so.
    ///
    /// # Errors
    /// It cannot be used; the last good one stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut present = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = read(&self.files, &self.provider);
        let (changed, failure) = match outcome {
            Ok((content, _)) if content == *present => (false, None),
            Ok((content, pair)) => {
                self.resolver.0.store(Arc::new(pair));
                *present = content;
                (true, None)
            }
            Err(failure) => (false, Some(failure)),
        };
        let told = self.status.send_if_modified(|status| {
            let modified = changed || status.failure != failure;
            status.generation = status.generation.saturating_add(u64::from(changed));
            status.failure.clone_from(&failure);
            modified
        });
        match &failure {
            Some(failure) if told => {
                self.metrics.certificate(false);
                tracing::warn!(error = %failure, "the certificate cannot be used; the last good one stays");
            }
            None if changed => {
                self.metrics.certificate(true);
                tracing::info!(certificate = %self.files.certificate.display(), "certificate reloaded");
            }
            _ => {}
        }
        failure.map_or(Ok(changed), Err)
    }

    /// Looks at the files every so often, for ever.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let this = self.clone();
            // Reading a mounted file may block.
            let _ = tokio::task::spawn_blocking(move || this.reload()).await;
        }
    }

    /// Which pair is in use.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<CertificateStatus> {
        self.status.subscribe()
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<(Digest, CertifiedKey), TlsError> {
    let bytes = |path: &PathBuf| {
        let unreadable = |problem: String| TlsError::Unreadable { path: path.clone(), problem };
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > MAX_FILE {
            return Err(unreadable(format!("it has more than {MAX_FILE} bytes")));
        }
        std::fs::read(path).map_err(|error| unreadable(error.to_string()))
    };
    let (certificate, key) = (bytes(&files.certificate)?, bytes(&files.key)?);
    let not_pem = |path: &PathBuf, wanted| TlsError::NotPem { path: path.clone(), wanted };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| not_pem(&files.certificate, "certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| not_pem(&files.key, "private key"))?;
    let pair = CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| TlsError::Mismatch { files: files.clone(), problem: error.to_string() })?;
    Ok((Digest::of_serialized(&(certificate, key)), pair))
}
