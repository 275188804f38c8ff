//! Pipes that are difficult: they buffer, take nothing, or flood.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::{
    super::{Role, config::CLOSE_TIMEOUT, frame::Frame, settings::Settings},
    async_io::{pattern, side, stream_pair},
    control, hello, raw,
};
use crate::ErrorKind;

/// A pipe that keeps what is written until it is flushed, as TLS and WebSockets may.
struct Buffering {
    io: DuplexStream,
    held: Vec<u8>,
}

impl AsyncRead for Buffering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Buffering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() > 10_000 {
            std::task::ready!(self.as_mut().poll_flush(cx))?;
        }
        self.held.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.held.is_empty() {
            let written = std::task::ready!(Pin::new(&mut this.io).poll_write(cx, &this.held))?;
            this.held.drain(..written);
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_buffers_is_flushed() {
    let (near, far) = tokio::io::duplex(300);
    let buffering = |io| Buffering {
        io,
        held: Vec::new(),
    };
    let client = side(buffering(near), Role::Client);
    let mut server = side(buffering(far), Role::Server);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    for _ in 0..3 {
        near.write_all(b"question").await.unwrap();
        let mut text = [0; 8];
        far.read_exact(&mut text).await.unwrap();
        far.write_all(&text).await.unwrap();
        near.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"question");
    }
    let data = pattern(500_000);
    let copy = data.clone();
    let writing = tokio::spawn(async move {
        near.write_all(&copy).await.unwrap();
        near.shutdown().await.unwrap();
    });
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    writing.await.unwrap();
    assert_eq!(all, data);
}

/// A pipe whose peer takes nothing.
struct Stuck;

impl AsyncRead for Stuck {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_pipe_keeps_nobody_for_ever() {
    let client = side(Stuck, Role::Client);
    client.session.open(Bytes::new()).await.unwrap();
    let error = client.driver.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);

    let client = side(Stuck, Role::Client);
    client.session.close("done");
    client.driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_slowly_and_honest_work_goes_on_after_it() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let client = side(near, Role::Client);
    let flood = control(Frame::Ping(1)).repeat(7000);
    far.write_all(&[hello(Settings::INITIAL), flood].concat())
        .await
        .unwrap();
    client.session.ready().await.unwrap();
    let start = tokio::time::Instant::now();
    far.write_all(&control(Frame::Ping(0xfeed))).await.unwrap();
    let answer = control(Frame::Pong(0xfeed));
    let mut said = Vec::new();
    while !said.ends_with(&answer) {
        far.read_buf(&mut said).await.unwrap();
    }
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert!(!client.session.is_closed());
}

#[tokio::test]
async fn who_is_cut_off_for_a_flood_is_told_why() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let server = side(listener.accept().await.unwrap().0, Role::Server);
    // The smallest frames: enough of them in one read of the driver.
    let flood = raw(15, 8, 0, b"").repeat(400_000);
    let said = async {
        let (mut reader, mut writer) = peer.split();
        let mut said = Vec::new();
        let (_, read) = tokio::join!(
            async {
                let greeting = hello(Settings::INITIAL);
                writer.write_all(&[greeting, flood].concat()).await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut said)
        );
        read.map(|_| said)
    };
    let start = std::time::Instant::now();
    let said = tokio::time::timeout(Duration::from_secs(20), said)
        .await
        .expect("the flood ends the session")
        .expect("not a reset, which would destroy the last word");
    let text = String::from_utf8_lossy(&said);
    assert!(
        text.contains("control"),
        "{:?}",
        text.get(text.len().saturating_sub(80)..)
    );
    assert!(server.driver.await.unwrap().is_err());
    assert!(
        start.elapsed() < CLOSE_TIMEOUT,
        "the rest of the flood was not read"
    );
}
