//! Who asks, as far as the agent knows.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use super::bounded;

/// The longest claims part of a token that is looked at, in bytes.
const MAX_CLAIMS: usize = 32 * 1024;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditCaller {
    /// `impersonate`, `pass-through`, or `unauthenticated`.
    pub kind: CallerKind,
    /// The name under which the API server sees the request, if the agent has validated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The number of groups that the agent has validated.
    #[serde(skip_serializing_if = "is_zero")]
    pub groups: usize,
    /// What the caller's token says of itself, where the agent has **not** checked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified: Option<UnverifiedClaims>,
}

/// How a caller's identity reaches the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerKind {
    /// The agent has not recognised the caller.
    #[default]
    Unauthenticated,
    /// The agent has validated the caller and speaks for them.
    Impersonate,
    /// The caller's own token goes on, and the API server judges it.
    PassThrough,
}

/// Claims of a token whose signature nobody has checked here: a hint, and no proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnverifiedClaims {
    /// The claim `iss`.
    #[serde(rename(serialize = "issuer", deserialize = "iss"), default)]
    pub issuer: Option<String>,
    /// The claim `sub`.
    #[serde(rename(serialize = "subject", deserialize = "sub"), default)]
    pub subject: Option<String>,
}

/// What authentication found, for the record.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct CallerSummary<'a> {
    pub(in crate::agent) kind: CallerKind,
    pub(in crate::agent) user: Option<&'a str>,
    pub(in crate::agent) groups: usize,
}

impl AuditCaller {
    /// A caller of whom only the credential is known.
    pub(in crate::agent) fn claimed(headers: &HeaderMap) -> Self {
        Self {
            unverified: UnverifiedClaims::of(headers),
            ..Self::default()
        }
    }

    pub(in crate::agent) fn set(&mut self, summary: CallerSummary<'_>) {
        self.kind = summary.kind;
        self.user = summary.user.map(|user| bounded(user).to_owned());
        self.groups = summary.groups;
        if summary.kind == CallerKind::Impersonate {
            self.unverified = None;
        }
    }
}

impl UnverifiedClaims {
    /// Of the bearer token in `headers`, if it looks like a JWT and says anything.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (_scheme, token) = value.split_once(' ')?;
        let claims = token.split('.').nth(1)?;
        if claims.len() > MAX_CLAIMS {
            return None;
        }
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Self = serde_json::from_slice(&claims).ok()?;
        let claims = Self {
            issuer: claims.issuer.map(|text| bounded(&text).to_owned()),
            subject: claims.subject.map(|text| bounded(&text).to_owned()),
        };
        (claims != Self::default()).then_some(claims)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(claims: &str) -> Option<UnverifiedClaims> {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
        UnverifiedClaims::of(&headers)
    }

    #[test]
    fn issuer_and_subject_are_read_and_bounded() {
        let found = claims(r#"{"iss":"https://issuer","sub":"me","aud":["x"],"secret":"y"}"#);
        let found = found.expect("claims");
        assert_eq!(found.issuer.as_deref(), Some("https://issuer"));
        assert_eq!(found.subject.as_deref(), Some("me"));
        let long = claims(&format!(r#"{{"sub":"{}"}}"#, "é".repeat(5_000))).expect("claims");
        assert_eq!(
            long.subject.expect("a subject").len(),
            super::super::MAX_TEXT
        );
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for text in ["", "[]", "{}", r#"{"sub":1}"#, "{"] {
            assert_eq!(claims(text), None, "{text}");
        }
        assert_eq!(
            claims(&format!(r#"{{"sub":"{}"}}"#, "a".repeat(MAX_CLAIMS))),
            None
        );
        let mut headers = HeaderMap::new();
        for value in ["Bearer opaque", "Bearer", "Basic dTpw", "Bearer a.b"] {
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            assert_eq!(UnverifiedClaims::of(&headers), None, "{value}");
        }
    }

    #[test]
    fn a_validated_user_replaces_the_claims() {
        let mut caller = AuditCaller {
            unverified: Some(UnverifiedClaims::default()),
            ..AuditCaller::default()
        };
        caller.set(CallerSummary {
            kind: CallerKind::Impersonate,
            user: Some("ada@example.org"),
            groups: 2,
        });
        assert_eq!(
            serde_json::to_string(&caller).expect("JSON"),
            r#"{"kind":"impersonate","user":"ada@example.org","groups":2}"#
        );
    }
}
