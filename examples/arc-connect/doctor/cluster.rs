//! Through the tunnel: the agent, its API server, who the caller is there and what they may do.

use std::{sync::Arc, time::Duration};

use arc_cluster_connect::{AuthProvider, Result, Tunnel};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::check::{Check, Finding};
use crate::first_request::ask;

pub const AGENT: &str = "agent.answers";
pub const API_SERVER: &str = "agent.api-server";
pub const IDENTITY: &str = "cluster.identity";
pub const RIGHTS: &str = "cluster.rights";

/// The agent asks its API server, and perhaps an issuer, before it answers.
const LIMIT: Duration = Duration::from_secs(35);

const TOKEN_ADVICE: &str = "get a new token (`kubectl create token NAME`), check that the agent takes tokens of this kind \
    (--allow-service-account-tokens, --entra-tenant), and that it is the cluster's own tenant";

/// What everything here is asked with.
pub struct Caller {
    pub tunnel: Arc<dyn Tunnel>,
    pub auth: Arc<dyn AuthProvider>,
    /// Where rights are looked at.
    pub namespace: String,
}

/// Every check that goes through the tunnel.
pub async fn checks(caller: &Caller) -> Vec<Check> {
    let started = std::time::Instant::now();
    let version = tokio::time::timeout(LIMIT, caller.get("/version")).await;
    let took = started.elapsed();
    let (agent, api_server, token) = match version {
        Ok(answer) => judge_version(answer),
        Err(_) => (
            Finding::failed(
                format!("no answer within {} s", LIMIT.as_secs()),
                "look at the agent's log",
            ),
            None,
            None,
        ),
    };
    let mut agent = Check::new(AGENT, agent);
    agent.took = took;
    let mut checks = vec![agent];
    let Some(api_server) = api_server else {
        checks.extend(
            [API_SERVER, IDENTITY, RIGHTS].map(|name| skipped(name, "the agent does not answer")),
        );
        return checks;
    };
    let reaches = api_server.is_ok();
    checks.push(Check::new(API_SERVER, api_server));
    if let Some(refused) = token {
        checks.push(Check::new(IDENTITY, refused));
        checks.push(skipped(RIGHTS, "the caller is not let in"));
    } else if reaches {
        let mut username = None;
        let identity = Check::within(IDENTITY, LIMIT, async {
            let (finding, name) = caller.identity().await;
            username = name;
            finding
        });
        checks.push(identity.await);
        let who = username.unwrap_or_else(|| "the caller".to_owned());
        let rights = Check::within(RIGHTS, LIMIT, caller.rights(&who)).await;
        checks.push(rights.with_target(format!("namespace {}", caller.namespace)));
    } else {
        checks.extend(
            [IDENTITY, RIGHTS].map(|name| skipped(name, "the agent does not reach its API server")),
        );
    }
    checks
}

/// What comes when there is no tunnel.
pub fn all_skipped(why: &str) -> Vec<Check> {
    [AGENT, API_SERVER, IDENTITY, RIGHTS]
        .map(|name| skipped(name, why))
        .to_vec()
}

fn skipped(name: &'static str, why: &str) -> Check {
    Check::new(name, Finding::skipped(why))
}

impl Caller {
    async fn get(&self, path: &str) -> Result<Response<Bytes>> {
        ask(&self.tunnel, &self.auth, Method::GET, path, None).await
    }

