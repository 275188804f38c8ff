//! Bodies in Kubernetes' protobuf: kubectl sends what its `create` and `auth` commands make in this form only.
//!
//! A body is `k8s\0`, then a message `Unknown` that names a kind and holds the object. The tables below say which
//! fields of which kinds are read: those that kubectl's commands fill. Other fields are passed over; other kinds are
//! refused. Field numbers are those of `generated.proto` in k8s.io/api and k8s.io/apimachinery.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes};
use serde_json::{Map, Value, json};

use super::status::Status;

/// The media type of such bodies.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The object in a body.
pub(super) fn decode(body: &Bytes) -> Result<Value, Status> {
    let malformed = || Status::bad_request("the body is not Kubernetes protobuf");
    let envelope = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let envelope = message(envelope, UNKNOWN).ok_or_else(malformed)?;
    let kind = envelope["typeMeta"]["kind"].as_str().unwrap_or_default();
    let (_, fields) = KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .ok_or_else(Status::unsupported_media_type)?;
    let raw = envelope["raw"].as_str().unwrap_or_default();
    let raw = STANDARD.decode(raw).map_err(|_| malformed())?;
    let mut object = message(&raw, fields).ok_or_else(malformed)?;
    object["kind"] = json!(kind);
    object["apiVersion"] = envelope["typeMeta"]["apiVersion"].clone();
    Ok(object)
}

/// How a field's bytes become JSON.
enum Kind {
    Text,
    /// Base64, as in JSON.
    Bytes,
    Number,
    Message(Fields),
    Texts,
    Messages(Fields),
    TextMap,
    BytesMap,
}

type Fields = &'static [(u32, &'static str, Kind)];

/// One message; `None` when it is malformed.
fn message(mut input: &[u8], fields: Fields) -> Option<Value> {
    let mut object = Map::new();
    while input.has_remaining() {
        let key = varint(&mut input)?;
        let field = fields
            .iter()
            .find(|(number, ..)| u64::from(*number) == key >> 3);
        match (key & 7, field) {
            (0, field) => {
                let number = varint(&mut input)?;
                if let Some((_, name, Kind::Number)) = field {
                    object.insert((*name).to_owned(), json!(number));
                }
            }
            (1, _) => input = input.get(8..)?,
            (5, _) => input = input.get(4..)?,
            (2, field) => {
                let length = usize::try_from(varint(&mut input)?).ok()?;
                let (content, rest) = input.split_at_checked(length)?;
                input = rest;
                if let Some((_, name, kind)) = field {
                    put(&mut object, name, kind, content)?;
                }
            }
            _ => return None,
        }
    }
    Some(Value::Object(object))
}

fn put(object: &mut Map<String, Value>, name: &str, kind: &Kind, content: &[u8]) -> Option<()> {
    let text = || std::str::from_utf8(content).ok();
    let slot = object.entry(name);
    match kind {
        // What is empty was not given: the encoder writes every text.
        Kind::Text if content.is_empty() => {}
        Kind::Text => *slot.or_insert(Value::Null) = json!(text()?),
        Kind::Bytes => *slot.or_insert(Value::Null) = json!(STANDARD.encode(content)),
        Kind::Message(fields) => *slot.or_insert(Value::Null) = message(content, fields)?,
        Kind::Texts => slot
            .or_insert_with(|| json!([]))
            .as_array_mut()?
            .push(json!(text()?)),
        Kind::Messages(fields) => {
            let element = message(content, fields)?;
            slot.or_insert_with(|| json!([]))
                .as_array_mut()?
                .push(element);
        }
        Kind::TextMap | Kind::BytesMap => {
            let entry = if matches!(kind, Kind::TextMap) {
                TEXT_ENTRY
            } else {
                BYTES_ENTRY
            };
            let entry = message(content, entry)?;
            let key = entry["key"].as_str().unwrap_or_default().to_owned();
            let value = json!(entry["value"].as_str().unwrap_or_default());
            slot.or_insert_with(|| json!({}))
                .as_object_mut()?
                .insert(key, value);
        }
        Kind::Number => return None,
    }
    Some(())
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = input.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const UNKNOWN: Fields = &[
    (1, "typeMeta", Kind::Message(TYPE_META)),
    (2, "raw", Kind::Bytes),
];

const TYPE_META: Fields = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];

const TEXT_ENTRY: Fields = &[(1, "key", Kind::Text), (2, "value", Kind::Text)];

const BYTES_ENTRY: Fields = &[(1, "key", Kind::Text), (2, "value", Kind::Bytes)];

