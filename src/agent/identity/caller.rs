//! Who is calling: from the request's headers to a [`Decision`].

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

use crate::agent::status::Refusal;

/// The longest `Authorization` value in bytes that is looked at. Entra tokens with 200 groups have about 10 KiB.
const MAX_CREDENTIAL: usize = 32 * 1024;
/// The sub-protocol by which browsers smuggle a bearer token into a WebSocket handshake. The API server honours it.
const WEBSOCKET_BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// What the agent does with tokens that the API server itself has to judge: those of service accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceAccountTokens {
    /// The caller's token goes to the API server untouched, over a client that owns no credential.
    PassThrough,
    /// A service account's token is refused.
    #[default]
    Refuse,
}

/// How an authenticated request goes to the API server.
#[derive(Debug)]
pub(in crate::agent) enum Decision {
    /// Under the caller's own token, which the API server judges.
    PassThrough(CallerToken),
}

/// The caller's whole `Authorization` value, byte for byte. Never printed.
#[derive(Clone)]
pub(in crate::agent) struct CallerToken(HeaderValue);

/// Turns credentials into a [`Decision`]. Anything but a clear yes is a [`Refusal`].
#[derive(Clone, Debug)]
pub(in crate::agent) struct Callers {
    service_account_tokens: ServiceAccountTokens,
}

impl Callers {
    pub(in crate::agent) fn new(service_account_tokens: ServiceAccountTokens) -> Self {
        Self {
            service_account_tokens,
        }
    }

    // Asynchronous because validating a token may need the issuer's keys.
    pub(in crate::agent) async fn decide(&self, headers: &HeaderMap) -> Result<Decision, Refusal> {
        let token = bearer_token(headers)?;
        match self.service_account_tokens {
            ServiceAccountTokens::PassThrough => Ok(Decision::PassThrough(token)),
            ServiceAccountTokens::Refuse => Err(Refusal::unauthenticated(
                "this agent does not accept service account tokens",
                "use a token of a kind that the agent's operator has turned on",
            )),
        }
    }
}

impl CallerToken {
    pub(in crate::agent) fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken(redacted)")
    }
}

fn bearer_token(headers: &HeaderMap) -> Result<CallerToken, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => {
            return Err(Refusal::unauthenticated(
                "the request carries no bearer token",
                "pass a token: `kubectl create token NAME` makes one for a service account",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Refusal::unauthenticated(
                "the request carries more than one Authorization header",
                "send exactly one",
            ));
        }
        (Some(value), None) => value,
    };
    // Two credentials in one request can mean two identities: one that is checked, one that acts.
    if has_websocket_bearer(headers) {
        return Err(Refusal::unauthenticated(
            "the request carries a second token in Sec-WebSocket-Protocol",
            "send the token in the Authorization header only",
        ));
    }
    if value.len() > MAX_CREDENTIAL {
        return Err(Refusal::unauthenticated(
            format!("the bearer token is longer than {MAX_CREDENTIAL} bytes"),
            "use a token with fewer claims",
        ));
    }
    if !is_bearer(value.as_bytes()) {
        return Err(Refusal::unauthenticated(
            "the Authorization header is not a bearer token",
            "send `Authorization: Bearer TOKEN`; other schemes and client certificates do not work through the tunnel",
        ));
    }
    let mut value = value.clone();
    value.set_sensitive(true);
    Ok(CallerToken(value))
}

/// `Bearer`, in any case, one space, then `token68` (RFC 9110 section 11.2).
fn is_bearer(value: &[u8]) -> bool {
    const SCHEME: &[u8] = b"bearer ";
    let Some((scheme, token)) = value.split_at_checked(SCHEME.len()) else {
        return false;
    };
    let unpadded = token
        .iter()
        .rposition(|&byte| byte != b'=')
        .map_or(0, |last| last + 1);
    scheme.eq_ignore_ascii_case(SCHEME)
        && unpadded > 0
        && token[..unpadded]
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

fn has_websocket_bearer(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split(',')
                .any(|protocol| {
                    protocol
                        .trim()
                        .to_ascii_lowercase()
                        .starts_with(WEBSOCKET_BEARER_PREFIX)
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value).expect("a header value"),
            );
        }
        headers
    }

    #[test]
    fn a_bearer_token_is_kept_byte_for_byte() {
        for value in [&b"Bearer a"[..], b"bEARER eyJ.e30.x-_~+/=="] {
            let token = bearer_token(&with(&[value])).expect("accepted");
            assert_eq!(token.to_header().as_bytes(), value);
            assert!(token.to_header().is_sensitive());
        }
    }

    #[test]
    fn r14_anything_but_one_bearer_token_is_401() {
        let too_long = [&b"Bearer "[..], &b"a".repeat(MAX_CREDENTIAL)].concat();
        for values in [
            &[][..],
            &[&b""[..]],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer ="],
            &[b"Bearer  a"],
            &[b"Bearer\ta"],
            &[b"Bearer a b"],
            &[b"Bearer a,b"],
            &[b"Bearer a=b"],
            &[b"Bearer \xff"],
            &[b"Basic dTpw"],
            &[b"Bearera"],
            &[b"Bearer a", b"Bearer a"],
            &[b"Bearer a", b""],
            &[&too_long],
        ] {
            let refusal = bearer_token(&with(values)).expect_err("refused");
            assert_eq!(refusal.code(), 401, "{values:?}");
        }
    }

    #[test]
    fn the_longest_credential_still_passes() {
        let longest = [&b"Bearer "[..], &b"a".repeat(MAX_CREDENTIAL - 7)].concat();
        assert!(bearer_token(&with(&[&longest])).is_ok());
    }

    #[test]
    fn a_second_token_in_the_websocket_handshake_is_401() {
        let mut headers = with(&[b"Bearer a"]);
        headers.append(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(
                "v5.channel.k8s.io, Base64url.bearer.authorization.k8s.io.dG9rZW4",
            ),
        );
        assert_eq!(bearer_token(&headers).expect_err("refused").code(), 401);
    }

    #[tokio::test]
    async fn refuse_means_refuse() {
        let authenticator = Callers::new(ServiceAccountTokens::Refuse);
        let refusal = authenticator.decide(&with(&[b"Bearer a"])).await;
        assert_eq!(refusal.expect_err("refused").code(), 401);
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = bearer_token(&with(&[b"Bearer hunter2"])).expect("accepted");
        assert!(!format!("{:?}", Decision::PassThrough(token)).contains("hunter2"));
    }
}
