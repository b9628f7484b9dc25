use super::*;
use crate::fixtures::{ads, bytes, flag};
use crate::tls::{RootSource, SanKind};
use crate::{Secret, secret::SecretKind};
use policies_xds::any;
use policies_xds::core::{ApiConfigSource, ConfigSource};
use policies_xds::matcher::{StringMatcher, string_matcher::MatchPattern};
use policies_xds::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use policies_xds::tls::subject_alt_name_matcher::SanType;
use policies_xds::tls::{CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, secret};

fn socket(config: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn sds(name: &str) -> SdsSecretConfig {
    let source = config_source::ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource::default());
    let sds_config = Some(ConfigSource { config_source_specifier: Some(source), ..Default::default() });
    SdsSecretConfig { name: name.into(), sds_config }
}

fn data(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource { specifier: Some(specifier), ..Default::default() })
}

fn prefix(kind: SanType, text: &str) -> SubjectAltNameMatcher {
    let matcher =
        StringMatcher { match_pattern: Some(MatchPattern::Prefix(text.into())), ..Default::default() };
    SubjectAltNameMatcher { san_type: kind.into(), matcher: Some(matcher), ..Default::default() }
}

fn mutual() -> CommonTlsContext {
    let default = CertificateValidationContext {
        match_typed_subject_alt_names: vec![prefix(SanType::Uri, "spiffe://cluster.local/")],
        ..Default::default()
    };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(default),
        validation_context_sds_secret_config: Some(sds("ROOTCA")),
        ..Default::default()
    };
    CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![sds("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        alpn_protocols: vec!["h2".into(), "http/1.1".into()],
        ..Default::default()
    }
}

fn server(common: CommonTlsContext) -> Converted<Option<DownstreamTls>> {
    downstream(&socket(any(&DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: flag(true),
        ..Default::default()
    })))
}

fn client_path(context: CertificateValidationContext) -> String {
    let common = CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(context)),
        ..Default::default()
    };
    let message = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let field = upstream(&socket(any(&message))).unwrap_err().field;
    field.trim_start_matches("typed_config.common_tls_context.").to_owned()
}

#[test]
fn mutual_tls_as_istio_sends_it() {
    let tls = server(mutual()).unwrap().unwrap();
    assert!(tls.require_client_certificate);
    assert_eq!(tls.common.certificates, [CertificateSource::Secret("default".into())]);
    assert_eq!(tls.common.validation.roots, Some(RootSource::Secret("ROOTCA".into())));
    assert_eq!(tls.common.validation.subject_alt_names[0].kind, SanKind::Uri);
    assert_eq!(tls.common.alpn.len(), 2);
}

#[test]
fn a_server_has_a_certificate_and_verifies_what_it_requires() {
    let mut without = mutual();
    without.tls_certificate_sds_secret_configs.clear();
    assert_eq!(server(without).unwrap_err().field, "typed_config.common_tls_context");
    let blind = CommonTlsContext { validation_context_type: None, ..mutual() };
    assert_eq!(server(blind).unwrap_err().field, "typed_config.require_client_certificate");
}

#[test]
fn files_become_secrets_by_name() {
    let file = |path: &str| data(Specifier::Filename(path.into()));
    let certificate = pb::TlsCertificate {
        certificate_chain: file("/certs/chain.pem"),
        private_key: file("/certs/key.pem"),
        ..Default::default()
    };
    let roots = CertificateValidationContext { trusted_ca: file("/certs/ca.pem"), ..Default::default() };
    let common = CommonTlsContext {
        tls_certificates: vec![certificate],
        validation_context_type: Some(ValidationContextType::ValidationContext(roots)),
        ..Default::default()
    };
    let tls = server(common).unwrap().unwrap();
    let names: Vec<_> = tls.common.secret_names().map(|name| &**name).collect();
    assert_eq!(names, ["file-cert:/certs/chain.pem~/certs/key.pem", "file-root:/certs/ca.pem"]);
    assert!(names.iter().all(|name| crate::secret::is_in_files(name)));
}

