//! [`Emulation`]: what makes this relay behave as slowly as the real one.

mod delay_line;
mod dice;

use std::{
    num::NonZeroU64,
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::sleep;

use super::{liveness::Liveness, route::Side};
use crate::relay::websocket::CloseReason;
pub(super) use delay_line::{Cargo, DelayLine};
use dice::Dice;

/// How slow the relay is on purpose. Nothing is emulated unless it is set here.
///
/// An embedded relay on the same machine answers within microseconds; Azure's takes half a second to connect two ends
/// and carries 14 Mbit/s. With this the difference can be worked on without Azure.
///
/// ```
/// use std::time::Duration;
/// use arc_cluster_connect::relay::{SasRule, server::{Emulation, RelayServer, Rights}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let relay = RelayServer::builder()
///     .hybrid_connection("clusters/east")
///     .rule(SasRule::new("root", "an-example-key")?, Rights::LISTEN | Rights::SEND)
///     // As Azure, seen from another continent.
///     .emulate(Emulation::azure().sender_delay(Duration::from_millis(90)))
///     .start(socket)?;
/// # relay.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it has no effect before `RelayServerBuilder::emulate`"]
pub struct Emulation {
    sender_delay: Duration,
    listener_delay: Duration,
    dial_hold: Duration,
    spikes: Option<Spikes>,
    /// Bits per second.
    rate: Option<NonZeroU64>,
    buffer: Option<usize>,
    control_idle: Option<Duration>,
    data_idle: Option<Duration>,
    recycle_after: Option<Duration>,
    lost_sender: LostSender,
    seed: Option<u64>,
}

/// Some dials take much longer than the others.
#[derive(Clone, Debug)]
struct Spikes {
    one_in: u32,
    shortest: Duration,
    longest: Duration,
}

/// What a listener sees when its sender is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LostSender {
    /// An end without a Close, as the sender's own was: nobody takes it for a clean one.
    #[default]
    Abort,
    /// A Close with 1001, by the protocol guide.
    GoingAway,
}

/// The longest of all times that can be set. More than any client waits, and far from where sums of times overflow.
const MAX_TIME: Duration = Duration::from_secs(60 * 60);

/// 14 MiB to 16 MiB per direction are in flight on Azure before a sender stalls.
const DEFAULT_BUFFER: usize = 15 << 20;

/// A request is at the relay after five one-way trips: two to open TCP, two for TLS 1.3, and its own. Its answer is the
/// sixth. A plain-text connection is charged the same, because on Azure there is none.
const TRIPS_OF_REQUEST: u32 = 5;

impl Emulation {
    /// Nothing is emulated.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of Azure Relay, seen from two ends near its region.
    ///
    /// A dial takes 0.42 s, and one in 20 takes 3 s to 7 s longer. A message takes 60 ms. A connection carries 14 Mbit/s
    /// and holds 15 MiB in each direction. Control channels are cut after 240 s of silence and after 24 hours at any rate
    /// ([`RelayServerBuilder::recycle_after`](super::RelayServerBuilder::recycle_after) overrides it), relayed connections
    /// after 120 s of silence. A listener whose sender is lost gets a Close with 1001 and not an end without one.
    ///
    /// The figures are those of others who have measured the service; each has its source in the code.
    pub fn azure() -> Self {
        Self::new()
            // Dials of 0.40 s to 0.55 s, published in 2026 from measurements at real namespaces, with the model that fits
            // them: six one-way trips of each side at 30 ms, and the hold.
            .sender_delay(Duration::from_millis(30))
            .listener_delay(Duration::from_millis(30))
            // In that model 50 ms of match-making, and 10 ms to check a SAS token.
            .dial_hold(Duration::from_millis(60))
            // In those measurements one dial in 10 to 40 took 3 s to 7 s, while its listener was idle.
            .dial_spikes(20, Duration::from_secs(3)..=Duration::from_secs(7))
            // Transfers of 10 MiB over one connection, in the same measurements. The service's makers give no figure.
            .rate(14_000_000)
            // What a sender could send to a listener that did not read, in the same measurements.
            .buffer(DEFAULT_BUFFER)
            // A user's report: 4 min 10 s to 15 s. Four minutes is what Azure's load balancers have by default.
            .cut_idle_listeners(Duration::from_secs(240))
            // From the same measurements; no other source.
            .cut_idle_connections(Duration::from_secs(120))
            // Each control channel, by design: Microsoft's page on the service's exceptions.
            .recycle_after(Duration::from_secs(24 * 60 * 60))
            // Microsoft's protocol guide, in its table of close codes.
            .lost_sender(LostSender::GoingAway)
    }

