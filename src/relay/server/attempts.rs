//! [`Attempts`]: what refused requests may cost, by where they come from.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::warning_limit::{Verdict, WarningLimit};

/// Counts refusals per source, and says how long each waits for its answer.
///
/// Nobody is kept out: a good token is good from everywhere, whatever else comes from the same address. A refusal waits
/// because some clients try again at once, and waiting is what costs the relay least; who is refused all the time waits
/// longer. How many may wait is bounded, for each source and in all: beyond that a refusal is answered at once.
#[derive(Debug)]
pub(super) struct Attempts {
    max_held: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sources: HashMap<IpAddr, Account>,
    /// Of all for whom the table has no room, together.
    others: Account,
    held: usize,
    over_rate: u64,
    swept_at: Option<Instant>,
    warnings: WarningLimit,
}

#[derive(Debug)]
struct Account {
    /// When the bucket will be full again.
    full_at: Option<Instant>,
    held: usize,
    warnings: WarningLimit,
}

/// What becomes of a refusal.
#[derive(Debug)]
pub(super) struct Sentence {
    pub(super) rate: Rate,
    /// To be kept while the answer waits; `None` when there is no room to wait.
    pub(super) hold: Option<Hold>,
}

/// How often a source is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    Usual,
    TooHigh,
}

/// A refusal that waits.
#[derive(Debug)]
pub(super) struct Hold {
    attempts: Arc<Attempts>,
    key: Key,
}

/// Whose account it is: a source's, or that of all others.
type Key = Option<IpAddr>;

/// Refusals that a source may cause in one go: what is behind one address, a fleet or this machine, starts with an old
/// key and notices.
pub(super) const BURST: u32 = 50;

/// One more each: what a few clients with a back-off never reach, and a loop always does.
pub(super) const REFILL: Duration = Duration::from_millis(200);

/// Waiting refusals of one source. A loop that starts anew with each answer has as many under way as wait.
pub(super) const MAX_HELD_PER_SOURCE: usize = 64;

/// Waiting refusals in all. Each is a connection; a tenth of what there may be at most.
pub(super) const MAX_HELD: usize = 512;

/// Sources that are known, some 100 bytes each. More share one account.
pub(super) const MAX_SOURCES: usize = 4096;

/// How often the table is searched for those that need not be known any longer, if it is full.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Lines of one source in a window: others have something to say too.
pub(super) const WARNINGS_PER_SOURCE: u32 = 2;

impl Attempts {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            max_held: (max_connections / 10).clamp(1, MAX_HELD),
            state: Mutex::new(State {
                sources: HashMap::new(),
                others: Account::new(),
                held: 0,
                over_rate: 0,
                swept_at: None,
                warnings: WarningLimit::default(),
            }),
        }
    }

    /// Counts a refusal.
    pub(super) fn refused(self: &Arc<Self>, remote: IpAddr, now: Instant) -> Sentence {
        let mut state = self.state();
        let has_room = state.held < self.max_held;
        let key = state.key(source(remote), now);
        let account = state.account(key);
        let rate = account.count(now);
        let hold = has_room && account.held < MAX_HELD_PER_SOURCE;
        if hold {
            account.held += 1;
        }
        state.held += usize::from(hold);
        state.over_rate += u64::from(rate == Rate::TooHigh);
        drop(state);
        Sentence {
            rate,
            hold: hold.then(|| Hold {
                attempts: Arc::clone(self),
                key,
            }),
        }
    }

    /// Whether to log a refusal.
    pub(super) fn judge(&self, remote: IpAddr, now: Instant) -> Verdict {
        let mut state = self.state();
        let key = state.key(source(remote), now);
        match state.account(key).warnings.judge(now) {
            Verdict::Log { .. } => state.warnings.judge(now),
            Verdict::Suppress => state.warnings.suppress(),
        }
    }

    /// How many refusals wait.
    pub(super) fn held(&self) -> usize {
        self.state().held
    }

    /// How many came from sources that were refused all the time.
    pub(super) fn over_rate(&self) -> u64 {
        self.state().over_rate
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // All of it is whole between any two statements, so a panic elsewhere can not have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who is not known yet shares an account with others if there is no room for one of its own.
    fn key(&mut self, source: IpAddr, now: Instant) -> Key {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sweep(now);
            if self.sources.len() >= MAX_SOURCES {
                return None;
            }
        }
        Some(source)
    }

    fn account(&mut self, key: Key) -> &mut Account {
        match key {
            Some(source) => self.sources.entry(source).or_insert_with(Account::new),
            None => &mut self.others,
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self
            .swept_at
            .is_some_and(|then| now.duration_since(then) < SWEEP_EVERY)
        {
            return;
        }
        self.swept_at = Some(now);
        self.sources.retain(|_, account| !account.is_idle(now));
    }
}

impl Account {
    fn new() -> Self {
        Self {
            full_at: None,
            held: 0,
            warnings: WarningLimit::new(WARNINGS_PER_SOURCE),
        }
    }

