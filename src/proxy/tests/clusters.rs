//! Clusters that come and go while the endpoint runs.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    fakes::{FakeAuth, FakeTunnel, StreamEnd},
    support::{
        BOTH_VERSIONS, Bed, ClientVersion, channel, data, empty, is_ended, next_data, ok,
        read_until, status_of, text,
    },
};
use crate::{
    ErrorKind, Tunnel,
    net::Alpn,
    proxy::{ProxyBuilder, ProxyId, registry::MAX_CLUSTERS},
};

/// Answers whose first event is `name` and that never end.
fn watching(name: &'static str) -> FakeTunnel {
    FakeTunnel::serving(move |_| {
        let (frames, body) = channel();
        frames.send(data(name)).expect("room");
        async move {
            tokio::spawn(async move {
                frames.closed().await;
            });
            Response::new(body)
        }
    })
}

fn named(name: &'static str) -> FakeTunnel {
    FakeTunnel::serving(move |_| async move { ok(name) })
}

fn short_drain(proxy: ProxyBuilder) -> ProxyBuilder {
    proxy.drain_limit(Duration::from_millis(50))
}

fn no_drain(proxy: ProxyBuilder) -> ProxyBuilder {
    proxy.drain_limit(Duration::ZERO)
}

/// Adds another cluster to a bed.
fn add(bed: &Bed, name: &str, tunnel: FakeTunnel) -> (ProxyId, Arc<FakeTunnel>) {
    let id = ProxyId::from_name(name);
    let tunnel = Arc::new(tunnel);
    let endpoint = bed
        .proxy
        .add_cluster(
            id,
            Arc::clone(&tunnel) as Arc<dyn Tunnel>,
            Arc::new(FakeAuth::fixed()),
        )
        .expect("added");
    assert_eq!(
        endpoint.server(),
        bed.proxy.endpoint(&id).expect("it is there").server()
    );
    assert_eq!(endpoint.secret(), bed.endpoint().secret());
    (id, tunnel)
}

async fn get(bed: &Bed, id: ProxyId, version: ClientVersion) -> Response<Incoming> {
    let request = bed.request_at(&id, "GET", "/api").body(empty());
    let mut client = bed.client(version).await;
    let answer = client.send(request.expect("a request")).await;
    // The HTTP/1.1 connection of a client that is dropped ends with its present exchange.
    answer.expect("an answer")
}

#[tokio::test]
async fn a_cluster_comes_and_goes_while_the_other_works() {
    let bed = Bed::start(|_| async { ok("first") }).await;
    for version in BOTH_VERSIONS {
        let first = bed.id;
        let (second, _) = add(&bed, "second", named("second"));
        let mut both = vec![first, second];
        both.sort();
        assert_eq!(bed.proxy.clusters(), both);
        assert_eq!(
            text(get(&bed, second, version).await.into_body()).await,
            "second"
        );
        assert_eq!(
            text(get(&bed, first, version).await.into_body()).await,
            "first"
        );

        let removed = bed
            .proxy
            .remove_cluster(&second)
            .await
            .expect("it was there");
        assert_eq!(removed.cut(), 0);
        assert_eq!(bed.proxy.clusters(), [first]);
        assert!(bed.proxy.endpoint(&second).is_none());
        let (code, reason, message) = status_of(get(&bed, second, version).await).await;
        assert_eq!((code, reason.as_str()), (StatusCode::NOT_FOUND, "NotFound"));
        assert!(message.contains("was removed"), "{message}");
        let never = ProxyId::from_name("never");
        let (_, _, message) = status_of(get(&bed, never, version).await).await;
        assert!(message.contains("serves no cluster"), "{message}");
        let error = bed.proxy.remove_cluster(&second).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            text(get(&bed, first, version).await.into_body()).await,
            "first"
        );
    }
}

#[tokio::test]
async fn a_removal_breaks_what_does_not_end_and_leaves_the_other_cluster_alone() {
    for version in BOTH_VERSIONS {
        let bed = Bed::with(watching("first"), FakeAuth::fixed(), short_drain).await;
        let (second, tunnel) = add(&bed, "second", watching("second"));
        let first = bed.id;
        let mut stays = get(&bed, first, version).await.into_body();
        let mut goes = get(&bed, second, version).await.into_body();
        let mut goes_too = get(&bed, second, version).await.into_body();
        assert_eq!(next_data(&mut stays).await, "first");
        assert_eq!(next_data(&mut goes).await, "second");

        let removed = bed
            .proxy
            .remove_cluster(&second)
            .await
            .expect("it was there");
        assert_eq!(removed.cut(), 2, "{version:?}");
        for _ in 0..2 {
            assert_eq!(tunnel.next_end().await, StreamEnd::Reset);
        }
        let end = goes.frame().await.expect("not a clean end");
        assert!(end.is_err(), "{version:?}");
        while let Some(Ok(_)) = goes_too.frame().await {}
        // The other watch lives, and so does its cluster.
        let status = bed.proxy.status();
        assert_eq!(status.clusters.len(), 1);
        assert_eq!(status.clusters[0].live_requests, 1);
        drop(stays);
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    }
}

