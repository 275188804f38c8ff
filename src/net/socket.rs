//! How a TCP socket is set up, whichever side made the connection.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sets up a socket that was dialled.
///
/// `TCP_NODELAY`, because a tunnel carries keystrokes: Nagle's algorithm would hold them for up to 40 ms.
///
/// Keep-alive, because a peer or a firewall may vanish without a word. The relay's sockets have pings of their own; an
/// idle connection to an API server or an authority has nothing else, and the system's default begins after two hours.
///
/// Short queues on the way out, see [`shorten_queues`].
pub(super) fn set_up_dialled(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_INTERVAL);
    SockRef::from(tcp).set_tcp_keepalive(&keep_alive)?;
    shorten_queues(tcp);
    Ok(())
}

/// Sets up a socket that was accepted and carries a tunnel: `TCP_NODELAY`, and short queues on the way out.
///
/// # Errors
/// When the connection is gone.
#[cfg(any(feature = "agent", feature = "relay-server"))]
pub(crate) fn set_up_accepted(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    shorten_queues(tcp);
    Ok(())
}

/// What waits in the kernel waits in front of the next keystroke, where no scheduler of ours reaches it, and has left the
/// processor's cache when its turn comes.
///
/// `TCP_NOTSENT_LOWAT` everywhere: it counts what is not sent yet, so a long path still has as much under way as its
/// congestion window allows. A bounded `SO_SNDBUF` on loopback only, because it also counts what is under way, and the
/// kernel then no longer grows it: 50 ms away it would carry 5 MiB/s. The receiving side keeps its automatic size.
///
/// Measured by `benches/compare` (`--peer ours --rounds 3`, `tcp`, `tcp-low` and `tcp-bounded`, in one run on a busy
/// machine of two cores), as the system has it / low water / both:
///
/// | | one core | two workers |
/// |---|---|---|
/// | echo beside 8 busy streams, p50 ms | 0.73 / 0.54 / 0.23 | 1.16 / 1.21 / 0.33 |
/// | 16 streams, CPU ms/GiB | 481 / 372 / 248 | 622 / 581 / 397 |
/// | 1 stream, CPU ms/GiB | 256 / 253 / 237 | 286 / 285 / 297 |
///
/// A system that refuses works all the same.
fn shorten_queues(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    let is_loopback = tcp
        .peer_addr()
        .is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    if is_loopback {
        let _ = socket.set_send_buffer_size(LOOPBACK_SENDING_BYTES);
    }
}

/// Half of a batch of the multiplexer: the next one is ready before the kernel has sent this.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 * 1024;

/// A batch of the multiplexer. Linux doubles it, for its own book-keeping.
const LOOPBACK_SENDING_BYTES: usize = 256 * 1024;

/// Under the four minutes after which Azure's load balancers, and most firewalls, forget an idle connection.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);

/// With the usual nine probes a dead peer is noticed within three and a half minutes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (accepted, _) = listener.accept().await.unwrap();
        (dialled.unwrap(), accepted)
    }

    fn assert_short_queues(tcp: &TcpStream, receiving: usize) {
        let socket = SockRef::from(tcp);
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
            // Less where `net.core.wmem_max` is less; some 4 MiB where nobody asked.
            let sending = socket.send_buffer_size().unwrap();
            assert!(sending <= 2 * LOOPBACK_SENDING_BYTES, "{sending}");
        }
        assert_eq!(socket.recv_buffer_size().unwrap(), receiving);
    }

    #[tokio::test]
    async fn a_dialled_socket_sends_at_once_is_kept_alive_and_queues_little() {
        let (tcp, _other) = pair().await;
        let receiving = SockRef::from(&tcp).recv_buffer_size().unwrap();
        set_up_dialled(&tcp).unwrap();
        assert!(tcp.nodelay().unwrap());
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE_AFTER);
        assert_short_queues(&tcp, receiving);
    }

    #[cfg(any(feature = "agent", feature = "relay-server"))]
    #[tokio::test]
    async fn an_accepted_socket_sends_at_once_and_queues_little() {
        let (_other, tcp) = pair().await;
        let receiving = SockRef::from(&tcp).recv_buffer_size().unwrap();
        set_up_accepted(&tcp).unwrap();
        assert!(tcp.nodelay().unwrap());
        assert_short_queues(&tcp, receiving);
    }
}
