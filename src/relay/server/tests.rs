//! At the wire: raw HTTP clients and an established WebSocket implementation against the whole relay.

mod bed;
mod captured;
mod closes;
mod control;
mod data;
mod emulation;
mod entity_options;
mod flood;
mod health;
mod http;
mod idle;
mod limits;
mod ours;
mod rendezvous;
mod status;
mod steady;
