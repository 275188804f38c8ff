//! Counts allocations while it is asked to.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

/// The system's allocator with a counter, which costs one relaxed load while it is off.
pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

/// What happened while the counter was on.
#[derive(Clone, Copy)]
pub struct Count {
    pub calls: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes allocated less bytes freed.
    pub live: i64,
}

pub fn start() {
    CALLS.store(0, Relaxed);
    BYTES.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    ON.store(true, Relaxed);
}

pub fn count() -> Count {
    Count {
        calls: CALLS.load(Relaxed),
        bytes: BYTES.load(Relaxed),
        live: LIVE.load(Relaxed),
    }
}

fn note(allocated: usize, freed: usize) {
    if ON.load(Relaxed) {
        CALLS.fetch_add(u64::from(allocated > 0), Relaxed);
        BYTES.fetch_add(allocated as u64, Relaxed);
        LIVE.fetch_add(allocated as i64 - freed as i64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing but atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
}
