//! The API server's answer to an upgrade on its way to the caller.

#![no_main]

use arc_cluster_connect::agent::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::upgrade_answer(input));
