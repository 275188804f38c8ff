//! [`Target`]: where a URL leads, and which URLs are followed at all.

use http::Uri;

use crate::{
    Error, ErrorKind, Result,
    net::{Endpoint, Security, is_on_this_link},
};

/// Whether an `http` URL may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Refused,
    /// When the host is this machine or an address of its link.
    OnThisMachine,
}

/// The endpoint of a URL, and what stands in the request line.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) path: Uri,
}

impl Target {
    pub(super) fn of(url: &str, plain: Plain) -> Result<Self> {
        let invalid = |why: &'static str| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the URL {} {why}", without_query(url)),
            )
        };
        let parsed: Uri = url.parse().map_err(|_| invalid("is malformed"))?;
        let (security, default_port) = match parsed.scheme_str() {
            Some("https") => (Security::Tls, 443),
            Some("http") if plain == Plain::OnThisMachine => (Security::Plain, 80),
            _ => return Err(invalid("is not an https URL")),
        };
        let authority = parsed.authority().ok_or_else(|| invalid("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("has a user name in it"));
        }
        // A port that is no number is not reported by the parser, only left out.
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(invalid("has a malformed port"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid("has no host"));
        }
        if security == Security::Plain && !is_on_this_link(host) {
            return Err(invalid("is plain http and not of this machine"));
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let path = parsed.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            endpoint: Endpoint::new(host, port, security),
            path: path.parse().map_err(|_| invalid("has a malformed path"))?,
        })
    }
}

pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_are_taken() {
        for url in [
            "http://host/",
            "http://127.0.0.1/",
            "ftp://host/",
            "https://",
            "https://user:hush@host/",
            "/path",
            "",
            "https://host:port/",
            "https://ho st/",
        ] {
            assert!(Target::of(url, Plain::Refused).is_err(), "{url}");
        }
        let target = Target::of("https://[::1]:8443/a/b?c=d", Plain::Refused).unwrap();
        assert_eq!(
            (target.endpoint.host(), target.endpoint.port()),
            ("::1", 8443)
        );
        assert_eq!(target.path, "/a/b?c=d");
        let target = Target::of("https://host", Plain::Refused).unwrap();
        assert_eq!(target.endpoint.port(), 443);
    }

    #[test]
    fn plain_http_goes_no_further_than_the_link() {
        for url in [
            "http://169.254.169.254/metadata/identity/oauth2/token",
            "http://localhost:40342/",
            "http://127.0.0.1:41741/msi/token",
            "http://[::1]/",
            "http://[fe80::1]/",
        ] {
            let target = Target::of(url, Plain::OnThisMachine).unwrap();
            assert_eq!(target.endpoint.security(), Security::Plain, "{url}");
        }
        for url in [
            "http://10.0.0.1/",
            "http://host/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://[fd00::1]/",
            "ftp://127.0.0.1/",
        ] {
            assert!(Target::of(url, Plain::OnThisMachine).is_err(), "{url}");
        }
    }
}
