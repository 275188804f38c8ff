//! Entry points of the fuzz targets. Not part of the API.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;

use super::{ConnectionString, SasRule, control::ControlMessage, sas::SasToken};

/// Takes `input` for a connection string.
pub fn connection_string(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(string) = ConnectionString::parse(text) {
        let _ = string.endpoint().authority();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        if let Ok(hybrid_connection) = string.hybrid_connection() {
            let credential = string.credential();
            let grant = credential.grant(&hybrid_connection, now);
            match grant.now_or_never().expect("a string names no source") {
                Ok(grant) => assert!(!grant.token().secret().is_empty()),
                // A finished token may have expired.
                Err(error) => assert!(error.is_unauthorized()),
            }
        }
    }
}

/// Takes `input` for a shared access signature: nothing that is made up may verify.
pub fn sas_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(token) = SasToken::parse(text) {
        let rule = SasRule::new("rule", "a key that no input knows").expect("a rule");
        assert!(token.verify(&rule, "demo", "hc", UNIX_EPOCH).is_err());
    }
}

/// Takes `input` for a message on a listener's control channel, from either end.
pub fn control_message(input: &[u8]) {
    let _ = ControlMessage::parse(input);
    #[cfg(feature = "relay-server")]
    super::server::fuzz_response(input);
}
