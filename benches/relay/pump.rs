//! The least that a relay must do: it takes two WebSockets and passes messages between them.

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{ServerBuilder, WebSocketStream};

use crate::AnyError;

type Socket = WebSocketStream<TcpStream>;

/// Each two connections in a row are a pair.
pub async fn run(socket: TcpListener) -> Result<(), AnyError> {
    loop {
        let (one, other) = (accept(&socket).await?, accept(&socket).await?);
        tokio::spawn(pass(one, other));
    }
}

async fn accept(socket: &TcpListener) -> Result<Socket, AnyError> {
    let (tcp, _) = socket.accept().await?;
    tcp.set_nodelay(true)?;
    let (_, socket) = ServerBuilder::new().accept(tcp).await?;
    Ok(socket)
}

async fn pass(one: Socket, other: Socket) {
    let ((to_one, from_one), (to_other, from_other)) = (one.split(), other.split());
    let (there, back) = (from_one.forward(to_other), from_other.forward(to_one));
    // How it ends does not matter here.
    let _ = tokio::join!(there, back);
}
