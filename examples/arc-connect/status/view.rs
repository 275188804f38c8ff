//! The table for people.

use std::time::{Duration, SystemTime};

use azure_core::time::parse_rfc3339;
use serde_json::Value;

use super::ask::Answer;
use crate::{common::printable, running::RunningCluster, table::Table};

const HEADER: [&str; 9] = [
    "PROXY",
    "PID",
    "CLUSTER",
    "TUNNEL",
    "RTT",
    "STREAMS",
    "SENT",
    "RECEIVED",
    "CREDENTIAL",
];

/// One line for each cluster, and the last errors below.
pub fn table(answers: &[Answer], now: SystemTime) -> String {
    if answers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(HEADER);
    let mut remarks = Vec::new();
    for answer in answers {
        let address = answer.running.address.to_string();
        let pid = answer.running.pid.to_string();
        if let Err(error) = &answer.status {
            remarks.push(format!("{address} does not answer: {}", error.report()));
        }
        let clusters = answer.clusters();
        if clusters.is_empty() {
            table.row(row(&address, &pid, "none", None, now));
        }
        for (named, told) in clusters {
            let name = name(named, told);
            table.row(row(&address, &pid, &name, told, now));
            if let Some(told) = told {
                remarks.extend(remark(&name, told));
            }
        }
    }
    let mut text = table.to_string();
    for remark in remarks {
        text.push_str(&printable(&remark));
        text.push('\n');
    }
    text
}

fn row(address: &str, pid: &str, name: &str, told: Option<&Value>, now: SystemTime) -> [String; 9] {
    let none = Value::Null;
    let told = told.unwrap_or(&none);
    let tunnel = &told["tunnel"];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        address.to_owned(),
        pid.to_owned(),
        name.to_owned(),
        or_dash(state(tunnel)),
        or_dash(
            tunnel["roundTripMilliseconds"]
                .as_f64()
                .map(|time| format!("{time:.1} ms")),
        ),
        or_dash(tunnel["streams"].as_u64().map(|count| count.to_string())),
        or_dash(told["bytesSent"].as_u64().map(bytes)),
        or_dash(told["bytesReceived"].as_u64().map(bytes)),
        or_dash(credential(tunnel, now)),
    ]
}

/// What a person calls the cluster.
fn name(named: Option<&RunningCluster>, told: Option<&Value>) -> String {
    let named = named.map(|named| named.name.clone());
    named
        .or_else(|| Some(told?["id"].as_str()?.get(..12)?.to_owned()))
        .unwrap_or_else(|| "?".to_owned())
}

fn state(tunnel: &Value) -> Option<String> {
    let state = tunnel["state"].as_str()?;
    Some(match state {
        "waiting" => match tunnel["retryInMilliseconds"].as_f64() {
            Some(wait) => format!("lost, again in {:.0} s", wait / 1000.0),
            None => "lost".to_owned(),
        },
        "connecting" => match tunnel["attempt"].as_u64() {
            Some(attempt) if attempt > 1 => format!("connecting ({attempt})"),
            _ => "connecting".to_owned(),
        },
        other => other.to_owned(),
    })
}

fn credential(tunnel: &Value, now: SystemTime) -> Option<String> {
    let end = tunnel["credential"]["expiresAt"].as_str()?;
    let end = SystemTime::from(parse_rfc3339(end).ok()?);
    Some(match end.duration_since(now) {
        Ok(left) => duration(left),
        Err(_) => "expired".to_owned(),
    })
}

fn remark(name: &str, told: &Value) -> Option<String> {
    let tunnel = &told["tunnel"];
    if let Some(failure) = tunnel["credential"]["failure"].as_str() {
        return Some(format!("{name}: no new credential: {failure}"));
    }
    if let Some(reason) = tunnel["reason"].as_str() {
        return Some(format!("{name}: {reason}"));
    }
    let last = &told["lastError"];
    Some(format!(
        "{name}: last lost at {}: {}",
        last["at"].as_str()?,
        last["message"].as_str()?
    ))
}

/// Two digits after the point at most, as a person reads them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn duration(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{} s", left.as_secs()),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::{Error, ErrorKind, kubeconfig::ProxyEndpoint};
    use serde_json::json;

    use super::*;
    use crate::running::Running;

    const NOW: Duration = Duration::from_secs(1_767_225_600);

    fn running() -> Running {
        let endpoint = ProxyEndpoint::new("https://127.0.0.1:7/proxies/ab", "PEM", "hush".into());
        let mut running = Running::this_process(([127, 0, 0, 1], 7).into(), &endpoint);
        running.pid = 4711;
        running.with_cluster(RunningCluster {
            id: "ab".to_owned(),
            name: "till-7".to_owned(),
            server: endpoint.server().to_owned(),
            context: Some("till".to_owned()),
            resource: None,
        })
    }

    fn shown(status: arc_cluster_connect::Result<Value>) -> (String, Value) {
        let answer = Answer {
            running: running(),
            status,
        };
        let json = answer.to_json();
        assert!(!json.to_string().contains("hush"), "{json}");
        (table(&[answer], SystemTime::UNIX_EPOCH + NOW), json)
    }

    #[test]
    fn a_connected_cluster_has_figures() {
        let (table, json) = shown(Ok(json!({
            "version": "0.1.0", "draining": false,
            "clusters": [{
                "id": "ab", "bytesSent": 310, "bytesReceived": 97_000,
                "tunnel": {
                    "state": "connected", "roundTripMilliseconds": 23.14, "streams": 2,
                    "credential": { "expiresAt": "2026-01-01T02:55:00Z", "issued": 1, "failure": null },
                },
                "lastError": null,
            }],
        })));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "PROXY        PID   CLUSTER  TUNNEL     RTT      STREAMS  SENT   RECEIVED  CREDENTIAL",
                "127.0.0.1:7  4711  till-7   connected  23.1 ms  2        310 B  94.7 KiB  2 h 55 min",
            ]
        );
        assert_eq!(json["clusters"][0]["name"], "till-7");
        assert_eq!(json["clusters"][0]["context"], "till");
        assert_eq!(json["clusters"][0]["tunnel"]["streams"], 2);
        assert_eq!(json["error"], Value::Null);
    }

    #[test]
    fn what_is_wrong_stands_below_the_table() {
        let (table, _) = shown(Ok(json!({ "clusters": [{
            "id": "ab",
            "tunnel": { "state": "waiting", "retryInMilliseconds": 5_000.0, "reason": "no listener" },
        }] })));
        assert!(table.contains("lost, again in 5 s"), "{table}");
        assert!(table.ends_with("till-7: no listener\n"), "{table}");

        let (table, _) = shown(Ok(json!({ "clusters": [{
            "id": "ab",
            "tunnel": {
                "state": "connected",
                "credential": { "expiresAt": "2025-12-31T23:59:59Z", "failure": "not signed in" },
            },
        }] })));
        assert!(table.contains("  expired\n"), "{table}");
        assert!(
            table.ends_with("till-7: no new credential: not signed in\n"),
            "{table}"
        );

        let (table, json) = shown(Err(Error::new(ErrorKind::Timeout, "no answer within 3s")));
        assert!(table.contains("till-7   -"), "{table}");
        assert!(
            table.ends_with("127.0.0.1:7 does not answer: no answer within 3s\n"),
            "{table}"
        );
        assert_eq!(json["error"], "no answer within 3s");
        assert_eq!(json["clusters"][0]["name"], "till-7");
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(table(&[], SystemTime::now()), "");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(60)), "1 min");
        assert_eq!(duration(Duration::from_secs(3_660)), "1 h 01 min");
    }
}
