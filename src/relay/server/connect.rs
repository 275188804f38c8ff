//! What asks for a relayed connection: the sender, and the listener's dial.

use std::sync::Arc;

use http::{Request, StatusCode};

use super::{
    Refusal,
    accept_message::Invitation,
    body::RelayBody,
    bridge::bridge,
    connection::upgraded,
    context::Context,
    dispatch::{Parcel, candidates, offer},
    entity::Entity,
    handshake::Handshake,
    rendezvous::Answer,
    route::{Side, Target},
    service::{Answered, Relay},
};

impl Relay {
    /// Holds a sender until a listener has answered, and then joins the two.
    pub(super) async fn connect<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        context: &Context<'_>,
        entity: &Arc<Entity>,
        suffix: &str,
    ) -> Answered {
        let handshake = Handshake::check(request)?;
        self.emulation.match_making().await;
        let candidates = candidates(entity, request.headers())?;
        self.emulation.answer_arrives(Side::Listener).await;
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
        let (relay, entity) = (Arc::clone(self), Arc::clone(entity));
        let id = context.id.clone();
        self.spawn(async move {
            let (sender, listener) =
                tokio::join!(upgraded(sender_upgrade), upgraded(listener_upgrade));
            let (Some(sender), Some(listener)) = (sender, listener) else {
                tracing::debug!(id, "one end left before the connection stood");
                return;
            };
            let bridged = relay.metrics.bridge_opened();
            let conditions = relay.emulation.conditions();
            let end = entity.end(&relay.shutdown);
            let ending = bridge(sender, listener, conditions, end).await;
            drop(bridged);
            relay.metrics.bridge_ended(ending);
            tracing::debug!(id, ?ending, "a relayed connection ended");
        });
        // A client must not be told of a protocol that it has not offered.
        let protocol = protocol.filter(|protocol| handshake.offers(protocol));
        Ok(handshake.accept(protocol).map(RelayBody::Whole))
    }

    /// Takes a listener's answer to a sender. The id in the address is the credential.
    pub(super) fn accept<B>(&self, request: &mut Request<B>, target: &Target<'_>) -> Answered {
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
}
