//! A session against a peer that says arbitrary bytes after its introduction: no panic, no bound that is passed, and no
//! more memory than what it sent accounts for.

#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use arc_cluster_connect::tunnel::mux::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let before = LIVE.load(Ordering::Relaxed);
    HIGHEST.store(before, Ordering::Relaxed);
    fuzzing::hostile_peer(input);
    let kept = HIGHEST.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = FIXED + PER_BYTE * input.len();
    assert!(kept <= allowed.min(BUDGET), "{kept} bytes for {}", input.len());
});

/// What the session has without any peer, and the buffers of its answers.
const FIXED: usize = 64 * 1024;

/// The dearest bytes are those of an OPEN: ten of them make a stream.
const PER_BYTE: usize = 128;

/// The budget of received data and of the send queues, and one MiB for everything else.
const BUDGET: usize = (32 + 8 + 1) * 1024 * 1024;

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        HIGHEST.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}
