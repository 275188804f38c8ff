//! [`Exchanges`]: the HTTP requests that wait for a response on a control channel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::response_message::ResponseMessage;

/// The waiting requests of one hybrid connection. Of all its listeners together: one that was cut off may answer on its
/// next control channel.
#[derive(Debug, Default)]
pub(super) struct Exchanges(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    opened: u64,
    waiting: HashMap<String, oneshot::Sender<(ResponseMessage, Bytes)>>,
}

/// A request's place in the table; it leaves the table when this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    table: Arc<Exchanges>,
    id: String,
    response: oneshot::Receiver<(ResponseMessage, Bytes)>,
}

/// The response was begun on a control channel and can not be completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Exchanges {
    /// A place with an id of its own, which begins with `tracking_id`.
    pub(super) fn open(self: &Arc<Self>, tracking_id: &str) -> Exchange {
        let (sender, response) = oneshot::channel();
        let mut table = self.table();
        // The service's form. Nobody may take such an id for a bare GUID.
        let id = format!("{tracking_id}_G{}", table.opened);
        table.opened += 1;
        table.waiting.insert(id.clone(), sender);
        drop(table);
        Exchange {
            table: Arc::clone(self),
            id,
            response,
        }
    }

    /// Hands a response over. One for which nobody waits (any longer) is dropped.
    pub(super) fn complete(&self, message: ResponseMessage, body: Bytes) {
        let waiting = self.table().waiting.remove(message.request_id());
        let is_taken = waiting.is_some_and(|waiting| waiting.send((message, body)).is_ok());
        if !is_taken {
            tracing::debug!("a response came for which nobody waits");
        }
    }

    /// Gives the request up.
    pub(super) fn fail(&self, message: &ResponseMessage) {
        self.table().waiting.remove(message.request_id());
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The map is whole between any two statements, so a panic elsewhere can not have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The response. Cancel safe.
    pub(super) async fn response(&mut self) -> Result<(ResponseMessage, Bytes), Broken> {
        (&mut self.response).await.map_err(|_| Broken)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.table.table().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> ResponseMessage {
        let text = format!(r#"{{"response":{{"requestId":"{id}","statusCode":200}}}}"#);
        ResponseMessage::parse(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn each_response_finds_its_request_once() {
        let table = Arc::new(Exchanges::default());
        let (mut one, mut two) = (table.open("t"), table.open("t"));
        assert_ne!(one.id(), two.id());
        table.complete(message(two.id()), Bytes::from_static(b"2"));
        table.complete(message(two.id()), Bytes::from_static(b"3"));
        table.complete(message("t"), Bytes::new());
        assert_eq!(two.response().await.unwrap().1, "2");
        table.fail(&message(one.id()));
        assert_eq!(one.response().await.unwrap_err(), Broken);
        drop((one, two));
        assert!(table.table().waiting.is_empty());
    }
}
