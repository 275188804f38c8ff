//! The whole path as a user sets it up: a stand-in API server, and relay, agent and client as processes of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    api_server::{StandIn, User, random_token},
    kubectl::Kubectl,
    programs::Program,
};

/// The hybrid connection, and so the context's name.
pub const NAME: &str = "demo";

/// A pod that runs in the stand-in from the start.
pub const POD: &str = "web-0";

/// Files and the cluster. Programs are started from it, each test those that it needs.
pub struct Installation {
    pub stand_in: StandIn,
    pub token: String,
    directory: TempDir,
}

/// The three processes between a kubectl and a cluster.
pub struct Programs {
    pub relay: Program,
    pub agent: Program,
    pub proxy: Program,
}

impl Installation {
    /// A cluster, and the files that a user would have: keys, kubeconfig, token.
    pub async fn prepare() -> Self {
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .pod("default", POD)
            .big_namespace_pods(20_000)
            .start()
            .await
            .expect("the stand-in starts");
        let installation = Self {
            stand_in,
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            token,
        };
        installation.write("relay-key", &random_token());
        installation.write("token", &installation.token);
        installation.write("cluster", &installation.stand_in.kubeconfig(None));
        installation
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file of the installation.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The same, as an argument.
    pub fn argument(&self, name: &str) -> String {
        self.path(name)
            .to_str()
            .expect("paths are UTF-8")
            .to_owned()
    }

    /// Writes a file of the installation.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("the directory is writable");
    }

    /// Relay, agent and client, each ready.
    pub async fn start_all(&self) -> Programs {
        Programs {
            relay: self.start_relay(0).await,
            agent: self.start_agent().await,
            proxy: self.start_proxy().await,
        }
    }

    /// The relay; port 0 takes any, and the connection string is written for whichever it is.
    pub async fn start_relay(&self, port: u16) -> Program {
        let listen = format!("127.0.0.1:{port}");
        let rule = format!("root:@{}:listen,send", self.argument("relay-key"));
        let relay = Program::start(
            "arc-relay",
            self.directory(),
            &[
                "--listen",
                &listen,
                "--hybrid-connection",
                NAME,
                "--sas-rule",
                &rule,
            ],
        )
        .await;
        let key = fs::read_to_string(self.path("relay-key")).expect("it was written");
        let address = text(&relay.ready()["address"]);
        self.write(
            "relay",
            &format!(
                "Endpoint=ws://{address}/;SharedAccessKeyName=root;SharedAccessKey={key};EntityPath={NAME}\n"
            ),
        );
        relay
    }

    /// The agent beside the cluster.
    pub async fn start_agent(&self) -> Program {
        Program::start(
            "arc-agent",
            self.directory(),
            &[
                "--connection-string-file",
                &self.argument("relay"),
                "--kubeconfig",
                &self.argument("cluster"),
                "--allow-service-account-tokens",
            ],
        )
        .await
    }

    /// The client's loopback endpoint, with its context in a kubeconfig of the installation.
    pub async fn start_proxy(&self) -> Program {
        Program::start(
            "arc-connect",
            self.directory(),
            &[
                "proxy",
                "--connection-string-file",
                &self.argument("relay"),
                "--token-file",
                &self.argument("token"),
                "--file",
                &self.argument("kubeconfig"),
                "--port",
                "0",
            ],
        )
        .await
    }

    /// A kubectl that goes through the client.
    pub fn kubectl(&self, proxy: &Program) -> Kubectl {
        Kubectl::new(text(&proxy.ready()["kubeconfig"]))
    }
}

/// The port of a relay, to start it there again.
pub fn port(relay: &Program) -> u16 {
    text(&relay.ready()["address"])
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .expect("an address ends in a port")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
