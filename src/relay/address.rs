//! [`HybridConnection`]: where two parties meet.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use http::{Uri, uri::PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    Error, ErrorKind, Result,
    net::{Endpoint, Security},
};

/// A hybrid connection: the relay's host and port, and the path of the entity there.
///
/// The path may have several segments (`a/b/c`); it carries no leading slash.
///
/// ```
/// use arc_cluster_connect::{net::{Endpoint, Security}, relay::HybridConnection};
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let relay = Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls);
/// let hybrid_connection = HybridConnection::new(relay, "clusters/east")?;
/// assert_eq!(hybrid_connection.path(), "clusters/east");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HybridConnection {
    endpoint: Endpoint,
    path: String,
}

impl HybridConnection {
    /// The hybrid connection `path` at the relay `endpoint`. A leading and a trailing slash are dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the path is empty, longer than 512 bytes, or can not stand in a URL as it is:
    /// an empty, `.`, `..` or `$hc` segment, white space, a control character, or one of `?`, `#`, `%`, `\`.
    pub fn new(endpoint: Endpoint, path: &str) -> Result<Self> {
        Ok(Self {
            endpoint,
            path: checked_path(path)?.to_owned(),
        })
    }

    /// The relay's host and port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The entity's path, without a leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a SAS token for this hybrid connection names. The scheme is always `http` and the port is left out: so
    /// does Microsoft's .NET client, and a verifier looks at host and path only.
    pub(crate) fn audience(&self) -> String {
        format!("http://{}/{}/", host_for_url(&self.endpoint), self.path)
    }

    /// Path and query of the upgrade request for `action`; `id` becomes the prefix of the relay's tracking ids.
    pub(super) fn request_target(&self, action: &str, id: &str) -> String {
        let path = utf8_percent_encode(&self.path, PATH_ESCAPES);
        format!("/$hc/{path}?sb-hc-action={action}&sb-hc-id={id}")
    }
}

impl fmt::Display for HybridConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.endpoint, self.path)
    }
}

/// A `wss://host:port/path?query` taken apart.
#[derive(Debug)]
pub(super) struct RelayUrl {
    pub(super) endpoint: Endpoint,
    pub(super) path_and_query: PathAndQuery,
}

impl RelayUrl {
    /// Reads a URL of the schemes `sb`, `wss`, `https` (TLS, port 443) or `ws` (plain, port 80). The reason of a
    /// refusal never repeats the text: it may hold a secret.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        // `http::Uri` also takes `host:port` and `/path`; a URL without a scheme is most often a forgotten one.
        let (scheme, _) = text
            .split_once("://")
            .ok_or("it has no scheme such as sb://")?;
        let security = match scheme.to_ascii_lowercase().as_str() {
            "sb" | "wss" | "https" => Security::Tls,
            "ws" => Security::Plain,
            _ => return Err("its scheme is not sb, wss, https or ws"),
        };
        let uri = Uri::from_str(text).map_err(|_| "it is not a URL")?;
        let parts = uri.into_parts();
        let authority = parts.authority.ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user name");
        }
        let host = checked_host(authority.host()).ok_or("its host is not a host name")?;
        let written_port = &authority.as_str()[authority.host().len()..];
        let port = match (written_port.strip_prefix(':'), security) {
            (Some(digits), _) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("its port is not a number from 1 to 65535")?,
            (None, Security::Tls) => 443,
            (None, Security::Plain) => 80,
        };
        Ok(Self {
            endpoint: Endpoint::new(host, port, security),
            path_and_query: parts
                .path_and_query
                .unwrap_or(PathAndQuery::from_static("/")),
        })
    }
}

/// The host as it stands in a URL: an IPv6 address in brackets.
fn host_for_url(endpoint: &Endpoint) -> String {
    if endpoint.host().contains(':') {
        format!("[{}]", endpoint.host())
    } else {
        endpoint.host().to_owned()
    }
}

/// The host without brackets, if it is a name or an address at all.
fn checked_host(host: &str) -> Option<&str> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']')?;
        return address.parse::<Ipv6Addr>().is_ok().then_some(address);
    }
    let named = !host.is_empty()
        && host.len() <= MAX_HOST_LENGTH
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    named.then_some(host)
}

