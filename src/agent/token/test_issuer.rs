//! What the tests of tokens share: keys that sign, and a web site on loopback that publishes them.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

use crate::{
    agent::identity::{
        Authentication, AuthenticationError, Authenticator, Credential, Identity, RejectReason,
    },
    clock::ManualClock,
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
};

/// What the tests' clocks show at the start.
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A key that signs tokens.
pub(super) struct SigningKey {
    pub(super) id: String,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl SigningKey {
    pub(super) fn first() -> Self {
        Self::rsa("first", include_str!("tests/keys/first.pem"))
    }

    pub(super) fn second() -> Self {
        Self::rsa("second", include_str!("tests/keys/second.pem"))
    }

    pub(super) fn p256() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id: "p256".to_owned(),
            pair: Pair::P256(
                EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(),
            ),
        }
    }

    fn rsa(id: &str, pem: &str) -> Self {
        let base64: String = pem
            .lines()
            .skip_while(|line| !line.starts_with("-----BEGIN"))
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let document = BASE64_STANDARD.decode(base64).unwrap();
        Self {
            id: id.to_owned(),
            pair: Pair::Rsa(RsaKeyPair::from_pkcs8(&document).unwrap()),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Rsa(pair) => {
                let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": self.id, "n": encode(&parts.n), "e": encode(&parts.e)})
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": x, "y": y})
            }
        }
    }

    /// A token with this header; the algorithm is the header's where the key can do it.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = match header["alg"].as_str() {
                    Some("PS256") => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, signed.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            Pair::P256(pair) => pair
                .sign(&random, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    pub(super) fn header(&self) -> Value {
        let algorithm = match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        };
        json!({"alg": algorithm, "typ": "JWT", "kid": self.id})
    }

    /// An ordinary token.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

/// `value` with some members set, or taken away where the new value is null.
pub(super) fn with(mut value: Value, changes: &Value) -> Value {
    for (name, change) in changes.as_object().unwrap() {
        let object = value.as_object_mut().unwrap();
        match change {
            Value::Null => object.remove(name),
            change => object.insert(name.clone(), change.clone()),
        };
    }
    value
}

/// An HTTPS site whose pages the test sets.
pub(super) struct Site {
    pub(super) base: String,
    certificate_pem: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, (u16, String)>>,
    asked: Mutex<Vec<Asked>>,
    delay: Mutex<Duration>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) authorization: String,
    pub(super) body: String,
}

impl Site {
    pub(super) async fn start() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let certificate_pem = certificate.pem();
        let key_pem = key.serialize_pem();
        let acceptor =
            TlsAcceptor::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes(), Alpn::Http1)
                .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let pages = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, pages) = (acceptor.clone(), Arc::clone(&pages));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(|request| answer(&pages, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            base,
            certificate_pem,
            shared,
        }
    }

    pub(super) fn set(&self, path: &str, status: u16, page: &Value) {
        let page = (status, page.to_string());
        self.shared
            .pages
            .lock()
            .unwrap()
            .insert(path.to_owned(), page);
    }

    /// A discovery document for `issuer` below `path`, and these keys.
    pub(super) fn publish(&self, path: &str, issuer: &str, keys: &[Value]) {
        let jwks_uri = format!("{}{path}/keys", self.base);
        let document = json!({"issuer": issuer, "jwks_uri": jwks_uri});
        self.set(
            &format!("{path}/.well-known/openid-configuration"),
            200,
            &document,
        );
        self.set(&format!("{path}/keys"), 200, &json!({"keys": keys}));
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub(super) fn count(&self, path: &str) -> usize {
        let end = format!(" {path}");
        self.asked()
            .iter()
            .filter(|asked| asked.line.ends_with(&end))
            .count()
    }

    pub(super) fn trust_roots(&self) -> TrustRoots {
        TrustRoots::only_pem(self.certificate_pem.as_bytes()).unwrap()
    }

    pub(super) fn connector(&self) -> Connector {
        Connector::new(self.trust_roots()).unwrap()
    }
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let authorization = head.headers.get("authorization");
    let asked = Asked {
        line: format!("{} {}", head.method, head.uri),
        authorization: authorization
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
    };
    shared.asked.lock().unwrap().push(asked);
    let delay = *shared.delay.lock().unwrap();
    tokio::time::sleep(delay).await;
    let page = shared.pages.lock().unwrap().get(head.uri.path()).cloned();
    let (status, page) = page.unwrap_or((404, "{}".to_owned()));
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

pub(super) fn clock() -> ManualClock {
    ManualClock::starting_at(NOW)
}

/// The time of a [`ManualClock`] as the builders of authenticators want it.
pub(super) fn reading(
    time: &ManualClock,
) -> impl Fn() -> std::time::SystemTime + Send + Sync + 'static {
    let clock = time.clock();
    move || clock.now()
}

/// Seconds since 1970 that a [`ManualClock`] shows.
pub(super) fn unix(time: &ManualClock) -> u64 {
    let now = time.clock().now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What an authenticator makes of a token.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Accepted(Identity),
    NotMine,
    Rejected(RejectReason),
    Unavailable,
}

impl Verdict {
    pub(super) fn identity(self) -> Identity {
        match self {
            Self::Accepted(identity) => identity,
            other => panic!("not accepted: {other:?}"),
        }
    }
}

pub(super) async fn verdict(authenticator: &dyn Authenticator, token: &str) -> Verdict {
    verdict_on(authenticator, token, Method::GET, "/api/v1/pods?limit=5").await
}

pub(super) async fn verdict_on(
    authenticator: &dyn Authenticator,
    token: &str,
    method: Method,
    target: &'static str,
) -> Verdict {
    match Credential::new(token, method, Uri::from_static(target)) {
        Ok(credential) => verdict_of(authenticator, &credential).await,
        Err(_) => Verdict::Rejected(RejectReason::Malformed),
    }
}

pub(super) async fn verdict_of(
    authenticator: &dyn Authenticator,
    credential: &Credential,
) -> Verdict {
    match authenticator.authenticate(credential).await {
        Ok(Authentication::Identity(known)) => Verdict::Accepted(known.identity().clone()),
        Ok(Authentication::NotMine) => Verdict::NotMine,
        Ok(Authentication::PassThrough) => panic!("a token is passed through"),
        Err(error) => {
            assert_says_nothing(&error, credential.token());
            error
                .reason()
                .map_or(Verdict::Unavailable, Verdict::Rejected)
        }
    }
}

/// No part of a token gets into what is told or logged.
fn assert_says_nothing(error: &AuthenticationError, token: &str) {
    let shown = format!("{error} {error:?}");
    for part in token.split('.').filter(|part| part.len() > 20) {
        assert!(!shown.contains(part), "{shown}");
    }
}