const OBJECT_META: Fields = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
];

const METADATA_ONLY: Fields = &[(1, "metadata", Kind::Message(OBJECT_META))];

const SUBJECT: Fields = &[
    (1, "kind", Kind::Text),
    (2, "apiGroup", Kind::Text),
    (3, "name", Kind::Text),
    (4, "namespace", Kind::Text),
];

const ROLE_REF: Fields = &[
    (1, "apiGroup", Kind::Text),
    (2, "kind", Kind::Text),
    (3, "name", Kind::Text),
];

const BINDING: Fields = &[
    (1, "metadata", Kind::Message(OBJECT_META)),
    (2, "subjects", Kind::Messages(SUBJECT)),
    (3, "roleRef", Kind::Message(ROLE_REF)),
];

const RULE: Fields = &[
    (1, "verbs", Kind::Texts),
    (2, "apiGroups", Kind::Texts),
    (3, "resources", Kind::Texts),
    (4, "resourceNames", Kind::Texts),
    (5, "nonResourceURLs", Kind::Texts),
];

const ROLE: Fields = &[
    (1, "metadata", Kind::Message(OBJECT_META)),
    (2, "rules", Kind::Messages(RULE)),
];

const TOKEN_REQUEST_SPEC: Fields = &[
    (1, "audiences", Kind::Texts),
    (4, "expirationSeconds", Kind::Number),
];

const TOKEN_REVIEW_SPEC: Fields = &[(1, "token", Kind::Text), (2, "audiences", Kind::Texts)];

const RESOURCE_ATTRIBUTES: Fields = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
];

const ACCESS_REVIEW_SPEC: Fields = &[(1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES))];

static KINDS: &[(&str, Fields)] = &[
    ("Namespace", METADATA_ONLY),
    ("ServiceAccount", METADATA_ONLY),
    ("SelfSubjectReview", METADATA_ONLY),
    (
        "ConfigMap",
        &[
            (1, "metadata", Kind::Message(OBJECT_META)),
            (2, "data", Kind::TextMap),
            (3, "binaryData", Kind::BytesMap),
        ],
    ),
    (
        "Secret",
        &[
            (1, "metadata", Kind::Message(OBJECT_META)),
            (2, "data", Kind::BytesMap),
            (3, "type", Kind::Text),
        ],
    ),
    ("ClusterRoleBinding", BINDING),
    ("RoleBinding", BINDING),
    ("ClusterRole", ROLE),
    ("Role", ROLE),
    (
        "TokenRequest",
        &[
            (1, "metadata", Kind::Message(OBJECT_META)),
            (2, "spec", Kind::Message(TOKEN_REQUEST_SPEC)),
        ],
    ),
    (
        "TokenReview",
        &[(2, "spec", Kind::Message(TOKEN_REVIEW_SPEC))],
    ),
    (
        "SelfSubjectAccessReview",
        &[(2, "spec", Kind::Message(ACCESS_REVIEW_SPEC))],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn body(kind: &str, object: &[u8]) -> Bytes {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, object)]
            .concat()
            .into()
    }

    #[test]
    fn an_object_is_read_by_its_kind() {
        let label = [field(1, b"app"), field(2, b"web")].concat();
        let metadata = [field(1, b"settings"), field(2, b""), field(11, &label)].concat();
        let data = [field(1, b"key"), field(2, b"value")].concat();
        let object = [field(1, &metadata), field(2, &data), field(9, b"unknown")].concat();
        assert_eq!(
            decode(&body("ConfigMap", &object)).unwrap(),
            json!({
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": { "name": "settings", "labels": { "app": "web" } },
                "data": { "key": "value" },
            })
        );
        let spec = [field(1, b"audience"), vec![4 << 3, 0x90, 0x1c]].concat();
        let request = decode(&body("TokenRequest", &field(2, &spec))).unwrap();
        assert_eq!(
            request["spec"],
            json!({ "audiences": ["audience"], "expirationSeconds": 3_600 })
        );
    }

    #[test]
    fn other_kinds_and_broken_bytes_are_refused() {
        let code = |body: Bytes| decode(&body).unwrap_err().code().as_u16();
        assert_eq!(code(body("Deployment", b"")), 415);
        assert_eq!(code(Bytes::from_static(b"{}")), 400);
        assert_eq!(code(body("ConfigMap", b"\x0a\x7f")), 400);
        assert_eq!(code(body("ConfigMap", &[0xff; 12])), 400);
    }
}
