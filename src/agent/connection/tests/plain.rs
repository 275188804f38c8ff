//! Requests that stay HTTP.

use crate::agent::{
    RedirectPolicy,
    test_bed::{Bed, End, TOKEN, with_token},
};
use proptest::prelude::{ProptestConfig, prop, proptest};

/// The value of the only line named `name` in a head.
fn only<'a>(head: &'a str, name: &str) -> &'a str {
    let values = all(head, name);
    assert_eq!(values.len(), 1, "{name} in {head}");
    values[0]
}

fn all<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn a_request_passes_under_the_callers_own_token() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks("GET /api/v1/pods HTTP/1.1\r\nAccept: application/json")
        .await;
    let mut api = bed.api.connection().await;
    let head = api.head().await;
    assert!(head.starts_with("GET /api/v1/pods HTTP/1.1\r\n"), "{head}");
    assert_eq!(only(&head, "authorization"), TOKEN);
    assert_eq!(only(&head, "host"), "api.example:6443");
    assert_eq!(only(&head, "accept"), "application/json");
    assert_eq!(only(&head, "audit-id").len(), 36);
    assert!(all(&head, "x-forwarded-for").is_empty());
    api.send(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAudit-Id: a\r\nWarning: 299 - \"old\"\r\n\
         Connection: keep-alive\r\nSet-Cookie: x=y\r\n\r\n{}",
    )
    .await;
    let (text, end) = caller.rest().await;
    let (head, body) = text.split_once("\r\n\r\n").expect("a response");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(only(head, "audit-id"), "a");
    assert_eq!(only(head, "warning"), "299 - \"old\"");
    assert_eq!(only(head, "content-length"), "2");
    assert!(all(head, "set-cookie").is_empty());
    assert_eq!(body, "{}");
    assert_eq!(end, End::Clean);
}

