//! What certificates prove beside identities: revocation, pins, versions, suites, and the choice among several.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base_tls::{
    CertificateAuthority, Client, ClientAuth, LeafProfile, Material, PeerCertificate, Pins, Profile, Roots,
    Rotating, Server, ServerCheck, TlsError, TlsStream,
};
use rcgen::{CertificateRevocationListParams, Issuer, KeyPair, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate("test root", "test", 24 * HOUR).unwrap()
}

struct Leaf {
    chain: String,
    key: String,
    certificate: PeerCertificate,
}

fn leaf(ca: &CertificateAuthority, account: &str) -> Leaf {
    let profile = LeafProfile {
        spiffe_id: Some(format!("spiffe://cluster.local/ns/default/sa/{account}").parse().unwrap()),
        server: true,
        client: true,
        lifetime: HOUR,
        ..LeafProfile::default()
    };
    let issued = ca.issue(&profile).unwrap();
    let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
    let certificate = PeerCertificate::parse(&der).unwrap();
    Leaf { chain: issued.chain_pem.to_string(), key: issued.key_pem.to_string(), certificate }
}

impl Leaf {
    fn material(&self, roots: Roots) -> Material {
        Material::from_pem(&self.chain, &self.key, Some(roots)).unwrap()
    }
}

fn roots(ca: &CertificateAuthority) -> Roots {
    Roots::from_pem(ca.certificate_pem()).unwrap()
}

/// A list of an authority that names these, good until so long from now (or since so long).
fn crl(ca: &CertificateAuthority, revoked: &[&Leaf], good: bool) -> String {
    let key = KeyPair::from_pem(ca.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(ca.certificate_pem(), key).unwrap();
    let now = SystemTime::now();
    let serial = |leaf: &&Leaf| {
        let text = &leaf.certificate.serial;
        let padded = if text.len() % 2 == 0 { text.clone() } else { format!("0{text}") };
        let bytes: Vec<u8> = (0..padded.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&padded[at..at + 2], 16).unwrap())
            .collect();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let end = if good { now + HOUR } else { now - HOUR };
    let list = CertificateRevocationListParams {
        this_update: (now - 2 * HOUR).into(),
        next_update: end.into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(serial).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).unwrap().pem().unwrap()
}

async fn handshake(server: &Server, client: &Client) -> Result<TlsStream<DuplexStream>, TlsError> {
    let (a, b) = tokio::io::duplex(16384);
    let serve = async {
        let mut stream = server.accept(a).await?;
        stream.write_all(b"s").await.map_err(TlsError::Handshake)?;
        stream.flush().await.map_err(TlsError::Handshake)?;
        Ok(stream)
    };
    let dial = async {
        let mut stream = client.connect(b, "x").await?;
        stream.read_u8().await.map_err(TlsError::Handshake)?;
        Ok::<_, TlsError>(stream)
    };
    let (served, dialled) = tokio::join!(serve, dial);
    served.and_then(|_| dialled)
}

#[tokio::test]
async fn revoked_peers_are_refused_and_live_ones_are_told_of() {
    let ca = authority();
    let (good, bad, own) = (leaf(&ca, "good"), leaf(&ca, "bad"), leaf(&ca, "own"));
    let identity = Rotating::new(own.material(roots(&ca)));
    let server = Server::new(&identity, ClientAuth::Required, &[]);
    let any = || ServerCheck::Spiffe(vec![]);
    let of = |leaf: &Leaf| Client::new(&Rotating::new(leaf.material(roots(&ca))), any(), &[]);
    let (friend, foe) = (of(&good), of(&bad));
    assert!(handshake(&server, &friend).await.is_ok() && handshake(&server, &foe).await.is_ok());
    let mut waiting = Box::pin(server.revoked(&bad.certificate));
    let soon = Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, &mut waiting).await.is_err(), "not revoked yet");
    identity.publish(own.material(roots(&ca).with_crls(&crl(&ca, &[&bad], true)).unwrap()));
    tokio::time::timeout(Duration::from_secs(2), waiting).await.expect("a live connection is told of");
    assert!(!server.revokes(&good.certificate));
    assert!(handshake(&server, &friend).await.is_ok());
    assert!(handshake(&server, &foe).await.is_err());
    // A list that is out of date, or of another authority, proves nothing for anybody.
    identity.publish(own.material(roots(&ca).with_crls(&crl(&ca, &[], false)).unwrap()));
    assert!(handshake(&server, &friend).await.is_err());
    identity.publish(own.material(roots(&ca).with_crls(&crl(&authority(), &[], true)).unwrap()));
    assert!(handshake(&server, &friend).await.is_err());
    // The same holds for servers.
    let server = Server::new(&Rotating::new(bad.material(roots(&ca))), ClientAuth::None, &[]);
    let trust = roots(&ca).with_crls(&crl(&ca, &[&bad], true)).unwrap();
    for check in [any(), ServerCheck::ChainOnly, ServerCheck::AnyName(bad.certificate.uris.clone())] {
        let client = Client::new(&Rotating::new(Material::trust(Some(trust.clone())).unwrap()), check, &[]);
        assert!(handshake(&server, &client).await.is_err());
    }
    assert!(roots(&ca).with_crls("").is_err() && roots(&ca).with_crls(ca.certificate_pem()).is_err());
}

