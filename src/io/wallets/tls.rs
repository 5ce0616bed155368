//! TLS for wallets: 1.2 and 1.3, with a certificate that may change under way.
//!
//! When the files change, or on SIGHUP, they are read again; sessions that are open keep what they have. Files that
//! cannot be used change nothing, and the log says why.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tracing::{info, warn};

use super::certificate;
use crate::config::CertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What TLS connections begin with.
#[derive(Debug)]
pub struct Tls {
    files: CertificateFiles,
    /// The files as they were before they were first read.
    first: Look,
    current: RwLock<Arc<ServerConfig>>,
}

/// What tells that a file is another one: when it was written, and its length; of the certificate and of the key.
type Look = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads the certificate, or says why it cannot be used.
    pub fn open(files: CertificateFiles) -> anyhow::Result<Self> {
        let first = look(&files);
        let config = load(&files)?;
        Ok(Self { files, first, current: RwLock::new(config) })
    }

    /// Begins a connection with the certificate of now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }

    /// Follows the files for as long as it is polled.
    pub async fn follow(&self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut seen = self.first;
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = asked => {}
                () = sleep(LOOK_EVERY) => {
                    let now = look(&self.files);
                    if now == seen {
                        continue;
                    }
                    seen = now;
                }
            }
            self.reload();
        }
    }

    fn reload(&self) {
        match load(&self.files) {
            Ok(config) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = config,
            Err(error) => warn!("the new certificate cannot be used, the old one is kept: {error:#}"),
        }
    }
}

/// A moment between two files that are replaced one by one is no harm: the second is seen as well.
fn look(files: &CertificateFiles) -> Look {
    [&files.certificates, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn load(files: &CertificateFiles) -> anyhow::Result<Arc<ServerConfig>> {
    let pair = certificate::read(files)?;
    let fingerprint = pair.fingerprint();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_no_client_auth()
        .with_single_cert(pair.chain, pair.key)
        .with_context(|| {
            format!("{} does not go with {}", files.key.display(), files.certificates.display())
        })?;
    info!(certificate = %files.certificates.display(), sha256 = fingerprint, "serving TLS");
    Ok(Arc::new(config))
}
