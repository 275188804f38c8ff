//! Who is calling, and as whom the request goes on.

mod authenticator;
mod caller;
mod names;
mod validated;

pub use authenticator::{
    Authenticated, Authentication, AuthenticationError, Authenticator, Credential, RejectReason,
};
pub use caller::ServiceAccountTokens;
pub use validated::{Identity, IdentityBuilder, IdentityRules, SystemGroups};

pub(super) use caller::{Callers, Decision};
