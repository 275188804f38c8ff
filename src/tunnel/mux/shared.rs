//! What the handles and the driver of a session share.

use std::{
    collections::HashMap,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    code::StreamCode,
    connection::{Connection, Event},
    failure::StreamFailure,
    id::{BuildIdHasher, StreamId},
    sync::Mutex,
};

/// The connection behind a lock that is never held across an await, and those who wait for it.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified when the session became ready, goes away, or ended.
    pub(super) changed: Notify,
    /// Notified when a stream can be opened.
    pub(super) can_open: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: Connection,
    wakers: HashMap<StreamId, StreamWakers, BuildIdHasher>,
    acceptor: Option<Waker>,
    /// Set while the driver sleeps.
    driver: Option<Waker>,
    /// Set while the driver sleeps because the transport takes nothing: new bytes are no reason to wake it.
    write_blocked: bool,
    /// Wakers of no more use. They are dropped outside of the lock: the last waker of a task may drop the task, and with
    /// it streams of this session, each of which takes the lock.
    spent: Vec<Waker>,
    sessions_gone: bool,
    incoming_gone: bool,
}

/// One for each direction: the halves of a split stream live in different tasks. And one for who only wants to know
/// whether the peer has left.
#[derive(Debug, Default)]
struct StreamWakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
    watcher: Option<Waker>,
}

/// Who is woken after the lock is released, and what is dropped then.
#[derive(Default)]
struct Calls {
    wakers: Vec<Waker>,
    spent: Vec<Waker>,
    changed: bool,
    can_open: bool,
}

impl Shared {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            state: Mutex::new(State {
                connection,
                wakers: HashMap::default(),
                acceptor: None,
                driver: None,
                write_blocked: false,
                spent: Vec::new(),
                sessions_gone: false,
                incoming_gone: false,
            }),
            changed: Notify::new(),
            can_open: Notify::new(),
        }
    }

    /// Runs `change` under the lock, then wakes whom it concerns.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut calls = Calls::default();
        let result = {
            // A panic of another thread within the lock left at worst a stream in a wrong state; peers and other
            // streams are better served by going on.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut state);
            state.collect(&mut calls);
            result
        };
        for waker in calls.wakers {
            waker.wake();
        }
        if calls.changed {
            self.changed.notify_waiters();
        }
        if calls.can_open {
            self.can_open.notify_one();
        }
        result
    }
}

impl State {
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<Option<(StreamId, Bytes)>> {
        let accepted = self.connection.accept();
        if accepted.is_pending() {
            let spent = remember(&mut self.acceptor, cx);
            self.spent.extend(spent);
        }
        accepted
    }

    pub(super) fn poll_read(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, StreamFailure>> {
        let read = self.connection.read(id, limit);
        if read.is_pending() {
            let spent = remember(&mut self.wakers.entry(id).or_default().reader, cx);
            self.spent.extend(spent);
        }
        read
    }

    /// Runs a write of the connection's and remembers who waits for it.
    pub(super) fn poll_write<R>(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        write: impl FnOnce(&mut Connection) -> Poll<Result<R, StreamFailure>>,
    ) -> Poll<Result<R, StreamFailure>> {
        let written = write(&mut self.connection);
        if written.is_pending() {
            let spent = remember(&mut self.wakers.entry(id).or_default().writer, cx);
            self.spent.extend(spent);
        }
        written
    }

    pub(super) fn poll_aborted(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<()> {
        let aborted = self.connection.aborted(id);
        if aborted.is_pending() {
            let spent = remember(&mut self.wakers.entry(id).or_default().watcher, cx);
            self.spent.extend(spent);
        }
        aborted
    }

    pub(super) fn release(&mut self, id: StreamId, code: StreamCode) {
        if let Some(wakers) = self.wakers.remove(&id) {
            let StreamWakers {
                reader,
                writer,
                watcher,
            } = wakers;
            self.spent
                .extend(reader.into_iter().chain(writer).chain(watcher));
        }
        self.connection.release(id, code);
    }

    pub(super) fn drop_sessions(&mut self) {
        self.sessions_gone = true;
        self.leave_if_unused();
    }

    pub(super) fn drop_incoming(&mut self) {
        self.incoming_gone = true;
        self.leave_if_unused();
    }

    /// The driver runs: nobody needs to wake it.
    pub(super) fn driver_runs(&mut self) {
        self.spent.extend(self.driver.take());
        self.write_blocked = false;
    }

    /// The driver wants to sleep. `false` when something came up that it should do first.
    pub(super) fn driver_sleeps(&mut self, cx: &Context<'_>, write_blocked: bool) -> bool {
        if self.connection.wants_transmit() && !write_blocked {
            return false;
        }
        let spent = self.driver.replace(cx.waker().clone());
        self.spent.extend(spent);
        self.write_blocked = write_blocked;
        true
    }

    fn leave_if_unused(&mut self) {
        if self.sessions_gone && self.incoming_gone {
            self.connection.go_away("nobody uses the session any more");
        }
    }

    fn collect(&mut self, calls: &mut Calls) {
        calls.spent = std::mem::take(&mut self.spent);
        if self.incoming_gone {
            self.connection.refuse_unaccepted();
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Readable(id) => {
                    let wakers = self.wakers.get_mut(&id);
                    calls
                        .wakers
                        .extend(wakers.and_then(|wakers| wakers.reader.take()));
                }
                Event::Writable(id) => {
                    let wakers = self.wakers.get_mut(&id);
                    calls
                        .wakers
                        .extend(wakers.and_then(|wakers| wakers.writer.take()));
                }
                Event::Aborted(id) => {
                    let wakers = self.wakers.get_mut(&id);
                    calls
                        .wakers
                        .extend(wakers.and_then(|wakers| wakers.watcher.take()));
                }
                Event::Incoming => calls.wakers.extend(self.acceptor.take()),
                Event::CanOpen => calls.can_open = true,
                Event::Changed => calls.changed = true,
            }
        }
        let waits = !self.write_blocked || self.connection.is_closing();
        if waits && self.connection.wants_transmit() {
            calls.wakers.extend(self.driver.take());
        }
    }
}

/// Puts the waker of `cx` in `place`; returns the one that was there, unless it is as good.
fn remember(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}
