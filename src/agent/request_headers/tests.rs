use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::*;
use crate::{
    agent::{
        AgentCredential, IdentityRules, ServiceAccountAuthenticator, TunnelId,
        identity::{Callers, Standing},
        request_head::RequestHead,
    },
    auth::BearerAuth,
};

const TOKEN: &str = "Bearer caller.token";

type Lines<'a> = &'a [(&'a str, &'a str)];

fn map(lines: Lines<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
            HeaderValue::from_bytes(value.as_bytes()).expect("a header value"),
        );
    }
    headers
}

/// What goes upstream for a request with these lines, or the code with which it is refused.
fn upstream(lines: Lines<'_>) -> Result<HeaderMap, u16> {
    upstream_under(lines, &HeaderPolicy::default())
}

fn upstream_under(lines: Lines<'_>, policy: &HeaderPolicy) -> Result<HeaderMap, u16> {
    forward(map(lines), policy)
}

fn forward(headers: HeaderMap, policy: &HeaderPolicy) -> Result<HeaderMap, u16> {
    let callers = Callers::new(vec![Arc::new(ServiceAccountAuthenticator::new())]);
    let head = RequestHead {
        method: http::Method::GET,
        target: http::Uri::from_static("/api"),
        headers,
    };
    let caller = block_on(callers.identify(&head, TunnelId::generate()))
        .map_err(|refusal| refusal.code().as_u16())?;
    let Standing::OwnToken(token) = caller.standing else {
        panic!("the token was taken for another one");
    };
    let (clean, act_as) = clean(head.headers, policy).map_err(|refusal| refusal.code().as_u16())?;
    seal(clean, Decision::PassThrough(token, act_as)).map_err(|refusal| refusal.code().as_u16())
}

fn seal(clean: CleanHeaders, decision: Decision) -> Result<HeaderMap, Refusal> {
    let host = HeaderValue::from_static("api.example:6443");
    let correlation = CorrelationId::generate();
    clean
        .seal(decision, &host, AuditId::generate(), &correlation, None)
        .map(SealedHeaders::into_map)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn allowing_as() -> HeaderPolicy {
    let mut policy = HeaderPolicy::default();
    policy.set_impersonation(Impersonation::SubjectAccessReview);
    policy
}

/// The same with the caller's token added.
fn authenticated(lines: Lines<'_>) -> Result<HeaderMap, u16> {
    let mut all = vec![("Authorization", TOKEN)];
    all.extend_from_slice(lines);
    upstream(&all)
}

fn assert_dropped(lines: Lines<'_>) {
    let headers = authenticated(lines).expect("forwarded");
    let expected = authenticated(&[]).expect("forwarded");
    let names = |headers: &HeaderMap| -> Vec<String> {
        let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&headers), names(&expected), "{lines:?}");
    for (_, value) in lines {
        assert!(
            headers
                .values()
                .all(|sent| sent.as_bytes() != value.as_bytes()),
            "{lines:?}"
        );
    }
}

#[test]
fn r01_connection_nominates_impersonation() {
    for token in [
        "Impersonate-User",
        "impersonate-group",
        "IMPERSONATE-EXTRA-OID",
        "Impersonate-Future",
        "Impersonate_User",
        "X-Remote-User",
        "x_remote_extra-a",
    ] {
        assert_eq!(authenticated(&[("Connection", token)]), Err(400), "{token}");
    }
}

#[test]
fn r02_connection_lists_spaces_repeats_and_case() {
    for lines in [
        &[("Connection", "foo, Impersonate-User")][..],
        &[("Connection", "foo,\t  impersonate-user  ,bar")],
        &[("Connection", ",,Impersonate-User")],
        &[("Connection", "close"), ("connection", "Impersonate-User")],
        &[("CONNECTION", "iMpErSoNaTe-UsEr")],
    ] {
        assert_eq!(authenticated(lines), Err(400), "{lines:?}");
    }
}

#[test]
fn r03_connection_nominates_identity_and_framing() {
    for token in [
        "Authorization",
        "Host",
        "Content-Length",
        "Audit-ID",
        "audit_id",
    ] {
        assert_eq!(authenticated(&[("Connection", token)]), Err(400), "{token}");
    }
    for malformed in ["a b", "\"close\"", "cl\u{f6}se", "a;b", "a=b"] {
        assert_eq!(
            authenticated(&[("Connection", malformed)]),
            Err(400),
            "{malformed}"
        );
    }
}

