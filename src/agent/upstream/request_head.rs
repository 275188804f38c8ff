//! A request's head, as HTTP/2 has it.

use http::{
    HeaderName, Request, Uri, Version, header,
    uri::{Authority, Parts, Scheme},
};

use crate::{Error, ErrorKind, Result};

/// What HTTP/2 says in its framing and forbids as a header (RFC 9113 section 8.2.2).
const OF_HTTP1: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The head of `request`: `Host` becomes `:authority`, the target stays byte for byte, and nothing that says who acts
/// changes.
pub(super) fn http2<B>(request: &Request<B>) -> Result<Request<()>> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = request.headers().clone();
    let headers = head.headers_mut();
    let authority = headers
        .remove(header::HOST)
        .and_then(|host| Authority::try_from(host.as_bytes()).ok())
        .ok_or_else(|| malformed("the request has no usable Host"))?;
    for name in &OF_HTTP1 {
        headers.remove(name);
    }
    // Many callers share a connection and with it its header table. A token must neither stay in the table nor shape
    // the size of what follows.
    if let Some(credential) = headers.get_mut(header::AUTHORIZATION) {
        credential.set_sensitive(true);
    }
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = request.uri().path_and_query().cloned();
    *head.uri_mut() = Uri::from_parts(parts)
        .map_err(|error| malformed("the request's target is not a path").with_source(error))?;
    Ok(head)
}

fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn the_head_is_translated_and_nothing_else_changes() {
        let target = "/api/v1/pods?labelSelector=a%20in%20(b,c)&x=%2F//";
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(target)
            .header(header::HOST, "[fd00::1]:6443")
            .header(header::AUTHORIZATION, "Bearer x")
            .header(header::TE, "trailers")
            .header(header::CONNECTION, "keep-alive")
            .header("keep-alive", "timeout=5")
            .header(header::TRANSFER_ENCODING, "chunked")
            .header("impersonate-group", "a")
            .header("impersonate-group", "b")
            .body(())
            .expect("well-formed");
        let head = http2(&request).expect("a head");
        assert_eq!(head.method(), Method::PATCH);
        assert_eq!(
            head.uri().to_string(),
            format!("https://[fd00::1]:6443{target}")
        );
        assert!(head.headers()[header::AUTHORIZATION].is_sensitive());
        let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(
            head.headers().get_all("impersonate-group").iter().count(),
            2
        );
        assert_eq!(head.headers()[header::TE], "trailers");
    }

    #[test]
    fn without_a_usable_host_there_is_no_head() {
        assert!(http2(&Request::new(())).is_err());
        let request = Request::builder().header(header::HOST, "a b").body(());
        assert!(http2(&request.expect("a header value")).is_err());
    }
}
