//! Watches: one flushed line of JSON for each change, with bookmarks, from a resource version on.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    accept::{self, Shape},
    query::Query,
    resource_path::ResourcePath,
    response::{self, Response},
    selector::Selector,
    server::Server,
    status::Status,
    store::{Change, Store},
    table, to_json,
};

/// How often a client that wants bookmarks gets one. The real server takes about a minute; tests should not.
const BOOKMARK_EVERY: Duration = Duration::from_secs(2);

/// How long a watch lasts when the client does not say; the real server ends them after 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1_800);

pub(super) fn watch(
    server: &Server,
    path: &ResourcePath,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let shape = accept::preferred(headers, &[Shape::Table])?;
    let timeout = query
        .number("timeoutSeconds")
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let mut watcher = Watcher {
        store: Arc::clone(&server.store),
        path: path.clone(),
        selector: Selector::parse(query)?,
        shape,
        include_object: query
            .first("includeObject")
            .unwrap_or("Metadata")
            .to_owned(),
        sends_columns: true,
        bookmarks: query.is_set("allowWatchBookmarks"),
        seen: 0,
        ready: VecDeque::new(),
        ends: Instant::now() + timeout,
        is_over: false,
    };
    // No version, or 0, means: tell me first of what there is.
    let from = query.number("resourceVersion").unwrap_or(0);
    let wants_initial = query.is_set("sendInitialEvents");
    if from == 0 || wants_initial {
        watcher.list_existing(wants_initial);
    } else {
        watcher.seen = from;
    }
    let latest = server.store.subscribe();
    let events = stream::unfold((watcher, latest), |(mut watcher, mut latest)| async move {
        let event = watcher.next(&mut latest).await?;
        Some((Ok::<_, io::Error>(event), (watcher, latest)))
    });
    Ok(response::streamed("application/json", events))
}

struct Watcher {
    store: Arc<Store>,
    path: ResourcePath,
    selector: Selector,
    shape: Shape,
    include_object: String,
    /// A table's columns come with the first event only.
    sends_columns: bool,
    bookmarks: bool,
    /// The version up to which the client knows everything.
    seen: u64,
    ready: VecDeque<Bytes>,
    ends: Instant,
    is_over: bool,
}

impl Watcher {
    async fn next(&mut self, latest: &mut tokio::sync::watch::Receiver<u64>) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            // Marked as seen before the changes are read: a change in between is read now and wakes once in vain.
            latest.borrow_and_update();
            self.collect();
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark_at = Instant::now() + BOOKMARK_EVERY;
            tokio::select! {
                _ = latest.changed() => {}
                () = sleep_until(bookmark_at), if self.bookmarks => self.push_bookmark(json!({})),
                () = sleep_until(self.ends) => self.is_over = true,
            }
        }
    }

    fn list_existing(&mut self, marks_end: bool) {
        let (objects, version) = self.store.list(self.path.resource, &self.path.namespace);
        self.seen = version;
        for object in objects {
            if self.selector.matches(&object) {
                self.push("ADDED", &object);
            }
        }
        if marks_end {
            self.push_bookmark(json!({ "k8s.io/initial-events-end": "true" }));
        }
    }

    fn collect(&mut self) {
        match self.store.changes_after(self.seen) {
            Ok(changes) => {
                for change in changes {
                    self.seen = change.version;
                    self.push_change(&change);
                }
            }
            Err(expired) => {
                let event = json!({ "type": "ERROR", "object": expired.to_value() });
                self.ready.push_back(line(&event));
                self.is_over = true;
            }
        }
    }

    fn push_change(&mut self, change: &Change) {
        let concerns = change.resource == self.path.resource
            && (self.path.namespace.is_empty() || self.path.namespace == change.namespace);
        if !concerns {
            return;
        }
        let selected = |object: &Option<Arc<Value>>| {
            object
                .clone()
                .filter(|object| self.selector.matches(object))
        };
        match (selected(&change.before), selected(&change.after)) {
            (None, None) => {}
            (None, Some(after)) => self.push("ADDED", &after),
            (Some(_), Some(after)) => self.push("MODIFIED", &after),
            (Some(before), None) => {
                // The version of a deletion is that of the change, not the object's last one.
                let mut last = Value::clone(&before);
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.push("DELETED", &last);
            }
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let resource = self.path.resource;
        let object = if self.shape == Shape::Table {
            let version = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default();
            let columns = if std::mem::take(&mut self.sends_columns) {
                table::columns(resource)
            } else {
                json!([])
            };
            let row = table::row(resource, object, &self.include_object);
            table::table(version, columns, vec![row])
        } else {
            object.clone()
        };
        self.ready
            .push_back(line(&json!({ "type": kind, "object": object })));
    }

    fn push_bookmark(&mut self, annotations: Value) {
        let resource = self.path.resource;
        let mut object = json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(),
            "metadata": {
                "resourceVersion": self.seen.to_string(),
                "creationTimestamp": null,
                "annotations": annotations,
            },
        });
        if self.shape == Shape::Table {
            let row = json!({ "cells": [], "object": object });
            object = table::table(&self.seen.to_string(), json!([]), vec![row]);
        }
        self.ready
            .push_back(line(&json!({ "type": "BOOKMARK", "object": object })));
    }
}

fn line(event: &Value) -> Bytes {
    let mut text = to_json(event);
    text.push(b'\n');
    Bytes::from(text)
}
