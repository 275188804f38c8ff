//! Tasks and the driver of a session in every order: nobody who could go on stays asleep.
//!
//! Each test runs the real handles and the real driver, with locks and threads of loom's, over a pipe whose other end is the test.
//! A lost wake-up is a deadlock, which loom reports. The clock stands still: no timer helps anybody out.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use arc_cluster_connect_loom::tunnel::mux::{self, Config, Incoming, MuxStream, Role, Session};
use bytes::Bytes;
use loom::{
    future::block_on,
    sync::{Condvar, Mutex},
    thread::{self, JoinHandle},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The transport.
#[derive(Clone)]
struct Pipe(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    incoming: VecDeque<u8>,
    written: Vec<u8>,
    takes: Takes,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Everything,
    Nothing,
}

impl Pipe {
    /// A pipe in which an introduction waits.
    fn new(takes: Takes) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                incoming: HELLO.into_iter().collect(),
                written: Vec::new(),
                takes,
                closed: false,
                reader: None,
                writer: None,
            }),
            changed: Condvar::new(),
        }))
    }

    fn feed(&self, bytes: &[u8]) {
        let waker = {
            let mut state = self.0.state.lock().unwrap();
            state.incoming.extend(bytes);
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn set(&self, takes: Takes) {
        let waker = {
            let mut state = self.0.state.lock().unwrap();
            state.takes = takes;
            state.writer.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the driver has written `bytes`.
    fn wait_for(&self, bytes: &[u8]) {
        let mut state = self.0.state.lock().unwrap();
        while !state
            .written
            .windows(bytes.len())
            .any(|written| written == bytes)
        {
            state = self.0.changed.wait(state).unwrap();
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock().unwrap();
        if state.incoming.is_empty() && !state.closed {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.remaining().min(state.incoming.len());
        for byte in state.incoming.drain(..count) {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock().unwrap();
        if state.takes == Takes::Nothing {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.written.extend_from_slice(data);
        self.0.changed.notify_all();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The other end closes in return.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waker = {
            let mut state = self.0.state.lock().unwrap();
            state.closed = true;
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// One end of a session, its driver in a thread of its own.
struct End {
    session: Session,
    incoming: Incoming,
    pipe: Pipe,
    driver: JoinHandle<()>,
}

impl End {
    fn new(takes: Takes) -> Self {
        Self::with(takes, |_| ()).0
    }

    /// With something done before the driver starts, so that there are fewer orders to try.
    fn with<R>(takes: Takes, before: impl FnOnce(&Session) -> R) -> (Self, R) {
        let pipe = Pipe::new(takes);
        let config = Config::default().with_send_queue(4096);
        let (session, incoming, driver) = mux::start(pipe.clone(), Role::Client, config);
        let result = before(&session);
        let driver = thread::spawn(move || drop(block_on(driver)));
        let end = Self {
            session,
            incoming,
            pipe,
            driver,
        };
        (end, result)
    }

    fn with_stream() -> (Self, MuxStream) {
        Self::with(Takes::Everything, |session| {
            block_on(session.open(Bytes::new())).unwrap()
        })
    }

    /// Ends the session; the driver has to notice.
    fn close(self) {
        self.session.close("done");
        self.driver.join().unwrap();
    }
}

#[rustfmt::skip]
const HELLO: [u8; 36] = [
    b'A', b'C', b'C', b'1', 0, 0, 24, 0x90, 0, 0, 0, 0,
    0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0, 16, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
const DATA: [u8; 10] = [0, 0, 2, 0x10, 0, 0, 0, 1, b'h', b'i'];
const FIN: [u8; 8] = [0, 0, 0, 0x12, 0, 0, 0, 1];
const CREDIT: [u8; 16] = [0, 0, 8, 0x20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0];
const RESET: [u8; 20] = [
    0, 0, 12, 0x30, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
const OPEN_BY_SERVER: [u8; 10] = [0, 0, 2, 0x11, 0, 0, 0, 2, 0, 0];

/// Tries the orders with up to `preemptions` switches that nothing asks for.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(preemptions);
    builder.check(scenario);
}

#[test]
fn a_write_wakes_a_driver_that_falls_asleep() {
    explore(3, || {
        let (end, mut stream) = End::with_stream();
        block_on(stream.write_chunk(Bytes::from_static(b"question"))).unwrap();
        end.pipe.wait_for(b"question");
        end.close();
    });
}

#[test]
fn opening_and_finishing_wake_it_too() {
    explore(2, || {
        let end = End::new(Takes::Everything);
        let mut stream = block_on(end.session.open(Bytes::from_static(b"target"))).unwrap();
        end.pipe.wait_for(b"target");
        block_on(stream.shutdown()).unwrap();
        end.pipe.wait_for(&FIN);
        end.close();
    });
}

#[test]
fn what_two_writers_write_leaves_whoever_comes_first() {
    explore(1, || {
        let (end, [mut first, mut second]) = End::with(Takes::Everything, |session| {
            // What a stream sends first is a case of its own.
            [0, 1].map(|_| {
                let mut stream = block_on(session.open(Bytes::new())).unwrap();
                block_on(stream.write_chunk(Bytes::from_static(b"head"))).unwrap();
                stream
            })
        });
        end.pipe.wait_for(&[0, 0, 6, 0x11, 0, 0, 0, 3]);
        let writing = thread::spawn(move || {
            block_on(second.write_chunk(Bytes::from_static(b"second"))).unwrap();
            second
        });
        block_on(first.write_chunk(Bytes::from_static(b"first"))).unwrap();
        end.pipe.wait_for(b"first");
        end.pipe.wait_for(b"second");
        drop(writing.join().unwrap());
        end.close();
    });
}

#[test]
fn what_a_writer_meets_a_full_transport_with_is_left_to_the_driver() {
    explore(2, || {
        let (end, mut stream) = End::with(Takes::Everything, |session| {
            let mut stream = block_on(session.open(Bytes::new())).unwrap();
            block_on(stream.write_chunk(Bytes::from_static(b"head"))).unwrap();
            stream
        });
        end.pipe.wait_for(b"head");
        end.pipe.set(Takes::Nothing);
        let pipe = end.pipe.clone();
        let opening = thread::spawn(move || pipe.set(Takes::Everything));
        block_on(stream.write_chunk(Bytes::from_static(b"first"))).unwrap();
        block_on(stream.write_chunk(Bytes::from_static(b"second"))).unwrap();
        end.pipe.wait_for(b"first");
        end.pipe.wait_for(b"second");
        opening.join().unwrap();
        end.close();
    });
}

#[test]
fn what_arrives_wakes_a_reader_that_falls_asleep() {
    explore(2, || {
        let (end, mut stream) = End::with_stream();
        end.pipe.wait_for(&[0, 0, 2, 0x11, 0, 0, 0, 1]);
        let pipe = end.pipe.clone();
        let peer = thread::spawn(move || {
            pipe.feed(&DATA);
            pipe.feed(&FIN);
        });
        let read = block_on(stream.read_chunk()).unwrap();
        assert_eq!(read.as_deref(), Some(&b"hi"[..]));
        assert!(block_on(stream.read_chunk()).unwrap().is_none());
        peer.join().unwrap();
        end.close();
    });
}

#[test]
fn an_acceptor_that_falls_asleep_is_woken() {
    explore(2, || {
        let mut end = End::new(Takes::Everything);
        let pipe = end.pipe.clone();
        let peer = thread::spawn(move || pipe.feed(&OPEN_BY_SERVER));
        let stream = block_on(end.incoming.accept()).unwrap();
        assert_eq!(stream.into_stream().id().value(), 2);
        peer.join().unwrap();
        end.close();
    });
}

#[test]
fn credit_and_an_end_of_file_wake_the_two_halves() {
    explore(2, || {
        let (end, stream) = End::with(Takes::Everything, |session| {
            let mut stream = block_on(session.open(Bytes::new())).unwrap();
            // More than the window and the queue behind it.
            block_on(stream.write_chunk(Bytes::from_static(&[7; 24 * 1024]))).unwrap();
            stream
        });
        // As `tokio::io::split` does it, whose lock is none of loom's.
        let reader = Arc::new(Mutex::new(stream));
        let writer = Arc::clone(&reader);
        let writing = thread::spawn(move || {
            let mut chunk = Bytes::from_static(b"x");
            block_on(poll_fn(|cx| {
                writer.lock().unwrap().poll_write_chunk(cx, &mut chunk)
            }))
            .unwrap();
        });
        end.pipe.feed(&[&FIN[..], &CREDIT].concat());
        let read = block_on(poll_fn(|cx| reader.lock().unwrap().poll_read_chunk(cx)));
        assert!(read.unwrap().is_none());
        writing.join().unwrap();
        end.close();
    });
}

#[test]
fn a_reset_wakes_reader_and_watcher() {
    explore(1, || {
        let (end, mut stream) = End::with_stream();
        end.pipe.wait_for(&[0, 0, 2, 0x11, 0, 0, 0, 1]);
        let aborted = stream.aborted();
        let watching = thread::spawn(move || block_on(aborted));
        let pipe = end.pipe.clone();
        let peer = thread::spawn(move || pipe.feed(&RESET));
        assert!(block_on(stream.read_chunk()).is_err());
        watching.join().unwrap();
        peer.join().unwrap();
        end.close();
    });
}

#[test]
fn a_transport_that_takes_nothing_delays_the_end_and_loses_nobody() {
    explore(3, || {
        let end = End::new(Takes::Nothing);
        let pipe = end.pipe.clone();
        let opening = thread::spawn(move || pipe.set(Takes::Everything));
        end.close();
        opening.join().unwrap();
    });
}

#[test]
fn the_end_wakes_who_reads() {
    explore(2, || {
        let (end, mut stream) = End::with_stream();
        let reading = thread::spawn(move || assert!(block_on(stream.read_chunk()).is_err()));
        end.close();
        reading.join().unwrap();
    });
}

#[test]
fn a_session_that_nobody_uses_any_more_ends() {
    explore(3, || {
        let (end, stream) = End::with_stream();
        let End {
            session,
            incoming,
            pipe,
            driver,
        } = end;
        let peer = thread::spawn(move || {
            // The answer to STOP and RESET of a stream that is dropped.
            pipe.wait_for(&[0, 0, 12, 0x30, 0, 0, 0, 1]);
            pipe.feed(&RESET);
        });
        drop(session);
        drop(stream);
        drop(incoming);
        driver.join().unwrap();
        peer.join().unwrap();
    });
}