#[test]
fn r04_first_connection_line_empty() {
    assert_dropped(&[
        ("Connection", ""),
        ("Connection", "X-Hop"),
        ("X-Hop", "hop"),
    ]);
    assert_eq!(
        authenticated(&[("Connection", ""), ("Connection", "Impersonate-User")]),
        Err(400)
    );
}

#[test]
fn r05_nominating_a_header_of_ours_does_not_remove_ours() {
    let headers = authenticated(&[("Connection", "traceparent, x-ms-correlation-request-id")])
        .expect("forwarded");
    assert!(headers.contains_key(telemetry::HEADER_CORRELATION_ID));
    assert!(headers.contains_key(telemetry::HEADER_AUDIT_ID));
    assert_eq!(headers[header::HOST], "api.example:6443");
}

#[test]
fn r06_r07_r08_impersonation_by_the_caller_is_403() {
    for name in [
        "Impersonate-User",
        "Impersonate-Group",
        "Impersonate-Uid",
        "Impersonate-Extra-Oid",
        "impersonate-foo",
        "Impersonate-",
    ] {
        assert_eq!(
            authenticated(&[(name, "system:masters")]),
            Err(403),
            "{name}"
        );
        assert_eq!(authenticated(&[(name, "")]), Err(403), "{name}");
    }
}

#[test]
fn the_api_server_judges_the_wish_of_a_caller_whose_token_it_judges() {
    let lines = [
        ("Authorization", TOKEN),
        ("Impersonate-User", "jane@example.com"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Uid", "1"),
        ("Impersonate-Extra-Scopes%2fX", "view"),
    ];
    let headers = upstream_under(&lines, &allowing_as()).expect("forwarded");
    assert_eq!(headers[header::AUTHORIZATION], TOKEN);
    let groups: Vec<_> = headers.get_all("impersonate-group").iter().collect();
    assert_eq!(groups, ["a", "b"]);
    assert_eq!(headers["impersonate-user"], "jane@example.com");
    assert_eq!(headers["impersonate-uid"], "1");
    assert_eq!(headers["impersonate-extra-scopes%2fx"], "view");
}

#[test]
fn r07_r08_r09_a_wish_that_is_not_understood_is_403_with_impersonation_on_too() {
    for lines in [
        &[("Impersonate-Foo", "x"), ("Impersonate-User", "a")][..],
        &[("Impersonate_User", "a")],
        &[("Impersonate-User", "a"), ("Impersonate_Group", "b")],
        &[("Impersonate-User", "a"), ("Impersonate-User", "b")],
        &[
            ("Impersonate-User", "a"),
            ("Impersonate-Uid", "1"),
            ("Impersonate-Uid", "2"),
        ],
        &[("Impersonate-Group", "system:masters")],
        &[("Impersonate-Uid", "1")],
        &[("Impersonate-User", "")],
        &[("Impersonate-User", "\u{a0}")],
        &[("Impersonate-User", "a"), ("Impersonate-Group", "")],
        &[("Impersonate-User", "a"), ("Impersonate-Extra-", "x")],
        &[("Impersonate-User", "a"), ("Impersonate-Extra-%ff", "x")],
        &[("Impersonate-User", "a"), ("Impersonate-Extra-a", "")],
        &[
            ("Impersonate-User", "a"),
            ("Impersonate-Extra-arc.azure.com%2foriginal-user", "root"),
        ],
    ] {
        let mut all = vec![("Authorization", TOKEN)];
        all.extend_from_slice(lines);
        assert_eq!(upstream_under(&all, &allowing_as()), Err(403), "{lines:?}");
    }
}

#[test]
fn r06_r07_the_agents_names_replace_whatever_was_there() {
    let identity = Identity::builder("ada")
        .group("staff")
        .uid("7")
        .build(&IdentityRules::default())
        .expect("valid");
    // As if cleaning had overlooked all of it.
    let clean = CleanHeaders {
        headers: map(&[
            ("Authorization", "Bearer other"),
            ("Impersonate-User", "root"),
            ("Impersonate-Group", "system:masters"),
            ("Impersonate-Uid", "0"),
            ("Impersonate-Extra-Oid", "x"),
            ("Impersonate_Group", "system:masters"),
            ("Impersonate-Future", "x"),
        ]),
        accepts_trailers: false,
        trailers: None,
    };
    let decision = Decision::Impersonate(Arc::new(identity), UidHeader::Send, agent_token());
    let headers = seal(clean, decision).expect("sealed");
    let mut names: Vec<String> = headers
        .iter()
        .filter(|(name, _)| {
            impersonation::is_impersonation(name.as_str()) || *name == header::AUTHORIZATION
        })
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "authorization: Bearer agent.token",
            "impersonate-group: staff",
            "impersonate-uid: 7",
            "impersonate-user: ada",
        ]
    );
}

