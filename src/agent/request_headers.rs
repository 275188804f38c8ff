//! Which of a caller's headers reach the API server, and what the agent adds.
//!
//! Two steps, and the types allow no other order: [`clean`] takes away, [`CleanHeaders::seal`] adds. A request can
//! be sent only with [`SealedHeaders`], and those exist only with a [`Decision`]. Nothing edits them afterwards.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    correlation::{AuditId, CorrelationId},
    front_proxy::FrontProxyHeaders,
    identity::{AgentToken, CallerToken, Identity},
    impersonation::{self, ActAs, UidHeader},
    status::Refusal,
    upgrade::UpgradeProtocol,
};
use crate::{Error, ErrorKind, Result, telemetry};

/// How many extra names an operator may have stripped. An API server has a handful of front-proxy headers.
const MAX_EXTRA_NAMES: usize = 32;

/// Hop-by-hop (RFC 9110 section 7.6.1 and its predecessors). `trailer` and `te` come back in a reduced form.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
    "proxy-authenticate",
    "http2-settings",
];
/// What says who the caller is, where they come from or which hop they used. Only the agent may say so.
const CLAIMS: [&str; 10] = [
    "authorization",
    "host",
    "cookie",
    "forwarded",
    "x-real-ip",
    "via",
    // The API server would store a caller's value unchanged and untruncated.
    telemetry::HEADER_AUDIT_ID,
    telemetry::HEADER_CORRELATION_ID,
    // Consumed here: hyper asks for the body once somebody wants it.
    "expect",
    "servicebusauthorization",
];
const CLAIM_PREFIXES: [&str; 5] = [
    "x-remote-",
    "x-forwarded-",
    "sec-fetch-",
    "sb-hc-",
    "x-acc-",
];
/// Names that no `Connection` header may nominate: taking one away changes who acts, or where the request ends.
const NEVER_NOMINATED: [&str; 4] = [
    "authorization",
    "host",
    "content-length",
    telemetry::HEADER_AUDIT_ID,
];

/// What becomes of a caller's wish to act as somebody else (`kubectl --as`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impersonation {
    /// The request is refused, with a text that says so. Dropping the wish would let callers believe that they act
    /// as somebody else.
    #[default]
    Refuse,
    /// The API server is asked, as the caller, whether the caller may: a `SelfSubjectAccessReview` with the verb
    /// `impersonate` for each user, group, uid and piece of extra information. All must be allowed. Answers are kept
    /// for 10 seconds. Who asked is passed on as extra information: `arc.azure.com/original-user`, `-uid` and
    /// `-groups`, so the agent's service account needs the right to impersonate these.
    ///
    /// With a token that is passed through, the API server judges the wish itself.
    SubjectAccessReview,
}

/// What is taken away beside the fixed lists.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderPolicy {
    extra_prefixes: Vec<String>,
    impersonation: Impersonation,
    front_proxy: FrontProxyHeaders,
}

impl HeaderPolicy {
    /// Strips also every header whose name starts with `prefix`.
    pub(super) fn strip(&mut self, prefix: &str) -> Result<()> {
        HeaderName::from_bytes(prefix.as_bytes()).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                "the header to strip has no valid name",
            )
            .with_source(error)
        })?;
        if self.extra_prefixes.len() == MAX_EXTRA_NAMES {
            return Err(Error::new(
                ErrorKind::LimitReached,
                format!("more than {MAX_EXTRA_NAMES} headers to strip"),
            ));
        }
        self.extra_prefixes.push(canonical(prefix).into_owned());
        Ok(())
    }

    pub(super) fn set_impersonation(&mut self, impersonation: Impersonation) {
        self.impersonation = impersonation;
    }

    /// The names that the cluster itself tells.
    pub(super) fn front_proxy(&self) -> &FrontProxyHeaders {
        &self.front_proxy
    }

    fn strips(&self, name: &str) -> bool {
        let canonical = canonical(name);
        let canonical = canonical.as_ref();
        HOP_BY_HOP.contains(&canonical)
            || CLAIMS.contains(&canonical)
            || canonical.starts_with(impersonation::PREFIX)
            || CLAIM_PREFIXES
                .iter()
                .any(|prefix| canonical.starts_with(prefix))
            || self
                .extra_prefixes
                .iter()
                .any(|prefix| canonical.starts_with(prefix.as_str()))
            || self.front_proxy.contain(canonical)
            // `content_length` is `content-length` to a server that treats them alike, and none of ours.
            || (canonical == "content-length" && name != canonical)
    }
}

/// A caller's headers without anything that speaks for the caller or for a hop.
#[derive(Debug)]
pub(super) struct CleanHeaders {
    headers: HeaderMap,
    accepts_trailers: bool,
    trailers: Option<HeaderValue>,
}

/// In whose name a request goes to the API server, with what it takes to prove it.
#[derive(Debug)]
pub(super) enum Decision {
    /// Under the caller's own token, which the API server judges, and so it does the wish to act as somebody else.
    PassThrough(CallerToken, Option<ActAs>),
    /// Under the agent's token, for somebody who is known.
    Impersonate(Arc<Identity>, UidHeader, AgentToken),
}

/// The header set of an upstream request, complete.
#[derive(Debug)]
pub(super) struct SealedHeaders {
    map: HeaderMap,
    lane: Lane,
}

/// Over which connections a request goes. No connection ever carries both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    PassThrough,
    Impersonation,
}

