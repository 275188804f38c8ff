//! HTTP mode: a sender's plain HTTP request, answered by a listener.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Refusal, Rights,
    body::RelayBody,
    carrier::{Carrier, Head, Upload},
    connection::upgraded,
    context::Context,
    dispatch::{Parcel, candidates, offer},
    entity::Entity,
    exchanges::{Broken, Exchange},
    handshake::{Handshake, TOKEN_HEADER, tokens},
    http_headers::{self, Authorization},
    rendezvous::{Answer, Rendezvous},
    request_message::{Follows, RequestMessage},
    response_message::ResponseMessage,
    route::{Side, Target},
    service::{Answered, Relay},
};

/// How long a listener has from the message to its response, and from piece to piece. Azure's value.
pub(super) const RESPONSE_WINDOW: Duration = Duration::from_secs(60);

/// How long a sender has for a body that is passed on in one message; as long as a listener has for its own part.
pub(super) const REQUEST_BODY_WINDOW: Duration = Duration::from_secs(60);

/// Message and body together, when they go over the control channel. Azure's value.
pub(super) const MAX_INLINE: usize = 64 * 1024;

/// Requests whose bodies are in memory at the same time: 64 MiB at most. Beyond it bodies pass in pieces, over a socket
/// of their own.
pub(super) const MAX_REQUEST_BODIES: usize = 1024;

/// What goes over the control channel.
enum Form {
    /// The request, and its body if it has one.
    Full(Option<Bytes>),
    /// Where to get the request.
    Pointer,
}

/// How a listener first reacts.
enum First {
    /// By its response.
    Response(Result<(ResponseMessage, Bytes), Broken>),
    /// By a dial, to get the request or to bring its response.
    Dial(OnUpgrade),
}

