//! [`Wakers`]: a few wakers, without an allocation.

use std::task::{Context, Waker};

/// Wakers that leave a lock together. Most often there are one or two.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    first: [Option<Waker>; FIRST],
    count: usize,
    more: Vec<Waker>,
}

/// What is kept without an allocation: a reader, a writer, the acceptor and the driver.
const FIRST: usize = 4;

impl Wakers {
    pub(super) fn push(&mut self, waker: impl Into<Option<Waker>>) {
        let Some(waker) = waker.into() else {
            return;
        };
        match self.first.get_mut(self.count) {
            Some(place) => *place = Some(waker),
            None => self.more.push(waker),
        }
        self.count += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn wake(mut self) {
        if self.is_empty() {
            return;
        }
        for waker in self.first.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
        for waker in self.more {
            waker.wake();
        }
    }
}

/// Puts the waker of `cx` in `place`; returns the one that was there, unless it is as good.
pub(super) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}
