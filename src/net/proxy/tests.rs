//! Proxies, well-behaved and hostile. All on loopback: the targets exist only in what the proxies are asked for.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::*;
use crate::net::{NetStream, tests::Authority};

const YES: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn target() -> Endpoint {
    Endpoint::new("relay.corp", 443, Security::Plain)
}

fn settings(url: &str, port: u16) -> ProxySettings {
    ProxySettings::parse(&url.replace("PORT", &port.to_string())).unwrap()
}

/// Dials `target` through the proxy at `url`, which takes one connection and does as `script` says.
async fn dial<R>(
    url: &str,
    target: &Endpoint,
    script: impl AsyncFnOnce(TcpStream) -> R,
) -> (Result<NetStream>, R) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = Authority::new("a")
        .trusted()
        .with_proxy(settings(url, port));
    tokio::join!(connector.connect(target, Alpn::Http1), async {
        script(listener.accept().await.unwrap().0).await
    })
}

/// The error of a dial to [`target`], whose proxy answers its request with `answer` and then says no more.
async fn refused(url: &str, answer: &[u8]) -> Error {
    let (result, _socket) = dial(url, &target(), async |mut socket| {
        read_head(&mut socket).await;
        socket.write_all(answer).await.unwrap();
        socket
    })
    .await;
    result.expect_err("it must not come about")
}

async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn expect(io: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    io.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// Says `hello` to the other end, which is to answer the same.
async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    expect(&mut stream, b"hello").await;
}

#[tokio::test]
async fn tls_runs_inside_what_an_http_proxy_opened() {
    let authority = Authority::new("a");
    let acceptor = authority.acceptor("relay.corp", Alpn::Http1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = authority
        .trusted()
        .with_proxy(settings("http://jane:p%40ss@127.0.0.1:PORT", port));
    let endpoint = Endpoint::new("relay.corp", 8443, Security::Tls);
    let client = async {
        let stream = connector.connect(&endpoint, Alpn::Http1).await.unwrap();
        assert_eq!(stream.alpn(), Some(Alpn::Http1));
        assert_eq!(stream.peer_addr().unwrap().port(), port);
        greet(stream).await;
    };
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = read_head(&mut socket).await;
        assert!(head.starts_with("CONNECT relay.corp:8443 HTTP/1.1\r\nHost: relay.corp:8443\r\n"));
        assert!(head.contains("\r\nProxy-Authorization: Basic amFuZTpwQHNz\r\n"));
        socket.write_all(YES).await.unwrap();
        greet(acceptor.accept(socket).await.unwrap()).await;
    };
    tokio::join!(client, server);
}

