//! Signing in with a code on another device (RFC 8628), and renewing in silence from then on.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::{
    ClientId, CredentialKind, CredentialSettings, Flow, Grant,
    token_endpoint::{Answer, Granted, TokenEndpoint, malformed, seconds},
};
use crate::{
    Error, ErrorKind, Result,
    auth::{AccessToken, aad::ARC_SERVER_SCOPE},
};

/// How long to wait between two questions unless the authority says otherwise (RFC 8628 section 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// A person who has signed in should not wait for us longer than this.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// A code that is good for longer is not waited for longer.
const MAX_LIFE: Duration = Duration::from_secs(30 * 60);
/// Texts from the authority that are shown to a person.
const MAX_TEXT: usize = 1024;

/// What a person needs to sign in: go to the address with any browser, type the code.
///
/// Whoever has the code can sign in *their* account to this program; it is not printed by `Debug`.
#[derive(Clone)]
pub struct DeviceCodePrompt {
    user_code: String,
    verification_uri: String,
    expires_in: Duration,
}

impl DeviceCodePrompt {
    /// The code to type.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// The address to go to; always `https`.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// How long the code is good for.
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }
}

/// The sentence to show.
impl fmt::Display for DeviceCodePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "To sign in, open {} in a browser and enter the code {}",
            self.verification_uri, self.user_code
        )
    }
}

impl fmt::Debug for DeviceCodePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCodePrompt")
            .field("verification_uri", &self.verification_uri)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Somebody who has signed in.
struct SignedIn {
    endpoint: TokenEndpoint,
    client: String,
    /// Each use may give another.
    refresh_token: Mutex<SecretString>,
}

/// Shows a code through `prompt`, and waits until somebody has signed in with it.
pub(super) async fn sign_in(
    settings: &CredentialSettings,
    client: ClientId,
    prompt: impl FnOnce(&DeviceCodePrompt) + Send,
) -> Result<Arc<dyn Flow>> {
    let tenant = settings
        .tenant
        .map_or_else(|| "organizations".to_owned(), |tenant| tenant.to_string());
    let endpoint = TokenEndpoint::new(CredentialKind::DeviceCode, settings, &tenant);
    let client = client.to_string();
    // Consent is asked for what is wanted in the end; the refresh token is good for other scopes too.
    let scope = format!("{ARC_SERVER_SCOPE} offline_access");
    let fields = [("client_id", client.as_str()), ("scope", &scope)];
    let code = Code::parse(endpoint.device_code(ARC_SERVER_SCOPE, &fields).await?)?;
    prompt(&code.prompt);
    let life = code.prompt.expires_in;
    let granted = match tokio::time::timeout(life, code.poll(&endpoint, &client)).await {
        Ok(granted) => granted?,
        Err(_) => return Err(expired()),
    };
    let refresh_token = granted.refresh_token.ok_or_else(|| {
        Error::new(
            ErrorKind::Protocol,
            "the authority gave nothing that renews the sign-in",
        )
        .with_help("check that the application may ask for offline_access")
    })?;
    Ok(Arc::new(SignedIn {
        endpoint,
        client,
        refresh_token: Mutex::new(refresh_token),
    }))
}

#[async_trait]
impl Flow for SignedIn {
    async fn token(&self, grant: &Grant<'_>) -> Result<AccessToken> {
        let refresh_token = self.current().clone();
        let scope = format!("{} offline_access", grant.scope);
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", self.client.as_str()),
            ("scope", scope.as_str()),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        let granted = self.endpoint.token(grant, &fields).await?;
        if let Some(next) = granted.refresh_token {
            *self.current() = next;
        }
        Ok(granted.token)
    }

    fn can_bind(&self) -> bool {
        true
    }
}

impl SignedIn {
    fn current(&self) -> std::sync::MutexGuard<'_, SecretString> {
        self.refresh_token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A code that waits for somebody.
struct Code {
    device_code: SecretString,
    interval: Duration,
    prompt: DeviceCodePrompt,
}

impl Code {
    fn parse(answer: Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            device_code: String,
            user_code: String,
            verification_uri: String,
            expires_in: Value,
            interval: Option<Value>,
        }

