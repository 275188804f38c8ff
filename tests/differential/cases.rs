//! [`Case`]: the requests that are compared.

/// A body to send.
pub enum Body {
    None,
    /// With a length.
    Sized(String),
    /// Without one: chunked in HTTP/1.1.
    Pieces(Vec<String>),
}

/// One request. `MARK` in path and body stands for a text of its own for each sending, so that what is made can be made
/// on every way.
pub struct Case {
    /// Method and path, as in a request line.
    pub line: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// The answer holds what no two answers share: uids, versions, times.
    pub has_identity: bool,
}

impl Case {
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            headers: Vec::new(),
            body: Body::None,
            has_identity: false,
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn sized(mut self, content_type: &str, body: impl Into<String>) -> Self {
        self.body = Body::Sized(body.into());
        self.header("content-type", content_type)
    }

    fn pieces(mut self, content_type: &str, pieces: &[&str]) -> Self {
        self.body = Body::Pieces(pieces.iter().map(|piece| (*piece).to_owned()).collect());
        self.header("content-type", content_type)
    }

    fn with_identity(mut self) -> Self {
        self.has_identity = true;
        self
    }
}

/// Cases that may run side by side, and then the others: what is made changes the version of every list.
pub fn phases() -> [Vec<Case>; 2] {
    let reads = [
        reads(),
        paths(),
        queries(),
        methods(),
        headers(),
        bodies(),
        watches(),
    ];
    [reads.into_iter().flatten().collect(), changes()]
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What kubectl reads.
fn reads() -> Vec<Case> {
    let plain = [
        "/version",
        "/healthz",
        "/livez",
        "/readyz",
        "/readyz?verbose",
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps/v1",
        "/apis/authorization.k8s.io/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/api/v1/namespaces",
        "/api/v1/namespaces/default",
        "/api/v1/pods",
        PODS,
        "/api/v1/namespaces/default/pods/web-0",
        "/api/v1/namespaces/default/pods/web-0/log",
        "/api/v1/namespaces/default/pods/web-0/log?tailLines=3",
        "/api/v1/namespaces/default/pods/web-0/log?follow=true&tailLines=2",
        "/api/v1/namespaces/kube-system/services",
        "/apis/apps/v1/namespaces/default/deployments",
        // Errors, each with its Status.
        "/api/v1/namespaces/default/pods/no-such-pod",
        "/api/v1/namespaces/nowhere/pods",
        "/api/v1/unknowns",
        "/apis/no.such.group/v1",
        "/no/such/path",
        "/api/v1/namespaces/default/pods/web-0/no-such-subresource",
        "/api/v1/namespaces/default/pods/no-such-pod/log",
    ];
    let mut cases: Vec<Case> = plain
        .iter()
        .map(|path| Case::new(format!("GET {path}")))
        .collect();
    // Pods of the big namespace say when they were asked for, and the ages in tables of the others would tick.
    let big = Case::new("GET /api/v1/namespaces/big/pods");
    cases.push(big.with_identity());
    cases.push(Case::new("GET /api/v1/namespaces/big/pods").header("accept", TABLE));
    let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    cases.push(Case::new("GET /api").header("accept", discovery));
    cases.push(Case::new("GET /apis").header("accept", discovery));
    cases
}

/// Paths that somebody on the way could tidy up.
fn paths() -> Vec<Case> {
    [
        "/",
        "//",
        "/api/",
        "/api/v1/",
        "//api/v1",
        "/api//v1",
        "/api/v1//namespaces",
        "/api/v1/namespaces/default/pods/",
        "/api/v1/./namespaces",
        "/api/v1/../v1/namespaces",
        "/../../etc/passwd",
        "/api/v1/namespaces/default/pods/..",
        "/api/v1/namespaces/default/pods/%2e%2e",
        "/api/v1/namespaces/default/pods/..%2f..%2fkube-system",
        "/api/v1/namespaces/default/pods/a%2Fb",
        "/api/v1/namespaces/default/pods/a%2fb",
        "/api/v1/namespaces/default/pods/web%2D0",
        "/api/v1/namespaces/default/pods/%77eb-0",
        "/api/v1/namespaces/default/pods/%E2%82%AC",
        "/api/v1/namespaces/default/pods/%00",
        "/api/v1/namespaces/default/pods/%0d%0aX:%20y",
        "/api/v1/namespaces/default/pods/%zz",
        "/api/v1/namespaces/default/pods/%",
        "/api/v1/namespaces/default/pods/a+b",
        "/api/v1/namespaces/default/pods/a;b=c",
        "/api/v1/namespaces/default/pods/a:b@c!$&'()*,=~",
        "/api/v1/namespaces/default/services/https:web:443/proxy/",
        "/api/v1/namespaces/default/pods/web-0/proxy/a//b/../c",
        "/proxies/0000",
        "/https://example.com/",
    ]
    .iter()
    .map(|path| Case::new(format!("GET {path}")))
    .collect()
}

/// Queries, which are never taken apart on the way.
fn queries() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "?",
        "?&",
        "?&&limit=1&&",
        "?limit",
        "?limit=",
        "?=x",
        "?limit=1&limit=2",
        "?limit=500&continue=",
        "?labelSelector=app%3Dweb-0",
        "?labelSelector=app=web-0",
        "?labelSelector=app%20in%20(web-0%2Cweb-1)",
        "?labelSelector=app+in+(web-0)",
        "?labelSelector=app!=web-0&fieldSelector=metadata.name%3Dweb-0",
        "?fieldSelector=metadata.name=web-0",
        "?fieldSelector=metadata.name%3Dnone",
        "?labelSelector=%",
        "?labelSelector=%ZZ",
        "?labelSelector=a%00b",
        "?pretty=true&x=a%2Fb/c",
        "?x=a?b?c",
        "?x=;y",
        "?x=a;b&limit=1",
        "?x=%E2%82%AC",
        "?x=|{}^",
        "?resourceVersion=0&resourceVersionMatch=NotOlderThan",
        "?watch=0",
        "?includeObject=Object",
        "?access_token=nobody",
        "?dryRun=All",
    ]
    .iter()
    .map(|query| Case::new(format!("GET {PODS}{query}")))
    .collect();
    let long = "a%3Db,".repeat(2_000);
    cases.push(Case::new(format!("GET {PODS}?x={long}")));
    let many: String = (0..1_500).map(|number| format!("&a={number}")).collect();
    cases.push(Case::new(format!("GET {PODS}?a{many}")));
    cases
}

