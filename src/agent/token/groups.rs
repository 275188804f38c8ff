//! [`GroupResolver`]: the groups of callers who have more of them than a token holds.

use std::{fmt, sync::Arc, time::Duration};

use azure_core::credentials::TokenCredential;
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cache::Cache,
    json,
    rejection::{Failure, Outage, Rejection},
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::RejectReason,
    arm::ConnectedClusterId,
    auth::{AadAuth, AuthProvider, Cloud, TenantId, TokenRequest, base_url},
    clock::Clock,
    net::{HttpClient, HttpRequest, HttpResponse},
};

/// Callers whose groups are kept: at most 4 000 ids of 36 bytes each.
const MAX_CALLERS: usize = 2_048;
/// How long: the time for which a group that was left still counts.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);
/// A directory gives 11 000 ids at most, of some 40 bytes each.
const MAX_ANSWER: usize = 1024 * 1024;
/// A directory that is busy or gone for a moment is asked once more, as its documentation asks.
const ATTEMPTS: u32 = 2;
/// How long after the first attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Finds the groups that a token left out.
///
/// A token of Entra ID lists 200 groups at most. Above that it has none at all, only a mark. A caller with the mark is
/// **never** taken for one without groups, which could lift a rule that is bound to a group: their groups are found,
/// or they are refused. The address that such a token names itself (`_claim_sources`) is never called: it belongs to
/// a service that no longer exists, and to whoever made the token.
///
/// What is found is kept for ten minutes at most.
#[derive(Clone)]
pub struct GroupResolver(Kind);

#[derive(Clone)]
enum Kind {
    Refuse,
    Graph(AadSource),
    Arc { source: AadSource, url: String },
}

/// The agent's own tokens for a service.
#[derive(Clone)]
struct AadSource {
    credential: Arc<dyn TokenCredential>,
    /// Empty: that of the cloud's Graph.
    scope: String,
}

impl GroupResolver {
    /// Refuses callers whose token left their groups out. The default.
    pub fn refuse() -> Self {
        Self(Kind::Refuse)
    }

    /// Asks Microsoft Graph (`getMemberGroups`, security groups only), for users and service principals alike.
    ///
    /// `credential` is the agent's own. It needs the application permission `GroupMember.Read.All` and one to read
    /// the members (`User.Read.All`, `Application.Read.All`), or `Directory.Read.All` alone.
    pub fn graph(credential: Arc<dyn TokenCredential>) -> Self {
        Self(Kind::Graph(AadSource {
            credential,
            scope: String::new(),
        }))
    }

    /// Asks Azure Arc's own service, at `https://<region>.obo.arc.azure.com:8084` in the public cloud. It knows the
    /// groups of users only; a service principal is refused.
    ///
    /// `credential` is the cluster's managed identity, `scope` the one for which the service expects its tokens. The
    /// caller's token is passed on to the service, which acts on their behalf.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `endpoint` is not an `https` URL of a host alone.
    pub fn arc(
        endpoint: &str,
        cluster: &ConnectedClusterId,
        credential: Arc<dyn TokenCredential>,
        scope: impl Into<String>,
    ) -> Result<Self> {
        let endpoint = base_url(endpoint)?;
        Ok(Self(Kind::Arc {
            source: AadSource {
                credential,
                scope: scope.into(),
            },
            url: format!("{endpoint}{cluster}/getMemberGroups?api-version=v1"),
        }))
    }

    pub(super) fn connect(
        self,
        cloud: &Cloud,
        tenant: TenantId,
        http: HttpClient,
        clock: Clock,
    ) -> Groups {
        let auth = |source: AadSource, default_scope: String| {
            let scope = if source.scope.is_empty() {
                default_scope
            } else {
                source.scope
            };
            Arc::new(AadAuth::new(source.credential).with_scope(scope)) as Arc<dyn AuthProvider>
        };
        let directory = match self.0 {
            Kind::Refuse => None,
            Kind::Graph(source) => Some(Directory {
                auth: auth(source, format!("{}/.default", cloud.graph())),
                service: Service::Graph {
                    base: cloud.graph().to_owned(),
                },
                http,
            }),
            Kind::Arc { source, url } => Some(Directory {
                auth: auth(source, String::new()),
                service: Service::Arc { url, tenant },
                http,
            }),
        };
        Groups {
            directory: directory.map(Arc::new),
            known: Cache::new(MAX_CALLERS, clock.clone()),
            clock,
        }
    }
}

impl Default for GroupResolver {
    fn default() -> Self {
        Self::refuse()
    }
}

impl fmt::Debug for GroupResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Refuse => "GroupResolver::refuse",
            Kind::Graph(_) => "GroupResolver::graph",
            Kind::Arc { .. } => "GroupResolver::arc",
        })
    }
}

