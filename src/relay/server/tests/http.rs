//! HTTP mode, with a listener played by hand.

mod play;
mod replies;
mod requests;
