//! `arc-connect doctor` on set-ups that work and on ones that do not: which check fails, and what it says to do.

mod support;

#[path = "doctor/azure.rs"]
mod azure;
#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "azure_cli/bed.rs"]
mod azure_bed;
#[path = "doctor/bed.rs"]
mod bed;
#[path = "doctor/endpoints.rs"]
mod endpoints;
#[path = "doctor/relay.rs"]
mod relay;