#[tokio::test]
async fn a_removal_waits_for_what_ends_by_itself() {
    for version in BOTH_VERSIONS {
        let (frames, answer) = channel();
        let answer = std::sync::Mutex::new(Some(answer));
        let bed = Bed::start(move |_| {
            let answer = answer.lock().expect("not poisoned").take();
            async move { Response::new(answer.expect("one request")) }
        })
        .await;
        let id = bed.id;
        let mut list = get(&bed, id, version).await.into_body();
        let proxy = Arc::new(bed.proxy);
        let removing = tokio::spawn({
            let proxy = Arc::clone(&proxy);
            async move { proxy.remove_cluster(&id).await }
        });
        while !proxy.clusters().is_empty() {
            tokio::task::yield_now().await;
        }
        frames.send(data("the rest")).expect("the list runs");
        assert!(!removing.is_finished());
        drop(frames);
        assert_eq!(next_data(&mut list).await, "the rest");
        assert!(is_ended(&mut list).await, "{version:?}");
        let removed = removing.await.expect("no panic").expect("it was there");
        assert_eq!(removed.cut(), 0);
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Closed);
    }
}

#[tokio::test]
async fn a_removal_ends_a_shell_and_a_request_without_an_answer() {
    let bed = Bed::with(FakeTunnel::raw(), FakeAuth::fixed(), short_drain).await;
    let mut shell = bed.connect(Alpn::Http1).await;
    let ask = bed.request_text(
        "POST",
        "/exec",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
    );
    shell.write_all(ask.as_bytes()).await.expect("written");
    let mut agent = bed.tunnel.raw_stream().await;
    read_until(&mut agent, "\r\n\r\n").await;
    let agreement =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    agent
        .write_all(agreement.as_bytes())
        .await
        .expect("written");
    read_until(&mut shell, "\r\n\r\n").await;

    let mut client = bed.client(ClientVersion::Http2).await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    let unanswered = tokio::spawn(async move { client.send(request).await });
    let mut silent = bed.tunnel.raw_stream().await;
    read_until(&mut silent, "\r\n\r\n").await;

    let removed = bed
        .proxy
        .remove_cluster(&bed.id)
        .await
        .expect("it was there");
    assert_eq!(removed.cut(), 2);
    let response = unanswered.await.expect("no panic").expect("an answer");
    let (code, _, message) = status_of(response).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(message.contains("was removed"), "{message}");
    // TLS tells a clean end from a connection that was cut.
    assert!(shell.read_to_end(&mut Vec::new()).await.is_err());
    assert_eq!(agent.read(&mut [0; 1]).await.expect("an end"), 0);
    assert_eq!(silent.read(&mut [0; 1]).await.expect("an end"), 0);
}

/// The client takes nothing, so the HTTP library does not ask for more of the body either.
#[tokio::test]
async fn a_removal_does_not_wait_for_a_client_that_does_not_read() {
    let tunnel = FakeTunnel::serving(|_| {
        let (frames, body) = channel();
        async move {
            tokio::spawn(async move {
                let block = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
                for _ in 0..1024 {
                    if frames
                        .send(Ok(hyper::body::Frame::data(block.clone())))
                        .is_err()
                    {
                        return;
                    }
                }
                frames.closed().await;
            });
            Response::new(body)
        }
    });
    let bed = Bed::with(tunnel, FakeAuth::fixed(), no_drain).await;
    let mut client = bed.client(ClientVersion::Http1).await;
    let request = bed.request("GET", "/").body(empty()).expect("a request");
    let mut list = client.send(request).await.expect("a head").into_body();
    let removed = bed
        .proxy
        .remove_cluster(&bed.id)
        .await
        .expect("it was there");
    assert_eq!(removed.cut(), 1);
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    // Read now, it is no whole list.
    let end = loop {
        match list.frame().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_some_and(|end| end.is_err()));
}

