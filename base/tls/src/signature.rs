//! Public keys of token issuers and the signatures they verify (RFC 7518, RFC 8037). Asymmetric algorithms only: there is no way to ask
//! for a shared secret, so a public key can never be taken for one.

use aws_lc_rs::signature::{self as crypto, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};

/// A signature algorithm, by its name in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 7518's and RFC 8037's")]
pub enum SignatureAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// A curve of ECDSA keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are NIST's")]
pub enum Curve {
    P256,
    P384,
    P521,
}

/// A public key that verifies signatures.
#[derive(Clone, Debug)]
pub struct PublicKey(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519([u8; 32]),
}

// === impl SignatureAlgorithm ===

impl SignatureAlgorithm {
    /// The algorithm of a token's `alg`; none for shared secrets, `none`, and what nobody has heard of.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &crypto::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &crypto::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &crypto::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &crypto::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &crypto::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &crypto::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::Es512 | Self::EdDsa => return None,
        })
    }
}

// === impl Curve ===

impl Curve {
    /// The curve of a key's `crv`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// Bytes of a coordinate.
    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// An RSA key by modulus and exponent, big-endian. Keys below 2048 bits verify nothing.
    #[must_use]
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let bare = |bytes: &[u8]| {
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            bytes[start..].to_vec()
        };
        Self(Kind::Rsa { modulus: bare(modulus), exponent: bare(exponent) })
    }

    /// An ECDSA key by the coordinates of its point; none when they have not the curve's length. A point off the curve verifies nothing.
    #[must_use]
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        let bytes = curve.coordinate_bytes();
        (x.len() == bytes && y.len() == bytes)
            .then(|| Self(Kind::Ec { curve, point: [&[0x04], x, y].concat() }))
    }

    /// An Ed25519 key; none when it has not 32 bytes.
    #[must_use]
    pub fn ed25519(x: &[u8]) -> Option<Self> {
        x.try_into().ok().map(|key| Self(Kind::Ed25519(key)))
    }

    /// Whether the key is one for this algorithm: its type, and for ECDSA its curve.
    #[must_use]
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        match &self.0 {
            Kind::Rsa { .. } => algorithm.rsa().is_some(),
            Kind::Ec { curve, .. } => matches!(
                (curve, algorithm),
                (Curve::P256, SignatureAlgorithm::Es256)
                    | (Curve::P384, SignatureAlgorithm::Es384)
                    | (Curve::P521, SignatureAlgorithm::Es512)
            ),
            Kind::Ed25519(_) => algorithm == SignatureAlgorithm::EdDsa,
        }
    }

    /// Whether `signature` over `message` was made by the key's owner with this very algorithm.
    #[must_use]
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match (&self.0, algorithm.rsa()) {
            (Kind::Rsa { modulus, exponent }, Some(parameters)) => {
                let key = RsaPublicKeyComponents { n: modulus.as_slice(), e: exponent.as_slice() };
                key.verify(parameters, message, signature).is_ok()
            }
            (Kind::Rsa { .. }, None) => false,
            (Kind::Ec { curve, point }, _) => {
                let scheme = match curve {
                    Curve::P256 => &crypto::ECDSA_P256_SHA256_FIXED,
                    Curve::P384 => &crypto::ECDSA_P384_SHA384_FIXED,
                    Curve::P521 => &crypto::ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(scheme, point).verify(message, signature).is_ok()
            }
            (Kind::Ed25519(key), _) => {
                UnparsedPublicKey::new(&crypto::ED25519, key).verify(message, signature).is_ok()
            }
        }
    }
}
