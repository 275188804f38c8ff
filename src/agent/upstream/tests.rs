//! An [`Upstream`](super::Upstream) in front of scripted API servers, in memory.

mod bed;
mod bodies;
mod go_away;
mod lifetime;
mod limits;
mod places;
mod raw;
mod trust;