        let answer: Answer = serde_json::from_value(answer).map_err(|_| malformed())?;
        // These are shown on a terminal: nothing that moves its cursor, and no address that is not what it seems.
        let is_plain =
            |text: &str| text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&answer.user_code)
            || !is_plain(&answer.verification_uri)
            || !answer.verification_uri.starts_with("https://")
        {
            return Err(malformed());
        }
        let life = seconds(&answer.expires_in).ok_or_else(malformed)?;
        let interval = answer.interval.as_ref().and_then(seconds);
        Ok(Self {
            device_code: answer.device_code.into(),
            interval: interval
                .unwrap_or(DEFAULT_INTERVAL)
                .clamp(Duration::from_secs(1), MAX_INTERVAL),
            prompt: DeviceCodePrompt {
                user_code: answer.user_code,
                verification_uri: answer.verification_uri,
                expires_in: life.min(MAX_LIFE),
            },
        })
    }

    /// Asks until somebody has signed in or declined.
    async fn poll(&self, endpoint: &TokenEndpoint, client: &str) -> Result<Granted> {
        let grant = Grant::bearer(ARC_SERVER_SCOPE);
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", client),
            ("device_code", self.device_code.expose_secret()),
        ];
        let mut pace = Pace(self.interval);
        loop {
            tokio::time::sleep(pace.0).await;
            let refused = match endpoint.ask(&grant, &fields).await {
                Ok(Answer::Granted(granted)) => return Ok(granted),
                Ok(Answer::Refused(refused)) => refused,
                // The person is at work meanwhile; RFC 8628 section 3.5 asks to slow down.
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = error.report(), "the authority did not answer");
                    pace.back_off();
                    continue;
                }
                Err(error) => return Err(error),
            };
            match refused.name.as_deref() {
                Some("authorization_pending") => {}
                Some("slow_down") => pace.slow_down(),
                Some("expired_token" | "code_expired") => return Err(expired()),
                Some("authorization_declined" | "access_denied") => {
                    return Err(Error::new(
                        ErrorKind::Unauthorized,
                        "the sign-in with the code was declined",
                    )
                    .with_status(refused.status)
                    .with_help("start again, and accept in the browser"));
                }
                _ if matches!(refused.status, 408 | 429 | 500..) => pace.back_off(),
                _ => return Err(endpoint.refusal(ARC_SERVER_SCOPE, &refused)),
            }
        }
    }
}

/// How long to wait before the next question.
struct Pace(Duration);

impl Pace {
    fn slow_down(&mut self) {
        self.0 = (self.0 + SLOW_DOWN).min(MAX_INTERVAL);
    }

    fn back_off(&mut self) {
        self.0 = (self.0 * 2).min(MAX_INTERVAL);
    }
}

fn expired() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "nobody signed in before the code expired",
    )
    .with_help("start again, and enter the new code in time")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(changes: Value) -> Value {
        let mut answer = json!({
            "device_code": "hush",
            "user_code": "ABCD-EFGH",
            "verification_uri": "https://microsoft.com/devicelogin",
            "expires_in": 900,
            "interval": 5,
        });
        for (name, value) in changes.as_object().unwrap() {
            answer[name] = value.clone();
        }
        answer
    }

    #[test]
    fn slow_down_adds_five_seconds_up_to_a_minute() {
        let mut pace = Pace(Duration::from_secs(5));
        pace.slow_down();
        assert_eq!(pace.0, Duration::from_secs(10));
        pace.back_off();
        assert_eq!(pace.0, Duration::from_secs(20));
        for _ in 0..20 {
            pace.slow_down();
            pace.back_off();
        }
        assert_eq!(pace.0, MAX_INTERVAL);
    }

    #[test]
    fn waits_are_bounded_whatever_the_authority_says() {
        for (interval, wanted) in [(0, 1), (5, 5), (1_000_000, 60)] {
            let code = Code::parse(answer(json!({ "interval": interval }))).unwrap();
            assert_eq!(code.interval, Duration::from_secs(wanted));
        }
        let code = Code::parse(answer(json!({ "interval": null, "expires_in": "86400" }))).unwrap();
        assert_eq!(code.interval, DEFAULT_INTERVAL);
        assert_eq!(code.prompt.expires_in(), MAX_LIFE);
    }

    #[test]
    fn what_is_shown_to_a_person_can_not_deceive_them() {
        for changes in [
            json!({ "user_code": "A\u{1b}[2J" }),
            json!({ "user_code": "A B" }),
            json!({ "verification_uri": "http://microsoft.com/devicelogin" }),
            json!({ "verification_uri": "https://microsoft.com\r\n" }),
            json!({ "verification_uri": format!("https://{}", "x".repeat(MAX_TEXT)) }),
            json!({ "expires_in": null }),
            json!({ "device_code": 7 }),
        ] {
            let error = Code::parse(answer(changes.clone())).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{changes}");
        }
        let prompt = Code::parse(answer(json!({}))).unwrap().prompt;
        assert_eq!(
            prompt.to_string(),
            "To sign in, open https://microsoft.com/devicelogin in a browser and enter the code ABCD-EFGH"
        );
        assert!(!format!("{prompt:?}").contains("ABCD"));
    }
}
