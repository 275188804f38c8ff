//! Two connections, a link with latency between them, and a clock that only tests move.

use std::{
    collections::VecDeque,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::super::{
    batch::Batch,
    config::Config,
    connection::{Connection, Event},
    failure::StreamFailure,
    id::{Role, StreamId},
};

pub(super) struct Pair {
    pub(super) client: End,
    pub(super) server: End,
    pub(super) now: Instant,
    pub(super) latency: Duration,
    /// The largest piece that the link delivers at once.
    pub(super) fragment: usize,
}

pub(super) struct End {
    pub(super) connection: Connection,
    pub(super) events: Vec<Event>,
    /// What is on its way to this end.
    arriving: VecDeque<(Instant, Bytes)>,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Config::default(), Config::default())
    }

    pub(super) fn with(client: Config, server: Config) -> Self {
        let now = Instant::now();
        Self {
            client: End::new(Connection::new(Role::Client, client, now)),
            server: End::new(Connection::new(Role::Server, server, now)),
            now,
            latency: Duration::from_millis(1),
            fragment: usize::MAX,
        }
    }

    /// A pair that has introduced itself.
    pub(super) fn ready() -> Self {
        let mut pair = Self::new();
        pair.drive();
        assert!(pair.client.connection.is_ready() && pair.server.connection.is_ready());
        pair
    }

    /// Moves bytes and time until nothing is under way any more.
    pub(super) fn drive(&mut self) {
        for _ in 0..100_000 {
            self.transmit();
            let Some(next) = self.next_moment() else {
                return;
            };
            self.now = self.now.max(next);
            self.deliver();
        }
        panic!("the pair does not come to rest");
    }

    /// Lets time pass, timers included.
    pub(super) fn advance(&mut self, duration: Duration) {
        let until = self.now + duration;
        for _ in 0..100_000 {
            self.transmit();
            let timers = [
                self.client.connection.poll_timeout(),
                self.server.connection.poll_timeout(),
            ];
            let next = timers.into_iter().flatten().chain(self.next_moment()).min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => {
                    self.now = until;
                    return;
                }
            }
            for end in [&mut self.client, &mut self.server] {
                if end
                    .connection
                    .poll_timeout()
                    .is_some_and(|due| due <= self.now)
                {
                    end.connection.handle_timeout(self.now);
                }
            }
            self.deliver();
        }
        panic!("the pair does not come to rest");
    }

    fn transmit(&mut self) {
        let arrival = self.now + self.latency;
        let (client, server) = (&mut self.client, &mut self.server);
        client.transmit(server, self.now, arrival, self.fragment);
        server.transmit(client, self.now, arrival, self.fragment);
    }

    fn deliver(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            end.deliver(self.now);
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        [&self.client, &self.server]
            .into_iter()
            .filter_map(|end| {
                let (arrival, _) = end.arriving.front()?;
                // An end that does not read now says when it will.
                if end.connection.is_reading() {
                    Some(*arrival)
                } else {
                    end.connection.poll_timeout()
                }
            })
            .min()
    }
}

impl End {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            events: Vec::new(),
            arriving: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self) -> StreamId {
        match self.connection.open(&Bytes::new()) {
            Poll::Ready(opened) => opened.expect("a stream"),
            Poll::Pending => panic!("no stream can be opened"),
        }
    }

    pub(super) fn accept(&mut self) -> StreamId {
        match self.connection.accept() {
            Poll::Ready(Some((id, _))) => id,
            other => panic!("nothing to accept: {other:?}"),
        }
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
        let mut written = 0;
        while written < data.len() {
            match self.connection.write(id, &data[written..]) {
                Poll::Ready(taken) => written += taken.expect("a writable stream"),
                Poll::Pending => break,
            }
        }
        written
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, id: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        while let Poll::Ready(Ok(Some(bytes))) = self.connection.read(id, usize::MAX) {
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// What a read says that finds no bytes.
    pub(super) fn outcome(&mut self, id: StreamId) -> Poll<Result<Option<Bytes>, StreamFailure>> {
        self.connection.read(id, 1)
    }

    pub(super) fn collect_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push(event);
        }
    }

    fn transmit(&mut self, to: &mut Self, now: Instant, arrival: Instant, fragment: usize) {
        for _ in 0..10_000 {
            let mut batch = Batch::default();
            self.connection.poll_transmit(now, &mut batch);
            self.connection.assert_consistent();
            let mut bytes = batch.take();
            if bytes.is_empty() {
                self.collect_events();
                return;
            }
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(fragment));
                to.arriving.push_back((arrival, piece));
            }
        }
        panic!("the connection always has more to send");
    }

    fn deliver(&mut self, now: Instant) {
        self.connection
            .handle_timeout(now.min(self.connection.poll_timeout().unwrap_or(now)));
        while self.connection.is_reading()
            && self.arriving.front().is_some_and(|(at, _)| *at <= now)
        {
            let Some((_, bytes)) = self.arriving.pop_front() else {
                break;
            };
            self.connection.handle_input(now, bytes);
            self.connection.assert_consistent();
        }
    }
}
