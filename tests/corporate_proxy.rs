//! A relay that is reached only by way of a corporate proxy, which alone knows the relay's name.

mod support;

use std::sync::{Arc, Mutex};

use arc_cluster_connect::{
    ErrorKind,
    net::{Alpn, Connector, ProxySettings, TlsAcceptor, TrustRoots},
    relay::{
        ConnectionString, RelayListener, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
};
use support::{
    installation::Installation,
    programs::{self, Program},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// No name server knows it: whoever resolves it on this machine fails.
const RELAY: &str = "relay.corp.invalid";
const NAME: &str = "clusters/east";
/// `jane:p@ss`.
const BASIC: &str = "Basic amFuZTpwQHNz";

/// A relay under TLS, and what finds it.
struct Bed {
    relay: RelayServer,
    connector: Connector,
    connection: ConnectionString,
    /// What they are made of, for programs.
    certificate: String,
    text: String,
}

impl Bed {
    async fn start() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([RELAY.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .pem();
        let acceptor = TlsAcceptor::from_pem(
            certificate.as_bytes(),
            key.serialize_pem().as_bytes(),
            Alpn::Http1,
        );
        let rule = SasRule::new("root", "an-example-key").unwrap();
        let relay = RelayServer::builder()
            .hybrid_connection(NAME)
            .rule(rule, Rights::LISTEN | Rights::SEND)
            .tls(acceptor.unwrap())
            .host(RELAY)
            .start(TcpListener::bind("127.0.0.1:0").await.unwrap())
            .unwrap();
        let text = relay.connection_string("root", NAME).unwrap();
        let roots = TrustRoots::only_pem(certificate.as_bytes()).unwrap();
        Self {
            relay,
            connector: Connector::new(roots).unwrap(),
            connection: ConnectionString::parse(&text).unwrap(),
            certificate,
            text,
        }
    }

    fn port(&self) -> u16 {
        self.relay.local_addr().port()
    }

    fn listener(&self, proxy: &ProxySettings) -> RelayListener {
        RelayListener::start(
            self.connector.clone().with_proxy(proxy.clone()),
            self.connection.hybrid_connection().unwrap(),
            self.connection.credential(),
        )
    }

    fn sender(&self, proxy: &ProxySettings) -> RelaySender {
        RelaySender::new(
            self.connector.clone().with_proxy(proxy.clone()),
            self.connection.hybrid_connection().unwrap(),
            self.connection.credential(),
        )
    }

    /// A listener and a sender, both behind the proxy at `url`, exchange bytes through the relay.
    async fn exchange(&self, url: &str) {
        let proxy = ProxySettings::parse(url).unwrap();
        let mut listener = self.listener(&proxy);
        listener.online().await.unwrap();
        let sender = self.sender(&proxy);
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (sent, accepted) = tokio::join!(sender.connect(), accept);
        let (mut sent, mut accepted) = (sent.unwrap(), accepted.unwrap());

        let data: Vec<u8> = (0..1_000_000_u32).map(|index| (index / 7) as u8).collect();
        let write = async {
            sent.write_all(&data).await.unwrap();
            sent.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, accepted.read_to_end(&mut received));
        read.unwrap();
        assert!(received == data);
    }
}

/// What a proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// Connects the client of a proxy to the relay, if it is the relay that was asked for.
async fn join(mut client: TcpStream, asked: String, relay: u16, log: Asked) {
    let is_relay = asked == format!("{RELAY}:{relay}");
    log.lock().unwrap().push(asked);
    if is_relay {
        let mut relay = TcpStream::connect(("127.0.0.1", relay)).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut relay).await;
    }
}

/// An HTTP proxy that wants jane's password.
async fn http_proxy(relay: u16) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                assert!(head.starts_with("CONNECT "));
                if !head.contains(&format!("\r\nProxy-Authorization: {BASIC}\r\n")) {
                    let no = b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\r\n";
                    client.write_all(no).await.unwrap();
                    return;
                }
                let yes = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 corp\r\n\r\n";
                client.write_all(yes).await.unwrap();
                join(client, target, relay, log).await;
            });
        }
    });
    (port, asked)
}

/// A SOCKS proxy that takes names only.
async fn socks_proxy(relay: u16) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut greeting = [0; 3];
                client.read_exact(&mut greeting).await.unwrap();
                client.write_all(&[5, 0]).await.unwrap();
                let mut request = [0; 5];
                client.read_exact(&mut request).await.unwrap();
                assert_eq!(request[..4], [5, 1, 0, 3], "a name");
                let mut name = vec![0; request[4].into()];
                client.read_exact(&mut name).await.unwrap();
                let port = client.read_u16().await.unwrap();
                client
                    .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
                let name = String::from_utf8(name).unwrap();
                join(client, format!("{name}:{port}"), relay, log).await;
            });
        }
    });
    (port, asked)
}

/// All that was asked for is the relay: for the registration, for the sender, and for the answer to it.
fn assert_all_went_through(asked: &Asked, relay: u16) {
    let asked = asked.lock().unwrap();
    let expected = format!("{RELAY}:{relay}");
    assert!(asked.iter().all(|target| *target == expected), "{asked:?}");
    assert!(asked.len() >= 3, "{asked:?}");
}