#[tokio::test]
async fn a_proxy_behind_tls_has_its_own_name_and_authority() {
    let corporate = Authority::new("corporate");
    let acceptor = corporate.acceptor("localhost", Alpn::Http1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let public = Authority::new("public");
    let inner = public.acceptor("other.name", Alpn::None);
    let roots = TrustRoots::only_pem(corporate.pem().as_bytes()).unwrap();
    let plain = settings("https://localhost:PORT", port);
    let trusting = plain.clone().with_trust_roots(roots).unwrap();
    let endpoint = Endpoint::new("relay.corp", 443, Security::Tls);
    let connector = public.trusted().with_server_name("other.name").unwrap();

    let client = async {
        let connector = connector.clone().with_proxy(trusting);
        let stream = connector.connect(&endpoint, Alpn::None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
        greet(stream).await;
    };
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = acceptor.accept(socket).await.unwrap();
        read_head(&mut socket).await;
        socket.write_all(YES).await.unwrap();
        let inner = inner.accept_over(socket).await.unwrap();
        greet(inner).await;
    };
    tokio::join!(client, server);

    // What the target may be trusted by, the proxy is not.
    let client = connector.with_proxy(plain);
    let (error, _) = tokio::join!(client.connect(&endpoint, Alpn::None), async {
        let (socket, _) = listener.accept().await.unwrap();
        acceptor.accept(socket).await
    });
    let error = error.expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_eq!(
        error.to_string(),
        format!("the TLS handshake with the proxy localhost:{port} failed")
    );
}

#[tokio::test]
async fn a_failure_behind_the_proxy_names_both() {
    let endpoint = Endpoint::new("relay.corp", 443, Security::Tls);
    let (result, port) = dial("http://127.0.0.1:PORT", &endpoint, async |mut socket| {
        read_head(&mut socket).await;
        socket.write_all(YES).await.unwrap();
        socket.write_all(b"this is no TLS").await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
        socket.local_addr().unwrap().port()
    })
    .await;
    assert_eq!(
        result.expect_err("no TLS").to_string(),
        format!("the TLS handshake with relay.corp:443 through the proxy 127.0.0.1:{port} failed")
    );
}

#[tokio::test]
async fn socks_with_names_and_a_password() {
    let url = "socks5h://me:s%3Acret@127.0.0.1:PORT";
    let (result, mut socket) = dial(url, &target(), async |mut socket| {
        expect(&mut socket, &[5, 2, 0, 2]).await;
        socket.write_all(&[5, 2]).await.unwrap();
        expect(&mut socket, b"\x01\x02me\x06s:cret").await;
        socket.write_all(&[1, 0]).await.unwrap();
        expect(&mut socket, b"\x05\x01\x00\x03\x0arelay.corp\x01\xbb").await;
        // With the target's first bytes right behind the reply.
        socket
            .write_all(b"\x05\x00\x00\x03\x01x\x00\x01hello")
            .await
            .unwrap();
        socket
    })
    .await;
    greet(result.unwrap()).await;
    expect(&mut socket, b"hello").await;
}

#[tokio::test]
async fn socks_without_names_is_told_an_address() {
    for (host, expected) in [
        ("192.0.2.7", &[5, 1, 0, 1, 192, 0, 2, 7, 1, 187][..]),
        (
            "2001:db8::1",
            &[
                5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 187,
            ],
        ),
    ] {
        let endpoint = Endpoint::new(host, 443, Security::Plain);
        let (result, socket) = dial("socks5://127.0.0.1:PORT", &endpoint, async |mut socket| {
            expect(&mut socket, &[5, 1, 0]).await;
            socket.write_all(&[5, 0]).await.unwrap();
            expect(&mut socket, expected).await;
            socket
                .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            socket
        })
        .await;
        tokio::join!(greet(result.unwrap()), greet(socket));
    }
}

#[tokio::test]
async fn what_comes_with_the_answer_is_the_targets() {
    let (result, _socket) = dial("http://127.0.0.1:PORT", &target(), async |mut socket| {
        read_head(&mut socket).await;
        let text = [YES, b"220 ready\r\n\r\n"].concat();
        socket.write_all(&text).await.unwrap();
        socket.write_all(b"and more").await.unwrap();
        socket
    })
    .await;
    let mut stream = result.unwrap();
    // In small pieces: nothing is lost between them.
    let mut read = Vec::new();
    while read.len() < 21 {
        let mut piece = [0; 4];
        let count = stream.read(&mut piece).await.unwrap();
        read.extend_from_slice(&piece[..count]);
    }
    assert_eq!(read, b"220 ready\r\n\r\nand more");
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_says_what_to_do() {
    let wants =
        b"HTTP/1.1 407 Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let error = refused("http://127.0.0.1:PORT", wants).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!error.is_retryable());
    assert_eq!(error.status(), None);
    assert!(error.to_string().contains("wants a user and password: 407"));
    assert!(error.to_string().starts_with("the proxy 127.0.0.1:"));
    assert!(error.help().unwrap().contains("http://user:password@host"));

    let error = refused("http://jane:hunter2@127.0.0.1:PORT", wants).await;
    assert!(
        error
            .to_string()
            .contains("does not take the user and password")
    );
    assert!(error.help().unwrap().contains("percent-encoded"));

    let other =
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n";
    let error = refused("http://jane:hunter2@127.0.0.1:PORT", other).await;
    assert!(error.to_string().contains("NTLM, Negotiate"), "{error}");
    assert!(error.help().unwrap().contains("only Basic"));
}

#[tokio::test]
async fn a_proxys_reasons_are_shown() {
    for (answer, kind, retryable, text) in [
        (
            "403 Forbidden by policy",
            ErrorKind::Refused,
            false,
            "403 Forbidden by policy",
        ),
        (
            "502 Bad Gateway\r\nProxy-Status: squid; error=dns_error",
            ErrorKind::Network,
            true,
            "502 Bad Gateway; squid; error=dns_error",
        ),
        ("503", ErrorKind::Network, true, "503"),
        ("504 Late", ErrorKind::Timeout, true, "504 Late"),
        ("404 No", ErrorKind::Refused, false, "404 No"),
        ("302 Found", ErrorKind::Protocol, false, "302 Found"),
    ] {
        // The body, of whatever length it pretends to be, is not waited for.
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 99999999\r\n\r\n<html>");
        let error = refused("http://127.0.0.1:PORT", answer.as_bytes()).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.is_retryable(), retryable);
        // A status would be taken for the target's.
        assert_eq!(error.status(), None);
        let shown = error.to_string();
        let expected = format!("did not connect us to relay.corp:443: {text}");
        assert!(shown.ends_with(&expected), "{shown}");
        assert!(error.help().is_some());
    }
}

#[tokio::test]
async fn a_password_that_the_proxy_repeats_is_not_shown() {
    for text in ["hunter2", "amFuZTpodW50ZXIy"] {
        let answer = format!("HTTP/1.1 403 no {text}\r\n\r\n");
        let error = refused("http://jane:hunter2@127.0.0.1:PORT", answer.as_bytes()).await;
        assert!(!format!("{error:?} {}", error.report()).contains(text));
    }
    let settings = settings("https://jane:hunter2@127.0.0.1:PORT", 1);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("jane"));
    assert!(shown.contains("https://***@127.0.0.1:1"), "{shown}");
}