/// Takes away what must not pass, and reads the caller's wish to act as somebody else.
///
/// # Errors
/// 400 when `Connection` is malformed or nominates a header that decides identity or framing; 403 when the caller
/// wants to act as somebody else and that is not enabled, or not understood. Dropping that wish silently would let
/// them believe that they do.
pub(super) fn clean(
    mut headers: HeaderMap,
    policy: &HeaderPolicy,
) -> Result<(CleanHeaders, Option<ActAs>), Refusal> {
    for nominated in nominated(&headers)? {
        headers.remove(nominated);
    }
    let act_as = match policy.impersonation {
        Impersonation::SubjectAccessReview => ActAs::read(&headers)?,
        Impersonation::Refuse => {
            if headers
                .keys()
                .any(|name| impersonation::is_impersonation(name.as_str()))
            {
                return Err(Refusal::forbidden(
                    "the request asks for impersonation (Impersonate-*), which is not enabled here",
                    "leave out --as, --as-group and --as-uid, and use a token of the identity that shall act",
                ));
            }
            None
        }
    };
    let accepts_trailers = tokens(&headers, &header::TE)
        .any(|token| token.is_ok_and(|token| token.eq_ignore_ascii_case("trailers")));
    let trailers = forwarded_trailers(&headers, policy);
    let stripped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| policy.strips(name.as_str()))
        .cloned()
        .collect();
    for name in stripped {
        headers.remove(name);
    }
    let clean = CleanHeaders {
        headers,
        accepts_trailers,
        trailers,
    };
    Ok((clean, act_as))
}

impl CleanHeaders {
    /// The headers of a question of the agent's own.
    pub(super) fn of_json() -> Self {
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        Self {
            headers,
            accepts_trailers: false,
            trailers: None,
        }
    }

    /// Adds what is the agent's to say: the last edit before the socket.
    ///
    /// # Errors
    /// 403 when the identity can not be written. The request ends there: without it, it would run as the agent.
    pub(super) fn seal(
        self,
        decision: Decision,
        host: &HeaderValue,
        audit: AuditId,
        correlation: &CorrelationId,
        upgrade: Option<UpgradeProtocol>,
    ) -> Result<SealedHeaders, Refusal> {
        let mut headers = self.headers;
        headers.insert(header::HOST, host.clone());
        headers.insert(telemetry::HEADER_AUDIT_ID, audit.to_header());
        headers.insert(telemetry::HEADER_CORRELATION_ID, correlation.to_header());
        if self.accepts_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(trailers) = self.trailers {
            headers.insert(header::TRAILER, trailers);
        }
        if let Some(protocol) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocol.to_header());
        }
        let lane = match decision {
            Decision::PassThrough(token, act_as) => {
                if let Some(act_as) = act_as {
                    act_as.write(&mut headers).map_err(unwritable)?;
                }
                headers.insert(header::AUTHORIZATION, token.to_header());
                Lane::PassThrough
            }
            Decision::Impersonate(identity, uid, token) => {
                token
                    .act_as(&identity, uid, &mut headers)
                    .map_err(unwritable)?;
                Lane::Impersonation
            }
        };
        Ok(SealedHeaders { map: headers, lane })
    }
}

impl SealedHeaders {
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    pub(super) fn into_map(self) -> HeaderMap {
        self.map
    }
}

fn unwritable(error: Error) -> Refusal {
    tracing::warn!(error = error.report(), "an identity could not be written");
    Refusal::forbidden(
        "the caller's identity can not be put into a request",
        "ask the agent's operator to look into its log",
    )
}

/// Takes out of a request's trailers what [`clean`] takes out of its headers.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    let policy = HeaderPolicy::default();
    let stripped: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| policy.strips(name.as_str()))
        .cloned()
        .collect();
    for name in stripped {
        trailers.remove(name);
    }
}

/// The headers that the `Connection` lines name as meant for this hop only.
fn nominated(headers: &HeaderMap) -> Result<Vec<HeaderName>, Refusal> {
    tokens(headers, &header::CONNECTION)
        .map(|token| {
            let name = token
                .ok()
                .and_then(|token| HeaderName::from_bytes(token.as_bytes()).ok())
                .ok_or_else(|| {
                    Refusal::malformed("the Connection header is not a list of names")
                })?;
            let canonical = canonical(name.as_str());
            if NEVER_NOMINATED.contains(&canonical.as_ref())
                || canonical.starts_with(impersonation::PREFIX)
                || canonical.starts_with("x-remote-")
            {
                return Err(Refusal::malformed(
                    "the Connection header names a header that decides who acts or where the request ends",
                ));
            }
            Ok(name)
        })
        .collect()
}

/// The elements of a list header over all its lines; empty ones are no elements (RFC 9110 section 5.6.1).
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Result<&'a str, http::header::ToStrError>> {
    headers.get_all(name).iter().flat_map(|line| {
        let (text, error) = match line.to_str() {
            Ok(text) => (text, None),
            Err(error) => ("", Some(Err(error))),
        };
        text.split(',')
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
            .map(Ok)
            .chain(error)
    })
}

/// The declared trailers that may pass. hyper sends no trailer that is not declared.
fn forwarded_trailers(headers: &HeaderMap, policy: &HeaderPolicy) -> Option<HeaderValue> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let names: Vec<&str> = tokens(headers, &header::TRAILER)
        .filter_map(|token| token.ok())
        .filter(|name| !policy.strips(&name.to_ascii_lowercase()))
        .collect();
    if names.is_empty() {
        return None;
    }
    HeaderValue::from_str(&names.join(", ")).ok()
}

/// Lower case, and `-` for `_`: servers behind CGI-like gateways take both for the same name.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .any(|byte| byte == b'_' || byte.is_ascii_uppercase())
    {
        Cow::Owned(name.to_ascii_lowercase().replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests;
