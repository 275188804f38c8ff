//! What `proxy` and `exec` share: from the command line to a loopback endpoint that was seen to work.

use std::{io::Read, path::PathBuf, sync::Arc, time::Duration};

use arc_cluster_connect::{
    AuthProvider, Error, ErrorKind, KubeconfigBuilder, Result, Tunnel,
    auth::{BearerAuth, TokenRequest},
    kubeconfig::{Kubeconfig, TokenKubeconfig},
    proxy::{Proxy, ProxyId},
    relay::RelaySender,
    tunnel::{RelayTunnel, StateStream, Target, TunnelConnector, TunnelState},
};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::common;

/// How long the first request through a new tunnel may take before the program gives up.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The answer of `/version`, and of every error, is far smaller.
const FIRST_ANSWER_SIZE: usize = 256 * 1024;

#[derive(Args)]
pub struct SessionArguments {
    #[command(flatten)]
    relay: common::RelayArguments,

    /// File with the caller's bearer token, read again when it changes; - reads standard input once
    #[arg(long, value_name = "FILE", group = "caller")]
    token_file: Option<PathBuf>,

    /// The caller's bearer token itself. Others can see it in the process list: prefer --token-file
    #[arg(
        long,
        visible_alias = "auth-token",
        value_name = "TOKEN",
        group = "caller"
    )]
    token: Option<String>,

    /// Name of the context in the kubeconfig; without it, the last part of the hybrid connection's name
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
}

/// A running loopback endpoint.
pub struct Session {
    pub proxy: Proxy,
    pub tunnel: Arc<dyn Tunnel>,
    pub kubeconfig: Kubeconfig,
    pub context: String,
    pub server: String,
}

impl Session {
    /// Connects, makes one request as the caller, and only then opens the local port.
    pub async fn start(arguments: &SessionArguments, port: u16) -> Result<Self> {
        let auth = caller(arguments)?;
        let connection_string = arguments.relay.connection_string()?;
        let hybrid_connection = connection_string.hybrid_connection()?;
        let connector = arguments.relay.connector()?;

        common::progress(format_args!("connecting to {hybrid_connection}"));
        let identity = hybrid_connection.to_string();
        let context = match &arguments.kube_context {
            Some(name) => name.clone(),
            None => last_segment(hybrid_connection.path()).to_owned(),
        };
        let sender = RelaySender::new(connector, hybrid_connection, connection_string.credential());
        let tunnel: Arc<dyn Tunnel> = Arc::new(RelayTunnel::new(sender));
        tokio::select! {
            answered = first_request(&tunnel, &auth) => answered?,
            error = hopeless(tunnel.states()) => return Err(error),
        }

        let id = ProxyId::from_name(&identity);
        let proxy = Proxy::builder()
            .port(port)
            .cluster(id, Arc::clone(&tunnel), auth)
            .start()
            .await?;
        let endpoint = proxy
            .endpoint(&id)
            .expect("the cluster was registered just above");
        Ok(Self {
            kubeconfig: TokenKubeconfig::new(&context).build(&endpoint)?,
            server: endpoint.server().to_owned(),
            context,
            tunnel,
            proxy,
        })
    }

    /// Lets live requests end within the proxy's limit, then closes everything.
    pub async fn close(self) -> Result<()> {
        self.proxy.shutdown().await;
        self.tunnel.shutdown().await
    }
}

fn caller(arguments: &SessionArguments) -> Result<Arc<dyn AuthProvider>> {
    let auth = match (&arguments.token_file, &arguments.token) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let mut token = String::new();
            std::io::stdin()
                .read_to_string(&mut token)
                .map_err(|error| {
                    Error::new(
                        ErrorKind::File,
                        "can not read the token from standard input",
                    )
                    .with_source(error)
                })?;
            BearerAuth::fixed(token)?
        }
        (Some(path), _) => BearerAuth::file(path)?,
        (None, Some(token)) => {
            common::warn(
                "a token on the command line can be seen in process lists and shell history; \
                 use --token-file",
            );
            BearerAuth::fixed(token.as_str())?
        }
        (None, None) => {
            return Err(
                Error::new(ErrorKind::InvalidInput, "there is no token to call with").with_help(
                    "pass --token-file FILE (- for standard input); \
                     `kubectl create token NAME` prints one for a service account",
                ),
            );
        }
    };
    Ok(Arc::new(auth))
}

/// Asks the API server for its version as the caller: shows at the start, not at the first `kubectl`, whether the relay,
/// the agent, the API server and the token all work.
async fn first_request(tunnel: &Arc<dyn Tunnel>, auth: &Arc<dyn AuthProvider>) -> Result<()> {
    let token = auth.token(&TokenRequest::new()).await?;
    let connector = TunnelConnector::new(Arc::clone(tunnel), Target::api_server());
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get("http://kubernetes/version")
        .header(AUTHORIZATION, format!("Bearer {}", token.secret()))
        .body(Empty::new())
        .map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the token can not be sent").with_source(error)
        })?;
    let exchange = async {
        let response = client.request(request).await.map_err(transport_error)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, FIRST_ANSWER_SIZE)
            .collect()
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Network, "the first answer broke off").with_source(error)
            })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    match tokio::time::timeout(FIRST_ANSWER_LIMIT, exchange).await {
        Ok(Ok(response)) => judge(&response),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer through the tunnel within {FIRST_ANSWER_LIMIT:?}"),
        )
        .with_help("check the agent's log and its connection to the API server")),
    }
}

/// Resolves when a dial fails in a way that the user has to look at. A tunnel would go on trying, which is right later,
/// when a network comes and goes; now it is more likely that a name is misspelt. Only an agent that is not there yet is
/// waited for.
async fn hopeless(mut states: StateStream) -> Error {
    let mut told = false;
    while let Some(state) = states.next().await {
        let TunnelState::Waiting { reason, .. } = state else {
            continue;
        };
        if reason.kind() != ErrorKind::NotFound {
            return copy(&reason);
        }
        if !told {
            told = true;
            common::progress("no agent is there yet; waiting for it");
        }
    }
    std::future::pending().await
}

fn judge(response: &Response<Bytes>) -> Result<()> {
    let status = response.status();
    // 403 proves the identity: this caller may just not read the version.
    if status.is_success() || status == StatusCode::FORBIDDEN {
        return Ok(());
    }
    let message = status_message(response.body());
    let (kind, help) = match status {
        StatusCode::UNAUTHORIZED => (
            ErrorKind::Unauthorized,
            "the token is wrong or expired: get a new one, for instance with `kubectl create token NAME`",
        ),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            (
                ErrorKind::Network,
                "the agent runs but can not reach its API server: check the agent's log",
            )
        }
        _ => (ErrorKind::Refused, "check the agent's log"),
    };
    Err(
        Error::new(kind, format!("the cluster answered {status}: {message}"))
            .with_status(status.as_u16())
            .with_help(help),
    )
}

fn status_message(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|status| status["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "no reason was given".to_owned())
}

/// The pooled client wraps ours: the tunnel's own error says more.
fn transport_error(error: hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            return copy(ours);
        }
        source = cause.source();
    }
    Error::new(ErrorKind::Network, "the first request failed").with_source(error)
}

/// An error of our own that is shared, as one that can be returned.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.report());
    if let Some(help) = error.help() {
        copy = copy.with_help(help.to_owned());
    }
    if let Some(tracking_id) = error.tracking_id() {
        copy = copy.with_tracking_id(tracking_id);
    }
    copy
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
