//! HTTP/2 floods on the proxy's port (R18: CVE-2023-44487, CVE-2024-27316 and their kin): what they cost is bounded, and
//! nobody else notices.

use std::time::Duration;

use arc_cluster_connect::net::{Alpn, NetStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Bed, FORGED,
    hpack::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, NEWEST, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, frame, indexed, literal, preface, request,
    },
};

/// How long a flood may go on. Each of them is written in far less when it is not resisted.
const FLOOD_LIMIT: Duration = Duration::from_secs(10);
/// What all of them together may cost this process, in which the attackers, too, keep what they send. Without limits the
/// header bomb alone takes a gigabyte.
#[cfg(target_os = "linux")]
const MEMORY_LIMIT: u64 = 256 << 20;

/// How the proxy let a flood end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It closed the connection, or takes no more of it.
    Resisted,
    /// All of it was taken.
    Taken,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_floods_of_http2_are_bounded_and_nobody_else_notices() {
    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    let ordinary = request(&host, &format!("{base}/version"), &secret);
    #[cfg(target_os = "linux")]
    let before = resident_bytes();

    // Rapid reset: each request is given up as soon as it is made.
    let resets = (0..20_000).map(|number| {
        let stream = 2 * number + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &ordinary);
        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        bytes
    });
    assert_eq!(flood(&bed, resets).await, End::Resisted);
    bed.still_serves("rapid resets").await;

    // A head that never ends.
    let start = [frame(HEADERS, END_STREAM, 1, &ordinary)];
    let piece = frame(CONTINUATION, 0, 1, &literal("x-flood", &"a".repeat(8_000)));
    let endless = start.into_iter().chain(std::iter::repeat_n(piece, 4_000));
    assert_eq!(flood(&bed, endless).await, End::Resisted);
    bed.still_serves("an endless head").await;

    // The same with empty pieces, which count against no size.
    let start = [frame(HEADERS, END_STREAM, 1, &ordinary)];
    let empty = frame(CONTINUATION, 0, 1, &[]);
    let endless = start.into_iter().chain(std::iter::repeat_n(empty, 100_000));
    assert_eq!(flood(&bed, endless).await, End::Resisted);
    bed.still_serves("an endless head of empty pieces").await;

    // A header bomb: one byte each for four thousand.
    let mut bomb = ordinary.clone();
    bomb.extend(indexed("x-bomb", &"a".repeat(4_000)));
    bomb.extend(vec![NEWEST; 10_000]);
    let bombs =
        (0..100).map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb));
    flood(&bed, bombs).await;
    bed.still_serves("header bombs").await;

    // Answers that nobody reads.
    let pings = std::iter::repeat_n(frame(PING, 0, 0, b"12345678"), 500_000);
    flood(&bed, pings).await;
    bed.still_serves("pings").await;
    let settings = std::iter::repeat_n(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), 500_000);
    flood(&bed, settings).await;
    bed.still_serves("settings").await;

    // A body of nothing, for ever.
    let upload = [
        literal(":method", "POST"),
        literal(":scheme", "https"),
        literal(":authority", &host),
        literal(":path", &format!("{base}/version")),
        literal("authorization", &format!("Bearer {secret}")),
    ]
    .concat();
    let start = [frame(HEADERS, END_HEADERS, 1, &upload)];
    let nothing = frame(DATA, 0, 1, &[]);
    flood(
        &bed,
        start
            .into_iter()
            .chain(std::iter::repeat_n(nothing, 200_000)),
    )
    .await;
    bed.still_serves("empty data").await;

    // More requests at once than are allowed, none of them with a proof of who asks.
    let anonymous = request(&host, &format!("{base}{FORGED}"), "wrong");
    let many = (0..5_000).map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &anonymous));
    flood(&bed, many).await;
    bed.still_serves("many streams").await;

    bed.assert_nothing_forged("floods");
    #[cfg(target_os = "linux")]
    {
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < MEMORY_LIMIT, "{} MiB more", grown >> 20);
    }
}

