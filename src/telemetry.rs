//! The names of every span, every metric and of every header that carries an id across a hop.
//!
//! Dashboards and log filters rely on them: a changed name is a breaking change.
//!
//! # Metrics of the agent
//! Each label has a closed set of values. No path, user, address or text that a caller chose is ever a label: it would
//! let a caller make as many series as they like.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | [`METRIC_REQUESTS`] | counter | `method`, `code` (`2xx`, …, `none` when the caller left first), `decision` |
//! | [`METRIC_REQUESTS_DENIED`] | counter | `reason`, as in the audit log |
//! | [`METRIC_REQUESTS_IN_FLIGHT`] | gauge | |
//! | [`METRIC_UPGRADED_STREAMS`] | gauge | |
//! | [`METRIC_REQUEST_DURATION`] | histogram | `kind`: `plain`, `watch`, `upgrade` |
//! | [`METRIC_FIRST_BYTE_DURATION`] | histogram | |
//! | [`METRIC_BYTES`] | counter | `direction`: `to_api_server`, `to_caller` |
//! | [`METRIC_UPSTREAM_FAILURES`] | counter | `reason`: `unreachable`, `timeout`, `tls`, `protocol`, `closed`, `other` |
//! | [`METRIC_RESPONSES_TRUNCATED`] | counter | |
//! | [`METRIC_UPSTREAM_CONNECTIONS`] | gauge | |
//! | [`METRIC_STREAM_STALL_DURATION`] | histogram | `direction`: `to_api_server`, `to_caller` |
//! | [`METRIC_TUNNELS`] | gauge | |
//! | [`METRIC_TUNNELS_REFUSED`] | counter | |
//! | [`METRIC_RELAY_REGISTRATIONS`] | gauge | `state`: `online`, `offline` |
//! | [`METRIC_RELAY_RECONNECTS`] | counter | `reason`: as for failures, and `unauthorized`, `not_found`, `refused` |
//! | [`METRIC_DRAINING`] | gauge | |
//! | [`METRIC_DRAIN_REMAINING`] | gauge | |
//! | [`METRIC_DRAIN_CUT`] | counter | |
//! | [`METRIC_AUDIT_LOST`] | counter | |
//! | [`METRIC_KEY_REFRESHES`] | counter | `outcome`: `success`, `failure` |
//! | [`METRIC_TOKEN_REFRESHES`] | counter | `outcome`: `success`, `failure` |
//! | [`METRIC_BUILD_INFO`] | gauge | `version` |
//!
//! # Metrics of the embedded relay
//! | name | kind | labels |
//! |---|---|---|
//! | [`METRIC_RELAY_SERVER_REQUESTS`] | counter | `action`: `listen`, `connect`, `accept`, `request`, `http`, `unknown`; `outcome`: `served`, `rejected_by_listener`, `unauthorized`, `forbidden`, `not_found`, `timeout`, `unavailable`, `refused` |
//! | [`METRIC_RELAY_SERVER_BRIDGES_ENDED`] | counter | `ending`: `closed`, `aborted`, `shutdown` |
//! | [`METRIC_RELAY_SERVER_BRIDGES`] | gauge | |
//! | [`METRIC_RELAY_SERVER_CONNECTIONS`] | gauge | |
//! | [`METRIC_RELAY_SERVER_CONNECTIONS_MAX`] | gauge | |
//! | [`METRIC_RELAY_SERVER_NEWCOMERS`] | gauge | |
//! | [`METRIC_RELAY_SERVER_NEWCOMERS_EVICTED`] | counter | |
//! | [`METRIC_RELAY_SERVER_REFUSALS_HELD`] | gauge | |
//! | [`METRIC_RELAY_SERVER_REFUSALS_OVER_RATE`] | counter | |
//! | [`METRIC_RELAY_SERVER_LISTENERS`] | gauge | `hybrid_connection`, as the operator named it |
//! | [`METRIC_RELAY_SERVER_WAITING`] | gauge | `hybrid_connection` |

/// Span around one connection to a relay, as sender or as listener.
pub const SPAN_RELAY_CONNECT: &str = "relay.connect";
/// Span around one tunnel, from dial to close.
pub const SPAN_TUNNEL: &str = "tunnel";
/// Span around one request at the agent.
pub const SPAN_AGENT_REQUEST: &str = "agent.request";
/// Span around one request at the loopback endpoint.
pub const SPAN_PROXY_REQUEST: &str = "proxy.request";

/// Target of the one event that each request at the loopback endpoint leaves when it is over, at the level `debug`.
pub const TARGET_PROXY_REQUESTS: &str = "arc_cluster_connect::requests";

/// Header that ties a request to one client session, on every hop (the name that Azure's own client uses).
pub const HEADER_CORRELATION_ID: &str = "x-ms-correlation-request-id";
/// Header that ties a request to the API server's audit log. The agent always sets its own value.
pub const HEADER_AUDIT_ID: &str = "audit-id";

