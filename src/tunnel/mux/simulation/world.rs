//! Two ends beside a model: how much was written and read in each direction of each stream.

use std::{
    collections::{BTreeMap, HashSet},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{
        code::StreamCode,
        config::Config,
        connection::{Ending, Event},
        failure::StreamFailure,
        id::{Role, StreamId},
        priority::{Priority, Weight},
    },
    pair::{End, Pair},
    step::{Operation, Step},
};

/// Runs steps and checks after each that nothing happened which the model does not explain.
#[derive(Debug)]
pub(in super::super) struct World {
    pair: Pair,
    /// By the side that sends.
    streams: BTreeMap<StreamId, Both<Direction>>,
    sides: Both<Side>,
    /// Opened by the peer and handed to the application.
    accepted: HashSet<StreamId>,
    leaving: bool,
}

/// Something that there is once for each end.
#[derive(Debug, Default)]
struct Both<T> {
    client: T,
    server: T,
}

/// What one side sends on one stream.
#[derive(Debug, Default)]
struct Direction {
    written: usize,
    read: usize,
    finished: bool,
    /// By the side that sends.
    reset: bool,
    /// By the side that receives.
    stopped: bool,
}

/// What one application holds, and what it was told to wait for.
#[derive(Debug, Default)]
struct Side {
    held: Vec<StreamId>,
    readers: HashSet<StreamId>,
    writers: HashSet<StreamId>,
    watchers: HashSet<StreamId>,
    opener: bool,
    acceptor: bool,
}

const SIDES: [Role; 2] = [Role::Client, Role::Server];

impl World {
    pub(in super::super) fn new(client: Config, server: Config) -> Self {
        Self {
            pair: Pair::with(client, server),
            streams: BTreeMap::new(),
            sides: Both::default(),
            accepted: HashSet::new(),
            leaving: false,
        }
    }

    pub(in super::super) fn run(&mut self, step: Step) {
        let side = step.side;
        let held = &self.sides.of(side).held;
        let chosen = match held.len() {
            0 => None,
            count => Some(held[step.choice % count]),
        };
        match (step.operation, chosen) {
            (Operation::Open, _) => self.open(side),
            (Operation::Accept, _) => drop(self.accept(side)),
            (Operation::Probe, _) => self.end(side).connection.probe(),
            (Operation::Transmit, _) => self.pair.transmit_once(side),
            (Operation::Deliver(pieces), _) => {
                for _ in 0..pieces {
                    self.pair.deliver_once(side);
                }
            }
            (Operation::Drive, _) => self.pair.drive(),
            (Operation::Wait(millis), _) => self.pair.advance(Duration::from_millis(millis)),
            (Operation::Latency(millis), _) => self.pair.latency = Duration::from_millis(millis),
            (Operation::Fragment(length), _) => self.pair.fragment = length,
            (_, None) => {}
            (Operation::Write(length), Some(id)) => self.write(side, id, length, Form::Slice),
            (Operation::WriteChunk(length), Some(id)) => self.write(side, id, length, Form::Chunk),
            (Operation::Read(limit), Some(id)) => drop(self.read(side, id, limit)),
            (Operation::Watch, Some(id)) => self.watch(side, id),
            (Operation::Finish, Some(id)) => self.finish(side, id),
            (Operation::Reset, Some(id)) => {
                self.end(side).connection.reset(id, StreamCode::INTERNAL);
                self.sending(side, id).reset = true;
            }
            (Operation::Stop, Some(id)) => {
                self.end(side).connection.stop(id, StreamCode::INTERNAL);
                self.stop(side, id);
            }
            (Operation::Drop, Some(id)) => self.drop_stream(side, id),
            (Operation::Prefer(number), Some(id)) => {
                let priority = [
                    Priority::Interactive,
                    Priority::Normal,
                    Priority::Background,
                ][number % 3];
                let connection = &mut self.end(side).connection;
                connection.set_priority(id, priority);
                connection.set_weight(id, Weight::new((number / 3 % 16) as u8 + 1));
            }
        }
        self.check();
    }

