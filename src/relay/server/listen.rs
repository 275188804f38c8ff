//! What asks for a control channel.

use std::{sync::Arc, time::SystemTime};

use http::Request;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    body::RelayBody,
    connection::upgraded,
    context::Context,
    control::ControlChannel,
    entity::{Entity, Listener, MAX_PENDING_PER_LISTENER},
    handshake::Handshake,
    service::{Answered, Relay},
};

impl Relay {
    /// Registers a listener.
    pub(super) fn listen<B>(
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
}
