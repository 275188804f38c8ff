//! The patches that kubectl sends: JSON merge, strategic merge (in its common form) and server-side apply.

use serde_json::{Map, Value};

use super::status::Status;

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Merge, and lists of named things are merged by name.
    Strategic,
    /// The caller's wish for the object; it may not exist yet. Carried out as a strategic merge: nothing here keeps
    /// track of field owners.
    Apply,
}

impl PatchKind {
    pub(super) fn of_content_type(content_type: &str) -> Result<Self, Status> {
        match content_type.split(';').next().map(str::trim) {
            Some("application/merge-patch+json") => Ok(Self::Merge),
            Some("application/strategic-merge-patch+json") => Ok(Self::Strategic),
            Some("application/apply-patch+yaml") => Ok(Self::Apply),
            _ => Err(Status::unsupported_media_type()),
        }
    }
}

/// The patched object.
pub(super) fn apply(kind: PatchKind, object: &Value, patch: &Value) -> Value {
    let mut result = object.clone();
    merge(kind, &mut result, patch);
    result
}

fn merge(kind: PatchKind, target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(members) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            for (name, patch) in members {
                merge_member(kind, target, name, patch);
            }
        }
        Value::Array(elements) if kind != PatchKind::Merge && are_named(elements) => {
            merge_list(kind, target, elements);
        }
        other => *target = other.clone(),
    }
}

fn merge_member(kind: PatchKind, target: &mut Value, name: &str, patch: &Value) {
    // `$setElementOrder/…` and `$retainKeys` only order and narrow what the rest of the patch says.
    if kind != PatchKind::Merge && name.starts_with('$') {
        return;
    }
    if patch.is_null() {
        if let Some(members) = target.as_object_mut() {
            members.remove(name);
        }
    } else {
        merge(kind, &mut target[name], patch);
    }
}

/// Lists of containers, ports with names, volumes, variables: merged by name, in the order they have.
fn merge_list(kind: PatchKind, target: &mut Value, elements: &[Value]) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else { return };
    for element in elements {
        let position = list
            .iter()
            .position(|other| other["name"] == element["name"]);
        let deletes = element["$patch"] == "delete";
        match position {
            Some(at) if deletes => {
                list.remove(at);
            }
            Some(at) => merge(kind, &mut list[at], element),
            None if deletes => {}
            None => list.push(element.clone()),
        }
    }
}

fn are_named(elements: &[Value]) -> bool {
    !elements.is_empty() && elements.iter().all(|element| element["name"].is_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_follows_rfc_7386() {
        let object = json!({ "a": "b", "c": { "d": "e", "f": "g" }, "l": [{ "name": "x" }] });
        let patch = json!({ "a": "z", "c": { "f": null, "h": {} }, "l": [{ "name": "y" }] });
        assert_eq!(
            apply(PatchKind::Merge, &object, &patch),
            json!({ "a": "z", "c": { "d": "e", "h": {} }, "l": [{ "name": "y" }] })
        );
    }

    #[test]
    fn strategic_merge_keeps_named_list_elements_apart() {
        let object = json!({ "containers": [
            { "name": "a", "image": "one", "tty": true }, { "name": "b", "image": "two" },
        ] });
        let patch = json!({ "$setElementOrder/containers": [{ "name": "a" }], "containers": [
            { "name": "a", "image": "new" }, { "name": "b", "$patch": "delete" }, { "name": "c" },
        ] });
        assert_eq!(
            apply(PatchKind::Strategic, &object, &patch),
            json!({ "containers": [
                { "name": "a", "image": "new", "tty": true }, { "name": "c" },
            ] })
        );
    }
}
