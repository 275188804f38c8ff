//! The relay's messages to a listener.

#![no_main]

use arc_cluster_connect::relay::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::control_message(input));
