//! [`BridgeTunnel`]: a tunnel to a listener of the Azure Relay Bridge, with a relayed connection for each stream.

mod health;
mod line;
mod port;
mod preamble;
mod shared;
mod stream;
mod warm;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use tracing::{Instrument, info_span};

pub use self::port::BridgePort;
pub(super) use self::preamble::Refusal as BridgeRefusal;
use self::{
    line::{Line, Tls},
    shared::Shared,
    stream::BridgeStream,
    warm::Warm,
};
use super::{
    OpenOptions, StateStream, Target, Tunnel, TunnelStatus, TunnelStream,
    relay::RelayDial,
    stream::BytePipe,
    supervise::{Dial, OPEN_LIMIT},
};
use crate::{
    Error, ErrorKind, Result,
    net::{Connector, Endpoint},
    relay::RelaySender,
    telemetry,
};

/// How many connections are dialled at once unless told otherwise. Each is a TLS handshake here, and a dial and another
/// handshake of the listener's: a burst of hundreds would only make all of them late.
const DIAL_LIMIT: usize = 16;

/// A tunnel to whoever listens on a hybrid connection with the public *Azure Relay Bridge* (`azbridge -T` or `-R`):
/// each stream is a relayed connection of its own, and leads to a TCP port that the listener forwards to. No agent of
/// this crate is needed there.
///
/// ```no_run
/// use std::path::Path;
///
/// use arc_cluster_connect::{
///     Tunnel,
///     net::{Connector, Endpoint, Security, TrustRoots},
///     relay::{ConnectionString, RelaySender},
///     tunnel::{BridgePort, BridgeTunnel, OpenOptions, Target},
/// };
///
/// # async fn example(text: &str) -> arc_cluster_connect::Result<()> {
/// let connection_string = ConnectionString::parse(text)?;
/// let sender = RelaySender::new(
///     Connector::new(TrustRoots::platform())?,
///     connection_string.hybrid_connection()?,
///     connection_string.credential(),
/// );
/// // Beside the cluster: azbridge -T RELAY:kubernetes/kubernetes.default.svc:443
/// let roots = TrustRoots::platform().and_file(Path::new("/etc/cluster-ca.crt"))?;
/// let api_server = Endpoint::new("kubernetes.default.svc", 443, Security::Tls);
/// let tunnel = BridgeTunnel::new(sender, BridgePort::new("kubernetes")?)
///     .with_tls(Connector::new(roots)?, api_server)
///     .with_warm(2);
/// let stream = tunnel.open(&Target::api_server(), OpenOptions::new()).await?;
/// # drop(stream);
/// tunnel.shutdown().await
/// # }
/// ```
///
/// # Experimental
/// It was made from the public source of the bridge and has met stand-ins that send its exact bytes, never the program
/// itself and never the live service. Azure's own agent for Arc-enabled clusters logs events of the same names as the
/// bridge does, which suggests that it speaks this protocol and proves nothing: its source is not public. What this type
/// does may change in any version.
///
/// # On the wire
/// All facts are from [Azure/azure-relay-bridge](https://github.com/Azure/azure-relay-bridge) (MIT).
///
/// | who | bytes | meaning | where it is from |
/// |---|---|---|---|
/// | client | `01 00 00 LEN NAME` | version 1.0, a stream, to the port of that name: UTF-8, `LEN` bytes | `TcpLocalForwardBridge.cs` |
/// | client | `01 00 01 LEN NAME` | the same for datagrams; never sent by us | `UdpLocalForwardBridge.cs` |
/// | listener | `01 00 00` | accepted: what follows are the target's bytes. It connects to its target only now | `RemoteForwardBridge.cs` |
/// | listener | `00 00 00` | refused: another version | the same |
/// | listener | `00 00 01` | refused: the port is one for datagrams | the same |
/// | listener | `00 00 FF` | refused: datagrams were asked for, and the port is one for streams | the same |
/// | listener | closes | refused: it has no port of that name | the same |
/// | listener | `01 00 00 00` | before September 2018: a preamble of four bytes each way, without names; refused by us | its history |
/// | both | bytes | as they are; the end of one direction is a WebSocket Close of code 1000, the other goes on | `StreamPump.cs` |
///
/// Where the listener forwards one port only, it takes any *number* for its name.
///
/// # Limits
/// * **A dial for each stream**: 0.4 seconds on Azure where the relay is near, one in some tens 3 to 7 seconds.
///   [`with_warm`](Self::with_warm) hides it. The other tunnels open a stream without a round trip.
/// * **Opening proves little**: the listener answers before it connects to its target. Without TLS inside, a target that
///   is not there shows as a stream that ends without a byte.
/// * **No priorities**: streams share no connection in which one could go first, so priority and weight of
///   [`OpenOptions`] are without effect.
/// * **Nothing is checked on the way**: the target sees the caller's bytes as they are, credentials among them, and so do
///   the relay and the listener unless TLS runs [inside](Self::with_tls). Here is no agent that authenticates or
///   impersonates anybody: the API server has to know the caller's token itself, as that of a service account.
///
/// # States
/// With a connection for each stream there is none to be connected *with*, so the states tell of the dials:
/// [`Connected`](super::TunnelState::Connected) is that the last one was answered by the listener, be it with a refusal
/// of that port. A listener that goes away is noticed by the next dial, not before. After a dial that failed one dial at
/// a time tries it for all openings that wait, after 1, 2, 5, 10 and then every 30 seconds, for new openings within a
/// second; [`Waiting`](super::TunnelState::Waiting) stays when nobody waits, until the next opening. The
/// [round trip](TunnelStatus::round_trip_time) is that of the last preamble.
///
/// # Shutdown
/// As [`Tunnel::shutdown`] has it. A stream that is cut off fails when it is used next. Dropping the tunnel takes no
/// stream away: live streams go on to their end.
pub struct BridgeTunnel {
    line: Line,
    port: BridgePort,
    ports: HashMap<Target, BridgePort>,
    warm: Option<Arc<Warm>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    drain: Mutex<Option<JoinHandle<()>>>,
}

