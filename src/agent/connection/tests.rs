//! The agent between a caller and a scripted API server, both in memory, byte for byte.

mod limits;
mod plain;
mod refusals;
mod sockets;
mod upgrades;
