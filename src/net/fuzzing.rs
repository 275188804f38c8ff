//! Entry points of the fuzz targets. Not part of the API.

pub use super::proxy::fuzzing::proxy_answer;
