//! [`Entities`]: the hybrid connections of the relay, and who listens on them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use percent_encoding::percent_decode_str;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{EntityOptions, Refusal, dispatch::Dispatch, exchanges::Exchanges};
use crate::relay::websocket::CloseReason;

/// The hybrid connections that exist. Fixed at start, but for those that are removed.
#[derive(Debug, Default)]
pub(super) struct Entities(Vec<Arc<Entity>>);

/// One hybrid connection.
#[derive(Debug)]
pub(super) struct Entity {
    path: String,
    options: EntityOptions,
    listeners: Mutex<Vec<Arc<Listener>>>,
    exchanges: Arc<Exchanges>,
    /// It exists no longer.
    removed: CancellationToken,
}

/// A registered listener, as the senders' side sees it.
#[derive(Debug)]
pub(super) struct Listener {
    /// The id that the listener registered with; senders may name it.
    pub(super) id: String,
    /// `wss://host:port` as the listener reached us: the address at which it reaches us again.
    pub(super) base_url: String,
    /// To its control channel.
    pub(super) dispatches: mpsc::Sender<Dispatch>,
    /// One permit for each sender that waits for it.
    pub(super) pending: Arc<Semaphore>,
    /// Cuts its control channel, as the live service does once a day.
    pub(super) recycle: CancellationToken,
}

/// Listed as long as this lives.
#[derive(Debug)]
pub(super) struct Registration {
    entity: Arc<Entity>,
    listener: Arc<Listener>,
}

/// Azure's own limit.
pub(super) const MAX_LISTENERS: usize = 25;

/// How many senders may wait for one listener at the same time. A listener answers within a second or so; more waiting
/// ones mean that it does not keep up, and the next sender is better off with another listener or a quick refusal.
pub(super) const MAX_PENDING_PER_LISTENER: usize = 256;

impl Entities {
    pub(super) fn add(&mut self, path: String, options: EntityOptions) {
        if !self.contains(&path) {
            self.0.push(Arc::new(Entity {
                path,
                options,
                listeners: Mutex::default(),
                exchanges: Arc::default(),
                removed: CancellationToken::new(),
            }));
        }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.named(path).is_some()
    }

    pub(super) fn named(&self, path: &str) -> Option<&Arc<Entity>> {
        self.iter()
            .find(|known| known.path.eq_ignore_ascii_case(path))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.0.iter().filter(|known| !known.removed.is_cancelled())
    }

    /// The entity with the longest path that is a prefix of `encoded`, ending at a segment's end, and what follows it,
    /// still encoded.
    ///
    /// A slash may be encoded too: some clients encode the whole path.
    pub(super) fn find<'p>(&self, encoded: &'p str) -> Option<(&Arc<Entity>, &'p str)> {
        let bytes = encoded.as_bytes();
        let is_boundary = |at: usize| {
            at == bytes.len()
                || bytes[at] == b'/'
                || (bytes[at..].len() >= 3 && bytes[at..at + 3].eq_ignore_ascii_case(b"%2F"))
        };
        let longest = bytes.len().min(MAX_ENCODED_PATH);
        (1..=longest)
            .rev()
            .filter(|&at| is_boundary(at) && encoded.is_char_boundary(at))
            .find_map(|at| {
                let (path, rest) = encoded.split_at(at);
                let path = percent_decode_str(path).decode_utf8().ok()?;
                let entity = self.named(&path)?;
                let suffix = match rest.as_bytes() {
                    [b'%', ..] => &rest[3..],
                    [b'/', ..] => &rest[1..],
                    _ => rest,
                };
                Some((entity, suffix))
            })
    }
}

impl Entity {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn options(&self) -> EntityOptions {
        self.options
    }

