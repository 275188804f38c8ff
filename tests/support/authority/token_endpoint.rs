//! [`TokenEndpoint`]: sign-in in the manner of Entra ID: client credentials, codes for another device, refresh tokens,
//! tokens bound to keys; and everything that goes wrong with it.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use percent_encoding::percent_decode_str;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

use super::{Shared, TENANT, key::SigningKey, server, token::TokenBuilder, token::now};

/// A refusal as Entra ID words it: the error of RFC 6749, and the code of its own.
pub type Refusal = (u16, &'static str, u32);

/// A secret is wrong.
pub const WRONG_SECRET: Refusal = (401, "invalid_client", 7_000_215);
/// A secret has expired.
pub const EXPIRED_SECRET: Refusal = (401, "invalid_client", 7_000_222);
/// An application is unknown.
pub const UNKNOWN_APPLICATION: Refusal = (400, "unauthorized_client", 700_016);
/// A tenant is unknown.
pub const UNKNOWN_TENANT: Refusal = (400, "invalid_request", 90_002);
/// A federated or signed assertion does not match.
pub const WRONG_ASSERTION: Refusal = (401, "invalid_client", 700_027);
/// A sign-in is over.
pub const SIGNED_OUT: Refusal = (400, "invalid_grant", 700_082);
/// Nobody has entered the code yet.
pub const PENDING: Refusal = (400, "authorization_pending", 70_016);
/// The code is asked for too often.
pub const SLOW_DOWN: Refusal = (400, "slow_down", 70_016);
/// The person said no.
pub const DECLINED: Refusal = (400, "authorization_declined", 70_018);
/// The code is too old.
pub const EXPIRED_CODE: Refusal = (400, "expired_token", 70_020);

/// One answer out of turn.
#[derive(Clone, Debug)]
pub enum Scripted {
    /// Words of Entra ID's.
    Refusal(Refusal),
    /// A status and a `Retry-After`.
    Busy(u16, Option<&'static str>),
    /// To another place, with this status.
    Redirect(u16),
    /// An answer whose end is missing.
    Truncated,
    /// 200, but of no use.
    Text(&'static str),
    /// No answer at all.
    Gone,
}

/// What the endpoint knows and has seen.
#[derive(Default)]
pub struct TokenEndpoint {
    secrets: HashMap<String, String>,
    certificates: HashMap<String, (String, SigningKey)>,
    federated: HashMap<String, String>,
    script: VecDeque<Scripted>,
    refresh_token: Option<String>,
    issued: usize,
    requests: Vec<Asked>,
    access_tokens: Vec<String>,
    /// The interval that a code comes with, in seconds.
    pub interval: u64,
    /// How long a code is good for, in seconds.
    pub code_life: u64,
    /// `expires_in` of tokens; a number as a text where it is true.
    pub token_life: Option<(u64, TextOrNumber)>,
    /// Tokens are not bound, whatever is asked.
    pub ignores_binding: bool,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextOrNumber {
    Text,
    Number,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub form: HashMap<String, String>,
    pub headers: HeaderMap,
}

impl TokenEndpoint {
    /// An application with a secret.
    pub fn application(&mut self, client: &str, secret: &str) {
        self.secrets.insert(client.to_owned(), secret.to_owned());
    }

    /// An application with a certificate of this SHA-256 thumbprint and key.
    pub fn certificate(&mut self, client: &str, thumbprint: &str, key: SigningKey) {
        let entry = (thumbprint.to_owned(), key);
        self.certificates.insert(client.to_owned(), entry);
    }

    /// An application that trusts this one token of another issuer.
    pub fn federated(&mut self, client: &str, assertion: &str) {
        self.federated
            .insert(client.to_owned(), assertion.to_owned());
    }

    /// Answers to be given, in this order, before those in turn.
    pub fn script(&mut self, answers: impl IntoIterator<Item = Scripted>) {
        self.script.extend(answers);
    }

    /// Ends everybody's sign-in.
    pub fn sign_out(&mut self) {
        self.refresh_token = None;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.requests.clone()
    }

    /// All access tokens that were given out.
    pub fn access_tokens(&self) -> Vec<String> {
        self.access_tokens.clone()
    }

    fn grant(&mut self, form: &HashMap<String, String>, endpoint: &str) -> Result<bool, Refusal> {
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let client = field("client_id");
        match field("grant_type") {
            "client_credentials" if form.contains_key("client_secret") => {
                let secret = self.secrets.get(client).ok_or(UNKNOWN_APPLICATION)?;
                if secret != field("client_secret") {
                    return Err(WRONG_SECRET);
                }
                Ok(false)
            }
            "client_credentials" => {
                let assertion = field("client_assertion");
                let is_federated = self
                    .federated
                    .get(client)
                    .is_some_and(|own| own == assertion);
                let is_signed = self
                    .certificates
                    .get(client)
                    .is_some_and(|own| is_assertion(assertion, client, endpoint, own));
                if is_federated || is_signed {
                    Ok(false)
                } else {
                    Err(WRONG_ASSERTION)
                }
            }
            "urn:ietf:params:oauth:grant-type:device_code" if field("device_code") == "device" => {
                Ok(true)
            }
            "refresh_token" => match &self.refresh_token {
                Some(own) if own == field("refresh_token") => Ok(true),
                _ => Err(SIGNED_OUT),
            },
            _ => Err((400, "unsupported_grant_type", 70_003)),
        }
    }
}

/// The answer to a form; `None` when the path is none of the endpoint's.
pub(super) fn answer(
    shared: &Shared,
    path: &str,
    headers: &HeaderMap,
    question: &[u8],
) -> Option<std::io::Result<Response<server::Body>>> {
    let rest = path.strip_prefix('/')?;
    let (tenant, what) = rest.split_once("/oauth2/v2.0/")?;
    let form = form(question);
    let mut state = shared.state();
    let scope = form.get("scope").cloned().unwrap_or_default();
    let endpoint = &mut state.token_endpoint;
    endpoint.requests.push(Asked {
        path: path.to_owned(),
        form: form.clone(),
        headers: headers.clone(),
    });
    match endpoint.script.pop_front() {
        None => {}
        Some(Scripted::Gone) => return Some(Err(std::io::ErrorKind::ConnectionAborted.into())),
        Some(scripted) => return Some(Ok(out_of_turn(scripted))),
    }
    if tenant != TENANT && tenant != "organizations" {
        return Some(Ok(refused(UNKNOWN_TENANT)));
    }
    if what == "devicecode" {
        return Some(Ok(json_answer(&json!({
            "device_code": "device",
            "user_code": "ABCD-EFGH",
            "verification_uri": "https://microsoft.com/devicelogin",
            "expires_in": endpoint.code_life,
            "interval": endpoint.interval,
            "message": "To sign in, use a web browser",
        }))));
    }
    let renews = match endpoint.grant(&form, &format!("{}{path}", shared.base)) {
        Ok(renews) => renews,
        Err(refusal) => return Some(Ok(refused(refusal))),
    };
    endpoint.issued += 1;
    let issued = endpoint.issued;
    let mut body = json!({ "token_type": "Bearer" });
    // Others, such as offline_access, stand behind it.
    let audience = scope.split(' ').next().unwrap_or_default();
    let mut token = TokenBuilder::new(state.current.clone())
        .claim("ver", "2.0")
        .claim("iss", shared.issuer_v2())
        .claim("oid", "0ab1c2d3-0000-4000-8000-00000000abcd")
        .claim("tid", TENANT)
        .claim("aud", audience.trim_end_matches("/.default"))
        .claim("iat", now())
        .claim("nbf", now())
        .claim("exp", now() + 3_600)
        .claim("uti", format!("uti-{issued}"));
    if renews {
        token = token
            .claim("preferred_username", "alice@contoso.example")
            .claim("upn", "alice@contoso.example");
    } else {
        token = token.claim("idtyp", "app").claim("azpacr", "1");
    }
    let endpoint = &mut state.token_endpoint;
    if form.get("token_type").is_some_and(|kind| kind == "pop") && !endpoint.ignores_binding {
        let confirmation = form.get("req_cnf").map(String::as_str).unwrap_or_default();
        let confirmation = BASE64_URL_SAFE_NO_PAD
            .decode(confirmation)
            .unwrap_or_default();
        let confirmation: Value = serde_json::from_slice(&confirmation).unwrap_or_default();
        token = token.claim("cnf", confirmation);
        body["token_type"] = json!("pop");
    }
    let token = token.sign();
    body["access_token"] = json!(token);
    endpoint.access_tokens.push(token);
    body["expires_in"] = match endpoint.token_life {
        Some((life, TextOrNumber::Text)) => json!(life.to_string()),
        Some((life, TextOrNumber::Number)) => json!(life),
        None => json!(3_599),
    };
    if renews {
        let next = format!("refresh-{issued}");
        body["refresh_token"] = json!(next);
        endpoint.refresh_token = Some(next);
    }
    Some(Ok(json_answer(&body)))
}

fn out_of_turn(scripted: Scripted) -> Response<server::Body> {
    match scripted {
        Scripted::Refusal(refusal) => refused(refusal),
        Scripted::Busy(status, retry_after) => {
            let mut response = server::text(status_code(status), "busy");
            if let Some(value) = retry_after {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
        Scripted::Redirect(status) => {
            let mut response = server::text(status_code(status), "");
            let elsewhere = HeaderValue::from_static("https://login.evil.example/");
            response.headers_mut().insert(header::LOCATION, elsewhere);
            response
        }
        Scripted::Truncated => truncated(),
        Scripted::Text(text) => server::text(StatusCode::OK, text),
        Scripted::Gone => unreachable!("handled before"),
    }
}

fn refused((status, name, code): Refusal) -> Response<server::Body> {
    let description = format!(
        "AADSTS{code}: the words of the authority, which name the tenant {TENANT}. Trace ID: 1"
    );
    let mut response = json_answer(&json!({
        "error": name,
        "error_description": description,
        "error_codes": [code],
        "correlation_id": "correlation-of-a-test",
    }));
    *response.status_mut() = status_code(status);
    response
}

/// Promises more than it gives.
fn truncated() -> Response<server::Body> {
    let piece: Result<_, Infallible> = Ok(Frame::data(Bytes::from_static(
        br#"{"token_type":"Bearer","access_token":"abc"#,
    )));
    let body: UnsyncBoxBody<Bytes, Infallible> =
        StreamBody::new(stream::iter([piece])).boxed_unsync();
    let mut response = Response::new(body);
    let promised = HeaderValue::from_static("4000");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, promised);
    response
}

fn json_answer(value: &Value) -> Response<server::Body> {
    server::json_answer(StatusCode::OK, value)
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

fn form(question: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(question);
    text.split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| {
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
            (name.to_owned(), value)
        })
        .collect()
}

/// Whether the owner of the certificate says, for now and for here, that they are `client`.
fn is_assertion(
    assertion: &str,
    client: &str,
    endpoint: &str,
    (thumbprint, key): &(String, SigningKey),
) -> bool {
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let Some((signed, signature)) = assertion.rsplit_once('.') else {
        return false;
    };
    let Some((header, claims)) = signed.split_once('.') else {
        return false;
    };
    let header: Value = serde_json::from_slice(&decode(header)).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap_or_default();
    let jwk = key.public_jwk();
    let component = |name: &str| decode(jwk[name].as_str().unwrap_or_default());
    let public = RsaPublicKeyComponents {
        n: component("n"),
        e: component("e"),
    };
    let is_signed = public
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &decode(signature),
        )
        .is_ok();
    let is_of_now = claims["nbf"].as_i64().is_some_and(|at| at <= now() + 60)
        && claims["exp"].as_i64().is_some_and(|at| at > now());
    is_signed
        && is_of_now
        && header["x5t#S256"] == json!(thumbprint)
        && header["alg"] == json!("RS256")
        && claims["iss"] == json!(client)
        && claims["sub"] == json!(client)
        && claims["aud"] == json!(endpoint)
        && claims["jti"].is_string()
}