impl BridgeTunnel {
    /// A tunnel whose connections `sender` makes. Streams to [`Target::api_server`] lead to `port`, those to another
    /// target to the port of that target's name. Dials nothing yet.
    pub fn new(sender: RelaySender, port: BridgePort) -> Self {
        Self::dialling(Arc::new(RelayDial(sender)), port)
    }

    fn dialling(dial: Arc<dyn Dial>, port: BridgePort) -> Self {
        let shared = Arc::new(Shared::new(dial.peer()));
        Self {
            line: Line {
                dial,
                dials: Arc::new(Semaphore::new(DIAL_LIMIT)),
                shared,
                tls: None,
            },
            port,
            ports: HashMap::new(),
            warm: None,
            keeper: Mutex::new(None),
            drain: Mutex::new(None),
        }
    }

    /// Streams to `target` lead to `port`. To say where those to the API server lead is [`new`](Self::new)'s part.
    #[must_use]
    pub fn with_port(mut self, target: Target, port: BridgePort) -> Self {
        self.ports.insert(target, port);
        self
    }

    /// At most `limit` connections are dialled at once, and at least one; 16 if not set. Openings beyond it wait.
    #[must_use]
    pub fn with_dial_limit(mut self, limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        self.line.dials = Arc::new(Semaphore::new(limit));
        self
    }

    /// Speaks TLS with the API server inside each stream to it: the port leads to `endpoint` itself, as in
    /// `-T RELAY:kubernetes/kubernetes.default.svc:443`. `connector` says which certificate authorities to trust for it.
    /// Neither the relay nor the listener sees what passes then, and an opening that succeeds has reached the API server.
    ///
    /// The endpoint's port is for error texts only. Without this, a stream carries its bytes as they are.
    #[must_use]
    pub fn with_tls(mut self, connector: Connector, endpoint: Endpoint) -> Self {
        self.line.tls = Some(Tls {
            port: self.port.clone(),
            connector,
            endpoint,
        });
        self
    }

    /// Keeps `count` connections to the API server's port ready, at most 16, so that an opening finds one without a
    /// dial. None if not set.
    ///
    /// The first opening begins it. Each is bridged already, so the target has a connection that asks nothing for as
    /// long as that; it is replaced after 25 seconds, or when it ends. Five minutes after the last opening they are let
    /// go, until the next one.
    #[must_use]
    pub fn with_warm(self, count: usize) -> Self {
        self.with_warm_for(count, warm::MAX_AGE)
    }

