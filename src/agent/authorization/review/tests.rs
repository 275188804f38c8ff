use super::*;
use crate::agent::IdentityRules;

fn wish() -> Identity {
    Identity::builder("jane")
        .group("staff")
        .uid("7")
        .extra("scopes/x", "view")
        .build(&IdentityRules::default())
        .expect("valid")
}

#[test]
fn each_name_is_an_item_as_the_api_server_asks_for_it() {
    let wish = wish();
    let questions: Vec<Value> = items(&wish)
        .iter()
        .map(|item| item.question()["spec"]["resourceAttributes"].clone())
        .collect();
    let verb = "impersonate";
    let group = "authentication.k8s.io";
    assert_eq!(
        questions,
        [
            json!({ "verb": verb, "group": "", "resource": "users", "name": "jane" }),
            json!({ "verb": verb, "group": "", "resource": "groups", "name": "staff" }),
            json!({ "verb": verb, "group": group, "resource": "uids", "name": "7" }),
            json!({
                "verb": verb, "group": group, "resource": "userextras", "subresource": "scopes/x", "name": "view"
            }),
        ]
    );
}

#[test]
fn a_service_account_is_one_in_its_namespace() {
    let identity = Identity::builder("system:serviceaccount:ns:name")
        .build_unfiltered(&IdentityRules::default())
        .expect("valid");
    let item = &items(&identity)[0];
    assert_eq!(
        (item.resource, item.namespace, item.name),
        ("serviceaccounts", Some("ns"), "name")
    );
}

#[test]
fn only_a_clear_yes_is_one() {
    assert!(allows(true, br#"{"status":{"allowed":true}}"#));
    for (answered, body) in [
        (false, &br#"{"status":{"allowed":true}}"#[..]),
        (true, br#"{"status":{"allowed":false}}"#),
        (true, br#"{"status":{"allowed":true,"denied":true}}"#),
        (true, br#"{"status":{}}"#),
        (true, br#"{"status":{"allowed":"true"}}"#),
        (true, br#"{"spec":{"allowed":true}}"#),
        (true, b""),
    ] {
        assert!(!allows(answered, body));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_for_a_moment_only() {
    let reviews = Reviews::new();
    let (caller, wish) = (wish(), wish());
    let key = key(&caller, &items(&wish)[0]);
    assert_eq!(reviews.known(&key), None);
    reviews.note(key, true);
    assert_eq!(reviews.known(&key), Some(true));
    tokio::time::advance(BELIEVED).await;
    assert_eq!(reviews.known(&key), None);
}

#[tokio::test(start_paused = true)]
async fn kept_answers_are_limited() {
    let reviews = Reviews::new();
    for number in 0..=MAX_ANSWERS {
        reviews.note(crypto::sha256(&number.to_be_bytes()), true);
    }
    let kept = || reviews.answers.lock().expect("not poisoned").len();
    assert_eq!(kept(), MAX_ANSWERS);
    tokio::time::advance(BELIEVED).await;
    reviews.note(crypto::sha256(b"one more"), true);
    assert_eq!(kept(), 1);
}

#[test]
fn answers_of_different_callers_are_apart() {
    let wish = wish();
    let other = Identity::builder("jane")
        .group("staff,x")
        .build(&IdentityRules::default())
        .expect("valid");
    let items = items(&wish);
    assert_ne!(key(&wish, &items[0]), key(&other, &items[0]));
    assert_ne!(key(&wish, &items[0]), key(&wish, &items[1]));
}