/// Frames that break the protocol end the connection and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_broken_http2_ends_its_connection_only() {
    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    let forged = request(&host, &format!("{base}{FORGED}"), &secret);
    for (name, bytes) in [
        (
            "a stream of the server's",
            frame(HEADERS, END_HEADERS, 2, &forged),
        ),
        (
            "a request on stream 0",
            frame(HEADERS, END_HEADERS, 0, &forged),
        ),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 7, b"x")),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "a window beyond 2^31",
            [0x7f, 0xff, 0xff, 0xff]
                .map(|_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]))
                .concat(),
        ),
        ("a ping of 7 bytes", frame(PING, 0, 0, b"1234567")),
        ("settings of 5 bytes", frame(SETTINGS, 0, 0, b"12345")),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &forged),
        ),
        (
            "something between head and continuation",
            [
                frame(HEADERS, 0, 1, &forged),
                frame(PING, 0, 0, b"12345678"),
            ]
            .concat(),
        ),
        (
            "a frame of 16 MiB",
            vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
        ),
        (
            "an index that is not in the table",
            frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "an index of nothing",
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
        ),
    ] {
        let mut stream = bed.proxy(Alpn::Http2).await;
        stream
            .write_all(&[preface(), bytes].concat())
            .await
            .expect("it is read");
        let mut answer = Vec::new();
        let end = timeout(FLOOD_LIMIT, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "{name}: the connection is not closed");
        bed.assert_nothing_forged(name);
    }
    bed.still_serves("broken HTTP/2").await;
}

/// HTTP/2 fields that would be framing or identity in HTTP/1.1, which the way to the agent speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_http2_fields_do_not_become_framing() {
    let bed = Bed::start().await;
    let (host, base, secret) = bed.proxy_address();
    let forged = format!(
        "x\r\n\r\nGET {FORGED} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n"
    );
    let path = format!("{base}/version");
    let path_with_line = format!("{base}/version HTTP/1.1\r\nHost: x\r\n\r\nGET {FORGED}");
    for (name, fields) in [
        ("transfer-encoding", literal("transfer-encoding", "chunked")),
        ("connection", literal("connection", "transfer-encoding")),
        ("upgrade", literal("upgrade", "websocket")),
        ("a line in a value", literal("x-line", &forged)),
        ("a line in a name", literal("x\r\nforged", "a")),
        ("a NUL in a value", literal("x-nul", "a\0b")),
        ("an upper-case name", literal("X-Upper", "a")),
        ("a colon in a name", literal("x:y", "a")),
        ("an empty name", literal("", "a")),
        ("a second path", literal(":path", FORGED)),
        (
            "a late pseudo-header",
            [literal("x", "y"), literal(":authority", "z")].concat(),
        ),
        ("an unknown pseudo-header", literal(":forged", "x")),
        (
            "a length that is not the body's",
            literal("content-length", "5"),
        ),
    ] {
        let head = [request(&host, &path, &secret), fields].concat();
        let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
        assert_refused(&bed, name, frames).await;
    }
    let head = request(&host, &path_with_line, &secret);
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    assert_refused(&bed, "a line in the path", frames).await;
    bed.still_serves("fields of HTTP/1.1").await;
}

async fn assert_refused(bed: &Bed, name: &str, frames: Vec<u8>) {
    let requests = bed.stand_in.requests().len();
    let mut stream = bed.proxy(Alpn::Http2).await;
    stream
        .write_all(&[preface(), frames].concat())
        .await
        .expect("it is read");
    // Streams are reset or answered with an error; a second is ample for either on loopback.
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    drop(stream);
    bed.assert_nothing_forged(name);
    assert_eq!(
        bed.stand_in.requests().len(),
        requests,
        "{name} reached the API server"
    );
}

/// Writes a flood and never reads, until it is over or resisted.
async fn flood(bed: &Bed, frames: impl Iterator<Item = Vec<u8>>) -> End {
    let mut stream = bed.proxy(Alpn::Http2).await;
    let write = async {
        stream.write_all(&preface()).await?;
        let mut batch = Vec::new();
        for frame in frames {
            batch.extend(frame);
            if batch.len() > 64 * 1024 {
                stream.write_all(&batch).await?;
                batch.clear();
            }
        }
        stream.write_all(&batch).await?;
        stream.flush().await
    };
    match timeout(FLOOD_LIMIT, write).await {
        Ok(Ok(())) if !is_closed(&mut stream).await => End::Taken,
        _ => End::Resisted,
    }
}

/// Whether the other side has given the connection up.
async fn is_closed(stream: &mut NetStream) -> bool {
    let mut sink = vec![0; 64 * 1024];
    let read = async {
        while let Ok(length) = stream.read(&mut sink).await {
            if length == 0 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(1), read).await.is_ok()
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells it");
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .expect("the kernel tells it");
    kib * 1024
}
