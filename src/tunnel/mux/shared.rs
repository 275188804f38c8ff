//! What the handles and the driver of a session share.

use std::{
    collections::HashMap,
    io,
    sync::{PoisonError, TryLockError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::{
    code::StreamCode,
    connection::{Connection, Event},
    failure::{StreamFailure, transport_failure},
    id::{BuildIdHasher, StreamId},
    link::{Link, Written},
    sync::{Mutex, MutexGuard},
    wakers::{Wakers, remember},
};
use crate::{Error, ErrorKind};

/// The connection and the transport, each behind a lock that is never held across an await, and those who wait.
///
/// The lock of the transport comes first where both are held. Only the driver waits for it: whoever else finds it taken
/// leaves the work to the driver.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// `None` once the driver is gone.
    link: Mutex<Option<Link>>,
    /// Notified when the session became ready, goes away, or ended.
    pub(super) changed: Notify,
    /// Notified when a stream can be opened.
    pub(super) can_open: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: Connection,
    readers: StreamWakers,
    writers: StreamWakers,
    /// Those who only want to know whether the peer has left.
    watchers: StreamWakers,
    acceptor: Option<Waker>,
    driver: Option<Waker>,
    phase: Phase,
    /// Wakers of no more use. They are dropped outside of the lock: the last waker of a task may drop the task, and with
    /// it streams of this session, each of which takes the lock.
    spent: Wakers,
    sessions_gone: bool,
    incoming_gone: bool,
}

/// A map for each direction: the halves of a split stream live in different tasks. An entry stays while somebody waits.
type StreamWakers = HashMap<StreamId, Waker, BuildIdHasher>;

/// What the driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs, or will without being woken, and looks for something to send before it sleeps.
    Awake,
    Asleep,
    /// It sleeps because the transport takes nothing: new bytes are no reason to wake it.
    Blocked,
    /// It is no more.
    Gone,
}

/// Who is woken after the lock is released, and what is dropped then.
#[derive(Default)]
struct Calls {
    wakers: Wakers,
    spent: Wakers,
    changed: bool,
    can_open: bool,
}

impl Shared {
    pub(super) fn new(connection: Connection, link: Link) -> Self {
        Self {
            state: Mutex::new(State {
                connection,
                readers: HashMap::default(),
                writers: HashMap::default(),
                watchers: HashMap::default(),
                acceptor: None,
                driver: None,
                phase: Phase::Awake,
                spent: Wakers::default(),
                sessions_gone: false,
                incoming_gone: false,
            }),
            link: Mutex::new(Some(link)),
            changed: Notify::new(),
            can_open: Notify::new(),
        }
    }

