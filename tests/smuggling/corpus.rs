//! Requests in bytes, each a known way to make two hops disagree about where a request ends or what it says.

use super::FORGED;

/// What a hop has to make of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An error, or no answer at all; and nothing after it.
    Refused,
    /// One answer: the bytes have exactly one meaning, to which this hop holds.
    One,
}

/// One attack.
pub struct Attack {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// The path that must not be asked for.
    pub forged: String,
    pub agent: Outcome,
    pub proxy: Outcome,
}

/// All attacks, on a path below `base`, by somebody who has a valid credential.
pub fn all(host: &str, base: &str, secret: &str) -> Vec<Attack> {
    let start = format!(
        "POST {base}/version HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
    );
    let forged = format!(
        "GET {base}{FORGED} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n\r\n"
    );
    let mut attacks = Vec::new();
    let mut add = |name, agent, proxy, bytes: Vec<u8>| {
        // A path of its own, and of the same length: bodies have one.
        let own = format!("/forged-{:03}", attacks.len());
        let bytes = String::from_utf8(bytes).expect("the corpus is text");
        attacks.push(Attack {
            name,
            bytes: bytes.replace(FORGED, &own).into_bytes(),
            forged: own,
            agent,
            proxy,
        });
    };

    // Both lengths, or two: whoever takes the other one finds a second request in the body.
    let in_body = format!("0\r\n\r\n{forged}");
    for (name, fields) in [
        (
            "CL and TE",
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
                in_body.len()
            ),
        ),
        (
            "TE and CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(),
        ),
        (
            "two lengths",
            "Content-Length: 5\r\nContent-Length: 0\r\n".to_owned(),
        ),
        (
            "two lengths in a list",
            "Content-Length: 0, 5\r\n".to_owned(),
        ),
        ("a signed length", "Content-Length: +5\r\n".to_owned()),
        ("a negative length", "Content-Length: -1\r\n".to_owned()),
        ("a hexadecimal length", "Content-Length: 0x5\r\n".to_owned()),
        ("a length with a unit", "Content-Length: 5b\r\n".to_owned()),
        (
            "a length beyond 64 bits",
            "Content-Length: 18446744073709551621\r\n".to_owned(),
        ),
        ("an empty length", "Content-Length:\r\n".to_owned()),
        (
            "a space before the colon",
            "Content-Length : 5\r\n".to_owned(),
        ),
        (
            "TE with a space before the colon",
            "Transfer-Encoding : chunked\r\n".to_owned(),
        ),
        (
            "TE gzip, chunked",
            "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        ),
        (
            "TE chunked, chunked",
            "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
        ),
        (
            "TE chunked, identity",
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        ),
        ("TE identity", "Transfer-Encoding: identity\r\n".to_owned()),
        ("TE xchunked", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n".to_owned()),
        (
            "TE with a vertical tab",
            "Transfer-Encoding: \u{b}chunked\r\n".to_owned(),
        ),
        (
            "TE with a parameter",
            "Transfer-Encoding: chunked;q=1\r\n".to_owned(),
        ),
        (
            "TE twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        ),
        (
            "TE and TE cow",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n".to_owned(),
        ),
        ("TE folded", "Transfer-Encoding:\r\n chunked\r\n".to_owned()),
        ("a folded line", "X: a\r\n b\r\n".to_owned()),
        ("a line that starts with a space", " X: a\r\n".to_owned()),
        ("a NUL in a value", "X: a\0b\r\n".to_owned()),
        (
            "a bare CR in a value",
            "X: a\rContent-Length: 5\r\n".to_owned(),
        ),
        ("no name", ": a\r\n".to_owned()),
        ("no colon", "Content-Length\r\n".to_owned()),
        ("a name with a space", "Content Length: 5\r\n".to_owned()),
        ("a name with a NUL", "Content\0-Length: 5\r\n".to_owned()),
        ("a name beyond ASCII", "X\u{e9}: a\r\n".to_owned()),
    ] {
        let bytes = format!("{start}{fields}\r\n{in_body}").into_bytes();
        add(name, Outcome::Refused, Outcome::Refused, bytes);
    }

    // Line ends that some take for line ends.
    let lines = format!("{start}Content-Length: 0\r\n\r\n");
    add(
        "bare LF everywhere",
        Outcome::Refused,
        Outcome::One,
        lines.replace("\r\n", "\n").into_bytes(),
    );
    add(
        "a bare LF after one field",
        Outcome::Refused,
        Outcome::One,
        format!("{start}X: a\nContent-Length: 0\r\n\r\n").into_bytes(),
    );
    add(
        "bare CR everywhere",
        Outcome::Refused,
        Outcome::Refused,
        lines.replace("\r\n", "\r").into_bytes(),
    );

    // Chunks whose size is read differently, in a body that the API server reads to its end.
    let review = format!(
        "POST {base}/apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: {host}\r\n\
         Authorization: Bearer {secret}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for (name, chunk) in [
        ("a chunk size beyond 64 bits", "fffffffffffffffff\r\n"),
        (
            "a chunk size of 2^64 - 1",
            "ffffffffffffffff\r\nx\r\n0\r\n\r\n",
        ),
        ("a chunk size with a sign", "+1\r\nx\r\n0\r\n\r\n"),
        ("a chunk size with 0x", "0x1\r\nx\r\n0\r\n\r\n"),
        ("a chunk size of nothing", "\r\nx\r\n0\r\n\r\n"),
        ("a chunk size of letters", "zz\r\nx\r\n0\r\n\r\n"),
        ("a chunk without its line end", "1\r\nxx0\r\n\r\n"),
        (
            "a chunk extension with a bare LF",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
        ),
        ("a chunk with a NUL in its size", "1\0\r\nx\r\n0\r\n\r\n"),
        ("a negative chunk", "-1\r\nx\r\n0\r\n\r\n"),
    ] {
        let bytes = format!("{review}{chunk}{forged}");
        add(name, Outcome::Refused, Outcome::Refused, bytes.into_bytes());
    }
    let extension = "a".repeat(1 << 20);
    add(
        "an endless chunk extension",
        Outcome::Refused,
        Outcome::Refused,
        format!("{review}1;{extension}\r\nx\r\n0\r\n\r\n{forged}").into_bytes(),
    );

    // Request lines.
    let credential = format!("Host: {host}\r\nAuthorization: Bearer {secret}\r\n");
    for (name, line) in [
        ("two spaces", format!("GET  {base}/version HTTP/1.1")),
        (
            "a space in the target",
            format!("GET {base}/ver sion HTTP/1.1"),
        ),
        (
            "a tab in the request line",
            format!("GET\t{base}/version HTTP/1.1"),
        ),
        (
            "a lower-case version",
            format!("GET {base}/version http/1.1"),
        ),
        ("HTTP/1.2", format!("GET {base}/version HTTP/1.2")),
        ("HTTP/2.0", format!("GET {base}/version HTTP/2.0")),
        ("HTTP/0.9", format!("GET {base}/version")),
        ("no target", "GET  HTTP/1.1".to_owned()),
        (
            "a method of brackets",
            format!("<GET> {base}/version HTTP/1.1"),
        ),
        (
            "a NUL in the target",
            format!("GET {base}/ver\0sion HTTP/1.1"),
        ),
        ("the preface of HTTP/2", "PRI * HTTP/2.0".to_owned()),
    ] {
        let bytes = format!("{line}\r\n{credential}\r\n{forged}").into_bytes();
        add(name, Outcome::Refused, Outcome::Refused, bytes);
    }
    // Legal, so that a kept-alive connection goes on; but not to anywhere.
    for (name, line) in [
        (
            "a target that is a host",
            "CONNECT evil.example:443 HTTP/1.1",
        ),
        ("a target that is an asterisk", "OPTIONS * HTTP/1.1"),
        ("a target without a slash", "GET version HTTP/1.1"),
    ] {
        let bytes = format!("{line}\r\n{credential}Connection: close\r\n\r\n").into_bytes();
        add(name, Outcome::Refused, Outcome::Refused, bytes);
    }

    // Floods within one head.
    let many = "X-Flood: a\r\n".repeat(20_000);
    add(
        "twenty thousand fields",
        Outcome::Refused,
        Outcome::Refused,
        format!("{start}{many}\r\n{forged}").into_bytes(),
    );
    add(
        "one field of a megabyte",
        Outcome::Refused,
        Outcome::Refused,
        format!("{start}X: {}\r\n\r\n{forged}", "a".repeat(1 << 20)).into_bytes(),
    );
    add(
        "a target of a megabyte",
        Outcome::Refused,
        Outcome::Refused,
        format!(
            "GET {base}/{} HTTP/1.1\r\n{credential}\r\n{forged}",
            "a".repeat(1 << 20)
        )
        .into_bytes(),
    );
    add(
        "a name of a megabyte",
        Outcome::Refused,
        Outcome::Refused,
        format!("{start}{}: a\r\n\r\n{forged}", "x".repeat(1 << 20)).into_bytes(),
    );

    // Headers that would take away what the agent adds, or speak for it (R01-R04, R06-R09).
    for (name, fields) in [
        (
            "Connection names Impersonate-User",
            "Connection: Impersonate-User\r\n",
        ),
        (
            "Connection names it in a list",
            "Connection: foo, Impersonate-User\r\n",
        ),
        (
            "Connection names it on the second line",
            "Connection:\r\nConnection: impersonate-user\r\n",
        ),
        (
            "Connection names Authorization",
            "Connection: Authorization\r\n",
        ),
        (
            "Connection names X-Remote-User",
            "Connection: keep-alive, X-Remote-User\r\n",
        ),
        (
            "Connection names Content-Length",
            "Connection: Content-Length\r\n",
        ),
        ("Impersonate-User", "Impersonate-User: system:admin\r\n"),
        ("Impersonate-Group", "Impersonate-Group: system:masters\r\n"),
        ("Impersonate_User", "Impersonate_User: system:admin\r\n"),
        ("Impersonate-Future", "Impersonate-Future: x\r\n"),
    ] {
        let bytes = format!("{start}{fields}Content-Length: 0\r\n\r\n").into_bytes();
        add(name, Outcome::Refused, Outcome::Refused, bytes);
    }
    attacks
}
