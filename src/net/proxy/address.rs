//! [`ProxyAddress`]: which proxy, spoken to how, and as whom.

use std::{fmt, net::Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use crate::net::{Endpoint, Security};

/// A proxy's URL taken apart.
#[derive(Clone)]
pub(super) struct ProxyAddress {
    pub(super) protocol: Protocol,
    pub(super) endpoint: Endpoint,
    pub(super) credentials: Option<Credentials>,
}

/// How a proxy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `CONNECT`, over TCP or TLS.
    Http,
    /// SOCKS 5, which is told addresses only.
    Socks5,
    /// SOCKS 5, which is told names and resolves them.
    Socks5Names,
}

/// User and password. Neither is ever shown: a user name may be that of an account.
#[derive(Clone)]
pub(super) struct Credentials {
    user: SecretString,
    password: SecretString,
}

impl ProxyAddress {
    /// Reads `[scheme://][user[:password]@]host[:port][/]`. The reason of a refusal never repeats the text.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.len() > MAX_URL {
            return Err("it is too long");
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (protocol, security, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, Security::Plain, 80),
            "https" => (Protocol::Http, Security::Tls, 443),
            "socks5" => (Protocol::Socks5, Security::Plain, 1080),
            "socks5h" => (Protocol::Socks5Names, Security::Plain, 1080),
            _ => return Err("its scheme is not http, https, socks5 or socks5h"),
        };
        // A password may hold what ends an authority elsewhere, if somebody forgot to encode it.
        let (user_info, rest) = match rest.rsplit_once('@') {
            Some((user_info, rest)) => (Some(user_info), rest),
            None => (None, rest),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_and_port(authority)?;
        let port = port.unwrap_or(default_port);
        Ok(Self {
            protocol,
            endpoint: Endpoint::new(host, port, security),
            credentials: user_info
                .map(|info| Credentials::parse(info, protocol))
                .transpose()?
                .flatten(),
        })
    }

    fn scheme(&self) -> &'static str {
        match (self.protocol, self.endpoint.security()) {
            (Protocol::Http, Security::Plain) => "http",
            (Protocol::Http, Security::Tls) => "https",
            (Protocol::Socks5, _) => "socks5",
            (Protocol::Socks5Names, _) => "socks5h",
        }
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user_info = match &self.credentials {
            Some(_) => "***@",
            None => "",
        };
        write!(f, "{}://{user_info}{}", self.scheme(), self.endpoint)
    }
}

impl Credentials {
    pub(super) fn new(user: String, password: String) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    fn parse(text: &str, protocol: Protocol) -> Result<Option<Self>, &'static str> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() && password.is_empty() {
            return Ok(None);
        }
        let decoded = |part: &str| {
            percent_decode_str(part)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| "its user or password is not UTF-8")
        };
        let (user, password) = (decoded(user)?, decoded(password)?);
        match protocol {
            // RFC 7617 section 2: it would end the user name.
            Protocol::Http if user.contains(':') => return Err("its user name holds a colon"),
            Protocol::Http => {}
            Protocol::Socks5 | Protocol::Socks5Names => {
                if user.is_empty()
                    || user.len() > MAX_SOCKS_FIELD
                    || password.len() > MAX_SOCKS_FIELD
                {
                    return Err("its user and password have to be of 1 to 255 bytes for SOCKS");
                }
            }
        }
        Ok(Some(Self::new(user, password)))
    }

    pub(super) fn user(&self) -> &str {
        self.user.expose_secret()
    }

    pub(super) fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// Whether a proxy's text gives away what it was sent.
    pub(super) fn is_repeated_in(&self, text: &str) -> bool {
        let encoded =
            SecretString::from(STANDARD.encode(format!("{}:{}", self.user(), self.password())));
        (!self.password().is_empty() && text.contains(self.password()))
            || text.contains(encoded.expose_secret())
    }
}

/// A host without brackets and a port, if there is one.
pub(super) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("its address has no closing ]")?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err("its host is not an IPv6 address");
            }
            (host, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            if !is_host_name(&text[..end]) {
                return Err("its host is not a host name");
            }
            (&text[..end], &text[end..])
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(
            digits
                .parse()
                .ok()
                .filter(|port| *port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or(
                    "its port is not a number from 1 to 65535 (an IPv6 address needs brackets)",
                )?,
        ),
        None if port.is_empty() => None,
        None => return Err("there is something behind its host"),
    };
    Ok((host, port))
}

