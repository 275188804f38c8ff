//! The first bytes of a stream to the agent.

#![no_main]

use arc_cluster_connect::agent::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::request_head(input));
