//! SOCKS 5 (RFC 1928), with user and password (RFC 1929).

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    address::{Credentials, is_host_name},
    problem::{Password, Problem},
};
use crate::ErrorKind;

/// Asks the proxy at the other end of `io` for a connection to `host`: a name, which the proxy resolves, or an address.
///
/// Answers are read to their last byte and no further: what follows is the target's.
pub(super) async fn open<T>(
    io: &mut T,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> Result<(), Problem>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(host, port)?;
    let greeting: &[u8] = match credentials {
        Some(_) => &[VERSION, 2, Method::NONE, Method::PASSWORD],
        None => &[VERSION, 1, Method::NONE],
    };
    send(io, greeting).await?;
    let mut answer = [0; 2];
    io.read_exact(&mut answer).await?;
    match (Method::parse(answer)?, credentials) {
        (Method::None, _) => {}
        (Method::Password, Some(credentials)) => {
            let message = secrecy::SecretBox::new(Box::new(password_message(credentials)));
            send(io, secrecy::ExposeSecret::expose_secret(&message)).await?;
            io.read_exact(&mut answer).await?;
            check_password_answer(answer)?;
        }
        (Method::Refused, credentials) => {
            return Err(Problem::NoMethod(Password::of(credentials)));
        }
        (Method::Password, None) => return Err(NOT_OFFERED),
    }
    send(io, &request).await?;
    let mut reply = Reply::default();
    while let Some(missing) = reply.missing()? {
        let from = reply.bytes.len();
        reply.bytes.resize(from + missing, 0);
        io.read_exact(&mut reply.bytes[from..]).await?;
    }
    match reply.code() {
        SUCCEEDED => Ok(()),
        code => Err(Problem::SocksReply(code)),
    }
}

async fn send<T: AsyncWrite + Unpin>(io: &mut T, message: &[u8]) -> Result<(), Problem> {
    io.write_all(message).await?;
    io.flush().await?;
    Ok(())
}

/// How the proxy wants to know its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    None,
    Password,
    Refused,
}

impl Method {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    const REFUSED: u8 = 0xff;

    pub(super) fn parse(answer: [u8; 2]) -> Result<Self, Problem> {
        match answer {
            [VERSION, Self::NONE] => Ok(Self::None),
            [VERSION, Self::PASSWORD] => Ok(Self::Password),
            [VERSION, Self::REFUSED] => Ok(Self::Refused),
            [VERSION, _] => Err(NOT_OFFERED),
            _ => Err(Problem::Malformed("it does not speak SOCKS 5")),
        }
    }
}

pub(super) fn check_password_answer(answer: [u8; 2]) -> Result<(), Problem> {
    match answer {
        [PASSWORD_VERSION, 0] => Ok(()),
        [PASSWORD_VERSION, _] => Err(Problem::WrongPassword),
        _ => Err(Problem::Malformed("its answer to the password is none")),
    }
}

fn password_message(credentials: &Credentials) -> Vec<u8> {
    let mut message = vec![PASSWORD_VERSION];
    for field in [credentials.user(), credentials.password()] {
        // The address was not taken with longer ones.
        message.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(&field.as_bytes()[..field.len().min(u8::MAX.into())]);
    }
    message
}

fn request(host: &str, port: u16) -> Result<Vec<u8>, Problem> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len())
                .ok()
                .filter(|_| is_host_name(host))
                .ok_or(Problem::Target("it is not a host name"))?;
            request.extend_from_slice(&[NAME, length]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

/// The answer to a request, which tells by its first bytes how long it is.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    /// How many bytes have to be read next; `None` when it is whole.
    pub(super) fn missing(&self) -> Result<Option<usize>, Problem> {
        const HEAD: usize = 4;
        const PORT: usize = 2;
        let wanted = match self.bytes.as_slice() {
            [VERSION, _, 0, IPV4, ..] => HEAD + 4 + PORT,
            [VERSION, _, 0, IPV6, ..] => HEAD + 16 + PORT,
            [VERSION, _, 0, NAME] => HEAD + 1,
            [VERSION, _, 0, NAME, length, ..] => HEAD + 1 + usize::from(*length) + PORT,
            [_, _, _, _, ..] => return Err(Problem::Malformed("its reply is none of SOCKS 5")),
            _ => HEAD,
        };
        Ok(wanted
            .checked_sub(self.bytes.len())
            .filter(|more| *more > 0))
    }

    pub(super) fn code(&self) -> u8 {
        self.bytes.get(1).copied().unwrap_or(GENERAL_FAILURE)
    }
}