#[tokio::test]
async fn r16_path_and_query_are_forwarded_byte_for_byte() {
    let mut bed = Bed::new();
    for target in [
        "/api/v1//namespaces/a%2Fb/../pods/?labelSelector=a%3Db&&x=%zz;y=1&x=2&=&+%20",
        "/",
        "/?",
        "/apis/%E2%82%AC?watch=1&watch=0",
    ] {
        let _caller = bed.asks(&format!("GET {target} HTTP/1.1")).await;
        let head = bed.api.connection().await.head().await;
        assert!(
            head.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn the_target_of_an_absolute_form_is_still_the_one_api_server() {
    let mut bed = Bed::new();
    let _caller = bed.asks("GET http://evil.example/api HTTP/1.1").await;
    let head = bed.api.connection().await.head().await;
    assert!(head.starts_with("GET /api HTTP/1.1\r\n"), "{head}");
    assert_eq!(only(&head, "host"), "api.example:6443");
}

#[tokio::test]
async fn r13_a_redirect_is_passed_on_and_never_followed() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /api HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 302 Found\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 302 Found\r\n"));
    assert_eq!(only(&text, "location"), "https://evil/");
    assert_eq!(bed.api.dialled(), 1);
}

#[tokio::test]
async fn r13_a_redirect_can_be_refused() {
    for status in ["300 X", "301 X", "302 X", "303 X", "307 X", "308 X"] {
        let mut bed = Bed::with(|builder| builder.redirects(RedirectPolicy::Refuse));
        let mut caller = bed.asks("GET /api HTTP/1.1").await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(format!(
            "HTTP/1.1 {status}\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let (code, answer) = caller.status().await;
        assert_eq!(code, 502, "{status}");
        assert!(!answer.to_string().contains("evil"), "{answer}");
    }
    let mut bed = Bed::with(|builder| builder.redirects(RedirectPolicy::Refuse));
    let mut caller = bed.asks("GET /api HTTP/1.1\r\nIf-None-Match: a").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{text}");
}

#[tokio::test]
async fn a_watch_is_delivered_event_by_event() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /api/v1/pods?watch=1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    caller.head().await;
    for event in ["first", "second"] {
        api.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        caller.until(event).await;
    }
    api.send("0\r\n\r\n").await;
    let (rest, end) = caller.rest().await;
    assert_eq!((rest.as_str(), end), ("\r\n0\r\n\r\n", End::Clean));
}

#[tokio::test]
async fn an_answer_of_unknown_length_says_how_it_is_framed_and_of_when_it_is() {
    for (sent, date) in [
        ("", None),
        (
            "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
            Some("Thu, 01 Jan 2026 00:00:00 GMT"),
        ),
    ] {
        let mut bed = Bed::new();
        let mut caller = bed.asks("GET /api/v1/pods?watch=1 HTTP/1.1").await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(format!(
            "HTTP/1.1 200 OK\r\n{sent}Transfer-Encoding: chunked\r\nX-Kept: 1\r\nKeep-Alive: timeout=5\r\n\r\n"
        ))
        .await;
        api.send(format!("14\r\n{}\r\n0\r\n\r\n", "x".repeat(20)))
            .await;
        let (text, end) = caller.rest().await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(only(head, "transfer-encoding"), "chunked");
        assert_eq!(only(head, "connection"), "close");
        assert_eq!(only(head, "x-kept"), "1");
        assert!(all(head, "keep-alive").is_empty() && all(head, "content-length").is_empty());
        let shown = only(head, "date");
        assert!(
            date.is_none_or(|date| date == shown) && shown.ends_with(" GMT"),
            "{head}"
        );
        assert_eq!(body, format!("14\r\n{}\r\n0\r\n\r\n", "x".repeat(20)));
        assert_eq!(end, End::Clean);
    }
}

#[tokio::test]
async fn trailers_reach_a_caller_without_a_body_who_asked_for_them_and_no_other() {
    for (asked, shown) in [("TE: trailers", true), ("X-Other: y", false)] {
        let mut bed = Bed::new();
        let mut caller = bed.asks(&format!("GET /x HTTP/1.1\r\n{asked}")).await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-down\r\n\r\n\
             4\r\nbody\r\n0\r\nx-down: 1\r\n\r\n",
        )
        .await;
        let (text, end) = caller.rest().await;
        assert!(text.contains("4\r\nbody\r\n0\r\n"), "{text}");
        assert_eq!(text.ends_with("0\r\nx-down: 1\r\n\r\n"), shown, "{text}");
        assert_eq!(end, End::Clean);
    }
}

#[tokio::test]
async fn what_follows_a_request_without_a_body_is_no_request_and_disturbs_nothing() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /api/v1/pods?watch=1 HTTP/1.1").await;
    caller.send("GET /secret HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    caller.send("x".repeat(1_000)).await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
        .await;
    caller.until("event").await;
    caller.send("y".repeat(1_000)).await;
    api.send("5\r\nagain\r\n0\r\n\r\n").await;
    let (text, end) = caller.rest().await;
    assert!(text.ends_with("5\r\nagain\r\n0\r\n\r\n"), "{text}");
    assert_eq!(end, End::Clean);
    assert_eq!(bed.api.dialled(), 1);
}

#[tokio::test]
async fn a_caller_who_leaves_a_silent_watch_ends_it_upstream() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /api/v1/pods?watch=1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    caller.head().await;
    drop(caller);
    api.rest().await;
}

#[tokio::test]
async fn a_caller_who_leaves_before_the_response_ends_the_request_upstream() {
    let mut bed = Bed::new();
    let caller = bed.asks("GET /slow HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    drop(caller);
    api.rest().await;
}

#[tokio::test]
async fn a_caller_who_leaves_an_upload_ends_it_upstream() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked")
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    caller.send("3\r\nabc\r\n").await;
    api.until("abc").await;
    drop(caller);
    let (rest, _) = api.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "a cut upload looks complete");
}

#[tokio::test]
async fn a_truncated_response_never_ends_cleanly() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ] {
        let mut bed = Bed::new();
        let mut caller = bed.asks("GET /api/v1/pods HTTP/1.1").await;
        let mut api = bed.api.connection().await;
        api.head().await;
        api.send(response).await;
        caller.until("half").await;
        drop(api);
        let (rest, end) = caller.rest().await;
        assert_eq!(end, End::Aborted, "{response}");
        assert!(!rest.contains("0\r\n\r\n"), "{response}");
    }
}