    async fn review(&self, group: &str, kind: &str, spec: Value) -> Result<Response<Bytes>> {
        let path = format!("/apis/{group}/v1/{}s", kind.to_lowercase());
        let body = json!({ "apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec });
        ask(&self.tunnel, &self.auth, Method::POST, &path, Some(&body)).await
    }

    async fn identity(&self) -> (Finding, Option<String>) {
        let review = self.review("authentication.k8s.io", "SelfSubjectReview", json!({}));
        match review.await {
            Ok(answer) => judge_identity(answer.status(), &parsed(&answer)),
            Err(error) => (Finding::of_error(&error), None),
        }
    }

    async fn rights(&self, who: &str) -> Finding {
        let spec = json!({ "namespace": self.namespace });
        let rules = match self
            .review("authorization.k8s.io", "SelfSubjectRulesReview", spec)
            .await
        {
            Ok(answer) => parsed(&answer)["status"].take(),
            Err(error) => return Finding::of_error(&error),
        };
        if let Some(finding) = judge_rules(&rules) {
            return finding;
        }
        // What decides beside RBAC, such as Azure, is not in the rules.
        let mut allowed = Vec::new();
        for (verb, resource) in [("list", "pods"), ("create", "pods")] {
            let attributes =
                json!({ "namespace": self.namespace, "verb": verb, "resource": resource });
            let spec = json!({ "resourceAttributes": attributes });
            match self
                .review("authorization.k8s.io", "SelfSubjectAccessReview", spec)
                .await
            {
                Ok(answer) if parsed(&answer)["status"]["allowed"] == Value::Bool(true) => {
                    allowed.push(format!("{verb} {resource}"));
                }
                Ok(_) => {}
                Err(error) => return Finding::of_error(&error),
            }
        }
        judge_access(&allowed, who, &self.namespace)
    }
}

/// What the first answer says of the agent, of its API server, and of the caller when they are refused.
fn judge_version(answer: Result<Response<Bytes>>) -> (Finding, Option<Finding>, Option<Finding>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (Finding::of_error(&error), None, None),
    };
    let status = answer.status();
    let body = parsed(&answer);
    let message = body["message"].as_str().unwrap_or("no reason was given");
    let agent = Finding::ok("answers through the tunnel");
    match status {
        StatusCode::UNAUTHORIZED => (
            agent,
            Some(Finding::skipped("the caller was refused first")),
            Some(Finding::failed(
                format!("the token is refused: {message}"),
                TOKEN_ADVICE,
            )),
        ),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            (
                agent,
                Some(Finding::failed(
                    format!("{}: {message}", status.as_u16()),
                    "the agent runs and can not reach its API server: look at the agent's log and its --kubeconfig, and \
                 whether the API server runs",
                )),
                None,
            )
        }
        // Who may not read the version is let in all the same.
        StatusCode::FORBIDDEN => (agent, Some(Finding::ok("answers")), None),
        status if status.is_success() => {
            let version = body["gitVersion"].as_str().unwrap_or("an unknown version");
            (
                agent,
                Some(Finding::ok(format!("Kubernetes {version}"))),
                None,
            )
        }
        status => (
            agent,
            Some(Finding::failed(
                format!("an unexpected answer, {}: {message}", status.as_u16()),
                "look at the agent's log",
            )),
            None,
        ),
    }
}

