use super::*;

fn target(text: &str) -> PathAndQuery {
    text.parse().expect("a target")
}

fn access(method: Method, text: &str) -> Access {
    let target = target(text);
    let resource = ResourcePath::of(target.path()).expect("a clear path");
    PolicyRequest {
        caller: None,
        acting_as: None,
        method: &method,
        target: &target,
        resource,
    }
    .access()
}

#[test]
fn r34_reaching_into_a_workload_is_told_by_path_and_not_by_method() {
    for path in [
        "/api/v1/namespaces/n/pods/p/exec?command=sh",
        "/api/v1/namespaces/n/pods/p/attach",
        "/api/v1/namespaces/n/pods/p/portforward",
        "/api/v1/namespaces/n/pods/p/proxy",
        "/api/v1/namespaces/n/pods/p/proxy/a/b",
        "/api/v1/namespaces/n/pods/p/ephemeralcontainers",
        "/api/v1/namespaces/n/services/https:s:443/proxy/",
        "/api/v1/nodes/n/proxy/exec/ns/pod/container",
        "/api/v1/nodes/n/proxy/",
        "/api/v1/proxy/namespaces/n/pods/p",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::HEAD] {
            assert_eq!(access(method, path), Access::Interact, "{path}");
        }
    }
}

#[test]
fn everything_else_is_told_by_method() {
    for path in [
        "/version",
        "/apis",
        "/api/v1/pods?watch=1",
        "/api/v1/watch/pods",
        "/api/v1/namespaces/n/pods/p/log",
        "/api/v1/namespaces/n/pods/exec",
        "/apis/example.com/v1/namespaces/n/pods/p/exec",
        "/apis/apps/v1/namespaces/n/deployments/d/scale",
    ] {
        assert_eq!(access(Method::GET, path), Access::Read, "{path}");
        assert_eq!(access(Method::DELETE, path), Access::Write, "{path}");
    }
}

#[test]
fn paths_are_taken_apart_as_the_api_server_does() {
    let parts = |path| {
        ResourcePath::of(path).expect("a clear path").map(|found| {
            (
                found.group,
                found.namespace,
                found.resource,
                found.name,
                found.subresource,
            )
        })
    };
    for (path, expected) in [
        ("/api/v1/pods", Some(("", None, "pods", None, None))),
        ("/api/v1/pods/", Some(("", None, "pods", None, None))),
        (
            "/api/v1/namespaces",
            Some(("", None, "namespaces", None, None)),
        ),
        (
            "/api/v1/namespaces/n",
            Some(("", None, "namespaces", Some("n"), None)),
        ),
        (
            "/api/v1/namespaces/n/finalize",
            Some(("", None, "namespaces", Some("n"), Some("finalize"))),
        ),
        (
            "/apis/apps/v1/namespaces/n/deployments/d/scale",
            Some(("apps", Some("n"), "deployments", Some("d"), Some("scale"))),
        ),
        (
            "/api/v1/watch/namespaces/n/pods",
            Some(("", Some("n"), "pods", None, None)),
        ),
        ("/api/v1", None),
        ("/apis/apps", None),
        ("/", None),
        ("/openapi/v3", None),
    ] {
        assert_eq!(parts(path), expected, "{path}");
    }
}

#[test]
fn r23_paths_with_two_meanings_have_none() {
    for path in [
        "/api/v1/namespaces/n/../m/pods",
        "/api/v1/namespaces/n/%2e%2E/m/pods",
        "/api/v1/namespaces/n%2f..%2fm/pods",
        "/api/v1/./pods",
        "/api//v1/pods",
        "//api/v1/pods",
        "/api/v1/pods//",
        "/api/v1/namespaces/n/pods/p/%65xec",
        "/api/v1/namespaces/n/p%6fds/p/exec",
        "/%61pi/v1/pods",
        "/api/v1/namespaces/n/pods/p/proxy/..%2f..%2fsecrets",
        "/api/v1/namespaces/n/pods/p\\..%5cq",
        "*",
    ] {
        assert!(ResourcePath::of(path).is_err(), "{path}");
    }
    // What is behind `proxy` belongs to the pod, escapes and all.
    assert!(ResourcePath::of("/api/v1/namespaces/n/pods/p/proxy/a%20b").is_ok());
}

struct Recording(std::sync::Mutex<Vec<String>>);

#[async_trait]
impl RequestPolicy for Recording {
    async fn decide(&self, request: &PolicyRequest<'_>) -> Verdict {
        let seen = format!(
            "{} {}?{}",
            request.method(),
            request.path(),
            request.query().unwrap_or_default()
        );
        self.0.lock().expect("not poisoned").push(seen);
        Verdict::Deny("no\u{7}".repeat(MAX_REASON))
    }
}

#[tokio::test]
async fn r16_a_policy_sees_the_bytes_that_are_forwarded() {
    let recording = Arc::new(Recording(std::sync::Mutex::default()));
    let policy: Arc<dyn RequestPolicy> = recording.clone();
    let target = target("/api/v1/pods?a=%zz;b&c=1&a=2");
    let refusal = check(Some(&policy), None, None, &Method::GET, &target)
        .await
        .expect_err("denied");
    assert_eq!(refusal.code(), 403);
    assert_eq!(
        *recording.0.lock().expect("not poisoned"),
        ["GET /api/v1/pods?a=%zz;b&c=1&a=2"]
    );
}

struct Hanging;

#[async_trait]
impl RequestPolicy for Hanging {
    async fn decide(&self, _: &PolicyRequest<'_>) -> Verdict {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_hangs_says_no() {
    let policy: Arc<dyn RequestPolicy> = Arc::new(Hanging);
    let start = tokio::time::Instant::now();
    let refusal = check(Some(&policy), None, None, &Method::GET, &target("/version")).await;
    assert_eq!(refusal.expect_err("denied").code(), 403);
    assert_eq!(start.elapsed(), DECISION_LIMIT);
}

#[tokio::test]
async fn a_path_with_two_meanings_is_refused_only_where_somebody_judges_it() {
    let path = target("/api/v1/namespaces/n/../m/pods");
    let policy: Arc<dyn RequestPolicy> = Arc::new(Hanging);
    let refusal = check(Some(&policy), None, None, &Method::GET, &path).await;
    assert_eq!(refusal.expect_err("refused").code(), 400);
    assert!(check(None, None, None, &Method::GET, &path).await.is_ok());
}
