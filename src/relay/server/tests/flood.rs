//! Clients that have nothing to ask for, and do not stop. In memory and virtual time; all come from one address, the good
//! ones too.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, interval},
};
use tracing_subscriber::fmt::MakeWriter;

use super::{
    super::{
        attempts::{BURST, Hold, MAX_HELD_PER_SOURCE, REFILL, Rate, WARNINGS_PER_SOURCE},
        newcomers::MAX_NEWCOMERS,
        service::{OVER_RATE_DELAY, UNAUTHORIZED_DELAY},
    },
    bed::*,
};
use crate::net::{Alpn, TlsAcceptor};

/// What Microsoft's client for Node makes of a refused token, measured against a relay that refuses at once.
const ATTEMPTS_PER_SECOND: u32 = 900;
const FLOOD_SECONDS: u32 = 2;

/// A listener with a forged token; how long its 401 took.
async fn attempt(bed: &Bed, token: &str) -> Duration {
    let start = Instant::now();
    let target = format!("/$hc/{PATH}?sb-hc-action=listen&sb-hc-id=flood");
    let headers = [("ServiceBusAuthorization", token)];
    let refused = bed.request(&target, &headers).await.err().unwrap();
    assert_eq!(refused.status, 401);
    start.elapsed()
}

fn forged(bed: &Bed) -> String {
    bed.token(&rule("root", "another-key"), PATH, Duration::from_secs(60))
}

/// Refusals from the address of all clients here, without the clients.
fn refuse(bed: &Bed, count: usize) -> Vec<(Rate, Option<Hold>)> {
    let refused = |_| {
        let attempts = &bed.server.relay.attempts;
        let sentence = attempts.refused(MEMORY_PEER.ip(), Instant::now());
        (sentence.rate, sentence.hold)
    };
    (0..count).map(refused).collect()
}

fn connections(bed: &Bed) -> usize {
    let relay = &bed.server.relay;
    relay.max_connections - relay.connections.available_permits()
}

