//! [`Answer`]: what a client got, and [`Arrived`]: what the API server was asked.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{cases::Case, support::api_server::StandIn, way::MARK};

/// Says which hop and which moment, not what was asked.
const OF_THE_HOP: [&str; 6] = [
    "date",
    "audit-id",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "x-ms-correlation-request-id",
];
/// What a request carries for one hop, or what the agent says in the caller's place.
const OF_THE_REQUESTS_HOP: [&str; 8] = [
    "authorization",
    "host",
    "audit-id",
    "x-ms-correlation-request-id",
    "connection",
    "transfer-encoding",
    // Answered by the first hop that has the body to ask for.
    "expect",
    MARK,
];
/// What no two objects share.
const OF_THE_OBJECT: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "startTime",
    "startedAt",
    "lastTransitionTime",
    "expirationTimestamp",
    "token",
];

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Everything that has to be the same on every way, as text, the most telling first.
    pub fn comparable(&self, case: &Case) -> [(&'static str, String); 4] {
        let body = if case.has_identity {
            without_identity(&self.body)
        } else {
            self.body.escape_ascii().to_string()
        };
        let mut headers = lines(&self.headers, &OF_THE_HOP);
        if case.has_identity {
            headers.retain(|line| !line.starts_with("content-length:"));
        }
        [
            ("another status", self.status.to_string()),
            ("another body", body),
            ("other headers", headers.join("\n")),
            ("other trailers", format!("{:?}", self.trailers)),
        ]
    }
}

/// The request as the API server got it.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived(Vec<String>);

impl Arrived {
    pub fn at(stand_in: &StandIn, mark: &str) -> Self {
        let arrived = stand_in
            .requests()
            .into_iter()
            .filter(|request| request.headers.get(MARK).is_some_and(|value| value == mark))
            .flat_map(|request| {
                let line = format!("{} {}", request.method, request.path_and_query);
                // Objects are named after the way that they went.
                let line = line.replace(mark, "MARK");
                let headers = lines(&request.headers, &OF_THE_REQUESTS_HOP);
                std::iter::once(line).chain(headers)
            })
            .collect();
        Self(arrived)
    }
}

fn lines(headers: &HeaderMap, without: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()))
        .collect();
    // Stable: the order of lines of one name is part of the message, that of names is not.
    lines.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    lines
}

fn without_identity(body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(mut value) => {
            blank(&mut value);
            value.to_string()
        }
        Err(_) => body.escape_ascii().to_string(),
    }
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if OF_THE_OBJECT.contains(&name.as_str()) {
                    *member = Value::from("*");
                } else {
                    blank(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}