    /// Everything that was promised arrives although some streams are not read, then the rest, and nothing is left
    /// behind.
    pub(in super::super) fn settle(mut self) {
        self.read_all(|id| id.index() % 3 != 0);
        for side in SIDES {
            for id in self.sides.of(side).held.clone() {
                if id.index() % 3 != 0 {
                    self.check_received(side, id);
                }
            }
        }
        self.read_all(|_| true);
        for side in SIDES {
            for id in self.sides.of(side).held.clone() {
                self.check_received(side, id);
                self.check_sent(side, id);
            }
        }
        for side in SIDES {
            for id in self.sides.of(side).held.clone() {
                self.drop_stream(side, id);
            }
        }
        loop {
            self.pair.drive();
            let waits = |end: &mut End| !matches!(end.connection.accept(), Poll::Ready(Some(_)));
            if SIDES.into_iter().all(|side| waits(self.end(side))) {
                break;
            }
        }
        self.pair.drive();
        for side in SIDES {
            let leaving = self.leaving;
            let connection = &self.end(side).connection;
            assert_eq!((connection.held_streams(), connection.queued()), (0, 0));
            let ending = connection.ended().map(|(_, ending)| ending);
            assert_eq!(ending, leaving.then_some(Ending::Clean));
        }
    }

    /// One side leaves in two steps, as it should, and no stream fails by that.
    pub(in super::super) fn leave(&mut self, side: Role) {
        self.leaving = true;
        self.end(side).connection.announce_go_away("soon");
        self.check();
        self.pair.drive();
        self.end(side).connection.go_away("now");
        self.check();
    }

    fn end(&mut self, side: Role) -> &mut End {
        match side {
            Role::Client => &mut self.pair.client,
            Role::Server => &mut self.pair.server,
        }
    }

    fn sending(&mut self, side: Role, id: StreamId) -> &mut Direction {
        let directions = self.streams.get_mut(&id).expect("a known stream");
        directions.of_mut(side)
    }

    fn open(&mut self, side: Role) {
        match self.end(side).connection.open(&Bytes::from_static(b"m")) {
            Poll::Ready(id) => {
                let id = id.expect("the session lives");
                let event = self.end(side).take_event(Event::CanOpen);
                let waited = std::mem::take(&mut self.sides.of_mut(side).opener);
                assert!(event || !waited, "the opener was never woken");
                self.streams.insert(id, Both::default());
                self.sides.of_mut(side).held.push(id);
            }
            Poll::Pending => {
                self.end(side).take_event(Event::CanOpen);
                self.sides.of_mut(side).opener = true;
            }
        }
    }

    /// Whether there was a stream.
    fn accept(&mut self, side: Role) -> bool {
        match self.end(side).connection.accept() {
            Poll::Ready(Some((id, metadata))) => {
                assert_eq!(&metadata[..], b"m");
                let event = self.end(side).take_event(Event::Incoming);
                let waited = std::mem::take(&mut self.sides.of_mut(side).acceptor);
                assert!(event || !waited, "the acceptor was never woken");
                self.sides.of_mut(side).held.push(id);
                self.accepted.insert(id);
                true
            }
            Poll::Ready(None) => {
                assert!(self.leaving, "the session lives");
                false
            }
            Poll::Pending => {
                self.end(side).take_event(Event::Incoming);
                self.sides.of_mut(side).acceptor = true;
                false
            }
        }
    }

    /// Whether a stream was reset while it waited: it is never accepted, and the acceptor's direction is reset too.
    fn is_passed_over(&self, id: StreamId) -> bool {
        let directions = &self.streams[&id];
        let reset = SIDES.into_iter().any(|side| directions.of(side).reset);
        reset && !self.accepted.contains(&id)
    }