#[tokio::test(start_paused = true)]
async fn two_seconds_of_bad_tokens_stay_within_bounds_and_good_clients_do_not_wait() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let bed = Arc::new(Bed::start(Transport::Memory).await);
    let mut listener = bed.listen().await;
    let token: Arc<str> = forged(&bed).into();
    let attempts = &bed.server.relay.attempts;
    let mut pace = interval(Duration::from_secs(1) / ATTEMPTS_PER_SECOND);
    let mut flood = JoinSet::new();
    let (mut most_held, mut most_connections) = (0, 0);
    let count = ATTEMPTS_PER_SECOND * FLOOD_SECONDS;
    for index in 0..count {
        pace.tick().await;
        let (client, token) = (Arc::clone(&bed), Arc::clone(&token));
        flood.spawn(async move { attempt(&client, &token).await });
        if index % 90 == 0 {
            let start = Instant::now();
            let pair = bed.pair(&mut listener).await;
            assert_eq!(start.elapsed(), Duration::ZERO, "a good client waited");
            drop(pair);
        }
        most_held = most_held.max(attempts.held());
        most_connections = most_connections.max(connections(&bed));
    }
    let waits = flood.join_all().await;

    // Nobody was left without an answer, and nobody waited longer than it is meant.
    assert_eq!(waits.len(), count as usize);
    let waited = |delay| waits.iter().filter(|&&wait| wait == delay).count();
    let (at_once, briefly, long) = (
        waited(Duration::ZERO),
        waited(UNAUTHORIZED_DELAY),
        waited(OVER_RATE_DELAY),
    );
    assert_eq!(at_once + briefly + long, waits.len());
    assert!(briefly >= BURST as usize, "{briefly}");
    assert!(long > 0 && at_once > 0, "{long} {at_once}");

    // What it costs at a time: the waiting ones, one that is about to be answered, the listener and a pair.
    assert_eq!(most_held, MAX_HELD_PER_SOURCE);
    assert!(
        most_connections <= MAX_HELD_PER_SOURCE + 5,
        "{most_connections}"
    );
    let usual = BURST as u64 + u64::from(FLOOD_SECONDS) * 1000 / REFILL.as_millis() as u64;
    let over_rate = u64::from(count) - usual;
    assert!(
        attempts.over_rate().abs_diff(over_rate) <= 2,
        "{} {over_rate}",
        attempts.over_rate()
    );
    assert_eq!(log.lines("refused a request"), WARNINGS_PER_SOURCE as usize);
    assert!(!log.text().contains(&*token), "a token in the log");

    // What it costs afterwards.
    assert_eq!(attempts.held(), 0);
    assert_eq!(bed.server.relay.newcomers.count(), 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while connections(&bed) > 1 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(connections(&bed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_all_the_time_waits_longer_but_not_with_a_good_token() {
    let bed = Bed::start(Transport::Memory).await;
    let token = forged(&bed);
    assert_eq!(attempt(&bed, &token).await, UNAUTHORIZED_DELAY);
    refuse(&bed, BURST as usize);
    assert_eq!(attempt(&bed, &token).await, OVER_RATE_DELAY);
    refuse(&bed, BURST as usize);
    // Also those who guess what a listener was told.
    let start = Instant::now();
    let dial = format!("/$hc/{PATH}?sb-hc-action=accept&sb-hc-id=0123");
    assert_eq!(bed.request(&dial, &[]).await.err().unwrap().status, 403);
    assert_eq!(start.elapsed(), OVER_RATE_DELAY);

    refuse(&bed, BURST as usize);
    let start = Instant::now();
    // It may ask, and the answer may be another one soon.
    assert_eq!(bed.connect().await.err().unwrap().status, 404);
    let mut listener = bed.listen().await;
    bed.pair(&mut listener).await;
    assert_eq!(start.elapsed(), Duration::ZERO);

    // Who stops is forgiven.
    tokio::time::sleep(REFILL * BURST).await;
    assert_eq!(attempt(&bed, &token).await, UNAUTHORIZED_DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_can_not_wait_is_answered_at_once() {
    let bed = Bed::start(Transport::Memory).await;
    let token = forged(&bed);
    let waiting = refuse(&bed, MAX_HELD_PER_SOURCE);
    assert!(waiting.iter().all(|(_, hold)| hold.is_some()));
    assert_eq!(attempt(&bed, &token).await, Duration::ZERO);
    drop(waiting);
    assert_eq!(attempt(&bed, &token).await, OVER_RATE_DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_does_not_wait_on() {
    let bed = Bed::start(Transport::Memory).await;
    let token = forged(&bed);
    let attempts = &bed.server.relay.attempts;
    tokio::select! {
        _ = attempt(&bed, &token) => unreachable!("it waits"),
        () = tokio::time::sleep(UNAUTHORIZED_DELAY / 2) => assert_eq!(attempts.held(), 1),
    }
    let start = Instant::now();
    while attempts.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(start.elapsed() < UNAUTHORIZED_DELAY / 2);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_refusals() {
    let bed = Bed::start(Transport::Memory).await;
    let token = forged(&bed);
    refuse(&bed, BURST as usize);
    let attempts = Arc::clone(&bed.server.relay.attempts);
    let start = Instant::now();
    let bed = Arc::new(bed);
    let waiting = tokio::spawn({
        let bed = Arc::clone(&bed);
        async move { attempt(&bed, &token).await }
    });
    while attempts.held() == 0 {
        tokio::task::yield_now().await;
    }
    bed.server.relay.shutdown.cancel();
    waiting.await.unwrap();
    assert!(start.elapsed() < OVER_RATE_DELAY);
}

#[tokio::test(start_paused = true)]
async fn connections_that_send_no_request_make_room_for_those_that_do() {
    let bed = Bed::of(builder().max_connections(10_000), Transport::Memory).await;
    let start = Instant::now();
    let mut slow: Vec<_> = (0..MAX_NEWCOMERS).map(|_| bed.memory(1024)).collect();
    for client in &mut slow {
        client.write_all(b"GET /$hc/").await.unwrap();
    }
    let mut listener = bed.listen().await;
    bed.pair(&mut listener).await;
    let newcomers = &bed.server.relay.newcomers;
    // The first of them made room; those who took it were newcomers for a moment only.
    assert_eq!(newcomers.evicted(), 1);
    assert_eq!(newcomers.count(), MAX_NEWCOMERS - 1);
    assert!(matches!(slow[0].read(&mut [0; 1]).await, Ok(0) | Err(_)));
    // Long before the time for a request was over.
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_connection_without_a_tls_handshake_makes_room_too() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (
        certificate.cert.pem(),
        certificate.signing_key.serialize_pem(),
    );
    let tls = TlsAcceptor::from_pem(chain.as_bytes(), key.as_bytes(), Alpn::Http1).unwrap();
    let bed = Bed::of(builder().tls(tls).max_connections(2), Transport::Tcp).await;
    let mut first = bed.tcp().await;
    let _second = bed.tcp().await;
    assert!(matches!(first.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self, part: &str) -> usize {
        let text = self.text();
        text.lines().filter(|line| line.contains(part)).count()
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
