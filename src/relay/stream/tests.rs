use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::*;
use crate::relay::websocket::Role;
use std::future::poll_fn;

/// The buffer between the two ends, for each direction.
const PIPE: usize = 16 * 1024;

fn pair() -> (ByteStream<DuplexStream>, WebSocket<DuplexStream>) {
    let (ours, theirs) = duplex(PIPE);
    (
        ByteStream::new(WebSocket::new(ours, Role::Client, Bytes::new()), None),
        WebSocket::new(theirs, Role::Server, Bytes::new()),
    )
}

/// The next message as the relay gets it.
async fn next_message(relay: &mut WebSocket<DuplexStream>) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        match relay.next_event().await.unwrap() {
            Event::Data { payload, end, kind } => {
                assert_eq!(kind, MessageKind::Binary);
                message.extend_from_slice(&payload);
                if end == MessageEnd::Last {
                    return message;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Answers pings until the stream is gone.
async fn stay_alive(mut relay: WebSocket<DuplexStream>) -> usize {
    let mut pings = 0;
    while let Ok(event) = relay.next_event().await {
        match event {
            Event::Ping => pings += 1,
            Event::Ended => break,
            _ => {}
        }
    }
    pings
}

async fn send(relay: &mut WebSocket<DuplexStream>, bytes: &[u8]) {
    relay.send(message(bytes)).await.unwrap();
}

async fn close(relay: &mut WebSocket<DuplexStream>, code: Option<u16>) {
    let reason = code.map(|code| CloseReason::new(code, "why\u{7}"));
    relay.send(Outgoing::Close(reason.as_ref())).await.unwrap();
}

#[tokio::test]
async fn a_write_is_one_message_of_at_most_64_kib() {
    let (mut stream, mut relay) = pair();
    let big = vec![7; MAX_MESSAGE + 1];
    let write = async {
        assert_eq!(stream.write(b"keystroke").await.unwrap(), 9);
        assert_eq!(stream.write(&big).await.unwrap(), MAX_MESSAGE);
        stream.flush().await.unwrap();
    };
    let read = async {
        assert_eq!(next_message(&mut relay).await, b"keystroke");
        assert_eq!(next_message(&mut relay).await, big[..MAX_MESSAGE]);
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_vectored_write_is_one_message() {
    let (mut stream, mut relay) = pair();
    assert!(stream.is_write_vectored());
    let half = vec![1; MAX_MESSAGE / 2];
    let slices = [b"".as_slice(), b"head", &half, &half].map(IoSlice::new);
    let write = async {
        let written = stream.write_vectored(&slices).await.unwrap();
        assert_eq!(written, MAX_MESSAGE);
        let written = stream.write_vectored(&slices[..2]).await.unwrap();
        assert_eq!(written, 4);
        assert_eq!(stream.write_vectored(&slices[..1]).await.unwrap(), 0);
        stream.flush().await.unwrap();
    };
    let read = async {
        let message = next_message(&mut relay).await;
        assert_eq!(&message[..4], b"head");
        assert_eq!(message.len(), MAX_MESSAGE);
        assert_eq!(next_message(&mut relay).await, b"head");
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn messages_of_any_type_and_shape_are_bytes() {
    let (mut stream, mut relay) = pair();
    let piece = |kind, payload, end| Outgoing::Data { kind, payload, end };
    for outgoing in [
        piece(MessageKind::Text, b"te".as_slice(), MessageEnd::More),
        Outgoing::Ping(b"x"),
        piece(MessageKind::Text, b"xt", MessageEnd::Last),
        piece(MessageKind::Binary, b"", MessageEnd::Last),
        piece(MessageKind::Binary, b"bin", MessageEnd::Last),
    ] {
        relay.send(outgoing).await.unwrap();
    }
    let mut read = [0; 7];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"textbin");
    assert_eq!(relay.next_event().await.unwrap(), Event::Pong);
}

#[tokio::test]
async fn shutdown_ends_one_direction() {
    let (mut stream, mut relay) = pair();
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(next_message(&mut relay).await, b"last words");
    assert_eq!(
        relay.next_event().await.unwrap(),
        Event::Close(Some(CloseReason::new(CloseReason::NORMAL, "Shutdown")))
    );
    assert_eq!(
        stream.write(b"more").await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );

    send(&mut relay, b"answer").await;
    close(&mut relay, Some(CloseReason::NORMAL)).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");

    // With both directions over, the socket ends too.
    stream.shutdown().await.unwrap();
    assert_eq!(relay.next_event().await.unwrap(), Event::Ended);
}

#[tokio::test]
async fn a_normal_close_is_a_clean_end_and_leaves_writing_open() {
    for code in [Some(CloseReason::NORMAL), None] {
        let (mut stream, mut relay) = pair();
        send(&mut relay, b"all").await;
        close(&mut relay, code).await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all");
        stream.write_all(b"still here").await.unwrap();
        assert_eq!(next_message(&mut relay).await, b"still here");
    }
}

#[tokio::test]
async fn any_other_close_is_an_error() {
    for code in [1001, CloseReason::POLICY, 1011, 4000] {
        let (mut stream, mut relay) = pair();
        send(&mut relay, b"part").await;
        close(&mut relay, Some(code)).await;
        let mut part = Vec::new();
        let error = stream.read_to_end(&mut part).await.unwrap_err();
        assert_eq!(part, b"part");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(
            error.to_string().contains(&format!("{code} why")),
            "{error}"
        );
        assert!(!error.to_string().contains('\u{7}'));
        // Never an end afterwards, either.
        let again = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_lost_socket_is_an_error() {
    for partial in [b"".as_slice(), b"\x82", b"\x82\x05par"] {
        let (ours, mut theirs) = duplex(PIPE);
        let mut stream = ByteStream::new(WebSocket::new(ours, Role::Client, Bytes::new()), None);
        theirs.write_all(partial).await.unwrap();
        drop(theirs);
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_framing_is_an_error() {
    let (ours, mut theirs) = duplex(PIPE);
    let mut stream = ByteStream::new(WebSocket::new(ours, Role::Client, Bytes::new()), None);
    theirs.write_all(b"\xff\x00").await.unwrap();
    let error = stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_answers_pings_stays() {
    let (mut stream, relay) = pair();
    let day = Duration::from_secs(24 * 60 * 60);
    let relay = tokio::spawn(stay_alive(relay));
    let mut byte = [0];
    tokio::time::timeout(day, stream.read(&mut byte))
        .await
        .expect_err("nothing was sent");
    drop(stream);
    assert_eq!(relay.await.unwrap(), 24 * 60 * 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_sign_of_life_is_an_error() {
    let (mut stream, _silent) = pair();
    let start = Instant::now();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 40);
    for error in [
        stream.read(&mut [0]).await.unwrap_err(),
        stream.write(b"x").await.unwrap_err(),
        stream.flush().await.unwrap_err(),
        stream.shutdown().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn data_counts_as_a_sign_of_life() {
    let (mut stream, mut relay) = pair();
    let talk = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(29)).await;
            send(&mut relay, b"x").await;
        }
    };
    let mut read = [0; 20];
    let (_, result) = tokio::join!(talk, stream.read_exact(&mut read));
    result.unwrap();
    // No ping was needed, so nothing at all was sent.
    close(&mut relay, None).await;
    drop(stream);
    assert_eq!(relay.next_event().await.unwrap(), Event::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_reader_is_not_held_against_the_peer() {
    let (mut stream, relay) = pair();
    let relay = tokio::spawn(stay_alive(relay));
    let mut byte = [0];
    let minute = Duration::from_secs(60);
    // Long enough that the ping is out, too short for its answer to be read.
    tokio::time::timeout(Duration::from_secs(30), stream.read(&mut byte))
        .await
        .expect_err("nothing was sent");
    tokio::time::sleep(5 * minute).await;
    tokio::time::timeout(minute, stream.read(&mut byte))
        .await
        .expect_err("nothing was sent");
    drop(stream);
    assert!(relay.await.unwrap() >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_stops_the_writer_and_is_given_up() {
    let (stream, _blocked) = pair();
    let start = Instant::now();
    let (mut reader, mut writer) = split(stream);
    let write = tokio::spawn(async move {
        let mut accepted = 0;
        let error = loop {
            match writer.write(&[0; 10_000]).await {
                Ok(size) => accepted += size,
                Err(error) => break error,
            }
        };
        (accepted, error)
    });
    let error = reader.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 150);

    let (accepted, error) = write.await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(accepted <= PIPE + 2 * MAX_MESSAGE, "{accepted} bytes taken");
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_silence_is_borne_for_five_minutes_without_a_ping() {
    let (mut stream, relay) = pair();
    stream.shutdown().await.unwrap();
    let relay = tokio::spawn(stay_alive(relay));
    let start = Instant::now();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 300);
    drop(stream);
    assert_eq!(relay.await.unwrap(), 0);
}

#[tokio::test]
async fn what_was_written_leaves_while_only_the_reader_is_polled() {
    let (stream, mut relay) = pair();
    let (mut reader, mut writer) = split(stream);
    // More than the pipe holds, so that most of it stays behind when `write` returns.
    let sent = vec![3; MAX_MESSAGE];
    assert_eq!(writer.write(&sent).await.unwrap(), MAX_MESSAGE);
    let read = tokio::spawn(async move { reader.read_u8().await.unwrap() });
    assert_eq!(next_message(&mut relay).await, sent);
    send(&mut relay, b"!").await;
    assert_eq!(read.await.unwrap(), b'!');
}

#[tokio::test]
async fn reading_into_no_room_reads_nothing() {
    let (mut stream, mut relay) = pair();
    send(&mut relay, b"x").await;
    let mut nothing = ReadBuf::new(&mut []);
    poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut nothing))
        .await
        .unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever sizes both sides write and read in, each gets the other's bytes, and then a clean end.
    #[test]
    fn both_directions_are_byte_streams(
        up in proptest::collection::vec(0..30_000_usize, 0..8),
        down in proptest::collection::vec(0..30_000_usize, 0..8),
        read_size in 1..70_000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = duplex(PIPE);
            let ends = [(ours, Role::Client, &up, &down), (theirs, Role::Server, &down, &up)];
            let both = ends.map(|(io, role, sizes, expected)| async move {
                let stream = ByteStream::new(WebSocket::new(io, role, Bytes::new()), None);
                let (mut reader, mut writer) = split(stream);
                let write = async {
                    for &size in sizes {
                        writer.write_all(&vec![size as u8; size]).await.unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let read = async {
                    let mut all = Vec::new();
                    let mut block = vec![0; read_size];
                    loop {
                        match reader.read(&mut block).await.unwrap() {
                            0 => return all,
                            size => all.extend_from_slice(&block[..size]),
                        }
                    }
                };
                let (_, received) = tokio::join!(write, read);
                let wanted: Vec<u8> = expected.iter().flat_map(|&size| vec![size as u8; size]).collect();
                assert!(received == wanted);
            });
            let [first, second] = both;
            tokio::join!(first, second);
        });
    }
}
