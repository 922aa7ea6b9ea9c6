//! Certificates of a test control plane: one authority per plane, which signs the API server and every client.
//!
//! The authority's key lies in the plane's folder, so that a test in another process can make a user of its own.
//! Nothing here is meant to resist anybody.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde_json::json;

/// Where the files lie, below the plane's folder.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// The certificates below `plane`.
    pub(crate) fn at(plane: &Path) -> Self {
        Self { folder: plane.join("pki") }
    }

    /// Makes the authority, the API server's certificate for loopback and `addresses`, and the key that signs service account tokens.
    pub(crate) fn create(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("create {}", self.folder.display()))?;
        let key = new_key()?;
        let authority = authority_params()?.self_signed(&key).context("sign the authority")?;
        write(&self.authority_certificate(), &authority.pem())?;
        write(&self.authority_key(), &key.serialize_pem())?;

        self.server_at("kube-apiserver", addresses)?;

        let tokens = new_key()?;
        write(&self.public_key("service-accounts"), &tokens.public_key_pem())?;
        write(&self.key("service-accounts"), &tokens.serialize_pem())
    }

    /// Makes a certificate called `name` for a server on loopback.
    pub(crate) fn server(&self, name: &str) -> anyhow::Result<()> {
        self.server_at(name, &[])
    }

    /// Makes a certificate called `name` for a server on loopback and `addresses`.
    fn server_at(&self, name: &str, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        let names: Vec<String> = names.into_iter().chain(addresses.iter().map(Ipv4Addr::to_string)).collect();
        let mut server = CertificateParams::new(names).context("name the API server")?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(server, name)
    }

    /// Makes a client certificate for `user` in `groups` and a kubeconfig that uses it against `server`.
    pub(crate) fn kubeconfig(&self, server: &str, user: &str, groups: &[&str], to: &Path) -> anyhow::Result<()> {
        let file = self.sign_client(user, groups)?;
        // JSON is YAML, so kubectl and every client read it.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": self.authority_certificate()}}],
            "users": [{"name": user, "user": {"client-certificate": self.certificate(&file), "client-key": self.key(&file)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
            "current-context": "test",
        });
        write(to, &serde_json::to_string_pretty(&kubeconfig)?)
    }

    /// Makes a client certificate for `user` in `groups`; the name of its files.
    pub(crate) fn sign_client(&self, user: &str, groups: &[&str]) -> anyhow::Result<String> {
        let mut client = CertificateParams::default();
        client.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            client.distinguished_name.push(DnType::OrganizationName, *group);
        }
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // Users such as `system:kube-controller-manager` become file names that every tool can take.
        let file = user.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
        self.sign(client, &file)?;
        Ok(file)
    }

    /// The authority's certificate.
    pub(crate) fn authority_certificate(&self) -> PathBuf {
        self.certificate("ca")
    }

    /// The certificate called `name`.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    /// The private key called `name`.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// The public half of the key called `name`.
    pub(crate) fn public_key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pub"))
    }

    fn authority_key(&self) -> PathBuf {
        self.key("ca")
    }

    fn sign(&self, mut params: CertificateParams, name: &str) -> anyhow::Result<()> {
        let pem = fs::read_to_string(self.authority_key()).context("read the authority's key")?;
        let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(&pem).context("parse the authority's key")?);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = new_key()?;
        let certificate = params.signed_by(&key, &issuer).with_context(|| format!("sign {name}"))?;
        write(&self.certificate(name), &certificate.pem())?;
        write(&self.key(name), &key.serialize_pem())
    }
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("generate a key")
}

/// The same each time, so that the authority can sign later without its certificate being parsed.
fn authority_params() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new()).context("name the authority")?;
    params.distinguished_name.push(DnType::CommonName, "fairlead-test-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
