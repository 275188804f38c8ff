//! Relay, agent and API server in this process, each as broken as a test wants it; and the program beside them.

use std::{fs, path::PathBuf};

use arc_cluster_connect::{
    agent::ServiceAccountTokens,
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
    relay::{
        ConnectionString, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

use super::support::{
    api_server::{Access, StandIn, User, random_token},
    authority::certificate::Certificate,
    embedded::agent_for,
    programs::{self, Ended},
};

const NAME: &str = "till-7";
pub const ROBOT: &str = "system:serviceaccount:default:admin-user";

/// Files of the user, and the program.
pub struct Desk {
    directory: TempDir,
}

/// A relay with an agent at it, in front of an API server.
pub struct Bed {
    pub desk: Desk,
    pub stand_in: StandIn,
    relay: RelayServer,
    /// Of the relay, when it has TLS.
    pub certificate: Option<Certificate>,
    agent: Option<JoinHandle<()>>,
}

/// How callers reach the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Plain,
    Tls,
}

impl Desk {
    pub fn new() -> Self {
        let desk = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        fs::create_dir(desk.path("home")).expect("it is writable");
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("it is writable");
        self.path(name).display().to_string()
    }

    /// `arc-connect doctor`, with nothing of this machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = programs::command("arc-connect", &["doctor", "--port=0"]);
        let proxies = ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
        for variable in proxies {
            command.env_remove(variable);
            command.env_remove(variable.to_lowercase());
        }
        command
            .args(arguments)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("home"));
        command
    }

    /// What it found, as JSON.
    pub async fn examine(&self, arguments: &[&str]) -> Found {
        let mut command = self.command(arguments);
        command.arg("--json");
        Found::of(programs::run_command(command).await)
    }

    /// The same as [`examine`](Self::examine), with the bed's token, for a relay's connection string.
    pub async fn examine_relay(&self, connection_string: &str) -> Found {
        let file = self.write("relay", connection_string);
        let token = self.write("token", "not-a-jwt");
        self.examine(&["--connection-string-file", &file, "--token-file", &token])
            .await
    }
}

impl Bed {
    /// Everything works, for a token of somebody who may do `access`.
    pub async fn start(wire: Wire, access: Access) -> Self {
        let mut bed = Self::without_agent(wire, access).await;
        let agent = agent_for(&bed.stand_in)
            .service_account_tokens(ServiceAccountTokens::PassThrough)
            .build()
            .expect("the agent is well configured");
        let string = ConnectionString::parse(&bed.connection_string()).expect("well formed");
        let roots = match &bed.certificate {
            Some(certificate) => TrustRoots::only_pem(certificate.ca_pem.as_bytes()),
            None => Ok(TrustRoots::platform()),
        };
        let listener = RelayListener::start(
            Connector::new(roots.expect("certificates")).expect("usable roots"),
            string.hybrid_connection().expect("it names one"),
            string.credential(),
        );
        listener.online().await.expect("the agent registers");
        bed.agent = Some(tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        }));
        bed
    }

    /// A relay at which nobody listens.
    pub async fn without_agent(wire: Wire, access: Access) -> Self {
        let desk = Desk::new();
        let token = random_token();
        desk.write("token", &token);
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .unbound(Access::Nothing)
            .access(ROBOT, access)
            .start()
            .await
            .expect("a free port");
        let rule = SasRule::new("root", random_token()).expect("a rule");
        let mut relay = RelayServer::builder()
            .hybrid_connection(NAME)
            .rule(rule, Rights::LISTEN | Rights::SEND);
        let certificate = (wire == Wire::Tls).then(Certificate::generate);
        if let Some(certificate) = &certificate {
            let acceptor = TlsAcceptor::from_pem(
                certificate.chain_pem.as_bytes(),
                certificate.key_pem.as_bytes(),
                Alpn::Http1,
            );
            relay = relay.tls(acceptor.expect("a certificate"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            desk,
            stand_in,
            relay: relay.start(listener).expect("the relay starts"),
            certificate,
            agent: None,
        }
    }

    pub fn connection_string(&self) -> String {
        self.relay
            .connection_string("root", NAME)
            .expect("both exist")
    }

    /// The doctor, with what a user of this relay has.
    pub fn arguments(&self) -> Vec<String> {
        let relay = self.desk.write("relay", &self.connection_string());
        vec![
            format!("--connection-string-file={relay}"),
            format!("--token-file={}", self.desk.path("token").display()),
        ]
    }

    pub async fn examine(&self, more: &[&str]) -> Found {
        let arguments = self.arguments();
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(more);
        self.desk.examine(&all).await
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent {
            agent.abort();
        }
    }
}

/// What the doctor found.
pub struct Found {
    pub ended: Ended,
    pub report: Value,
}

impl Found {
    pub fn of(ended: Ended) -> Self {
        let report = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {ended:?}"));
        Self { ended, report }
    }

    fn all(&self, name: &str) -> Vec<&Value> {
        let checks = self.report["checks"].as_array().expect("checks");
        checks
            .iter()
            .filter(|check| check["name"] == name)
            .collect()
    }

    /// The only check of this name.
    pub fn check(&self, name: &str) -> &Value {
        match self.all(name)[..] {
            [check] => check,
            ref checks => panic!(
                "{} checks are named {name}: {:#}",
                checks.len(),
                self.report
            ),
        }
    }

    pub fn result(&self, name: &str) -> &str {
        self.check(name)["result"].as_str().expect("a result")
    }

    /// The names of those that ended so, each once.
    pub fn with_result(&self, result: &str) -> Vec<&str> {
        let checks = self.report["checks"].as_array().expect("checks");
        let mut names: Vec<&str> = checks
            .iter()
            .filter(|check| check["result"] == result)
            .map(|check| check["name"].as_str().expect("a name"))
            .collect();
        names.dedup();
        names
    }

    /// Exactly these failed, which the exit code says as well; and this is said of the first.
    #[track_caller]
    pub fn assert_failed(&self, names: &[&str], detail: &str, advice: &str) {
        assert_eq!(self.with_result("failed"), names, "{:#}", self.report);
        assert_eq!(self.ended.status.code(), Some(1), "{:?}", self.ended);
        assert_eq!(self.report["result"], "failed");
        let check = self.all(names[0])[0];
        let contains = |member: &str, text: &str| {
            let found = check[member].as_str().unwrap_or_default();
            assert!(
                found.contains(text),
                "{text:?} is not in {member}: {check:#}"
            );
        };
        contains("detail", detail);
        contains("advice", advice);
    }

    /// Nothing failed.
    #[track_caller]
    pub fn assert_healthy(&self) {
        assert_eq!(self.with_result("failed"), [""; 0], "{:#}", self.report);
        assert_eq!(self.ended.status.code(), Some(0), "{:?}", self.ended);
    }
}
