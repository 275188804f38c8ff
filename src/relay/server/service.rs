//! [`Relay`]: what all connections share, and the answer to each request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request, Response, StatusCode, header, uri::Authority};
use hyper::body::Incoming;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    Refusal, Rights,
    accept_message::Invitation,
    body::RelayBody,
    bridge::bridge,
    connection::upgraded,
    control::ControlChannel,
    dispatch::{Parcel, candidates, offer},
    entity::{Entities, Entity, Listener, MAX_PENDING_PER_LISTENER},
    handshake::{Handshake, TOKEN_HEADER},
    metrics::Metrics,
    refusal::Tracking,
    rendezvous::{Answer, RendezvousTable},
    route::{Action, Target, decode},
    token::{Claim, Rules},
    warning_limit::{Verdict, WarningLimit},
};
use crate::clock::Clock;

/// The relay without its socket.
pub(super) struct Relay {
    pub(super) entities: Entities,
    pub(super) rules: Rules,
    /// WebSockets that wait for a listener.
    pub(super) rendezvous: Arc<RendezvousTable>,
    /// HTTP requests that a listener may come for.
    pub(super) request_rendezvous: Arc<RendezvousTable>,
    /// One permit for each request's body in memory.
    pub(super) request_bodies: Semaphore,
    /// The time that tokens are judged by.
    pub(super) clock: Clock,
    pub(super) expiry_grace: Duration,
    /// At this age a control channel is cut, if at all.
    pub(super) recycle_after: Option<Duration>,
    pub(super) scheme: Scheme,
    pub(super) local_addr: SocketAddr,
    pub(super) max_connections: usize,
    /// One permit for each connection.
    pub(super) connections: Arc<Semaphore>,
    pub(super) metrics: Metrics,
    pub(super) warnings: Mutex<WarningLimit>,
    /// Everything ends in good order.
    pub(super) shutdown: CancellationToken,
    /// Everything ends at once.
    pub(super) kill: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// What clients reach the relay with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Ws,
    Wss,
}

/// How long a refused token waits for its 401. Some listeners try again without a pause; for them this is the pause.
pub(super) const UNAUTHORIZED_DELAY: Duration = Duration::from_millis(250);

/// Ids of clients are repeated in status lines, messages and logs. Azure's own have 36 characters and a suffix.
const MAX_CLIENT_ID: usize = 128;

/// A path has at most 512 bytes.
const MAX_READABLE_PATH: usize = 1024;

/// What a request is about, beside its headers.
pub(super) struct Context<'a> {
    pub(super) target: Target<'a>,
    /// The path as a person writes it.
    path: String,
    /// What the client calls the relay.
    pub(super) host: String,
    pub(super) id: String,
    pub(super) remote: SocketAddr,
}

pub(super) type Answered = Result<Response<RelayBody>, Refusal>;

