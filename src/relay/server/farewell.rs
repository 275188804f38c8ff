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