#[tokio::test]
async fn answers_that_are_none() {
    for answer in [
        &b"SSH-2.0-server\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\n\n\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50\r\n\r\n",
    ] {
        let error = refused("http://127.0.0.1:PORT", answer).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.help().unwrap().contains("scheme"));
    }
    let endless = ["HTTP/1.1 200 OK\r\n", &"a: b\r\n".repeat(5000)].concat();
    let error = refused("http://127.0.0.1:PORT", endless.as_bytes()).await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn half_an_answer_is_a_broken_connection() {
    for (url, half) in [
        ("http://127.0.0.1:PORT", &b"HTTP/1.1 200 OK\r\nVia: x"[..]),
        ("http://127.0.0.1:PORT", b""),
        ("socks5h://127.0.0.1:PORT", &[5]),
        ("socks5h://127.0.0.1:PORT", &[5, 0]),
    ] {
        let (result, ()) = dial(url, &target(), async |mut socket| {
            let mut some = [0; 3];
            socket.read_exact(&mut some).await.unwrap();
            socket.write_all(half).await.unwrap();
            socket.shutdown().await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let error = result.expect_err("half an answer");
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
        assert!(error.is_retryable());
        assert!(error.to_string().starts_with("the proxy 127.0.0.1:"));
    }
}

#[tokio::test]
async fn wrong_socks_replies() {
    let url = "socks5h://127.0.0.1:PORT";
    for (method, reply, kind, text) in [
        (&[4, 0][..], &[][..], ErrorKind::Protocol, "SOCKS 5"),
        (b"HT", &[], ErrorKind::Protocol, "SOCKS 5"),
        (&[5, 2], &[], ErrorKind::Protocol, "not offered"),
        (&[5, 255], &[], ErrorKind::Unauthorized, "wants a user"),
        (&[5, 0], &[4, 0, 0, 1], ErrorKind::Protocol, "reply"),
        (&[5, 0], &[5, 0, 0, 9], ErrorKind::Protocol, "reply"),
        (
            &[5, 0],
            &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
            ErrorKind::Refused,
            "rules do not allow",
        ),
        (
            &[5, 0],
            &[5, 4, 0, 1, 0, 0, 0, 0, 0, 0],
            ErrorKind::Network,
            "host can not be reached",
        ),
        (
            &[5, 0],
            &[5, 99, 0, 1, 0, 0, 0, 0, 0, 0],
            ErrorKind::Protocol,
            "not a known one",
        ),
    ] {
        let (result, _socket) = dial(url, &target(), async |mut socket| {
            expect(&mut socket, &[5, 1, 0]).await;
            socket.write_all(method).await.unwrap();
            if !reply.is_empty() {
                let mut request = [0; 17];
                socket.read_exact(&mut request).await.unwrap();
                socket.write_all(reply).await.unwrap();
            }
            socket
        })
        .await;
        let error = result.expect_err("wrong");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().starts_with("the proxy 127.0.0.1:"));
    }

    let (result, _socket) = dial(
        "socks5h://a:b@127.0.0.1:PORT",
        &target(),
        async |mut socket| {
            expect(&mut socket, &[5, 2, 0, 2]).await;
            socket.write_all(&[5, 2]).await.unwrap();
            expect(&mut socket, b"\x01\x01a\x01b").await;
            socket.write_all(&[1, 1]).await.unwrap();
            socket
        },
    )
    .await;
    let error = result.expect_err("wrong password");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("does not take"));
}

