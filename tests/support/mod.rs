//! The shared test bed: what several integration tests stand on.

// Each test binary takes what it needs from here; the rest is not dead, only unused in that one binary.
#![allow(dead_code)]

pub mod api_server;
pub mod arm;
pub mod authority;
pub mod embedded;
pub mod installation;
pub mod kubectl;
pub mod programs;
pub mod scenarios;
