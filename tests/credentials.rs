//! Signing in: each way, against a local authority in the manner of Entra ID over TLS, and everything that goes wrong.

#[path = "support/authority/mod.rs"]
mod authority;

#[path = "credentials/applications.rs"]
mod applications;
#[path = "credentials/bed.rs"]
mod bed;
#[path = "credentials/device.rs"]
mod device;
#[path = "credentials/environment.rs"]
mod environment;
#[path = "credentials/possession.rs"]
mod possession;
#[path = "credentials/trouble.rs"]
mod trouble;
