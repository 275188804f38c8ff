//! `arc-connect` as somebody uses it with Azure: the built program signs in, asks a resource manager for the way, and
//! serves a real kubectl, through relay, agent and API server of this process.

mod support;

#[path = "azure_cli/bed.rs"]
mod bed;
#[path = "azure_cli/credential.rs"]
mod credential;
#[path = "azure_cli/failures.rs"]
mod failures;
#[path = "azure_cli/killed.rs"]
mod killed;
#[path = "azure_cli/secrets.rs"]
mod secrets;
#[path = "azure_cli/several.rs"]
mod several;
#[path = "azure_cli/sign_in.rs"]
mod sign_in;
#[path = "azure_cli/whoami.rs"]
mod whoami;