#[tokio::test]
async fn pinned_certificates_are_the_only_ones() {
    let ca = authority();
    let (one, two, own) = (leaf(&ca, "one"), leaf(&ca, "two"), leaf(&ca, "own"));
    let hash = vec![one.certificate.sha256_hex()];
    let none: Vec<String> = Vec::new();
    let pins = Pins::new(&none, &hash).unwrap();
    let identity = Rotating::new(own.material(roots(&ca)));
    let server = Server::new(&identity, ClientAuth::Required, &[]).with(Profile::default(), pins.clone());
    let of =
        |leaf: &Leaf| Client::new(&Rotating::new(leaf.material(roots(&ca))), ServerCheck::ChainOnly, &[]);
    assert!(handshake(&server, &of(&one)).await.is_ok());
    assert!(handshake(&server, &of(&two)).await.is_err());
    let plain = Server::new(&Rotating::new(two.material(roots(&ca))), ClientAuth::None, &[]);
    for check in [ServerCheck::ChainOnly, ServerCheck::Insecure] {
        let client = Client::new(&identity, check, &[]).with(Profile::default(), pins.clone());
        assert!(handshake(&plain, &client).await.is_err(), "pins hold without a chain, too");
    }
    assert!(Pins::new(&["x"], &none).is_err() && Pins::new(&none, &["00"]).is_err(), "never taken for any");
}

#[tokio::test]
async fn versions_and_suites_are_those_that_were_asked_for() {
    let ca = authority();
    let own = leaf(&ca, "own");
    let identity = Rotating::new(own.material(roots(&ca)));
    let none: [&str; 0] = [];
    let profile = |v13, v12| Profile::new(v13, v12, &none, &none).unwrap();
    let server = |profile| Server::new(&identity, ClientAuth::None, &[]).with(profile, Pins::default());
    let client = |profile| Client::new(&identity, ServerCheck::ChainOnly, &[]).with(profile, Pins::default());
    assert!(handshake(&server(profile(true, false)), &client(profile(false, true))).await.is_err());
    assert!(handshake(&server(profile(false, true)), &client(profile(true, false))).await.is_err());
    assert!(handshake(&server(profile(false, true)), &client(profile(false, false))).await.is_ok());
    let suites = |names: &[&str]| Profile::new(false, true, names, &none).unwrap();
    let aes = ["ECDHE-ECDSA-AES128-GCM-SHA256"];
    let chacha = ["ECDHE-ECDSA-CHACHA20-POLY1305"];
    assert!(handshake(&server(suites(&aes)), &client(suites(&aes))).await.is_ok());
    assert!(handshake(&server(suites(&aes)), &client(suites(&chacha))).await.is_err());
    assert!(Profile::new(false, true, &["AES128-SHA"], &none).is_err(), "nothing left to speak");
    assert!(Profile::new(false, false, &none, &["secp256k1"]).is_err());
    assert!(Profile::new(true, true, &none, &none).is_err());
}
