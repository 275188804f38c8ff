//! What a corporate proxy answers.

#![no_main]

use arc_cluster_connect::net::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::proxy_answer(input));
