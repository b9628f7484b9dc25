//! What outlives a push: the configuration is built anew over it.

use super::SecretStore;
use crate::jwt::JwksStore;

/// State behind the configuration, by what it belongs to.
#[derive(Debug, Default)]
pub struct Kept {
    /// Certificates and roots, which rotate in place.
    pub(crate) secrets: SecretStore,
    /// Key sets that were fetched.
    pub(crate) jwks: JwksStore,
}

impl Kept {
    /// Forgets what the configuration no longer refers to.
    pub(crate) fn sweep(&mut self) {
        self.jwks.sweep();
    }
}