fn agent_token() -> AgentToken {
    let provider = Arc::new(BearerAuth::fixed("agent.token").expect("a token"));
    block_on(AgentCredential::new(provider).token()).expect("a token")
}

#[test]
fn r09_underscores_are_dashes() {
    for name in [
        "Impersonate_User",
        "impersonate_group",
        "IMPERSONATE_EXTRA-A",
    ] {
        assert_eq!(authenticated(&[(name, "admin")]), Err(403), "{name}");
    }
    assert_dropped(&[
        ("X_Remote_User", "admin"),
        ("X-Remote_Group", "masters"),
        ("Audit_ID", "mine"),
        ("X_Forwarded_For", "1.2.3.4"),
        ("Transfer_Encoding", "chunked"),
        ("Content_Length", "7"),
        ("Proxy_Authorization", "Basic x"),
    ]);
}

#[test]
fn r10_front_proxy_headers_of_any_name() {
    assert_dropped(&[
        ("X-Remote-User", "admin"),
        ("X-Remote-Uid", "0"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Extra-Scopes", "all"),
    ]);
    let mut policy = HeaderPolicy::default();
    policy.strip("X-Custom-User").expect("a name");
    let lines = [
        ("Authorization", TOKEN),
        ("x-custom-user", "admin"),
        ("X_Custom_User-Extra", "a"),
    ];
    let headers = upstream_under(&lines, &policy).expect("forwarded");
    assert!(!headers.keys().any(|name| name.as_str().contains("custom")));
}

#[test]
fn r32_exactly_one_authorization_upstream() {
    let headers = authenticated(&[]).expect("forwarded");
    let values: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().collect();
    assert_eq!(values, [TOKEN]);
    for second in [TOKEN, "", "Basic x"] {
        assert_eq!(authenticated(&[("Authorization", second)]), Err(401));
    }
}

#[test]
fn r33_forwarding_headers_of_the_caller_are_not_believed() {
    assert_dropped(&[
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Proto", "http"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Real-Ip", "10.0.0.1"),
        ("Via", "1.1 evil"),
    ]);
}

#[test]
fn hop_by_hop_relay_and_browser_headers_are_dropped() {
    assert_dropped(&[
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=9"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic y"),
        ("TE", "gzip"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Cookie", "session=1"),
        ("Audit-ID", "mine"),
        ("Expect", "100-continue"),
        ("ServiceBusAuthorization", "SharedAccessSignature x"),
        ("sb-hc-token", "t"),
        ("x-acc-anything", "u"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example"),
    ]);
}

#[test]
fn what_the_api_server_needs_is_untouched() {
    let lines = [
        ("accept", "application/json;as=Table"),
        ("accept-encoding", "gzip"),
        ("user-agent", "kubectl/v1.34.0"),
        ("content-type", "application/apply-patch+yaml"),
        ("content-length", "12"),
        ("kubectl-command", "kubectl apply"),
        ("kubectl-session", "s"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let headers = authenticated(&lines).expect("forwarded");
    for (name, value) in lines {
        let sent: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(sent, [value], "{name}");
    }
}

#[test]
fn declared_trailers_pass_except_those_that_claim_something() {
    let headers = authenticated(&[
        ("TE", "gzip, Trailers"),
        ("Transfer-Encoding", "chunked"),
        ("Trailer", "X-Checksum, Impersonate-User"),
        ("Trailer", "authorization, x_remote_user, X-Second"),
    ])
    .expect("forwarded");
    assert_eq!(headers[header::TE], "trailers");
    assert_eq!(headers[header::TRAILER], "X-Checksum, X-Second");

    let mut trailers = map(&[
        ("x-checksum", "1"),
        ("impersonate-user", "admin"),
        ("Impersonate_Group", "masters"),
        ("x-remote-user", "admin"),
        ("authorization", "Bearer x"),
    ]);
    clean_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("x-checksum", "1")]));
}

