//! [`RunSecret`]: what a local client must show before it is told anything.

use std::fmt;

use crate::{crypto, kubeconfig::Secret};

/// The secret of one run of the proxy.
///
/// The endpoint attaches the caller's own token to whatever passes, so an open port would lend the caller's rights to
/// every process and every web page on the machine. The kubeconfig of the run carries the secret as bearer token.
#[derive(Clone)]
pub(super) struct RunSecret(Secret);

impl RunSecret {
    /// 256 bits: beyond guessing for as long as a run can last.
    const BYTES: usize = 32;

    pub(super) fn generate() -> Self {
        Self(Secret::new(crypto::hex(
            &crypto::random::<{ Self::BYTES }>(),
        )))
    }

    /// For the kubeconfig.
    pub(super) fn shared(&self) -> Secret {
        self.0.clone()
    }

    /// Compares in a time that does not depend on how much of `candidate` is right.
    pub(super) fn is(&self, candidate: &[u8]) -> bool {
        crypto::equal(self.0.expose().as_bytes(), candidate)
    }
}

impl fmt::Debug for RunSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_its_own_of_256_bits() {
        let (one, other) = (RunSecret::generate(), RunSecret::generate());
        let text = one.0.expose();
        assert_eq!(text.len(), 64);
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(one.is(text.as_bytes()));
        assert!(!other.is(text.as_bytes()));
        assert!(!one.is(&text.as_bytes()[..63]));
        assert!(!one.is(b""));
    }

    #[test]
    fn debug_does_not_show_it() {
        let secret = RunSecret::generate();
        assert!(!format!("{secret:?}").contains(secret.0.expose()));
    }
}
