//! Sender and listener of this crate at a relay that moves, cuts and stalls. In memory and virtual time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::bed::{Bed, PATH, Transport, builder, memory, root, rule};
use crate::{
    Error, ErrorKind, Result,
    relay::{
        HybridConnection, ListenerOptions, ListenerState, RelayCredential, RelayGrant,
        RelayListener, RelaySender, RelayStream, RelayTokenSource,
        server::{RelayServer, Rights},
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A listener with so many control channels, which answers whoever comes.
fn answering(bed: &Bed, channels: usize) -> JoinHandle<()> {
    let (start, epoch) = (Instant::now(), SystemTime::now());
    let options = match channels {
        1 => ListenerOptions::new(),
        _ => ListenerOptions::new().redundant(),
    };
    let mut listener = RelayListener::start_at(
        bed.connector(),
        bed.hybrid_connection(),
        root().into(),
        options,
        Arc::new(move || epoch + start.elapsed()),
    );
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.accept().await.unwrap();
                stream.write_all(b"!").await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    })
}

/// A sender whose token lives as long as virtual time lasts here.
fn sender(bed: &Bed) -> RelaySender {
    let token = root().sign(&bed.hybrid_connection(), SystemTime::now() + HOUR * 100_000);
    RelaySender::new(
        bed.connector(),
        bed.hybrid_connection(),
        RelayCredential::sas_token(token.secret()).unwrap(),
    )
}

