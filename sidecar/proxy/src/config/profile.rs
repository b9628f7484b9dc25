//! Versions, suites, groups and pinned certificates as configuration asks for them.

use base_tls::{Pins, Profile, TlsError};
use sidecar_model::tls::{TlsParameters, TlsVersion};

/// What the TLS library is told.
///
/// # Errors
/// When nothing that is asked for can be spoken.
pub(super) fn of(tls: &TlsParameters) -> Result<(Profile, Pins), TlsError> {
    let plain = tls.version_min.is_none_or(|version| version == TlsVersion::V1_2)
        && tls.version_max.is_none_or(|version| version == TlsVersion::V1_3)
        && tls.cipher_suites.is_empty()
        && tls.curves.is_empty();
    let profile = if plain {
        Profile::default()
    } else {
        Profile::new(
            tls.version_min == Some(TlsVersion::V1_3),
            tls.version_max == Some(TlsVersion::V1_2),
            &tls.cipher_suites,
            &tls.curves,
        )?
    };
    let validation = &tls.validation;
    Ok((profile, Pins::new(&validation.spki_hashes, &validation.certificate_hashes)?))
}