impl Relay {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Answers a request; an answer of 101 has its continuation running already.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        remote: SocketAddr,
    ) -> Response<RelayBody> {
        let uri = request.uri().clone();
        let host = self.host(request.headers());
        let target = Target::parse(uri.path(), uri.query());
        let context = Context {
            path: readable_path(target.path),
            id: tracking_id(target.id.as_deref()),
            target,
            host,
            remote,
        };
        let result = tokio::select! {
            result = self.dispatch(request, &context) => result,
            () = self.shutdown.cancelled() => Err(Refusal::shutting_down()),
        };
        self.metrics
            .answered(context.target.action, result.as_ref().err());
        let refusal = match result {
            Ok(response) => return response,
            Err(refusal) => refusal,
        };
        self.warn(&refusal, &context);
        if refusal.status() == StatusCode::UNAUTHORIZED {
            tokio::time::sleep(UNAUTHORIZED_DELAY).await;
        }
        let tracking = Tracking {
            id: &context.id,
            host: &context.host,
            path: &context.path,
            now: self.now(),
        };
        refusal.into_response(&tracking).map(RelayBody::Whole)
    }

    async fn dispatch(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        context: &Context<'_>,
    ) -> Answered {
        if context.target.action == Action::Forward {
            return self.forward(request, context).await;
        }
        let request = &mut request;
        match context.target.action {
            Action::Accept => self.accept(request, &context.target),
            Action::Request => self.fetch(request, &context.target),
            Action::Listen => {
                let (entity, suffix, expires_at) =
                    self.authorize(request.headers(), context, Rights::LISTEN)?;
                if !suffix.is_empty() {
                    return Err(Refusal::no_entity());
                }
                self.listen(request, context, entity, expires_at)
            }
            Action::Connect => {
                let (entity, suffix, _) =
                    self.authorize(request.headers(), context, Rights::SEND)?;
                self.connect(request, context, entity, suffix).await
            }
            Action::Forward | Action::Unknown => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "The sb-hc-action parameter is not one of listen, connect, accept and request",
            )),
        }
    }

    /// Registers a listener.
    fn listen<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        context: &Context<'_>,
        entity: &Arc<Entity>,
        token_expires_at: SystemTime,
    ) -> Answered {
        let handshake = Handshake::check(request)?;
        let (sender, dispatches) = mpsc::channel(MAX_PENDING_PER_LISTENER);
        // Before the 101, because the listener may tell a sender as soon as it has it.
        let registration = entity.register(Listener {
            id: context.id.clone(),
            base_url: format!(
                "{}://{}",
                self.scheme.as_str(),
                self.authority(request.headers())
            ),
            dispatches: sender,
            pending: Arc::new(Semaphore::new(MAX_PENDING_PER_LISTENER)),
            recycle: CancellationToken::new(),
        })?;
        let upgrade = hyper::upgrade::on(request);
        let (relay, host) = (Arc::clone(self), context.host.clone());
        self.spawn(async move {
            let Some(socket) = upgraded(upgrade).await else {
                return;
            };
            let entity = registration.entity().path().to_owned();
            let listener = registration.listener().id.clone();
            tracing::info!(entity, listener, "a listener is online");
            let channel = ControlChannel {
                relay,
                registration,
                socket,
                dispatches,
                host,
                token_expires_at,
                begun: None,
            };
            channel.run().await;
            tracing::info!(entity, listener, "a listener is offline");
        });
        Ok(handshake.accept(None).map(RelayBody::Whole))
    }

    /// Holds a sender until a listener has answered, and then joins the two.
    async fn connect<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        context: &Context<'_>,
        entity: &Arc<Entity>,
        suffix: &str,
    ) -> Answered {
        let handshake = Handshake::check(request)?;
        let candidates = candidates(entity, request.headers())?;
        let mut rendezvous = self.rendezvous.open();
        let invitation = Invitation {
            entity_path: entity.path(),
            suffix,
            user_query: &context.target.user_query,
            rendezvous_id: rendezvous.id(),
            tracking_id: &context.id,
            headers: request.headers(),
            remote: context.remote,
        };
        // Held until the listener has answered.
        let (_listener, _pending) = offer(candidates, |listener| {
            let message = invitation.to_json(&listener.base_url).ok_or(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The headers are too long to be passed to the listener",
            ))?;
            Ok(Parcel {
                message,
                body: None,
            })
        })
        .await?;

        let (listener_upgrade, protocol) = match rendezvous.answer().await {
            Some(Answer::Accepted { upgrade, protocol }) => (upgrade, protocol),
            Some(Answer::Rejected {
                status,
                description,
            }) => return Err(Refusal::by_listener(status, &description)),
            None => {
                return Err(Refusal::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "None of the connected listeners accepted the connection within the allowed timeout",
                ));
            }
        };
        let sender_upgrade = hyper::upgrade::on(request);
        let (relay, id) = (Arc::clone(self), context.id.clone());
        self.spawn(async move {
            let (sender, listener) =
                tokio::join!(upgraded(sender_upgrade), upgraded(listener_upgrade));
            let (Some(sender), Some(listener)) = (sender, listener) else {
                tracing::debug!(id, "one end left before the connection stood");
                return;
            };
            let bridged = relay.metrics.bridge_opened();
            let ending = bridge(sender, listener, &relay.shutdown).await;
            drop(bridged);
            relay.metrics.bridge_ended(ending);
            tracing::debug!(id, ?ending, "a relayed connection ended");
        });
        // A client must not be told of a protocol that it has not offered.
        let protocol = protocol.filter(|protocol| handshake.offers(protocol));
        Ok(handshake.accept(protocol).map(RelayBody::Whole))
    }

    /// Takes a listener's answer to a sender. The id in the address is the credential.
    fn accept<B>(&self, request: &mut Request<B>, target: &Target<'_>) -> Answered {
        let unknown = Refusal::no_rendezvous;
        let id = target.id.as_deref().ok_or_else(unknown)?;
        let is_rejection = target.status_code.is_some() || target.status_description.is_some();
        // Before the id is used up, so that a broken dial can be repeated.
        let handshake = (!is_rejection)
            .then(|| Handshake::check(request))
            .transpose()?;
        let sender = self.rendezvous.take(id).ok_or_else(unknown)?;
        let Some(handshake) = handshake else {
            let answer = Answer::Rejected {
                status: target
                    .status_code
                    .as_deref()
                    .and_then(|code| code.parse().ok()),
                description: target.status_description.clone().unwrap_or_default(),
            };
            sender.send(answer).map_err(|_| unknown())?;
            return Err(Refusal::new(
                StatusCode::GONE,
                "The connection was rejected as requested",
            ));
        };
        let protocol = handshake.protocol();
        let answer = Answer::Accepted {
            upgrade: hyper::upgrade::on(request),
            protocol: protocol.clone(),
        };
        sender.send(answer).map_err(|_| unknown())?;
        Ok(handshake.accept(protocol).map(RelayBody::Whole))
    }

    /// The entity that the request is for, what follows its path, and when the token ends that allows it.
    pub(super) fn authorize<'r, 't>(
        &'r self,
        headers: &HeaderMap,
        context: &Context<'t>,
        rights: Rights,
    ) -> Result<(&'r Arc<Entity>, &'t str, SystemTime), Refusal> {
        let found = self.entities.find(context.target.path);
        if rights == Rights::SEND
            && let Some((entity, suffix)) = found
            && entity.options().are_senders_anonymous()
        {
            // A sender's token is looked at once: nothing ends with it.
            return Ok((entity, suffix, self.now()));
        }
        let claim = Claim {
            host: &context.host,
            // What was asked for, with all that follows the entity's path: Arc's tokens are for a path below that on
            // which the agent listens. And without a token for it nobody learns whether an entity exists.
            path: &context.path,
            rights,
            now: self.now(),
        };
        let in_header = headers.get(TOKEN_HEADER).map(|value| value.to_str());
        let token = match in_header {
            Some(value) => Some(value.unwrap_or_default()),
            None => context.target.token.as_deref().or_else(|| {
                (context.target.action == Action::Forward)
                    .then(|| http_token(headers))
                    .flatten()
            }),
        };
        let expires_at = self.rules.check(token, &claim)?;
        let (entity, suffix) = found.ok_or_else(Refusal::no_entity)?;
        Ok((entity, suffix, expires_at))
    }

    /// What the client calls the relay, with the port.
    fn authority(&self, headers: &HeaderMap) -> String {
        headers
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .filter(|authority| !authority.as_str().contains('@'))
            .map_or_else(|| self.local_addr.to_string(), |host| host.to_string())
    }

    fn host(&self, headers: &HeaderMap) -> String {
        let authority = self.authority(headers);
        let host = authority
            .parse::<Authority>()
            .map(|authority| authority.host().to_owned());
        host.unwrap_or(authority)
    }

    fn warn(&self, refusal: &Refusal, context: &Context<'_>) {
        if refusal.status() == StatusCode::GONE {
            return;
        }
        let verdict = self
            .warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .judge(Instant::now());
        if let Verdict::Log { suppressed } = verdict {
            tracing::warn!(
                remote = %context.remote,
                action = ?context.target.action,
                entity = context.path,
                id = context.id,
                status = refusal.status().as_u16(),
                reason = refusal.text(),
                suppressed,
                "refused a request"
            );
        }
    }

    /// Runs a task until it ends or the relay is killed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled_owned(task).await;
        });
    }
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// A token where HTTP clients have theirs.
fn http_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    let value = value.to_str().unwrap_or_default();
    Some(match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token.trim_start(),
        _ => value,
    })
}

