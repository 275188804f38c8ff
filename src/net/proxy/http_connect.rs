//! HTTP `CONNECT` (RFC 9110 section 9.3.6): the request, and the proxy's answer to it.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    address::Credentials,
    problem::{Password, Problem, shown},
};
use crate::net::Endpoint;

/// Asks the proxy at the other end of `io` for a connection to `target`. What is returned are the target's first bytes,
/// if they came together with the answer.
pub(super) async fn open<T>(
    io: &mut T,
    target: &Endpoint,
    credentials: Option<&Credentials>,
) -> Result<Bytes, Problem>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(target, credentials);
    io.write_all(request.expose_secret().as_bytes()).await?;
    io.flush().await?;
    let mut answer = Answer::default();
    loop {
        let mut piece = BytesMut::with_capacity(READ_SIZE);
        if io.read_buf(&mut piece).await? == 0 {
            return Err(Problem::Ended);
        }
        match answer.push(&piece)? {
            Progress::More => {}
            Progress::Opened(early) => return Ok(early),
            Progress::Refused(mut refusal) => {
                if credentials.is_some_and(|own| own.is_repeated_in(&refusal.reason)) {
                    refusal.reason = "(its text repeats a password and is not shown)".to_owned();
                }
                return Err(Problem::Refused(refusal, Password::of(credentials)));
            }
        }
    }
}

fn request(target: &Endpoint, credentials: Option<&Credentials>) -> SecretString {
    let authority = target.authority();
    let mut text =
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {AGENT}\r\n");
    if let Some(credentials) = credentials {
        let plain =
            SecretString::from(format!("{}:{}", credentials.user(), credentials.password()));
        text.push_str("Proxy-Authorization: Basic ");
        STANDARD.encode_string(plain.expose_secret(), &mut text);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    SecretString::from(text)
}

/// Reads an answer in pieces, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Answer {
    head: BytesMut,
    /// Up to here there is no end of a head.
    searched: usize,
    /// What interim answers took of [`MAX_HEAD`].
    spent: usize,
}

/// What is known of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its end has not come.
    More,
    /// The way is open. The bytes are the target's.
    Opened(Bytes),
    /// The proxy said no.
    Refused(Refusal),
}

/// A proxy's no. Of its body nothing is read: it is a page for a browser.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The reason phrase, and what the proxy says of it in other headers; cut, without control characters.
    pub(super) reason: String,
    /// The kinds of password that it would take.
    pub(super) schemes: Vec<String>,
}

impl Answer {
    /// Adds a piece, which is not empty.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Progress, Problem> {
        self.head.extend_from_slice(piece);
        loop {
            let Some(length) = self.end_of_head() else {
                return if self.head.len() + self.spent >= MAX_HEAD {
                    Err(Problem::Malformed("the head of its answer has no end"))
                } else {
                    Ok(Progress::More)
                };
            };
            self.spent += length;
            if self.spent > MAX_HEAD {
                return Err(Problem::Malformed("the head of its answer has no end"));
            }
            let head = self.head.split_to(length).freeze();
            self.searched = 0;
            if let Some(progress) = read(&head, &mut self.head)? {
                return Ok(progress);
            }
        }
    }

    fn end_of_head(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(END.len() - 1);
        let found = self.head[from..]
            .windows(END.len())
            .position(|window| window == END);
        self.searched = self.head.len();
        found.map(|position| from + position + END.len())
    }
}

/// Reads a whole head; `None` for an interim answer.
fn read(head: &[u8], rest: &mut BytesMut) -> Result<Option<Progress>, Problem> {
    const MALFORMED: Problem = Problem::Malformed("it is no HTTP answer");
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    // A head that ends earlier has an empty line of another kind inside: two readings are one too many.
    match answer.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return Err(MALFORMED),
    }
    let status = answer.code.ok_or(MALFORMED)?;
    Ok(match status {
        101 => return Err(Problem::Malformed("it switched to another protocol")),
        100..=199 => None,
        // Content-Length and Transfer-Encoding mean nothing here: the rest is the target's.
        200..=299 => Some(Progress::Opened(rest.split().freeze())),
        _ => Some(Progress::Refused(Refusal {
            status,
            reason: reason(answer.reason.unwrap_or_default(), answer.headers),
            schemes: schemes(answer.headers),
        })),
    })
}

