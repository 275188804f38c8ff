//! Merging and undoing on random kubeconfigs.

use proptest::prelude::*;

use super::*;

/// A scalar as people write it: plain, quoted, or looking like another type.
fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}",
        Just("yes".to_owned()),
        Just("0123".to_owned()),
        Just("'12:30:45'".to_owned()),
        Just("1_000".to_owned()),
        Just("~".to_owned()),
        Just("1.5".to_owned()),
        Just("\"a \\u00e9 \\n b\"".to_owned()),
        Just("[a, {b: c}]".to_owned()),
        Just("{z: 1, a: [x, no]}".to_owned()),
    ]
}

prop_compose! {
    fn entry(outer: &'static str)(
        name in "[a-e]{1,2}",
        inner in proptest::collection::btree_map("x-[a-z]{1,4}", scalar(), 0..4),
        beside in proptest::option::of(scalar()),
        references in proptest::option::of(("[a-e]{1,2}", "[a-e]{1,2}")),
    ) -> String {
        let mut members: Vec<_> = inner.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        if let (Some((cluster, user)), "context") = (references, outer) {
            members.push(format!("cluster: {cluster}"));
            members.push(format!("user: {user}"));
        }
        let beside = beside.map(|value| format!(", x-beside: {value}")).unwrap_or_default();
        format!("- {{name: {name}, {outer}: {{{}}}{beside}}} # note\n", members.join(", "))
    }
}

prop_compose! {
    fn kubeconfig()(
        clusters in proptest::collection::vec(entry("cluster"), 0..4),
        users in proptest::collection::vec(entry("user"), 0..4),
        contexts in proptest::collection::vec(entry("context"), 0..4),
        current in proptest::option::of("[a-e]{1,2}"),
        other in proptest::collection::btree_map("x-[a-z]{1,4}", scalar(), 0..4),
    ) -> String {
        let mut text = "# a comment\napiVersion: v1\nkind: Config\n".to_owned();
        for (key, value) in other {
            text.push_str(&format!("{key}: {value}\n"));
        }
        for (key, entries) in [("clusters", clusters), ("users", users), ("contexts", contexts)] {
            match entries.is_empty() {
                true => text.push_str(&format!("{key}: []\n")),
                false => text.push_str(&format!("{key}:\n{}", entries.concat())),
            }
        }
        if let Some(current) = current {
            text.push_str(&format!("current-context: {current}\n"));
        }
        text
    }
}

proptest! {
    // Each case writes real files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merge_then_undo_is_identity(text in kubeconfig(), switch: bool, edited: bool) {
        let bed = Bed::new(Some(&text));
        let current = if switch { CurrentContext::Switch } else { CurrentContext::KeepIfSet };
        let before = bed.file.read().unwrap();
        let receipt = bed.file.merge(&ours("till", "s"), current).unwrap();

        let merged = bed.file.read().unwrap();
        prop_assert_eq!(&merged.clusters[..before.clusters.len()], &before.clusters[..]);
        prop_assert_eq!(&merged.users[..before.users.len()], &before.users[..]);
        prop_assert_eq!(&merged.contexts[..before.contexts.len()], &before.contexts[..]);
        prop_assert_eq!(&merged.other, &before.other);
        prop_assert_eq!(merged.resolve(Some("till")).unwrap().name, "till");

        if edited {
            bed.edit(|kubeconfig| kubeconfig.clusters.push(another_cluster()));
        }
        receipt.undo().unwrap();
        if edited {
            let mut expected = before.clone();
            expected.clusters.push(another_cluster());
            let mut kept = bed.file.read().unwrap();
            // A current context that names none that exists is not put back.
            if kept.current_context.is_empty() && before.context(&before.current_context).is_none() {
                kept.current_context.clone_from(&before.current_context);
            }
            prop_assert_eq!(kept, expected);
        } else {
            prop_assert_eq!(bed.text(), Some(text));
        }
        prop_assert_eq!(bed.names().len(), 1);
    }

    #[test]
    fn a_round_trip_changes_nothing(text in kubeconfig()) {
        let once = Kubeconfig::parse(&text).unwrap();
        let twice = Kubeconfig::parse(&once.to_yaml().unwrap()).unwrap();
        prop_assert_eq!(once, twice);
    }
}
