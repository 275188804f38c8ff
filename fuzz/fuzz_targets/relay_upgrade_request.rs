//! The head of a request, as anybody may send it to the embedded relay: no token that is made up proves anything, and nothing of
//! a sender's speaks for the relay or the listener.

#![no_main]

use arc_cluster_connect::relay::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::upgrade_request(input));