    /// How long a packet takes from a sender to the relay, and from the relay to a sender: half a round trip. Zero, if
    /// not given.
    ///
    /// A connection takes six such trips to open (TCP, TLS, request, answer). Each message of a relayed connection
    /// takes one at this side and one at the other, whatever else is on its way: a delay costs no throughput. What is sent
    /// before the slower of the two sides has its answer is late by the difference. Signs of life and the bodies of HTTP
    /// requests are not delayed.
    pub fn sender_delay(mut self, one_way: Duration) -> Self {
        self.sender_delay = one_way.min(MAX_TIME);
        self
    }

    /// As [`Emulation::sender_delay`], between listeners and the relay. A listener learns of a sender one trip late.
    pub fn listener_delay(mut self, one_way: Duration) -> Self {
        self.listener_delay = one_way.min(MAX_TIME);
        self
    }

    /// How long the relay takes to find the listener for a sender, before it tells that listener. The sender's answer
    /// waits for it. Zero, if not given. HTTP requests are not held.
    pub fn dial_hold(mut self, time: Duration) -> Self {
        self.dial_hold = time.min(MAX_TIME);
        self
    }

    /// Lets one dial of a sender in `one_in` take longer by a random time out of `extra`, on top of
    /// [`Emulation::dial_hold`]. Which one is random too; 0 is none, 1 is every one. No dial, if not given.
    ///
    /// An empty range is its start.
    pub fn dial_spikes(mut self, one_in: u32, extra: RangeInclusive<Duration>) -> Self {
        let shortest = (*extra.start()).min(MAX_TIME);
        self.spikes = (one_in > 0).then(|| Spikes {
            one_in,
            shortest,
            longest: (*extra.end()).clamp(shortest, MAX_TIME),
        });
        self
    }

    /// How much a relayed connection carries in each of its directions, in bits of payload per second. 0 is no limit, as
    /// is no call of this. HTTP requests are not slowed.
    pub fn rate(mut self, bits_per_second: u64) -> Self {
        self.rate = NonZeroU64::new(bits_per_second);
        self
    }

    /// How many bytes may be on their way in each direction of a relayed connection, before the relay reads no more from
    /// the end that sends; 15 MiB if not given but a delay or a rate is.
    ///
    /// What waits for its delay or for the rate counts, and 192 bytes more for each piece. One piece, of 32 KiB at most,
    /// may always be there, so a buffer of 0 lets one at a time pass.
    ///
    /// # Limits
    /// All connections of a relay together hold 1 GiB, however large this is, and one piece each.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = Some(bytes);
        self
    }

    /// Cuts a control channel on which nothing passed for so long, in either direction, without a Close. A ping or pong of
    /// the listener is enough to keep it; the relay, which pings silent listeners otherwise, does not ping then. It may last
    /// up to a 24th longer. Never, if not given or zero.
    pub fn cut_idle_listeners(mut self, after: Duration) -> Self {
        self.control_idle = idle_time(after);
        self
    }

    /// As [`Emulation::cut_idle_listeners`], for each end of a relayed connection: both are cut when nothing passed at one
    /// of them.
    pub fn cut_idle_connections(mut self, after: Duration) -> Self {
        self.data_idle = idle_time(after);
        self
    }

    fn lost_sender(mut self, shows_as: LostSender) -> Self {
        self.lost_sender = shows_as;
        self
    }

    fn recycle_after(mut self, age: Duration) -> Self {
        self.recycle_after = Some(age);
        self
    }

    /// Makes chance repeatable: with the same seed the same dials of a row are slow. From the operating system's random
    /// source, if not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// A relay's [`Emulation`] at work.
#[derive(Debug)]
pub(super) struct Emulator {
    settings: Emulation,
    dice: Dice,
    /// What all lines hold.
    held: Arc<AtomicUsize>,
}

/// What a relayed connection runs under.
pub(super) struct Conditions {
    /// What is between the two ends, if anything is.
    pub(super) lines: Option<Lines>,
    /// For each end.
    pub(super) liveness: Liveness,
    /// What a listener is told when its sender is lost, if anything.
    pub(super) sender_gone: Option<CloseReason>,
}

/// The two directions of one relayed connection.
pub(super) struct Lines {
    pub(super) to_listener: DelayLine,
    pub(super) to_sender: DelayLine,
}

impl Emulator {
    pub(super) fn new(settings: Emulation) -> Self {
        Self {
            dice: settings.seed.map_or_else(Dice::new, Dice::seeded),
            settings,
            held: Arc::default(),
        }
    }

