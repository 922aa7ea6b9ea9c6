//! Protocols, certificates, patience and draining.

use crate::support::*;
use fairlead_gateway::{CertificateFiles, Certificates, ServerLimits, TlsError};
use reqwest::{Method, Version};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An authority and what it signs for localhost.
struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { issuer: rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// Writes a certificate with this serial number, and its key.
    fn write(&self, files: &CertificateFiles, serial: u64) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.serial_number = Some(serial.into());
        std::fs::write(&files.certificate, parameters.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }
}

struct Files {
    _folder: tempfile::TempDir,
    files: CertificateFiles,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    Files { _folder: folder, files }
}

async fn secure(authority: &Authority, files: &Files) -> World {
    authority.write(&files.files, 1);
    World::with(vec![unit("customer")], Setting { certificates: Some((files.files.clone(), authority.pem())), ..Setting::default() }).await
}

#[tokio::test]
async fn in_the_clear_both_versions_of_http_are_spoken() {
    let world = World::new().await;
    assert_eq!(world.get(PATH).await.version, Version::HTTP_11);
    let second = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let got = Got::of(second.get(world.url(PATH)).bearer_auth(world.token())).await;
    assert_eq!((got.status.as_u16(), got.version), (200, Version::HTTP_2));
    let id = world.records.put(json!({"name": "n"}));
    let head = Got::of(second.head(world.url(&format!("{PATH}/{id}"))).bearer_auth(world.token())).await;
    assert!(head.status == 200 && head.header("content-length").parse::<usize>().unwrap() > 0, "{head:?}");
}

#[tokio::test]
async fn over_tls_the_client_chooses_the_version() {
    let (authority, files) = (Authority::new(), files());
    let world = secure(&authority, &files).await;
    assert_eq!(world.get(PATH).await.version, Version::HTTP_2);
    let root = reqwest::Certificate::from_pem(&authority.pem()).unwrap();
    let first = reqwest::Client::builder().no_proxy().http1_only().tls_certs_only([root]).build().unwrap();
    let got = Got::of(first.get(world.url(PATH)).bearer_auth(world.token())).await;
    assert_eq!((got.status.as_u16(), got.version), (200, Version::HTTP_11));
}

/// Connects by TLS with these protocol versions, says one request, and gives the connection and the server certificate's bytes.
async fn connect(
    world: &World,
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<(tokio_rustls::client::TlsStream<TcpStream>, Vec<u8>)> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&authority.pem()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(world.server.address()).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((stream, certificate))
}

