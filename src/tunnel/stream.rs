//! [`TunnelStream`]: the concrete stream that every tunnel hands out.

/// One stream through a tunnel.
pub struct TunnelStream(());