    /// The way of a new connection's request to the relay, from its first packet on.
    pub(super) async fn request_arrives(&self, from: Side) {
        pause(self.one_way(from) * TRIPS_OF_REQUEST).await;
    }

    /// The way of an answer or of a message on the control channel.
    pub(super) async fn answer_arrives(&self, at: Side) {
        pause(self.one_way(at)).await;
    }

    /// The search for a listener.
    pub(super) async fn match_making(&self) {
        pause(self.settings.dial_hold + self.spike()).await;
    }

    /// At this age a control channel is cut, if at all.
    pub(super) fn recycle_after(&self) -> Option<Duration> {
        self.settings.recycle_after
    }

    pub(super) fn control_liveness(&self) -> Liveness {
        self.settings
            .control_idle
            .map_or_else(Liveness::of_control, Liveness::cut_after)
    }

    /// For a new connection.
    pub(super) fn conditions(&self) -> Conditions {
        let liveness = self.settings.data_idle;
        Conditions {
            lines: self.lines(),
            liveness: liveness.map_or_else(Liveness::of_data, Liveness::cut_after),
            sender_gone: (self.settings.lost_sender == LostSender::GoingAway)
                .then(|| CloseReason::new(CloseReason::GOING_AWAY, "The sender went away")),
        }
    }

    fn lines(&self) -> Option<Lines> {
        let Emulation { rate, buffer, .. } = self.settings;
        let delay = self.one_way(Side::Sender) + self.one_way(Side::Listener);
        if delay.is_zero() && rate.is_none() && buffer.is_none() {
            return None;
        }
        let line = || {
            let buffer = buffer.unwrap_or(DEFAULT_BUFFER);
            DelayLine::new(delay, rate, buffer, Arc::clone(&self.held))
        };
        Some(Lines {
            to_listener: line(),
            to_sender: line(),
        })
    }

    /// How many bytes all relayed connections hold together.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn one_way(&self, side: Side) -> Duration {
        match side {
            Side::Sender => self.settings.sender_delay,
            Side::Listener => self.settings.listener_delay,
        }
    }

    fn spike(&self) -> Duration {
        let Some(spikes) = &self.settings.spikes else {
            return Duration::ZERO;
        };
        if !self.dice.one_in(spikes.one_in) {
            return Duration::ZERO;
        }
        self.dice.between(spikes.shortest, spikes.longest)
    }
}

impl Lines {
    pub(super) fn are_empty(&self) -> bool {
        self.to_listener.is_empty() && self.to_sender.is_empty()
    }
}

fn idle_time(after: Duration) -> Option<Duration> {
    (!after.is_zero()).then_some(after.min(MAX_TIME))
}

/// A timer is a millisecond late on average: no time needs none.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_hit_as_often_as_set_and_repeat_with_their_seed() {
        const DIALS: usize = 20_000;
        let range = Duration::from_secs(3)..=Duration::from_secs(7);
        let spikes = |seed| {
            let emulation = Emulation::new().dial_spikes(20, range.clone()).seed(seed);
            let emulator = Emulator::new(emulation);
            (0..DIALS).map(|_| emulator.spike()).collect::<Vec<_>>()
        };
        let first = spikes(1);
        let hits = first.iter().copied().filter(|spike| !spike.is_zero());
        let hits: Vec<_> = hits.collect();
        // The expected 1000 with a standard deviation of 31.
        assert!((850..1150).contains(&hits.len()), "{}", hits.len());
        assert!(hits.iter().all(|&spike| range.contains(&spike)));
        let mean = hits.iter().sum::<Duration>() / u32::try_from(hits.len()).unwrap();
        assert!((4.8..5.2).contains(&mean.as_secs_f64()), "{mean:?}");
        assert_eq!(first, spikes(1));
        assert_ne!(first, spikes(2));
    }

    #[test]
    fn the_ends_of_what_can_be_set() {
        let second = Duration::from_secs(1);
        let spike =
            |one_in, range| Emulator::new(Emulation::new().dial_spikes(one_in, range)).spike();
        assert_eq!(spike(0, second..=second), Duration::ZERO);
        assert_eq!(spike(1, second..=second), second);
        assert_eq!(spike(1, second * 2..=second), second * 2, "an empty range");
        assert_eq!(spike(1, Duration::MAX..=Duration::MAX), MAX_TIME);
        let slow = Emulator::new(Emulation::new().sender_delay(Duration::MAX));
        assert_eq!(slow.one_way(Side::Sender), MAX_TIME);
        assert_eq!(slow.one_way(Side::Listener), Duration::ZERO);
    }
}