/// What a reply other than success means (RFC 1928 section 6).
pub(super) fn reply_text(code: u8) -> (ErrorKind, &'static str) {
    match code {
        GENERAL_FAILURE => (ErrorKind::Network, "it failed, and does not say why"),
        2 => (ErrorKind::Refused, "its rules do not allow it"),
        3 => (ErrorKind::Network, "the network can not be reached"),
        4 => (ErrorKind::Network, "the host can not be reached"),
        5 => (ErrorKind::Network, "nothing listens there"),
        6 => (ErrorKind::Network, "the packets' time to live ran out"),
        7 => (ErrorKind::Refused, "it does not know this command"),
        8 => (ErrorKind::Refused, "it does not know this kind of address"),
        _ => (ErrorKind::Protocol, "its reason is not a known one"),
    }
}

/// Whether another address of the same name may do better.
pub(super) fn is_of_this_address(code: u8) -> bool {
    matches!(code, GENERAL_FAILURE | 3..=6 | 8)
}

const NOT_OFFERED: Problem = Problem::Malformed("it chose a method that was not offered");

const VERSION: u8 = 5;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests() {
        assert_eq!(
            request("a.bc", 443).unwrap(),
            [5, 1, 0, 3, 4, b'a', b'.', b'b', b'c', 1, 187]
        );
        assert_eq!(
            request("192.0.2.1", 1).unwrap(),
            [5, 1, 0, 1, 192, 0, 2, 1, 0, 1]
        );
        assert_eq!(request("::1", 1).unwrap()[..4], [5, 1, 0, 4]);
        for host in ["", "a b", "a\0", &"a".repeat(256)] {
            assert!(matches!(request(host, 1), Err(Problem::Target(_))));
        }
        let credentials = Credentials::new("me".into(), "p".into());
        assert_eq!(password_message(&credentials), [1, 2, b'm', b'e', 1, b'p']);
    }

    #[test]
    fn a_reply_knows_its_length() {
        for (whole, length) in [
            (&[5, 0, 0, 1, 1, 2, 3, 4, 0, 80][..], 10),
            (
                &[
                    5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 80,
                ],
                22,
            ),
            (&[5, 5, 0, 3, 2, b'a', b'b', 0, 80], 9),
            (&[5, 5, 0, 3, 0, 0, 80], 7),
        ] {
            let mut reply = Reply::default();
            let mut steps = 0;
            while let Some(missing) = reply.missing().unwrap() {
                let from = reply.bytes.len();
                reply.bytes.extend_from_slice(&whole[from..from + missing]);
                steps += 1;
            }
            assert_eq!(reply.bytes.len(), length);
            assert!(steps <= 3);
            assert_eq!(reply.code(), whole[1]);
        }
    }

    #[test]
    fn what_is_no_reply() {
        for bytes in [
            [4, 0, 0, 1],
            [5, 0, 1, 1],
            [5, 0, 0, 2],
            [b'H', b'T', b'T', b'P'],
        ] {
            let reply = Reply {
                bytes: bytes.to_vec(),
            };
            assert!(matches!(reply.missing(), Err(Problem::Malformed(_))));
        }
        assert!(Method::parse([4, 0]).is_err());
        assert!(Method::parse([5, 1]).is_err());
        assert_eq!(Method::parse([5, 0xff]).unwrap(), Method::Refused);
        assert!(matches!(
            check_password_answer([1, 1]),
            Err(Problem::WrongPassword)
        ));
        assert!(matches!(
            check_password_answer([5, 0]),
            Err(Problem::Malformed(_))
        ));
    }

    proptest! {
        /// The longest reply has 262 bytes, whatever the proxy sends.
        #[test]
        fn a_reply_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 300)) {
            let mut reply = Reply::default();
            while let Ok(Some(missing)) = reply.missing() {
                let from = reply.bytes.len();
                reply.bytes.extend_from_slice(&bytes[from..from + missing]);
            }
            prop_assert!(reply.bytes.len() <= 262);
        }
    }
}
