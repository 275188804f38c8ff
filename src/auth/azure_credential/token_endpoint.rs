//! [`TokenEndpoint`]: requests for tokens (RFC 6749) in the manner of Entra ID's v2.0 endpoint.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use super::{
    CredentialKind, CredentialSettings, Grant,
    refusal::{on_the_way, refusal},
};
use crate::{
    Error, ErrorKind, Result,
    auth::{AccessToken, aad::aadsts_code, token_text::access_token},
    net::{HttpClient, HttpRequest},
};

/// How long one request may take. Three of them fit into what a caller waits for a token.
const DEADLINE: Duration = Duration::from_secs(15);
/// How often one request is sent: a busy authority is often well again within a second.
const MAX_TRIES: u32 = 3;
/// The first pause between two of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that the authority may ask for. Whoever waits gives up before a longer one ends, and is told to
/// come back later.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A token that is said to live longer than this is none of Entra ID's (24 hours is the most).
const MAX_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What an answer without `expires_in` is good for: RFC 6749 only recommends it, Entra ID always sends it.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The token endpoint of one tenant.
pub(super) struct TokenEndpoint {
    kind: CredentialKind,
    http: HttpClient,
    settings: CredentialSettings,
    base: String,
}

/// A token, and what renews it.
pub(super) struct Granted {
    pub(super) token: AccessToken,
    pub(super) refresh_token: Option<SecretString>,
}

/// What the endpoint said, whatever it was.
pub(super) enum Answer {
    Granted(Granted),
    Refused(Refused),
}

/// A refusal in the endpoint's words: `error` (RFC 6749 section 5.2) and the AADSTS code.
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) name: Option<String>,
    code: Option<String>,
}

impl TokenEndpoint {
    /// `tenant` is an id, or `organizations`.
    pub(super) fn new(kind: CredentialKind, settings: &CredentialSettings, tenant: &str) -> Self {
        Self {
            kind,
            http: HttpClient::new(settings.connector.clone()),
            settings: settings.clone(),
            base: format!("{}/{tenant}/oauth2/v2.0", settings.cloud.authority()),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("{}/token", self.base)
    }

    pub(super) fn now(&self) -> SystemTime {
        self.settings.clock.now()
    }

    /// A token for `grant`. `fields` say by which right.
    pub(super) async fn token(
        &self,
        grant: &Grant<'_>,
        fields: &[(&str, &str)],
    ) -> Result<Granted> {
        match self.ask(grant, fields).await? {
            Answer::Granted(granted) => Ok(granted),
            Answer::Refused(refused) => Err(self.refusal(grant.scope, &refused)),
        }
    }

    /// As [`token`](Self::token), for whoever wants to look at a refusal.
    pub(super) async fn ask(&self, grant: &Grant<'_>, fields: &[(&str, &str)]) -> Result<Answer> {
        let mut form = fields.to_vec();
        if let Some(confirmation) = grant.confirmation {
            form.extend([("token_type", "pop"), ("req_cnf", confirmation)]);
        }
        let asked_at = self.now();
        let (status, body) = self.post("token", &form).await?;
        if status.is_success() {
            return granted(&body, grant, asked_at).map(Answer::Granted);
        }
        Ok(Answer::Refused(Refused::parse(status, &body)))
    }

    /// A code for a person to sign in with, as the endpoint gives it.
    pub(super) async fn device_code(&self, scope: &str, fields: &[(&str, &str)]) -> Result<Value> {
        let (status, body) = self.post("devicecode", fields).await?;
        if !status.is_success() {
            return Err(self.refusal(scope, &Refused::parse(status, &body)));
        }
        serde_json::from_slice(&body).map_err(|_| malformed())
    }

    pub(super) fn refusal(&self, scope: &str, refused: &Refused) -> Error {
        refusal(
            self.kind,
            scope,
            Some(refused.status),
            refused.code.as_deref(),
            refused.name.as_deref(),
        )
    }

    /// Sends a form until there is an answer that another try would not change.
    async fn post(&self, what: &str, form: &[(&str, &str)]) -> Result<(StatusCode, bytes::Bytes)> {
        let url = format!("{}/{what}", self.base);
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let request = HttpRequest::post_form(&url, form).with_deadline(DEADLINE);
            let outcome = self.http.send(self.settings.correlated(request)).await;
            let outcome =
                outcome.map_err(|error| on_the_way(&error, self.settings.cloud.authority()));
            let asked_pause = match &outcome {
                Ok(answer) if is_passing(answer.status) => retry_after(&answer.headers),
                Err(error) if error.kind() == ErrorKind::Network => None,
                _ => return checked(outcome?),
            };
            let next = asked_pause.unwrap_or(pause);
            if tries == MAX_TRIES || next > MAX_PAUSE {
                return checked(outcome?);
            }
            tracing::debug!(tries, ?next, "the authority is asked again");
            tokio::time::sleep(next).await;
            pause *= 2;
            tries += 1;
        }
    }
}

impl Refused {
    fn parse(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Body {
            error: Option<String>,
            error_description: Option<String>,
            error_codes: Option<Vec<u32>>,
        }

        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        tracing::debug!(
            %status,
            error = ?body.error,
            description = ?body.error_description,
            "the authority refused"
        );
        let code = body
            .error_codes
            .as_deref()
            .and_then(<[u32]>::first)
            .map(|code| format!("AADSTS{code}"))
            .or_else(|| aadsts_code(body.error_description.as_deref()?));
        Self {
            status: status.as_u16(),
            // One of a list of names in the RFCs: whatever else stands there is not passed on.
            name: body.error.filter(|name| is_error_name(name)),
            code,
        }
    }
}

fn checked(answer: crate::net::HttpResponse) -> Result<(StatusCode, bytes::Bytes)> {
    if answer.status.is_redirection() {
        return Err(Error::new(
            ErrorKind::Protocol,
            "the authority answered with a redirect, which is not followed",
        )
        .with_status(answer.status.as_u16())
        .with_help(
            "check the authority's address, and that no proxy asks for a login of its own",
        ));
    }
    Ok((answer.status, answer.body))
}

/// Whether the same request may be answered otherwise in a moment.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// In whole seconds, which is how Entra ID sends it (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn is_error_name(name: &str) -> bool {
    const MAX: usize = 64;

    name.len() <= MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn granted(body: &[u8], grant: &Grant<'_>, asked_at: SystemTime) -> Result<Granted> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
        token_type: String,
        expires_in: Option<Value>,
        refresh_token: Option<String>,
    }

    // Not with the parser's own words: it could quote from the body.
    let body: Body = serde_json::from_slice(body).map_err(|_| malformed())?;
    let wanted = match grant.confirmation {
        Some(_) => "pop",
        None => "Bearer",
    };
    if !body.token_type.eq_ignore_ascii_case(wanted) {
        return Err(Error::new(
            ErrorKind::Protocol,
            format!("the authority's token is not of type {wanted}"),
        )
        .with_help("check that the authority can bind tokens to keys"));
    }
    let life = body
        .expires_in
        .as_ref()
        .and_then(seconds)
        .unwrap_or(DEFAULT_LIFE)
        .min(MAX_LIFE);
    let token = access_token(&body.access_token)?;
    Ok(Granted {
        token: AccessToken::new(token.secret(), Some(asked_at + life)),
        refresh_token: body.refresh_token.map(SecretString::from),
    })
}

/// A number, or a number in a string: both are about.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    seconds.map(Duration::from_secs)
}

pub(super) fn malformed() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the authority's answer is not what it should be",
    )
    .with_help("check the authority's address, and that no proxy answers in its place")
}
