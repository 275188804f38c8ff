//! Upgrades: a request that turns its connection into raw bytes (exec, attach, port-forward).

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::headers::has_connection_option;

/// The protocols that Kubernetes clients upgrade to.
const PROTOCOLS: [&str; 2] = ["SPDY/3.1", "websocket"];

/// After one side has ended, how long the other may stay silent. The end of an exec's input is followed by the rest
/// of its output; a peer that neither sends nor ends has gone without a word.
pub(super) const LINGER_LIMIT: Duration = Duration::from_secs(30);

/// One per direction: two TLS records.
const COPY_BUFFER: usize = 32 * 1024;

/// The protocol that a request really asks to upgrade to.
///
/// An `Upgrade` header alone is no such request, nor is one with a body, or in HTTP/2: they go on as plain requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upgrade(HeaderValue);

impl Upgrade {
    /// `body_is_empty` as the framing says, which is not in the headers alone.
    pub(super) fn asked_for(request: &Parts, body: BodyPresence) -> Option<Self> {
        let allowed = request.version == Version::HTTP_11
            && matches!(request.method, Method::GET | Method::POST)
            && body == BodyPresence::Absent
            && has_connection_option(&request.headers, "upgrade");
        allowed.then(|| protocol(&request.headers))?
    }

    /// Marks a request, or a 101 response, as this upgrade.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.0.clone());
    }

    /// Whether the headers of a 101 response agree to this upgrade.
    pub(super) fn is_agreed(&self, response: &HeaderMap) -> bool {
        protocol(response)
            .is_some_and(|Self(agreed)| agreed.as_bytes().eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

/// Whether a request has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPresence {
    Absent,
    Present,
}

fn protocol(headers: &HeaderMap) -> Option<Upgrade> {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (only, None) = (values.next()?, values.next()) else {
        return None;
    };
    PROTOCOLS
        .iter()
        .any(|known| only.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        .then(|| Upgrade(only.clone()))
}

/// Copies both ways until both have ended. The end of one direction is passed on as a half-close, the other goes on.
///
/// # Errors
/// When a side breaks, or stays silent for [`LINGER_LIMIT`] after the other has ended. Both are then dropped as they
/// are, so that neither peer takes what it got for the whole.
pub(super) async fn join<A, B>(client: A, agent: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_reader, client_writer) = tokio::io::split(client);
    let (agent_reader, agent_writer) = tokio::io::split(agent);
    let moved = AtomicU64::new(0);
    let mut upload = pin!(copy(client_reader, agent_writer, &moved));
    let mut download = pin!(copy(agent_reader, client_writer, &moved));
    tokio::select! {
        end = &mut upload => {
            end?;
            linger(download, &moved).await
        }
        end = &mut download => {
            end?;
            linger(upload, &moved).await
        }
    }
}

async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..count]).await?;
        // A keystroke must not wait in a TLS buffer for the next one.
        writer.flush().await?;
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}

async fn linger(
    mut rest: Pin<&mut impl Future<Output = io::Result<()>>>,
    moved: &AtomicU64,
) -> io::Result<()> {
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(LINGER_LIMIT, rest.as_mut()).await {
            Ok(end) => return end,
            Err(_) if moved.load(Ordering::Relaxed) != before => {}
            Err(silence) => return Err(silence.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn asked_for(
        method: &str,
        version: Version,
        headers: &[(&str, &str)],
        body: BodyPresence,
    ) -> Option<Upgrade> {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        Upgrade::asked_for(&parts, body)
    }

    #[test]
    fn only_a_real_upgrade_is_one() {
        use BodyPresence::{Absent, Present};
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let websocket = [
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "WebSocket"),
        ];
        let http11 = Version::HTTP_11;
        assert!(asked_for("POST", http11, &spdy, Absent).is_some());
        assert!(asked_for("GET", http11, &spdy, Absent).is_some());
        assert!(asked_for("GET", http11, &websocket, Absent).is_some());

        assert!(asked_for("PUT", http11, &spdy, Absent).is_none());
        assert!(asked_for("POST", http11, &spdy, Present).is_none());
        assert!(asked_for("GET", Version::HTTP_10, &spdy, Absent).is_none());
        assert!(asked_for("GET", Version::HTTP_2, &spdy, Absent).is_none());
        for headers in [
            &[("upgrade", "websocket")] as &[(&str, &str)],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrader"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "SPDY/3.1"),
            ],
        ] {
            assert_eq!(
                asked_for("GET", http11, headers, Absent),
                None,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn the_answer_must_be_to_what_was_asked() {
        let upgrade = Upgrade(HeaderValue::from_static("SPDY/3.1"));
        for (answer, agreed) in [("spdy/3.1", true), ("SPDY/3.1", true), ("websocket", false)] {
            let mut headers = HeaderMap::new();
            assert!(!upgrade.is_agreed(&headers));
            headers.insert(header::UPGRADE, HeaderValue::from_static(answer));
            assert_eq!(upgrade.is_agreed(&headers), agreed, "{answer}");
        }
    }

    /// The far ends of two pipes that are joined, and the joining.
    fn joined() -> (
        DuplexStream,
        DuplexStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (client, near_client) = duplex(64);
        let (agent, near_agent) = duplex(64);
        (client, agent, tokio::spawn(join(near_client, near_agent)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_tail_follows_a_half_close() {
        let (mut client, mut agent, joining) = joined();
        client.write_all(b"input").await.expect("written");
        client.shutdown().await.expect("closed");
        let mut input = Vec::new();
        agent.read_to_end(&mut input).await.expect("read");
        assert_eq!(input, b"input");
        // Far longer than the limit in sum, never silent for as long as it.
        for _ in 0..5 {
            tokio::time::sleep(LINGER_LIMIT * 3 / 4).await;
            agent.write_all(b"output").await.expect("written");
        }
        drop(agent);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("read");
        assert_eq!(output, b"output".repeat(5));
        joining.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_a_half_close_ends_in_an_error() {
        let (client, mut agent, joining) = joined();
        agent.shutdown().await.expect("closed");
        let start = tokio::time::Instant::now();
        let error = joining.await.expect("no panic").expect_err("a time-out");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LINGER_LIMIT);
        assert!(start.elapsed() < LINGER_LIMIT * 3);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_alone_is_no_error() {
        let (mut client, mut agent, joining) = joined();
        tokio::time::sleep(LINGER_LIMIT * 100).await;
        client.write_all(b"x").await.expect("written");
        assert_eq!(agent.read_u8().await.expect("read"), b'x');
        assert!(!joining.is_finished());
    }
}
