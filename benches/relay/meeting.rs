//! [`Meeting`]: where two WebSockets meet, and how they get there.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{
    net::{Endpoint, Security},
    relay::{HybridConnection, SasRule},
};
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, WebSocketStream};

use crate::{AnyError, KEY, NAME, RULE};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub enum Meeting {
    /// The address is all that it takes.
    Pump(SocketAddr),
    Relay(Box<Listener>),
}

pub struct Listener {
    address: SocketAddr,
    control: Socket,
}

impl Meeting {
    pub fn at_pump(address: SocketAddr) -> Self {
        Self::Pump(address)
    }

    pub async fn at_relay(address: SocketAddr) -> Result<Self, AnyError> {
        let control = dial(&target(address, "listen"), Some(&token(address, KEY)?)).await?;
        Ok(Self::Relay(Box::new(Listener { address, control })))
    }

    /// Both ends of one more connection.
    pub async fn pair(&mut self) -> Result<(Socket, Socket), AnyError> {
        match self {
            Self::Pump(address) => {
                let url = format!("ws://{address}/");
                Ok((dial(&url, None).await?, dial(&url, None).await?))
            }
            Self::Relay(listener) => {
                let url = target(listener.address, "connect");
                let token = token(listener.address, KEY)?;
                tokio::try_join!(dial(&url, Some(&token)), listener.accept())
            }
        }
    }
}

impl Listener {
    async fn accept(&mut self) -> Result<Socket, AnyError> {
        loop {
            let message = self
                .control
                .next()
                .await
                .ok_or("the control channel ended")??;
            if let Some(text) = message.as_text() {
                let message: serde_json::Value = serde_json::from_str(text)?;
                let address = message["accept"]["address"].as_str();
                return dial(address.ok_or("no address")?, None).await;
            }
        }
    }
}

pub async fn dial(url: &str, token: Option<&str>) -> Result<Socket, AnyError> {
    let mut builder = ClientBuilder::new().uri(url)?;
    if let Some(token) = token {
        let name = HeaderName::from_static("servicebusauthorization");
        builder = builder.add_header(name, HeaderValue::from_str(token)?)?;
    }
    let (socket, _) = builder.connect().await?;
    let MaybeTlsStream::Plain(tcp) = socket.get_ref();
    tcp.set_nodelay(true)?;
    Ok(socket)
}

pub fn target(address: SocketAddr, action: &str) -> String {
    format!("ws://{address}/$hc/{NAME}?sb-hc-action={action}")
}

pub fn hybrid_connection(address: SocketAddr) -> Result<HybridConnection, AnyError> {
    let endpoint = Endpoint::new(address.ip().to_string(), address.port(), Security::Plain);
    Ok(HybridConnection::new(endpoint, NAME)?)
}

pub fn token(address: SocketAddr, key: &str) -> Result<String, AnyError> {
    let expires_at = SystemTime::now() + Duration::from_secs(3600);
    let token = SasRule::new(RULE, key)?.sign(&hybrid_connection(address)?, expires_at);
    Ok(token.secret().to_owned())
}
