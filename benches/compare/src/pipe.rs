//! The byte pipes that the peers run over.

use std::{net::Ipv4Addr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Result, link, websocket};

/// One end of a pipe.
pub type Io = Box<dyn Duplex>;

pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pipe {
    /// Loopback TCP as the kernel sets it up, but for Nagle's algorithm.
    Tcp,
    /// Loopback TCP with 128 KiB in either queue: what is under way stays in the processor's cache.
    TcpShort,
    /// [`Pipe::Tcp`] whose writers wait while 128 KiB are not sent yet (`TCP_NOTSENT_LOWAT`).
    TcpLowWater,
    /// The same, and the queues of the sender are bounded (`SO_SNDBUF`), those of the receiver not.
    TcpBounded,
    /// TLS 1.3 over [`Pipe::Tcp`].
    Tls,
    /// Binary WebSocket messages over [`Pipe::Tcp`], framed by `tokio-websockets`.
    WebSocket,
    /// `tokio::io::duplex`, 256 KiB: no kernel, so what is left is the multiplexer.
    Memory,
    /// 1 Gbit/s, 50 ms there and back, a queue of 5 ms.
    Wan,
    /// As Azure Relay was measured: 14 Mbit/s, 100 ms there and back, 15 MiB of buffer in the middle.
    Relay,
}

const MEMORY_BYTES: usize = 256 * 1024;
const SHORT_QUEUE_BYTES: u32 = 128 * 1024;
const LOW_WATER_BYTES: u32 = 128 * 1024;
const SENDING_BYTES: usize = 256 * 1024;

impl Pipe {
    pub const ALL: [Self; 9] = [
        Self::Tcp,
        Self::TcpShort,
        Self::TcpLowWater,
        Self::TcpBounded,
        Self::Tls,
        Self::WebSocket,
        Self::Memory,
        Self::Wan,
        Self::Relay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "loopback TCP",
            Self::TcpShort => "loopback TCP, short queues",
            Self::TcpLowWater => "loopback TCP, low water of 128 KiB",
            Self::TcpBounded => "loopback TCP, low water and bounded sending",
            Self::Tls => "TLS 1.3 over loopback TCP",
            Self::WebSocket => "WebSocket over loopback TCP",
            Self::Memory => "in memory",
            Self::Wan => "1 Gbit/s, 50 ms",
            Self::Relay => "14 Mbit/s, 100 ms, 15 MiB of buffer",
        }
    }

    /// As the command line calls it.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::TcpShort => "tcp-short",
            Self::TcpLowWater => "tcp-low",
            Self::TcpBounded => "tcp-bounded",
            Self::Tls => "tls",
            Self::WebSocket => "ws",
            Self::Memory => "memory",
            Self::Wan => "wan",
            Self::Relay => "relay",
        }
    }

    /// Whether the pace is the emulated link's, and not the processor's.
    pub fn is_link(self) -> bool {
        matches!(self, Self::Wan | Self::Relay)
    }

    /// Both ends.
    pub async fn open(self) -> Result<(Io, Io)> {
        Ok(match self {
            Self::Tcp => boxed(tcp(None).await?),
            Self::TcpShort => boxed(tcp(Some(SHORT_QUEUE_BYTES)).await?),
            Self::TcpLowWater => boxed(sending_less(tcp(None).await?, None)?),
            Self::TcpBounded => boxed(sending_less(tcp(None).await?, Some(SENDING_BYTES))?),
            Self::Tls => tls().await?,
            Self::WebSocket => {
                let (near, far) = tcp(None).await?;
                boxed(websocket::open(near, far))
            }
            Self::Memory => boxed(tokio::io::duplex(MEMORY_BYTES)),
            Self::Wan => boxed(link::open(link::WAN)),
            Self::Relay => boxed(link::open(link::RELAY)),
        })
    }
}

fn boxed<A: Duplex + 'static, B: Duplex + 'static>((near, far): (A, B)) -> (Io, Io) {
    (Box::new(near), Box::new(far))
}

async fn tcp(queue: Option<u32>) -> Result<(TcpStream, TcpStream)> {
    let listening = TcpSocket::new_v4()?;
    let dialling = TcpSocket::new_v4()?;
    if let Some(bytes) = queue {
        for socket in [&listening, &dialling] {
            socket.set_recv_buffer_size(bytes)?;
            socket.set_send_buffer_size(bytes)?;
        }
    }
    listening.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener: TcpListener = listening.listen(1)?;
    let address = listener.local_addr()?;
    let (near, far) = tokio::join!(dialling.connect(address), listener.accept());
    let (near, (far, _)) = (near?, far?);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Leaves less in the kernel's queues on the way out.
fn sending_less(
    (near, far): (TcpStream, TcpStream),
    queue: Option<usize>,
) -> Result<(TcpStream, TcpStream)> {
    for end in [&near, &far] {
        let socket = SockRef::from(end);
        socket.set_tcp_notsent_lowat(LOW_WATER_BYTES)?;
        if let Some(bytes) = queue {
            socket.set_send_buffer_size(bytes)?;
        }
    }
    Ok((near, far))
}

async fn tls() -> Result<(Io, Io)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tcp(None).await?;
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let name = ServerName::try_from("localhost")?;
    let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    Ok(boxed((near?, far?)))
}
