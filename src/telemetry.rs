//! The names of every span and of every header that carries an id across a hop.
//!
//! Dashboards and log filters rely on them: a changed name is a breaking change.

/// Span around one connection to a relay, as sender or as listener.
pub const SPAN_RELAY_CONNECT: &str = "relay.connect";
/// Span around one tunnel, from dial to close.
pub const SPAN_TUNNEL: &str = "tunnel";
/// Span around one request at the agent.
pub const SPAN_AGENT_REQUEST: &str = "agent.request";
/// Span around one request at the loopback endpoint.
pub const SPAN_PROXY_REQUEST: &str = "proxy.request";

/// Header that ties a request to one client session, on every hop (the name that Azure's own client uses).
pub const HEADER_CORRELATION_ID: &str = "x-ms-correlation-request-id";
/// Header that ties a request to the API server's audit log. The agent always sets its own value.
pub const HEADER_AUDIT_ID: &str = "audit-id";
