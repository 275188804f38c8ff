//! The claims of a token whose signature holds.

#![no_main]

use arc_cluster_connect::agent::token_fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| token_fuzzing::entra_claims(input));
