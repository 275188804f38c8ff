//! [`Target`]: what a request line asks for.
//!
//! The path alone decides between the two endpoints, as on Azure: what is below `/$hc/` is for WebSockets, everything
//! else is an HTTP request for a listener.

use percent_encoding::percent_decode_str;

/// The target of a request, `[/$hc]/<path>[/<suffix>][?<user query>&sb-hc-…]`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Entity path and suffix, still encoded, without what stands before them.
    pub(super) path: &'a str,
    pub(super) action: Action,
    /// `sb-hc-id`.
    pub(super) id: Option<String>,
    /// `sb-hc-token`.
    pub(super) token: Option<String>,
    /// `sb-hc-statusCode`: the listener says no.
    pub(super) status_code: Option<String>,
    /// `sb-hc-statusDescription`.
    pub(super) status_description: Option<String>,
    /// What of the query is the sender's own, still encoded.
    pub(super) user_query: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Listen,
    /// Also when the request names no action.
    Connect,
    /// A listener's answer to a sender's WebSocket.
    Accept,
    /// A listener comes for an HTTP request, or with the response.
    Request,
    /// A sender's HTTP request: no WebSocket at all.
    Forward,
    Unknown,
}

/// Which of its two kinds of clients the relay talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Listener,
}

impl<'a> Target<'a> {
    pub(super) fn parse(path: &'a str, query: Option<&'a str>) -> Self {
        let Some(path) = path.strip_prefix("/$hc/") else {
            let path = path.strip_prefix('/').unwrap_or(path);
            return Self::new(path, query.unwrap_or_default(), Action::Forward);
        };
        let (path, query) = match query {
            Some(query) => (path, query),
            // A shipped Azure client encodes the question mark, and the service understands it.
            None => split_at_encoded_question_mark(path),
        };
        Self::new(path, query, Action::Connect)
    }

    fn new(path: &'a str, query: &str, action: Action) -> Self {
        let mut target = Self {
            path,
            action,
            id: None,
            token: None,
            status_code: None,
            status_description: None,
            user_query: String::new(),
        };
        let mut user_pairs = Vec::new();
        for pair in query.split('&') {
            // The service takes only what is a pair for a parameter of its own: `sb-hc-x` without `=` is the user's.
            match pair.split_once('=') {
                Some((name, value)) if target.take(&name.to_ascii_lowercase(), value) => {}
                _ => user_pairs.push(pair),
            }
        }
        target.user_query = user_pairs.join("&");
        target
    }

    /// What a listener sees of the target of an HTTP request.
    pub(super) fn for_listener(&self) -> String {
        let mut target = format!("/{}", self.path);
        if !self.user_query.is_empty() {
            target.push('?');
            target.push_str(&self.user_query);
        }
        target
    }

    /// Takes a parameter for the relay; `false` when it is the user's.
    fn take(&mut self, name: &str, value: &str) -> bool {
        match name {
            "sb-hc-action" if self.action != Action::Forward => self.action = Action::parse(value),
            "sb-hc-id" => self.id = Some(decode(value)),
            "sb-hc-token" => self.token = Some(decode_token(value)),
            "sb-hc-statuscode" => self.status_code = Some(decode(value)),
            "sb-hc-statusdescription" => self.status_description = Some(decode_form(value)),
            // Older Microsoft packages append these without the prefix to the address that they were given. In front
            // of the relay's part of that address stands the *sender's* query, which must not speak for the listener.
            "statuscode" if self.is_answer() => self.status_code = Some(decode(value)),
            "statusdescription" if self.is_answer() => {
                self.status_description = Some(decode_form(value));
            }
            _ => return name.starts_with("sb-hc-"),
        }
        true
    }

    /// Whether the relay's part of an accept address was read.
    fn is_answer(&self) -> bool {
        self.action == Action::Accept && self.id.is_some()
    }
}

impl Action {
    fn parse(value: &str) -> Self {
        match value.to_ascii_lowercase().as_str() {
            "listen" => Self::Listen,
            "connect" | "" => Self::Connect,
            "accept" => Self::Accept,
            "request" => Self::Request,
            _ => Self::Unknown,
        }
    }

    /// Who asks for this.
    pub(super) fn side(self) -> Side {
        match self {
            Self::Listen | Self::Accept | Self::Request => Side::Listener,
            Self::Connect | Self::Forward | Self::Unknown => Side::Sender,
        }
    }
}

fn split_at_encoded_question_mark(path: &str) -> (&str, &str) {
    let at = path
        .as_bytes()
        .windows(3)
        .position(|window| window.eq_ignore_ascii_case(b"%3F"));
    at.map_or((path, ""), |at| (&path[..at], &path[at + 3..]))
}

pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Clients write a space both as `%20` and as `+` here.
fn decode_form(text: &str) -> String {
    decode(&text.replace('+', " "))
}