#[tokio::test]
async fn an_early_answer_passes_while_the_upload_runs() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked")
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    caller.send("5\r\nfirst\r\n").await;
    api.until("first").await;
    api.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    caller.until("one").await;
    caller.send("6\r\nsecond\r\n0\r\n\r\n").await;
    api.until("second").await;
    api.until("0\r\n\r\n").await;
    api.send("3\r\ntwo\r\n0\r\n\r\n").await;
    let (rest, end) = caller.rest().await;
    assert!(rest.ends_with("two\r\n0\r\n\r\n"), "{rest}");
    assert_eq!(end, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn an_early_refusal_reaches_a_caller_who_has_not_sent_the_body() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks("POST /x HTTP/1.1\r\nContent-Length: 1000000")
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        .await;
    let (text, end) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.ends_with("\r\n\r\nbig"), "{text}");
    assert_eq!(end, End::Clean);
}

#[tokio::test]
async fn expect_is_answered_here_and_goes_no_further() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks("POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4")
        .await;
    let mut api = bed.api.connection().await;
    let head = api.head().await;
    assert!(all(&head, "expect").is_empty());
    assert_eq!(caller.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.send("body").await;
    api.until("body").await;
    // An informational response of the API server's own is not passed on.
    api.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut bed = Bed::new();
    let mut caller = bed
        .asks(
            "POST /x HTTP/1.1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-up, impersonate-user",
        )
        .await;
    caller
        .send("1\r\na\r\n0\r\nx-up: 1\r\nimpersonate-user: admin\r\n\r\n")
        .await;
    let mut api = bed.api.connection().await;
    let head = api.head().await;
    assert_eq!(only(&head, "te"), "trailers");
    assert_eq!(only(&head, "trailer"), "x-up");
    let body = api.until("\r\n\r\n").await;
    assert!(body.contains("0\r\nx-up: 1\r\n"), "{body}");
    assert!(!body.contains("impersonate"), "{body}");
    api.send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-down\r\n\r\n\
         1\r\nb\r\n0\r\nx-down: 2\r\n\r\n",
    )
    .await;
    let (text, _) = caller.rest().await;
    assert!(text.ends_with("0\r\nx-down: 2\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("HEAD /x HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
        .await;
    let (text, end) = caller.rest().await;
    assert_eq!(only(&text, "content-length"), "1234");
    assert!(text.ends_with("\r\n\r\n"));
    assert_eq!(end, End::Clean);
}

#[tokio::test]
async fn a_free_connection_serves_the_next_request() {
    let mut bed = Bed::new();
    let mut first = bed.asks("GET /1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    for number in 1..=3 {
        let head = api.head().await;
        assert!(head.starts_with(&format!("GET /{number} ")), "{head}");
        api.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        first.rest().await;
        first = bed.asks(&format!("GET /{} HTTP/1.1", number + 1)).await;
    }
    assert_eq!(bed.api.dialled(), 1);
}

#[tokio::test]
async fn a_connection_that_closed_while_idle_costs_no_request() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    caller.rest().await;
    // Read, then closed without a byte: the API server's idle limit ran out in this moment.
    let mut caller = bed.asks("GET /2 HTTP/1.1").await;
    api.head().await;
    drop(api);
    let mut api = bed.api.connection().await;
    assert!(api.head().await.starts_with("GET /2 "));
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_change_is_never_sent_twice() {
    let mut bed = Bed::new();
    let mut caller = bed.asks("GET /1 HTTP/1.1").await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    caller.rest().await;
    let mut caller = bed.asks("DELETE /2 HTTP/1.1").await;
    assert!(api.head().await.starts_with("DELETE /2 "));
    drop(api);
    let (code, _) = caller.status().await;
    assert_eq!(code, 502);
    assert_eq!(bed.api.dialled(), 1);
}

#[tokio::test]
async fn what_follows_a_request_on_its_stream_is_not_another_request() {
    let mut bed = Bed::new();
    let mut caller = bed.caller();
    caller
        .send([with_token("GET /1 HTTP/1.1"), with_token("GET /2 HTTP/1.1")].concat())
        .await;
    let mut api = bed.api.connection().await;
    assert!(api.head().await.starts_with("GET /1 "));
    api.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (text, _) = caller.rest().await;
    assert_eq!(only(&text, "connection"), "close");
    // The connection is free now: a second request would go out on it.
    let _caller = bed.asks("GET /3 HTTP/1.1").await;
    assert!(api.head().await.starts_with("GET /3 "));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No sequence of header lines, on the wire, makes the agent's request anybody else's.
    #[test]
    fn no_lines_change_who_acts(
        lines in prop::collection::vec(
            prop::sample::select(&[
                "Connection: Impersonate-User",
                "Connection: close, Impersonate-User",
                "Connection:",
                "connection: authorization",
                "Connection: x-other",
                "Impersonate-User: admin",
                "Impersonate_User: admin",
                "impersonate-Group: system:masters",
                "X-Remote-User: admin",
                "x_remote_group: system:masters",
                "Authorization: Bearer other",
                "authorization: Basic YWRtaW46YWRtaW4=",
                "Authorization:",
                "Proxy-Authorization: Bearer other",
                "Upgrade: websocket",
                "Content-Length: 0",
                "Transfer-Encoding: chunked",
                "X-Other: 1",
                "Cookie: a=b",
            ][..]),
            0..6,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut bed = Bed::new();
            let mut caller = bed.caller();
            let fields: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            caller
                .send(format!(
                    "POST /x HTTP/1.1\r\nHost: h\r\nAuthorization: {TOKEN}\r\n{fields}\r\n"
                ))
                .await;
            tokio::select! {
                mut api = bed.api.connection() => {
                    let head = api.head().await;
                    assert_eq!(only(&head, "authorization"), TOKEN);
                    let lower = head.to_ascii_lowercase().replace('_', "-");
                    assert!(!lower.contains("\nimpersonate-"), "{head}");
                    assert!(!lower.contains("\nx-remote-"), "{head}");
                    assert!(!lower.contains("\nproxy-authorization"), "{head}");
                    assert!(!lower.contains("\ncookie"), "{head}");
                }
                (code, _) = caller.status() => {
                    assert!([400, 401, 403].contains(&code), "{code}");
                }
            }
        });
    }
}

