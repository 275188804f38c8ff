//! The end of a WebSocket that the relay itself decides on.

use std::{future::poll_fn, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::relay::websocket::{CloseReason, Event, Outgoing, WebSocket, WebSocketError};

/// How long a peer has to take notice before the socket is dropped.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// Sends a Close, unless one was sent, and leaves.
pub(super) async fn close<T>(socket: &mut WebSocket<T>, reason: Option<&CloseReason>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    socket.start_send(Outgoing::Close(reason));
    leave(socket).await;
}

/// Sends what is unsent, ends the write side, and waits a moment for the peer to end its own.
///
/// Without the wait the socket would be reset if the peer has sent something that was not read, and the reset would
/// overtake what was sent last.
pub(super) async fn leave<T>(socket: &mut WebSocket<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let ending = async {
        poll_fn(|cx| socket.poll_shutdown(cx)).await?;
        while socket.next_event().await? != Event::Ended {}
        Ok::<_, WebSocketError>(())
    };
    // Whether it worked makes no difference: the socket is dropped.
    let _ = tokio::time::timeout(FAREWELL_WAIT, ending).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;
    use crate::relay::websocket::Role;

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_still_sends_is_read_to_its_end() {
        let (near, mut peer) = duplex(16);
        let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
        let peer = async {
            for _ in 0..1000 {
                peer.write_all(b"\x82\x04more").await.unwrap();
            }
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.unwrap();
            drop(peer);
            received
        };
        let reason = CloseReason::new(1001, "bye");
        let start = Instant::now();
        let leave = async {
            close(&mut socket, Some(&reason)).await;
            drop(socket);
        };
        let ((), received) = tokio::join!(leave, peer);
        // Header, mask, code, reason.
        assert_eq!(received.len(), 2 + 4 + 2 + 3);
        assert!(start.elapsed().is_zero(), "it waited for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stays_is_left_all_the_same() {
        let (near, _peer) = duplex(1);
        let mut socket = WebSocket::new(near, Role::Client, Bytes::new());
        let start = Instant::now();
        close(&mut socket, None).await;
        assert_eq!(start.elapsed(), FAREWELL_WAIT);
    }
}
