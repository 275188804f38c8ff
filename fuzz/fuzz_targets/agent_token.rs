//! A caller's token, whole or in parts.

#![no_main]

use arc_cluster_connect::agent::token_fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| token_fuzzing::token(input));
