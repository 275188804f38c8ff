//! Random operations on two ends against a model: one queue of bytes for each direction of each stream.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    super::{
        code::StreamCode, config::Config, connection::Event, failure::StreamFailure, id::StreamId,
    },
    pair::{End, Pair},
};

#[derive(Clone, Copy, Debug)]
enum Operation {
    Open,
    Accept,
    Write(usize),
    WriteChunk(usize),
    Read(usize),
    Finish,
    Reset,
    Stop,
    Drop,
    Drive,
    Wait(u64),
    Latency(u64),
    Fragment(usize),
}

/// One step: what, at which end, on which of its streams.
#[derive(Clone, Copy, Debug)]
struct Step {
    operation: Operation,
    side: usize,
    choice: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => Just(Operation::Open),
        4 => Just(Operation::Accept),
        6 => (1usize..60_000).prop_map(Operation::Write),
        3 => (1usize..60_000).prop_map(Operation::WriteChunk),
        8 => prop_oneof![1usize..100, Just(usize::MAX)].prop_map(Operation::Read),
        2 => Just(Operation::Finish),
        1 => Just(Operation::Reset),
        1 => Just(Operation::Stop),
        1 => Just(Operation::Drop),
        6 => Just(Operation::Drive),
        1 => (1u64..40_000).prop_map(Operation::Wait),
        1 => (0u64..200).prop_map(Operation::Latency),
        1 => prop_oneof![50usize..3000, Just(usize::MAX)].prop_map(Operation::Fragment),
    ];
    (operation, 0usize..2, any::<usize>()).prop_map(|(operation, side, choice)| Step {
        operation,
        side,
        choice,
    })
}

/// What one side sends on one stream.
#[derive(Debug, Default)]
struct Direction {
    unread: VecDeque<u8>,
    written: usize,
    finished: bool,
    /// By the sender, or because the receiver stopped.
    reset: bool,
    stopped: bool,
}

struct World {
    pair: Pair,
    /// By the side that sends: 0 is the client.
    streams: BTreeMap<StreamId, [Direction; 2]>,
    held: [Vec<StreamId>; 2],
    accepted: HashSet<StreamId>,
    /// Who was told to wait, by side.
    readers: [HashSet<StreamId>; 2],
    writers: [HashSet<StreamId>; 2],
}

impl World {
    fn new(client: Config, server: Config) -> Self {
        Self {
            pair: Pair::with(client, server),
            streams: BTreeMap::new(),
            held: [Vec::new(), Vec::new()],
            accepted: HashSet::new(),
            readers: [HashSet::new(), HashSet::new()],
            writers: [HashSet::new(), HashSet::new()],
        }
    }

    fn end(&mut self, side: usize) -> &mut End {
        if side == 0 {
            &mut self.pair.client
        } else {
            &mut self.pair.server
        }
    }

    fn run(&mut self, step: Step) {
        let side = step.side;
        let chosen = match self.held[side].len() {
            0 => None,
            count => Some(self.held[side][step.choice % count]),
        };
        match (step.operation, chosen) {
            (Operation::Open, _) => {
                if let Poll::Ready(id) = self.end(side).connection.open(&Bytes::from_static(b"m")) {
                    let id = id.expect("the session lives");
                    self.streams.insert(id, Default::default());
                    self.held[side].push(id);
                }
            }
            (Operation::Accept, _) => self.accept(side),
            (Operation::Drive, _) => self.pair.drive(),
            (Operation::Wait(millis), _) => self.pair.advance(Duration::from_millis(millis)),
            (Operation::Latency(millis), _) => self.pair.latency = Duration::from_millis(millis),
            (Operation::Fragment(length), _) => self.pair.fragment = length,
            (_, None) => {}
            (Operation::Write(length), Some(id)) => self.write(side, id, length, false),
            (Operation::WriteChunk(length), Some(id)) => self.write(side, id, length, true),
            (Operation::Read(limit), Some(id)) => {
                self.read(side, id, limit);
            }
            (Operation::Finish, Some(id)) => {
                if self.end(side).connection.finish(id).is_ok() {
                    let direction = self.sending(side, id);
                    assert!(!direction.reset || direction.finished);
                    direction.finished = true;
                }
            }
            (Operation::Reset, Some(id)) => {
                self.end(side).connection.reset(id, StreamCode::INTERNAL);
                self.sending(side, id).reset = true;
            }
            (Operation::Stop, Some(id)) => {
                self.end(side).connection.stop(id, StreamCode::INTERNAL);
                self.stop(side, id);
            }
            (Operation::Drop, Some(id)) => self.drop_stream(side, id),
        }
        self.check();
    }

    fn accept(&mut self, side: usize) {
        if let Poll::Ready(accepted) = self.end(side).connection.accept() {
            let (id, metadata) = accepted.expect("the session lives");
            assert_eq!(&metadata[..], b"m");
            self.held[side].push(id);
            self.accepted.insert(id);
        }
    }

    /// Whether a stream was reset while it waited: it is never accepted, and the acceptor's direction is reset too.
    fn is_passed_over(&self, id: StreamId) -> bool {
        let reset = self.streams[&id].iter().any(|direction| direction.reset);
        reset && !self.accepted.contains(&id)
    }

    fn sending(&mut self, side: usize, id: StreamId) -> &mut Direction {
        &mut self.streams.get_mut(&id).expect("a known stream")[side]
    }

    fn stop(&mut self, side: usize, id: StreamId) {
        let direction = self.sending(1 - side, id);
        direction.stopped = true;
        direction.unread.clear();
    }

