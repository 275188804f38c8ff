//! One endpoint, step by step: its name, TCP, TLS and who issued its certificate, HTTP or WebSocket, its clock.

mod verdict;

use std::time::{Duration, SystemTime};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    net::{Alpn, Connector, Endpoint, NetStream, ProxySettings, Security},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{
    check::{Check, Finding, Outcome, Step, timed},
    endpoints::{NeededBy, Speaks, Target},
    peek,
};
use verdict::{
    clock_ahead, judge_http, judge_issuer, judge_name, judge_tls_failure, judge_upgrade,
    with_proxy_hint,
};

/// A resolver asks two servers twice in this time.
const DNS_LIMIT: Duration = Duration::from_secs(6);
/// The connector's own limits are shorter: theirs is the better message.
const DIAL_LIMIT: Duration = Duration::from_secs(40);
const HTTP_LIMIT: Duration = Duration::from_secs(10);
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Any WebSocket key of 16 bytes will do: nothing follows the handshake.
const KEY: &str = "YXJjLWNvbm5lY3QgZG9jIQ==";

/// With what endpoints are dialled.
#[derive(Clone)]
pub struct Network {
    pub connector: Connector,
    pub proxy: ProxySettings,
    /// Set in the environment and not used, which is the first suspect when nothing can be reached.
    pub ignored_proxy: Option<&'static str>,
}

/// What came of an endpoint.
pub struct Probed {
    pub check: Check,
    /// How far the endpoint's clock is ahead of ours, in seconds.
    pub ahead: Option<f64>,
}

/// Looks at an endpoint, one step after the other, up to the first that fails.
pub async fn probe(network: &Network, name: &'static str, target: &Target) -> Probed {
    let mut walk = Walk {
        network,
        target,
        steps: Vec::new(),
        ahead: None,
    };
    let finding = match walk.steps().await {
        Ok(finding) | Err(finding) => finding,
    };
    let worst = match target.needed_by {
        NeededBy::Everybody => Outcome::Failed,
        NeededBy::Agent => Outcome::Warning,
    };
    let mut finding = finding.at_most(worst);
    if let (Outcome::Warning, NeededBy::Agent, Some(advice)) =
        (finding.outcome, target.needed_by, &mut finding.advice)
    {
        advice.push_str(". Only the agent needs this one: look from the cluster's network (--beside-the-cluster)");
    }
    let mut check = Check::new(name, finding).with_target(format!(
        "{} {}",
        target.purpose,
        target.endpoint.authority()
    ));
    check.took = walk.steps.iter().map(|step| step.took).sum();
    check.steps = walk.steps;
    Probed {
        check,
        ahead: walk.ahead,
    }
}

struct Walk<'a> {
    network: &'a Network,
    target: &'a Target,
    steps: Vec<Step>,
    ahead: Option<f64>,
}