/// What kind of principal a caller is: the directory has them in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PrincipalKind {
    User,
    ServicePrincipal,
}

/// A [`GroupResolver`] at work.
pub(super) struct Groups {
    directory: Option<Arc<Directory>>,
    known: Cache<(PrincipalKind, Uuid), Arc<Vec<String>>>,
    clock: Clock,
}

struct Directory {
    service: Service,
    auth: Arc<dyn AuthProvider>,
    http: HttpClient,
}

enum Service {
    Graph { base: String },
    Arc { url: String, tenant: TenantId },
}

impl Groups {
    /// The groups of the holder of `token`, which is verified and left them out.
    pub(super) async fn resolve(
        &self,
        kind: PrincipalKind,
        oid: Uuid,
        token: &str,
    ) -> Result<Arc<Vec<String>>, Failure> {
        let Some(directory) = self.directory.clone() else {
            return Err(unresolved("this agent does not look up groups"));
        };
        let (clock, token) = (self.clock.clone(), token.to_owned());
        let lookup = async move {
            let groups = directory.groups(kind, oid, &token).await?;
            Ok((Arc::new(groups), clock.now() + KEPT_FOR))
        };
        self.known.get_or_compute((kind, oid), lookup).await
    }
}

impl Directory {
    async fn groups(
        &self,
        kind: PrincipalKind,
        oid: Uuid,
        token: &str,
    ) -> Result<Vec<String>, Failure> {
        let (url, body) = self.service.question(kind, oid, token)?;
        let own = self
            .auth
            .token(&TokenRequest::new())
            .await
            .map_err(|error| outage(&error))?;
        let request = HttpRequest::post_json(url, &body)
            .with_bearer(own.secret())
            .map_err(|error| outage(&error))?
            .with_max_body(MAX_ANSWER);
        let mut attempt = 1;
        loop {
            let answer = self.http.send(request.clone()).await;
            let is_worth_another = match &answer {
                Ok(answer) => matches!(answer.status.as_u16(), 429 | 503 | 504),
                Err(error) => error.is_retryable(),
            };
            if !is_worth_another || attempt == ATTEMPTS {
                return group_ids(&answer.map_err(|error| outage(&error))?);
            }
            attempt += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

impl Service {
    /// The URL and body that ask for a caller's groups. Of the token only the object id, a UUID, gets into a URL: a
    /// user name can have any character in it.
    fn question(
        &self,
        kind: PrincipalKind,
        oid: Uuid,
        token: &str,
    ) -> Result<(String, Value), Failure> {
        match (self, kind) {
            (Self::Graph { base }, kind) => {
                let collection = match kind {
                    PrincipalKind::User => "users",
                    PrincipalKind::ServicePrincipal => "servicePrincipals",
                };
                Ok((
                    format!(
                        "{base}/v1.0/{collection}/{}/getMemberGroups",
                        oid.hyphenated()
                    ),
                    json!({ "securityEnabledOnly": true }),
                ))
            }
            (Self::Arc { url, tenant }, PrincipalKind::User) => Ok((
                url.clone(),
                json!({ "tenantID": tenant.to_string(), "accessToken": token }),
            )),
            (Self::Arc { .. }, PrincipalKind::ServicePrincipal) => Err(unresolved(
                "Azure Arc's service does not know the groups of service principals",
            )),
        }
    }
}

/// The ids in an answer of the form `{"value": ["id", …]}`. Anything else is no answer, never an empty one.
fn group_ids(answer: &HttpResponse) -> Result<Vec<String>, Failure> {
    let unusable = |why: String| -> Failure {
        Outage::new(
            ErrorKind::Protocol,
            format!("the directory's answer about a caller's groups {why}"),
            "check that the agent's identity may read group members in this directory",
        )
        .into()
    };
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(unresolved("the directory does not know the caller"));
        }
        status => return Err(unusable(format!("has the status {}", status.as_u16()))),
    }
    let object = json::object(&answer.body)
        .map_err(|reason| unusable(format!("is not usable: {reason}")))?;
    // A list in pages would be a list that is cut short.
    if object.contains_key("@odata.nextLink") {
        return Err(unusable("comes in pages".to_owned()));
    }
    object
        .get("value")
        .and_then(Value::as_array)
        .and_then(|ids| {
            ids.iter()
                .map(|id| id.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        })
        .ok_or_else(|| unusable("has no list of ids".to_owned()))
}

fn unresolved(detail: &'static str) -> Failure {
    Rejection::new(RejectReason::GroupsUnresolved, detail).into()
}

fn outage(error: &Error) -> Failure {
    Outage::new(
        error.kind(),
        format!("can not look up a caller's groups: {}", error.report()),
        "check the agent's own identity, and that it can reach the directory",
    )
    .into()
}