    /// As [`with_warm`](Self::with_warm), with another age at which a connection is replaced. It should be less than the
    /// time in which the target closes a connection that asks nothing: the API server of Kubernetes does after 32
    /// seconds.
    #[must_use]
    pub fn with_warm_for(mut self, count: usize, max_age: Duration) -> Self {
        self.warm = (count > 0).then(|| Arc::new(Warm::new(self.port.clone(), count, max_age)));
        self
    }

    /// How many connections are ready now.
    pub fn warm_connections(&self) -> usize {
        self.warm.as_ref().map_or(0, |warm| warm.len())
    }

    fn port_of(&self, target: &Target) -> Result<BridgePort> {
        if *target == Target::api_server() {
            return Ok(self.port.clone());
        }
        match self.ports.get(target) {
            Some(port) => Ok(port.clone()),
            None => BridgePort::new(target.as_str()),
        }
    }

    /// A connection to `port`; `reason` is why there is none yet.
    async fn connection(
        &self,
        port: &BridgePort,
        reason: &mut Option<Arc<Error>>,
    ) -> Result<Box<dyn BytePipe>> {
        if let Some(warm) = self.warm.as_ref().filter(|warm| warm.port() == port) {
            self.ensure_keeper(warm);
            if let Some(io) = warm.take() {
                return Ok(io);
            }
        }
        self.line.bridge(port, reason).await
    }

    /// Starts the background task on the first use, and anew when the runtime that it ran on is gone.
    fn ensure_keeper(&self, warm: &Arc<Warm>) {
        let mut keeper = lock(&self.keeper);
        let ended = keeper.as_ref().is_none_or(JoinHandle::is_finished);
        if ended && !self.line.shared.is_leaving() {
            let keep = Arc::clone(warm).keep(self.line.clone());
            let span = info_span!(telemetry::SPAN_TUNNEL, peer = self.line.shared.peer());
            *keeper = Some(tokio::spawn(keep.instrument(span)));
        }
    }

    fn open_timeout(&self, limit: Duration, reason: Option<Arc<Error>>) -> Error {
        let shared = &self.line.shared;
        match reason {
            Some(reason) => shared.unreachable(&reason),
            None => Error::new(
                ErrorKind::Timeout,
                format!(
                    "no bridged connection to {} within {limit:?}",
                    shared.peer()
                ),
            )
            .with_help("check the network, and that the listener runs and is online"),
        }
    }
}

#[async_trait]
impl Tunnel for BridgeTunnel {
    async fn open(&self, target: &Target, options: OpenOptions) -> Result<TunnelStream> {
        let shared = &self.line.shared;
        if shared.is_leaving() {
            return Err(shared.closed_error());
        }
        let port = self.port_of(target)?;
        let limit = options.wait_limit().unwrap_or(OPEN_LIMIT);
        let mut reason = None;
        let connection = timeout(limit, self.connection(&port, &mut reason));
        let outcome = tokio::select! {
            biased;
            () = shared.left() => return Err(shared.closed_error()),
            outcome = connection => outcome,
        };
        let io = match outcome {
            Ok(outcome) => outcome?,
            Err(_) => return Err(self.open_timeout(limit, reason)),
        };
        let lease = shared.lease()?;
        Ok(TunnelStream::from_io(BridgeStream::new(io, lease)))
    }

    fn status(&self) -> TunnelStatus {
        self.line.shared.status()
    }

    fn states(&self) -> StateStream {
        self.line.shared.states()
    }

    async fn shutdown(&self) -> Result<()> {
        let shared = &self.line.shared;
        shared.leave();
        {
            // A task of its own: that the caller leaves does not stop it. One whose runtime is gone is made anew.
            let mut drain = lock(&self.drain);
            if drain.as_ref().is_none_or(JoinHandle::is_finished) && !shared.is_closed() {
                let shared = Arc::clone(shared);
                let keeper = lock(&self.keeper).take();
                *drain = Some(tokio::spawn(async move { shared.drain(keeper).await }));
            }
        }
        shared.closed().await
    }
}

impl Drop for BridgeTunnel {
    fn drop(&mut self) {
        self.line.shared.close(0);
    }
}

/// Locks. Nothing that can panic runs under these locks, so what a poisoned one guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
