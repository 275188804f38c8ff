//! Sets `--cfg loom` for this package alone: tokio with it has no network, and would be another tokio.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
