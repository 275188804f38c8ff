//! [`offer`]: finds a listener that takes a message.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::{
    Refusal,
    entity::{Entity, Listener},
    handshake::tokens,
};
use crate::crypto;

/// A message for a listener.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) message: String,
    /// A binary message that follows at once.
    pub(super) body: Option<Bytes>,
    /// Told when the message was handed to the network; dropped when it could not be.
    pub(super) written: oneshot::Sender<()>,
}

/// What one listener is to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) message: String,
    pub(super) body: Option<Bytes>,
}

/// How long a listener's control channel may take to take a message before the next listener is asked. It normally
/// takes microseconds; a channel that is stuck is about to be found dead.
pub(super) const DISPATCH_WAIT: Duration = Duration::from_secs(5);

const ALLOWED_LISTENERS: HeaderName = HeaderName::from_static("microsoft-relay-allowedlisteners");
const DISALLOWED_LISTENERS: HeaderName =
    HeaderName::from_static("microsoft-relay-disallowedlisteners");

/// The listeners that may get this sender.
pub(super) fn candidates(
    entity: &Entity,
    headers: &HeaderMap,
) -> Result<Vec<Arc<Listener>>, Refusal> {
    let mut listeners = entity.listeners_now();
    if listeners.is_empty() {
        return Err(Refusal::no_listener());
    }
    let is_named = |name: HeaderName, listener: &Listener| {
        tokens(headers, name).any(|id| id.eq_ignore_ascii_case(&listener.id))
    };
    listeners.retain(|listener| {
        (!headers.contains_key(ALLOWED_LISTENERS) || is_named(ALLOWED_LISTENERS, listener))
            && !is_named(DISALLOWED_LISTENERS, listener)
    });
    if listeners.is_empty() {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "None of the connected listeners meet the AllowedListeners/DisallowedListeners criteria",
        ));
    }
    Ok(listeners)
}

/// Gives a message to one of the candidates, chosen by chance, and to the next if that one does not take it.
///
/// Says which it was. The permit stands for the sender that waits; it is held until the listener has answered.
pub(super) async fn offer(
    mut candidates: Vec<Arc<Listener>>,
    compose: impl Fn(&Listener) -> Result<Parcel, Refusal>,
) -> Result<(Arc<Listener>, OwnedSemaphorePermit), Refusal> {
    while !candidates.is_empty() {
        let listener = candidates.swap_remove(random_index(candidates.len()));
        let Ok(permit) = Arc::clone(&listener.pending).try_acquire_owned() else {
            continue;
        };
        let Parcel { message, body } = compose(&listener)?;
        let (written, is_written) = oneshot::channel();
        let dispatch = Dispatch {
            message,
            body,
            written,
        };
        if listener.dispatches.try_send(dispatch).is_ok()
            && matches!(timeout(DISPATCH_WAIT, is_written).await, Ok(Ok(())))
        {
            return Ok((listener, permit));
        }
    }
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "None of the connected listeners could be reached",
    ))
}

/// Even for every practical purpose: a list has at most 25 elements.
fn random_index(len: usize) -> usize {
    usize::from(u16::from_be_bytes(crypto::random())) % len
}