#[test]
fn nothing_that_narrows_trust_is_passed_over() {
    let context = CertificateValidationContext::default;
    let names = vec![prefix(SanType::Dns, "a")];
    let cases = [
        (
            "validation_context",
            CertificateValidationContext { match_typed_subject_alt_names: names, ..context() },
        ),
        (
            "validation_context.allow_expired_certificate",
            CertificateValidationContext { allow_expired_certificate: true, ..context() },
        ),
        (
            "validation_context.match_typed_subject_alt_names[0].san_type",
            CertificateValidationContext {
                match_typed_subject_alt_names: vec![prefix(SanType::OtherName, "a")],
                ..context()
            },
        ),
        (
            "validation_context.verify_certificate_hash[0]",
            CertificateValidationContext { verify_certificate_hash: vec!["abc".into()], ..context() },
        ),
        (
            "validation_context.verify_certificate_spki[0]",
            CertificateValidationContext { verify_certificate_spki: vec!["abc".into()], ..context() },
        ),
        (
            "validation_context.crl",
            CertificateValidationContext { crl: data(Specifier::Filename("/crl".into())), ..context() },
        ),
    ];
    for (field, message) in cases {
        assert_eq!(client_path(message), field);
    }
    let hash = vec!["AB:".repeat(31) + "ab"];
    let message = CertificateValidationContext { verify_certificate_hash: hash, ..context() };
    assert_eq!(&*validation_context(&message).unwrap().certificate_hashes[0], "ab".repeat(32));
}

#[test]
fn versions_are_bounded_below() {
    let with = |min: TlsProtocol, max: TlsProtocol| {
        versions(&pb::TlsParameters {
            tls_minimum_protocol_version: min.into(),
            tls_maximum_protocol_version: max.into(),
            ..Default::default()
        })
    };
    assert_eq!(with(TlsProtocol::TlSv10, TlsProtocol::TlsAuto), Ok((None, None)));
    let both = (Some(TlsVersion::V1_2), Some(TlsVersion::V1_3));
    assert_eq!(with(TlsProtocol::TlSv12, TlsProtocol::TlSv13), Ok(both));
    assert!(with(TlsProtocol::TlsAuto, TlsProtocol::TlSv11).is_err());
    assert!(with(TlsProtocol::TlSv13, TlsProtocol::TlSv12).is_err());
}

#[test]
fn secrets() {
    let text = |text: &str| data(Specifier::InlineBytes(text.into()));
    let certificate = pb::TlsCertificate {
        certificate_chain: text("chain"),
        private_key: text("key"),
        ..Default::default()
    };
    let message = pb::Secret {
        name: "kubernetes://tls".into(),
        r#type: Some(secret::Type::TlsCertificate(certificate.clone())),
    };
    let converted = Secret::decode(&bytes(&message)).unwrap();
    let SecretKind::Certificate(pair) = &converted.kind else { panic!("{converted:?}") };
    assert_eq!((&*pair.chain_pem, &*pair.key_pem), ("chain", "key"));
    assert!(!format!("{converted:?}").contains("key\""), "keys are not shown");
    assert!(!crate::dump::to_json(&converted).to_string().contains("\"key\""));

    let without = pb::TlsCertificate { private_key: None, ..certificate };
    let message = pb::Secret { r#type: Some(secret::Type::TlsCertificate(without)), ..message };
    assert_eq!(Secret::decode(&bytes(&message)).unwrap_err().field, "tls_certificate.private_key");
    let roots = CertificateValidationContext { trusted_ca: text("roots"), ..Default::default() };
    let message = pb::Secret { r#type: Some(secret::Type::ValidationContext(roots)), ..message };
    assert!(matches!(Secret::decode(&bytes(&message)).unwrap().kind, SecretKind::Validation(_)));
    let message = pb::Secret { r#type: None, ..message };
    assert_eq!(Secret::decode(&bytes(&message)).unwrap_err(), Invalid::missing("type"));
}

#[test]
fn certificates_over_the_stream() {
    let gateway = SdsSecretConfig { name: "kubernetes://tls".into(), sds_config: ads() };
    assert_eq!(&*secret_name(&gateway).unwrap(), "kubernetes://tls");
    let nowhere = SdsSecretConfig { name: "x".into(), sds_config: None };
    assert_eq!(secret_name(&nowhere).unwrap_err().field, "sds_config");
    let unnamed = SdsSecretConfig { name: String::new(), sds_config: ads() };
    assert_eq!(secret_name(&unnamed).unwrap_err().field, "name");
}
