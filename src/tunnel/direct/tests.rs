use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    ErrorKind,
    net::{NetStream, Security, TlsAcceptor, TrustRoots},
    tunnel::{TunnelServer, TunnelState},
};

async fn bind() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers every stream with the name of its target.
async fn serve(io: NetStream) {
    let mut server = TunnelServer::start(io, mux::Config::default());
    while let Some(stream) = server.accept().await {
        let name = stream.target().to_string();
        let mut stream = stream.accept();
        stream.write_all(name.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

/// The name that the far end read.
async fn ask(tunnel: &dyn Tunnel, name: &str) -> Result<String> {
    let target = Target::new(name).unwrap();
    let mut stream = tunnel.open(&target, OpenOptions::new()).await?;
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    Ok(text)
}

#[tokio::test]
async fn it_carries_streams_over_tls() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = certificate.cert.pem();
    let key = certificate.signing_key.serialize_pem();
    let acceptor = TlsAcceptor::from_pem(pem.as_bytes(), key.as_bytes(), Alpn::None).unwrap();
    let (listener, port) = bind().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that does not trust the certificate leaves in the handshake.
            if let Ok(stream) = acceptor.accept(tcp).await {
                tokio::spawn(serve(stream));
            }
        }
    });

    let roots = TrustRoots::only_pem(pem.as_bytes()).unwrap();
    let endpoint = Endpoint::new("localhost", port, Security::Tls);
    let tunnel = DirectTunnel::new(Connector::new(roots).unwrap(), endpoint.clone());
    assert!(matches!(tunnel.status().state, TunnelState::Idle));
    assert_eq!(ask(&tunnel, "one").await.unwrap(), "one");
    assert_eq!(ask(&tunnel, "two").await.unwrap(), "two");
    assert_eq!(tunnel.status().peer, format!("localhost:{port}"));
    tunnel.shutdown().await.unwrap();
    assert!(ask(&tunnel, "three").await.unwrap_err().is_closed());

    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let roots = TrustRoots::only_pem(stranger.cert.pem().as_bytes()).unwrap();
    let tunnel = DirectTunnel::new(Connector::new(roots).unwrap(), endpoint);
    let error = ask(&tunnel, "four").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.help().is_some());
}

#[tokio::test]
async fn it_is_back_by_itself_after_the_server_restarts() {
    let (listener, port) = bind().await;
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    let connector = Connector::new(TrustRoots::platform()).unwrap();
    let tunnel = DirectTunnel::new(connector, endpoint);
    let (server, answer) = tokio::join!(
        async {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(NetStream::plain(tcp))).abort_handle()
        },
        ask(&tunnel, "before")
    );
    assert_eq!(answer.unwrap(), "before");
    // A server that is dropped goes away, as one that is restarted does.
    server.abort();
    drop(listener);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(NetStream::plain(tcp)));
    assert_eq!(ask(&tunnel, "after").await.unwrap(), "after");
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let (listener, port) = bind().await;
    drop(listener);
    let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
    let tunnel = DirectTunnel::new(Connector::new(TrustRoots::platform()).unwrap(), endpoint);
    let options = OpenOptions::new().with_wait_limit(Duration::from_millis(200));
    let error = tunnel
        .open(&Target::api_server(), options)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.report().contains(&format!("127.0.0.1:{port}")));
    assert!(error.help().unwrap().contains("nothing listens there"));
}

/// Passes both ways until `limit` bytes came from the server, then drops both sockets: a reset where something was unread.
async fn forward_until(near: TcpStream, port: u16, limit: u64) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (mut near_reader, mut near_writer) = near.into_split();
    let (far_reader, mut far_writer) = far.into_split();
    let mut far_reader = far_reader.take(limit);
    tokio::select! {
        _ = tokio::io::copy(&mut near_reader, &mut far_writer) => {}
        _ = tokio::io::copy(&mut far_reader, &mut near_writer) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_connection_is_cut_no_short_answer_looks_whole() {
    const LENGTH: usize = 300_000;
    const AT_ONCE: usize = 8;
    const CONNECTIONS: u64 = 25;

    let (server, server_port) = bind().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut server = TunnelServer::start(NetStream::plain(tcp), mux::Config::default());
                while let Some(stream) = server.accept().await {
                    tokio::spawn(async move {
                        let mut stream = stream.accept();
                        stream.write_all(&[b'x'; LENGTH]).await?;
                        stream.shutdown().await
                    });
                }
            });
        }
    });

    let (mut whole, mut broken) = (0, 0);
    for round in 0..CONNECTIONS {
        let (listener, port) = bind().await;
        // From in the handshake to behind the last byte, whose streams then end well.
        let limit = round * (AT_ONCE * LENGTH) as u64 / (CONNECTIONS - 3);
        tokio::spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            forward_until(near, server_port, limit).await;
        });
        let endpoint = Endpoint::new("127.0.0.1", port, Security::Plain);
        let tunnel = DirectTunnel::new(Connector::new(TrustRoots::platform()).unwrap(), endpoint);
        let answers = futures_util::future::join_all((0..AT_ONCE).map(|_| async {
            let options = OpenOptions::new().with_wait_limit(Duration::from_millis(500));
            let mut stream = tunnel.open(&Target::api_server(), options).await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            Some(answer.len())
        }));
        let answers = tokio::time::timeout(Duration::from_secs(20), answers).await;
        for answer in answers.expect("nobody waits for ever") {
            match answer {
                Some(length) => {
                    assert_eq!(length, LENGTH, "cut after {limit} bytes");
                    whole += 1;
                }
                None => broken += 1,
            }
        }
    }
    assert!(whole >= AT_ONCE && broken >= AT_ONCE, "{whole} {broken}");
}
