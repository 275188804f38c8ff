//! What the in-flight rule finds on paths of all kinds, in virtual time.
//!
//! `cargo test --lib mux::tests::paths -- --nocapture` prints the traces.

use std::{
    collections::VecDeque,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::super::{
    batch::Batch,
    config::Config,
    connection::Connection,
    id::{Role, StreamId},
};

/// One direction of a path: a rate, a delay, and a buffer before the narrowest part.
#[derive(Clone, Copy)]
struct Way {
    bytes_per_second: f64,
    delay: Duration,
    /// What the path takes before the sender has to wait.
    buffer: usize,
    /// Up to so much longer it takes, as on a radio link.
    jitter: Duration,
}

const GIGABIT: f64 = 1e9 / 8.0;

/// 50 ms there and back, 5 ms of queue and a small socket buffer.
const LONG: Way = Way {
    bytes_per_second: GIGABIT,
    delay: Duration::from_millis(25),
    buffer: 700_000,
    jitter: Duration::ZERO,
};

/// As Azure Relay was measured.
const RELAY: Way = Way {
    bytes_per_second: 14e6 / 8.0,
    delay: Duration::from_millis(50),
    buffer: 15 << 20,
    jitter: Duration::ZERO,
};

const LOOPBACK: Way = Way {
    bytes_per_second: 4e9,
    delay: Duration::from_micros(10),
    buffer: 4 << 20,
    jitter: Duration::ZERO,
};

/// 100 Mbit/s, 30 to 40 ms each time anew.
const RADIO: Way = Way {
    bytes_per_second: GIGABIT / 10.0,
    delay: Duration::from_millis(15),
    buffer: 1 << 20,
    jitter: Duration::from_millis(5),
};

struct Lane {
    way: Way,
    free_at: Instant,
    waiting: VecDeque<(Instant, usize)>,
    queued: usize,
    flying: VecDeque<(Instant, Bytes)>,
    random: u64,
    next_jitter: Instant,
}

/// What a sender gives to its socket at a time, cut as a link would.
const PIECE: usize = 16 * 1024;

impl Lane {
    fn new(way: Way, now: Instant) -> Self {
        Self {
            way,
            free_at: now,
            waiting: VecDeque::new(),
            queued: 0,
            flying: VecDeque::new(),
            random: 1,
            next_jitter: now,
        }
    }

    fn settle(&mut self, now: Instant) {
        while let Some((left_at, bytes)) = self.waiting.front().copied()
            && left_at <= now
        {
            self.queued -= bytes;
            self.waiting.pop_front();
        }
    }

    fn has_room(&self) -> bool {
        self.queued < self.way.buffer
    }

    fn carry(&mut self, now: Instant, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let takes = Duration::from_secs_f64(piece.len() as f64 / self.way.bytes_per_second);
            self.free_at = self.free_at.max(now) + takes;
            self.waiting.push_back((self.free_at, piece.len()));
            self.queued += piece.len();
            let earliest = self.free_at + self.way.delay + self.jitter(now);
            // Bytes do not overtake each other.
            let last = self.flying.back().map(|(last, _)| *last);
            self.flying
                .push_back((last.map_or(earliest, |last| earliest.max(last)), piece));
        }
    }

    /// Another every few milliseconds, and the same in every run.
    fn jitter(&mut self, now: Instant) -> Duration {
        if self.way.jitter.is_zero() {
            return Duration::ZERO;
        }
        if now >= self.next_jitter {
            self.next_jitter = now + Duration::from_millis(3);
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
        }
        self.way
            .jitter
            .mul_f64((self.random >> 33) as f64 / f64::from(1u32 << 31))
    }

    fn next(&self) -> Option<Instant> {
        let room = self.waiting.front().map(|(left_at, _)| *left_at);
        let arrival = self.flying.front().map(|(arrival, _)| *arrival);
        room.filter(|_| !self.has_room())
            .into_iter()
            .chain(arrival)
            .min()
    }
}

/// A client that sends without pause on some streams, and asks for an echo on another every now and then.
struct Simulation {
    now: Instant,
    began: Instant,
    client: Connection,
    server: Connection,
    up: Lane,
    down: Lane,
    senders: Vec<StreamId>,
    echo: StreamId,
    echo_far: Option<StreamId>,
    received: Vec<u64>,
    accepted: Vec<StreamId>,
    asked_at: Option<Instant>,
    ask_at: Instant,
    echoes: Vec<(Duration, Duration)>,
    chunk: Bytes,
}

const ECHO_BYTES: usize = 1024;
const BETWEEN_ECHOES: Duration = Duration::from_millis(7);

