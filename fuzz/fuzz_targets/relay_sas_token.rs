//! A shared access signature, as anybody may show it to the embedded relay.

#![no_main]

use arc_cluster_connect::relay::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::sas_token(input));
