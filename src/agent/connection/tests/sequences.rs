//! Whatever callers send, one after the other over connections that are kept: each request that reaches the API
//! server is made in the name of the one who made it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use crate::agent::{
    Impersonation,
    test_bed::{AGENT_TOKEN, ApiServerBed, Bed, with_authorization},
};

#[derive(Clone, Debug)]
struct Asked {
    token: &'static str,
    headers: Vec<(String, String)>,
}

/// A request at the API server.
struct Seen {
    lane: &'static str,
    names: Vec<String>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let token = prop::sample::select(
        &[
            "known.ada",
            "known.eve",
            "rejected",
            "system",
            "down",
            "opaque",
        ][..],
    );
    (token, prop::collection::vec((name(), value()), 0..5))
        .prop_map(|(token, headers)| Asked { token, headers })
}

fn name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(
        &[
            "impersonate-user",
            "impersonate-group",
            "impersonate-uid",
            "impersonate-extra-oid",
            "impersonate-extra-%6fid",
            "impersonate-future",
            "x-remote-user",
            "x-remote-group",
            "connection",
            "te",
            "upgrade",
            "x-other",
        ][..],
    );
    (known, any::<u32>()).prop_map(|(name, spelling)| {
        name.chars()
            .enumerate()
            .map(|(at, letter)| match (letter, (spelling >> (at % 32)) & 3) {
                ('-', 3) => '_',
                (letter, 1) => letter.to_ascii_uppercase(),
                (letter, _) => letter,
            })
            .collect()
    })
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        prop::sample::select(
            &[
                "system:masters",
                "ada",
                "close",
                "upgrade",
                "impersonate-user",
                "Impersonate-Group, x-other",
                "authorization",
                "SPDY/3.1",
                "trailers",
            ][..]
        )
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
    ]
}

/// Serves every connection of a lane: 200 to everything, reviews included, which allows nothing.
fn serve(lane: &'static str, mut api: ApiServerBed, seen: Arc<Mutex<BTreeMap<usize, Vec<Seen>>>>) {
    tokio::spawn(async move {
        while let Some(mut connection) = api.next_connection().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                while let Some((head, _)) = connection.next_request().await {
                    let number = head
                        .split_once("/request/")
                        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                    if let Some(number) = number {
                        let mut names: Vec<String> = head
                            .lines()
                            .skip(1)
                            .map(|line| line.to_ascii_lowercase().replace('_', "-"))
                            .filter(|line| {
                                ["impersonate", "authorization", "x-remote"]
                                    .iter()
                                    .any(|prefix| line.starts_with(prefix))
                            })
                            .collect();
                        names.sort();
                        seen.lock()
                            .expect("not poisoned")
                            .entry(number)
                            .or_default()
                            .push(Seen { lane, names });
                    }
                    connection
                        .answer("200 OK", r#"{"status":{"allowed":false}}"#)
                        .await;
                }
            });
        }
    });
}

fn check(asked: &Asked, seen: &[Seen], impersonation: Impersonation) {
    assert!(seen.len() <= 1, "{asked:?} was sent more than once");
    let Some(seen) = seen.first() else {
        return;
    };
    let names: Vec<&str> = seen.names.iter().map(String::as_str).collect();
    match asked.token.strip_prefix("known.") {
        Some(user) => {
            assert_eq!(seen.lane, "impersonation");
            assert_eq!(
                names,
                [
                    format!("authorization: {}", AGENT_TOKEN.to_ascii_lowercase()),
                    format!("impersonate-extra-oid: oid-{user}"),
                    format!("impersonate-group: group of {user}"),
                    format!("impersonate-user: {user}"),
                ],
                "{asked:?}"
            );
        }
        None => {
            assert_eq!(asked.token, "opaque", "{asked:?}");
            assert_eq!(seen.lane, "pass-through");
            assert_eq!(names.first(), Some(&"authorization: bearer opaque"));
            let others = &names[1..];
            match impersonation {
                Impersonation::Refuse => assert!(others.is_empty(), "{asked:?}: {others:?}"),
                // The caller's own wish, under the caller's own token.
                Impersonation::SubjectAccessReview => assert!(
                    others.is_empty()
                        || others
                            .iter()
                            .filter(|name| name.starts_with("impersonate-user: "))
                            .count()
                            == 1,
                    "{asked:?}: {others:?}"
                ),
            }
            assert!(!others.iter().any(|name| name.starts_with("x-remote")));
        }
    }
}

async fn run(sequence: &[Asked], impersonation: Impersonation) {
    let bed = Bed::with_known_callers(|builder| builder.impersonation(impersonation));
    let seen = Arc::default();
    let Bed {
        agent,
        api,
        impersonated,
    } = bed;
    serve("pass-through", api, Arc::clone(&seen));
    serve("impersonation", impersonated, Arc::clone(&seen));
    for (number, asked) in sequence.iter().enumerate() {
        let mut caller = Bed::caller_of(&agent);
        let mut head = format!("GET /request/{number} HTTP/1.1");
        for (name, value) in &asked.headers {
            head.push_str(&format!("\r\n{name}: {value}"));
        }
        caller
            .send(with_authorization(
                &format!("Bearer {}", asked.token),
                &head,
            ))
            .await;
        let (text, _) = caller.rest().await;
        assert!(text.starts_with("HTTP/1.1 "), "{text}");
    }
    let seen = seen.lock().expect("not poisoned");
    for (number, asked) in sequence.iter().enumerate() {
        check(
            asked,
            seen.get(&number).map_or(&[], Vec::as_slice),
            impersonation,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_sequence_of_requests_lends_anybody_another_name(
        sequence in prop::collection::vec(asked(), 1..8),
        reviews in any::<bool>(),
    ) {
        let impersonation = if reviews {
            Impersonation::SubjectAccessReview
        } else {
            Impersonation::Refuse
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(run(&sequence, impersonation));
    }
}