/// Whether `host` can be asked of a proxy: nothing in it can end a line or a field.
pub(super) fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= MAX_HOST
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

/// A DNS name has at most 253 characters, and a dot at its end.
const MAX_HOST: usize = 254;

/// A length is one byte (RFC 1929 section 2).
const MAX_SOCKS_FIELD: usize = 255;

/// A name and a long password, each byte encoded.
const MAX_URL: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (Protocol, String, Security) {
        let address = ProxyAddress::parse(text).expect(text);
        let endpoint = address.endpoint;
        (address.protocol, endpoint.authority(), endpoint.security())
    }

    #[test]
    fn schemes_hosts_and_ports() {
        use Security::{Plain, Tls};
        for (text, protocol, authority, security) in [
            (
                "http://proxy.corp:3128",
                Protocol::Http,
                "proxy.corp:3128",
                Plain,
            ),
            ("proxy.corp:3128", Protocol::Http, "proxy.corp:3128", Plain),
            ("  HTTP://proxy/ ", Protocol::Http, "proxy:80", Plain),
            ("https://10.0.0.1", Protocol::Http, "10.0.0.1:443", Tls),
            ("socks5://proxy", Protocol::Socks5, "proxy:1080", Plain),
            ("socks5h://[::1]:9", Protocol::Socks5Names, "[::1]:9", Plain),
            ("[2001:db8::1]", Protocol::Http, "[2001:db8::1]:80", Plain),
        ] {
            let expected = (protocol, authority.to_owned(), security);
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        let credentials = |text: &str| {
            ProxyAddress::parse(text)
                .expect(text)
                .credentials
                .map(|own| (own.user().to_owned(), own.password().to_owned()))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (text, expected) in [
            ("http://a:b@h", pair("a", "b")),
            (
                "http://dom%5Cjane:p%40%3A%2F%20%25@h",
                pair("dom\\jane", "p@:/ %"),
            ),
            ("http://a:b:c@h", pair("a", "b:c")),
            ("http://jane@h", pair("jane", "")),
            ("http://a:p@ss/w#rd@h:1", pair("a", "p@ss/w#rd")),
            ("socks5h://j%C3%A4ne:x@h", pair("jäne", "x")),
            ("http://:@h", None),
            ("http://h", None),
        ] {
            assert_eq!(credentials(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        for text in [
            "",
            "http://",
            "ftp://h",
            "socks4://h",
            "http://h:0",
            "http://h:65536",
            "http://h:+1",
            "http://h:",
            "http://::1:80",
            "http://[::1",
            "http://[nonsense]",
            "http://[::1]80",
            "http://h/path",
            "http://h?query",
            "http://a b",
            "http://h\r\nX: y",
            "http://a%3Ab:hunter2@h",
            "http://%FF:hunter2@h",
            "socks5://:hunter2@h",
        ] {
            let reason = ProxyAddress::parse(text).map(drop).expect_err(text);
            assert!(!reason.contains("hunter2"));
        }
        let long = format!("socks5://a:{}@h", "x".repeat(MAX_SOCKS_FIELD + 1));
        assert!(ProxyAddress::parse(&long).is_err());
        assert!(ProxyAddress::parse(&"x".repeat(MAX_URL + 1)).is_err());
    }

    #[test]
    fn neither_user_nor_password_is_shown() {
        let address = ProxyAddress::parse("https://jane:hunter2@proxy.corp:8443").unwrap();
        assert_eq!(address.to_string(), "https://***@proxy.corp:8443");
        let credentials = address.credentials.unwrap();
        assert!(credentials.is_repeated_in("no hunter2 here"));
        assert!(credentials.is_repeated_in("Basic amFuZTpodW50ZXIy"));
        assert!(!credentials.is_repeated_in("jane may not"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "(http|socks5h)?(://)?.{0,40}") {
            if let Ok(address) = ProxyAddress::parse(&text) {
                prop_assert!(address.endpoint.port() != 0);
            }
        }
    }
}
