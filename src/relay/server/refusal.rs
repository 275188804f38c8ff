//! [`Refusal`]: a status and a reason phrase, in the form in which Azure Relay answers.

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use time::OffsetDateTime;

/// Why a request is not answered with 101.
///
/// Azure Relay puts the useful text in the HTTP *reason phrase*, followed by ids for its operators; so does this. The
/// body repeats it for clients that do not show the phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    text: Cow<'static, str>,
    author: Author,
}

/// Whose words a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// The relay's: the ids are added.
    Relay,
    /// The listener's: passed on as they are.
    Listener,
}

/// What an operator finds a refused request by.
pub(super) struct Tracking<'a> {
    pub(super) id: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) now: SystemTime,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            text: text.into(),
            author: Author::Relay,
        }
    }

    /// A listener's own answer to a sender. A status that HTTP can not carry as a final one becomes 400.
    pub(super) fn by_listener(status: Option<u16>, text: &str) -> Self {
        let status = status
            .filter(|code| (200..=999).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::BAD_REQUEST);
        let text = if text.is_empty() {
            status.canonical_reason().unwrap_or("Rejected").to_owned()
        } else {
            text.to_owned()
        };
        Self {
            status,
            text: text.into(),
            author: Author::Listener,
        }
    }

    pub(super) fn unauthorized(text: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, text)
    }

    pub(super) fn no_entity() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Endpoint does not exist")
    }

    /// 404, not the 502 or 503 of the protocol guide: that is what the live service is seen to answer.
    pub(super) fn no_listener() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There are no listeners connected for the endpoint",
        )
    }

    pub(super) fn no_rendezvous() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "The rendezvous address is unknown, expired or was used before",
        )
    }

    pub(super) fn late_body() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "The request's body did not arrive in the required time",
        )
    }

    pub(super) fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The relay is shutting down",
        )
    }

    /// Whether these are a listener's words.
    pub(super) fn is_by_listener(&self) -> bool {
        self.author == Author::Listener
    }

    /// Whether nobody asked for this who may ask, or for nothing that there is: the same request is refused again.
    pub(super) fn is_attempt(&self) -> bool {
        let is_final = matches!(
            self.status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::BAD_REQUEST
                | StatusCode::UPGRADE_REQUIRED
        );
        self.author == Author::Relay && (is_final || *self == Self::no_entity())
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_response(self, tracking: &Tracking<'_>) -> Response<Full<Bytes>> {
        let phrase = match self.author {
            Author::Relay => format!(
                "{}. TrackingId:{}_G0, SystemTracker:sb://{}/{}, Timestamp:{}",
                self.text.trim_end_matches('.'),
                tracking.id,
                tracking.host,
                tracking.path,
                timestamp(tracking.now)
            ),
            Author::Listener => self.text.into_owned(),
        };
        let phrase = printable(&phrase);
        let mut response = Response::new(Full::from(format!("{phrase}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static(crate::relay::websocket::handshake::VERSION),
            );
        }
        // Printable text is always a phrase; without one hyper writes the standard phrase.
        if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
            response.extensions_mut().insert(phrase);
        }
        response
    }
}

/// Cut to [`MAX_PHRASE`], and with `?` for whatever many clients refuse in a status line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_PHRASE)
        .map(|character| match character {
            ' '..='~' => character,
            '\t' | '\r' | '\n' => ' ',
            _ => '?',
        })
        .collect()
}

fn timestamp(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

/// A listener's words and a path's length are not ours: a status line of several kilobytes breaks clients.
const MAX_PHRASE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn phrase(refusal: Refusal) -> (u16, String) {
        let response = refusal.into_response(&Tracking {
            id: "1234",
            host: "relay.example",
            path: "a/b",
            now: UNIX_EPOCH + Duration::from_secs(1_745_493_075),
        });
        let phrase = response.extensions().get::<ReasonPhrase>().unwrap();
        (
            response.status().as_u16(),
            String::from_utf8(phrase.as_bytes().to_vec()).unwrap(),
        )
    }

    #[test]
    fn the_relays_words_carry_the_ids() {
        assert_eq!(
            phrase(Refusal::no_entity()),
            (
                404,
                "Endpoint does not exist. TrackingId:1234_G0, SystemTracker:sb://relay.example/a/b, \
                 Timestamp:2025-04-24T11:11:15"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_listeners_words_are_passed_on() {
        assert_eq!(
            phrase(Refusal::by_listener(Some(418), "short and stout")),
            (418, "short and stout".to_owned())
        );
        assert_eq!(
            phrase(Refusal::by_listener(Some(403), "")),
            (403, "Forbidden".to_owned())
        );
        for unusable in [None, Some(0), Some(101), Some(1000)] {
            assert_eq!(phrase(Refusal::by_listener(unusable, "no")).0, 400);
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_status_line() {
        let refusal = Refusal::by_listener(Some(400), "a\r\nX-Injected: 1\u{0}é");
        assert_eq!(phrase(refusal).1, "a  X-Injected: 1??");
        let long = Refusal::by_listener(Some(400), &"x".repeat(5000));
        assert_eq!(phrase(long).1.len(), MAX_PHRASE);
    }
}
