//! A cloud on loopback: authority, resource manager, relay, agent and API server; and a home for the program.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use arc_cluster_connect::{
    agent::{AgentCredential, EntraAuthenticator, PopPolicy, ServiceAccountTokens},
    arm::ConnectedClusterId,
    auth::{BearerAuth, Cloud, TenantId},
    kubeconfig::Kubeconfig,
    net::{Alpn, Connector, TlsAcceptor, TrustRoots},
    relay::{
        HybridConnection, RelayCredential, RelayListener, SasRule,
        server::{RelayServer, Rights},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

use super::support::{
    api_server::{Access, ImpersonationRights, StandIn, User, random_token},
    arm::{FakeArm, Issuing},
    authority::{Authority, TENANT, certificate::Certificate},
    embedded::agent_for,
    kubectl::Kubectl,
    programs::{self, Ended, Program},
};

pub const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
pub const GROUP: &str = "shop";
pub const NAME: &str = "till-7";
/// The context in the kubeconfig that Azure's public example has.
pub const CONTEXT: &str = "TestCluster";
pub const POD: &str = "web-0";

/// Whoever signs in with a code.
pub const USER: &str = "alice@contoso.example";
/// The application, and its object.
pub const CLIENT: &str = "b2b1c1f7-7d3f-4d7c-8ff2-6f5ec3f1b1aa";
pub const OBJECT: &str = "0ab1c2d3-0000-4000-8000-00000000abcd";
pub const SECRET: &str = "hush~secret+with/signs&more=";
pub const ROBOT: &str = "system:serviceaccount:default:admin-user";
const AGENT: &str = "system:serviceaccount:azure-arc:arc-agent";

/// A kubeconfig that its owner cares for.
pub const HOME: &str = "\
apiVersion: v1
kind: Config
clusters:
- {name: home, cluster: {server: 'https://home:6443'}} # at home
users:
- name: me
  user: {token: t}
contexts:
- context: {cluster: home, user: me}
  name: home
current-context: home
";

pub struct Bed {
    pub id: ConnectedClusterId,
    pub authority: Authority,
    pub arm: FakeArm,
    pub stand_in: StandIn,
    /// The service account's.
    pub robot_token: String,
    _relay: RelayServer,
    agents: Vec<JoinHandle<()>>,
    directory: TempDir,
}

impl Bed {
    pub async fn start() -> Self {
        Self::with_clusters(&[NAME]).await
    }

    /// Clusters of these names in Azure; behind all of them is the same agent.
    pub async fn with_clusters(names: &[&str]) -> Self {
        let ids: Vec<_> = names.iter().copied().map(cluster).collect();
        let authority = Authority::start().await.expect("a free port");
        authority.token_endpoint(|endpoint| {
            endpoint.application(CLIENT, SECRET);
            endpoint.interval = 1;
            endpoint.code_life = 900;
        });
        let certificate = Certificate::generate();
        let trusted = format!("{}{}", authority.ca_pem(), certificate.ca_pem);
        let roots = TrustRoots::only_pem(trusted.as_bytes()).expect("certificates");
        let connector = Connector::new(roots).expect("the roots are usable");

        let (listening, sending) = (rule("listener"), rule("sender"));
        let acceptor = TlsAcceptor::from_pem(
            certificate.chain_pem.as_bytes(),
            certificate.key_pem.as_bytes(),
            Alpn::Http1,
        );
        let mut relay = RelayServer::builder()
            .rule(listening.clone(), Rights::LISTEN)
            .rule(sending.clone(), Rights::SEND)
            .tls(acceptor.expect("a certificate"));
        for id in &ids {
            relay = relay.hybrid_connection(id.hybrid_connection_name());
        }
        let relay = relay
            .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
            .expect("the relay starts");
        let issuing = Issuing {
            relay: relay.endpoint().clone(),
            rule: sending,
            life: Duration::from_secs(10_800),
            grace: Duration::from_secs(600),
        };
        let arm = FakeArm::start(&certificate, ids[0].clone(), issuing)
            .await
            .expect("a free port");
        arm.trust(&authority);
        for id in &ids[1..] {
            arm.add_cluster(id.clone());
        }

        let (agent_token, robot_token) = (random_token(), random_token());
        let stand_in = StandIn::builder()
            .token(
                &agent_token,
                User::service_account("azure-arc", "arc-agent"),
            )
            .token(&robot_token, User::service_account("default", "admin-user"))
            .impersonator(AGENT, ImpersonationRights::Everyone)
            .unbound(Access::Nothing)
            .access(USER, Access::Everything)
            .access(OBJECT, Access::Everything)
            .access(ROBOT, Access::Everything)
            .pod("default", POD)
            .start()
            .await
            .expect("a free port");
        let mut bed = Self {
            id: ids[0].clone(),
            authority,
            arm,
            stand_in,
            robot_token,
            _relay: relay,
            agents: Vec::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        for id in &ids {
            bed.start_agent(id, &connector, &listening, &agent_token)
                .await;
        }
        bed.write("ca", &trusted);
        bed.write("secret", &format!("{SECRET}\n"));
        bed.write("token", &bed.robot_token);
        fs::create_dir(bed.path("home")).expect("it is writable");
        bed
    }

    async fn start_agent(
        &mut self,
        id: &ConnectedClusterId,
        connector: &Connector,
        rule: &SasRule,
        token: &str,
    ) {
        let tenant = TenantId::parse(TENANT).expect("a tenant");
        let entra = EntraAuthenticator::builder(tenant)
            .cloud(Cloud::custom(self.authority.url()).expect("a URL"))
            .connector(connector.clone())
            .pop(PopPolicy::accepted(id.to_string()))
            .build()
            .expect("it is well configured");
        let auth = BearerAuth::fixed(token).expect("a token");
        let agent = agent_for(&self.stand_in)
            .agent_credential(AgentCredential::new(Arc::new(auth)))
            .authenticator(entra)
            .service_account_tokens(ServiceAccountTokens::PassThrough)
            .build()
            .expect("it is well configured");
        let relay = self._relay.endpoint().clone();
        let hybrid_connection = HybridConnection::new(relay, &id.hybrid_connection_name());
        let listener = RelayListener::start(
            connector.clone(),
            hybrid_connection.expect("a path"),
            RelayCredential::from(rule.clone()),
        );
        listener.online().await.expect("the agent registers");
        self.agents.push(tokio::spawn(async move {
            let _ = agent.serve_relay(listener, std::future::pending()).await;
        }));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn argument(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it is there")
    }

    /// Which cluster, and how it is reached.
    pub fn place(&self) -> Vec<String> {
        self.cloud(&[
            "--name",
            NAME,
            "--resource-group",
            GROUP,
            "--subscription",
            SUBSCRIPTION,
        ])
    }

    /// These, and which cloud it is.
    pub fn cloud(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = texts(arguments);
        all.extend(texts(&["--arm-endpoint", self.arm.url()]));
        all.push(format!("--relay-ca={}", self.argument("ca")));
        all
    }

    /// An application with its secret in a file.
    pub fn application(&self) -> Vec<String> {
        let mut all = texts(&[
            "--auth",
            "client-secret",
            "--tenant",
            TENANT,
            "--client-id",
            CLIENT,
        ]);
        all.push(format!("--client-secret-file={}", self.argument("secret")));
        all
    }

    /// The same, whose tokens are bound to an RSA key, which is the kind that every agent takes.
    pub fn proving_application(&self) -> Vec<String> {
        self.write("key", include_str!("../support/authority/keys/rsa-2.pem"));
        let owner_only = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path("key"), owner_only).expect("it is ours");
        let mut all = self.application();
        all.push(format!("--pop-key-file={}", self.argument("key")));
        all
    }

    /// The program, with a home of its own and nothing of this machine's Azure.
    pub fn command(&self, name: &str, arguments: &[Vec<String>]) -> Command {
        let mut command = programs::command("arc-connect", &[name]);
        for variable in [
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_SUBSCRIPTION_ID",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_CLIENT_CERTIFICATE_PATH",
            "IDENTITY_ENDPOINT",
            "XDG_CACHE_HOME",
        ] {
            command.env_remove(variable);
        }
        command
            .args(arguments.iter().flatten())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("home"));
        command
    }

    pub async fn run(&self, name: &str, arguments: &[Vec<String>]) -> Ended {
        programs::run_command(self.command(name, arguments)).await
    }

    /// A proxy on any port, with its kubeconfig in a file of the bed.
    pub async fn proxy(&self, arguments: &[Vec<String>]) -> Program {
        let more = [
            texts(&["--port=0"]),
            vec![format!("--file={}", self.argument("kubeconfig"))],
        ];
        let mut all = arguments.to_vec();
        all.extend(more);
        let command = self.command("proxy", &all);
        Program::start_command("arc-connect", self.directory.path(), command).await
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.path("kubeconfig"))
    }

    /// The secret of the proxy that has written the kubeconfig.
    pub fn run_secret(&self) -> String {
        let kubeconfig = Kubeconfig::read(&self.path("kubeconfig")).expect("it is there");
        // What was there before stands before it.
        let user = kubeconfig.users.last().expect("a user");
        let token = user.user.token.as_ref();
        token.expect("a token").expose().to_owned()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
    }
}

pub fn cluster(name: &str) -> ConnectedClusterId {
    ConnectedClusterId::new(SUBSCRIPTION, GROUP, name).expect("a cluster's id")
}

pub fn texts(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&text| text.to_owned()).collect()
}

fn rule(name: &str) -> SasRule {
    SasRule::new(name, random_token()).expect("a rule")
}
