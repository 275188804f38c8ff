//! The proxy over real loopback TLS, with a fake tunnel behind it.

mod admission;
mod clusters;
mod doors;
mod failures;
mod fakes;
mod forwarding;
mod limits;
mod real_tunnel;
mod streaming;
mod support;
mod upgrades;
mod watching;
