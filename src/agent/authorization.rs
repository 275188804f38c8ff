//! Whether an authenticated caller may go on: the embedding program's own policy, and the API server's word on who
//! may act as somebody else.

mod policy;
mod resource;
mod review;

pub use policy::{Access, PolicyRequest, RequestPolicy, Verdict};
pub use resource::ResourcePath;

pub(super) use policy::check;
pub(super) use review::Reviews;