fn judge_identity(status: StatusCode, review: &Value) -> (Finding, Option<String>) {
    let user = &review["status"]["userInfo"];
    match (status, user["username"].as_str()) {
        (StatusCode::UNAUTHORIZED, _) => {
            (Finding::failed("the token is refused", TOKEN_ADVICE), None)
        }
        (status, Some(name)) if status.is_success() => {
            let groups: Vec<&str> = user["groups"]
                .as_array()
                .map(|groups| groups.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            let detail = match groups.len() {
                0 => name.to_owned(),
                1..=5 => format!("{name}, groups {}", groups.join(", ")),
                count => format!("{name}, {count} groups"),
            };
            (Finding::ok(detail), Some(name.to_owned()))
        }
        (StatusCode::NOT_FOUND, _) => (
            Finding::ok("let in; the API server is too old to say as whom"),
            None,
        ),
        (status, _) => (
            Finding::warning(
                format!(
                    "let in; the API server does not say as whom ({})",
                    status.as_u16()
                ),
                "look at `arc-connect whoami`",
            ),
            None,
        ),
    }
}

/// `None` when the rules give no right worth the name: everybody may ask about themselves.
fn judge_rules(rules: &Value) -> Option<Finding> {
    let texts = |rule: &Value, name: &str| -> Vec<String> {
        let list = rule[name].as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let is_about_oneself = |resource: &String| resource.starts_with("selfsubject");
    let rules = rules["resourceRules"].as_array()?;
    let real: Vec<&Value> = rules
        .iter()
        .filter(|rule| !texts(rule, "resources").iter().all(is_about_oneself))
        .collect();
    let is_everything = |rule: &&&Value| {
        texts(rule, "verbs").contains(&"*".to_owned())
            && texts(rule, "resources").contains(&"*".to_owned())
            && texts(rule, "apiGroups").contains(&"*".to_owned())
    };
    if real.iter().any(|rule| is_everything(&rule)) {
        return Some(Finding::ok("everything"));
    }
    let first = real.first()?;
    let shown = format!(
        "{} {}",
        texts(first, "verbs").join("/"),
        texts(first, "resources").join("/")
    );
    Some(Finding::ok(match real.len() {
        1 => shown,
        count => format!("{shown}, and {} more rules", count - 1),
    }))
}

fn judge_access(allowed: &[String], who: &str, namespace: &str) -> Finding {
    if !allowed.is_empty() {
        return Finding::ok(format!("not by RBAC alone: {}", allowed.join(", ")));
    }
    Finding::failed(
        format!("{who} may do nothing in the namespace {namespace}"),
        "have an administrator grant a role: `arc-connect whoami` prints the command; with Azure RBAC, a role such as \
         \"Azure Arc Kubernetes Viewer\". Another namespace is looked at with --namespace",
    )
}

fn parsed(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::{Error, ErrorKind};

    use super::{super::check::Outcome, *};

    fn answer(status: u16, body: &Value) -> Result<Response<Bytes>> {
        Ok(Response::builder()
            .status(status)
            .body(Bytes::from(body.to_string()))
            .unwrap())
    }

    #[test]
    fn the_first_answer_says_where_the_trouble_is() {
        let (agent, api_server, token) =
            judge_version(answer(200, &json!({ "gitVersion": "v1.35.1" })));
        assert!(agent.is_ok());
        assert_eq!(api_server, Some(Finding::ok("Kubernetes v1.35.1")));
        assert_eq!(token, None);

        let (agent, api_server, token) =
            judge_version(answer(502, &json!({ "message": "connection refused" })));
        assert!(agent.is_ok());
        let api_server = api_server.unwrap();
        assert_eq!(api_server.outcome, Outcome::Failed);
        assert!(api_server.detail.contains("connection refused"));
        assert_eq!(token, None);

        let (_, _, token) = judge_version(answer(401, &json!({ "message": "expired" })));
        let token = token.unwrap();
        assert_eq!(token.outcome, Outcome::Failed);
        assert!(token.detail.contains("expired"), "{token:?}");

        let (_, api_server, token) = judge_version(answer(403, &json!({})));
        assert!(api_server.unwrap().is_ok() && token.is_none());

        let (agent, api_server, _) =
            judge_version(Err(Error::new(ErrorKind::Timeout, "no answer")));
        assert_eq!(agent.outcome, Outcome::Failed);
        assert_eq!(api_server, None);
    }

    #[test]
    fn who_the_caller_is() {
        let review =
            json!({ "status": { "userInfo": { "username": "jane", "groups": ["a", "b"] } } });
        let (finding, name) = judge_identity(StatusCode::CREATED, &review);
        assert_eq!(finding, Finding::ok("jane, groups a, b"));
        assert_eq!(name.as_deref(), Some("jane"));
        let (finding, _) = judge_identity(StatusCode::NOT_FOUND, &Value::Null);
        assert!(finding.is_ok());
        let (finding, _) = judge_identity(StatusCode::UNAUTHORIZED, &Value::Null);
        assert_eq!(finding.outcome, Outcome::Failed);
    }

    #[test]
    fn rights_that_everybody_has_are_none() {
        let basic = json!({ "verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"] });
        assert_eq!(judge_rules(&json!({ "resourceRules": [basic] })), None);
        assert_eq!(judge_rules(&Value::Null), None);

        let all = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] });
        let rules = json!({ "resourceRules": [basic, all] });
        assert_eq!(judge_rules(&rules), Some(Finding::ok("everything")));

        let read = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] });
        let rules = json!({ "resourceRules": [basic, read, read] });
        assert_eq!(
            judge_rules(&rules),
            Some(Finding::ok("get/list pods, and 1 more rules"))
        );

        let none = judge_access(&[], "jane", "shop");
        assert_eq!(none.outcome, Outcome::Failed);
        assert!(none.detail.contains("jane") && none.detail.contains("shop"));
        assert!(none.advice.unwrap().contains("arc-connect whoami"));
        assert!(judge_access(&["list pods".to_owned()], "jane", "shop").is_ok());
    }
}
