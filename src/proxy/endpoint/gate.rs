//! [`Gate`]: who may talk to the endpoint at all.

use http::{HeaderMap, HeaderValue, Uri, header, request::Parts, uri::Authority};

use super::status::{Failure, Reason};
use crate::proxy::secret::RunSecret;

/// The port that a URL without one means.
const HTTPS_PORT: u16 = 443;

/// By which way a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// TLS on the loopback port, open to every process on the machine.
    Port,
    /// The socket file, which only processes of the same user can reach: they could read the kubeconfig with the
    /// secret as well, so it is not asked for. Browsers do not speak to sockets, but what somebody puts in front of one
    /// may: `Host`, `Origin` and `Sec-Fetch-*` are checked here too.
    #[cfg_attr(not(unix), allow(dead_code))]
    UnixSocket,
}

/// What every request must pass before anything else is looked at, so that nobody learns which clusters are here.
///
/// The `Host` check stops a web page whose name was re-bound to 127.0.0.1; the `Origin` and `Sec-Fetch-*` check stops
/// every web page. Neither could show the secret, but a browser must not even be told whether it was right.
///
/// An `Origin` that is this endpoint itself passes: Python's WebSocket library, and so the Kubernetes client that uses
/// it for exec, sends one. The endpoint serves no page from which a browser could send the same.
pub(super) struct Gate {
    port: u16,
    secret: RunSecret,
}

impl Gate {
    pub(super) fn new(port: u16, secret: RunSecret) -> Self {
        Self { port, secret }
    }

    pub(super) fn admit(&self, request: &Parts, door: Door) -> Result<(), Failure> {
        self.admit_stranger(request, door)?;
        if !self.shows_the_secret(&request.headers, door) {
            return Err(Failure::new(
                Reason::Unauthorized,
                "the local proxy accepts only the bearer token of the kubeconfig that this run of it wrote; use that \
                 file and context, and start the proxy again if it is from an earlier run",
            ));
        }
        Ok(())
    }

    /// What has to pass even where the secret is not asked for.
    pub(super) fn admit_stranger(&self, request: &Parts, door: Door) -> Result<(), Failure> {
        if !self.is_addressed(&request.uri, &request.headers, door) {
            return Err(Failure::new(
                Reason::Forbidden,
                "the local proxy answers only to https://127.0.0.1, https://localhost and https://[::1] with its own \
                 port; use the server address of the kubeconfig that it wrote",
            ));
        }
        if self.comes_from_a_browser(&request.headers) {
            return Err(Failure::new(
                Reason::Forbidden,
                "the local proxy does not serve web pages: the request has a Sec-Fetch header or the Origin of another \
                 site; use kubectl or another Kubernetes client",
            ));
        }
        Ok(())
    }

