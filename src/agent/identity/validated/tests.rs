use super::*;

fn build(builder: IdentityBuilder) -> Result<Identity, ErrorKind> {
    builder
        .build(&IdentityRules::default())
        .map_err(|error| error.kind())
}

#[test]
fn i2_a_user_without_a_name_is_nobody() {
    for user in ["", " ", "\t", "\u{a0}", "\u{3000} "] {
        let builder = Identity::builder(user).group("staff");
        assert_eq!(build(builder), Err(ErrorKind::InvalidInput), "{user:?}");
    }
}

#[test]
fn names_with_white_space_at_an_edge_or_unseen_characters_are_refused() {
    for name in [
        " a",
        "a ",
        "a\t",
        "\u{2003}a",
        "a\r\nb",
        "a\0b",
        "a\u{7f}",
        "a\u{202e}b",
        "\u{feff}a",
    ] {
        for builder in [
            Identity::builder(name),
            Identity::builder("ada").group(name),
            Identity::builder("ada").uid(name),
            Identity::builder("ada").extra("key", name),
            Identity::builder("ada").extra(name, "value"),
        ] {
            assert_eq!(
                build(builder.clone()),
                Err(ErrorKind::InvalidInput),
                "{builder:?}"
            );
        }
    }
}

#[test]
fn users_of_kubernetes_own_are_refused() {
    for user in [
        "system:admin",
        "system:anonymous",
        "system:serviceaccount:kube-system:default",
        "system:node:n1",
        "system:kube-scheduler",
        "SYSTEM:admin",
        " system:admin",
        "ｓｙｓｔｅｍ:admin",
    ] {
        assert_eq!(
            build(Identity::builder(user)),
            Err(ErrorKind::Refused),
            "{user}"
        );
    }
}

#[test]
fn groups_of_kubernetes_own_are_dropped_or_refused_and_never_kept() {
    let builder = Identity::builder("ada").groups([
        "staff",
        "system:masters",
        "System:Masters",
        "system:nodes",
        "system:unauthenticated",
        "system:authenticated",
        "system:serviceaccounts",
        "ſystem:masters",
    ]);
    let identity = build(builder.clone()).expect("without them");
    assert_eq!(identity.groups(), ["staff"]);
    let strict = IdentityRules::default().system_groups(SystemGroups::Refuse);
    let error = builder.build(&strict).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn system_authenticated_is_never_sent_not_even_for_those_who_may_be_anybody() {
    let identity = Identity::builder("system:serviceaccount:a:b")
        .groups(["system:authenticated", "system:masters"])
        .build_unfiltered(&IdentityRules::default())
        .expect("allowed by the API server");
    assert_eq!(identity.groups(), ["system:masters"]);
}

#[test]
fn extra_keys_of_kubernetes_or_the_agent_are_refused() {
    for key in [
        "authentication.kubernetes.io/pod-name",
        "a.k8s.io/b",
        "kubernetes.io",
        "arc.azure.com/original-user",
        "ARC.azure.com/original-user",
    ] {
        let builder = Identity::builder("ada").extra(key, "value");
        assert_eq!(build(builder), Err(ErrorKind::Refused), "{key}");
    }
}

#[test]
fn extra_keys_are_lower_case_and_their_values_add_up() {
    let builder = Identity::builder("ada").extra("OID", "1").extra("oid", "2");
    let identity = build(builder).expect("valid");
    assert_eq!(identity.extra()["oid"], ["1", "2"]);
    assert_eq!(identity.extra().len(), 1);
}

#[test]
fn one_more_than_a_limit_is_a_refusal_and_never_a_cut() {
    let groups = |count: usize| (0..count).map(|number| format!("g{number}"));
    let rules = IdentityRules::default();
    let many = Identity::builder("ada").groups(groups(DEFAULT_MAX_GROUPS));
    assert_eq!(
        many.clone().build(&rules).expect("full").groups().len(),
        DEFAULT_MAX_GROUPS
    );
    assert_eq!(build(many.group("one more")), Err(ErrorKind::LimitReached));
    let few = IdentityRules::default().max_groups(2);
    assert!(
        Identity::builder("ada")
            .groups(groups(2))
            .build(&few)
            .is_ok()
    );
    assert!(
        Identity::builder("ada")
            .groups(groups(3))
            .build(&few)
            .is_err()
    );

    let longest = "a".repeat(MAX_NAME);
    assert!(build(Identity::builder(&longest)).is_ok());
    assert_eq!(
        build(Identity::builder(format!("{longest}a"))),
        Err(ErrorKind::InvalidInput)
    );

    let mut extra = Identity::builder("ada");
    for number in 0..MAX_EXTRA_VALUES {
        extra = extra.extra(format!("key{number}"), "value");
    }
    assert!(build(extra.clone()).is_ok());
    assert_eq!(
        build(extra.extra("key", "value")),
        Err(ErrorKind::LimitReached)
    );

    let long = (0..200).map(|number| format!("{number:0>1000}"));
    assert_eq!(
        build(Identity::builder("ada").groups(long)),
        Err(ErrorKind::LimitReached)
    );
}

#[test]
fn texts_name_no_names() {
    for builder in [
        Identity::builder("system:hush"),
        Identity::builder("hush\n"),
        Identity::builder("ada").group("hush\n"),
        Identity::builder("ada").extra("k8s.io/hush", "x"),
    ] {
        let error = builder
            .build(&IdentityRules::default())
            .expect_err("refused");
        assert!(!error.report().contains("hush"), "{error}");
    }
}
