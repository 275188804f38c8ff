//! Beside the cluster: authenticate the caller, forward to the API server.
