//! What opens a bridged connection, from either end.

#![no_main]

use arc_cluster_connect::tunnel::bridge_fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| bridge_fuzzing::preamble(input));
