use super::*;
use crate::{
    relay::{
        RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::RelayTunnel,
};

#[tokio::test]
async fn a_relay_carries_tunnels_until_told_to_stop() {
    let mut bed = Bed::new();
    let rule = SasRule::new("rule", "a2V5").expect("a rule");
    let relay = RelayServer::builder()
        .hybrid_connection("cluster")
        .rule(rule, Rights::LISTEN | Rights::SEND)
        .start(TcpListener::bind("127.0.0.1:0").await.expect("a socket"))
        .expect("a relay");
    let text = relay
        .connection_string("rule", "cluster")
        .expect("a connection string");
    let connection = ConnectionString::parse(&text).expect("a connection string");
    let path = connection.hybrid_connection().expect("a path");
    let connector = Connector::new(TrustRoots::platform()).expect("roots");
    let listener = RelayListener::start(connector.clone(), path.clone(), connection.credential());
    listener.online().await.expect("registered");
    let stop = CancellationToken::new();
    let serving = {
        let (agent, stop) = (bed.agent.clone(), stop.clone());
        tokio::spawn(async move { agent.serve_relay(listener, stop.cancelled_owned()).await })
    };
    let tunnel = RelayTunnel::new(RelaySender::new(connector, path, connection.credential()));
    let mut stream = tunnel
        .open(&Target::api_server(), OpenOptions::new())
        .await
        .expect("a stream");
    let request = with_token("GET /version HTTP/1.1");
    stream.write_all(request.as_bytes()).await.expect("open");
    stream.flush().await.expect("open");
    let mut api = bed.api.connection().await;
    assert!(api.head().await.starts_with("GET /version "));
    stop.cancel();
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let (text, end) = read_to_end(&mut stream).await;
    assert!(text.ends_with("\r\n\r\n{}"), "{text}");
    end.expect("a clean end");
    serving.await.expect("no panic").expect("served");
    relay.shutdown().await;
}