/// Requests that are over.
pub const METRIC_REQUESTS: &str = "acc_requests_total";
/// Requests that the agent itself turned away.
pub const METRIC_REQUESTS_DENIED: &str = "acc_requests_denied_total";
/// Requests that are not over: watches and upgraded streams among them.
pub const METRIC_REQUESTS_IN_FLIGHT: &str = "acc_requests_in_flight";
/// Live streams after a change of protocol: exec, attach, port-forward.
pub const METRIC_UPGRADED_STREAMS: &str = "acc_upgraded_streams";
/// From a request's head to the end of its response, in seconds.
pub const METRIC_REQUEST_DURATION: &str = "acc_request_duration_seconds";
/// From a request's head to the head of the API server's response, in seconds.
pub const METRIC_FIRST_BYTE_DURATION: &str = "acc_first_byte_duration_seconds";
/// Bytes of bodies and of upgraded streams.
pub const METRIC_BYTES: &str = "acc_bytes_total";
/// Requests to which the API server gave no usable answer.
pub const METRIC_UPSTREAM_FAILURES: &str = "acc_upstream_failures_total";
/// Responses that the API server broke off.
pub const METRIC_RESPONSES_TRUNCATED: &str = "acc_responses_truncated_total";
/// Live connections to the API server, of either HTTP version, those of upgraded streams and idle ones among them.
pub const METRIC_UPSTREAM_CONNECTIONS: &str = "acc_upstream_conns";
/// How long bytes waited for their receiver, in seconds; one observation for each wait, when it ends.
///
/// `to_caller`: a write into the caller's stream found no room, as the caller reads too slowly or the tunnel is too slow.
/// `to_api_server`: the same for an upgraded stream, and for an upload each pause of 5 ms at least between two pieces that
/// the connection to the API server took.
pub const METRIC_STREAM_STALL_DURATION: &str = "acc_stream_stall_seconds";
/// Live tunnel connections.
pub const METRIC_TUNNELS: &str = "acc_tunnels";
/// Tunnel connections that were turned away because too many are open.
pub const METRIC_TUNNELS_REFUSED: &str = "acc_tunnels_refused_total";
/// Registrations at relays that this agent keeps, by their state.
pub const METRIC_RELAY_REGISTRATIONS: &str = "acc_relay_registrations";
/// Losses of a registration and failed attempts to have one.
pub const METRIC_RELAY_RECONNECTS: &str = "acc_relay_reconnects_total";
/// 1 while the agent is shutting down.
pub const METRIC_DRAINING: &str = "acc_draining";
/// While the agent is shutting down: the requests and upgraded streams that it waits for.
pub const METRIC_DRAIN_REMAINING: &str = "acc_drain_remaining_streams";
/// Requests and upgraded streams that were cut off because they outlasted a shutdown's limit.
pub const METRIC_DRAIN_CUT: &str = "acc_drain_cut_streams_total";
/// Audit events that the sink could not keep.
pub const METRIC_AUDIT_LOST: &str = "acc_audit_lost_total";
/// Readings of issuers' keys.
pub const METRIC_KEY_REFRESHES: &str = "acc_jwks_refresh_total";
/// New tokens of the agent's own, under which it acts for callers, and failures to have one.
pub const METRIC_TOKEN_REFRESHES: &str = "acc_token_refresh_total";
/// Requests to an embedded relay, by what they asked for and how they were answered.
pub const METRIC_RELAY_SERVER_REQUESTS: &str = "acc_relay_server_requests_total";
/// Relayed WebSocket connections of an embedded relay that ended, by how.
pub const METRIC_RELAY_SERVER_BRIDGES_ENDED: &str = "acc_relay_server_bridges_total";
/// Live relayed WebSocket connections of an embedded relay.
pub const METRIC_RELAY_SERVER_BRIDGES: &str = "acc_relay_server_bridges";
/// Live connections of an embedded relay, of all kinds.
pub const METRIC_RELAY_SERVER_CONNECTIONS: &str = "acc_relay_server_connections";
/// How many there may be.
pub const METRIC_RELAY_SERVER_CONNECTIONS_MAX: &str = "acc_relay_server_connections_max";
/// Connections of an embedded relay that have not sent a whole request yet.
pub const METRIC_RELAY_SERVER_NEWCOMERS: &str = "acc_relay_server_newcomers";
/// How many of them were closed for newer ones.
pub const METRIC_RELAY_SERVER_NEWCOMERS_EVICTED: &str = "acc_relay_server_newcomers_evicted_total";
/// Refusals of an embedded relay that wait to be sent.
pub const METRIC_RELAY_SERVER_REFUSALS_HELD: &str = "acc_relay_server_refusals_held";
/// Refusals of an embedded relay to addresses that are refused all the time.
pub const METRIC_RELAY_SERVER_REFUSALS_OVER_RATE: &str =
    "acc_relay_server_refusals_over_rate_total";
/// Control channels of an embedded relay, by hybrid connection.
pub const METRIC_RELAY_SERVER_LISTENERS: &str = "acc_relay_server_listeners";
/// Senders that wait for a listener of an embedded relay, by hybrid connection.
pub const METRIC_RELAY_SERVER_WAITING: &str = "acc_relay_server_waiting";
/// Always 1; its label tells the version.
pub const METRIC_BUILD_INFO: &str = "acc_build_info";