    /// A token bucket, kept as the time at which it is full again.
    fn count(&mut self, now: Instant) -> Rate {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + REFILL;
        if full_at - now > REFILL * BURST {
            return Rate::TooHigh;
        }
        self.full_at = Some(full_at);
        Rate::Usual
    }

    /// Nothing would change if it were made anew.
    fn is_idle(&self, now: Instant) -> bool {
        self.held == 0
            && self.full_at.is_none_or(|full_at| full_at <= now)
            && self.warnings.is_idle(now)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.attempts.state();
        state.held -= 1;
        // A source stays known as long as something is held for it.
        state.account(self.key).held -= 1;
    }
}

/// An IPv6 network has 64 bits for its hosts, each of which may have them all.
fn source(remote: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match remote.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{
        super::warning_limit::{WARNINGS_PER_WINDOW, WINDOW},
        *,
    };

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn attempts() -> Arc<Attempts> {
        Arc::new(Attempts::new(10_000))
    }

    fn nth(index: usize) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + index as u32).into()
    }

    #[test]
    fn a_burst_is_usual_and_a_loop_is_not() {
        let (attempts, start) = (attempts(), Instant::now());
        let rate = |now| attempts.refused(HERE, now).rate;
        for _ in 0..BURST {
            assert_eq!(rate(start), Rate::Usual);
        }
        for _ in 0..1000 {
            assert_eq!(rate(start), Rate::TooHigh);
        }
        assert_eq!(attempts.over_rate(), 1000);
        // However long it went on, it is forgiven bit by bit.
        assert_eq!(rate(start + REFILL), Rate::Usual);
        assert_eq!(rate(start + REFILL), Rate::TooHigh);
        assert_eq!(attempts.refused(nth(1), start).rate, Rate::Usual);
    }

    #[test]
    fn waiting_refusals_are_bounded_for_each_source_and_in_all() {
        let (attempts, now) = (attempts(), Instant::now());
        let mut holds = Vec::new();
        for index in 0..MAX_HELD / MAX_HELD_PER_SOURCE {
            for _ in 0..MAX_HELD_PER_SOURCE {
                holds.push(attempts.refused(nth(index), now).hold.expect("room"));
            }
            assert!(attempts.refused(nth(index), now).hold.is_none());
        }
        assert_eq!(attempts.held(), MAX_HELD);
        assert!(attempts.refused(nth(1_000), now).hold.is_none());
        holds.clear();
        assert_eq!(attempts.held(), 0);
        assert!(attempts.refused(nth(0), now).hold.is_some());
    }

    #[test]
    fn a_small_relay_lets_few_wait() {
        let (attempts, now) = (Arc::new(Attempts::new(20)), Instant::now());
        let holds: Vec<_> = (0..20).map(|_| attempts.refused(HERE, now).hold).collect();
        assert_eq!(holds.iter().flatten().count(), 2);
    }

    #[test]
    fn sources_are_bounded_and_forgotten() {
        let (attempts, start) = (attempts(), Instant::now());
        let known = |attempts: &Attempts| attempts.state().sources.len();
        let held = attempts.refused(nth(0), start).hold;
        for index in 0..3 * MAX_SOURCES {
            attempts.refused(nth(index), start);
        }
        assert_eq!(known(&attempts), MAX_SOURCES);
        // The others have one bucket together, and it is empty.
        let others = attempts.refused(nth(4 * MAX_SOURCES), start);
        assert_eq!(others.rate, Rate::TooHigh);
        let later = start + SWEEP_EVERY + WINDOW;
        let fresh = attempts.refused(nth(5 * MAX_SOURCES), later);
        assert_eq!(fresh.rate, Rate::Usual);
        // Who waits stays known.
        assert_eq!(known(&attempts), 2);
        // One was counted among the others and one was not: each is given back where it was taken.
        drop((held, others, fresh));
        assert_eq!(attempts.held(), 0);
        let state = attempts.state();
        let accounts = state.sources.values().chain([&state.others]);
        assert_eq!(accounts.map(|account| account.held).sum::<usize>(), 0);
    }

    #[test]
    fn one_source_does_not_take_all_lines() {
        let (attempts, now) = (attempts(), Instant::now());
        let lines = |source| {
            let verdicts = (0..1000).map(|_| attempts.judge(source, now));
            verdicts.filter(|it| *it != Verdict::Suppress).count()
        };
        assert_eq!(lines(HERE), WARNINGS_PER_SOURCE as usize);
        assert_eq!(
            attempts.judge(nth(0), now),
            Verdict::Log { suppressed: 998 }
        );
        let all: usize = (1..1000).map(|index| lines(nth(index))).sum();
        assert_eq!(
            all,
            (WARNINGS_PER_WINDOW - WARNINGS_PER_SOURCE - 1) as usize
        );
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let parse = |text: &str| source(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:127.0.0.1"), HERE);
    }
}