/// For tokens, logs and status lines. Longer than any entity's path it is no entity's path.
pub(super) fn readable_path(encoded: &str) -> String {
    let mut path = decode(encoded);
    if let Some((end, _)) = path.char_indices().nth(MAX_READABLE_PATH) {
        path.truncate(end);
    }
    path
}

/// A client's own id if it can be repeated as it is, else a new one.
pub(super) fn tracking_id(id: Option<&str>) -> String {
    match id {
        Some(id)
            if !id.is_empty()
                && id.len() <= MAX_CLIENT_ID
                && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            id.to_owned()
        }
        _ => Uuid::new_v4().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_that_can_be_repeated_is_kept() {
        assert_eq!(tracking_id(Some("a-1_G0")), "a-1_G0");
        let long = "x".repeat(MAX_CLIENT_ID);
        assert_eq!(tracking_id(Some(&long)), long);
        for id in [
            None,
            Some(""),
            Some("a b"),
            Some("a\r\n"),
            Some("é"),
            Some(&*(long + "x")),
        ] {
            assert_eq!(tracking_id(id).len(), 36, "{id:?}");
        }
    }

    #[test]
    fn a_path_is_cut_between_characters() {
        let long = "%C3%A9".repeat(MAX_READABLE_PATH + 1);
        assert_eq!(readable_path(&long).chars().count(), MAX_READABLE_PATH);
        assert_eq!(readable_path("a%2Fb"), "a/b");
    }
}
