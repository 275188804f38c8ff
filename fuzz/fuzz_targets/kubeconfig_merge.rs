//! A user's kubeconfig, into which our entries are merged.

#![no_main]

use arc_cluster_connect::kubeconfig::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::merge(input));
