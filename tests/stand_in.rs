//! The stand-in API server by itself: real kubectl straight against it, and what kubectl can not show.

mod support;

#[path = "stand_in/client.rs"]
mod client;
#[path = "stand_in/faults.rs"]
mod faults;
#[path = "stand_in/impersonation.rs"]
mod impersonation;
#[path = "stand_in/requests.rs"]
mod requests;
#[path = "stand_in/reviews.rs"]
mod reviews;
#[path = "stand_in/upgrades.rs"]
mod upgrades;
#[path = "stand_in/watch.rs"]
mod watch;
#[path = "stand_in/with_kubectl.rs"]
mod with_kubectl;
