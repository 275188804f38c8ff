//! Random kubeconfigs, in the layouts that people give them.

use proptest::prelude::*;

use super::*;

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}",
        Just("yes".to_owned()),
        Just("0123".to_owned()),
        Just("'12:30:45'".to_owned()),
        Just("~".to_owned()),
        Just("\"a # \\u00e9 \\n b\"".to_owned()),
        Just("[a, {b: c}]".to_owned()),
        Just("é # note".to_owned()),
        Just("&x a".to_owned()),
        Just("".to_owned()),
    ]
}

fn filler() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => Just("\n".to_owned()),
        1 => Just("# a - comment: [\n".to_owned()),
        1 => Just("      # - deeper\n".to_owned()),
        1 => Just("\n# one\n   \n# two\n".to_owned()),
    ]
}

/// The text of one entry, its lines without indentation.
fn entry(outer: &'static str) -> impl Strategy<Value = String> {
    let name = "[a-e]{1,2}";
    let members = proptest::collection::btree_map("x-[a-z]{1,4}", scalar(), 0..3);
    (name, members, 0..5u8).prop_map(move |(name, members, layout)| {
        let block = |indent: &str| -> String {
            members
                .iter()
                .map(|(key, value)| format!("{indent}{key}: {value}\n"))
                .collect()
        };
        match layout {
            0 => format!("- {{name: {name}, {outer}: {{}}}}   # flow\n"),
            1 => format!("- name: {name}\n  {outer}:\n{}", block("    ")),
            2 => format!("- {outer}:\n    # inside\n{}\n  name: '{name}'\n", block("      ")),
            3 => format!("-   name: \"{name}\" # far\n    {outer}:\n        x-text: |+\n          one\n\n          two\n\n"),
            _ => format!("-\n  {outer}: {{x: [1,\n    2]}}\n  name: {name}\n"),
        }
    })
}

fn section(name: &'static str, outer: &'static str) -> impl Strategy<Value = String> {
    let entries = proptest::collection::vec((entry(outer), filler()), 1..4);
    let empty = prop_oneof![
        Just(String::new()),
        Just(format!("{name}: []\n")),
        Just(format!("{name}:   [ ]   # none\n")),
        Just(format!("{name}: null\n")),
        Just(format!("{name}:\n")),
        Just(format!("\"{name}\" : ~ # nothing\n")),
    ];
    let full = (entries, 0..3usize, any::<bool>()).prop_map(move |(entries, column, noted)| {
        let note = if noted { "   # these" } else { "" };
        let mut text = format!("{name}:{note}\n");
        for (entry, filler) in entries {
            for line in entry.lines() {
                let indent = if line.is_empty() { 0 } else { column };
                text.push_str(&format!("{:indent$}{line}\n", ""));
            }
            text.push_str(&filler);
        }
        text
    });
    prop_oneof![1 => empty, 2 => full]
}

fn current_context() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("current-context: \"\"\n".to_owned()),
        Just("current-context:\n".to_owned()),
        Just("current-context: # none\n".to_owned()),
        "[a-e]{1,2}".prop_map(|name| format!("current-context:  '{name}'   # now\n")),
        "[a-e]{1,2}".prop_map(|name| format!("current-context: {name}\n")),
    ]
}

fn kubeconfig() -> impl Strategy<Value = String> {
    let members = (
        section("clusters", "cluster"),
        section("users", "user"),
        section("contexts", "context"),
        current_context(),
        prop_oneof![
            Just("preferences: {}\n".to_owned()),
            Just("x-a:\n  b: c\n  # d\n".to_owned())
        ],
    )
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e])
        .prop_shuffle();
    (
        members,
        proptest::collection::vec(filler(), 6),
        any::<[bool; 4]>(),
        0..2usize,
    )
        .prop_map(
            |(members, fillers, [marked, started, windows, cut], indent)| {
                let mut text = String::new();
                if started {
                    text.push_str("--- # start\n");
                }
                let mut body = fillers[0].clone();
                for (member, filler) in members.iter().zip(&fillers[1..]) {
                    body.push_str(member);
                    body.push_str(filler);
                }
                for line in body.lines() {
                    let indent = if line.is_empty() { 0 } else { 2 * indent };
                    text.push_str(&format!("{:indent$}{line}\n", ""));
                }
                if cut {
                    text.truncate(text.trim_end().len());
                }
                if windows {
                    text = text.replace('\n', "\r\n");
                }
                if marked {
                    text.insert(0, BYTE_ORDER_MARK);
                }
                text
            },
        )
}

/// Lines that hold a value of a member that we change: they are given back, but are not the same in between.
fn may_change(line: &str) -> bool {
    let line = line.trim_start_matches([BYTE_ORDER_MARK, ' ', '"']);
    ["clusters", "users", "contexts", "current-context"]
        .iter()
        .any(|name| line.starts_with(name))
}

fn is_subsequence<'a>(lines: impl Iterator<Item = &'a str>, of: &str) -> Result<(), String> {
    let mut all = of.lines();
    for line in lines {
        if !all.any(|candidate| candidate == line) {
            return Err(format!("{line:?} is lost"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_line_of_the_users_survives_and_removal_is_the_inverse(text in kubeconfig()) {
        let base = Kubeconfig::parse(&text).unwrap();
        let merged = merged(&text, "till");
        let kept_lines = text.lines().filter(|line| !may_change(line));
        prop_assert_eq!(is_subsequence(kept_lines, &merged.text), Ok(()), "{}", merged.text);
        let addition_lines = merged.text.lines().count() - text.lines().count();
        prop_assert!(addition_lines < 40, "{}", merged.text);

        let kept = merge::remove(&merged.model, &merged.addition, &merged.earlier);
        let back = removed(&merged, Some(&text));
        if kept == base {
            prop_assert_eq!(&back, &text, "{}", merged.text);
        } else {
            let others = text.lines().filter(|line| !line.contains("current-context"));
            prop_assert_eq!(is_subsequence(others, &back), Ok(()));
        }
        // And when nobody remembers what the text was.
        let back = removed(&merged, None);
        let kept_lines = text.lines().filter(|line| !may_change(line));
        prop_assert_eq!(is_subsequence(kept_lines, &back), Ok(()));
    }

    #[test]
    fn any_text_can_be_rewritten(text in "[-a-c:{}\\[\\] #&*|>\"'\n]{0,40}") {
        for text in [text.clone(), format!("clusters:\n{text}"), format!("{text}\nusers: []")] {
            if let Ok(base) = Kubeconfig::parse(&text) {
                let mut target = base.clone();
                target.clusters.extend(ours("till").clusters);
                target.users.extend(ours("till").users);
                target.current_context = "till".to_owned();
                let new = rewrite(&text, &base, &target, None).unwrap();
                prop_assert_eq!(Kubeconfig::parse(&new).unwrap(), target);
            }
        }
    }
}