#[tokio::test]
async fn bodies_larger_than_every_buffer_arrive_whole() {
    const SIZE: usize = 3 * 1024 * 1024;
    let mut bed = Bed::new();
    let mut caller = bed
        .asks(&format!("POST /x HTTP/1.1\r\nContent-Length: {SIZE}"))
        .await;
    let mut api = bed.api.connection().await;
    api.head().await;
    let body = "0123456789abcdef".repeat(SIZE / 16);
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{body}");
    let upload = async {
        caller.send(&body).await;
        caller
    };
    let download = async {
        let mut seen = String::new();
        while seen.len() < SIZE {
            seen.push_str(&api.until("f").await);
        }
        assert!(seen == body, "the upload differs");
        api
    };
    let (mut caller, mut api) = tokio::join!(upload, download);
    let respond = async move {
        api.send(&response).await;
        api
    };
    let ((text, end), _api) = tokio::join!(caller.rest(), respond);
    assert!(text.ends_with(&body));
    assert_eq!(end, End::Clean);
}

#[tokio::test]
async fn an_end_before_any_request_is_a_clean_end() {
    let bed = Bed::new();
    let (mut caller, task) = bed.caller_and_task();
    caller.half_close().await;
    assert_eq!(caller.rest().await, (String::new(), End::Clean));
    task.await.expect("no panic");
}

#[tokio::test]
async fn serving_a_stream_ends_with_it() {
    let mut bed = Bed::new();
    let (mut caller, task) = bed.caller_and_task();
    caller.send(with_token("GET /1 HTTP/1.1")).await;
    let mut api = bed.api.connection().await;
    api.head().await;
    api.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    caller.rest().await;
    task.await.expect("no panic");
}
