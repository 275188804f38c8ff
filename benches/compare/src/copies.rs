//! Counts the bytes that the program copies while it is asked to: `memcpy` and `memmove` of this program in place of the C
//! library's, which they call in the end. Copies by the kernel do not count.

use std::{
    ffi::c_void,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

static ON: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Shorter copies are headers, and moves of values.
const SHORTEST: usize = 64;

pub fn start() {
    BYTES.store(0, Relaxed);
    ON.store(true, Relaxed);
}

/// What was copied since.
pub fn bytes() -> u64 {
    BYTES.load(Relaxed)
}

fn note(bytes: usize) {
    if bytes >= SHORTEST && ON.load(Relaxed) {
        BYTES.fetch_add(bytes as u64, Relaxed);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    // The checked form of `memmove` has a symbol of its own, and is as fast.
    fn __memmove_chk(
        to: *mut c_void,
        from: *const c_void,
        bytes: usize,
        room: usize,
    ) -> *mut c_void;
}

/// # Safety
/// As C's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    note(bytes);
    // SAFETY: the caller promises more than this needs.
    unsafe { __memmove_chk(to, from, bytes, std::hint::black_box(usize::MAX)) }
}

/// # Safety
/// As C's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
) -> *mut c_void {
    note(bytes);
    // SAFETY: the caller promises the same.
    unsafe { __memmove_chk(to, from, bytes, std::hint::black_box(usize::MAX)) }
}