    fn finish(&mut self, side: Role, id: StreamId) {
        let finished = self.end(side).connection.finish(id);
        let direction = self.sending(side, id);
        match finished {
            Ok(()) => {
                assert!(!direction.reset || direction.finished);
                direction.finished = true;
            }
            Err(StreamFailure::Stopped(_)) => assert!(direction.stopped),
            Err(StreamFailure::EndedHere) => assert!(direction.reset),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn stop(&mut self, side: Role, id: StreamId) {
        let direction = self.sending(side.peer(), id);
        direction.stopped = true;
    }

    fn drop_stream(&mut self, side: Role, id: StreamId) {
        self.end(side).connection.release(id, StreamCode::CANCELLED);
        let application = self.sides.of_mut(side);
        application.held.retain(|held| *held != id);
        application.readers.remove(&id);
        application.writers.remove(&id);
        application.watchers.remove(&id);
        self.stop(side, id);
        let direction = self.sending(side, id);
        direction.reset |= !direction.finished;
    }

    fn watch(&mut self, side: Role, id: StreamId) {
        if self.end(side).connection.aborted(id).is_pending() {
            self.end(side).take_event(Event::Aborted(id));
            self.sides.of_mut(side).watchers.insert(id);
            return;
        }
        let woken = self.end(side).take_event(Event::Aborted(id));
        let waited = self.sides.of_mut(side).watchers.remove(&id);
        assert!(woken || !waited, "the watcher of {id} was never woken");
        let given_up = self.sending(side, id).stopped || self.sending(side.peer(), id).reset;
        assert!(
            given_up || self.is_passed_over(id),
            "nobody has given {id} up"
        );
    }

    fn write(&mut self, side: Role, id: StreamId, length: usize, form: Form) {
        let from = self.sending(side, id).written;
        let bytes = content(from, length);
        let connection = &mut self.end(side).connection;
        let written = match form {
            Form::Slice => connection.write(id, &bytes),
            Form::Chunk => {
                let mut chunk = Bytes::from(bytes);
                let written = connection.write_chunk(id, &mut chunk);
                assert_eq!(chunk.is_empty(), matches!(written, Poll::Ready(Ok(()))));
                written.map_ok(|()| length)
            }
        };
        match written {
            Poll::Pending => {
                self.end(side).take_event(Event::Writable(id));
                self.sides.of_mut(side).writers.insert(id);
            }
            Poll::Ready(Ok(taken)) => {
                self.sides.of_mut(side).writers.remove(&id);
                let direction = self.sending(side, id);
                assert!(taken > 0 && !direction.finished && !direction.reset);
                direction.written += taken;
            }
            Poll::Ready(Err(StreamFailure::Stopped(code))) => {
                assert!(self.sending(side, id).stopped);
                assert!([StreamCode::INTERNAL, StreamCode::CANCELLED].contains(&code));
            }
            Poll::Ready(Err(StreamFailure::EndedHere)) => {
                let direction = self.sending(side, id);
                assert!(direction.finished || direction.reset);
            }
            Poll::Ready(Err(other)) => panic!("{other:?}"),
        }
    }

    /// Whether the read found something.
    fn read(&mut self, side: Role, id: StreamId, limit: usize) -> bool {
        let end = self.end(side);
        let read = end.connection.read(id, limit);
        end.collect_events();
        let woken = end.take_event(Event::Readable(id));
        if read.is_pending() {
            self.sides.of_mut(side).readers.insert(id);
            return false;
        }
        let waited = self.sides.of_mut(side).readers.remove(&id);
        assert!(woken || !waited, "the reader of {id} was never woken");
        let passed_over = self.is_passed_over(id);
        let direction = self.sending(side.peer(), id);
        match read {
            Poll::Ready(Ok(Some(bytes))) => {
                assert!(!direction.stopped && (1..=limit).contains(&bytes.len()));
                let expected = content(direction.read, bytes.len());
                direction.read += bytes.len();
                assert!(direction.read <= direction.written, "more than was sent");
                assert_eq!(bytes, expected);
                true
            }
            Poll::Ready(Ok(None)) => {
                assert!(direction.finished && !direction.stopped);
                assert_eq!(
                    direction.read, direction.written,
                    "an end of file before the end"
                );
                false
            }
            Poll::Ready(Err(StreamFailure::Reset(_))) => {
                assert!(direction.reset || direction.stopped || passed_over);
                false
            }
            Poll::Ready(Err(StreamFailure::EndedHere)) => {
                assert!(direction.stopped);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self) {
        let leaving = self.leaving;
        for side in SIDES {
            let end = self.end(side);
            end.collect_events();
            end.connection.assert_consistent();
            let ending = end.connection.ended().map(|(_, ending)| ending);
            assert!(
                ending.is_none() || (leaving && ending == Some(Ending::Clean)),
                "{:?}",
                end.connection.ended()
            );
        }
    }

    /// Reads the streams that are `wanted`, and accepts all, until nothing more comes.
    fn read_all(&mut self, wanted: impl Fn(StreamId) -> bool) {
        loop {
            self.pair.drive();
            let mut progress = false;
            for side in SIDES {
                progress |= self.accept(side);
                for id in self.sides.of(side).held.clone() {
                    progress |= wanted(id) && self.read(side, id, usize::MAX);
                }
            }
            self.check();
            if !progress {
                return;
            }
        }
    }

    /// All that was written has been read, and the direction ended as its two ends wished.
    fn check_received(&mut self, side: Role, id: StreamId) {
        if self.is_passed_over(id) {
            return;
        }
        let outcome = self.end(side).outcome(id);
        let direction = self.sending(side.peer(), id);
        if direction.stopped {
            return;
        }
        if direction.reset {
            let reset = matches!(outcome, Poll::Ready(Err(StreamFailure::Reset(_))));
            // A reset after the end of file does nothing to it, once that has left.
            let ended = direction.finished && matches!(outcome, Poll::Ready(Ok(None)));
            assert!(reset || ended, "{outcome:?}");
            return;
        }
        assert_eq!(direction.read, direction.written, "bytes of {id} were lost");
        assert_eq!(
            matches!(outcome, Poll::Ready(Ok(None))),
            direction.finished,
            "{outcome:?}"
        );
    }

    /// What a writer hears is what happened, and one that was told to wait was woken.
    fn check_sent(&mut self, side: Role, id: StreamId) {
        let passed_over = self.is_passed_over(id);
        let waits = self.sides.of(side).writers.contains(&id);
        let end = self.end(side);
        let woken = end.events.contains(&Event::Writable(id));
        let outcome = end.connection.write(id, b"x");
        let direction = self.sending(side, id);
        if passed_over {
            return;
        }
        assert!(woken || !waits, "the writer of {id} was never woken");
        match outcome {
            Poll::Ready(Err(StreamFailure::Stopped(_))) => assert!(direction.stopped),
            Poll::Ready(Err(StreamFailure::EndedHere)) => {
                assert!(direction.finished || direction.reset);
            }
            Poll::Ready(Ok(1)) => {
                let open = !direction.finished && !direction.reset && !direction.stopped;
                assert!(open, "{direction:?}");
            }
            other => panic!("everything was read, and a write says {other:?}"),
        }
    }
}

/// What a stream carries from its byte `from` on.
fn content(from: usize, length: usize) -> Vec<u8> {
    // Copied from a table: fuzzing counts every comparison, and a loop over bytes has one for each.
    static TABLE: [u8; PERIOD * 64] = {
        let mut table = [0; PERIOD * 64];
        let mut index = 0;
        while index < table.len() {
            table[index] = (index % PERIOD) as u8;
            index += 1;
        }
        table
    };
    let mut content = Vec::with_capacity(length);
    while content.len() < length {
        let begin = (from + content.len()) % PERIOD;
        let end = TABLE.len().min(begin + length - content.len());
        content.extend_from_slice(&TABLE[begin..end]);
    }
    content
}

/// A prime: no frame begins where another does.
const PERIOD: usize = 251;

/// How the application hands bytes over.
#[derive(Clone, Copy)]
enum Form {
    Slice,
    Chunk,
}

impl<T> Both<T> {
    fn of(&self, side: Role) -> &T {
        match side {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    fn of_mut(&mut self, side: Role) -> &mut T {
        match side {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }
}
