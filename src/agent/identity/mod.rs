//! Who is calling, and as whom the request goes on.

mod agent_credential;
mod authenticator;
mod caller;
mod names;
mod refreshes;
mod service_account;
mod tunnel_id;
mod validated;

pub use agent_credential::AgentCredential;
pub use authenticator::{
    Authenticated, Authentication, AuthenticationError, Authenticator, Credential, RejectReason,
};
pub use refreshes::RefreshCounts;
pub use service_account::{ServiceAccountAuthenticator, ServiceAccountTokens};
pub use tunnel_id::TunnelId;
pub use validated::{Identity, IdentityBuilder, IdentityRules, SystemGroups};

pub(super) use agent_credential::AgentToken;
pub(super) use caller::{CallerToken, Callers, Standing, authentication_failed};
pub(super) use refreshes::Refreshes;