    /// All names by which the client says whom it means must be ours, and there must be one.
    fn is_addressed(&self, uri: &Uri, headers: &HeaderMap, door: Door) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return false;
        }
        let host_is_ours = host.map(|host| {
            Authority::try_from(host.as_bytes())
                .is_ok_and(|authority| self.is_ours(&authority, door))
        });
        let uri_is_ours = uri
            .authority()
            .map(|authority| self.is_ours(authority, door));
        match (host_is_ours, uri_is_ours) {
            (None, None) => false,
            (host, uri) => host.unwrap_or(true) && uri.unwrap_or(true),
        }
    }

    fn is_ours(&self, authority: &Authority, door: Door) -> bool {
        let host = authority.host();
        let name_is_ours =
            host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]";
        // A socket file has no port to name.
        if door == Door::UnixSocket {
            return name_is_ours && !authority.as_str().contains('@');
        }
        name_is_ours
            && !authority.as_str().contains('@')
            && authority.port_u16().unwrap_or(HTTPS_PORT) == self.port
            // `localhost:` and `localhost:99999` have no port that parses, yet are not `localhost`.
            && (authority.port_u16().is_some() || authority.as_str() == host)
    }

    fn comes_from_a_browser(&self, headers: &HeaderMap) -> bool {
        let is_foreign = |origin: &HeaderValue| {
            !origin
                .as_bytes()
                .strip_prefix(b"https://")
                .and_then(|authority| Authority::try_from(authority).ok())
                .is_some_and(|authority| self.is_ours(&authority, Door::Port))
        };
        headers.get_all(header::ORIGIN).iter().any(is_foreign)
            || headers
                .keys()
                .any(|name| name.as_str().starts_with("sec-fetch-"))
    }

    pub(super) fn shows_the_secret(&self, headers: &HeaderMap, door: Door) -> bool {
        if door == Door::UnixSocket {
            return true;
        }
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => bearer(only).is_some_and(|token| self.secret.is(token)),
            _ => false,
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PORT: u16 = 47011;

    /// `headers` as pairs; `SECRET` in a value stands for the right secret.
    fn admit(uri: &str, headers: &[(&str, &str)]) -> Result<(), Reason> {
        let secret = RunSecret::generate();
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            let value = value.replace("SECRET", secret.shared().expose());
            request = request.header(*name, value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        Gate::new(PORT, secret)
            .admit(&parts, Door::Port)
            .map_err(|failure| failure.reason())
    }

    fn with_host(host: &str) -> Result<(), Reason> {
        admit("/", &[("host", host), ("authorization", "Bearer SECRET")])
    }

    fn with_authorization(value: &str) -> Result<(), Reason> {
        admit(
            "/",
            &[("host", "localhost:47011"), ("authorization", value)],
        )
    }

    #[test]
    fn only_the_loopback_names_with_our_port_are_ours() {
        for host in [
            "127.0.0.1:47011",
            "localhost:47011",
            "LocalHost:47011",
            "[::1]:47011",
        ] {
            assert_eq!(with_host(host), Ok(()), "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:443",
            "127.0.0.1:47012",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "127.0.0.2:47011",
            "127.1:47011",
            "0.0.0.0:47011",
            "localhost.evil.example:47011",
            "evil.example:47011",
            "evil.example@127.0.0.1:47011",
            "127.0.0.1:47011@evil.example",
            "::1:47011",
            "127.0.0.1:47011, evil.example",
            "127.0.0.1:47011/",
        ] {
            assert_eq!(with_host(host), Err(Reason::Forbidden), "{host}");
        }
    }

    #[test]
    fn the_default_port_may_be_left_out() {
        let gate = Gate::new(HTTPS_PORT, RunSecret::generate());
        for (host, ours) in [
            ("localhost", true),
            ("localhost:443", true),
            ("localhost:", false),
            ("localhost:99999", false),
        ] {
            let authority = host.parse::<Authority>();
            assert_eq!(
                authority.is_ok_and(|host| gate.is_ours(&host, Door::Port)),
                ours,
                "{host}"
            );
        }
    }

    #[test]
    fn every_name_must_be_ours_and_there_must_be_one() {
        let secret = ("authorization", "Bearer SECRET");
        let ours = ("host", "127.0.0.1:47011");
        let foreign = ("host", "evil.example:47011");
        let absolute = "https://127.0.0.1:47011/";
        assert_eq!(admit(absolute, &[secret]), Ok(()));
        assert_eq!(admit(absolute, &[secret, ours]), Ok(()));
        for (uri, headers) in [
            ("/", vec![secret]),
            ("/", vec![secret, ours, ours]),
            (absolute, vec![secret, foreign]),
            ("https://evil.example:47011/", vec![secret, ours]),
        ] {
            assert_eq!(admit(uri, &headers), Err(Reason::Forbidden), "{headers:?}");
        }
    }

    #[test]
    fn browsers_are_refused_even_with_the_secret() {
        for header in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:47011"),
            ("origin", "https://127.0.0.1:47012"),
            ("origin", "https://127.0.0.1:47011/"),
            ("origin", "https://evil.example@127.0.0.1:47011"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
        ] {
            let headers = [
                ("host", "127.0.0.1:47011"),
                ("authorization", "Bearer SECRET"),
                header,
            ];
            assert_eq!(admit("/", &headers), Err(Reason::Forbidden), "{header:?}");
        }
    }

    #[test]
    fn the_endpoint_itself_is_no_foreign_origin() {
        let headers = [
            ("host", "127.0.0.1:47011"),
            ("authorization", "Bearer SECRET"),
            ("origin", "https://127.0.0.1:47011"),
        ];
        assert_eq!(admit("/", &headers), Ok(()));
    }

    #[test]
    fn only_the_secret_as_one_bearer_token_opens() {
        for right in ["Bearer SECRET", "bearer SECRET", "BEARER SECRET"] {
            assert_eq!(with_authorization(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  SECRET",
            "BearerSECRET",
            "Basic SECRET",
            "SECRET",
            "Bearer SECRET0",
            "Bearer 0SECRET",
            "Bearer SECRET,SECRET",
            "Bearer 0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(
                with_authorization(wrong),
                Err(Reason::Unauthorized),
                "{wrong}"
            );
        }
        let host = ("host", "localhost:47011");
        let secret = ("authorization", "Bearer SECRET");
        assert_eq!(admit("/", &[host]), Err(Reason::Unauthorized));
        assert_eq!(
            admit("/", &[host, secret, secret]),
            Err(Reason::Unauthorized)
        );
    }

    #[test]
    fn the_socket_takes_no_secret_but_checks_the_rest() {
        let gate = Gate::new(PORT, RunSecret::generate());
        for (headers, passes) in [
            (&[("host", "localhost")] as &[(&str, &str)], true),
            (&[("host", "localhost:1")], true),
            (&[], false),
            (&[("host", "evil.example")], false),
            (&[("host", "evil@localhost")], false),
            (
                &[("host", "localhost"), ("origin", "https://evil.example")],
                false,
            ),
            (&[("host", "localhost"), ("sec-fetch-mode", "cors")], false),
        ] {
            let mut request = Request::builder().uri("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(
                gate.admit(&parts, Door::UnixSocket).is_ok(),
                passes,
                "{headers:?}"
            );
        }
    }
}
