//! [`ArmClient`]: questions to Azure Resource Manager about one cluster.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use azure_core::credentials::TokenCredential;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    AuthenticationMethod, ClusterCredential, ConnectedCluster, ConnectedClusterId, failure::Failure,
};
use crate::{
    Error, Result,
    auth::{AadAuth, AuthProvider, Cloud, Freshness, TokenRequest},
    net::{Backoff, Connector, HttpClient, HttpRequest, Jitter, random_jitter},
    telemetry::HEADER_CORRELATION_ID,
};

/// Versions of the interface of `Microsoft.Kubernetes`, newest first. The newest tells most; clouds and regions get
/// new ones months apart, so that an older one is used where a newer is not known.
const API_VERSIONS: [&str; 4] = ["2026-05-01", "2026-03-01", "2024-01-01", "2021-10-01"];

/// How long one request may take. Credentials are made on demand by a service behind the resource manager, which takes
/// seconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// How long a call goes on trying what may pass: the waits 1, 2, 5 and 10 s fit in, and a user still waits.
const RETRY_LIMIT: Duration = Duration::from_secs(20);

/// The resource manager counts requests by the hour: it has no reason to name a longer wait.
const LONGEST_THROTTLE: Duration = Duration::from_secs(3600);

/// Answers have some 20 KiB: a credential has kubeconfigs in it, a cluster whatever extensions add.
const MAX_ANSWER: usize = 1 << 20;

/// Asks Azure Resource Manager about connected clusters. Cheap to clone.
///
/// What may pass by itself (a network failure, 408, 429, 5xx) is tried again for 20 seconds, with the waits that the
/// service asks for; after a 429 that asks for a longer one, calls fail at once until it is over. A version of the interface that the service does not know is followed by an older one. Every
/// request carries the same correlation id, and every error the id under which the service logged it.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use arc_cluster_connect::{
///     arm::{ArmClient, AuthenticationMethod, ConnectedClusterId},
///     auth::Cloud,
///     net::{Connector, TrustRoots},
/// };
/// use azure_core::credentials::TokenCredential;
///
/// # async fn example(credential: Arc<dyn TokenCredential>) -> arc_cluster_connect::Result<()> {
/// let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7")?;
/// let arm = ArmClient::new(Connector::new(TrustRoots::platform())?, Cloud::public(), credential);
/// arm.preflight(&id).await?;
/// let credential = arm.list_cluster_user_credential(&id, AuthenticationMethod::Aad).await?;
/// println!("dial {}", credential.relay.namespace());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ArmClient {
    http: HttpClient,
    cloud: Cloud,
    token: Arc<AadAuth>,
    correlation_id: String,
    /// The place in [`API_VERSIONS`] of the newest that the service knows, as far as was seen.
    version: Arc<AtomicUsize>,
    throttle: Arc<Mutex<Option<Throttle>>>,
    jitter: Jitter,
}

/// The service has asked to be left alone for longer than a call goes on.
struct Throttle {
    until: Instant,
    failure: Failure,
}

/// A question about a cluster.
struct Question<'a> {
    cluster: &'a ConnectedClusterId,
    /// What follows the cluster's id in the path.
    action: &'static str,
    /// `None`: a GET.
    body: Option<Value>,
}

/// What the service said: an answer, or no.
pub(super) type Answer = Result<Bytes, Failure>;

impl ArmClient {
    /// A client for the resource manager of `cloud`, with the caller's own rights.
    pub fn new(connector: Connector, cloud: Cloud, credential: Arc<dyn TokenCredential>) -> Self {
        let token = AadAuth::new(credential).with_scope(cloud.resource_manager_scope());
        Self {
            http: HttpClient::new(connector),
            cloud,
            token: Arc::new(token),
            correlation_id: Uuid::new_v4().to_string(),
            version: Arc::default(),
            throttle: Arc::default(),
            jitter: random_jitter,
        }
    }

    /// Sends this correlation id instead of a random one.
    #[must_use]
    pub fn with_correlation_id(mut self, id: Uuid) -> Self {
        self.correlation_id = id.to_string();
        self
    }