#[tokio::test]
async fn relay_and_both_parties_through_an_http_proxy_with_a_password() {
    let bed = Bed::start().await;
    let (port, asked) = http_proxy(bed.port()).await;
    bed.exchange(&format!("http://jane:p%40ss@127.0.0.1:{port}"))
        .await;
    assert_all_went_through(&asked, bed.port());
}

#[tokio::test]
async fn relay_and_both_parties_through_a_socks_proxy_that_resolves_the_name() {
    let bed = Bed::start().await;
    let (port, asked) = socks_proxy(bed.port()).await;
    bed.exchange(&format!("socks5h://127.0.0.1:{port}")).await;
    assert_all_went_through(&asked, bed.port());
}

#[tokio::test]
async fn a_forgotten_password_is_told_to_sender_and_listener() {
    let bed = Bed::start().await;
    let (port, asked) = http_proxy(bed.port()).await;
    let proxy = ProxySettings::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let listener = bed.listener(&proxy);
    for error in [
        bed.sender(&proxy).connect().await.unwrap_err(),
        listener.online().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(
            error
                .to_string()
                .starts_with(&format!("the proxy 127.0.0.1:{port} wants a user")),
            "{error}"
        );
        assert!(error.help().unwrap().contains("user:password@"));
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_exempt_relay_is_dialled_straight() {
    let bed = Bed::start().await;
    let (port, asked) = http_proxy(bed.port()).await;
    let proxy = ProxySettings::parse(&format!("http://jane:p%40ss@127.0.0.1:{port}"))
        .unwrap()
        .with_no_proxy(".corp.invalid");
    // Straight, the name leads nowhere.
    let error = bed.sender(&proxy).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(!error.to_string().contains("proxy"), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

/// A cluster, and the files that an agent at the relay of `bed` reads.
async fn installation(bed: &Bed) -> Installation {
    let installation = Installation::prepare().await;
    installation.write("relay", &bed.text);
    installation.write("ca", &bed.certificate);
    installation
}

/// The agent, with `flags` for the proxy and `variables` in its environment.
fn agent(
    installation: &Installation,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> tokio::process::Command {
    let file = |name: &str| installation.argument(name);
    let mut command = programs::command(
        "arc-agent",
        &[
            "--connection-string-file",
            &file("relay"),
            "--relay-ca",
            &file("ca"),
            "--kubeconfig",
            &file("cluster"),
            "--allow-service-account-tokens",
        ],
    );
    for name in ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name);
        command.env_remove(name.to_lowercase());
    }
    command.args(flags).envs(variables.iter().copied());
    command
}

/// The agent registers through the proxy, and answers a caller through it.
async fn agent_behind(
    bed: &Bed,
    proxy: &ProxySettings,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> programs::Ended {
    let installation = installation(bed).await;
    let command = agent(&installation, flags, variables);
    let agent = Program::start_command("arc-agent", installation.directory(), command).await;
    bed.sender(proxy).connect().await.unwrap();
    agent.terminate().await
}

#[tokio::test]
async fn the_agent_through_an_http_proxy_with_a_password() {
    let bed = Bed::start().await;
    let (port, asked) = http_proxy(bed.port()).await;
    let url = format!("http://jane:p%40ss@127.0.0.1:{port}");
    let proxy = ProxySettings::parse(&url).unwrap();
    let from_environment = (["--https-proxy", "env"], [("HTTPS_PROXY", &*url)]);
    let ended = agent_behind(&bed, &proxy, &from_environment.0, &from_environment.1).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);
    assert_all_went_through(&asked, bed.port());

    // On the command line others can see it.
    let ended = agent_behind(&bed, &proxy, &["--https-proxy", &url], &[]).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("a proxy's password on the command line")
    );
    assert!(!ended.stderr.contains("p%40ss") && !ended.stderr.contains("p@ss"));
    assert_all_went_through(&asked, bed.port());
}

#[tokio::test]
async fn the_agent_through_a_socks_proxy_that_resolves_the_name() {
    let bed = Bed::start().await;
    let (port, asked) = socks_proxy(bed.port()).await;
    let url = format!("socks5h://127.0.0.1:{port}");
    let proxy = ProxySettings::parse(&url).unwrap();
    let ended = agent_behind(&bed, &proxy, &["--https-proxy", &url], &[]).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_all_went_through(&asked, bed.port());
}

#[tokio::test]
async fn an_agent_whose_proxy_does_not_take_it_says_what_to_do() {
    let bed = Bed::start().await;
    let installation = installation(&bed).await;
    let (port, asked) = http_proxy(bed.port()).await;
    let url = format!("http://127.0.0.1:{port}");
    let ended = programs::run_command(agent(&installation, &["--https-proxy", &url], &[])).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("wants a user"), "{}", ended.stderr);
    assert!(ended.stderr.contains("user:password@"), "{}", ended.stderr);

    for flags in [
        &["--https-proxy", "gopher://proxy.corp"][..],
        &["--no-proxy", ".corp.invalid"],
    ] {
        let ended = programs::run_command(agent(&installation, flags, &[])).await;
        assert!(!ended.status.success(), "{ended:?}");
        assert!(ended.stderr.contains("proxy"), "{}", ended.stderr);
    }
    assert!(asked.lock().unwrap().is_empty());
}
