//! [`Claims`]: what a verified token says, and the checks that all issuers' tokens share.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::rejection::Rejection;
use crate::agent::identity::RejectReason;

/// The end of the year 9999: no real token lives longer, and all times below it can be computed with.
const LATEST_TIME: f64 = 253_402_300_799.0;

/// Claims whose signature was checked. Only [`Jwt::verify`](super::jwt::Jwt::verify) makes them.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

/// How far clocks may differ, and how long a token may live.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeRules {
    pub(super) skew: Duration,
    pub(super) max_lifetime: Duration,
}

impl Claims {
    pub(super) fn from_verified(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that must be a string where it is present.
    pub(super) fn string(&self, name: &str) -> Result<Option<&str>, Rejection> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(unusable(name, "is not a string")),
        }
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Rejection> {
        self.string(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| unusable(name, "is missing"))
    }

    /// A claim that is a string or a list of strings; empty when it is absent.
    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>, Rejection> {
        match self.0.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| unusable(name, "is not a list of strings")),
            Some(_) => Err(unusable(name, "is neither a string nor a list of strings")),
        }
    }

    /// Whether the token says that the values of `claim` were left out of it and are to be had elsewhere
    /// (OpenID Connect Core 1.0 section 5.6.2).
    pub(super) fn is_left_out(&self, claim: &str) -> bool {
        match self.0.get("_claim_names") {
            None => false,
            Some(Value::Object(names)) => names.contains_key(claim),
            // Not what it should be: nobody can say that the claim is not meant.
            Some(_) => true,
        }
    }

    /// Checks `exp`, `nbf` and `iat` (RFC 7519 section 4.1) against `now` and gives the time of `exp`.
    pub(super) fn check_times(
        &self,
        rules: TimeRules,
        now: SystemTime,
    ) -> Result<SystemTime, Rejection> {
        let expires_at = self
            .time("exp")?
            .ok_or_else(|| unusable("exp", "is missing"))?;
        let not_before = self.time("nbf")?;
        let issued_at = self.time("iat")?;
        if now >= expires_at + rules.skew {
            return Err(Rejection::new(
                RejectReason::Expired,
                "the time of `exp` is over",
            ));
        }
        for (name, time) in [("nbf", not_before), ("iat", issued_at)] {
            if time.is_some_and(|time| time > now + rules.skew) {
                return Err(Rejection::new(
                    RejectReason::NotYetValid,
                    format!("the time of `{name}` has not come"),
                ));
            }
        }
        let start = issued_at.or(not_before).unwrap_or(now);
        // An end before the start has no life at all: expired within the skew.
        let life = expires_at.duration_since(start).unwrap_or_default();
        if life > rules.max_lifetime + rules.skew {
            return Err(Rejection::new(
                RejectReason::Lifetime,
                "the token lives longer than this agent accepts",
            ));
        }
        Ok(expires_at)
    }

    /// Checks that the token was issued for `allowed` audiences, and for no other: whoever shares a token with an
    /// audience that is not ours can use it here.
    pub(super) fn check_audience(&self, allowed: &[String]) -> Result<(), Rejection> {
        let audiences = self.strings("aud")?;
        if !audiences.is_empty() && audiences.iter().all(|audience| allowed.contains(audience)) {
            Ok(())
        } else {
            Err(Rejection::new(
                RejectReason::Audience,
                "`aud` has not only audiences that this agent accepts",
            ))
        }
    }

    /// A `NumericDate` (RFC 7519 section 2): seconds, with a fraction or without.
    fn time(&self, name: &str) -> Result<Option<SystemTime>, Rejection> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        value
            .as_f64()
            .filter(|seconds| (0.0..=LATEST_TIME).contains(seconds))
            .map(|seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)))
            .ok_or_else(|| {
                Rejection::new(
                    RejectReason::Malformed,
                    format!("`{name}` is not a time in seconds since 1970"),
                )
            })
    }
}

pub(super) fn unusable(claim: &str, why: &str) -> Rejection {
    Rejection::new(RejectReason::Claims, format!("the claim `{claim}` {why}"))
}
