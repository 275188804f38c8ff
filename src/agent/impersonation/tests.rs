use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::agent::{IdentityBuilder, IdentityRules};

fn identity(builder: IdentityBuilder) -> Identity {
    builder.build(&IdentityRules::default()).expect("valid")
}

fn written(builder: IdentityBuilder, uid: UidHeader) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    write(&identity(builder), uid, &mut headers).expect("writable");
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8(value.as_bytes().to_vec()).expect("UTF-8");
            (name.to_string(), value)
        })
        .collect()
}

fn lines(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_user_alone_is_one_header() {
    for user in [
        "ada@example.com",
        "5f0c1e0a-5a0f-4b63-9a38-0c2d0f6f5a77",
        "Zoë Müller",
        "東京",
    ] {
        assert_eq!(
            written(Identity::builder(user), UidHeader::Send),
            lines(&[("impersonate-user", user)])
        );
    }
}

#[test]
fn each_group_is_a_line_and_repeated_and_empty_ones_are_none() {
    let builder = Identity::builder("ada").groups(["b", "a", "", "b", "a b,c"]);
    assert_eq!(
        written(builder, UidHeader::Send),
        lines(&[
            ("impersonate-user", "ada"),
            ("impersonate-group", "b"),
            ("impersonate-group", "a"),
            ("impersonate-group", "a b,c"),
        ])
    );
}

#[test]
fn two_thousand_groups_are_two_thousand_lines() {
    let groups = (0..2_000).map(|number| format!("00000000-0000-0000-0000-{number:012}"));
    let builder = Identity::builder("ada").groups(groups);
    assert_eq!(written(builder, UidHeader::Send).len(), 2_001);
}

#[test]
fn r08_the_uid_is_sent_where_it_may_be() {
    let builder = Identity::builder("ada").uid("7");
    assert_eq!(
        written(builder.clone(), UidHeader::Send),
        lines(&[("impersonate-user", "ada"), ("impersonate-uid", "7")])
    );
    assert_eq!(
        written(builder, UidHeader::Omit),
        lines(&[("impersonate-user", "ada")])
    );
}

#[test]
fn extra_keys_are_escaped_as_the_api_server_unescapes_them() {
    for (key, name) in [
        ("oid", "impersonate-extra-oid"),
        ("OID", "impersonate-extra-oid"),
        ("arc.azure.com/tid", "impersonate-extra-arc.azure.com%2ftid"),
        ("100%", "impersonate-extra-100%25"),
        ("a b:c", "impersonate-extra-a%20b%3ac"),
        ("é", "impersonate-extra-%c3%a9"),
        ("!#$&'*+-.^_`|~", "impersonate-extra-!#$&'*+-.^_`|~"),
        ("a(b)\"c\"", "impersonate-extra-a%28b%29%22c%22"),
    ] {
        let builder = Identity::builder("ada").extra(key, "one").extra(key, "two");
        assert_eq!(
            written(builder, UidHeader::Send),
            lines(&[("impersonate-user", "ada"), (name, "one"), (name, "two")])
        );
    }
}

#[test]
fn prefixes_are_found_in_every_spelling() {
    for name in [
        "impersonate-user",
        "IMPERSONATE-x",
        "impersonate_user",
        "Impersonate-",
    ] {
        assert!(is_impersonation(name), "{name}");
    }
    for name in [
        "impersonate",
        "x-impersonate-user",
        "imperson",
        "impersonateé",
    ] {
        assert!(!is_impersonation(name), "{name}");
    }
}

proptest! {
    /// What is written is read back as the same identity, whatever the names.
    #[test]
    fn writing_and_reading_agree(
        user in any::<String>(),
        groups in prop::collection::vec(any::<String>(), 0..4),
        uid in any::<Option<String>>(),
        extra in prop::collection::vec((any::<String>(), any::<String>()), 0..4),
    ) {
        let mut builder = Identity::builder(user).groups(groups);
        if let Some(uid) = uid {
            builder = builder.uid(uid);
        }
        for (key, value) in extra {
            builder = builder.extra(key, value);
        }
        if let Ok(identity) = builder.build(&IdentityRules::default()) {
            let mut headers = HeaderMap::new();
            write(&identity, UidHeader::Send, &mut headers).expect("rules leave no room for failure");
            let read = ActAs::read(&headers).expect("readable").expect("a wish");
            assert_eq!(*read.identity(), identity);
        }
    }
}