    /// The cloud.
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The id that ties all requests of this client together in Azure's logs.
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// What Azure knows of the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`](crate::ErrorKind::Unauthorized) when the caller is not signed in, or to another
    /// tenant, or may not read the resource; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the
    /// subscription, the group or the cluster does not exist; a retryable kind when the service does not answer.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn connected_cluster(&self, id: &ConnectedClusterId) -> Result<ConnectedCluster> {
        let answer = self.describe(id).await?;
        let answer = answer.map_err(|failure| failure.into_error("describe the cluster", id))?;
        ConnectedCluster::parse(&answer)
    }

    /// A credential for the cluster's relay, good for about three hours, made anew by each call.
    ///
    /// # Errors
    /// As [`connected_cluster`](Self::connected_cluster). The right that it needs is another one, which the role
    /// "Azure Arc Enabled Kubernetes Cluster User Role" has.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn list_cluster_user_credential(
        &self,
        id: &ConnectedClusterId,
        method: AuthenticationMethod,
    ) -> Result<ClusterCredential> {
        let answer = self
            .ask(&Question {
                cluster: id,
                action: "/listClusterUserCredential",
                body: Some(json!({ "authenticationMethod": method.as_str(), "clientProxy": true })),
            })
            .await?;
        let answer = answer
            .map_err(|failure| failure.into_error("give a credential for the cluster", id))?;
        ClusterCredential::parse(&answer)
    }

    pub(super) async fn describe(&self, cluster: &ConnectedClusterId) -> Result<Answer> {
        self.ask(&Question {
            cluster,
            action: "",
            body: None,
        })
        .await
    }

    /// Asks until there is an answer that will not change by itself.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer> {
        let started = Instant::now();
        if let Some(failure) = self.throttled(started) {
            return Ok(Err(failure));
        }
        let mut backoff = Backoff::new(self.jitter);
        let mut freshness = Freshness::Cached;
        loop {
            let version = self.version.load(Ordering::Relaxed);
            let answer = self.attempt(question, version, freshness).await;
            let wait = match &answer {
                Ok(Err(failure))
                    if failure.is_unknown_version() && version + 1 < API_VERSIONS.len() =>
                {
                    tracing::debug!(version = API_VERSIONS[version], "not known to the service");
                    self.version.fetch_max(version + 1, Ordering::Relaxed);
                    continue;
                }
                // The token may have been withdrawn before its end.
                Ok(Err(failure))
                    if failure.status == StatusCode::UNAUTHORIZED
                        && freshness == Freshness::Cached =>
                {
                    freshness = Freshness::Fresh;
                    continue;
                }
                Ok(Err(failure)) if failure.is_transient() => {
                    let own = backoff.after_failure();
                    failure.retry_after.map_or(own, |asked| asked.max(own))
                }
                Err(error) if error.is_retryable() => backoff.after_failure(),
                _ => return answer,
            };
            if started.elapsed() + wait > RETRY_LIMIT {
                if let Ok(Err(failure)) = &answer {
                    self.remember(failure);
                }
                return answer;
            }
            tracing::info!(
                reason = reason(&answer),
                retry_in = ?wait,
                "no answer from Azure Resource Manager"
            );
            sleep(wait).await;
        }
    }

    /// The refusal of before, while the time has not come that it named.
    fn throttled(&self, now: Instant) -> Option<Failure> {
        let throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let Throttle { until, failure } = throttle.as_ref()?;
        (*until > now).then(|| {
            let mut failure = failure.clone();
            failure.retry_after = Some(*until - now);
            failure
        })
    }

    /// Whoever asks too often is to stop asking, all of this client's callers together.
    fn remember(&self, failure: &Failure) {
        if let (StatusCode::TOO_MANY_REQUESTS, Some(wait)) = (failure.status, failure.retry_after) {
            let wait = wait.min(LONGEST_THROTTLE);
            *self.throttle.lock().unwrap_or_else(PoisonError::into_inner) = Some(Throttle {
                until: Instant::now() + wait,
                failure: failure.clone(),
            });
        }
    }

    async fn attempt(
        &self,
        question: &Question<'_>,
        version: usize,
        freshness: Freshness,
    ) -> Result<Answer> {
        let token = TokenRequest::new().with_freshness(freshness);
        let token = self.token.token(&token).await?;
        let base = self.cloud.resource_manager();
        let id = question.cluster.to_string();
        let path = utf8_percent_encode(&id, PATH_ESCAPES);
        let (action, version) = (question.action, API_VERSIONS[version]);
        let url = format!("{base}{path}{action}?api-version={version}");
        let request = match &question.body {
            Some(body) => HttpRequest::post_json(url, body),
            None => HttpRequest::get(url),
        };
        let request = request
            .with_bearer(token.secret())?
            .with_header(
                HeaderName::from_static(HEADER_CORRELATION_ID),
                header_value(&self.correlation_id),
            )
            .with_header(CLIENT_REQUEST_ID, header_value(&Uuid::new_v4().to_string()))
            .with_deadline(REQUEST_LIMIT)
            .with_max_body(MAX_ANSWER);
        let response = self.http.send(request).await?;
        Ok(if response.status.is_success() {
            Ok(response.body)
        } else {
            Err(Failure::of(&response))
        })
    }
}

impl fmt::Debug for ArmClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArmClient")
            .field("resource_manager", &self.cloud.resource_manager())
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}

fn reason(answer: &Result<Answer>) -> String {
    match answer {
        Ok(Ok(_)) => String::new(),
        Ok(Err(failure)) => format!("HTTP status {} {}", failure.status.as_u16(), failure.code),
        Err(error) => Error::report(error),
    }
}

fn header_value(id: &str) -> HeaderValue {
    HeaderValue::try_from(id).expect("a UUID fits into a header")
}

/// The id of a single request, which the service puts into its logs.
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// What may stand in an id and in a path as it is. Groups may have letters of any script.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'(')
    .remove(b')');
