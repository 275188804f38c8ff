//! In memory and on virtual time: what a dial makes is one end of a pipe, and the test is the listener at the other.

mod bed;
mod ending;
mod opening;
mod warm;
