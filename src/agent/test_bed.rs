//! The test bed: both far ends of one agent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    Error, ErrorKind, Result,
    agent::{
        Agent, AgentBuilder, AgentCredential, ApiServer, Authenticated, Authentication,
        AuthenticationError, Authenticator, Credential, Identity, IdentityRules, RejectReason,
        ServiceAccountTokens,
        upstream::{Dial, UpstreamIo},
    },
    auth::BearerAuth,
    net::{Endpoint, Security, TrustRoots},
};

pub(super) const TOKEN: &str = "Bearer caller.token";
pub(super) const AGENT_TOKEN: &str = "Bearer agent.token";
/// A bound on what should happen at once. Only a failing test reaches it.
const AT_ONCE: Duration = Duration::from_secs(20);
const PIPE: usize = 64 * 1024;

/// One end of a connection, as the far side of it: what it reads and whether the other end was shut down.
pub(super) struct FarEnd {
    io: DuplexStream,
    shut_down: Arc<AtomicBool>,
    read: Vec<u8>,
}

/// How the agent ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Shut down: a FIN.
    Clean,
    /// Dropped without: a reset, on a tunnel stream.
    Aborted,
}

/// The agent's end, which notes whether it was shut down before it was dropped.
pub(super) struct NearEnd {
    io: DuplexStream,
    shut_down: Arc<AtomicBool>,
}

pub(super) fn pipe() -> (FarEnd, NearEnd) {
    let (far, near) = duplex(PIPE);
    let shut_down = Arc::new(AtomicBool::new(false));
    let far = FarEnd {
        io: far,
        shut_down: Arc::clone(&shut_down),
        read: Vec::new(),
    };
    (
        far,
        NearEnd {
            io: near,
            shut_down,
        },
    )
}

