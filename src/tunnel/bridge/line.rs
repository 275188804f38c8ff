//! [`Line`]: makes bridged connections, each a dial and the exchange of preambles, as often as it takes.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{
    BridgePort,
    preamble::{Mode, Progress, Refusal, ReplyDecoder, hello},
    shared::Shared,
    stream::put_back,
};
use crate::{
    Error, ErrorKind, Result,
    net::{Alpn, Backoff, Connector, Endpoint, random_jitter},
    tunnel::{stream::BytePipe, supervise::Dial},
};

/// For one of several dials. A relay that has not answered by then was seen not to answer at all; the slow ones take
/// three to seven seconds.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// How long after the dial the listener's reply may take. It is one round trip: the listener answers before it connects
/// to its target.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// Room for what a target that speaks first sends right behind the reply. The rest stays in the connection.
const FIRST_READ: usize = 4 * 1024;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) dials: Arc<Semaphore>,
    pub(super) shared: Arc<Shared>,
    pub(super) tls: Option<Tls>,
}

/// How a port is spoken to that wants TLS inside the bridged connection.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) port: BridgePort,
    pub(super) connector: Connector,
    pub(super) endpoint: Endpoint,
}

/// Why one attempt gave no stream.
enum Failure {
    /// The listener is there, and said no.
    Refused(Error),
    /// Nobody answered.
    Lost(Error),
}

impl Line {
    /// A connection that is bridged to `port`. Goes on for as long as its failures are such as pass; `reason` is the
    /// last of them, for a caller who waits no longer.
    pub(super) async fn bridge(
        &self,
        port: &BridgePort,
        reason: &mut Option<Arc<Error>>,
    ) -> Result<Box<dyn BytePipe>> {
        let seen = self.shared.seen();
        let mut backoff = Backoff::new(random_jitter);
        loop {
            let attempt = self.shared.turn(seen, reason).await?;
            let permit = self.dials.acquire().await.expect("it is never closed");
            // Those that dialled before us may have found that there is no way.
            if attempt.is_stale() {
                continue;
            }
            let outcome = self.attempt(port).await;
            drop(permit);
            match outcome {
                Ok(io) => {
                    attempt.answered();
                    return Ok(io);
                }
                Err(Failure::Refused(error)) => {
                    attempt.answered();
                    return Err(error);
                }
                Err(Failure::Lost(error)) => {
                    debug!(reason = %error.report(), %port, "no bridged connection");
                    let error = Arc::new(error);
                    attempt.failed(&error);
                    if !error.is_retryable() {
                        return Err(self.shared.unreachable(&error));
                    }
                    *reason = Some(error);
                    // Others get through, so nobody holds us back but we.
                    if self.shared.is_good() {
                        sleep(backoff.after_failure()).await;
                    }
                }
            }
        }
    }

    async fn attempt(&self, port: &BridgePort) -> Result<Box<dyn BytePipe>, Failure> {
        let peer = self.shared.peer();
        let mut io = timeout(DIAL_LIMIT, self.dial.dial())
            .await
            .unwrap_or_else(|_| Err(dial_timeout(peer)))
            .map_err(Failure::Lost)?;
        let asked = Instant::now();
        let first = timeout(REPLY_LIMIT, exchange(&mut io, peer, port))
            .await
            .unwrap_or_else(|_| Err(Failure::Lost(reply_timeout(peer))))?;
        self.shared.measured(asked.elapsed());
        let io = put_back(first, io);
        match self.tls.as_ref().filter(|tls| tls.port == *port) {
            None => Ok(io),
            Some(tls) => {
                let Tls {
                    connector,
                    endpoint,
                    ..
                } = tls;
                // What runs in a stream is HTTP/1.1. That the target has another certificate, or is not there, is its
                // own affair: the listener has answered.
                let secured = connector.secure(io, endpoint, Alpn::Http1).await;
                Ok(Box::new(secured.map_err(Failure::Refused)?))
            }
        }
    }
}

/// Asks for `port`. Returns the target's first bytes, if they came with the reply.
async fn exchange(
    io: &mut Box<dyn BytePipe>,
    peer: &str,
    port: &BridgePort,
) -> Result<Bytes, Failure> {
    let lost = |error| Failure::Lost(lost(peer, error));
    io.write_all(&hello(Mode::Stream, port.name()))
        .await
        .map_err(lost)?;
    io.flush().await.map_err(lost)?;
    let mut decoder = ReplyDecoder::default();
    loop {
        let mut piece = BytesMut::with_capacity(FIRST_READ);
        let count = io.read_buf(&mut piece).await.map_err(lost)?;
        let refusal = if count == 0 {
            decoder.handle_end()
        } else {
            let mut piece = piece.freeze();
            match decoder.handle_input(&mut piece) {
                Progress::More => continue,
                Progress::Accepted => return Ok(piece),
                Progress::Refused(refusal) => refusal,
            }
        };
        // In good order, as far as that goes without waiting.
        let _ = io.shutdown().now_or_never();
        return Err(Failure::Refused(refused(peer, port, refusal)));
    }
}

fn refused(peer: &str, port: &BridgePort, refusal: Refusal) -> Error {
    let (kind, message, help) = match refusal {
        Refusal::UnknownPort => (
            ErrorKind::Refused,
            format!("the bridge listener at {peer} has no port named {port}"),
            "give a name that the listener was started with (-T RELAY:NAME/HOST:PORT); where it has none, the name is \
             the port's number",
        ),
        Refusal::WantsDatagrams => (
            ErrorKind::Refused,
            format!("the port {port} of the bridge listener at {peer} is for datagrams (UDP)"),
            "name a port that the listener forwards to TCP",
        ),
        Refusal::UnknownVersion => (
            ErrorKind::Refused,
            format!("the bridge listener at {peer} does not speak version 1.0 of the protocol"),
            "use a listener of another version",
        ),
        Refusal::TooOld => (
            ErrorKind::Refused,
            format!("the bridge listener at {peer} is too old: it knows no names of ports"),
            "use a listener from after September 2018",
        ),
        Refusal::Garbage(bytes) if bytes == OUR_PREFACE => (
            ErrorKind::Protocol,
            format!("an agent of this project listens at {peer}, and no bridge"),
            "connect to it without naming a bridge port",
        ),
        Refusal::Truncated | Refusal::Garbage(_) => (
            ErrorKind::Protocol,
            format!("what listens at {peer} does not speak the bridge protocol"),
            "check what listens on this hybrid connection",
        ),
    };
    Error::new(kind, message)
        .with_source(refusal)
        .with_help(help)
}

/// How an agent that speaks our multiplexer begins.
const OUR_PREFACE: [u8; 3] = *b"ACC";

fn lost(peer: &str, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Closed,
        format!("the connection to {peer} was lost before the bridge listener answered"),
    )
    .with_source(error)
    .with_help("check that the listener runs and is online")
}

fn dial_timeout(peer: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("dialling {peer} took longer than {DIAL_LIMIT:?}"),
    )
    .with_help("check the network, and that the listener runs and is online")
}

fn reply_timeout(peer: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("what listens at {peer} did not answer within {REPLY_LIMIT:?}"),
    )
    .with_help("check that it is a bridge listener")
}