    /// Runs `change` under the lock, then wakes whom it concerns.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut calls = Calls::default();
        let result = {
            let mut state = self.lock_state();
            let result = change(&mut state);
            state.collect(&mut calls);
            result
        };
        calls.wakers.wake();
        if calls.changed {
            self.changed.notify_waiters();
        }
        if calls.can_open {
            self.can_open.notify_one();
        }
        result
    }

    /// Runs a `change` that gives a stream something to send, and sends it in the place of a driver that sleeps: one
    /// task less to be switched to before it leaves.
    ///
    /// Not what a stream sends first: that waits for the driver, so that a short stream is one write with its end.
    pub(super) fn with_sending<R>(&self, id: StreamId, change: impl FnOnce(&mut State) -> R) -> R {
        // In use: whoever uses it is or wakes the driver, which finds what is put into the queue now.
        let Ok(mut link) = self.link.try_lock() else {
            return self.with(change);
        };
        let Some((link_in, driver)) = link.as_mut().and_then(|link| {
            let driver = link.writer()?;
            Some((link, driver))
        }) else {
            drop(link);
            return self.with(change);
        };
        let result = self.with(|state| {
            let result = change(state);
            if state.phase == Phase::Asleep && state.connection.is_brief(id) {
                let now = Instant::now().into_std();
                state.connection.poll_transmit(now, &mut link_in.batch);
            }
            result
        });
        if !link_in.batch.is_empty() {
            match link_in.poll_write(&mut Context::from_waker(&driver)) {
                Written::Failed(error) => self.transport_failed("writing to", &error),
                // The transport will wake the driver, which finds what is left.
                _ if !link_in.batch.is_empty() => self.with(State::driver_is_blocked),
                _ => {}
            }
        }
        drop(link);
        if self.lock_state().phase == Phase::Gone {
            self.drop_link();
        }
        result
    }

    /// For the driver, which waits for a write of somebody else's at most.
    pub(super) fn lock_link(&self) -> MutexGuard<'_, Option<Link>> {
        match self.link.lock() {
            Ok(link) => link,
            Err(poisoned) => {
                // The transport has panicked in somebody's write: nobody knows what has left.
                self.link.clear_poison();
                let mut link = poisoned.into_inner();
                if let Some(link) = link.as_mut() {
                    link.break_off();
                }
                self.transport_failed("writing to", &io::Error::other("the transport panicked"));
                link
            }
        }
    }

    /// Ends the session: nothing moves any more.
    pub(super) fn driver_is_gone(&self) {
        self.with(|state| {
            state.phase = Phase::Gone;
            state.connection.handle_failure(Error::new(
                ErrorKind::Closed,
                "the driver of the session was dropped",
            ));
        });
        self.drop_link();
    }

    pub(super) fn transport_failed(&self, doing: &str, error: &io::Error) {
        let failure = transport_failure(doing, error);
        self.with(|state| state.connection.handle_failure(failure));
    }

    /// Drops the transport, or leaves that to whoever writes to it just now.
    fn drop_link(&self) {
        let link = match self.link.try_lock() {
            Ok(mut link) => link.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        // Outside of the lock: a transport is anybody's code.
        drop(link);
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread within the lock left at worst a stream in a wrong state; peers and other
        // streams are better served by going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<Option<(StreamId, Bytes)>> {
        let accepted = self.connection.accept();
        if accepted.is_pending() {
            self.spent.push(remember(&mut self.acceptor, cx));
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
            wait(&mut self.readers, id, cx, &mut self.spent);
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
            wait(&mut self.writers, id, cx, &mut self.spent);
        }
        written
    }

    pub(super) fn poll_aborted(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<()> {
        let aborted = self.connection.aborted(id);
        if aborted.is_pending() {
            wait(&mut self.watchers, id, cx, &mut self.spent);
        }
        aborted
    }

    pub(super) fn release(&mut self, id: StreamId, code: StreamCode) {
        for wakers in [&mut self.readers, &mut self.writers, &mut self.watchers] {
            self.spent.push(wakers.remove(&id));
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

    /// The driver is polled. How many streams have something to send, if it was woken for that.
    pub(super) fn driver_wakes(&mut self) -> Option<usize> {
        let was = std::mem::replace(&mut self.phase, Phase::Awake);
        (was == Phase::Awake).then(|| self.connection.ready_streams())
    }

    /// The driver runs: nobody needs to wake it.
    pub(super) fn driver_runs(&mut self) {
        self.phase = Phase::Awake;
    }

    /// The driver wants to sleep. `false` when something came up that it should do first.
    pub(super) fn driver_sleeps(&mut self, cx: &Context<'_>, is_written: IsWritten) -> bool {
        let phase = match is_written {
            IsWritten::Yes if self.connection.wants_transmit() => return false,
            IsWritten::Yes => Phase::Asleep,
            IsWritten::No => Phase::Blocked,
        };
        self.spent.push(remember(&mut self.driver, cx));
        self.phase = phase;
        true
    }

    /// Somebody has written in the driver's place, and not all of it left.
    fn driver_is_blocked(&mut self) {
        if self.phase == Phase::Asleep {
            self.phase = Phase::Blocked;
        }
    }

    fn leave_if_unused(&mut self) {
        if self.sessions_gone && self.incoming_gone {
            self.connection.go_away("nobody uses the session any more");
        }
    }

    fn collect(&mut self, calls: &mut Calls) {
        if !self.spent.is_empty() {
            calls.spent = std::mem::take(&mut self.spent);
        }
        if self.incoming_gone {
            self.connection.refuse_unaccepted();
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Readable(id) => calls.wakers.push(self.readers.remove(&id)),
                Event::Writable(id) => calls.wakers.push(self.writers.remove(&id)),
                Event::Aborted(id) => calls.wakers.push(self.watchers.remove(&id)),
                Event::Incoming => calls.wakers.push(self.acceptor.take()),
                Event::CanOpen => calls.can_open = true,
                Event::Changed => calls.changed = true,
            }
        }
        let waits = match self.phase {
            Phase::Asleep => true,
            Phase::Blocked => self.connection.is_closing(),
            Phase::Awake | Phase::Gone => false,
        };
        if waits && self.connection.wants_transmit() {
            self.phase = Phase::Awake;
            calls.wakers.push(self.driver.clone());
        }
    }
}

/// Whether all that the driver took has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsWritten {
    Yes,
    No,
}

/// Remembers who waits for a stream.
fn wait(wakers: &mut StreamWakers, id: StreamId, cx: &Context<'_>, spent: &mut Wakers) {
    match wakers.get_mut(&id) {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        Some(waker) => spent.push(std::mem::replace(waker, cx.waker().clone())),
        None => {
            wakers.insert(id, cx.waker().clone());
        }
    }
}
