//! [`CallerPlaces`]: how many requests one caller may have in flight.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{identity::Standing, status::Refusal};
use crate::crypto;

/// The places of each caller who has a request in flight, over all tunnel connections. A caller without one takes up
/// no memory, so there are never more callers in it than requests.
pub(super) struct CallerPlaces {
    limit: usize,
    taken: Arc<Mutex<HashMap<CallerKey, usize>>>,
}

/// A digest of who a caller is: a name, or, where the API server judges it, a token.
type CallerKey = [u8; 32];

/// A caller's place for one request. Dropping it frees the place.
pub(super) struct CallerPlace {
    key: CallerKey,
    taken: Arc<Mutex<HashMap<CallerKey, usize>>>,
}

impl CallerPlaces {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: Arc::default(),
        }
    }

    /// A place for one more request of this caller.
    ///
    /// # Errors
    /// 429 when all of the caller's places are taken.
    pub(super) fn take(&self, caller: &Standing) -> Result<CallerPlace, Refusal> {
        let key = match caller {
            Standing::Known(identity) => key(b"user", identity.user().as_bytes()),
            Standing::OwnToken(token) => key(b"token", token.to_header().as_bytes()),
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&key).copied().unwrap_or_default();
        if count >= self.limit {
            return Err(Refusal::too_many_requests(
                "the caller has too many requests in flight",
            ));
        }
        taken.insert(key, count + 1);
        Ok(CallerPlace {
            key,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

fn key(kind: &[u8], text: &[u8]) -> CallerKey {
    crypto::sha256(&[kind, b"\0", text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Identity, IdentityRules};

    fn caller(user: &str) -> Standing {
        let identity = Identity::builder(user)
            .build(&IdentityRules::default())
            .expect("valid");
        Standing::Known(Arc::new(identity))
    }

    #[test]
    fn each_caller_has_places_of_their_own_and_gets_them_back() {
        let places = CallerPlaces::new(2);
        let (ada, eve) = (caller("ada"), caller("eve"));
        let first = places.take(&ada).expect("room");
        let _second = places.take(&ada).expect("room");
        let refusal = places.take(&ada).map(drop).expect_err("full");
        assert_eq!(refusal.code(), 429);
        let _other = places.take(&eve).expect("room");
        drop(first);
        places.take(&ada).expect("room again");
    }

    #[test]
    fn callers_without_requests_leave_no_trace() {
        let places = CallerPlaces::new(1);
        for number in 0..10_000 {
            places
                .take(&caller(&format!("user{number}")))
                .expect("room");
        }
        assert!(places.taken.lock().expect("not poisoned").is_empty());
    }
}
