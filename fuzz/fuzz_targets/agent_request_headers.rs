//! A known caller's headers on their way to the API server.

#![no_main]

use arc_cluster_connect::agent::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::request_headers(input));
