//! The opening handshake with the relay, and what its refusals mean.
//!
//! It goes through hyper, because the useful text of a refusal is in the HTTP reason phrase, which the WebSocket
//! libraries drop.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::pin,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1, ext::ReasonPhrase};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    RelayToken,
    rendezvous::QUERY_ESCAPES,
    websocket::{
        Role, WebSocket,
        handshake::{VERSION, accept_key, new_key},
    },
};
use crate::{
    Error, ErrorKind, Result,
    net::{Endpoint, Security},
};

/// One upgrade request.
pub(super) struct Upgrade<'a> {
    pub(super) party: Party,
    /// For the `Host` header and for error texts; `target` may hold a secret and is never shown.
    pub(super) endpoint: &'a Endpoint,
    pub(super) target: &'a str,
    pub(super) token: Option<&'a RelayToken>,
    pub(super) token_place: TokenPlace,
    /// What rides along; the handshake's own headers win over it.
    pub(super) headers: &'a HeaderMap,
}

/// Where the token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenPlace {
    /// `ServiceBusAuthorization`.
    Header,
    /// `sb-hc-token`.
    Query,
}

/// Who asks, which decides what a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// A sender, for a connection.
    Sender,
    /// A listener, for its control channel.
    Listener,
    /// A listener, for one connection that the relay announced.
    Accept,
}

impl Upgrade<'_> {
    /// Performs the handshake over `io`. What the relay sent right behind its answer is kept.
    ///
    /// # Errors
    /// [`refusal`] when the relay answers anything but 101; [`ErrorKind::Protocol`] when the 101 is not one.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the connection.
    pub(super) async fn perform<T>(&self, io: T) -> Result<WebSocket<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let key = new_key();
        let request = self.request(&key)?;
        let broken = |error: hyper::Error| {
            // A hyper error tells what happened to the connection, and repeats nothing of the request.
            Error::new(
                ErrorKind::Network,
                format!(
                    "the connection to the relay {} broke during the handshake",
                    self.endpoint
                ),
            )
            .with_source(error)
            .with_help("check that this host and port are the relay's, and any proxy on the way")
        };

        let (mut requests, mut connection) = http1::Builder::new()
            .max_buf_size(MAX_RESPONSE_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(broken)?;
        // Driven here and not by a task of its own, so that dropping this future drops the socket.
        let mut is_connection_done = false;
        let response = {
            let mut response = pin!(requests.send_request(request));
            poll_fn(|cx| {
                if !is_connection_done {
                    // Its failure reaches the caller through `response`.
                    is_connection_done = connection.poll_without_shutdown(cx).is_ready();
                }
                response.as_mut().poll(cx)
            })
            .await
            .map_err(broken)?
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refused(&response));
        }
        verify(&response, &key).map_err(|reason| {
            Error::new(
                ErrorKind::Protocol,
                format!("{} did not answer as a relay does: {reason}", self.endpoint),
            )
            .with_help("check that this host and port are the relay's, and any proxy on the way")
        })?;
        if !is_connection_done {
            poll_fn(|cx| connection.poll_without_shutdown(cx))
                .await
                .map_err(broken)?;
        }
        let parts = connection.into_parts();
        Ok(WebSocket::new(
            parts.io.into_inner(),
            Role::Client,
            parts.read_buf,
        ))
    }

    pub(super) fn request(&self, key: &str) -> Result<Request<Empty<Bytes>>> {
        let unusable = |error: http::Error| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("can not make a request to the relay {}", self.endpoint),
            )
            .with_source(error)
        };
        let (in_header, in_query) = match self.token_place {
            TokenPlace::Header => (self.token, None),
            TokenPlace::Query => (None, self.token),
        };
        let mut target = Cow::from(self.target);
        if let Some(token) = in_query {
            let escaped = utf8_percent_encode(token.secret(), QUERY_ESCAPES);
            let separator = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{separator}sb-hc-token={escaped}").into();
        }
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(&*target)
            .body(Empty::new())
            .map_err(unusable)?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        let host = host_header(self.endpoint);
        headers.insert(HOST, text(&host).map_err(unusable)?);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        headers.insert(SEC_WEBSOCKET_KEY, text(key).map_err(unusable)?);
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        headers.remove(SERVICE_BUS_AUTHORIZATION);
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(AGENT));
        if let Some(token) = in_header {
            let mut value = text(token.secret()).map_err(unusable)?;
            value.set_sensitive(true);
            headers.insert(SERVICE_BUS_AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn refused(&self, response: &Response<Incoming>) -> Error {
        let reason = response
            .extensions()
            .get::<ReasonPhrase>()
            .map(|phrase| String::from_utf8_lossy(phrase.as_bytes()))
            .unwrap_or_default();
        refusal(self.party, self.endpoint, response.status(), &reason)
    }
}

/// The error for an answer that is no 101.
///
/// The relay's texts have the form `<text>. TrackingId:<id>, SystemTracker:<entity>, Timestamp:<time>`.
fn refusal(party: Party, endpoint: &Endpoint, status: StatusCode, reason: &str) -> Error {
    let (kind, help) = match status.as_u16() {
        // The relay has no status of its own for it.
        403 | 429 if contains_ignoring_case(reason, "maximumlistenersperendpoint") => (
            ErrorKind::LimitReached,
            "25 listeners are connected to this hybrid connection already: stop one of them",
        ),
        401 | 403 => (ErrorKind::Unauthorized, unauthorized_help(party, reason)),
        404 => (ErrorKind::NotFound, not_found_help(party, reason)),
        408 | 504 => (
            ErrorKind::Timeout,
            "the other side did not answer in time: check that it runs, then try again",
        ),
        429 | 500..=599 => (
            ErrorKind::Refused,
            "the relay, or the party behind it, is busy or failing: try again later",
        ),
        // A redirect or a page: something else answers there.
        200..=399 => (
            ErrorKind::Protocol,
            "check that this host and port are the relay's, and any proxy on the way",
        ),
        _ => (
            ErrorKind::Refused,
            "the relay, or the party behind it, does not take this request",
        ),
    };
    let what = match party {
        Party::Sender => "a connection",
        Party::Listener => "this listener",
        Party::Accept => "the answer to a sender",
    };
    let text = shown_reason(reason);
    let text = if text.is_empty() {
        status.canonical_reason().unwrap_or_default()
    } else {
        &text
    };
    let error = Error::new(
        kind,
        format!(
            "the relay {endpoint} refused {what}: {} {text}",
            status.as_u16()
        ),
    )
    .with_status(status.as_u16())
    .with_help(help);
    match tracking_id(reason) {
        Some(id) => error.with_tracking_id(id),
        None => error,
    }
}

fn unauthorized_help(party: Party, reason: &str) -> &'static str {
    let is = |word: &str| contains_ignoring_case(reason, word);
    if is("expired") {
        "the token has expired: get a new one, and check this machine's clock"
    } else if is("signature") {
        "the key does not match: copy SharedAccessKeyName and SharedAccessKey of the relay again"
    } else if is("audience") {
        "the token is for another relay or hybrid connection: check Endpoint and EntityPath"
    } else if is("ip has been prevented") {
        "the relay's IP filter does not admit this machine's address"
    } else if party == Party::Accept {
        "the sender has gone, or the announcement was too old: nothing needs to be done"
    } else if party == Party::Listener {
        "check the key, and that its rule has the right 'Listen'"
    } else {
        "check the key, and that its rule has the right 'Send'"
    }
}

