//! [`RelayListener`]: the party that waits to be connected to.

use std::{sync::Arc, time::SystemTime};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    HybridConnection, IncomingConnection, ListenerOptions, ListenerState, ListenerStates,
    RelayCredential,
    incoming::Dialler,
    registration::{CLOSE_LIMIT, INCOMING_QUEUE, Listening, Registration, WallClock},
    status::StateBoard,
};
use crate::{Error, ErrorKind, Result, net::Connector};

/// Listens on a hybrid connection.
///
/// A background task on the current tokio runtime keeps the registration with the relay: it dials, answers and asks
/// for signs of life, renews the token, replaces the registration by a new one before the relay's daily cut (the new one
/// stands before the old one goes), and dials again after 0, 1, 2, 5, 10, 30, 30, … s (and a little more, by
/// chance) whatever went wrong, for as long as the listener exists. Connections that were accepted live on when the
/// registration is lost, or the listener dropped.
///
/// # Where it dials
/// The relay names the address at which a sender waits. It is dialled as given only if it is of the relay's own
/// domain (`g17-prod-by3-010-sb.servicebus.windows.net` for `contoso.servicebus.windows.net`; for an IP address,
/// `localhost` or a name of fewer than four labels: the same host, or a name below it) and on the same port, with TLS
/// if the registration has it. No token is sent there.
///
/// # Limits
/// 64 senders wait for [`accept`](Self::accept) at most; more are rejected with status 503. 64 answers are made at the same
/// time, and 16 rejections beside them. An announcement of more than 64 KiB is ignored.
///
/// ```no_run
/// use arc_cluster_connect::{
///     net::{Connector, TrustRoots},
///     relay::{ConnectionString, RelayListener},
/// };
///
/// # async fn example(text: &str) -> arc_cluster_connect::Result<()> {
/// let connection = ConnectionString::parse(text)?;
/// let mut listener = RelayListener::start(
///     Connector::new(TrustRoots::platform())?,
///     connection.hybrid_connection()?,
///     connection.credential(),
/// );
/// listener.online().await?;
/// while let Some(incoming) = listener.accept().await {
///     let stream = incoming.accept().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RelayListener {
    hybrid_connection: HybridConnection,
    incoming: mpsc::Receiver<IncomingConnection>,
    state: watch::Receiver<ListenerState>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl RelayListener {
    /// Starts to listen on `hybrid_connection`, as [`ListenerOptions::new`] has it. Returns at once; see
    /// [`online`](Self::online).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
    ) -> Self {
        let options = ListenerOptions::new();
        Self::start_with(connector, hybrid_connection, credential, options)
    }

    /// As [`start`](Self::start), with two control channels at all times: see [`ListenerOptions::redundant`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_redundant(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
    ) -> Self {
        let options = ListenerOptions::new().redundant();
        Self::start_with(connector, hybrid_connection, credential, options)
    }

    /// As [`start`](Self::start), in the way that `options` say.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_with(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
        options: ListenerOptions,
    ) -> Self {
        let clock = Arc::new(SystemTime::now);
        Self::start_at(connector, hybrid_connection, credential, options, clock)
    }

    /// With another clock for its tokens.
    pub(super) fn start_at(
        connector: Connector,
        hybrid_connection: HybridConnection,
        credential: RelayCredential,
        options: ListenerOptions,
        clock: WallClock,
    ) -> Self {
        let connector = connector.for_relay();
        let (incoming_sender, incoming) = mpsc::channel(INCOMING_QUEUE);
        let states = Arc::new(StateBoard::new(options.channels));
        let state = states.subscribe();
        let stop = CancellationToken::new();
        let listening = Listening {
            dialler: Arc::new(Dialler::new(connector.clone())),
            connector,
            hybrid_connection: hybrid_connection.clone(),
            credential,
            options,
            clock,
            incoming: incoming_sender,
            states,
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        for channel in 0..options.channels {
            tasks.spawn(Registration::new(listening.clone(), channel).run());
        }
        Self {
            hybrid_connection,
            incoming,
            state,
            stop,
            tasks,
        }
    }

    /// The hybrid connection that this listens on.
    pub fn hybrid_connection(&self) -> &HybridConnection {
        &self.hybrid_connection
    }

    /// Waits until the listener is registered.
    ///
    /// # Errors
    /// Why the last attempt failed, if trying again can not help: the credential was refused, the hybrid connection
    /// has not existed for as long as the listener's [patience](ListenerOptions::patience) goes, or the peer is no
    /// relay. The listener goes on trying all the same, once in half a minute, because an operator may put it right.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn online(&self) -> Result<()> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                ListenerState::Online => return Ok(()),
                ListenerState::Waiting { reason, .. } if !reason.is_retryable() => {
                    return Err(Error::repeated(reason, reason.to_string()));
                }
                ListenerState::Waiting { .. } | ListenerState::Connecting => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Closed, "the listener was shut down"));
            }
        }
    }

    /// What the listener is doing.
    pub fn state(&self) -> ListenerState {
        self.state.borrow().clone()
    }

    /// The present state and every change from now on, for a user interface.
    pub fn states(&self) -> ListenerStates {
        ListenerStates::new(self.state.clone())
    }

    /// The next sender. `None` only when the background task has ended, as it does with the runtime.
    ///
    /// # Cancel safety
    /// Cancel-safe: no sender is lost.
    pub async fn accept(&mut self) -> Option<IncomingConnection> {
        self.incoming.recv().await
    }

    /// Signs off at the relay, waiting two seconds at most, and ends the background task. Accepted connections live
    /// on.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        // What does not end in time is aborted by the drop.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_LIMIT, ended).await;
    }
}
