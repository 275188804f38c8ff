//! Whether this machine's clock is right, by what servers say.

use super::check::Finding;

/// Entra ID and relays allow five minutes; Kubernetes' tokens none at all.
const FAILURE: f64 = 300.0;
const WARNING: f64 = 60.0;

/// By how many seconds each of the servers is ahead of us.
pub fn judge(servers: &[(String, f64)]) -> Finding {
    let mut sorted: Vec<f64> = servers.iter().map(|(_, ahead)| *ahead).collect();
    sorted.sort_by(f64::total_cmp);
    // Of an even number the two in the middle: the one that is kinder to us.
    let middle = match sorted.len() {
        0 => return Finding::skipped("no server told the time"),
        count if count % 2 == 1 => sorted[count / 2],
        count => {
            let (one, other) = (sorted[count / 2 - 1], sorted[count / 2]);
            if one.abs() < other.abs() { one } else { other }
        }
    };
    if middle.abs() >= WARNING {
        let direction = if middle > 0.0 { "behind" } else { "ahead of" };
        let detail = format!(
            "this machine's clock is {} {direction} what {} tell",
            span(middle),
            servers_text(servers.len())
        );
        let advice = "set the clock, and have it kept by NTP (`timedatectl set-ntp true`, `w32tm /resync`): tokens and relay \
            keys are refused when clocks differ by minutes";
        return if middle.abs() >= FAILURE {
            Finding::failed(detail, advice)
        } else {
            Finding::warning(detail, advice)
        };
    }
    let off = servers
        .iter()
        .find(|(_, ahead)| (ahead - middle).abs() >= FAILURE);
    if let Some((server, ahead)) = off {
        return Finding::warning(
            format!(
                "the clock of {server} differs from ours by {}, and others agree with ours",
                span(*ahead)
            ),
            "have that server's clock set, or look for a proxy that answers in its place",
        );
    }
    Finding::ok(format!(
        "within {} of {}",
        span(middle),
        servers_text(servers.len())
    ))
}

fn servers_text(count: usize) -> String {
    if count == 1 {
        "1 server".to_owned()
    } else {
        format!("{count} servers")
    }
}

fn span(seconds: f64) -> String {
    let seconds = seconds.abs();
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7_200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.0} h", seconds / 3_600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Outcome, *};

    fn judged(ahead: &[f64]) -> Finding {
        let servers: Vec<_> = ahead
            .iter()
            .enumerate()
            .map(|(number, ahead)| (format!("s{number}"), *ahead))
            .collect();
        judge(&servers)
    }

    #[test]
    fn what_most_servers_say_counts() {
        assert_eq!(judged(&[]).outcome, Outcome::Skipped);
        assert_eq!(judged(&[0.4, -0.3, 0.2]).outcome, Outcome::Ok);
        assert_eq!(judged(&[90.0]).outcome, Outcome::Warning);
        let behind = judged(&[3_600.0, 3_601.0, 3_599.0]);
        assert_eq!(behind.outcome, Outcome::Failed);
        assert!(behind.detail.contains("60 min behind"), "{behind:?}");
        assert!(behind.advice.unwrap().contains("NTP"));
        let ahead = judged(&[-9_000.0]);
        assert!(ahead.detail.contains("2 h ahead of"), "{ahead:?}");
    }

    #[test]
    fn one_server_that_is_off_is_that_servers_fault() {
        let finding = judged(&[0.0, 0.1, 4_000.0]);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.detail.contains("the clock of s2"), "{finding:?}");
        assert_eq!(judged(&[0.0, 4_000.0]).outcome, Outcome::Warning);
    }
}
