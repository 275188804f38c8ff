//! A session against a peer that says arbitrary bytes after its introduction.

#![no_main]

use arc_cluster_connect::tunnel::mux::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::hostile_peer(input));
