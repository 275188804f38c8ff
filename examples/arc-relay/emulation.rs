//! How slow and how forgetful the relay is on purpose.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use arc_cluster_connect::relay::server::{Emulation, RelayServerBuilder};
use clap::{Args, ValueEnum};

#[derive(Args)]
#[command(next_help_heading = "Emulation")]
pub struct EmulationArguments {
    /// Behave as this relay does, in delays, rates, limits and cuts; the other options here change single figures of it
    #[arg(long, value_name = "RELAY")]
    emulate: Option<Model>,

    /// One-way delay in milliseconds, for senders and listeners, or for each as SENDER:LISTENER.
    /// A connection takes six of each to open
    #[arg(long, value_name = "MS[:MS]")]
    delay: Option<Delays>,

    /// How long a sender's dial is held before its listener is told, in milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    dial_hold: Option<Duration>,

    /// Let one dial in ONE_IN, by chance, take this much longer, in milliseconds; 0 for none
    #[arg(long, value_name = "ONE_IN:MS..MS")]
    spike: Option<Spike>,

    /// Makes --spike hit the same dials in every run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// What a relayed connection carries in each direction, in Mbit/s; 0 for no limit
    #[arg(long, value_name = "MBIT", value_parser = bits_per_second)]
    rate: Option<u64>,

    /// How much may be on its way in each direction of a relayed connection, in MiB
    #[arg(long, value_name = "MIB", value_parser = mebibytes)]
    buffer: Option<usize>,

    /// Cut control channels after 240 s of silence and relayed connections after 120 s, as Azure does
    #[arg(long)]
    idle_cut: bool,

    /// Cut control channels at this age, in seconds, as Azure does every 86400
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    recycle_after: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// Azure Relay, seen from near its region
    Azure,
}

/// Azure's, by what was measured.
const CONTROL_IDLE: Duration = Duration::from_secs(240);
const DATA_IDLE: Duration = Duration::from_secs(120);

impl EmulationArguments {
    pub fn apply(&self, mut builder: RelayServerBuilder) -> RelayServerBuilder {
        let mut emulation = match self.emulate {
            Some(Model::Azure) => Emulation::azure(),
            None => Emulation::new(),
        };
        if let Some(Delays { sender, listener }) = self.delay {
            emulation = emulation.sender_delay(sender).listener_delay(listener);
        }
        if let Some(time) = self.dial_hold {
            emulation = emulation.dial_hold(time);
        }
        if let Some(Spike { one_in, extra }) = &self.spike {
            emulation = emulation.dial_spikes(*one_in, extra.clone());
        }
        if let Some(seed) = self.seed {
            emulation = emulation.seed(seed);
        }
        if let Some(rate) = self.rate {
            emulation = emulation.rate(rate);
        }
        if let Some(bytes) = self.buffer {
            emulation = emulation.buffer(bytes);
        }
        if self.idle_cut {
            emulation = emulation
                .cut_idle_listeners(CONTROL_IDLE)
                .cut_idle_connections(DATA_IDLE);
        }
        if let Some(seconds) = self.recycle_after {
            builder = builder.recycle_after(Duration::from_secs(seconds));
        }
        builder.emulate(emulation)
    }
}

/// `MS` or `MS:MS`.
#[derive(Clone, Copy)]
struct Delays {
    sender: Duration,
    listener: Duration,
}

impl FromStr for Delays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sender, listener) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            sender: milliseconds(sender)?,
            listener: milliseconds(listener)?,
        })
    }
}

/// `ONE_IN:MS..MS`, `ONE_IN:MS`, or `0`.
#[derive(Clone)]
struct Spike {
    one_in: u32,
    extra: RangeInclusive<Duration>,
}

impl FromStr for Spike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self {
                one_in: 0,
                extra: Duration::ZERO..=Duration::ZERO,
            });
        }
        let form = "write it like 20:3000..7000, for one dial in 20 and 3 s to 7 s";
        let (one_in, extra) = text.split_once(':').ok_or(form)?;
        let one_in = one_in
            .parse()
            .map_err(|_| format!("'{one_in}' is not a number of dials; {form}"))?;
        let (shortest, longest) = extra.split_once("..").unwrap_or((extra, extra));
        let (shortest, longest) = (milliseconds(shortest)?, milliseconds(longest)?);
        if shortest > longest {
            return Err(format!("{extra} ends before it begins; {form}"));
        }
        Ok(Self {
            one_in,
            extra: shortest..=longest,
        })
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| format!("'{text}' is not a whole number of milliseconds"))
}

/// From Mbit/s, which may have decimals.
fn bits_per_second(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a number of Mbit/s, such as 14 or 0.5");
    let megabits: f64 = text.parse().map_err(|_| wrong())?;
    // A terabit per second is no limit any more.
    if !(0.0..=1e6).contains(&megabits) {
        return Err(wrong());
    }
    let bits = (megabits * 1e6).round() as u64;
    if bits == 0 && megabits > 0.0 {
        return Err(format!("'{text}' Mbit/s is less than a bit per second"));
    }
    Ok(bits)
}

fn mebibytes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .and_then(|mebibytes: usize| mebibytes.checked_mul(1 << 20))
        .ok_or_else(|| format!("'{text}' is not a whole number of MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn one_delay_is_for_both_sides() {
        let delays = |text: &str| {
            let Delays { sender, listener } = text.parse().ok()?;
            Some((sender, listener))
        };
        assert_eq!(delays("30"), Some((ms(30), ms(30))));
        assert_eq!(delays("90:0"), Some((ms(90), ms(0))));
        for wrong in ["", "x", "30ms", "-1", "1:", ":1", "1:2:3", "1.5"] {
            assert_eq!(delays(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_spike_has_a_chance_and_a_range() {
        let spike = |text: &str| {
            let Spike { one_in, extra } = text.parse().ok()?;
            Some((one_in, extra))
        };
        assert_eq!(spike("20:3000..7000"), Some((20, ms(3000)..=ms(7000))));
        assert_eq!(spike("1:50"), Some((1, ms(50)..=ms(50))));
        assert_eq!(spike("0"), Some((0, ms(0)..=ms(0))));
        for wrong in [
            "",
            "20",
            "x:1..2",
            "20:2..1",
            "20:1..",
            "20:1..2..3",
            "-1:1..2",
        ] {
            assert_eq!(spike(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_and_sizes() {
        assert_eq!(bits_per_second("14"), Ok(14_000_000));
        assert_eq!(bits_per_second("0.5"), Ok(500_000));
        assert_eq!(bits_per_second("0"), Ok(0));
        for wrong in ["", "x", "-1", "NaN", "inf", "1e9", "0.0000001"] {
            assert!(bits_per_second(wrong).is_err(), "{wrong}");
        }
        assert_eq!(mebibytes("15"), Ok(15 << 20));
        for wrong in ["", "x", "-1", "18446744073709551615"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }
}