#[tokio::test]
async fn a_replaced_tunnel_keeps_its_requests_and_gets_no_new_ones() {
    for version in BOTH_VERSIONS {
        let bed = Bed::with(watching("old"), FakeAuth::fixed(), short_drain).await;
        let id = bed.id;
        let mut watch = get(&bed, id, version).await.into_body();
        assert_eq!(next_data(&mut watch).await, "old");
        let new: Arc<dyn Tunnel> = Arc::new(named("new"));
        bed.proxy
            .replace_cluster(id, new, Arc::new(FakeAuth::fixed()))
            .expect("replaced");
        assert_eq!(text(get(&bed, id, version).await.into_body()).await, "new");
        assert_eq!(bed.tunnel.opened(), 1);
        assert_eq!(bed.proxy.status().clusters[0].live_requests, 1);
        // A removal counts what still runs over the old one.
        let removed = bed.proxy.remove_cluster(&id).await.expect("it was there");
        assert_eq!(removed.cut(), 1);
        assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
        assert!(watch.frame().await.is_some_and(|end| end.is_err()));
    }
}

#[tokio::test]
async fn a_dropped_removal_breaks_the_requests() {
    let bed = Bed::with(watching("event"), FakeAuth::fixed(), |proxy| proxy).await;
    let id = bed.id;
    let mut watch = get(&bed, id, ClientVersion::Http2).await.into_body();
    assert_eq!(next_data(&mut watch).await, "event");
    {
        let mut removing = std::pin::pin!(bed.proxy.remove_cluster(&id));
        assert!(futures_util::poll!(&mut removing).is_pending());
    }
    assert!(bed.proxy.clusters().is_empty());
    assert_eq!(bed.tunnel.next_end().await, StreamEnd::Reset);
    assert!(watch.frame().await.is_some_and(|end| end.is_err()));
}

#[tokio::test]
async fn an_id_is_taken_once_and_there_is_a_most() {
    let bed = Bed::start(|_| async { ok("pods") }).await;
    let add = |id| {
        let tunnel: Arc<dyn Tunnel> = Arc::new(FakeTunnel::raw());
        bed.proxy
            .add_cluster(id, tunnel, Arc::new(FakeAuth::fixed()))
    };
    let error = add(bed.id).expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for number in 1..MAX_CLUSTERS {
        add(ProxyId::from_name(&number.to_string())).expect("room");
    }
    let error = add(ProxyId::from_name("one too many")).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::LimitReached);
    let gone = ProxyId::from_name("1");
    let _ = bed.proxy.remove_cluster(&gone).await.expect("it was there");
    add(ProxyId::from_name("one too many")).expect("room");

    bed.proxy.shutdown().await;
    assert!(bed.proxy.status().draining);
    let _ = bed
        .proxy
        .remove_cluster(&bed.id)
        .await
        .expect("it was there");
    assert_eq!(add(gone).expect_err("over").kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_removal_under_load_loses_nothing_of_the_other_cluster() {
    const ROUNDS: usize = 30;
    const CLIENTS: usize = 4;
    const WHOLE: usize = 100_000;

    fn large() -> FakeTunnel {
        FakeTunnel::serving(|_| async { ok("x".repeat(WHOLE)) })
    }

    let bed = Arc::new(Bed::with(large(), FakeAuth::fixed(), short_drain).await);
    let (second, _) = add(&bed, "second", large());
    let load = |id: ProxyId| {
        let bed = Arc::clone(&bed);
        tokio::spawn(async move {
            let (mut whole, mut refused) = (0, 0);
            for round in 0..ROUNDS {
                let version = BOTH_VERSIONS[round % 2];
                let response = get(&bed, id, version).await;
                match response.status() {
                    // What was cut is an error; what is no error is whole.
                    StatusCode::OK => match response.into_body().collect().await {
                        Ok(body) => {
                            assert_eq!(body.to_bytes().len(), WHOLE);
                            whole += 1;
                        }
                        Err(_) => refused += 1,
                    },
                    StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                    other => panic!("{other}"),
                }
                if refused > 0 && round > ROUNDS / 2 {
                    break;
                }
            }
            (whole, refused)
        })
    };
    let stays: Vec<_> = (0..CLIENTS).map(|_| load(bed.id)).collect();
    let goes: Vec<_> = (0..CLIENTS).map(|_| load(second)).collect();
    // Well under way, whatever the machine's speed.
    let requests = || {
        let status = bed.proxy.status();
        let second = status.clusters.iter().find(|status| status.id == second);
        second.expect("it is there").requests
    };
    while requests() < 2 * CLIENTS as u64 {
        tokio::task::yield_now().await;
    }
    let _ = bed
        .proxy
        .remove_cluster(&second)
        .await
        .expect("it is there");
    for task in stays {
        assert_eq!(task.await.expect("no panic"), (ROUNDS, 0));
    }
    // One client may have been slow to start; of all of them, more had begun than can be under way at once.
    let (mut whole, mut refused) = (0, 0);
    for task in goes {
        let ended = task.await.expect("no panic");
        whole += ended.0;
        refused += ended.1;
    }
    assert!(whole > 0 && refused > 0, "{whole} {refused}");
}
