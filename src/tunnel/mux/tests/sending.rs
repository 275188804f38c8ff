//! Writers that send in the place of a driver that sleeps.

use std::{
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::{Config, Driver, Incoming, MuxStream, Role, Session, start};
use crate::{ErrorKind, Result};

/// A transport that takes what the test allows, and never has anything to read.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<WireState>>);

#[derive(Default)]
struct WireState {
    taken: Vec<u8>,
    room: usize,
    writer: Option<Waker>,
    next: Next,
}

/// What the next write does.
#[derive(Default)]
enum Next {
    #[default]
    Take,
    Panic,
    /// Drops the driver first, as a waker does that was the last of a task.
    Drop(Driver),
}

impl Wire {
    fn taken(&self) -> usize {
        self.0.lock().unwrap().taken.len()
    }

    fn set_room(&self, room: usize) {
        let mut state = self.0.lock().unwrap();
        state.room = room;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    fn set_next(&self, next: Next) {
        self.0.lock().unwrap().next = next;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let next = std::mem::take(&mut self.0.lock().unwrap().next);
        match next {
            Next::Take => {}
            Next::Panic => panic!("as the test wants it"),
            Next::Drop(driver) => drop(driver),
        }
        let mut state = self.0.lock().unwrap();
        let length = data.len().min(state.room);
        if length == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.room -= length;
        state.taken.extend_from_slice(&data[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A session whose driver sleeps, and a stream of it that has sent something.
struct Quiet {
    wire: Wire,
    session: Session,
    _incoming: Incoming,
    driver: Driver,
    wakes: Arc<Wakes>,
    stream: MuxStream,
}

impl Quiet {
    fn new() -> Self {
        let wire = Wire::default();
        wire.set_room(usize::MAX);
        let (session, _incoming, driver) = start(wire.clone(), Role::Client, Config::default());
        let stream = open(&session);
        let mut quiet = Self {
            wire,
            session,
            _incoming,
            driver,
            wakes: Arc::default(),
            stream,
        };
        quiet.write(b"first");
        assert_eq!(
            quiet.wire.taken(),
            0,
            "nothing leaves before the driver is polled"
        );
        assert!(quiet.poll_driver().is_pending());
        quiet
    }

    /// Polls the driver until it does not wake itself any more, and forgets all wakes.
    fn poll_driver(&mut self) -> Poll<Result<()>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        loop {
            self.wakes.0.store(0, Relaxed);
            let polled = Pin::new(&mut self.driver).poll(&mut Context::from_waker(&waker));
            if polled.is_ready() || self.wakes() == 0 {
                return polled;
            }
        }
    }

    fn write(&mut self, text: &[u8]) {
        write(&mut self.stream, text);
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Relaxed)
    }
}

fn open(session: &Session) -> MuxStream {
    let opening = pin!(session.open(Bytes::new()));
    match opening.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(stream) => stream.unwrap(),
        Poll::Pending => panic!("there is room for a stream"),
    }
}

fn write(stream: &mut MuxStream, text: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    let written = Pin::new(stream).poll_write(&mut context, text);
    assert!(matches!(written, Poll::Ready(Ok(length)) if length == text.len()));
}

#[tokio::test]
async fn what_is_written_to_a_quiet_session_leaves_at_once() {
    let mut quiet = Quiet::new();
    let before = quiet.wire.taken();
    quiet.write(b"second");
    assert_eq!(quiet.wire.taken(), before + 8 + 6);
    assert_eq!(quiet.wakes(), 0);
}

#[tokio::test]
async fn what_a_stream_sends_first_leaves_together_with_its_end() {
    let mut quiet = Quiet::new();
    let before = quiet.wire.taken();
    let mut stream = open(&quiet.session);
    write(&mut stream, b"?");
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut stream).poll_shutdown(&mut context).is_ready());
    assert_eq!(quiet.wire.taken(), before);
    assert_eq!(quiet.wakes(), 1);
    assert!(quiet.poll_driver().is_pending());
    let state = quiet.wire.0.lock().unwrap();
    // One frame: OPEN and FIN, no metadata, one byte. And a first CREDIT.
    assert_eq!(
        state.taken[before..][..11],
        [0, 0, 3, 0x13, 0, 0, 0, 3, 0, 0, b'?']
    );
    assert_eq!(state.taken.len(), before + 11 + 16);
}

#[tokio::test]
async fn what_the_transport_does_not_take_is_left_to_the_driver() {
    let mut quiet = Quiet::new();
    let before = quiet.wire.taken();
    quiet.wire.set_room(3);
    quiet.write(b"second");
    assert_eq!(quiet.wire.taken(), before + 3);
    quiet.write(b"third");
    assert_eq!((quiet.wire.taken(), quiet.wakes()), (before + 3, 0));
    quiet.wire.set_room(usize::MAX);
    assert_eq!(
        quiet.wakes(),
        1,
        "the transport knows the driver, not the writer"
    );
    assert!(quiet.poll_driver().is_pending());
    let state = quiet.wire.0.lock().unwrap();
    assert!(state.taken.ends_with(b"third"));
    assert_eq!(state.taken.len(), before + 8 + 6 + 8 + 5);
}

#[tokio::test]
async fn a_transport_that_panics_below_a_writer_ends_the_session() {
    let mut quiet = Quiet::new();
    quiet.wire.set_next(Next::Panic);
    assert!(catch_unwind(AssertUnwindSafe(|| quiet.write(b"second"))).is_err());
    quiet.write(b"third");
    assert_eq!(quiet.wakes(), 1);
    let Poll::Ready(Err(error)) = quiet.poll_driver() else {
        panic!("the driver ends");
    };
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(quiet.session.is_closed());
}

#[tokio::test]
async fn a_driver_that_goes_below_a_writer_takes_the_transport_with_it() {
    let Quiet {
        wire,
        session,
        _incoming,
        driver,
        wakes: _,
        mut stream,
    } = Quiet::new();
    wire.set_next(Next::Drop(driver));
    write(&mut stream, b"second");
    assert!(session.is_closed());
    assert_eq!(Arc::strong_count(&wire.0), 1);
}