impl Simulation {
    fn new(way: Way, streams: usize) -> Self {
        let now = Instant::now();
        let mut new = Self {
            now,
            began: now,
            client: Connection::new(Role::Client, Config::default(), now),
            server: Connection::new(Role::Server, Config::default(), now),
            up: Lane::new(way, now),
            down: Lane::new(way, now),
            senders: Vec::new(),
            echo: super::id(1),
            echo_far: None,
            received: Vec::new(),
            accepted: Vec::new(),
            asked_at: None,
            ask_at: now + Duration::from_secs(3600),
            echoes: Vec::new(),
            chunk: Bytes::from(vec![0; 64 * 1024]),
        };
        while !new.client.is_ready() {
            new.step();
        }
        let began = new.now;
        new.began = began;
        new.echo = new.open();
        new.ask_at = began;
        for _ in 0..streams {
            let id = new.open();
            new.senders.push(id);
        }
        new
    }

    fn open(&mut self) -> StreamId {
        match self.client.open(&Bytes::new()) {
            Poll::Ready(Ok(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Until `time` after the beginning.
    fn run_until(&mut self, time: Duration) {
        while self.now < self.began + time {
            self.step();
        }
    }

    fn step(&mut self) {
        self.up.settle(self.now);
        self.down.settle(self.now);
        loop {
            self.work();
            let up = transmit(&mut self.client, &mut self.up, self.now);
            let down = transmit(&mut self.server, &mut self.down, self.now);
            if !up && !down {
                break;
            }
        }
        let timers = [self.client.poll_timeout(), self.server.poll_timeout()];
        let ask = self.asked_at.is_none().then_some(self.ask_at);
        let next = [self.up.next(), self.down.next(), ask]
            .into_iter()
            .chain(timers)
            .flatten()
            .min()
            .expect("something always comes");
        self.now = self.now.max(next);
        for connection in [&mut self.client, &mut self.server] {
            if connection.poll_timeout().is_some_and(|due| due <= self.now) {
                connection.handle_timeout(self.now);
            }
        }
        deliver(&mut self.server, &mut self.up, self.now);
        deliver(&mut self.client, &mut self.down, self.now);
    }

    /// What the applications do.
    fn work(&mut self) {
        while let Poll::Ready(Some((id, _))) = self.server.accept() {
            if self.echo_far.is_none() {
                self.echo_far = Some(id);
            } else {
                self.accepted.push(id);
                self.received.push(0);
            }
        }
        for (id, received) in self.accepted.iter().zip(&mut self.received) {
            while let Poll::Ready(Ok(Some(bytes))) = self.server.read(*id, usize::MAX) {
                *received += bytes.len() as u64;
            }
        }
        for id in &self.senders {
            while let Poll::Ready(Ok(())) = self.client.write_chunk(*id, &mut self.chunk.clone()) {}
        }
        if let Some(far) = self.echo_far {
            while let Poll::Ready(Ok(Some(bytes))) = self.server.read(far, usize::MAX) {
                assert!(self.server.write(far, &bytes).is_ready());
            }
        }
        let mut back = 0;
        while let Poll::Ready(Ok(Some(bytes))) = self.client.read(self.echo, usize::MAX) {
            back += bytes.len();
        }
        if back > 0
            && let Some(asked_at) = self.asked_at.take()
        {
            self.echoes
                .push((asked_at - self.began, self.now - asked_at));
            self.ask_at = self.now + BETWEEN_ECHOES;
        }
        if self.asked_at.is_none() && self.now >= self.ask_at {
            assert!(self.client.write(self.echo, &[b'e'; ECHO_BYTES]).is_ready());
            self.asked_at = Some(self.now);
        }
        while self.client.poll_event().is_some() || self.server.poll_event().is_some() {}
    }

    fn total(&self) -> u64 {
        self.received.iter().sum()
    }

    /// The median echo between two times.
    fn echo(&self, from: Duration, to: Duration) -> Duration {
        let mut times: Vec<Duration> = self
            .echoes
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, took)| *took)
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn worst_echo(&self, from: Duration) -> Duration {
        let later = self.echoes.iter().filter(|(at, _)| *at >= from);
        later.map(|(_, took)| *took).max().expect("an echo")
    }

    /// Runs to `until` in `lines` steps, prints what is seen, and returns the rate as a part of the path's.
    fn trace(&mut self, until: Duration, lines: u32) -> f64 {
        let from = self.now - self.began;
        let begin = self.total();
        for line in 1..=lines {
            let before = (self.now, self.total());
            self.run_until(from + (until - from) * line / lines);
            let seconds = (self.now - before.0).as_secs_f64();
            println!(
                "{:>9.1?}  target {:>6} KiB  {:>8.2} MiB/s  waiting {:>9.2?}  echo {:>8.2?}",
                self.now - self.began,
                self.server.in_flight_target() / 1024,
                (self.total() - before.1) as f64 / seconds / f64::from(1 << 20),
                self.up.free_at.saturating_duration_since(self.now),
                self.echoes
                    .last()
                    .map(|(_, took)| *took)
                    .unwrap_or_default(),
            );
        }
        let seconds = (self.now - self.began - from).as_secs_f64();
        (self.total() - begin) as f64 / seconds / self.up.way.bytes_per_second
    }
}

/// One batch, if the path takes one; whether there was one.
fn transmit(from: &mut Connection, lane: &mut Lane, now: Instant) -> bool {
    if !lane.has_room() {
        return false;
    }
    let mut batch = Batch::default();
    from.poll_transmit(now, &mut batch);
    let bytes = batch.take();
    lane.carry(now, bytes.clone());
    !bytes.is_empty()
}

fn deliver(to: &mut Connection, lane: &mut Lane, now: Instant) {
    while let Some((arrival, _)) = lane.flying.front()
        && *arrival <= now
    {
        let (_, bytes) = lane.flying.pop_front().expect("it was there");
        to.handle_input(now, bytes);
    }
}

const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn a_long_path_is_full_from_the_first_second_on() {
    let mut simulation = Simulation::new(LONG, 1);
    let first = simulation.trace(milliseconds(1000), 20);
    let mebibytes = simulation.total() as f64 / f64::from(1 << 20);
    println!("first second {mebibytes:.1} MiB");
    let later = simulation.trace(milliseconds(6000), 20);
    println!("first {first:.3} later {later:.4}");
    assert!(mebibytes >= 104.5, "{mebibytes}");
    assert!(later >= 0.99, "{later}");
    let echo = simulation.echo(milliseconds(2000), milliseconds(6000));
    assert!(echo <= milliseconds(56), "{echo:?}");
}

#[test]
fn a_long_path_is_full_and_short_with_many_streams() {
    let mut simulation = Simulation::new(LONG, 8);
    simulation.trace(milliseconds(2000), 20);
    let later = simulation.trace(milliseconds(25000), 23);
    let echo = simulation.echo(milliseconds(2000), milliseconds(25000));
    println!(
        "later {later:.4} echo {echo:?} worst {:?}",
        simulation.worst_echo(milliseconds(2000))
    );
    assert!(later >= 0.98, "{later}");
    assert!(echo <= milliseconds(56), "{echo:?}");
}

#[test]
fn a_relay_with_a_deep_buffer_stays_interactive() {
    for streams in [1, 4, 8] {
        let mut simulation = Simulation::new(RELAY, streams);
        simulation.trace(milliseconds(3000), 15);
        let later = simulation.trace(milliseconds(30000), 27);
        let echo = simulation.echo(milliseconds(3000), milliseconds(30000));
        println!(
            "later {later:.4} echo {echo:?} worst {:?}",
            simulation.worst_echo(milliseconds(3000))
        );
        assert!(later >= 0.95, "{later}");
        assert!(echo <= milliseconds(150), "{echo:?}");
    }
}

#[test]
fn a_path_that_becomes_slower_or_faster_is_followed() {
    let mut simulation = Simulation::new(LONG, 2);
    simulation.trace(milliseconds(2000), 10);
    println!("a tenth of the rate");
    simulation.up.way.bytes_per_second = GIGABIT / 10.0;
    simulation.up.way.buffer = 4 << 20;
    simulation.trace(milliseconds(4000), 20);
    let slower = simulation.trace(milliseconds(7000), 6);
    let echo = simulation.echo(milliseconds(4000), milliseconds(7000));
    println!("slower {slower:.4} echo {echo:?}");
    println!("the old rate");
    simulation.up.way.bytes_per_second = GIGABIT;
    simulation.trace(milliseconds(9000), 20);
    let faster = simulation.trace(milliseconds(12000), 6);
    println!("faster {faster:.4}");
    assert!(slower >= 0.97, "{slower}");
    assert!(echo <= milliseconds(70), "{echo:?}");
    assert!(faster >= 0.98, "{faster}");
}

#[test]
fn a_path_that_becomes_longer_is_followed() {
    let mut simulation = Simulation::new(LONG, 1);
    simulation.trace(milliseconds(2000), 4);
    println!("80 ms instead of 50");
    for lane in [&mut simulation.up, &mut simulation.down] {
        lane.way.delay = milliseconds(40);
    }
    simulation.trace(milliseconds(4000), 20);
    let later = simulation.trace(milliseconds(25000), 21);
    println!("later {later:.4}");
    assert!(later >= 0.97, "{later}");
}

#[test]
fn a_short_path_keeps_little_under_way() {
    for streams in [1, 16] {
        let mut simulation = Simulation::new(LOOPBACK, streams);
        simulation.trace(milliseconds(20), 10);
        let later = simulation.trace(milliseconds(60), 10);
        println!("later {later:.4}");
        assert!(simulation.server.in_flight_target() <= 1 << 20);
        // Two batches: one is filled while the other is read.
        assert!(simulation.server.in_flight_share() * streams as u64 >= 512 << 10);
        assert!(later >= 0.9, "{later}");
    }
}

#[test]
fn a_path_that_trembles_is_used_all_the_same() {
    let mut simulation = Simulation::new(RADIO, 2);
    simulation.trace(milliseconds(2000), 20);
    let later = simulation.trace(milliseconds(20000), 36);
    let echo = simulation.echo(milliseconds(2000), milliseconds(20000));
    println!("trembling {later:.4} echo {echo:?}");
    // The queue and the trembling look alike: something is lost to caution.
    assert!(later >= 0.9, "{later}");
}
