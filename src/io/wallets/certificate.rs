//! The certificate that TLS shows: the operator's, or a self-signed one that is made once and kept.
//!
//! Wallets remember a self-signed certificate and refuse another, so the pair in the data folder is never made anew
//! while it is there. Both parts are in one file: no crash leaves a half.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bitcoin::hashes::{Hash, sha256};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::CertificateFiles;

/// Name of the self-signed pair in the data folder.
const SELF_SIGNED: &str = "ssl.pem";

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate itself, then those that lead to the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Where the pair lies: the operator's files, or the data folder's, which is made if it is not there.
pub fn files(own: Option<&CertificateFiles>, data_dir: &Path) -> anyhow::Result<CertificateFiles> {
    if let Some(own) = own {
        return Ok(own.clone());
    }
    let path = data_dir.join(SELF_SIGNED);
    if !path.try_exists().with_context(|| path.display().to_string())? {
        make(&path).with_context(|| format!("cannot make a certificate as {}", path.display()))?;
    }
    Ok(CertificateFiles { certificates: path.clone(), key: path })
}

/// Reads what lies there.
pub fn read(files: &CertificateFiles) -> anyhow::Result<Pair> {
    let shown = files.certificates.display();
    let chain = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow!("{shown}: {error}"))?;
    if chain.is_empty() {
        return Err(anyhow!("{shown}: no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| anyhow!("{}: no private key in PEM: {error}", files.key.display()))?;
    Ok(Pair { chain, key })
}

impl Pair {
    /// SHA-256 of the certificate, as wallets and `openssl x509 -fingerprint -sha256` show it.
    pub fn fingerprint(&self) -> String {
        let hash = self.chain.first().map(|certificate| sha256::Hash::hash(certificate));
        let bytes = hash.iter().flat_map(|hash| hash.as_byte_array()).map(|byte| format!("{byte:02X}"));
        bytes.collect::<Vec<_>>().join(":")
    }
}

/// Makes a pair and puts it there whole.
fn make(path: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "peerdex");
    // Not the clock's today, which may be wrong; and the last year that old wallets can read.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    write_whole(path, &format!("{}{}", certificate.pem(), key.serialize_pem()))?;
    Ok(())
}

/// For the owner's eyes only; after a crash the file is whole or not there.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let new: PathBuf = path.with_extension("pem.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_self_signed_pair_is_made_once_and_only_for_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        // What a crash in the middle leaves.
        fs::write(folder.path().join("ssl.pem.new"), "half").unwrap();
        let made = files(None, folder.path()).unwrap();
        let first = read(&made).unwrap().fingerprint();
        assert_eq!(first.len(), 32 * 3 - 1);
        assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);

        assert_eq!(files(None, folder.path()).unwrap(), made);
        assert_eq!(read(&made).unwrap().fingerprint(), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_pair_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let given = CertificateFiles { certificates: path.clone(), key: path.clone() };
        assert_eq!(files(Some(&given), folder.path()).unwrap(), given);
        assert!(read(&given).unwrap_err().to_string().contains("a.pem"));
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n"] {
            fs::write(&path, text).unwrap();
            let error = read(&given).unwrap_err().to_string();
            assert!(error.contains("a.pem"), "{error}");
        }
    }
}