/// A plus sign belongs to the token, but for the one that stands for the space after the scheme.
fn decode_token(text: &str) -> String {
    let token = decode(text);
    match token.split_once('+') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("SharedAccessSignature") => {
            format!("{scheme} {rest}")
        }
        _ => token,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Target<'_> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Target::parse(path, query)
    }

    #[test]
    fn the_relays_parameters_are_read_and_the_rest_is_kept() {
        let target = parse(
            "/$hc/a/b/c?x=1&sb-hc-action=listen&y=%20&SB-HC-ID=i%2Fd&sb-hc-token=SharedAccessSignature%20sr%3Da%252Fb&z",
        );
        assert_eq!(target.path, "a/b/c");
        assert_eq!(target.action, Action::Listen);
        assert_eq!(target.id.as_deref(), Some("i/d"));
        assert_eq!(
            target.token.as_deref(),
            Some("SharedAccessSignature sr=a%2Fb")
        );
        assert_eq!(target.user_query, "x=1&y=%20&z");
    }

    #[test]
    fn a_missing_action_is_connect() {
        assert_eq!(parse("/$hc/a").action, Action::Connect);
        assert_eq!(parse("/$hc/a?x=1").action, Action::Connect);
        assert_eq!(parse("/$hc/a?sb-hc-action=Accept").action, Action::Accept);
        assert_eq!(parse("/$hc/a?sb-hc-action=request").action, Action::Request);
        assert_eq!(parse("/$hc/a?sb-hc-action=?").action, Action::Unknown);
    }

    #[test]
    fn an_encoded_question_mark_splits_when_there_is_no_other() {
        let target = parse("/$hc/a/b%3Fsb-hc-action=connect&sb-hc-id=1");
        assert_eq!((target.path, target.id.as_deref()), ("a/b", Some("1")));
        assert_eq!(target.user_query, "");
        assert_eq!(parse("/$hc/a%3fb?c").path, "a%3fb");
    }

    #[test]
    fn the_filter_of_the_query_is_exact() {
        // Expectations of Microsoft's own tests.
        for (query, kept) in [
            ("a=1&a=2&", "a=1&a=2&"),
            ("&&&", "&&&"),
            ("&foo=bar", "&foo=bar"),
            ("+", "+"),
            ("sb-hc-undefined", "sb-hc-undefined"),
            ("sb-hc-sas-key=x", ""),
            ("sb-hc-action=connect", ""),
        ] {
            assert_eq!(Target::parse("/$hc/a", Some(query)).user_query, kept);
            let http = Target::parse("/a", Some(query));
            let expected = if kept.is_empty() {
                "/a".to_owned()
            } else {
                format!("/a?{kept}")
            };
            assert_eq!(http.for_listener(), expected);
        }
    }

    #[test]
    fn a_rejection_is_read_in_both_spellings() {
        let address = "x=1&sb-hc-action=accept&sb-hc-id=1";
        for appended in [
            "sb-hc-statusCode=401&sb-hc-statusDescription=go+away%20now",
            "statusCode=401&statusDescription=go%20away+now",
        ] {
            let query = format!("{address}&{appended}");
            let target = Target::parse("/$hc/a", Some(&query));
            assert_eq!(target.status_code.as_deref(), Some("401"));
            assert_eq!(target.status_description.as_deref(), Some("go away now"));
        }
    }

    #[test]
    fn a_sender_can_not_reject_itself() {
        let senders_part =
            "statusCode=1&statusDescription=2&sb-hc-statusCode&sb-hc-statusDescription";
        let query = format!("{senders_part}&sb-hc-action=accept&sb-hc-id=1");
        let target = Target::parse("/$hc/a", Some(&query));
        assert_eq!(
            (target.status_code, target.status_description),
            (None, None)
        );
        assert_eq!(target.user_query, senders_part);
    }

    #[test]
    fn a_plus_in_a_token_is_a_plus_but_for_the_first() {
        let target = parse("/$hc/a?sb-hc-token=SharedAccessSignature+sr=x&sb-hc-id=1");
        assert_eq!(target.token.as_deref(), Some("SharedAccessSignature sr=x"));
        let target = parse("/$hc/a?sb-hc-token=SharedAccessSignature%20sig%3Da+b");
        assert_eq!(
            target.token.as_deref(),
            Some("SharedAccessSignature sig=a+b")
        );
    }

    #[test]
    fn other_paths_are_for_http() {
        for (path, expected) in [("/a/b", "a/b"), ("/$hc", "$hc"), ("/", ""), ("*", "*")] {
            let target = Target::parse(path, None);
            assert_eq!((target.action, target.path), (Action::Forward, expected));
        }
        // No parameter makes it anything else, and those without the prefix are the user's.
        let query = "sb-hc-action=accept&sb-hc-id=1&statusCode=2&sb-hc-token=t";
        let target = Target::parse("/a", Some(query));
        assert_eq!(target.action, Action::Forward);
        assert_eq!(target.token.as_deref(), Some("t"));
        assert_eq!(target.for_listener(), "/a?statusCode=2");
    }

    proptest! {
        #[test]
        fn no_text_panics(path in "/(\\$hc/)?.*", query in prop::option::of(".*")) {
            let _ = Target::parse(&path, query.as_deref());
        }
    }
}
