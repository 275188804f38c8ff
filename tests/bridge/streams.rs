//! Streams to TCP servers.

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{
    ErrorKind, Tunnel,
    relay::ConnectionString,
    tunnel::{OpenOptions, Target, TunnelConnector, TunnelState},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    bed::{Bed, PATIENCE, echo, echo_server, loopback, open, refusal, tcp_server},
    listener::{Age, Forward, Listener},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_http_client_runs_over_it() {
    let server = tcp_server(|mut tcp| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.expect("a whole head"));
        }
        let head = String::from_utf8(head).expect("text");
        let path = head.split(' ').nth(1).expect("a path");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{path}",
            path.len()
        );
        tcp.write_all(answer.as_bytes()).await.expect("it is read");
    })
    .await;
    let bed = Bed::start().await;
    let _listener = bed.listener(&[("web", Forward::Tcp(server))]).await;
    let connector = TunnelConnector::new(Arc::new(bed.tunnel("web")), Target::api_server());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    for path in ["/version", "/api/v1/pods"] {
        let uri = format!("http://kubernetes{path}").parse().expect("a URI");
        let answer = client.get(uri).await.expect("an answer");
        let body = answer.collect().await.expect("a body").to_bytes();
        assert_eq!(body, path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_one_direction_leaves_the_other_open() {
    // Both ways: who has ended first goes on reading.
    let server = tcp_server(|mut tcp| async move {
        let mut question = String::new();
        tcp.read_to_string(&mut question).await.expect("its end");
        tcp.write_all(question.to_uppercase().as_bytes())
            .await
            .expect("it is read");
        tcp.shutdown().await.expect("it is read");
    })
    .await;
    let quick = tcp_server(|mut tcp| async move {
        tcp.write_all(b"all that I say").await.expect("it is read");
        tcp.shutdown().await.expect("it is read");
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest).await.expect("its end");
        assert_eq!(rest, b"and you?");
    })
    .await;
    let bed = Bed::start().await;
    let ports = [
        ("slow", Forward::Tcp(server)),
        ("quick", Forward::Tcp(quick)),
    ];
    let _listener = bed.listener(&ports).await;
    assert_eq!(echo(&bed.tunnel("slow"), b"question").await, b"QUESTION");

    let mut stream = open(&bed.tunnel("quick")).await;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("its end");
    assert_eq!(said, "all that I say");
    stream.write_all(b"and you?").await.expect("it is read");
    stream.shutdown().await.expect("it is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_streams_at_once_keep_their_bytes_apart() {
    let bed = Bed::start().await;
    let listener = bed
        .listener(&[("echo", Forward::Tcp(echo_server().await))])
        .await;
    let tunnel = bed.tunnel("echo");
    let texts: Vec<Vec<u8>> = (0..50_u8).map(|index| vec![index; 100_000]).collect();
    let answers = join_all(texts.iter().map(|text| echo(&tunnel, text))).await;
    assert!(answers == texts);
    // A hedged dial may have made one more here and there, on a busy machine.
    assert!(listener.accepted() >= 50);
    let status = tunnel.status();
    assert_eq!(status.bytes_sent, 5_000_000);
    assert_eq!(status.bytes_received, 5_000_000);
    assert_eq!(status.live_streams, 0);
    assert!(status.round_trip_time.is_some());
    tunnel.shutdown().await.expect("nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_through_the_relay() {
    let bed = Bed::start().await;
    let echo_server = echo_server().await;
    let ports = [("tcp", Forward::Tcp(echo_server)), ("udp", Forward::Udp)];
    let listener = bed.listener(&ports).await;
    for (port, part) in [
        ("nobody", "has no port named nobody"),
        // A number says nothing where several are forwarded.
        ("8001", "has no port named 8001"),
        ("udp", "is for datagrams"),
    ] {
        let error = refusal(&bed.tunnel(port)).await;
        assert_eq!(error.kind(), ErrorKind::Refused, "{}", error.report());
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.help().is_some());
    }
    drop(listener);

    // A number is any port where there is only one.
    let only = bed.listener(&ports[..1]).await;
    assert_eq!(echo(&bed.tunnel("8001"), b"x").await, b"x");
    drop(only);

    for (age, part) in [(Age::FourBytes, "too old"), (Age::Future, "version 1.0")] {
        let connector = bed.connector.clone();
        let listener = Listener::of_age(age, connector, &bed.string, &ports[..1]).await;
        let error = refusal(&bed.tunnel("tcp")).await;
        assert_eq!(error.kind(), ErrorKind::Refused, "{}", error.report());
        assert!(error.to_string().contains(part), "{error}");
        drop(listener);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_is_no_clean_end() {
    let (arrivals, mut arrived) = mpsc::unbounded_channel::<TcpStream>();
    let server = tcp_server(move |tcp| {
        let arrivals = arrivals.clone();
        async move {
            let _ = arrivals.send(tcp);
        }
    })
    .await;
    let bed = Bed::start().await;
    let _listener = bed.listener(&[("tcp", Forward::Tcp(server))]).await;
    let tunnel = bed.tunnel("tcp");

    // Ours: the target's connection ends, too.
    let stream = open(&tunnel).await;
    let mut tcp = arrived.recv().await.expect("it connects");
    drop(stream);
    let ended = timeout(PATIENCE, tcp.read(&mut [0; 8]))
        .await
        .expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    // The target's: whoever reads is not told that this was all.
    let mut stream = open(&tunnel).await;
    let tcp = arrived.recv().await.expect("it connects");
    // With nothing left to say, so that closing it resets it.
    tcp.set_zero_linger().expect("it is open");
    drop(tcp);
    let read = timeout(PATIENCE, stream.read_chunk())
        .await
        .expect("in time");
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_there_shows_on_the_stream() {
    let nobody = loopback().await.local_addr().expect("it was bound");
    let bed = Bed::start().await;
    let _listener = bed.listener(&[("tcp", Forward::Tcp(nobody))]).await;
    let mut stream = open(&bed.tunnel("tcp")).await;
    let read = timeout(PATIENCE, stream.read_chunk())
        .await
        .expect("in time");
    assert!(!matches!(read, Ok(Some(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_dies_takes_its_streams_and_comes_back() {
    let bed = Bed::start().await;
    let ports = [("echo", Forward::Tcp(echo_server().await))];
    let first = bed.listener(&ports).await;
    let tunnel = Arc::new(bed.tunnel("echo"));
    let mut stream = open(&*tunnel).await;
    stream.write_all(b"half of it").await.expect("it is sent");
    let mut half = [0; 10];
    stream.read_exact(&mut half).await.expect("it comes back");
    drop(first);
    let read = timeout(PATIENCE, stream.read_chunk())
        .await
        .expect("in time");
    assert!(read.is_err(), "{read:?}");

    // An opening waits for the next one.
    let opening = tokio::spawn({
        let tunnel = Arc::clone(&tunnel);
        async move {
            let options = OpenOptions::new().with_wait_limit(PATIENCE);
            tunnel.open(&Target::api_server(), options).await
        }
    });
    let waiting = async {
        while !matches!(tunnel.status().state, TunnelState::Waiting { .. }) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("its loss is noticed");
    let TunnelState::Waiting { reason, .. } = tunnel.status().state else {
        panic!("{:?}", tunnel.status().state);
    };
    assert_eq!(reason.kind(), ErrorKind::NotFound);
    let _second = bed.listener(&ports).await;
    let mut stream = opening.await.expect("no panic").expect("it opens");
    stream.write_all(b"again").await.expect("it is sent");
    let mut again = [0; 5];
    stream.read_exact(&mut again).await.expect("it comes back");
    assert!(matches!(tunnel.status().state, TunnelState::Connected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_said_at_once() {
    let mut bed = Bed::start().await;
    let known = "SharedAccessKeyName=root";
    let text = bed.text.replace(known, "SharedAccessKeyName=toor");
    bed.string = ConnectionString::parse(&text).expect("it is well formed");
    let tunnel = bed.tunnel("echo");
    let error = refusal(&tunnel).await;
    assert!(error.is_unauthorized(), "{}", error.report());
    assert!(error.help().is_some() && error.tracking_id().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_connections_work_when_they_are_asked_for() {
    let bed = Bed::start().await;
    let listener = bed
        .listener(&[("echo", Forward::Tcp(echo_server().await))])
        .await;
    let tunnel = bed.tunnel("echo").with_warm(4);
    assert_eq!(echo(&tunnel, b"cold").await, b"cold");
    for round in 0..3 {
        let filled = async {
            while tunnel.warm_connections() < 4 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, filled).await.expect("they are dialled");
        let texts: Vec<Vec<u8>> = (0..4)
            .map(|index| vec![round * 4 + index; 10_000])
            .collect();
        let answers = join_all(texts.iter().map(|text| echo(&tunnel, text))).await;
        assert!(answers == texts);
    }
    tunnel.shutdown().await.expect("nothing is left");
    assert_eq!(tunnel.warm_connections(), 0);
    let accepted = listener.accepted();
    assert!(accepted > 12, "{accepted}");
}
