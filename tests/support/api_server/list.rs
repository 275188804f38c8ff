//! Lists: streamed in pieces, as objects or as a table, and the faults that can befall them.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use serde_json::Value;

use super::{
    accept::{self, Shape},
    faults::ListFault,
    query::Query,
    resource_path::ResourcePath,
    response::{self, Response},
    seed::{self, BIG_NAMESPACE},
    selector::Selector,
    server::Server,
    status::Status,
    table, to_json,
};

/// How much of a list is put together before it is sent on. A real server flushes pieces of about this size.
const PIECE_BYTES: usize = 16 * 1024;

type Objects = Box<dyn Iterator<Item = Arc<Value>> + Send>;

pub(super) fn list(
    server: &Server,
    path: &ResourcePath,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let shape = accept::preferred(headers, &[Shape::Table])?;
    let selector = Selector::parse(query)?;
    let (stored, version) = server.store.list(path.resource, &path.namespace);
    let objects: Objects = if path.resource.plural == "pods" && path.namespace == BIG_NAMESPACE {
        // Made while it is sent: however long the list, it takes no memory.
        Box::new((0..server.big_namespace_pods).map(|number| Arc::new(seed::big_pod(number))))
    } else {
        Box::new(stored.into_iter())
    };
    let objects = objects.filter(move |object| selector.matches(object));

    let resource = path.resource;
    let include_object = query
        .first("includeObject")
        .unwrap_or("Metadata")
        .to_owned();
    let (head, items): (Value, Box<dyn Iterator<Item = Value> + Send>) = match shape {
        Shape::Table => {
            let head = table::table(&version.to_string(), table::columns(resource), Vec::new());
            let rows = objects.map(move |object| table::row(resource, &object, &include_object));
            (head, Box::new(rows))
        }
        _ => (
            resource.list_head(version),
            Box::new(objects.map(|object| bare_item(&object))),
        ),
    };
    let member = if shape == Shape::Table {
        "rows"
    } else {
        "items"
    };
    let pieces = stream::iter(pieces(head, member, items)).map(Ok);
    Ok(match server.faults.list() {
        None => response::streamed("application/json", pieces),
        Some(fault) => response::streamed("application/json", with_fault(pieces, fault)),
    })
}

/// Items of a list carry no kind of their own; that is the list's.
fn bare_item(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut() {
        members.remove("kind");
        members.remove("apiVersion");
    }
    object
}

/// The JSON text of `head` with `member` set to the list of `items`, in pieces.
fn pieces(
    mut head: Value,
    member: &'static str,
    mut items: Box<dyn Iterator<Item = Value> + Send>,
) -> impl Iterator<Item = Bytes> + Send {
    if let Some(members) = head.as_object_mut() {
        members.remove(member);
    }
    let mut opening = to_json(&head);
    opening.pop();
    opening.extend_from_slice(format!(",\"{member}\":[").as_bytes());

    let mut piece = Some(opening);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let mut text = piece.take()?;
        while text.len() < PIECE_BYTES {
            let Some(item) = items.next() else {
                text.extend_from_slice(b"]}\n");
                return Some(Bytes::from(text));
            };
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            text.extend_from_slice(&to_json(&item));
        }
        piece = Some(Vec::new());
        Some(Bytes::from(text))
    })
}

fn with_fault(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    fault: ListFault,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (ListFault::AbortAfter(budget) | ListFault::StallAfter(budget)) = fault;
    stream::unfold(
        (Box::pin(pieces), budget),
        move |(mut pieces, budget)| async move {
            if budget == 0 {
                if matches!(fault, ListFault::StallAfter(_)) {
                    std::future::pending::<()>().await;
                }
                // What was sent so far has to be on its way first: the point is an answer that is cut, not one refused.
                tokio::task::yield_now().await;
                let cut = io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the list is cut on demand",
                );
                return Some((Err(cut), (pieces, 0)));
            }
            let mut piece = match pieces.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (pieces, 0))),
            };
            piece.truncate(budget);
            let budget = budget - piece.len();
            Some((Ok(piece), (pieces, budget)))
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_join_to_the_whole_document() {
        for count in [0, 1, 2_000] {
            let items = (0..count)
                .map(|number| json!({ "number": number, "text": "twenty bytes of text" }));
            let pieces: Vec<Bytes> = pieces(
                json!({ "kind": "List", "items": [] }),
                "items",
                Box::new(items),
            )
            .collect();
            assert!(count < 2_000 || pieces.len() > 3);
            let whole: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            assert_eq!(whole["kind"], "List");
            assert_eq!(whole["items"].as_array().unwrap().len(), count);
        }
    }
}
