//! The multiplexer, lifted out of the crate.

#[path = "../../../src/error.rs"]
#[allow(dead_code, rustdoc::broken_intra_doc_links)]
mod error;

pub use error::{Error, ErrorKind, Result};

#[path = "."]
pub mod tunnel {
    //! As in the crate.

    #[path = "../../../src/tunnel/mux/mod.rs"]
    pub mod mux;
}