/// Sends a `GET` on a raw connection and reads the status.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), world: &World) -> String {
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", world.token());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![];
    while !head.ends_with(b"{\"items\":[]}") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_used_by_new_connections_while_old_ones_go_on() {
    let (authority, files) = (Authority::new(), files());
    let world = secure(&authority, &files).await;
    let certificates = Certificates::load(files.files.clone(), world.gateway.metrics()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = world.gateway.serve(listener, Some(&certificates), ServerLimits::default()).unwrap();
    let world = World { server, ..world };
    let (mut old, before) = connect(&world, &authority, &[&rustls::version::TLS13]).await.unwrap();
    assert!(ask(&mut old, &world).await.starts_with("HTTP/1.1 200"));

    authority.write(&files.files, 2);
    assert_eq!(certificates.reload(), Ok(true));
    assert_eq!(certificates.reload(), Ok(false), "the same content is no other pair");
    let (_, after) = connect(&world, &authority, &[&rustls::version::TLS12]).await.unwrap();
    assert_ne!(before, after);
    assert!(ask(&mut old, &world).await.starts_with("HTTP/1.1 200"), "the old connection goes on");

    let mut status = certificates.status();
    std::fs::write(&files.files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Mismatch { .. })));
    std::fs::write(&files.files.certificate, "nonsense").unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::NotPem { .. })));
    std::fs::remove_file(&files.files.key).unwrap();
    let failure = certificates.reload().unwrap_err();
    assert!(failure.to_string().contains("tls.key cannot be read"), "{failure}");
    assert_eq!(status.borrow_and_update().failure.as_ref(), Some(&failure));
    let (_, still) = connect(&world, &authority, &[&rustls::version::TLS13]).await.unwrap();
    assert_eq!(still, after, "the last good pair stays");

    authority.write(&files.files, 3);
    assert_eq!(certificates.reload(), Ok(true));
    let status = status.borrow_and_update().clone();
    assert_eq!((status.generation, status.failure), (3, None));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for_for_ever() {
    let limits = ServerLimits { head: Duration::from_millis(100), ..ServerLimits::default() };
    let world = World::with(vec![unit("customer")], Setting { limits, ..Setting::default() }).await;
    let mut slow = TcpStream::connect(world.server.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: lo").await.unwrap();
    let mut answer = vec![];
    // Resolves when the server closes.
    let _ = slow.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = ServerLimits { idle: Duration::from_millis(100), ..ServerLimits::default() };
    let world = World::with(vec![unit("customer")], Setting { limits, ..Setting::default() }).await;
    let mut silent = TcpStream::connect(world.server.address()).await.unwrap();
    let mut answer = vec![];
    let _ = silent.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_as_late() {
    let options = fairlead_gateway::Options { body_timeout: Duration::from_millis(100), ..fairlead_gateway::Options::new([7; 32]) };
    let world = World::with(vec![unit("customer")], Setting { options, ..Setting::default() }).await;
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<std::io::Result<Vec<u8>>>());
    let got = Got::of(world.request(Method::POST, PATH).header("content-type", "application/json").body(never)).await;
    assert_eq!(got.problem(), is(408, "request-timeout"));
}

#[tokio::test]
async fn a_head_with_too_much_in_it_is_refused() {
    let world = World::new().await;
    let mut many = world.request(Method::GET, PATH);
    for index in 0..100 {
        many = many.header(format!("x-{index}"), "v");
    }
    assert_eq!(Got::of(many).await.status, 431);
    let got = world.get(&format!("{PATH}?status={}", "x".repeat(9000))).await;
    assert_eq!(got.problem(), is(414, "uri-too-long"));
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_served_at_once() {
    let limits = ServerLimits { connections: 1, ..ServerLimits::default() };
    let world = World::with(vec![unit("customer")], Setting { limits, ..Setting::default() }).await;
    let mut first = TcpStream::connect(world.server.address()).await.unwrap();
    assert!(ask(&mut first, &world).await.starts_with("HTTP/1.1 200"));
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", world.token());
    let mut second = TcpStream::connect(world.server.address()).await.unwrap();
    second.write_all(request.as_bytes()).await.unwrap();
    // The first is served again and again, the second is not.
    for _ in 0..3 {
        ask(&mut first, &world).await;
    }
    assert_eq!(world.records.calls.lock().unwrap().len(), 4);
    drop(first);
    let mut status = [0; 12];
    second.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn draining_answers_what_was_asked_and_takes_no_more() {
    let world = World::new().await;
    world.records.gate.forget_permits(usize::MAX);
    let address = world.server.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut asked = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", world.token());
    asked.write_all(request.as_bytes()).await.unwrap();
    let second = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let multiplexed = tokio::spawn(Got::of(second.get(world.url(PATH)).bearer_auth(world.token())));
    world.records.begun(2).await;
    let drained = tokio::spawn(world.server.drain(Duration::from_secs(60)));
    // The idle connection is closed at once, and by then nobody listens any more.
    let mut rest = vec![];
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    world.records.gate.add_permits(2);
    let mut answer = String::new();
    asked.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(multiplexed.await.unwrap().status, 200);
    assert_eq!(drained.await.unwrap().cut, 0);
}

#[tokio::test]
async fn draining_ends_when_its_time_is_over() {
    let world = World::new().await;
    world.records.gate.forget_permits(usize::MAX);
    let pending = tokio::spawn(Got::try_of(world.request(Method::GET, PATH)));
    world.records.begun(1).await;
    assert_eq!(world.server.drain(Duration::from_millis(50)).await.cut, 1);
    assert!(pending.await.unwrap().is_err());
}