fn not_found_help(party: Party, reason: &str) -> &'static str {
    if party == Party::Sender && contains_ignoring_case(reason, "listener") {
        "no agent is connected to this hybrid connection: start it, or look at its log"
    } else if party == Party::Accept {
        "the sender has gone: nothing needs to be done"
    } else {
        "there is no hybrid connection of this name: check EntityPath in the connection string"
    }
}

fn contains_ignoring_case(text: &str, lower_case: &str) -> bool {
    text.to_ascii_lowercase().contains(lower_case)
}

/// The part of a reason phrase that is for people. A peer wrote it: it is cut, and dropped whole when it repeats what
/// may be a credential.
fn shown_reason(reason: &str) -> String {
    let end = reason.find("TrackingId:").unwrap_or(reason.len());
    let text = reason[..end].trim_end_matches([' ', '.', ',']);
    let is_suspicious = ["sig=", "sig%3d", "sb-hc-token", "sharedaccesskey", "eyj"]
        .iter()
        .any(|mark| contains_ignoring_case(text, mark));
    if is_suspicious {
        return "(its text may hold a credential and is not shown)".to_owned();
    }
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_SHOWN_REASON)
        .collect()
}

fn tracking_id(reason: &str) -> Option<String> {
    let (_, after) = reason.split_once("TrackingId:")?;
    let id: String = after
        .chars()
        .take_while(|character| {
            character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
        })
        .take(MAX_TRACKING_ID)
        .collect();
    (!id.is_empty()).then_some(id)
}

/// Checks the 101 (RFC 6455 section 4.1).
fn verify<B>(response: &Response<B>, key: &str) -> Result<(), &'static str> {
    let headers = response.headers();
    let has_token = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has_token(UPGRADE, "websocket") || !has_token(CONNECTION, "upgrade") {
        return Err("it did not switch to WebSocket");
    }
    let accept = headers
        .get(SEC_WEBSOCKET_ACCEPT)
        .map(|value| value.as_bytes().trim_ascii());
    if accept != Some(accept_key(key.as_bytes()).as_bytes()) {
        return Err("its Sec-WebSocket-Accept is wrong");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it uses an extension that was not offered");
    }
    Ok(())
}

/// Without the port where it is the scheme's own, as RFC 9110 section 4.2.3 prefers.
fn host_header(endpoint: &Endpoint) -> String {
    let default = match endpoint.security() {
        Security::Plain => ":80",
        Security::Tls => ":443",
    };
    let authority = endpoint.authority();
    match authority.strip_suffix(default) {
        Some(host) => host.to_owned(),
        None => authority,
    }
}

fn text(text: &str) -> Result<HeaderValue, http::Error> {
    HeaderValue::from_str(text).map_err(Into::into)
}

/// The relay's own header for tokens.
pub(super) const SERVICE_BUS_AUTHORIZATION: &str = "servicebusauthorization";

const AGENT: &str = concat!("arc-cluster-connect/", env!("CARGO_PKG_VERSION"));

/// The head of a 101 has a few hundred bytes; hyper takes no less than 8 KiB.
const MAX_RESPONSE_HEAD: usize = 16 * 1024;

/// Long enough for every text that the relay is known to send, short enough for one line of a log.
const MAX_SHOWN_REASON: usize = 300;

/// A GUID and a suffix for each node on the way.
const MAX_TRACKING_ID: usize = 128;

#[cfg(test)]
mod tests;
