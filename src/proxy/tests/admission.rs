//! Who is let in, and what the others learn.

use http::{Request, StatusCode, header};

use super::{
    fakes::{FakeAuth, FakeTunnel},
    support::{BOTH_VERSIONS, Bed, empty, ok, status_of, text},
};
use crate::{
    ErrorKind,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
    proxy::{Proxy, ProxyId},
};

#[tokio::test]
async fn without_the_secret_everything_is_the_same_401() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let secret = bed.endpoint().secret().to_owned();
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        let mut answers = Vec::new();
        for path in [
            format!("/proxies/{}", bed.id),
            format!("/proxies/{}", ProxyId::from_name("unknown")),
            "/".to_owned(),
            "/healthz".to_owned(),
        ] {
            for authorization in [
                None,
                Some(String::new()),
                Some("Bearer wrong".to_owned()),
                Some(format!("Basic {secret}")),
                Some(format!("Bearer {}", &secret[1..])),
            ] {
                let mut request = Request::get(format!("https://127.0.0.1:{}{path}", bed.port()));
                if let Some(value) = authorization {
                    request = request.header(header::AUTHORIZATION, value);
                }
                let request = request.body(empty()).expect("a request");
                let response = client.send(request).await.expect("an answer");
                assert_eq!(response.headers()["www-authenticate"], "Bearer");
                answers.push(status_of(response).await);
            }
        }
        assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
        assert_eq!(answers[0].1, "Unauthorized");
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "nothing is told apart: {answers:?}"
        );
    }
    assert_eq!(bed.tunnel.opened(), 0);
}

#[tokio::test]
async fn an_unknown_id_is_a_404_for_who_has_the_secret() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        for path in [
            format!("/proxies/{}/api", ProxyId::from_name("unknown")),
            "/healthz".to_owned(),
            format!("/proxies/{}0/api", bed.id),
        ] {
            let request = Request::get(format!("https://127.0.0.1:{}{path}", bed.port()))
                .header(
                    "authorization",
                    format!("Bearer {}", bed.endpoint().secret()),
                )
                .body(empty())
                .expect("a request");
            let response = client.send(request).await.expect("an answer");
            let (code, reason, _) = status_of(response).await;
            assert_eq!((code, reason.as_str()), (StatusCode::NOT_FOUND, "NotFound"));
        }
    }
    assert_eq!(bed.tunnel.opened(), 0);
}

#[tokio::test]
async fn browsers_and_foreign_names_are_refused() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    for version in BOTH_VERSIONS {
        let mut client = bed.client(version).await;
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("host", "evil.example"),
        ] {
            let request = bed
                .request("GET", "/api")
                .header(name, value)
                .body(empty())
                .expect("a request");
            let response = client.send(request).await.expect("an answer");
            let (code, reason, _) = status_of(response).await;
            assert_eq!(
                (code, reason.as_str()),
                (StatusCode::FORBIDDEN, "Forbidden"),
                "{version:?} {name}"
            );
        }
    }
    assert_eq!(bed.tunnel.opened(), 0);
}

#[tokio::test]
async fn clusters_share_the_port_and_nothing_else() {
    let ids = ["one", "two"].map(ProxyId::from_name);
    let mut builder = Proxy::builder();
    for (id, name) in ids.iter().zip(["one", "two"]) {
        let tunnel = FakeTunnel::serving(move |_| async move { ok(name) });
        builder = builder.cluster(
            *id,
            std::sync::Arc::new(tunnel),
            std::sync::Arc::new(FakeAuth::fixed()),
        );
    }
    let proxy = builder.start().await.expect("the proxy starts");
    assert!(proxy.endpoint(&ProxyId::from_name("three")).is_none());
    let mut bed = Bed::of(proxy, ids[0], std::sync::Arc::new(FakeTunnel::raw()));
    for (id, name) in ids.iter().zip(["one", "two"]) {
        bed.id = *id;
        for version in BOTH_VERSIONS {
            let mut client = bed.client(version).await;
            let request = bed.request("GET", "/").body(empty()).expect("a request");
            let response = client.send(request).await.expect("an answer");
            assert_eq!(text(response.into_body()).await, name);
        }
    }
}

#[tokio::test]
async fn two_clusters_with_one_id_do_not_start() {
    let id = ProxyId::from_name("edge");
    let add = |builder: crate::proxy::ProxyBuilder| {
        builder.cluster(
            id,
            std::sync::Arc::new(FakeTunnel::raw()),
            std::sync::Arc::new(FakeAuth::fixed()),
        )
    };
    let error = add(add(Proxy::builder()))
        .start()
        .await
        .expect_err("one id, two clusters");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_endpoint_is_what_a_kubeconfig_needs() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let endpoint = bed.endpoint();
    assert_eq!(
        endpoint.server(),
        format!("https://127.0.0.1:{}/proxies/{}", bed.port(), bed.id)
    );
    // The certificate is good for each of the loopback names, and only it is trusted.
    for host in ["127.0.0.1", "localhost"] {
        let roots = TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes())
            .expect("a certificate");
        let stream = Connector::new(roots)
            .expect("a connector")
            .connect(
                &Endpoint::new(host, bed.port(), Security::Tls),
                Alpn::Http2OrHttp1,
            )
            .await
            .expect("the certificate is valid for the name");
        assert_eq!(stream.alpn(), Some(Alpn::Http2));
    }
    let other = Bed::start(|_| async { ok("pods") }).await;
    assert_ne!(other.endpoint().secret(), endpoint.secret());
    let roots = TrustRoots::only_pem(other.endpoint().certificate_authority_pem().as_bytes())
        .expect("a certificate");
    let error = Connector::new(roots)
        .expect("a connector")
        .connect(
            &Endpoint::new("127.0.0.1", bed.port(), Security::Tls),
            Alpn::Http1,
        )
        .await
        .expect_err("the certificate of another run");
    assert_eq!(error.kind(), ErrorKind::Tls);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let port = bed.port();
    let error = Proxy::builder()
        .port(port)
        .start()
        .await
        .expect_err("the port is in use");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    let help = error.help().expect("a way out");
    assert!(
        help.contains("--port") && help.contains("AZK8S0801"),
        "{help}"
    );

    bed.proxy.shutdown().await;
    let again = Proxy::builder().port(port).start().await;
    assert_eq!(again.expect("the port is free").local_addr().port(), port);
}

#[tokio::test]
async fn no_secret_in_debug() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let debug = format!("{:?} {:?}", bed.proxy, bed.endpoint());
    assert!(!debug.contains(bed.endpoint().secret()), "{debug}");
}
