//! Any operations on both ends of a session, over a link that splits and delays: what comes out is what the model says.

#![no_main]

use arc_cluster_connect::tunnel::mux::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::operate(input));