impl Walk<'_> {
    /// What stands in the row; `Err` when a step failed.
    async fn steps(&mut self) -> Result<Finding, Finding> {
        self.name().await?;
        let endpoint = &self.target.endpoint;
        let bare = Endpoint::new(endpoint.host(), endpoint.port(), Security::Plain);
        let tcp = self.dial("tcp", &bare).await?;
        let (stream, remark) = match endpoint.security() {
            Security::Plain => (tcp, None),
            Security::Tls => {
                let issuer = tokio::time::timeout(LOOK_LIMIT, peek::issuer(endpoint.host(), tcp));
                let issuer = issuer.await.ok().flatten();
                self.tls(issuer).await?
            }
        };
        let http = self.http(stream).await?;
        let summary = self.summary();
        Ok(match (remark, http) {
            (Some(remark), _) => Finding {
                detail: format!("{summary}; {}", remark.detail),
                ..remark
            },
            (None, Some(remark)) => Finding {
                detail: format!("{summary}; {}", remark.detail),
                ..remark
            },
            (None, None) => Finding::ok(summary),
        })
    }

    async fn name(&mut self) -> Result<(), Finding> {
        let endpoint = &self.target.endpoint;
        if let Some(proxy) = self.network.proxy.proxy_for(endpoint) {
            self.steps.push(Step {
                name: "dns",
                finding: Finding::skipped(format!("the proxy {proxy} resolves it")),
                took: Duration::ZERO,
            });
            return Ok(());
        }
        let resolve = async {
            let found = tokio::net::lookup_host((endpoint.host(), endpoint.port())).await;
            judge_name(
                endpoint.host(),
                found.map(Iterator::collect),
                self.network.ignored_proxy,
            )
        };
        let (finding, took) = timed(DNS_LIMIT, resolve).await;
        self.step("dns", finding, took).map(|_| ())
    }

    async fn dial(
        &mut self,
        step: &'static str,
        endpoint: &Endpoint,
    ) -> Result<NetStream, Finding> {
        let mut stream = None;
        let connect = async {
            match self.network.connector.connect(endpoint, Alpn::Http1).await {
                Ok(connected) => {
                    let peer = connected.peer_addr();
                    stream = Some(connected);
                    Finding::ok(
                        peer.map_or_else(|_| "connected".to_owned(), |peer| peer.to_string()),
                    )
                }
                Err(error) => {
                    with_proxy_hint(Finding::of_error(&error), self.network.ignored_proxy)
                }
            }
        };
        let (finding, took) = timed(DIAL_LIMIT, connect).await;
        let finding = self.step(step, finding, took)?;
        stream.ok_or(finding)
    }

    /// The connection, and what is worth a remark.
    async fn tls(
        &mut self,
        issuer: Option<String>,
    ) -> Result<(NetStream, Option<Finding>), Finding> {
        let endpoint = &self.target.endpoint;
        let started = std::time::Instant::now();
        let connected = self.network.connector.connect(endpoint, Alpn::Http1).await;
        let took = started.elapsed();
        match connected {
            Ok(stream) => {
                let finding = judge_issuer(self.target.issuer, issuer.as_deref());
                let remark = (finding.outcome != Outcome::Ok).then(|| finding.clone());
                self.steps.push(Step {
                    name: "tls",
                    finding,
                    took,
                });
                Ok((stream, remark))
            }
            Err(error) => {
                let finding = judge_tls_failure(&error, issuer.as_deref());
                Err(self
                    .step("tls", finding, took)
                    .unwrap_or_else(|failed| failed))
            }
        }
    }

    async fn http(&mut self, stream: NetStream) -> Result<Option<Finding>, Finding> {
        let (step, request) = match self.target.speaks {
            Speaks::Http => ("http", head_request(&self.target.endpoint)),
            Speaks::WebSocket => ("websocket", upgrade_request(&self.target.endpoint)),
        };
        let mut ahead = None;
        let asking = async {
            let before = SystemTime::now();
            let answer = match request {
                Ok(request) => exchange(stream, request).await,
                Err(error) => Err(error),
            };
            if let Ok((_, headers)) = &answer {
                ahead = clock_ahead(headers, before, SystemTime::now());
            }
            let answer = answer.map(|(status, _)| status);
            match self.target.speaks {
                Speaks::Http => judge_http(answer),
                Speaks::WebSocket => judge_upgrade(answer),
            }
        };
        let (finding, took) = timed(HTTP_LIMIT, asking).await;
        self.ahead = ahead;
        let finding = self.step(step, finding, took)?;
        Ok((finding.outcome == Outcome::Warning).then_some(finding))
    }

    /// Notes a step; `Err` when it failed.
    fn step(
        &mut self,
        name: &'static str,
        finding: Finding,
        took: Duration,
    ) -> Result<Finding, Finding> {
        let failed = finding.outcome == Outcome::Failed;
        self.steps.push(Step {
            name,
            finding: finding.clone(),
            took,
        });
        if failed {
            return Err(Finding {
                detail: format!("{name}: {}", finding.detail),
                ..finding
            });
        }
        Ok(finding)
    }

    /// The steps that were made, on one line.
    fn summary(&self) -> String {
        let mut parts: Vec<String> = self
            .steps
            .iter()
            .filter(|step| step.finding.outcome != Outcome::Skipped)
            .map(|step| format!("{} {} ms", step.name, step.took.as_millis()))
            .collect();
        let tls = self.steps.iter().find(|step| step.name == "tls");
        parts.extend(tls.map(|step| step.finding.detail.clone()));
        parts.join(", ")
    }
}

fn head_request(endpoint: &Endpoint) -> Result<Request<Empty<Bytes>>> {
    request(Request::builder().method(Method::HEAD).uri("/"), endpoint)
}

/// Without a token: a relay refuses it, in its own way.
fn upgrade_request(endpoint: &Endpoint) -> Result<Request<Empty<Bytes>>> {
    let path = "/$hc/arc-connect-doctor?sb-hc-action=connect&sb-hc-id=arc-connect-doctor";
    let builder = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, KEY);
    request(builder, endpoint)
}

fn request(builder: http::request::Builder, endpoint: &Endpoint) -> Result<Request<Empty<Bytes>>> {
    builder
        .header(header::HOST, endpoint.authority())
        .header(
            header::USER_AGENT,
            concat!("arc-connect/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::new())
        .map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the host can not be asked").with_source(error)
        })
}

/// The head of the answer.
async fn exchange(
    stream: NetStream,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, HeaderMap)> {
    let broken = |error: hyper::Error| {
        Error::new(
            ErrorKind::Network,
            "it closed the connection without an answer in HTTP",
        )
        .with_source(error)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response.status(), response.headers().clone()))
    };
    // Driven here, so that the socket goes with this future.
    tokio::select! {
        biased;
        answered = exchange => answered,
        Err(error) = connection => Err(broken(error)),
    }
}