impl Relay {
    /// Holds a sender's request until a listener has answered.
    pub(super) async fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
        context: &Context<'_>,
    ) -> Answered {
        check_form(&request)?;
        let (entity, _, _) = self.authorize(request.headers(), context, Rights::SEND)?;
        if !entity.options().takes_http() {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "The endpoint takes WebSocket connections only",
            ));
        }
        let forwarded = self.forward_to(entity, request, context);
        entity.while_it_exists(forwarded).await
    }

    async fn forward_to(
        self: &Arc<Self>,
        entity: &Arc<Entity>,
        request: Request<Incoming>,
        context: &Context<'_>,
    ) -> Answered {
        let candidates = candidates(entity, request.headers())?;
        let (parts, body) = request.into_parts();
        let is_authorization_ours = !entity.options().are_senders_anonymous()
            && !parts.headers.contains_key(TOKEN_HEADER)
            && context.target.token.is_none();
        let headers = http_headers::for_listener(
            &parts.headers,
            if is_authorization_ours {
                Authorization::ForRelay
            } else {
                Authorization::ForListener
            },
            &context.host,
        );
        let memory = self.request_bodies.try_acquire();
        let upload = match body.size_hint().exact() {
            Some(0) => Upload::Nothing,
            Some(length) if length <= MAX_INLINE as u64 && memory.is_ok() => {
                Upload::Whole(collect(body).await?)
            }
            _ => Upload::Pieces(body),
        };

        let mut exchange = entity.exchanges().open(&context.id);
        let mut rendezvous = self.request_rendezvous.open();
        let target = context.target.for_listener();
        let message = RequestMessage {
            entity_path: entity.path(),
            rendezvous_id: rendezvous.id(),
            id: exchange.id(),
            method: &parts.method,
            target: &target,
            headers: &headers,
            remote: context.remote,
        };
        let follows = match upload {
            Upload::Nothing => Follows::Nothing,
            Upload::Whole(_) | Upload::Pieces(_) => Follows::Body,
        };
        let full = |base_url: &str| {
            message.full(base_url, follows).ok_or(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The headers are too long to be passed to the listener",
            ))
        };
        // The form must not depend on which listener it will be; their addresses differ in length only.
        let longest_head = candidates
            .iter()
            .max_by_key(|listener| listener.base_url.len())
            .map(|listener| full(&listener.base_url))
            .transpose()?
            .map_or(0, |text| text.len());
        let form = match &upload {
            Upload::Nothing => Form::Full(None),
            Upload::Whole(body) if longest_head + body.len() <= MAX_INLINE => {
                Form::Full(Some(body.clone()))
            }
            Upload::Whole(_) | Upload::Pieces(_) => Form::Pointer,
        };
        self.emulation.answer_arrives(Side::Listener).await;
        // Held until the listener has answered.
        let (listener, _pending) = offer(candidates, |listener| {
            Ok(match &form {
                Form::Full(body) => Parcel {
                    message: full(&listener.base_url)?,
                    body: body.clone(),
                },
                Form::Pointer => Parcel {
                    message: message.pointer(&listener.base_url),
                    body: None,
                },
            })
        })
        .await?;
        let upload = match form {
            Form::Full(_) => None,
            Form::Pointer => Some((full(&listener.base_url)?, upload)),
        };

        let deadline = Instant::now() + RESPONSE_WINDOW;
        let first = timeout_at(deadline, first_reaction(&mut exchange, &mut rendezvous))
            .await
            .map_err(|_| no_response())?;
        let (message, body) = match first {
            First::Response(response) => {
                let (message, body) = response.map_err(|Broken| {
                    Refusal::new(
                        StatusCode::BAD_GATEWAY,
                        "The listener's response was not completed",
                    )
                })?;
                (message, RelayBody::from(body))
            }
            First::Dial(upgrade) => self.carry(entity, upgrade, upload, deadline).await?,
        };
        message.into_response(body, &context.host)
    }

    /// Takes a listener's dial for a request. The id in the address is the credential.
    pub(super) fn fetch<B>(&self, request: &mut Request<B>, target: &Target<'_>) -> Answered {
        let unknown = Refusal::no_rendezvous;
        let id = target.id.as_deref().ok_or_else(unknown)?;
        // Before the id is used up, so that a broken dial can be repeated.
        let handshake = Handshake::check(request)?;
        let sender = self.request_rendezvous.take(id).ok_or_else(unknown)?;
        let answer = Answer::Accepted {
            upgrade: hyper::upgrade::on(request),
            protocol: None,
        };
        sender.send(answer).map_err(|_| unknown())?;
        Ok(handshake.accept(None).map(RelayBody::Whole))
    }

    /// Lets request and response pass over a listener's own socket, and waits for the response's head.
    async fn carry(
        self: &Arc<Self>,
        entity: &Arc<Entity>,
        upgrade: OnUpgrade,
        upload: Option<(String, Upload)>,
        deadline: Instant,
    ) -> Head {
        let (head, answer) = oneshot::channel();
        let (relay, entity) = (Arc::clone(self), Arc::clone(entity));
        self.spawn(async move {
            // Else the listener has left, and the sender learns it by the dropped end.
            if let Some(socket) = upgraded(upgrade).await {
                let carrier = Carrier::new(socket, upload, head, deadline);
                carrier.run(entity.end(&relay.shutdown)).await;
            }
        });
        answer.await.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "The listener left before it answered",
            ))
        })
    }
}

pub(super) fn no_response() -> Refusal {
    Refusal::new(
        StatusCode::GATEWAY_TIMEOUT,
        "The request was routed to the listener but the listener did not respond in the required time",
    )
}

/// What can not be forwarded at all.
fn check_form<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "The CONNECT method can not be relayed",
        ));
    }
    let mut upgrades = tokens(request.headers(), header::UPGRADE);
    if upgrades.any(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "WebSockets are relayed below /$hc/ only",
        ));
    }
    // A long reply ends with its connection there, as a broken one does.
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "HTTP requests are relayed in version 1.1 only",
        ));
    }
    Ok(())
}

/// A body that is short by its own word.
async fn collect(body: Incoming) -> Result<Bytes, Refusal> {
    match timeout(REQUEST_BODY_WINDOW, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "The request's body broke off",
        )),
        Err(_) => Err(Refusal::late_body()),
    }
}

async fn first_reaction(exchange: &mut Exchange, rendezvous: &mut Rendezvous) -> First {
    tokio::select! {
        response = exchange.response() => First::Response(response),
        Some(Answer::Accepted { upgrade, .. }) = rendezvous.answer_at_last() => First::Dial(upgrade),
    }
}
