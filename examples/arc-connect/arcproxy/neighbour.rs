//! Whose process is at the other end of a loopback connection. Linux tells; elsewhere every process is let in.

use std::net::SocketAddr;

/// # Errors
/// When the connection from `peer` to `local` is another user's, or nobody's.
#[cfg(target_os = "linux")]
pub fn check(peer: SocketAddr, local: SocketAddr) -> Result<(), &'static str> {
    use std::os::unix::fs::MetadataExt;

    let own = std::fs::metadata("/proc/self").map(|process| process.uid());
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let (Ok(own), true) = (own, tables.iter().any(Result::is_ok)) else {
        // No /proc: as on other systems.
        return Ok(());
    };
    let user = tables
        .iter()
        .flatten()
        .find_map(|table| owner(table, peer, local));
    match user {
        // Root may do what it wants with this process anyway.
        Some(user) if user == own || user == 0 => Ok(()),
        Some(_) => Err("only processes of the user who runs this program may use it"),
        None => Err("the connection belongs to no process of this machine"),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn check(_peer: SocketAddr, _local: SocketAddr) -> Result<(), &'static str> {
    Ok(())
}

/// The user whose socket is the end `from` of a connection to `to`, in a table of the form of `/proc/net/tcp`.
#[cfg(target_os = "linux")]
fn owner(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let (from, to) = (spellings(from)?, spellings(to)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (near, far) = (fields.next()?, fields.next()?);
        let is_it = from
            .iter()
            .zip(&to)
            .any(|(from, to)| near == from && far == to);
        // Past the state, queues, timer and retransmissions.
        let user = fields.nth(4)?;
        is_it.then(|| user.parse().ok())?
    })
}

/// An IPv4 address as it stands in the tables of IPv4, and of IPv6 for a socket of both: words in the order of the
/// machine.
#[cfg(target_os = "linux")]
fn spellings(address: SocketAddr) -> Option<[String; 2]> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let word = u32::from_ne_bytes(address.ip().octets());
    let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    let port = address.port();
    Some([
        format!("{word:08X}:{port:04X}"),
        format!("{:016X}{mapped:08X}{word:08X}:{port:04X}", 0),
    ])
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn our_own_connection_is_ours_and_no_other_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(check(peer, local), Ok(()));
        drop(client);
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(check(nobody, local).is_err());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_table_tells_the_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            0: 0100007F:B7A3 0100007F:9C42 01 00000000:00000000 00:00000000 00000000  1000        0 1\n\
            1: 0100007F:9C42 0100007F:B7A3 01 00000000:00000000 00:00000000 00000000     7        0 2\n";
        let client = SocketAddr::from(([127, 0, 0, 1], 0x9c42));
        let server = SocketAddr::from(([127, 0, 0, 1], 0xb7a3));
        assert_eq!(owner(table, client, server), Some(7));
        assert_eq!(owner(table, server, client), Some(1000));
        assert_eq!(owner(table, server, server), None);
        let six = "header\n0: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000100007F:B7A3 \
            01 0:0 0:0 0 9 0 1\n";
        assert_eq!(owner(six, client, server), Some(9));
    }
}
