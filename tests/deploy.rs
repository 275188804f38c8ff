//! The agent in a cluster: what the manifests promise, and `arc-connect enable-features` with a real kubectl.

mod support;

#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/installing.rs"]
mod installing;
#[path = "deploy/manifest_files.rs"]
mod manifest_files;
// What the program embeds, so that it can be compared with what the files say.
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../examples/arc-connect/enable_features/manifests.rs"]
mod manifests;
#[path = "deploy/pod.rs"]
mod pod;
#[path = "deploy/rights.rs"]
mod rights;
