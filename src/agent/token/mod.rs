//! Tokens: what a caller shows, checked offline against its issuer's keys.
//!
//! Two [authenticators](super::Authenticator) stand on it: [`EntraAuthenticator`] for Microsoft Entra ID, with
//! proof of possession and groups beyond the limit of a token, and [`OpenIdAuthenticator`] for any other OpenID
//! Connect issuer.
//!
//! ```text
//!  token ─► size ─► strict JWT ─► issuer ─► key ─► signature ─► times ─► audience ─► claims ─► Identity
//!                                 │ other    │ unknown: the issuer's keys are read again, once in a while
//!                                 ▼          ▼
//!                                not mine   401, or 503 while the issuer is out of reach
//! ```
//!
//! No JWT library is used. Those that exist bring a cryptography of their own beside the crate's provider (for `ring`
//! there is none), accept duplicate members of a JSON object, and read headers that must never be read (`jku`,
//! `jwk`, `x5u`). What is needed is three base64 parts, one JSON reader and one call of the provider.
//!
//! # Limits
//! A token: 32 KiB, JSON 12 levels deep with 5 000 values. A key set: 128 keys, 256 KiB; RSA 2048 to 4096 bits with
//! the exponent 65537, P-256. Results kept: 4 096 for a minute, refusals 1 024 for five seconds. Groups resolved:
//! 2 048 callers for at most ten minutes. Nonces of proofs: 65 536.

mod cache;
mod claims;
mod discovery;
mod entra;
#[cfg(fuzzing)]
pub mod fuzzing;
mod groups;
mod json;
mod jwt;
mod key_store;
mod keys;
mod openid;
mod pop;
mod rejection;
mod verifier;

#[cfg(test)]
mod test_issuer;
#[cfg(test)]
mod tests;

pub use entra::{EntraAuthenticator, EntraAuthenticatorBuilder, EntraUsername};
pub use groups::GroupResolver;
pub use jwt::SignatureAlgorithm;
pub use openid::{OpenIdAuthenticator, OpenIdAuthenticatorBuilder};
pub use pop::{PopPolicy, Replays};
