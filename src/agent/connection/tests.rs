//! The agent between a caller and a scripted API server, both in memory, byte for byte.

mod identities;
mod limits;
mod plain;
mod refusals;
mod sequences;
mod sockets;
mod upgrades;