#[test]
fn the_agents_ids_replace_the_callers() {
    let first = authenticated(&[("Audit-ID", "mine")]).expect("forwarded");
    let second = authenticated(&[("Audit-ID", "mine")]).expect("forwarded");
    let id = |headers: &HeaderMap| headers[telemetry::HEADER_AUDIT_ID].clone();
    assert_ne!(id(&first), id(&second));
    let text = id(&first).to_str().expect("ASCII").to_owned();
    let uuid = uuid::Uuid::parse_str(&text).expect("a UUID");
    assert_eq!(uuid.get_version_num(), 4);
}

#[test]
fn the_names_to_strip_are_limited() {
    let mut policy = HeaderPolicy::default();
    for _ in 0..MAX_EXTRA_NAMES {
        policy.strip("x-a").expect("room");
    }
    let error = policy.strip("x-b").expect_err("full");
    assert_eq!(error.kind(), ErrorKind::LimitReached);
    let error = HeaderPolicy::default()
        .strip("a b")
        .expect_err("no header name");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Names that matter, in every spelling, among names that do not.
fn name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(
        &[
            "authorization",
            "connection",
            "host",
            "impersonate-user",
            "impersonate-group",
            "impersonate-extra-a",
            "x-remote-user",
            "x-remote-group",
            "audit-id",
            "te",
            "trailer",
            "upgrade",
            "cookie",
            "accept",
            "x-other",
        ][..],
    );
    let spelled = (known, any::<u32>()).prop_map(|(name, spelling)| {
        name.chars()
            .enumerate()
            .map(|(at, letter)| match (letter, (spelling >> (at % 32)) & 1) {
                ('-', 1) => '_',
                (letter, 1) => letter.to_ascii_uppercase(),
                (letter, _) => letter,
            })
            .collect::<String>()
    });
    prop_oneof![8 => spelled, 1 => "[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,20}"]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(TOKEN.as_bytes().to_vec()),
        Just(b"admin".to_vec()),
        prop::collection::vec(name(), 0..4).prop_map(|names| names.join(" , ").into_bytes()),
        prop::collection::vec(prop_oneof![Just(b'\t'), 32_u8..127, 128_u8..], 0..40),
    ]
}

proptest! {
    /// Whatever a caller sends: refused, or forwarded under exactly the caller's own credential and no other name.
    #[test]
    fn no_headers_make_anybody_somebody_else(
        with_token in any::<bool>(),
        lines in prop::collection::vec((name(), value()), 0..12),
    ) {
        let mut headers = HeaderMap::new();
        if with_token {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(TOKEN));
        }
        for (name, value) in lines {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(&value),
            ) {
                headers.append(name, value);
            }
        }
        let given: Vec<HeaderValue> =
            headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
        match forward(headers, &HeaderPolicy::default()) {
            Ok(sent) => {
                let credentials: Vec<HeaderValue> =
                    sent.get_all(header::AUTHORIZATION).iter().cloned().collect();
                assert_eq!(credentials.len(), 1);
                assert_eq!(credentials, given);
                for name in sent.keys() {
                    let name = name.as_str().replace('_', "-");
                    assert!(!name.starts_with("impersonate-"), "{name}");
                    assert!(!name.starts_with("x-remote-"), "{name}");
                    assert!(name != "connection" && name != "cookie", "{name}");
                }
                assert_eq!(sent.get_all(header::HOST).iter().count(), 1);
                assert_eq!(sent.get_all(telemetry::HEADER_AUDIT_ID).iter().count(), 1);
            }
            Err(code) => assert!([400, 401, 403].contains(&code)),
        }
    }
}
