//! TCP: all addresses of a name, each a moment after the other.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::net::{TcpStream, lookup_host};

use super::{Endpoint, hop::Hop, socket};
use crate::{Error, ErrorKind, Result};

/// Connects to `endpoint`, whichever of its addresses answers first.
///
/// Cancel-safe: a dropped future closes what it opened.
pub(super) async fn tcp_connect(endpoint: &Endpoint, hop: Hop<'_>) -> Result<TcpStream> {
    let dial = async {
        let addresses = resolve(endpoint).await?;
        race(&interleaved(addresses), connect_to).await
    };
    within_limit(hop, dial).await
}

/// The addresses of a name, in the order of the system's resolver.
pub(super) async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = lookup_host((endpoint.host(), endpoint.port()))
        .await?
        .collect();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

pub(super) async fn within_limit<T>(
    hop: Hop<'_>,
    dial: impl Future<Output = io::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(TCP_CONNECT_LIMIT, dial).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => Err(connect_error(hop, error)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer from {hop} within {TCP_CONNECT_LIMIT:?}"),
        )
        .with_help("check that a firewall does not drop packets to this host and port")),
    }
}

pub(super) fn connect_error(hop: Hop<'_>, error: io::Error) -> Error {
    let help = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: check the host and port, and that the server runs"
        }
        _ => "check the host name, DNS and the network",
    };
    Error::new(ErrorKind::Network, format!("can not connect to {hop}"))
        .with_source(error)
        .with_help(help)
}

/// The two families in turn, beginning with the one that the resolver prefers: where one family leads nowhere, the
/// second dial already goes over the other (RFC 8305 section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let Some(first) = unique.first().map(SocketAddr::is_ipv6) else {
        return unique;
    };
    let (preferred, other): (Vec<_>, Vec<_>) = unique
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut turns = Vec::new();
    for address in preferred {
        turns.push(address);
        turns.extend(other.next());
    }
    turns.extend(other);
    turns.truncate(MAX_ADDRESSES);
    turns
}

/// Dials one address after the other: the next as soon as one failed, or was silent for [`STAGGER`]. The first that
/// answers wins, the others are dropped.
async fn race<T, D>(addresses: &[SocketAddr], dial: impl Fn(SocketAddr) -> D) -> io::Result<T>
where
    D: Future<Output = io::Result<T>>,
{
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut dials = FuturesUnordered::new();
    for address in addresses {
        dials.push(dial(*address));
        match tokio::time::timeout(STAGGER, dials.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(outcome) = dials.next().await {
        match outcome {
            Ok(connected) => return Ok(connected),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    socket::set_up_dialled(&tcp)?;
    Ok(tcp)
}

/// How long one TCP connect, over all addresses of a name, may take. Longer than three lost SYN packets (1, 2, 4 s).
pub(super) const TCP_CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an address is alone in being dialled: the recommendation of RFC 8305 section 8, well above the round trip to
/// a relay's region.
const STAGGER: Duration = Duration::from_millis(250);

/// A name with more addresses than this has enough with these. Each is a socket of its own in the worst case.
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::{pending, ready},
    };

    use tokio::{
        net::TcpListener,
        time::{Instant, sleep},
    };

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_nothing_is_dialled_twice() {
        let list = addresses(&[
            "[::1]:1",
            "[::2]:1",
            "[::1]:1",
            "[::3]:1",
            "192.0.2.1:1",
            "192.0.2.2:1",
        ]);
        let expected = addresses(&[
            "[::1]:1",
            "192.0.2.1:1",
            "[::2]:1",
            "192.0.2.2:1",
            "[::3]:1",
        ]);
        assert_eq!(interleaved(list), expected);
        let one_family = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(interleaved(one_family.clone()), one_family);
        assert!(interleaved(Vec::new()).is_empty());
    }

    #[test]
    fn a_name_with_very_many_addresses() {
        let many: Vec<SocketAddr> = (0..100)
            .map(|n| SocketAddr::from(([10, 0, 0, n], 443)))
            .collect();
        assert_eq!(interleaved(many).len(), MAX_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_the_next_up_for_a_moment_only() {
        let list = addresses(&["[::1]:1", "192.0.2.1:1", "[::2]:1"]);
        let start = Instant::now();
        let tried = RefCell::new(Vec::new());
        let won = race(&list, |address| {
            tried.borrow_mut().push((address, start.elapsed()));
            async move {
                if address.is_ipv6() {
                    return pending().await;
                }
                sleep(Duration::from_millis(100)).await;
                Ok(address)
            }
        });
        assert_eq!(won.await.unwrap(), list[1]);
        assert_eq!(start.elapsed(), STAGGER + Duration::from_millis(100));
        assert_eq!(
            tried.into_inner(),
            [(list[0], Duration::ZERO), (list[1], STAGGER)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_makes_way_at_once() {
        let list = addresses(&["[::1]:1", "192.0.2.1:1"]);
        let start = Instant::now();
        let won = race(&list, |address| {
            ready(match address.is_ipv6() {
                true => Err(io::ErrorKind::ConnectionRefused.into()),
                false => Ok(address),
            })
        });
        assert_eq!(won.await.unwrap(), list[1]);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_may_still_win() {
        let list = addresses(&["[::1]:1", "192.0.2.1:1"]);
        let won = race(&list, |address| async move {
            if address.is_ipv6() {
                sleep(STAGGER * 4).await;
                return Ok(address);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        });
        assert_eq!(won.await.unwrap(), list[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_failure_is_told() {
        let list = addresses(&["[::1]:1", "192.0.2.1:1"]);
        let lost = race::<(), _>(&list, |address| {
            ready(Err(match address.is_ipv6() {
                true => io::ErrorKind::NetworkUnreachable.into(),
                false => io::ErrorKind::ConnectionRefused.into(),
            }))
        });
        let error = lost.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_socket_is_set_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = connect_to(listener.local_addr().unwrap()).await.unwrap();
        assert!(tcp.nodelay().unwrap());
        assert!(socket2::SockRef::from(&tcp).keepalive().unwrap());
    }
}
