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
    let received = fuzzing::hostile_peer(input) as usize;
    let kept = HIGHEST.load(Ordering::Relaxed).saturating_sub(before);
    let by_length = FIXED + PER_BYTE * input.len();
    let by_budget = received + SEND_BUDGET.min(WRITTEN_PER_BYTE * input.len()) + BLOCKS + OTHERS;
    assert!(
        kept <= by_length.min(by_budget),
        "{kept} bytes for {}",
        input.len()
    );
});

/// What the session has without any peer, the buffers of its answers, and the first receive block.
const FIXED: usize = (64 + 128) * 1024;

/// The dearest bytes are those of an OPEN: ten of them make a stream. Those of a slice that is just not copied are half as
/// dear: 2 KiB of them make a receive block.
const PER_BYTE: usize = 128;

/// What waits to be sent at most; the application writes fourteen bytes a step.
const SEND_BUDGET: usize = 8 * MIB;
const WRITTEN_PER_BYTE: usize = 14;

/// Receive blocks that nobody pins: the one to read into, and seven to be used again.
const BLOCKS: usize = MIB;

/// Everything else: streams, queues' lists, the block that is being read, the decoder.
const OTHERS: usize = MIB;

const MIB: usize = 1024 * 1024;

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
