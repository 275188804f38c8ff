//! Who is calling, and as whom the request goes on.

mod agent_credential;
mod authenticator;
mod caller;
mod names;
mod service_account;
mod validated;

pub use agent_credential::AgentCredential;
pub use authenticator::{
    Authenticated, Authentication, AuthenticationError, Authenticator, Credential, RejectReason,
};
pub use service_account::{ServiceAccountAuthenticator, ServiceAccountTokens};
pub use validated::{Identity, IdentityBuilder, IdentityRules, SystemGroups};

pub(super) use agent_credential::AgentToken;
pub(super) use caller::{CallerToken, Callers, Standing};
