//! The server-side tables that `kubectl get` prints.

use std::ops::Range;

use serde_json::{Value, json};
use time::{Date, Month, OffsetDateTime, Time};

use super::resource::ResourceKind;

/// The `columnDefinitions` of a kind.
pub(super) fn columns(resource: &ResourceKind) -> Value {
    let columns = names(resource).iter().map(|(name, priority)| {
        json!({
            "name": name,
            "type": "string",
            "format": if *name == "Name" { "name" } else { "" },
            "description": "",
            "priority": priority,
        })
    });
    Value::Array(columns.collect())
}

/// The row of one object, with as much of the object as the client asked for by `includeObject`.
pub(super) fn row(resource: &ResourceKind, object: &Value, include_object: &str) -> Value {
    let cells: Vec<Value> = names(resource)
        .iter()
        .map(|(column, _)| json!(cell(column, object)))
        .collect();
    let included = match include_object {
        "None" => Value::Null,
        "Object" => object.clone(),
        _ => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        }),
    };
    json!({ "cells": cells, "object": included })
}

/// A table of these rows.
pub(super) fn table(resource_version: &str, columns: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": resource_version },
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// Column names and priorities; what is above 0 is shown by `-o wide` only.
fn names(resource: &ResourceKind) -> &'static [(&'static str, u8)] {
    match resource.plural {
        "pods" => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
        ],
        "namespaces" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        "configmaps" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "secrets" => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        _ => &[("Name", 0), ("Age", 0)],
    }
}

fn cell(column: &str, object: &Value) -> String {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or("<none>").to_owned()
    };
    match column {
        "Name" => text("/metadata/name"),
        "Ready" => {
            let containers = object["spec"]["containers"].as_array().map_or(0, Vec::len);
            let ready = object["status"]["containerStatuses"]
                .as_array()
                .map_or(0, |statuses| {
                    statuses
                        .iter()
                        .filter(|status| status["ready"] == true)
                        .count()
                });
            format!("{ready}/{containers}")
        }
        "Status" => text("/status/phase"),
        "Restarts" => "0".to_owned(),
        "Type" => text("/type"),
        "Data" => object["data"]
            .as_object()
            .map_or(0, serde_json::Map::len)
            .to_string(),
        "IP" => text("/status/podIP"),
        "Node" => text("/spec/nodeName"),
        "Age" => {
            let created = object["metadata"]["creationTimestamp"]
                .as_str()
                .and_then(parse_time);
            created.map_or_else(
                || "<unknown>".to_owned(),
                |created| human_duration((OffsetDateTime::now_utc() - created).whole_seconds()),
            )
        }
        _ => String::new(),
    }
}

/// Kubernetes writes times to the second, in UTC: `2026-01-31T08:00:00Z`.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let number = |range: Range<usize>| text.get(range)?.parse::<u8>().ok();
    let year = text.get(0..4)?.parse().ok()?;
    let month = Month::try_from(number(5..7)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(8..10)?).ok()?;
    let time = Time::from_hms(number(11..13)?, number(14..16)?, number(17..19)?).ok()?;
    Some(date.with_time(time).assume_utc())
}

fn human_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{resource::builtin, store},
        *,
    };

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        let pod = json!({
            "metadata": { "name": "web", "creationTimestamp": store::now() },
            "spec": { "containers": [{ "name": "a" }, { "name": "b" }] },
            "status": { "phase": "Running", "containerStatuses": [{ "ready": true }] },
        });
        let pods = builtin("pods");
        let row = row(pods, &pod, "Metadata");
        assert_eq!(
            row["cells"].as_array().unwrap().len(),
            columns(pods).as_array().unwrap().len()
        );
        assert_eq!(row["cells"][0], "web");
        assert_eq!(row["cells"][1], "1/2");
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    }

    #[test]
    fn ages_are_short() {
        let ages: Vec<String> = [-5, 59, 600, 7_200, 900_000].map(human_duration).into();
        assert_eq!(ages, ["0s", "59s", "10m", "2h", "10d"]);
        assert!(parse_time("yesterday").is_none());
    }
}