#[tokio::test]
async fn a_silent_proxy_is_given_up() {
    for url in ["http://127.0.0.1:PORT", "socks5h://127.0.0.1:PORT"] {
        let start = Instant::now();
        let (result, _socket) = dial(url, &target(), async |mut socket| {
            let mut some = [0; 3];
            socket.read_exact(&mut some).await.unwrap();
            tokio::time::pause();
            socket
        })
        .await;
        let error = result.expect_err("silence");
        tokio::time::resume();
        assert!(error.is_timeout() && error.is_retryable());
        assert!(start.elapsed() >= ANSWER_LIMIT);
        assert!(
            error.to_string().starts_with("the proxy 127.0.0.1:"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let connector = Authority::new("a")
        .trusted()
        .with_proxy(settings("http://127.0.0.1:PORT", port));
    let error = connector.connect(&target(), Alpn::None).await;
    assert_eq!(
        error.expect_err("nobody listens").to_string(),
        format!("can not connect to the proxy 127.0.0.1:{port}")
    );
}

#[tokio::test]
async fn a_dropped_dial_closes_the_connection_to_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = Authority::new("a")
        .trusted()
        .with_proxy(settings("http://127.0.0.1:PORT", port));
    let target = target();
    let mut socket = {
        let mut dial = std::pin::pin!(connector.connect(&target, Alpn::None));
        let accept = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await;
            socket
        };
        tokio::select! {
            biased;
            _ = &mut dial => panic!("nobody answered"),
            socket = accept => socket,
        }
    };
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_host_that_could_smuggle_a_header_is_asked_of_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for url in ["http://127.0.0.1:PORT", "socks5h://127.0.0.1:PORT"] {
        let connector = Authority::new("a")
            .trusted()
            .with_proxy(settings(url, port));
        let endpoint = Endpoint::new("a\r\nX: y", 443, Security::Plain);
        let error = connector.connect(&endpoint, Alpn::None).await;
        assert_eq!(error.expect_err("no host").kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn whom_the_proxy_stands_before() {
    let settings = ProxySettings::parse("http://proxy.corp:3128")
        .unwrap()
        .with_no_proxy(".internal,10.0.0.0/8");
    let proxied = |host: &str| {
        let endpoint = Endpoint::new(host, 443, Security::Tls);
        settings.proxy_for(&endpoint).map(Endpoint::authority)
    };
    let by = Some("proxy.corp:3128".to_owned());
    assert_eq!(proxied("contoso.servicebus.windows.net"), by);
    assert_eq!(proxied("2001:db8::1"), by);
    for host in [
        "localhost",
        "127.0.0.1",
        "::1",
        "a.internal",
        "10.1.1.1",
        // Where a machine asks for its own identity: no proxy gets there.
        "169.254.169.254",
        "fe80::1",
    ] {
        assert_eq!(proxied(host), None, "{host}");
    }
    let direct = ProxySettings::direct();
    assert_eq!(direct.proxy_for(&target()), None);
}

#[test]
fn the_environment() {
    let from = |variables: &[(&str, &str)]| {
        ProxySettings::from_variables(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    };
    let proxy = |variables: &[(&str, &str)]| {
        let settings = from(variables).unwrap();
        settings.proxy_for(&target()).map(Endpoint::authority)
    };
    let by = |authority: &str| Some(authority.to_owned());
    assert_eq!(proxy(&[]), None);
    assert_eq!(proxy(&[("HTTP_PROXY", "http://a:1")]), None);
    assert_eq!(
        proxy(&[("HTTPS_PROXY", " "), ("https_proxy", "b:2")]),
        by("b:2")
    );
    assert_eq!(
        proxy(&[("https_proxy", "b:2"), ("HTTPS_PROXY", "c:3")]),
        by("c:3")
    );
    assert_eq!(
        proxy(&[("ALL_PROXY", "socks5h://d:4"), ("https_proxy", "b:2")]),
        by("b:2")
    );
    assert_eq!(proxy(&[("all_proxy", "socks5h://d")]), by("d:1080"));
    assert_eq!(
        proxy(&[("HTTPS_PROXY", "a:1"), ("no_proxy", "x, corp")]),
        None
    );
    assert_eq!(
        proxy(&[("HTTPS_PROXY", "a:1"), ("NO_PROXY", "x"), ("no_proxy", "*")]),
        by("a:1")
    );
    let error = from(&[("https_proxy", "ftp://jane:hunter2@h")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("https_proxy"));
    assert!(!error.report().contains("hunter2"));
}
