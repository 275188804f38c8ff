//! A connection string, as users and files give it.

#![no_main]

use arc_cluster_connect::relay::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::connection_string(input));
