//! [`Nonces`]: which proofs were shown, and in which tunnel.

use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

use super::MAX_AGE;
use crate::agent::identity::TunnelId;

/// Nonces that are remembered: 170 a second for the life of a proof.
const MAX_NONCES: usize = 65_536;

/// The nonces that were used, for as long as their proofs are of now.
///
/// When there are too many, the oldest proofs are forgotten **and refused from then on**: a full memory makes old
/// proofs useless, never reusable.
pub(super) struct Nonces {
    capacity: usize,
    used: HashMap<[u8; 32], Shown>,
    by_time: BTreeSet<(SystemTime, [u8; 32])>,
    /// Proofs made at this time or before are not accepted any more.
    floor: SystemTime,
}

impl Nonces {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            used: HashMap::new(),
            by_time: BTreeSet::new(),
            floor: SystemTime::UNIX_EPOCH,
        }
    }

    /// Whether a proof may be shown now, and here.
    pub(super) fn admits(&mut self, digest: [u8; 32], shown: Shown, now: SystemTime) -> bool {
        while let Some(&(at, oldest)) = self.by_time.first()
            && now > at + MAX_AGE
        {
            self.by_time.pop_first();
            self.used.remove(&oldest);
            // A clock that is set back would make it of now again.
            self.floor = self.floor.max(at);
        }
        if let Some(first) = self.used.get(&digest) {
            return first.covers(&shown);
        }
        if shown.made_at <= self.floor {
            return false;
        }
        self.used.insert(digest, shown);
        self.by_time.insert((shown.made_at, digest));
        if self.used.len() > self.capacity
            && let Some((at, oldest)) = self.by_time.pop_first()
        {
            self.used.remove(&oldest);
            self.floor = self.floor.max(at);
        }
        true
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new(MAX_NONCES)
    }
}

/// A proof as it was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) made_at: SystemTime,
    pub(super) tunnel: Option<TunnelId>,
}

impl Shown {
    /// Whether `other` is the same proof in the same tunnel connection. A new proof with an old nonce is not: it would
    /// be of now for longer than the nonce is remembered.
    fn covers(&self, other: &Self) -> bool {
        self.tunnel.is_some() && self.tunnel == other.tunnel && self.made_at == other.made_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::crypto;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn digest(number: u16) -> [u8; 32] {
        crypto::sha256(&number.to_be_bytes())
    }

    fn shown(made_at: SystemTime) -> Shown {
        Shown {
            made_at,
            tunnel: None,
        }
    }

    #[test]
    fn a_nonce_is_good_once_where_the_tunnel_is_not_known() {
        let mut nonces = Nonces::new(10);
        assert!(nonces.admits(digest(1), shown(at(1000)), at(1000)));
        assert!(!nonces.admits(digest(1), shown(at(1000)), at(1000)));
        // The same nonce with another time is the same nonce.
        assert!(!nonces.admits(digest(1), shown(at(1001)), at(1001)));
        assert!(nonces.admits(digest(2), shown(at(1000)), at(1000)));
    }

    #[test]
    fn a_nonce_is_good_again_in_its_own_tunnel_only() {
        let mut nonces = Nonces::new(10);
        let here = Shown {
            made_at: at(1000),
            tunnel: Some(TunnelId::generate()),
        };
        let there = Shown {
            tunnel: Some(TunnelId::generate()),
            ..here
        };
        assert!(nonces.admits(digest(1), here, at(1000)));
        for _ in 0..3 {
            assert!(nonces.admits(digest(1), here, at(1100)));
            assert!(!nonces.admits(digest(1), there, at(1100)));
            assert!(!nonces.admits(digest(1), shown(here.made_at), at(1100)));
        }
        // Another proof with an old nonce would outlive the memory of it.
        let later = Shown {
            made_at: at(1100),
            ..here
        };
        assert!(!nonces.admits(digest(1), later, at(1100)));
        assert_eq!((nonces.used.len(), nonces.by_time.len()), (1, 1));
        // What is forgotten is refused everywhere.
        assert!(!nonces.admits(digest(1), here, at(1001) + MAX_AGE));
    }

    #[test]
    fn old_nonces_are_forgotten_and_do_not_come_back_with_the_clock() {
        let mut nonces = Nonces::new(10);
        assert!(nonces.admits(digest(1), shown(at(1000)), at(1000)));
        let later = at(1001) + MAX_AGE;
        assert!(nonces.admits(digest(2), shown(later), later));
        assert_eq!(nonces.used.len(), 1);
        assert!(!nonces.admits(digest(1), shown(at(1000)), at(1000)));
    }

    #[test]
    fn a_full_memory_refuses_the_oldest_and_stays_bounded() {
        let mut nonces = Nonces::new(100);
        for number in 0..10_000_u16 {
            let made_at = at(10_000 + u64::from(number) / 50);
            nonces.admits(digest(number), shown(made_at), at(10_100));
            assert!(nonces.used.len() <= 100 && nonces.by_time.len() == nonces.used.len());
        }
        for number in 0..10_000_u16 {
            let made_at = at(10_000 + u64::from(number) / 50);
            assert!(
                !nonces.admits(digest(number), shown(made_at), at(10_100)),
                "{number}"
            );
        }
        assert!(nonces.admits(digest(10_001), shown(at(10_300)), at(10_300)));
    }
}
