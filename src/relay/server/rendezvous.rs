//! [`RendezvousTable`]: where a waiting sender and the listener's dial find each other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use crate::crypto;

/// The senders that wait for a listener.
#[derive(Debug, Default)]
pub(super) struct RendezvousTable(Mutex<HashMap<String, oneshot::Sender<Answer>>>);

/// A sender's place in the table; it leaves the table when this is dropped.
#[derive(Debug)]
pub(super) struct Rendezvous {
    table: Arc<RendezvousTable>,
    id: String,
    answer: oneshot::Receiver<Answer>,
}

/// What a listener says.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted {
        /// The listener's leg.
        upgrade: OnUpgrade,
        /// The sub-protocol that the listener chose.
        protocol: Option<HeaderValue>,
    },
    Rejected {
        status: Option<u16>,
        description: String,
    },
}

/// How long a listener has to dial, and so how long a sender is held. Azure's value; its own listeners take at most
/// 20 s.
pub(super) const ACCEPT_WINDOW: Duration = Duration::from_secs(30);

impl RendezvousTable {
    /// A place with a fresh id. The id is what entitles the listener, so nobody can guess it.
    pub(super) fn open(self: &Arc<Self>) -> Rendezvous {
        let id = crypto::hex(&crypto::random::<16>());
        let (sender, answer) = oneshot::channel();
        self.entries().insert(id.clone(), sender);
        Rendezvous {
            table: Arc::clone(self),
            id,
            answer,
        }
    }

    /// Takes the place with that id, which can be done once.
    pub(super) fn take(&self, id: &str) -> Option<oneshot::Sender<Answer>> {
        self.entries().remove(id)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        // The map is whole between any two statements, so a panic elsewhere can not have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rendezvous {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the listener; `None` when the time is over.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(ACCEPT_WINDOW, self.answer_at_last())
            .await
            .ok()?
    }

    /// Waits for the listener without end; `None` when its answer got lost. Cancel safe.
    pub(super) async fn answer_at_last(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.table.entries().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn rejection() -> Answer {
        Answer::Rejected {
            status: Some(400),
            description: String::new(),
        }
    }

    #[tokio::test]
    async fn an_id_is_good_for_one_answer() {
        let table = Arc::new(RendezvousTable::default());
        let mut rendezvous = table.open();
        let id = rendezvous.id().to_owned();
        table.take(&id).unwrap().send(rejection()).unwrap();
        assert!(table.take(&id).is_none());
        assert!(matches!(
            rendezvous.answer().await,
            Some(Answer::Rejected { .. })
        ));
    }

    #[test]
    fn a_sender_that_left_can_not_be_answered() {
        let table = Arc::new(RendezvousTable::default());
        let rendezvous = table.open();
        let id = rendezvous.id().to_owned();
        drop(rendezvous);
        assert!(table.take(&id).is_none());
        assert!(table.entries().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_window() {
        let table = Arc::new(RendezvousTable::default());
        let start = Instant::now();
        assert!(table.open().answer().await.is_none());
        assert_eq!(start.elapsed(), ACCEPT_WINDOW);
    }
}