fn checked_path(path: &str) -> Result<&str> {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    let reason = if trimmed.is_empty() {
        "it is empty"
    } else if trimmed.len() > MAX_PATH_LENGTH {
        "it is longer than 512 bytes"
    } else if trimmed
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".." | "$hc"))
    {
        "it has an empty, '.', '..' or '$hc' segment"
    } else if trimmed.chars().any(|character| {
        character.is_control()
            || character.is_whitespace()
            || matches!(character, '?' | '#' | '%' | '\\')
    }) {
        "it holds white space, a control character, or one of ? # % \\"
    } else {
        return Ok(trimmed);
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("the name of the hybrid connection is not usable: {reason}"),
    )
    .with_help("give the name as the Azure portal shows it, such as 'clusters/east'"))
}

/// A DNS name has at most 253 characters (RFC 1035 section 2.3.4, in text form).
const MAX_HOST_LENGTH: usize = 253;

/// Azure takes 260 characters; Arc's own paths have about 130. Twice that leaves room and stays far below the limits
/// on request lines.
const MAX_PATH_LENGTH: usize = 512;

/// Everything but RFC 3986 `pchar` without the escape, and the slash between segments.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Endpoint {
        Endpoint::new(host, 443, Security::Tls)
    }

    #[test]
    fn a_path_keeps_its_segments_and_loses_outer_slashes() {
        let hybrid_connection = HybridConnection::new(at("relay.example"), "/a/b/").unwrap();
        assert_eq!(hybrid_connection.path(), "a/b");
        assert_eq!(hybrid_connection.to_string(), "relay.example:443/a/b");
        assert_eq!(hybrid_connection.audience(), "http://relay.example/a/b/");
        assert_eq!(
            hybrid_connection.request_target("listen", "1"),
            "/$hc/a/b?sb-hc-action=listen&sb-hc-id=1"
        );
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        let hybrid_connection = HybridConnection::new(at("::1"), "a").unwrap();
        assert_eq!(hybrid_connection.audience(), "http://[::1]/a/");
    }

    #[test]
    fn other_scripts_are_escaped_in_the_request() {
        let hybrid_connection = HybridConnection::new(at("relay.example"), "é").unwrap();
        assert!(
            hybrid_connection
                .request_target("connect", "1")
                .starts_with("/$hc/%C3%A9?")
        );
    }

    #[test]
    fn unusable_paths_are_refused() {
        let long = "a".repeat(MAX_PATH_LENGTH + 1);
        for path in [
            "", "/", "a//b", "a/../b", ".", "$hc/a", "a b", "a?b", "a#b", "a%2fb", "a\\b",
            "a\r\nb", &long,
        ] {
            let error = HybridConnection::new(at("relay.example"), path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
        HybridConnection::new(at("relay.example"), &"a".repeat(MAX_PATH_LENGTH)).unwrap();
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = RelayUrl::parse("wss://g17.relay.example/$hc/a?sb-hc-id=1_G17").unwrap();
        assert_eq!(url.endpoint, at("g17.relay.example"));
        assert_eq!(url.path_and_query.as_str(), "/$hc/a?sb-hc-id=1_G17");

        let url = RelayUrl::parse("WS://[::1]:8080").unwrap();
        assert_eq!(url.endpoint, Endpoint::new("::1", 8080, Security::Plain));
        assert_eq!(url.path_and_query.as_str(), "/");
        assert_eq!(
            RelayUrl::parse("ws://localhost").unwrap().endpoint.port(),
            80
        );
    }

    #[test]
    fn broken_urls_are_refused() {
        for text in [
            "relay.example",
            "relay.example:443",
            "ftp://relay.example/",
            "sb://",
            "sb:///path",
            "sb://user@relay.example/",
            "sb://relay.example:0/",
            "sb://relay.example:65536/",
            "sb://relay.example:/",
            "sb://rel ay.example/",
            "sb://rel$ay.example/",
            "sb://[::1/",
            "sb://[nonsense]/",
            &format!("sb://{}/", "a".repeat(MAX_HOST_LENGTH + 1)),
        ] {
            RelayUrl::parse(text).expect_err(text);
        }
    }
}