fn reason(phrase: &str, fields: &[httparse::Header<'_>]) -> String {
    let mut parts = vec![phrase.to_owned()];
    for name in REASON_FIELDS {
        parts.extend(values(fields, name).next());
    }
    parts.retain(|part| !part.trim().is_empty());
    shown(&parts.join("; "))
}

fn schemes(fields: &[httparse::Header<'_>]) -> Vec<String> {
    let mut schemes: Vec<String> = values(fields, "proxy-authenticate")
        .filter_map(|value| Some(shown(value.split_ascii_whitespace().next()?)))
        .collect();
    schemes.dedup();
    schemes.truncate(MAX_SCHEMES);
    schemes
}

fn values(fields: &[httparse::Header<'_>], name: &str) -> impl Iterator<Item = String> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| String::from_utf8_lossy(field.value).into_owned())
}

const END: &[u8] = b"\r\n\r\n";

const AGENT: &str = concat!("arc-cluster-connect/", env!("CARGO_PKG_VERSION"));

/// Where proxies say more than in the reason phrase: RFC 9209, and the most common proxy's own.
const REASON_FIELDS: [&str; 2] = ["proxy-status", "x-squid-error"];

/// Answers to CONNECT have a few hundred bytes; a refusal with cookies and policies a few thousand.
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// Headers of an answer.
const MAX_FIELDS: usize = 64;

/// Kinds of password that are told to the user.
const MAX_SCHEMES: usize = 4;

/// One read. What is the target's among it is as much as this.
const READ_SIZE: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &[u8]) -> Result<Progress, Problem> {
        Answer::default().push(text)
    }

    fn refused(text: &str) -> Refusal {
        match whole(text.as_bytes()).unwrap() {
            Progress::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_names_the_target_and_hides_the_password() {
        let target = Endpoint::new("2001:db8::1", 443, crate::net::Security::Tls);
        let credentials = Credentials::new("Aladdin".into(), "open sesame".into());
        let request = request(&target, Some(&credentials));
        assert!(!format!("{request:?}").contains("QWxh"));
        let text = request.expose_secret();
        assert!(text.starts_with(
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nUser-Agent: arc-"
        ));
        // The example of RFC 7617.
        assert!(
            text.ends_with("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n")
        );
    }

    #[test]
    fn what_follows_a_yes_is_the_targets() {
        for (answer, early) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", ""),
            ("HTTP/1.0 200\r\n\r\n220 hello", "220 hello"),
            // RFC 9110 section 9.3.6: these are to be ignored.
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdefg",
                "abcdefg",
            ),
            (
                "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
                "\r\n\r\n",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n!",
                "!",
            ),
        ] {
            let expected = Progress::Opened(Bytes::from(early));
            assert_eq!(whole(answer.as_bytes()).unwrap(), expected, "{answer}");
        }
    }

    #[test]
    fn a_no_tells_why() {
        let refusal = refused(
            "HTTP/1.1 403 Forb\tidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 9\r\n\r\n<html>…",
        );
        assert_eq!(refusal.status, 403);
        assert_eq!(refusal.reason, "Forbidden; ERR_ACCESS_DENIED 0");
        let refusal = refused(
            "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: Basic realm=\"a\"\r\n\r\n",
        );
        assert_eq!(refusal.schemes, ["Negotiate", "Basic"]);
        let long = format!("HTTP/1.1 502 {}\r\n\r\n", "x".repeat(5000));
        assert!(refused(&long).reason.len() < 300);
        assert_eq!(refused("HTTP/1.1 302 \r\nLocation: /\r\n\r\n").reason, "");
    }

    #[test]
    fn what_is_no_answer() {
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "\r\n\r\n",
        ] {
            let problem = whole(text.as_bytes());
            assert!(matches!(problem, Err(Problem::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_head_without_end_is_given_up() {
        let mut answer = Answer::default();
        answer.push(b"HTTP/1.1 200 OK\r\n").unwrap();
        let pieces = (0..MAX_HEAD).take_while(|_| answer.push(b"a: b\r\n").is_ok());
        let read = pieces.count() * 6;
        assert!(read < MAX_HEAD && read > MAX_HEAD / 2);

        let mut answer = Answer::default();
        let interim = b"HTTP/1.1 102 Processing\r\n\r\n";
        let pieces = (0..MAX_HEAD).take_while(|_| answer.push(interim).is_ok());
        assert!(pieces.count() * interim.len() <= MAX_HEAD);

        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        assert!(whole(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn how_an_answer_is_cut_makes_no_difference(
            status in "(100|200|204|302|403|407|502|999)",
            fields in proptest::collection::vec("[A-Za-z-]{1,9}: ?[ -~]{0,9}\r\n", 0..4),
            rest in proptest::collection::vec(any::<u8>(), 0..40),
            cuts in proptest::collection::vec(1..9_usize, 0..200),
        ) {
            let mut text = format!("HTTP/1.1 {status} Reason\r\n{}\r\n", fields.concat()).into_bytes();
            let head = text.len();
            text.extend_from_slice(&rest);
            let expected = whole(&text);
            let mut answer = Answer::default();
            let (mut at, mut cuts) = (0, cuts.into_iter());
            let mut last = Ok(Progress::More);
            while at < text.len() && matches!(last, Ok(Progress::More)) {
                let to = (at + cuts.next().unwrap_or(64)).min(text.len());
                last = answer.push(&text[at..to]);
                at = to;
            }
            match (last, expected) {
                (Ok(Progress::Opened(early)), Ok(Progress::Opened(all))) => {
                    prop_assert_eq!([&early[..], &text[at..]].concat(), all.to_vec());
                    prop_assert_eq!(&text[head..], &all[..]);
                }
                (last, expected) => prop_assert_eq!(format!("{last:?}"), format!("{expected:?}")),
            }
        }
    }
}