    pub(super) fn register(self: &Arc<Self>, listener: Listener) -> Result<Registration, Refusal> {
        let listener = Arc::new(listener);
        let mut listeners = self.listeners();
        if listeners.len() >= MAX_LISTENERS {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "QuotaExceeded: MaximumListenersPerEndpoint has been reached, no more than 25 listeners \
                 may be connected to one endpoint.",
            ));
        }
        listeners.push(Arc::clone(&listener));
        drop(listeners);
        Ok(Registration {
            entity: Arc::clone(self),
            listener,
        })
    }

    /// The HTTP requests that wait for one of the listeners.
    pub(super) fn exchanges(&self) -> &Arc<Exchanges> {
        &self.exchanges
    }

    /// Nobody finds it any more, and what runs on it is told to end.
    pub(super) fn remove(&self) {
        self.removed.cancel();
    }

    /// Why what runs on it has to end, once it has.
    pub(super) async fn end(&self, shutdown: &CancellationToken) -> CloseReason {
        let reason = tokio::select! {
            () = shutdown.cancelled() => "The relay is shutting down",
            () = self.removed.cancelled() => "The endpoint was deleted",
        };
        CloseReason::new(CloseReason::GOING_AWAY, reason)
    }

    /// What a sender that waits is told when it is removed meanwhile.
    pub(super) async fn while_it_exists<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            result = work => result,
            () = self.removed.cancelled() => Err(Refusal::no_entity()),
        }
    }

    /// Who listens now.
    pub(super) fn listeners_now(&self) -> Vec<Arc<Listener>> {
        self.listeners().clone()
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        // The list is whole between any two statements, so a panic elsewhere can not have broken it.
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    pub(super) fn entity(&self) -> &Entity {
        &self.entity
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.entity
            .listeners()
            .retain(|listed| !Arc::ptr_eq(listed, &self.listener));
    }
}

/// A path has at most 512 bytes, and its encoding three for each. What is beyond can only be a suffix, and is not
/// decoded again and again for the sake of a request that is all slashes.
const MAX_ENCODED_PATH: usize = 3 * 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(paths: &[&str]) -> Entities {
        let mut entities = Entities::default();
        for path in paths {
            entities.add((*path).to_owned(), EntityOptions::new());
        }
        entities
    }

    fn listener() -> Listener {
        Listener {
            id: "1".to_owned(),
            base_url: "ws://127.0.0.1:1".to_owned(),
            dispatches: mpsc::channel(1).0,
            pending: Arc::new(Semaphore::new(1)),
            recycle: CancellationToken::new(),
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let entities = entities(&["a", "a/b", "a/b/c/d", "e f"]);
        for (encoded, expected) in [
            ("a", Some(("a", ""))),
            ("A/B", Some(("a/b", ""))),
            ("a/b/", Some(("a/b", ""))),
            ("a/b/c", Some(("a/b", "c"))),
            ("a/bc", Some(("a", "bc"))),
            ("a%2Fb%2fc%2Fx", Some(("a/b", "c%2Fx"))),
            ("a/b/c/d/e/f", Some(("a/b/c/d", "e/f"))),
            ("%61/%62", Some(("a/b", ""))),
            ("e%20f/%20", Some(("e f", "%20"))),
            ("ab", None),
            ("", None),
            ("/a", None),
            ("%ff", None),
            ("é", None),
        ] {
            let found = entities
                .find(encoded)
                .map(|(entity, suffix)| (entity.path(), suffix));
            assert_eq!(found, expected, "{encoded}");
        }
    }

    #[test]
    fn a_path_of_slashes_is_cheap() {
        let long = "/".repeat(30_000);
        assert!(entities(&["a"]).find(&format!("b{long}")).is_none());
        assert!(entities(&["a"]).find(&format!("a{long}")).is_some());
    }

    #[test]
    fn the_twenty_sixth_listener_is_refused_until_one_leaves() {
        let entities = entities(&["a"]);
        let (entity, _) = entities.find("a").unwrap();
        let mut registrations: Vec<_> = (0..MAX_LISTENERS)
            .map(|_| entity.register(listener()).unwrap())
            .collect();
        let refusal = entity.register(listener()).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
        assert!(refusal.text().contains("MaximumListenersPerEndpoint"));
        registrations.pop();
        assert!(entity.register(listener()).is_ok());
        drop(registrations);
        assert!(entity.listeners_now().is_empty());
    }
}
