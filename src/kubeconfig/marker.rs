//! The mark that says which entries of a file this crate has made: a named extension, as Kubernetes tools that keep
//! notes in a kubeconfig use them, and as kubectl keeps them.

use super::{
    Cluster, Fields, Kubeconfig,
    value::{self, Value},
};

const EXTENSIONS: &str = "extensions";
/// The name of our extension.
const MARK: &str = "arc-cluster-connect";
/// In a context's mark: the context that was current before this one came.
const EARLIER_CONTEXT: &str = "earlier-context";

/// `addition` with the mark on each entry. The context's remembers `earlier_context`, so that whoever takes the entries
/// out can make it current again, even when the process that knew is gone.
pub(super) fn marked(addition: &Kubeconfig, earlier_context: &str) -> Kubeconfig {
    let mut marked = addition.clone();
    for entry in &mut marked.clusters {
        mark(&mut entry.cluster.other, "");
    }
    for entry in &mut marked.users {
        mark(&mut entry.user.other, "");
    }
    for entry in &mut marked.contexts {
        mark(&mut entry.context.other, earlier_context);
    }
    marked
}

pub(super) fn is_marked(fields: &Fields) -> bool {
    extension(fields).is_some()
}

/// The earlier context that a marked context remembers; empty when there was none.
pub(super) fn earlier_context(fields: &Fields) -> Option<&str> {
    let extension = extension(fields)?;
    match value::member(extension, EARLIER_CONTEXT) {
        Some(Value::Text(name)) => Some(name),
        _ => Some(""),
    }
}

/// Makes a marked context remember another earlier context.
pub(super) fn set_earlier_context(fields: &mut Fields, name: &str) {
    if is_marked(fields) {
        mark(fields, name);
    }
}

/// Whether `cluster` is a loopback endpoint that this crate has written down.
pub(super) fn is_marked_endpoint(cluster: &Cluster) -> bool {
    is_marked(&cluster.other) && port(cluster).is_some()
}

/// The port of a loopback endpoint of this crate, or of Azure's own client, which has the same form.
pub(super) fn port(cluster: &Cluster) -> Option<u16> {
    let rest = cluster.server.strip_prefix("https://127.0.0.1:")?;
    let (port, id) = rest.split_once("/proxies/")?;
    let port = port.parse().ok()?;
    (!id.is_empty() && !id.contains('/')).then_some(port)
}

fn extension(fields: &Fields) -> Option<&Value> {
    let Some(Value::Sequence(extensions)) = fields.get(EXTENSIONS) else {
        return None;
    };
    extensions.iter().find_map(|extension| {
        is_ours(extension)
            .then(|| value::member(extension, "extension"))
            .flatten()
    })
}

fn is_ours(extension: &Value) -> bool {
    matches!(value::member(extension, "name"), Some(Value::Text(name)) if name == MARK)
}

fn mark(fields: &mut Fields, earlier_context: &str) {
    let mut note = vec![(
        "provider".to_owned(),
        Value::Text(env!("CARGO_PKG_NAME").to_owned()),
    )];
    if !earlier_context.is_empty() {
        note.push((
            EARLIER_CONTEXT.to_owned(),
            Value::Text(earlier_context.to_owned()),
        ));
    }
    let ours = Value::Mapping(vec![
        ("name".to_owned(), Value::Text(MARK.to_owned())),
        ("extension".to_owned(), Value::Mapping(note)),
    ]);
    let mut extensions = match fields.get(EXTENSIONS) {
        Some(Value::Sequence(extensions)) => extensions.clone(),
        _ => Vec::new(),
    };
    match extensions.iter_mut().find(|extension| is_ours(extension)) {
        Some(extension) => *extension = ours,
        None => extensions.push(ours),
    }
    fields.set(EXTENSIONS, Value::Sequence(extensions));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeconfig::{KubeconfigBuilder, ProxyEndpoint, TokenKubeconfig};

    fn ours() -> Kubeconfig {
        let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab", "PEM", "s".into());
        TokenKubeconfig::new("till").build(&endpoint).unwrap()
    }

    #[test]
    fn the_mark_survives_the_file_and_is_there_once() {
        let once = marked(&ours(), "me@home");
        let twice = marked(&once, "me@home");
        assert_eq!(once, twice);
        let read = Kubeconfig::parse(&once.to_yaml().unwrap()).unwrap();
        assert_eq!(read, once);
        assert!(is_marked_endpoint(&read.clusters[0].cluster));
        assert!(is_marked(&read.users[0].user.other));
        let context = &read.contexts[0].context;
        assert_eq!(earlier_context(&context.other), Some("me@home"));
        assert!(!is_marked(&ours().clusters[0].cluster.other));
        assert_eq!(earlier_context(&ours().contexts[0].context.other), None);
    }

    #[test]
    fn other_extensions_stay() {
        let text = "clusters: [{name: a, cluster: {extensions: [{name: theirs, extension: 7}]}}]";
        let theirs = Kubeconfig::parse(text).unwrap();
        let marked = marked(&theirs, "").to_yaml().unwrap();
        assert!(marked.contains("name: theirs") && marked.contains("name: arc-cluster-connect"));
    }

    #[test]
    fn endpoints_are_known_by_their_form() {
        for (server, expected) in [
            ("https://127.0.0.1:47011/proxies/ab", Some(47011)),
            ("https://127.0.0.1:47011/proxies/", None),
            ("https://127.0.0.1:47011/proxies/a/b", None),
            ("https://127.0.0.1:470110/proxies/ab", None),
            ("https://127.0.0.1:6443", None),
            ("https://home:47011/proxies/ab", None),
        ] {
            let cluster = Cluster {
                server: server.to_owned(),
                ..Cluster::default()
            };
            assert_eq!(port(&cluster), expected, "{server}");
        }
    }
}
