//! Servers that send their clients elsewhere: no request fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use h2::Reason;
use http::Method;
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use super::bed::{Bed, Caller, Command, Dialling, at_once, collect, get, request, send};

#[tokio::test]
async fn no_request_fails_while_the_server_keeps_sending_its_clients_away() {
    const WORKERS: usize = 8;
    const REQUESTS: usize = 100;
    const EVERY: usize = 25;
    let (upstream, server) = Bed::new(Dialling::Http2).serve(100);
    let commands = server.echo();
    let asked = Arc::<AtomicUsize>::default();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (upstream, commands, asked) =
            (Arc::clone(&upstream), commands.clone(), Arc::clone(&asked));
        workers.spawn(async move {
            for index in 0..REQUESTS {
                if asked.fetch_add(1, Ordering::SeqCst) % EVERY == 0 {
                    let _ = commands.send(Command::GoAway);
                }
                if index % 2 == 0 {
                    let response = send(&upstream, get()).await.expect("an answer");
                    collect(response).await.expect("whole");
                } else {
                    let (_caller, body) = Caller::whole_body(b"an object").await;
                    let response = send(&upstream, request(Method::POST, body))
                        .await
                        .expect("an answer");
                    assert_eq!(collect(response).await.expect("whole"), "an object");
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no request failed");
    }
}

#[tokio::test]
async fn what_is_under_way_goes_on_and_what_is_new_goes_elsewhere() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let ask = || {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move { send(&upstream, get()).await })
    };
    let asking = ask();
    let mut watch = server.request().await;
    let mut stream = watch.answer();
    let mut body = asking
        .await
        .expect("no panic")
        .expect("an answer")
        .into_body();

    server.command(Command::GoAway);
    // The GOAWAY arrives before what is sent after it.
    tokio::task::yield_now().await;
    stream.send_data("one".into(), false).expect("open");
    let frame = at_once(body.frame()).await.expect("more").expect("whole");
    assert_eq!(frame.data_ref().expect("data"), "one");

    let asking = ask();
    let second = server.request().await;
    assert_eq!((watch.connection, second.connection), (0, 1));
    second.echo().await;
    asking.await.expect("no panic").expect("an answer");

    stream.send_data("two".into(), true).expect("open");
    let rest = at_once(body.collect()).await.expect("whole").to_bytes();
    assert_eq!(rest, "two");
}

#[tokio::test]
async fn a_refused_request_is_sent_again_with_its_body_elsewhere() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (_caller, body) = Caller::whole_body(b"an object").await;
    let asking =
        tokio::spawn(
            async move { collect(send(&upstream, request(Method::POST, body)).await?).await },
        );
    let mut first = server.request().await;
    first.respond.send_reset(Reason::REFUSED_STREAM);
    let second = server.request().await;
    assert_ne!(first.connection, second.connection);
    second.echo().await;
    let answer = asking.await.expect("no panic").expect("an answer");
    assert_eq!(answer, "an object");
}

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_asked_a_few_times() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let asking = tokio::spawn(async move { send(&upstream, get()).await.map(|_| ()) });
    for _ in 0..crate::agent::upstream::MAX_ATTEMPTS {
        server
            .request()
            .await
            .respond
            .send_reset(Reason::REFUSED_STREAM);
    }
    asking.await.expect("no panic").expect_err("refused");
}

#[tokio::test]
async fn only_a_harmless_request_is_sent_again_when_it_may_have_been_looked_at() {
    let (upstream, mut server) = Bed::new(Dialling::Http2).serve(100);
    let (_caller, body) = Caller::whole_body(b"an object").await;
    let asking = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move {
            send(&upstream, request(Method::POST, body))
                .await
                .map(|_| ())
        }
    });
    let _first = server.request().await;
    server.command(Command::Die);
    let error = asking.await.expect("no panic").expect_err("not known");
    assert_eq!(error.kind(), crate::ErrorKind::Closed);

    let asking = tokio::spawn(async move { send(&upstream, get()).await.map(|_| ()) });
    let _second = server.request().await;
    server.command(Command::Die);
    server.request().await.echo().await;
    asking.await.expect("no panic").expect("an answer");
}
