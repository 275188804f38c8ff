//! A local authority in the manner of Entra ID, over HTTPS on loopback: discovery (v1 and v2), keys that rotate on
//! command, Microsoft Graph and Arc's endpoint for groups, and tokens of every kind, the forbidden ones included.
//!
//! It stands alone: nothing here knows how the agent checks what it is given. Its private keys are committed, for tests
//! only: making RSA keys takes seconds, and vectors should not change from run to run.

// Each user of this folder takes a part of it; the rest is not dead, only unused in that one binary.
#![allow(dead_code, unused_imports)]

pub mod certificate;
mod directory;
mod faults;
mod key;
mod server;
mod token;
pub mod token_endpoint;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use arc_cluster_connect::net::{Alpn, TlsAcceptor};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

pub use directory::Directory;
pub use faults::Fault;
pub use key::{Algorithm, SigningKey};
pub use token::{TokenBuilder, now};
pub use token_endpoint::{Asked, Refusal, Scripted, TextOrNumber, TokenEndpoint};

/// The tenant of the authority.
pub const TENANT: &str = "7d5a0c4e-3d0c-4f5e-9a53-0d6f0a4f2b11";

/// The application that Arc's cluster connect asks for tokens for.
pub const AUDIENCE: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35";

/// A running authority. Dropping it closes its port.
pub struct Authority {
    shared: Arc<Shared>,
    ca_pem: String,
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Shared {
    base: String,
    state: Mutex<State>,
}

struct State {
    /// What the key set shows.
    published: Vec<SigningKey>,
    /// What new tokens are signed with.
    current: SigningKey,
    directory: Directory,
    token_endpoint: TokenEndpoint,
    fault: Option<Fault>,
    requests: HashMap<String, usize>,
}

impl Authority {
    /// Starts on any free port, with one RSA key.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let certificate = certificate::Certificate::generate();
        let acceptor = TlsAcceptor::from_pem(
            certificate.chain_pem.as_bytes(),
            certificate.key_pem.as_bytes(),
            Alpn::Http1,
        )?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let key = SigningKey::rsa(0);
        let shared = Arc::new(Shared {
            base: format!("https://localhost:{}", address.port()),
            state: Mutex::new(State {
                published: vec![key.clone()],
                current: key,
                directory: Directory::default(),
                token_endpoint: TokenEndpoint::default(),
                fault: None,
                requests: HashMap::new(),
            }),
        });
        let task = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&shared)));
        Ok(Self {
            shared,
            ca_pem: certificate.ca_pem,
            address,
            task,
        })
    }

    /// Its URL, without a path: what a custom cloud is made of.
    pub fn url(&self) -> &str {
        &self.shared.base
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate authority of its certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The issuer of v1 tokens.
    pub fn issuer_v1(&self) -> String {
        self.shared.issuer_v1()
    }

    /// The issuer of v2 tokens, which is also an ordinary OpenID Connect issuer.
    pub fn issuer_v2(&self) -> String {
        self.shared.issuer_v2()
    }

    /// A valid v2 token of a user, to be changed at will.
    pub fn user(&self, name: &str, object_id: &str) -> TokenBuilder {
        self.token(json!({
            "ver": "2.0",
            "iss": self.issuer_v2(),
            "oid": object_id,
            "upn": name,
            "preferred_username": name,
        }))
    }

    /// A valid v1 token of a user, as `az account get-access-token` gets it for this application.
    pub fn user_v1(&self, name: &str, object_id: &str) -> TokenBuilder {
        self.token(json!({
            "ver": "1.0",
            "iss": self.issuer_v1(),
            "oid": object_id,
            "upn": name,
            "unique_name": name,
            "appid": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        }))
    }

    /// A valid v2 token of a service principal, which has no name but its object id.
    pub fn service_principal(&self, object_id: &str) -> TokenBuilder {
        self.token(json!({
            "ver": "2.0",
            "iss": self.issuer_v2(),
            "oid": object_id,
            "idtyp": "app",
            "azp": "b2b1c1f7-7d3f-4d7c-8ff2-6f5ec3f1b1aa",
            "azpacr": "1",
        }))
    }

    fn token(&self, claims: Value) -> TokenBuilder {
        let mut token = TokenBuilder::new(self.shared.state().current.clone())
            .claim("tid", TENANT)
            .claim("aud", AUDIENCE)
            .claim("iat", now())
            .claim("nbf", now())
            .claim("exp", now() + 3_600)
            .claim("uti", "uti-of-a-test")
            .claim("sub", "subject-of-a-test");
        if let Value::Object(claims) = claims {
            for (name, value) in claims {
                token = token.claim(&name, value);
            }
        }
        token
    }

    /// Signs new tokens with another key, which the key set shows beside the old ones.
    pub fn rotate(&self, key: SigningKey) {
        let mut state = self.shared.state();
        state.published.push(key.clone());
        state.current = key;
    }

    /// Takes all keys out of the key set but the one that signs now: an emergency.
    pub fn withdraw_old_keys(&self) {
        let mut state = self.shared.state();
        state.published = vec![state.current.clone()];
    }

    /// Changes who is a member of what.
    pub fn directory(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.shared.state().directory);
    }

    /// Changes who can sign in, and how that goes; or looks at what was asked.
    pub fn token_endpoint<T>(&self, look: impl FnOnce(&mut TokenEndpoint) -> T) -> T {
        look(&mut self.shared.state().token_endpoint)
    }

    /// What goes wrong from the next request on; `None`: nothing.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.state().fault = fault;
    }

    /// How often a path was asked for. Identifiers stand in it as they came.
    pub fn requests(&self, path: &str) -> usize {
        self.shared.state().requests.get(path).copied().unwrap_or(0)
    }

    /// How often the key set was asked for.
    pub fn key_requests(&self) -> usize {
        self.requests(server::KEYS_PATH)
    }

    /// How often Graph was asked, for anybody.
    pub fn graph_requests(&self) -> usize {
        let state = self.shared.state();
        let of_graph = state
            .requests
            .iter()
            .filter(|(path, _)| path.starts_with("/v1.0/"));
        of_graph.map(|(_, count)| count).sum()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuer_v1(&self) -> String {
        format!("{}/{TENANT}/", self.base)
    }

    fn issuer_v2(&self) -> String {
        format!("{}/{TENANT}/v2.0", self.base)
    }
}