/// Every method, on paths that have it and on some that have not.
fn methods() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in [
        "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "PURGE", "get",
        "M-SEARCH",
    ] {
        for path in ["/version", "/api/v1", PODS, "/no/such/path"] {
            cases.push(Case::new(format!("{method} {path}")));
        }
    }
    for path in [
        "/healthz",
        "/api/v1/namespaces/default/pods/web-0",
        "/api/v1/namespaces/default/pods/none",
        "/api/v1/namespaces/big/pods",
        "/api/v1/namespaces/default/pods/web-0/log",
    ] {
        cases.push(Case::new(format!("HEAD {path}")));
    }
    cases
}

/// Headers that are legal, if seldom.
fn headers() -> Vec<Case> {
    let get = || Case::new(format!("GET {PODS}"));
    let mut cases: Vec<Case> = [
        ("accept", "*/*"),
        ("accept", "application/*;q=0.5, text/html"),
        ("accept", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf, */*"),
        ("accept", "application/yaml"),
        ("accept", ""),
        ("accept-encoding", "gzip"),
        ("accept-encoding", "gzip, deflate, br;q=0.1"),
        ("accept-encoding", "identity;q=0"),
        ("accept-language", "de-CH"),
        ("range", "bytes=0-9"),
        ("if-none-match", "\"x\""),
        ("if-match", "*"),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
        (
            "user-agent",
            "kubectl/v1.30.0 (linux/amd64) kubernetes/7c48c2b",
        ),
        ("kubectl-command", "kubectl get"),
        ("kubectl-session", "9d2f5d24-6c1b-4e0c-9d55-0c3f1e1f1d4f"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "a=b,c=d"),
        ("baggage", "k=v;p"),
        ("referer", "https://example.com/"),
        ("x-request-id", "1"),
        ("priority", "u=1, i"),
        ("prefer", "respond-async"),
        ("x-empty", ""),
        ("x-quoted", "\"a, b\"; c=\"d\\\"\""),
        ("x-utf-8", "gr\u{fc}\u{df} \u{20ac}"),
        ("x!#$%&'*+-.^_`|~0", "token"),
        ("x_under_score", "kept"),
        ("impersonated", "no impersonation header"),
        ("remote-user", "no x-remote- header"),
        ("x-authorization", "no credential"),
        ("from", "user@example.com"),
        ("max-forwards", "0"),
        ("upgrade-insecure-requests", "1"),
        ("dnt", "1"),
        ("link", "</a>; rel=next"),
    ]
    .iter()
    .map(|&(name, value)| get().header(name, value))
    .collect();
    cases.push(
        get()
            .header("x-many", "1")
            .header("x-many", "2")
            .header("x-many", "1"),
    );
    cases.push(get().header("accept", "text/html").header("accept", JSON));
    cases.push(get().header("x-long", "a".repeat(8 * 1024)));
    cases.push((0..80).fold(get(), |case, number| {
        case.header("x-some", number.to_string())
    }));
    cases
}

/// Bodies, where they are usual and where they are not. An `exec` without an upgrade is not among them: its refusal names
/// the HTTP version of the last hop, which is the agent's choice.
fn bodies() -> Vec<Case> {
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let question = r#"{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#;
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    vec![
        Case::new(format!("POST {review}")).sized(JSON, question),
        Case::new(format!("POST {review}")).pieces(JSON, &[&question[..40], &question[40..]]),
        Case::new(format!("POST {review}?fieldManager=x&dryRun=")).sized(JSON, question),
        Case::new(format!("POST {who}")).sized(JSON, "{}"),
        Case::new(format!("POST {who}")).pieces(JSON, &["{", "", "}"]),
        Case::new(format!("POST {review}")).sized(JSON, ""),
        Case::new(format!("POST {review}")).sized(JSON, "{"),
        Case::new(format!("POST {review}")).sized(JSON, "[]"),
        Case::new(format!("POST {review}")).sized("application/cbor", "\u{0}\u{1}"),
        Case::new(format!("POST {review}")).sized("application/yaml", "spec: {a: b}\n"),
        Case::new(format!("POST {review}"))
            .sized(JSON, question)
            .header("expect", "100-continue"),
        Case::new(format!("POST {CONFIG_MAPS}")).sized(JSON, "not json: ["),
        Case::new(format!("POST {CONFIG_MAPS}")).pieces(JSON, &[]),
        Case::new(format!("POST {CONFIG_MAPS}")).sized("text/html", "<p>"),
        Case::new(format!("GET {PODS}")).sized(JSON, "{\"unusual\":true}"),
        Case::new(format!("GET {PODS}")).pieces(JSON, &["{}"]),
        Case::new("GET /version").sized("text/plain", "ignored"),
        Case::new(format!("DELETE {PODS}/none"))
            .sized(JSON, r#"{"propagationPolicy":"Background"}"#),
        Case::new(format!("HEAD {PODS}")).sized(JSON, "{}"),
        Case::new(format!("OPTIONS {PODS}")).sized(JSON, "{}"),
        Case::new(format!("PUT {PODS}/none")).sized(JSON, "{}"),
        upload_to_nowhere(),
        Case::new(format!("POST {PODS}?dryRun=All")).sized(JSON, "{}"),
    ]
}

/// A body that is still under way when it is answered.
pub fn upload_to_nowhere() -> Case {
    Case::new("POST /no/such/path").sized(JSON, "x".repeat(100_000))
}

/// What changes the cluster.
fn changes() -> Vec<Case> {
    let config_map = |data: &str| {
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"made-MARK"}},"data":{{"a":"{data}"}}}}"#
        )
    };
    let mut cases = vec![
        Case::new(format!("POST {CONFIG_MAPS}")).sized(JSON, config_map("b")),
        Case::new(format!("POST {CONFIG_MAPS}"))
            .sized(JSON, config_map(&"x".repeat(1 << 20)))
            .header("expect", "100-continue"),
        Case::new(format!(
            "POST {CONFIG_MAPS}?fieldManager=kubectl-create&fieldValidation=Strict"
        ))
        .sized(
            "application/yaml",
            "metadata: {name: yaml-MARK}\ndata: {a: 'b'}\n",
        ),
        Case::new(format!("POST {CONFIG_MAPS}"))
            .pieces(JSON, &[r#"{"metadata":{"name":"#, r#""pieces-MARK"}"#, "}"]),
        Case::new(format!(
            "PATCH {CONFIG_MAPS}/applied-MARK?fieldManager=x&force=true"
        ))
        .sized(
            "application/apply-patch+yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied-MARK}\ndata: {a: b}\n",
        ),
        Case::new("POST /api/v1/namespaces").sized(JSON, r#"{"metadata":{"name":"ns-MARK"}}"#),
        Case::new("POST /api/v1/namespaces/default/serviceaccounts/default/token")
            .sized(JSON, r#"{"spec":{"expirationSeconds":600}}"#),
        Case::new(format!("POST {CONFIG_MAPS}"))
            .sized(JSON, r#"{"metadata":{"name":"x-MARK"}}"#)
            .header("content-encoding", "identity"),
    ];
    for (number, (kind, patch)) in [
        (
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"l":"v"}}}"#,
        ),
        (
            "application/strategic-merge-patch+json",
            r#"{"metadata":{"labels":{"l":"w"}}}"#,
        ),
        (
            "application/json-patch+json",
            r#"[{"op":"add","path":"/metadata/labels/l","value":"x"}]"#,
        ),
        ("application/unknown-patch+json", "{}"),
        ("application/merge-patch+json", "{"),
    ]
    .into_iter()
    .enumerate()
    {
        // A pod each: the answers of one kind must not depend on when the others are given.
        let pod = format!("/api/v1/namespaces/patched/pods/pod-{number}");
        cases.push(Case::new(format!("PATCH {pod}?fieldManager=kubectl")).sized(kind, patch));
        cases.push(Case::new(format!("PATCH {PODS}/none")).sized(kind, patch));
    }
    cases.into_iter().map(Case::with_identity).collect()
}

/// Watches that the server ends.
fn watches() -> Vec<Case> {
    [
        "/api/v1/namespaces?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Ddefault",
        "/api/v1/namespaces/kube-system/pods?watch=true&timeoutSeconds=1&resourceVersion=0",
        "/api/v1/namespaces/kube-system/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=1",
        "/apis/apps/v1/deployments?watch=1&timeoutSeconds=1",
        "/api/v1/pods?watch=1&resourceVersion=bad&timeoutSeconds=1",
    ]
    .iter()
    .map(|path| Case::new(format!("GET {path}")))
    .collect()
}
