//! Questions to the server about users and tokens: the reviews, and tokens for service accounts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::StatusCode;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    authentication::random_token,
    resource::builtin,
    response::{self, Response},
    server::Server,
    status::Status,
    to_json,
    user::{Access, User},
};

/// A kind that is only ever posted, and answered with itself and a status.
pub(super) struct Review {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
}

/// The reviews that exist here.
pub(super) static REVIEWS: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
    },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenReview",
        plural: "tokenreviews",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
    },
];

/// The shortest and longest life of a token, as the real server bounds them.
const TOKEN_SECONDS: std::ops::RangeInclusive<u64> = 600..=1 << 32;

/// The life of a token when the request does not say.
const DEFAULT_TOKEN_SECONDS: u64 = 3_600;

/// The issuer that service-account tokens name.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The review at a path.
pub(super) fn find(path: &str) -> Option<&'static Review> {
    let rest = path.strip_prefix("/apis/")?;
    REVIEWS.iter().find(|review| {
        let mut segments = rest.split('/');
        segments.next() == Some(review.group)
            && segments.next() == Some(review.version)
            && segments.next() == Some(review.plural)
            && segments.next().is_none()
    })
}

/// Answers a posted review.
pub(super) fn answer(server: &Server, review: &Review, user: &User, mut body: Value) -> Response {
    body["kind"] = json!(review.kind);
    body["apiVersion"] = json!(format!("{}/{}", review.group, review.version));
    body["status"] = match review.kind {
        "SelfSubjectReview" => json!({ "userInfo": user.to_value() }),
        "TokenReview" => token_review(server, &body["spec"]),
        "SelfSubjectRulesReview" => rules_review(server, user),
        _ => access_review(server, user, &body["spec"]),
    };
    response::json(StatusCode::CREATED, &body)
}

/// Answers `serviceaccounts/<name>/token`.
pub(super) fn token_request(
    server: &Server,
    namespace: &str,
    name: &str,
    mut body: Value,
) -> Result<Response, Status> {
    server
        .store
        .require(builtin("serviceaccounts"), namespace, name)?;
    let seconds = body["spec"]["expirationSeconds"]
        .as_u64()
        .unwrap_or(DEFAULT_TOKEN_SECONDS);
    if !TOKEN_SECONDS.contains(&seconds) {
        return Err(Status::bad_request(
            "may not specify a duration less than 10 minutes",
        ));
    }
    let expires_at = SystemTime::now() + Duration::from_secs(seconds);
    let token = issue(server, namespace, name, Some(expires_at));
    body["kind"] = json!("TokenRequest");
    body["apiVersion"] = json!("authentication.k8s.io/v1");
    let expires_at = OffsetDateTime::from(expires_at)
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok());
    body["status"] = json!({ "token": token, "expirationTimestamp": expires_at });
    Ok(response::json(StatusCode::CREATED, &body))
}

/// Puts a token into a secret that asks for one, as the token controller does.
pub(super) fn fill_token_secret(
    server: &Arc<Server>,
    namespace: &str,
    secret: &mut Value,
) -> Result<(), Status> {
    if secret["type"].is_null() {
        secret["type"] = json!("Opaque");
    }
    if let Some(texts) = secret["stringData"].take().as_object() {
        if !secret["data"].is_object() {
            secret["data"] = json!({});
        }
        for (name, text) in texts {
            secret["data"][name] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }
    if let Some(members) = secret.as_object_mut() {
        members.remove("stringData");
    }
    if secret["type"] != "kubernetes.io/service-account-token" {
        return Ok(());
    }
    let account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
        .as_str()
        .ok_or_else(|| {
            Status::bad_request("the secret does not say which service account it is for")
        })?
        .to_owned();
    server
        .store
        .require(builtin("serviceaccounts"), namespace, &account)?;
    let token = issue(server, namespace, &account, None);
    secret["data"] = json!({
        "token": STANDARD.encode(token),
        "ca.crt": STANDARD.encode(&server.ca_pem),
        "namespace": STANDARD.encode(namespace),
    });
    Ok(())
}

fn token_review(server: &Server, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    match server.identities.user_of_token(token) {
        Some(user) => json!({
            "authenticated": true,
            "user": user.to_value(),
            "audiences": [ISSUER],
        }),
        None => json!({
            "authenticated": false,
            "user": {},
            "error": "invalid bearer token",
        }),
    }
}

fn access_review(server: &Server, user: &User, spec: &Value) -> Value {
    let verb = spec["resourceAttributes"]["verb"]
        .as_str()
        .unwrap_or_default();
    let allowed = match server.identities.access(user) {
        Access::Everything => true,
        Access::ReadOnly => matches!(verb, "get" | "list" | "watch"),
        Access::Nothing => false,
    };
    json!({ "allowed": allowed })
}

/// Everybody has the first rule: `system:basic-user`.
fn rules_review(server: &Server, user: &User) -> Value {
    let mut rules = vec![json!({
        "verbs": ["create"],
        "apiGroups": ["authentication.k8s.io", "authorization.k8s.io"],
        "resources": ["selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    })];
    let all = |verbs: Value| json!({ "verbs": verbs, "apiGroups": ["*"], "resources": ["*"] });
    match server.identities.access(user) {
        Access::Everything => rules.push(all(json!(["*"]))),
        Access::ReadOnly => rules.push(all(json!(["get", "list", "watch"]))),
        Access::Nothing => {}
    }
    json!({ "resourceRules": rules, "nonResourceRules": [], "incomplete": false })
}

/// A token with the shape of a real one: a JWT whose claims name the service account. Its signature is random, and it
/// is known by being remembered.
fn issue(server: &Server, namespace: &str, name: &str, expires_at: Option<SystemTime>) -> String {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    let mut claims = json!({
        "iss": ISSUER,
        "aud": [ISSUER],
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": seconds(SystemTime::now()),
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name } },
    });
    if let Some(expires_at) = expires_at {
        claims["exp"] = json!(seconds(expires_at));
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(to_json(value));
    let token = format!(
        "{}.{}.{}",
        encode(&json!({ "alg": "RS256", "kid": "stand-in" })),
        encode(&claims),
        URL_SAFE_NO_PAD.encode(random_token()),
    );
    let user = User::service_account(namespace, name);
    server.identities.add_token(token.clone(), user, expires_at);
    token
}