async fn channels(bed: &Bed, expected: usize) {
    let wait = async {
        while bed.server.listeners(PATH) != expected {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(MINUTE, wait).await.expect("the channels stand");
}

async fn is_answered(mut stream: RelayStream) {
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
}

/// Connects again and again, one attempt each, with `pause` between them. Any failure is the test's.
fn connecting(bed: &Bed, pause: Duration) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let sender = sender(bed);
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let task = tokio::spawn(async move {
        loop {
            is_answered(sender.connect().await.expect("somebody listens")).await;
            counter.fetch_add(1, Relaxed);
            sleep(pause).await;
        }
    });
    (task, count)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cuts_without_warning_and_no_sender_finds_nobody() {
    let bed = Bed::start(Transport::Memory).await;
    let _listener = answering(&bed, 2);
    channels(&bed, 2).await;
    let (connecting, count) = connecting(&bed, Duration::from_secs(17));
    let sender = sender(&bed);
    for _ in 0..1000 {
        bed.server.recycle();
        // In the middle of it.
        is_answered(sender.connect().await.expect("somebody listens")).await;
        sleep(Duration::from_secs(31)).await;
        channels(&bed, 2).await;
    }
    assert!(!connecting.is_finished());
    assert!(count.load(Relaxed) > 1500, "{count:?}");
}

/// The daily cut never comes, because the channel was replaced before; the token never expires, because it was renewed.
#[tokio::test(start_paused = true)]
async fn a_thousand_renewals_and_no_sender_finds_nobody() {
    let bed = Bed::of(builder().recycle_after(HOUR * 24), Transport::Memory).await;
    let _listener = answering(&bed, 1);
    channels(&bed, 1).await;
    let (connecting, count) = connecting(&bed, MINUTE * 17);
    // One every 45 minutes.
    for _ in 0..1000 {
        sleep(MINUTE * 45).await;
        assert!(bed.server.listeners(PATH) >= 1);
    }
    assert!(!connecting.is_finished());
    assert!(count.load(Relaxed) > 2500, "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn one_channel_that_is_cut_is_back_within_moments() {
    let bed = Bed::start(Transport::Memory).await;
    let _listener = answering(&bed, 1);
    channels(&bed, 1).await;
    let sender = sender(&bed);
    for _ in 0..20 {
        sleep(MINUTE).await;
        bed.server.recycle();
        let start = Instant::now();
        // With patience it is no failure.
        is_answered(sender.connect_within(MINUTE).await.unwrap()).await;
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

/// The successor stands before the old channel goes: at no moment is there none.
#[tokio::test(start_paused = true)]
async fn a_channel_is_replaced_before_the_daily_cut() {
    let bed = Bed::start(Transport::Memory).await;
    let _listener = answering(&bed, 1);
    channels(&bed, 1).await;
    let (mut least, mut most) = (usize::MAX, 0);
    let start = Instant::now();
    while start.elapsed() < HOUR * 24 {
        let count = bed.server.listeners(PATH);
        (least, most) = (least.min(count), most.max(count));
        // A replacement takes no virtual time at all: the relay itself says when it changes.
        sleep(MINUTE).await;
    }
    assert_eq!(least, 1);
    assert!(most <= 2);
}

/// It was deleted, or is made anew: the listener waits for it as at the start, says so when that took too long, and is
/// there when it is.
#[tokio::test(start_paused = true)]
async fn a_hybrid_connection_that_goes_away_is_waited_for_too() {
    let bed = Bed::start(Transport::Memory).await;
    let without = RelayServer::builder()
        .hybrid_connection("other")
        .rule(root(), Rights::LISTEN | Rights::SEND);
    let without = Bed::of(without, Transport::Memory).await;
    let relay = Arc::new(Mutex::new(Arc::clone(&bed.server.relay)));
    let dialled = Arc::clone(&relay);
    let connector = crate::relay::tests::connector()
        .in_memory(move |_| memory(&dialled.lock().unwrap(), 64 * 1024));
    let listener = RelayListener::start(connector, bed.hybrid_connection(), root().into());
    let mut states = listener.states();
    listener.online().await.unwrap();

    *relay.lock().unwrap() = Arc::clone(&without.server.relay);
    bed.server.recycle();
    let start = Instant::now();
    while !matches!(states.next().await, Some(ListenerState::Waiting { .. })) {}
    let error = listener.online().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("404 Endpoint does not exist"));
    assert!((120..=121).contains(&start.elapsed().as_secs()));

    *relay.lock().unwrap() = Arc::clone(&bed.server.relay);
    let back = async { while !matches!(states.next().await, Some(ListenerState::Online)) {} };
    timeout(MINUTE, back).await.expect("it is asked for");
}

/// Signs for an hour each time, but has nothing three times when it is asked for the second token.
struct Moody {
    hybrid_connection: HybridConnection,
    epoch: SystemTime,
    start: Instant,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl RelayTokenSource for Moody {
    async fn grant(&self) -> Result<RelayGrant> {
        if (1..=3).contains(&self.asked.fetch_add(1, Relaxed)) {
            return Err(Error::new(ErrorKind::Network, "out of reach"));
        }
        let end = self.epoch + self.start.elapsed() + HOUR;
        let token = root().sign(&self.hybrid_connection, end);
        Ok(RelayGrant::new(self.hybrid_connection.clone(), token))
    }
}

/// Another channel stands, with a token of its own, before the first one's is over.
#[tokio::test(start_paused = true)]
async fn a_channel_whose_token_can_not_be_renewed_is_replaced() {
    let bed = Bed::start(Transport::Memory).await;
    let (start, epoch) = (Instant::now(), SystemTime::now());
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Moody {
        hybrid_connection: bed.hybrid_connection(),
        epoch,
        start,
        asked: Arc::clone(&asked),
    };
    let listener = RelayListener::start_at(
        bed.connector(),
        bed.hybrid_connection(),
        RelayCredential::refreshing(Arc::new(source)),
        ListenerOptions::new(),
        Arc::new(move || epoch + start.elapsed()),
    );
    listener.online().await.unwrap();
    sleep(MINUTE * 44).await;
    assert_eq!(asked.load(Relaxed), 1);
    sleep(MINUTE * 3).await;
    assert_eq!(asked.load(Relaxed), 5);
    // The relay would cut the first channel after an hour and five minutes.
    for _ in 0..40 {
        sleep(MINUTE).await;
        assert!(bed.server.listeners(PATH) >= 1);
        assert!(matches!(listener.state(), ListenerState::Online));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_not_answered_is_overtaken_by_a_second_one() {
    let bed = Bed::start(Transport::Memory).await;
    let _listener = answering(&bed, 1);
    channels(&bed, 1).await;
    let swallowed: Arc<Mutex<Option<DuplexStream>>> = Arc::default();
    let keep = Arc::clone(&swallowed);
    let relay = Arc::clone(&bed.server.relay);
    let connector = crate::relay::tests::connector().in_memory(move |_| {
        let mut keep = keep.lock().unwrap();
        if keep.is_some() {
            return memory(&relay, 64 * 1024);
        }
        let (near, far) = duplex(64 * 1024);
        *keep = Some(far);
        near
    });
    let start = Instant::now();
    let sender = RelaySender::new(connector, bed.hybrid_connection(), root().into());
    is_answered(sender.connect().await.unwrap()).await;
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    // The loser was dropped: after its request comes the end.
    let mut loser = swallowed.lock().unwrap().take().unwrap();
    let mut request = Vec::new();
    loser.read_to_end(&mut request).await.unwrap();
    assert!(request.starts_with(b"GET /$hc/"));
}

#[tokio::test(start_paused = true)]
async fn a_patient_sender_waits_for_a_listener() {
    let bed = Bed::start(Transport::Memory).await;
    let sender = sender(&bed);
    let start = Instant::now();
    let error = sender.connect_within(Duration::from_secs(9)).await;
    assert_eq!(error.unwrap_err().status(), Some(404));
    assert!(start.elapsed() >= Duration::from_secs(7) && start.elapsed() < Duration::from_secs(9));

    let waiting = tokio::spawn(async move { sender.connect_within(MINUTE).await });
    sleep(Duration::from_secs(20)).await;
    let _listener = answering(&bed, 1);
    is_answered(waiting.await.unwrap().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_not_tried_again() {
    let bed = Bed::start(Transport::Memory).await;
    let sender = RelaySender::new(
        bed.connector(),
        bed.hybrid_connection(),
        rule("root", "another-key").into(),
    );
    let start = Instant::now();
    let error = sender.connect_within(MINUTE).await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_never_answered_end_with_the_budget() {
    let pipes = Mutex::new(Vec::new());
    let connector = crate::relay::tests::connector().in_memory(move |_| {
        let (near, far) = duplex(64 * 1024);
        pipes.lock().unwrap().push(far);
        near
    });
    let bed = Bed::start(Transport::Memory).await;
    let sender = RelaySender::new(connector, bed.hybrid_connection(), root().into());
    let start = Instant::now();
    let error = sender.connect_within(MINUTE / 2).await.unwrap_err();
    assert!(error.is_timeout());
    assert!(start.elapsed() <= MINUTE / 2);
    assert!(start.elapsed() > MINUTE / 2 - Duration::from_secs(10));
}