impl FarEnd {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io
            .write_all(bytes.as_ref())
            .await
            .expect("the agent reads");
    }

    pub(super) async fn half_close(&mut self) {
        self.io
            .shutdown()
            .await
            .expect("a duplex stream shuts down");
    }

    /// Reads up to and with `marker`; what follows is kept for the next call.
    pub(super) async fn until(&mut self, marker: &str) -> String {
        let at = loop {
            let found = self
                .read
                .windows(marker.len())
                .position(|window| window == marker.as_bytes());
            if let Some(at) = found {
                break at + marker.len();
            }
            assert!(
                self.fill().await > 0,
                "ended before {marker:?}: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let rest = self.read.split_off(at);
        let text = std::mem::replace(&mut self.read, rest);
        String::from_utf8(text).expect("text")
    }

    /// A message's head, up to and with the empty line.
    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads a request with a body of a stated length.
    pub(super) async fn request(&mut self) -> (String, String) {
        self.next_request().await.expect("a request")
    }

    /// The same, or `None` when the agent is done with the connection.
    pub(super) async fn next_request(&mut self) -> Option<(String, String)> {
        while !self.read.windows(4).any(|window| window == b"\r\n\r\n") {
            if self.fill().await == 0 {
                return None;
            }
        }
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        while self.read.len() < length {
            assert!(self.fill().await > 0, "ended inside a body");
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        Some((head, String::from_utf8(body).expect("text")))
    }

    /// Answers with a JSON body.
    pub(super) async fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.send(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    /// Everything up to the end, and what kind of end it was.
    pub(super) async fn rest(&mut self) -> (String, End) {
        while self.fill().await > 0 {}
        let end = if self.shut_down.load(Ordering::SeqCst) {
            End::Clean
        } else {
            End::Aborted
        };
        let text = String::from_utf8(std::mem::take(&mut self.read)).expect("text");
        (text, end)
    }

    /// A whole response that is a `Status`, with the code in its head.
    pub(super) async fn status(&mut self) -> (u16, serde_json::Value) {
        let (text, end) = self.rest().await;
        assert_eq!(end, End::Clean, "{text}");
        let (head, body) = text.split_once("\r\n\r\n").expect("a response");
        let code: u16 = head[9..12].parse().expect("a status code");
        let status: serde_json::Value = serde_json::from_str(body).expect("a JSON body");
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], code);
        assert_eq!(status["details"]["causes"][0]["message"], "agent");
        (code, status)
    }

    async fn fill(&mut self) -> usize {
        tokio::time::timeout(AT_ONCE, self.io.read_buf(&mut self.read))
            .await
            .expect("the agent does something")
            .expect("a duplex stream reads")
    }
}

/// The API server's side: every connection that the agent opens.
pub(super) struct ApiServerBed {
    connections: mpsc::UnboundedReceiver<FarEnd>,
    dialled: Arc<AtomicUsize>,
}

impl ApiServerBed {
    pub(super) async fn connection(&mut self) -> FarEnd {
        tokio::time::timeout(AT_ONCE, self.connections.recv())
            .await
            .expect("the agent dials")
            .expect("the agent lives")
    }

    /// The same, or `None` when the agent is gone.
    pub(super) async fn next_connection(&mut self) -> Option<FarEnd> {
        self.connections.recv().await
    }

    /// How often the agent dialled so far.
    pub(super) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

pub(super) struct Bed {
    pub(super) agent: Agent,
    /// Reached under callers' own tokens.
    pub(super) api: ApiServerBed,
    /// Reached under the agent's token.
    pub(super) impersonated: ApiServerBed,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(super) fn with(change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> Self {
        let (pass_through, api) = lane();
        let (impersonation, impersonated) = lane();
        Self {
            agent: change(builder())
                .build_on(Box::new(pass_through), Box::new(impersonation))
                .expect("a usable agent"),
            api,
            impersonated,
        }
    }

    /// With callers whom the agent knows: see [`TokenBook`].
    pub(super) fn with_known_callers(change: impl FnOnce(AgentBuilder) -> AgentBuilder) -> Self {
        let token = AGENT_TOKEN.strip_prefix("Bearer ").expect("a scheme");
        let provider = BearerAuth::fixed(token).expect("a token");
        Self::with(|builder| {
            change(
                builder
                    .authenticator(TokenBook)
                    .agent_credential(AgentCredential::new(Arc::new(provider))),
            )
        })
    }

    /// A caller on a stream of its own.
    pub(super) fn caller(&self) -> FarEnd {
        self.caller_and_task().0
    }

    pub(super) fn caller_and_task(&self) -> (FarEnd, JoinHandle<()>) {
        Self::caller_and_task_of(&self.agent)
    }

    /// A caller of an agent that was taken out of its bed.
    pub(super) fn caller_of(agent: &Agent) -> FarEnd {
        Self::caller_and_task_of(agent).0
    }

    fn caller_and_task_of(agent: &Agent) -> (FarEnd, JoinHandle<()>) {
        let (far, near) = pipe();
        let agent = agent.clone();
        let task = tokio::spawn(async move { agent.serve_stream(near).await });
        (far, task)
    }

    /// A caller that has sent `head` (without the empty line) with its token.
    pub(super) async fn asks(&self, head: &str) -> FarEnd {
        let mut caller = self.caller();
        caller.send(with_token(head)).await;
        caller
    }
}

/// `head` (without the empty line) completed by a host and the caller's token.
pub(super) fn with_token(head: &str) -> String {
    with_authorization(TOKEN, head)
}

/// `head` (without the empty line) completed by a host and `authorization`.
pub(super) fn with_authorization(authorization: &str, head: &str) -> String {
    format!("{head}\r\nHost: tunnel\r\nAuthorization: {authorization}\r\n\r\n")
}

/// Knows callers by their tokens: `known.NAME` is the user of that name, with a group and an extra; `rejected` and
/// `down` are what they say; `system` is one whom no rules let be.
pub(super) struct TokenBook;

#[async_trait::async_trait]
impl Authenticator for TokenBook {
    async fn authenticate(
        &self,
        credential: &Credential,
    ) -> Result<Authentication, AuthenticationError> {
        match credential.token() {
            "rejected" => Err(RejectReason::Expired.into()),
            "down" => Err(AuthenticationError::unavailable(Error::new(
                ErrorKind::Network,
                "secret-issuer.example is out of reach",
            ))),
            "system" => {
                let identity = Identity::builder("system:admin").build(&IdentityRules::default())?;
                Ok(Authentication::Identity(Authenticated::new(identity)))
            }
            token => match token.strip_prefix("known.") {
                Some(name) => Ok(Authentication::Identity(
                    Authenticated::new(known(name)).with_expiry(token_end()),
                )),
                None => Ok(Authentication::NotMine),
            },
        }
    }

    fn name(&self) -> &'static str {
        "token-book"
    }
}

/// How long from now the tokens of [`TokenBook`] live.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(600);

fn token_end() -> std::time::SystemTime {
    std::time::SystemTime::now() + TOKEN_LIFE
}

/// The identity behind `known.NAME`; with a uid when the name is `uid`.
pub(super) fn known(name: &str) -> Identity {
    let mut builder = Identity::builder(name)
        .group(format!("group of {name}"))
        .extra("oid", format!("oid-{name}"));
    if name == "uid" {
        builder = builder.uid("uid-1");
    }
    builder.build(&IdentityRules::default()).expect("valid")
}

/// An agent to whose API server there is no way.
pub(super) fn unreachable_agent(kind: ErrorKind) -> Agent {
    builder()
        .build_on(Box::new(FailingDial(kind)), Box::new(FailingDial(kind)))
        .expect("a usable agent")
}

fn builder() -> AgentBuilder {
    let endpoint = Endpoint::new("api.example", 6443, Security::Tls);
    Agent::builder(ApiServer::new(endpoint, TrustRoots::platform()))
        .service_account_tokens(ServiceAccountTokens::PassThrough)
}

fn lane() -> (PipeDial, ApiServerBed) {
    let (sender, connections) = mpsc::unbounded_channel();
    let dialled = Arc::new(AtomicUsize::new(0));
    let dial = PipeDial {
        sender,
        dialled: Arc::clone(&dialled),
    };
    (
        dial,
        ApiServerBed {
            connections,
            dialled,
        },
    )
}

struct PipeDial {
    sender: mpsc::UnboundedSender<FarEnd>,
    dialled: Arc<AtomicUsize>,
}

impl Dial for PipeDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        let (far, near) = pipe();
        self.dialled.fetch_add(1, Ordering::SeqCst);
        self.sender.send(far).expect("the test lives");
        Box::pin(async { Ok(Box::new(near) as Box<dyn UpstreamIo>) })
    }
}

struct FailingDial(ErrorKind);

impl Dial for FailingDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn UpstreamIo>>> {
        let error = Error::new(self.0, "can not connect to api.example:6443")
            .with_source(io::Error::other("no route"));
        Box::pin(async { Err(error) })
    }
}

impl AsyncRead for NearEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for NearEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down.store(true, Ordering::SeqCst);
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
