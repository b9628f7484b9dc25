//! Handshakes over in-memory streams: identities, rotation, refusal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base_tls::{
    CertificateAuthority, CertificateRequest, Client, ClientAuth, LeafProfile, Material, PeerCertificate,
    Roots, Rotating, Server, ServerCheck, TlsError, TlsStream,
};
use base_types::SpiffeId;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate("test root", "test", 24 * HOUR).unwrap()
}

fn workload(ca: &CertificateAuthority, account: &str) -> Material {
    let id = SpiffeId::workload("cluster.local", "default", account).unwrap();
    let profile = LeafProfile {
        spiffe_id: Some(id),
        server: true,
        client: true,
        lifetime: HOUR,
        ..LeafProfile::default()
    };
    let issued = ca.issue(&profile).unwrap();
    Material::from_pem(
        &issued.chain_pem,
        &issued.key_pem,
        Some(Roots::from_pem(ca.certificate_pem()).unwrap()),
    )
    .unwrap()
}

async fn handshake(
    server: &Server,
    client: &Client,
    name: &str,
) -> (Result<TlsStream<DuplexStream>, TlsError>, Result<TlsStream<DuplexStream>, TlsError>) {
    let (a, b) = tokio::io::duplex(16384);
    // A TLS 1.3 client learns of its refusal when it reads: make both sides exchange a byte.
    let serve = async {
        let mut stream = server.accept(a).await?;
        stream.write_all(b"s").await.map_err(TlsError::Handshake)?;
        stream.flush().await.map_err(TlsError::Handshake)?;
        Ok(stream)
    };
    let dial = async {
        let mut stream = client.connect(b, name).await?;
        stream.read_u8().await.map_err(TlsError::Handshake)?;
        Ok(stream)
    };
    tokio::join!(serve, dial)
}

#[tokio::test]
async fn both_sides_see_the_others_identity() {
    let ca = authority();
    let server =
        Server::new(&Rotating::new(workload(&ca, "server")), ClientAuth::Spiffe, &[b"istio-h2", b"h2"]);
    let check = ServerCheck::Spiffe(vec!["spiffe://cluster.local/ns/default/sa/server".into()]);
    let client = Client::new(&Rotating::new(workload(&ca, "client")), check, &[b"h2"]);
    let (s, c) = handshake(&server, &client, "outbound_.80_._.server.default.svc.cluster.local").await;
    let (s, c) = (s.unwrap(), c.unwrap());
    assert_eq!(s.peer().unwrap().spiffe_id().unwrap().service_account(), Some("client"));
    assert_eq!(c.peer().unwrap().spiffe_id().unwrap().service_account(), Some("server"));
    assert_eq!((s.alpn(), c.alpn()), (Some(&b"h2"[..]), Some(&b"h2"[..])));
    assert_eq!(s.sni(), Some("outbound_.80_._.server.default.svc.cluster.local"));
    assert_eq!(s.version(), "TLSv1.3");
}

#[tokio::test]
async fn wrong_peers_are_refused() {
    let (ca, other) = (authority(), authority());
    let server_identity = Rotating::new(workload(&ca, "server"));
    let server = Server::new(&server_identity, ClientAuth::Spiffe, &[]);
    let any = || ServerCheck::Spiffe(vec![]);
    // A client of another authority.
    let mixed = |account: &str| {
        let id = SpiffeId::workload("cluster.local", "default", account).unwrap();
        let issued = other
            .issue(&LeafProfile {
                spiffe_id: Some(id),
                client: true,
                lifetime: HOUR,
                ..LeafProfile::default()
            })
            .unwrap();
        Material::from_pem(
            &issued.chain_pem,
            &issued.key_pem,
            Some(Roots::from_pem(ca.certificate_pem()).unwrap()),
        )
        .unwrap()
    };
    let (s, _) = handshake(&server, &Client::new(&Rotating::new(mixed("client")), any(), &[]), "x").await;
    assert!(s.is_err(), "a client of an unknown authority must be refused");
    // A client with no certificate.
    let naked = Rotating::new(Material::trust(Some(Roots::from_pem(ca.certificate_pem()).unwrap())).unwrap());
    let (s, _) = handshake(&server, &Client::new(&naked, any(), &[]), "x").await;
    assert!(s.is_err(), "a client without a certificate must be refused");
    // A client whose certificate is of the authority but names no workload.
    let issued = ca
        .issue(&LeafProfile {
            common_name: Some("x".into()),
            client: true,
            lifetime: HOUR,
            ..LeafProfile::default()
        })
        .unwrap();
    let nameless = Material::from_pem(
        &issued.chain_pem,
        &issued.key_pem,
        Some(Roots::from_pem(ca.certificate_pem()).unwrap()),
    )
    .unwrap();
    let (s, _) = handshake(&server, &Client::new(&Rotating::new(nameless), any(), &[]), "x").await;
    assert!(s.is_err(), "a client without an identity must be refused");
    // A server with another identity than the client wants.
    let check = ServerCheck::Spiffe(vec!["spiffe://cluster.local/ns/default/sa/other".into()]);
    let (_, c) =
        handshake(&server, &Client::new(&Rotating::new(workload(&ca, "client")), check, &[]), "x").await;
    assert!(c.is_err(), "a server with another identity must be refused");
    // A server of an authority that the client does not trust.
    let (_, c) =
        handshake(&server, &Client::new(&Rotating::new(workload(&other, "client")), any(), &[]), "x").await;
    assert!(c.is_err(), "a server of an unknown authority must be refused");
}

