//! Who a caller is, end to end: tokens of a local authority in the manner of Entra ID through tunnel and agent to an API
//! server that enforces impersonation and bindings.

mod support;

#[path = "identity/bed.rs"]
mod bed;
#[path = "identity/bindings.rs"]
mod bindings;
#[path = "identity/counted.rs"]
mod counted;
#[path = "identity/forbidden.rs"]
mod forbidden;
#[path = "identity/issuer.rs"]
mod issuer;
#[path = "identity/own_identity.rs"]
mod own_identity;
#[path = "identity/possession.rs"]
mod possession;
#[path = "identity/program.rs"]
mod program;
#[path = "identity/service_accounts.rs"]
mod service_accounts;
#[path = "identity/trouble.rs"]
mod trouble;
