//! Container logs: a few lines that are there, and more that follow one by one.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    faults::LogFollow,
    query::Query,
    resource::builtin,
    response::{self, Response},
    server::Server,
    status::Status,
    store,
};

/// How many lines every container has written before anybody looks.
const PAST_LINES: u32 = 20;

pub(super) fn log(
    server: &Server,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Result<Response, Status> {
    let object = server.store.require(builtin("pods"), namespace, pod)?;
    require_container(&object, query.first("container"))?;
    if query.is_set("previous") {
        return Err(Status::bad_request(format!(
            "previous terminated container in pod \"{pod}\" not found"
        )));
    }

    let timestamps = query.is_set("timestamps");
    let pod = pod.to_owned();
    let line = move |number: u32| {
        let time = if timestamps {
            format!("{} ", store::now())
        } else {
            String::new()
        };
        Bytes::from(format!("{time}line {number} of {pod}\n"))
    };
    let tail = query.number("tailLines").map_or(PAST_LINES, |lines| {
        u32::try_from(lines).unwrap_or(PAST_LINES).min(PAST_LINES)
    });
    let past: Vec<Bytes> = (PAST_LINES - tail + 1..=PAST_LINES).map(&line).collect();
    if !query.is_set("follow") {
        let mut text = past.concat();
        if let Some(limit) = query.number("limitBytes") {
            text.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        return Ok(response::bytes(http::StatusCode::OK, "text/plain", text));
    }

    let past = stream::iter(past);
    let pieces = match server.faults.log_follow() {
        LogFollow::Silent => past.chain(stream::pending()).boxed(),
        LogFollow::Lines { count, every } => {
            let coming = stream::iter(1..=count).then(move |number| {
                let line = line(PAST_LINES + number);
                async move {
                    sleep(every).await;
                    line
                }
            });
            past.chain(coming).boxed()
        }
    };
    Ok(response::streamed(
        "text/plain",
        pieces.map(Ok::<_, io::Error>),
    ))
}

/// Refuses a container that the pod does not have.
pub(super) fn require_container(pod: &Value, container: Option<&str>) -> Result<(), Status> {
    // The JavaScript client names the empty container, which the real server takes for none.
    let Some(container) = container.filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let has = pod["spec"]["containers"]
        .as_array()
        .is_some_and(|containers| containers.iter().any(|other| other["name"] == container));
    if has {
        Ok(())
    } else {
        Err(Status::bad_request(format!(
            "container {container} is not valid for pod {}",
            pod["metadata"]["name"].as_str().unwrap_or_default()
        )))
    }
}