#[tokio::test]
async fn rotation_changes_the_next_handshake_and_no_open_stream() {
    let (old, new) = (authority(), authority());
    let (server_identity, client_identity) = (Rotating::empty(), Rotating::empty());
    let server = Server::new(&server_identity, ClientAuth::Spiffe, &[]);
    let client = Client::new(&client_identity, ServerCheck::Spiffe(vec![]), &[]);
    let (s, c) = handshake(&server, &client, "x").await;
    assert!(s.is_err() && c.is_err(), "nothing published yet");
    server_identity.publish(workload(&old, "server"));
    client_identity.publish(workload(&old, "client"));
    let (s, c) = handshake(&server, &client, "x").await;
    let (mut s, mut c) = (s.unwrap(), c.unwrap());
    server_identity.publish(workload(&new, "server"));
    assert!(handshake(&server, &client, "x").await.1.is_err(), "the client still trusts the old root only");
    client_identity.publish(workload(&new, "client"));
    let (s2, c2) = handshake(&server, &client, "x").await;
    assert!(s2.is_ok() && c2.is_ok());
    s.write_all(b"still open").await.unwrap();
    let mut buf = [0; 10];
    c.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"still open");
}

#[tokio::test]
async fn names_are_checked_for_ordinary_servers() {
    let ca = authority();
    let roots = || Some(Roots::from_pem(ca.certificate_pem()).unwrap());
    let issued = ca
        .issue(&LeafProfile {
            dns_names: vec!["meshd.mesh-system.svc".into()],
            server: true,
            lifetime: HOUR,
            ..LeafProfile::default()
        })
        .unwrap();
    let server = Server::new(
        &Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, None).unwrap()),
        ClientAuth::None,
        &[b"h2"],
    );
    let client =
        Client::new(&Rotating::new(Material::trust(roots()).unwrap()), ServerCheck::Name, &[b"unknown"]);
    assert!(handshake(&server, &client, "other.mesh-system.svc").await.1.is_err());
    // A protocol that the server does not speak is no reason for an alert.
    let (s, c) = handshake(&server, &client, "meshd.mesh-system.svc").await;
    assert_eq!((s.unwrap().alpn(), c.unwrap().alpn()), (None, None));
}

#[test]
fn a_request_gets_only_what_the_profile_says() {
    let ca = CertificateAuthority::generate("short", "test", HOUR).unwrap();
    let asked = SpiffeId::workload("cluster.local", "kube-system", "admin").unwrap();
    let given = SpiffeId::workload("cluster.local", "default", "poor").unwrap();
    let request = CertificateRequest::generate(&asked).unwrap();
    let profile = LeafProfile {
        spiffe_id: Some(given.clone()),
        client: true,
        lifetime: 100 * HOUR,
        ..LeafProfile::default()
    };
    let pem = ca.sign_request(&request.csr_pem, &profile).unwrap();
    let material = Material::from_pem(&pem, &request.key_pem, None).unwrap();
    let leaf: &PeerCertificate = material.leaf().unwrap();
    assert_eq!(leaf.uris, [given.as_str()]);
    assert!(leaf.not_after <= SystemTime::now() + HOUR, "never beyond the authority's own end");
    assert!(
        ca.sign_request(
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            &profile
        )
        .is_err()
    );
    let restored = CertificateAuthority::from_pem(ca.certificate_pem(), ca.key_pem()).unwrap();
    assert!(restored.sign_request(&request.csr_pem, &profile).is_ok());
    assert!(
        CertificateAuthority::from_pem(ca.certificate_pem(), &request.key_pem).is_err(),
        "a foreign key must be refused"
    );
}
