//! The loopback HTTPS endpoint that kubectl talks to.