    fn drop_stream(&mut self, side: usize, id: StreamId) {
        self.end(side).connection.release(id, StreamCode::CANCELLED);
        self.held[side].retain(|held| *held != id);
        self.readers[side].remove(&id);
        self.writers[side].remove(&id);
        self.stop(side, id);
        let direction = self.sending(side, id);
        direction.reset |= !direction.finished;
    }

    fn write(&mut self, side: usize, id: StreamId, length: usize, chunk: bool) {
        let from = self.sending(side, id).written;
        let bytes: Vec<u8> = (from..from + length)
            .map(|index| (index % 251) as u8)
            .collect();
        let connection = &mut self.end(side).connection;
        let written = if chunk {
            let mut chunk = Bytes::from(bytes.clone());
            let written = connection.write_chunk(id, &mut chunk);
            assert_eq!(chunk.is_empty(), matches!(written, Poll::Ready(Ok(()))));
            written.map_ok(|()| length)
        } else {
            connection.write(id, &bytes)
        };
        match written {
            Poll::Pending => {
                self.end(side)
                    .events
                    .retain(|event| *event != Event::Writable(id));
                self.writers[side].insert(id);
            }
            Poll::Ready(Ok(taken)) => {
                self.writers[side].remove(&id);
                let direction = self.sending(side, id);
                assert!(taken > 0 && !direction.finished);
                direction.written += taken;
                if !direction.stopped && !direction.reset {
                    direction.unread.extend(&bytes[..taken]);
                }
            }
            Poll::Ready(Err(StreamFailure::Stopped(_))) => {
                let direction = self.sending(side, id);
                assert!(direction.stopped);
                direction.reset = true;
            }
            Poll::Ready(Err(StreamFailure::EndedHere)) => {
                let direction = self.sending(side, id);
                assert!(direction.finished || direction.reset);
            }
            Poll::Ready(Err(other)) => panic!("{other:?}"),
        }
    }

    /// Whether the read found something.
    fn read(&mut self, side: usize, id: StreamId, limit: usize) -> bool {
        let end = self.end(side);
        let read = end.connection.read(id, limit);
        end.collect_events();
        let woken = end.events.contains(&Event::Readable(id));
        if read.is_pending() {
            end.events.retain(|event| *event != Event::Readable(id));
            self.readers[side].insert(id);
            return false;
        }
        let waited = self.readers[side].remove(&id);
        assert!(woken || !waited, "the reader of {id} was never woken");
        let passed_over = self.is_passed_over(id);
        let direction = self.sending(1 - side, id);
        match read {
            Poll::Ready(Ok(Some(bytes))) => {
                assert!(!direction.stopped && bytes.len() <= limit);
                let expected: Vec<u8> = direction.unread.drain(..bytes.len()).collect();
                assert_eq!(bytes, expected);
                true
            }
            Poll::Ready(Ok(None)) => {
                assert!(direction.finished && !direction.stopped);
                assert!(direction.unread.is_empty(), "an end of file before the end");
                false
            }
            Poll::Ready(Err(StreamFailure::Reset(_))) => {
                assert!(direction.reset || passed_over);
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
        for side in 0..2 {
            let end = self.end(side);
            end.collect_events();
            end.connection.assert_consistent();
            assert!(
                end.connection.ended().is_none(),
                "{:?}",
                end.connection.ended()
            );
        }
    }

    /// Everything that was promised arrives, and nothing is left behind.
    fn settle(&mut self) {
        loop {
            self.pair.drive();
            let mut progress = false;
            for side in 0..2 {
                let before = self.held[side].len();
                self.accept(side);
                progress |= self.held[side].len() > before;
                for id in self.held[side].clone() {
                    progress |= self.read(side, id, usize::MAX);
                }
            }
            self.check();
            if !progress {
                break;
            }
        }
        for side in 0..2 {
            for id in self.held[side].clone() {
                self.check_received(side, id);
                self.drop_stream(side, id);
            }
        }
        loop {
            self.pair.drive();
            if (0..2).all(|side| self.end(side).connection.accept().is_pending()) {
                break;
            }
        }
        self.pair.drive();
        for side in 0..2 {
            assert_eq!(self.end(side).connection.held_streams(), 0);
            assert_eq!(self.end(side).connection.queued(), 0);
        }
    }

    fn check_received(&mut self, side: usize, id: StreamId) {
        if self.is_passed_over(id) {
            return;
        }
        let waits = self.writers[side].contains(&id);
        let both = self.held.iter().all(|held| held.contains(&id));
        let end = self.end(side);
        if waits && both {
            let woken = end.events.contains(&Event::Writable(id));
            assert!(woken, "the writer of {id} was never woken");
        }
        let outcome = end.outcome(id);
        let direction = self.sending(1 - side, id);
        if direction.reset || direction.stopped {
            return;
        }
        assert!(
            direction.unread.is_empty(),
            "{} bytes lost",
            direction.unread.len()
        );
        assert_eq!(
            matches!(outcome, Poll::Ready(Ok(None))),
            direction.finished,
            "{outcome:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn two_ends_behave_like_queues(
        steps in proptest::collection::vec(step(), 1..150),
        client in config(),
        server in config(),
    ) {
        let mut world = World::new(client, server);
        for step in steps {
            world.run(step);
        }
        world.settle();
    }
}

/// The default, or what makes limits be reached in a few steps: each side's own, its peer's, the floors.
fn config() -> impl Strategy<Value = Config> {
    let tight = (16usize..24, 1usize..24, 16usize..24).prop_map(|(streams, opened, unaccepted)| {
        Config::default()
            .with_max_streams(streams)
            .with_max_opened(opened)
            .with_max_unaccepted(unaccepted)
            .with_receive_budget(0)
            .with_send_queue(10_000)
    });
    prop_oneof![Just(Config::default()), tight]
}
