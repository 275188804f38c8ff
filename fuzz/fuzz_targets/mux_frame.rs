//! The frame decoder against arbitrary bytes.

#![no_main]

use arc_cluster_connect::tunnel::mux::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::decode_frames(input));
