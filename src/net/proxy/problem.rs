//! [`Problem`]: why a proxy did not open the way, and what the user is told.

use std::io;

use super::{address::Credentials, http_connect::Refusal, socks5};
use crate::{Error, ErrorKind, net::Endpoint};

/// Why a proxy did not open the way.
#[derive(Debug)]
pub(super) enum Problem {
    /// The connection to the proxy broke.
    Io(io::Error),
    /// The proxy closed the connection in the middle of the conversation.
    Ended,
    /// The proxy does not speak the protocol.
    Malformed(&'static str),
    /// An HTTP proxy's no.
    Refused(Refusal, Password),
    /// A SOCKS proxy takes no client without a password, or none of the kinds that we have.
    NoMethod(Password),
    /// A SOCKS proxy does not take the user and password.
    WrongPassword,
    /// A SOCKS proxy's no.
    SocksReply(u8),
    /// The target can not be named to a proxy.
    Target(&'static str),
}

/// Whether the user gave one for the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Password {
    Given,
    Missing,
}

impl Password {
    pub(super) fn of(credentials: Option<&Credentials>) -> Self {
        credentials.map_or(Self::Missing, |_| Self::Given)
    }
}

impl Problem {
    /// The error, which names the hop.
    ///
    /// It carries no [`status`](Error::status): layers above take a status for the target's word.
    pub(super) fn into_error(self, proxy: &Endpoint, target: &Endpoint) -> Error {
        match self {
            Self::Io(cause) => broken(proxy, target).with_source(cause),
            Self::Ended => broken(proxy, target),
            Self::Malformed(what) => Error::new(
                ErrorKind::Protocol,
                format!("the proxy {proxy} does not answer as one: {what}"),
            )
            .with_help("check the proxy's scheme (http, https, socks5, socks5h), host and port"),
            Self::Refused(refusal, password) => refused(&refusal, password, proxy, target),
            Self::NoMethod(Password::Missing) => Error::new(
                ErrorKind::Unauthorized,
                format!("the proxy {proxy} wants a user and password"),
            )
            .with_help(PASSWORD_HELP),
            Self::NoMethod(Password::Given) => Error::new(
                ErrorKind::Unauthorized,
                format!("the proxy {proxy} takes no client with a user and password"),
            )
            .with_help(OTHER_SCHEME_HELP),
            Self::WrongPassword => Error::new(
                ErrorKind::Unauthorized,
                format!("the proxy {proxy} does not take the user and password"),
            )
            .with_help(WRONG_PASSWORD_HELP),
            Self::SocksReply(code) => {
                let (kind, text) = socks5::reply_text(code);
                Error::new(
                    kind,
                    format!("the proxy {proxy} did not connect us to {target}: {text}"),
                )
                .with_help(reach_help(kind))
            }
            Self::Target(what) => Error::new(
                ErrorKind::InvalidInput,
                format!("the proxy {proxy} can not be asked for {target:?}: {what}"),
            ),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// What a proxy says, for one line of a log: a stranger wrote it.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_SHOWN)
        .collect::<String>()
        .trim()
        .to_owned()
}

fn broken(proxy: &Endpoint, target: &Endpoint) -> Error {
    Error::new(
        ErrorKind::Network,
        format!("the proxy {proxy} closed the connection instead of connecting us to {target}"),
    )
    .with_help("check the proxy's scheme (http or https), host and port, and that it may connect to this host and port")
}

fn refused(refusal: &Refusal, password: Password, proxy: &Endpoint, target: &Endpoint) -> Error {
    let answer = match refusal.reason.as_str() {
        "" => refusal.status.to_string(),
        reason => format!("{} {reason}", refusal.status),
    };
    if refusal.status == 407 {
        let has_basic = refusal
            .schemes
            .iter()
            .any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let takes = match refusal.schemes.as_slice() {
            [] => String::new(),
            schemes => format!(" (it takes {})", schemes.join(", ")),
        };
        let help = match (password, has_basic || refusal.schemes.is_empty()) {
            (_, false) => OTHER_SCHEME_HELP,
            (Password::Missing, true) => PASSWORD_HELP,
            (Password::Given, true) => WRONG_PASSWORD_HELP,
        };
        let what = match password {
            Password::Missing => "wants a user and password",
            Password::Given => "does not take the user and password",
        };
        return Error::new(
            ErrorKind::Unauthorized,
            format!("the proxy {proxy} {what}: {answer}{takes}"),
        )
        .with_help(help);
    }
    let kind = match refusal.status {
        408 | 504 => ErrorKind::Timeout,
        429 | 500..=599 => ErrorKind::Network,
        300..=399 => ErrorKind::Protocol,
        _ => ErrorKind::Refused,
    };
    Error::new(
        kind,
        format!("the proxy {proxy} did not connect us to {target}: {answer}"),
    )
    .with_help(reach_help(kind))
}

fn reach_help(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => {
            "ask whoever runs the proxy to let connections (CONNECT) to this host and port through"
        }
        ErrorKind::Protocol => "the proxy sends its clients elsewhere: check its host and port",
        _ => "the proxy could not reach it: check the host name, then the proxy's own network",
    }
}

const PASSWORD_HELP: &str = "give them in the proxy's URL, as in http://user:password@host:3128, with special characters \
                             percent-encoded";

const WRONG_PASSWORD_HELP: &str = "check user and password in the proxy's URL; characters such as @ : / # % have to be percent-encoded there";

const OTHER_SCHEME_HELP: &str = "it asks for a kind of password that is not supported here (only Basic is): use a local \
                                 forwarding proxy that speaks it, or ask for an exception";

/// Of a reason, as much as fits on a line.
const MAX_SHOWN: usize = 200;
