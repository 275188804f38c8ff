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

#[derive(Debug)]
pub(in super::super) struct Pair {
    pub(in super::super) client: End,
    pub(in super::super) server: End,
    pub(in super::super) now: Instant,
    pub(in super::super) latency: Duration,
    /// The largest piece that the link delivers at once.
    pub(in super::super) fragment: usize,
}

#[derive(Debug)]
pub(in super::super) struct End {
    pub(in super::super) connection: Connection,
    pub(in super::super) events: Vec<Event>,
    /// What is on its way to this end.
    arriving: VecDeque<(Instant, Bytes)>,
}

impl Pair {
    pub(in super::super) fn with(client: Config, server: Config) -> Self {
        let now = Instant::now();
        Self {
            client: End::new(Connection::new(Role::Client, client, now)),
            server: End::new(Connection::new(Role::Server, server, now)),
            now,
            latency: Duration::from_millis(1),
            fragment: usize::MAX,
        }
    }

    /// Moves bytes and time until nothing is under way any more.
    pub(in super::super) fn drive(&mut self) {
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
    pub(in super::super) fn advance(&mut self, duration: Duration) {
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

    /// One batch of one side leaves: less than all of it where there is much.
    pub(in super::super) fn transmit_once(&mut self, side: Role) {
        let arrival = self.now + self.latency;
        let (from, to) = match side {
            Role::Client => (&mut self.client, &mut self.server),
            Role::Server => (&mut self.server, &mut self.client),
        };
        from.transmit_batch(to, self.now, arrival, self.fragment);
        from.collect_events();
    }

    /// The next piece that is under way to one side arrives, and the time until then passes.
    pub(in super::super) fn deliver_once(&mut self, side: Role) {
        let end = match side {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        };
        let Some((arrival, _)) = end.arriving.front() else {
            return;
        };
        self.now = self.now.max(*arrival);
        end.take_time(self.now);
        if end.connection.is_reading() {
            end.deliver_front(self.now);
        }
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

/// What tests begin with.
#[cfg(test)]
impl Pair {
    pub(in super::super) fn new() -> Self {
        Self::with(Config::default(), Config::default())
    }

    /// A pair that has introduced itself.
    pub(in super::super) fn ready() -> Self {
        let mut pair = Self::new();
        pair.drive();
        assert!(pair.client.connection.is_ready() && pair.server.connection.is_ready());
        pair
    }

    /// A stream that both ends hold.
    pub(in super::super) fn established(&mut self) -> StreamId {
        let stream = self.client.open();
        self.drive();
        assert_eq!(self.server.accept(), stream);
        stream
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

    /// What a read says that finds no bytes.
    pub(in super::super) fn outcome(
        &mut self,
        id: StreamId,
    ) -> Poll<Result<Option<Bytes>, StreamFailure>> {
        self.connection.read(id, 1)
    }

    pub(in super::super) fn collect_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push(event);
        }
    }

    /// Takes an event off the list of those that were given, however often; says whether it was there.
    pub(in super::super) fn take_event(&mut self, event: Event) -> bool {
        self.collect_events();
        let before = self.events.len();
        self.events.retain(|given| *given != event);
        self.events.len() < before
    }

    fn transmit(&mut self, to: &mut Self, now: Instant, arrival: Instant, fragment: usize) {
        for _ in 0..10_000 {
            if !self.transmit_batch(to, now, arrival, fragment) {
                self.collect_events();
                return;
            }
        }
        panic!("the connection always has more to send");
    }

    /// Whether there was anything to send.
    fn transmit_batch(
        &mut self,
        to: &mut Self,
        now: Instant,
        arrival: Instant,
        fragment: usize,
    ) -> bool {
        let wanted = self.connection.wants_transmit();
        let mut batch = Batch::default();
        self.connection.poll_transmit(now, &mut batch);
        self.connection.assert_consistent();
        let mut bytes = batch.take();
        assert!(
            wanted || bytes.is_empty(),
            "a driver that asked before it slept would not have sent this"
        );
        let any = !bytes.is_empty();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(fragment));
            to.arriving.push_back((arrival, piece));
        }
        any
    }

    fn take_time(&mut self, now: Instant) {
        self.connection
            .handle_timeout(now.min(self.connection.poll_timeout().unwrap_or(now)));
    }

    fn deliver(&mut self, now: Instant) {
        self.take_time(now);
        while self.connection.is_reading()
            && self.arriving.front().is_some_and(|(at, _)| *at <= now)
        {
            self.deliver_front(now);
        }
    }

    fn deliver_front(&mut self, now: Instant) {
        if let Some((_, bytes)) = self.arriving.pop_front() {
            self.connection.handle_input(now, bytes);
            self.connection.assert_consistent();
        }
    }
}

/// An application that knows that things go well.
#[cfg(test)]
impl End {
    pub(in super::super) fn open(&mut self) -> StreamId {
        match self.connection.open(&Bytes::new()) {
            Poll::Ready(opened) => opened.expect("a stream"),
            Poll::Pending => panic!("no stream can be opened"),
        }
    }

    pub(in super::super) fn accept(&mut self) -> StreamId {
        match self.connection.accept() {
            Poll::Ready(Some((id, _))) => id,
            other => panic!("nothing to accept: {other:?}"),
        }
    }

    /// Writes as much as there is room for.
    pub(in super::super) fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
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
    pub(in super::super) fn read(&mut self, id: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        while let Poll::Ready(Ok(Some(bytes))) = self.connection.read(id, usize::MAX) {
            all.extend_from_slice(&bytes);
        }
        all
    }
}
