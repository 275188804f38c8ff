//! [`Places`]: how many requests each HTTP/2 connection may take, and how many it has.
//!
//! No network and no clock of its own: times are passed in.
//!
//! ```text
//!            add             set_limit              retire, expire           remove
//!  (nothing) ───► no place yet ───► places, taken ───────────────► no new ───────► (nothing)
//!                                     ▲      │                     requests
//!                                     └──────┘ take, give_back
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// How many requests one connection is given, whatever its server allows. The API server allows 100: the rest is room
/// for streams that are over for us and not yet for it. More than that would also let one lost connection end more
/// watches at once.
pub(super) const MAX_STREAMS: usize = 90;
/// How long a connection without a request is kept. API servers close theirs after 90 s: being first saves a request
/// that crosses the closing.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(u64);

/// The connections, each with the handle by which requests are sent on it.
pub(super) struct Places<T> {
    connections: Vec<Connection<T>>,
    next_id: u64,
}

struct Connection<T> {
    id: ConnectionId,
    /// `None`: no new requests. Without its handle the connection ends with its last request.
    handle: Option<T>,
    limit: usize,
    taken: usize,
    idle_since: Instant,
}

impl<T: Clone> Places<T> {
    /// A connection that has no place before [`set_limit`](Self::set_limit).
    pub(super) fn add(&mut self, handle: T, now: Instant) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.connections.push(Connection {
            id,
            handle: Some(handle),
            limit: 0,
            taken: 0,
            idle_since: now,
        });
        id
    }

    /// What the server allows on a connection. It may change at any time.
    pub(super) fn set_limit(&mut self, id: ConnectionId, allowed: usize) {
        if let Some(connection) = self.find(id) {
            connection.limit = allowed.min(MAX_STREAMS);
        }
    }

    /// A place on the connection with the most requests that has one: the others may then run empty and be closed.
    pub(super) fn take(&mut self) -> Option<(ConnectionId, T)> {
        let (connection, handle) = self
            .connections
            .iter_mut()
            .filter(|connection| connection.taken < connection.limit)
            .filter_map(|connection| {
                let handle = connection.handle.clone()?;
                Some((connection, handle))
            })
            .max_by_key(|(connection, _)| connection.taken)?;
        connection.taken += 1;
        Some((connection.id, handle))
    }

    pub(super) fn give_back(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.find(id) {
            connection.taken -= 1;
            connection.idle_since = now;
        }
    }

    /// No new requests on this connection.
    pub(super) fn retire(&mut self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.handle = None;
        }
    }

    /// Retires the connections that have been without a request for [`IDLE_LIMIT`].
    pub(super) fn expire(&mut self, now: Instant) {
        for connection in &mut self.connections {
            if connection.taken == 0 && now.duration_since(connection.idle_since) >= IDLE_LIMIT {
                connection.handle = None;
            }
        }
    }

    /// The connection has ended.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection<T>> {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == id)
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            next_id: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fullest_connection_with_room_comes_first_and_none_is_filled_beyond_its_limit() {
        let now = Instant::now();
        let mut places = Places::default();
        assert!(places.take().is_none());
        let small = places.add("small", now);
        let large = places.add("large", now);
        assert!(
            places.take().is_none(),
            "no place before the limit is known"
        );
        places.set_limit(small, 2);
        places.set_limit(large, usize::MAX);
        let mut taken: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), 2 + MAX_STREAMS);
        let first = taken[0].1;
        let second = taken.iter().position(|(_, handle)| *handle != first);
        assert!(
            matches!(second, Some(2 | MAX_STREAMS)),
            "one is filled before the next"
        );
        places.give_back(taken.pop().expect("taken").0, now);
        assert!(places.take().is_some());
    }

    #[test]
    fn only_what_is_idle_for_long_enough_expires() {
        let start = Instant::now();
        let mut places = Places::default();
        let id = places.add((), start);
        places.set_limit(id, 1);
        let (id, ()) = places.take().expect("a place");
        let later = start + IDLE_LIMIT * 2;
        places.expire(later);
        places.give_back(id, later);
        places.expire(later + IDLE_LIMIT - Duration::from_secs(1));
        assert!(places.take().is_some(), "in use, then not idle for long");
        places.give_back(id, later);
        places.expire(later + IDLE_LIMIT);
        assert!(places.take().is_none());
        assert_eq!(places.connections(), 1, "it has not ended yet");
        places.remove(id);
        assert_eq!(places.connections(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(usize),
        SetLimit(usize, usize),
        Take,
        GiveBack(usize),
        Retire(usize),
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0..5_usize).prop_map(Step::Add),
            1 => (0..8_usize, 0..5_usize).prop_map(|(which, limit)| Step::SetLimit(which, limit)),
            6 => Just(Step::Take),
            3 => (0..64_usize).prop_map(Step::GiveBack),
            1 => (0..8_usize).prop_map(Step::Retire),
            1 => (0..8_usize).prop_map(Step::Remove),
        ]
    }

    /// What the model knows of a connection.
    struct Model {
        id: ConnectionId,
        limit: usize,
        taken: usize,
        open: bool,
        ended: bool,
    }

    proptest! {
        #[test]
        fn a_place_is_given_exactly_when_the_model_has_one(steps in prop::collection::vec(step(), 0..200)) {
            let now = Instant::now();
            let mut places = Places::default();
            let mut model: Vec<Model> = Vec::new();
            let mut held = Vec::new();
            for step in steps {
                match step {
                    Step::Add(limit) => {
                        let id = places.add((), now);
                        places.set_limit(id, limit);
                        model.push(Model { id, limit, taken: 0, open: true, ended: false });
                    }
                    Step::SetLimit(which, limit) => {
                        if let Some(known) = model.get_mut(which) {
                            places.set_limit(known.id, limit);
                            known.limit = limit;
                        }
                    }
                    Step::Take => {
                        let expected = model
                            .iter()
                            .filter(|known| known.open && known.taken < known.limit)
                            .map(|known| known.taken)
                            .max();
                        let taken = places.take();
                        prop_assert_eq!(taken.is_some(), expected.is_some());
                        if let Some((id, ())) = taken {
                            let known = model.iter_mut().find(|known| known.id == id).expect("known");
                            prop_assert!(known.open);
                            prop_assert_eq!(Some(known.taken), expected);
                            known.taken += 1;
                            held.push(id);
                        }
                    }
                    Step::GiveBack(which) => {
                        if !held.is_empty() {
                            let id = held.swap_remove(which % held.len());
                            places.give_back(id, now);
                            let known = model.iter_mut().find(|known| known.id == id).expect("known");
                            known.taken -= 1;
                        }
                    }
                    Step::Retire(which) => {
                        if let Some(known) = model.get_mut(which) {
                            places.retire(known.id);
                            known.open = false;
                        }
                    }
                    Step::Remove(which) => {
                        if let Some(known) = model.get_mut(which) {
                            places.remove(known.id);
                            known.open = false;
                            known.ended = true;
                        }
                    }
                }
                let live = model.iter().filter(|known| !known.ended).count();
                prop_assert_eq!(places.connections(), live);
            }
        }
    }
}
