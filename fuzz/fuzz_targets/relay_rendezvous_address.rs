//! The address at which a relay tells a listener to meet a sender. Whatever it is, the listener dials no host that is not of
//! its own relay's, on no other port, with no less protection, and shows its token to none.

#![no_main]

use arc_cluster_connect::relay::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::rendezvous_address(input));
