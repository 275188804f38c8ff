//! `arc-agent` as an operator runs it: its flags for callers of Entra ID, the good ones and the bad.

use arc_cluster_connect::{
    net::{Connector, TrustRoots},
    relay::{
        ConnectionString, RelaySender, SasRule,
        server::{RelayServer, Rights},
    },
    tunnel::RelayTunnel,
};
use http::StatusCode;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    bed::{GROUP, ROBOT, ROBOT_TOKEN, STRANGER, STRANGER_ID, USER, USER_ID, cluster, get_over},
    support::{
        api_server::{ImpersonationRights, StandIn, random_token},
        authority::{Authority, SigningKey, TENANT},
        programs::{self, Ended, Program},
    },
};

const NAME: &str = "program";
pub const CLUSTER: &str = "/subscriptions/b1d3d3f8-9e4b-4f7c-9a39-000000000001/resourceGroups/rg/providers/Microsoft.Kubernetes/connectedClusters/edge";

/// A cluster, an authority, a relay, and the files that the agent reads.
pub struct Site {
    pub authority: Authority,
    stand_in: StandIn,
    relay: RelayServer,
    pub files: TempDir,
}

impl Site {
    pub async fn new() -> Self {
        let agent_token = random_token();
        let stand_in = cluster(&agent_token, ImpersonationRights::Constrained)
            .start()
            .await
            .expect("a free port");
        let authority = Authority::start().await.expect("a free port");
        let rule = SasRule::new("root", random_token()).expect("a rule");
        let relay = RelayServer::builder()
            .hybrid_connection(NAME)
            .rule(rule, Rights::LISTEN | Rights::SEND)
            .start(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
            .expect("the relay starts");
        let site = Self {
            files: tempfile::tempdir().expect("a temporary directory"),
            authority,
            stand_in,
            relay,
        };
        site.write("relay", &site.connection_string());
        site.write("cluster", &site.stand_in.kubeconfig(None));
        site.write("ca", site.authority.ca_pem());
        site.write("impersonator", &agent_token);
        site.write("graph", "token-of-the-agent-for-graph");
        site
    }

    fn connection_string(&self) -> String {
        self.relay
            .connection_string("root", NAME)
            .expect("both exist")
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.files.path().join(name), text).expect("it is writable");
    }

    /// What every agent here needs, and `more`.
    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let file = |name: &str| self.files.path().join(name).display().to_string();
        let all = [
            format!("--connection-string-file={}", file("relay")),
            format!("--kubeconfig={}", file("cluster")),
            format!("--impersonator-token-file={}", file("impersonator")),
            format!("--entra-tenant={TENANT}"),
            format!("--entra-authority={}", self.authority.url()),
            format!("--entra-ca={}", file("ca")),
            format!("--entra-groups-token-file={}", file("graph")),
        ];
        all.into_iter()
            .chain(more.iter().map(|argument| (*argument).to_owned()))
            .collect()
    }

    async fn agent(&self, more: &[&str]) -> Program {
        let arguments = self.arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Program::start("arc-agent", self.files.path(), &arguments).await
    }

    pub async fn refused(&self, more: &[&str]) -> Ended {
        let arguments = self.arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        programs::run("arc-agent", &arguments).await
    }

    pub fn tunnel(&self) -> RelayTunnel {
        let string = ConnectionString::parse(&self.connection_string()).expect("well formed");
        RelayTunnel::new(RelaySender::new(
            Connector::new(TrustRoots::platform()).expect("roots can be read"),
            string.hybrid_connection().expect("it names one"),
            string.credential(),
        ))
    }
}

/// All at once: a cluster with constrained impersonation, proofs, a directory of groups, reviewed service accounts.
#[tokio::test]
async fn the_agent_does_what_its_flags_say() {
    let site = Site::new().await;
    let agent = site
        .agent(&[
            "--entra-object-id=arc.azure.com/oid",
            "--entra-pop=accept",
            &format!("--cluster-resource-id={CLUSTER}"),
            "--entra-groups=graph",
            "--allow-service-account-tokens",
            "--review-service-account-tokens",
            "--drain-limit=3",
        ])
        .await;
    let tunnel = site.tunnel();

    let key = SigningKey::rsa(1);
    let bound = site.authority.user(USER, USER_ID).bound_to(&key);
    let proof = bound.proof(&key, CLUSTER).sign();
    for _ in 0..2 {
        let answer = get_over(&tunnel, &proof).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let elsewhere = get_over(&site.tunnel(), &proof).await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED, "{elsewhere:?}");

    let directory = vec![GROUP.to_owned()];
    site.authority
        .directory(|all| all.user(STRANGER_ID, &directory));
    let member = site
        .authority
        .user(STRANGER, STRANGER_ID)
        .group_overage("https://x.example/");
    let answer = get_over(&tunnel, &member.sign()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");

    let answer = get_over(&tunnel, ROBOT_TOKEN).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let requests = site.stand_in.requests();
    let review = requests
        .iter()
        .find(|request| request.path_and_query.ends_with("/selfsubjectreviews"))
        .expect("a review");
    assert_eq!(review.user.as_ref().expect("a caller").name, ROBOT);
    agent.terminate().await;
}

#[tokio::test]
async fn proofs_may_move_where_that_is_asked_for() {
    let site = Site::new().await;
    let agent = site
        .agent(&[
            "--entra-object-id=none",
            "--entra-pop=require",
            "--entra-pop-replays=allow",
            &format!("--cluster-resource-id={CLUSTER}"),
        ])
        .await;
    let key = SigningKey::rsa(1);
    let bound = site.authority.user(USER, USER_ID).bound_to(&key);
    let proof = bound.proof(&key, CLUSTER).sign();
    for _ in 0..2 {
        let answer = get_over(&site.tunnel(), &proof).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let plain = site.authority.user(USER, USER_ID).sign();
    let refused = get_over(&site.tunnel(), &plain).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    agent.terminate().await;
}

#[tokio::test]
async fn flags_that_do_not_fit_are_one_clear_message() {
    let site = Site::new().await;
    // What the program finds out: exit code 1, and what to do.
    for (flags, parts) in [
        (
            &["--entra-pop=accept"][..],
            &["--entra-pop", "--cluster-resource-id"][..],
        ),
        (
            &["--entra-pop=require", "--cluster-resource-id=edge"],
            &["cluster id"],
        ),
        (
            &["--entra-pop-replays=allow"],
            &["--entra-pop-replays", "--entra-pop accept"],
        ),
        (&["--entra-groups=arc"], &["--entra-groups-endpoint"]),
        (
            &[
                "--entra-groups=arc",
                "--entra-groups-endpoint=https://x.example",
            ],
            &["--cluster-resource-id"],
        ),
        (
            &[
                "--entra-groups=arc",
                "--entra-groups-endpoint=http://x.example",
                &*format!("--cluster-resource-id={CLUSTER}"),
            ],
            &["https"],
        ),
    ] {
        let ended = site.refused(flags).await;
        let said = &ended.stderr;
        assert_eq!(ended.status.code(), Some(1), "{flags:?}: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{flags:?}: {said}");
        assert!(said.contains("what to do: "), "{flags:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "no '{part}' for {flags:?}: {said}");
        }
    }
    // What the command line itself rules out: exit code 2, and what would be right.
    for (flags, part) in [
        (&["--entra-pop=perhaps"][..], "refuse, accept, require"),
        (&["--entra-pop-replays=never"], "refuse, allow"),
        (&["--entra-groups=ldap"], "refuse, graph, arc"),
        (&["--entra-object-id=OID"], "oid, arc.azure.com/oid, none"),
        (&["--drain-limit=soon"], "--drain-limit"),
        (&["--drain-limit=86401"], "86400"),
        (&["--drain-limit=-1"], "--drain-limit"),
        (
            &["--review-service-account-tokens"],
            "--allow-service-account-tokens",
        ),
    ] {
        let ended = site.refused(flags).await;
        let said = &ended.stderr;
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(part), "no '{part}' for {flags:?}: {said}");
    }
    let without_a_tenant = programs::run(
        "arc-agent",
        &["--allow-service-account-tokens", "--entra-pop=require"],
    )
    .await;
    assert_eq!(without_a_tenant.status.code(), Some(2));
    assert!(without_a_tenant.stderr.contains("--entra-tenant"));

    // Without a token for the directory, the flag that asks for it is named.
    let arguments: Vec<String> = site
        .arguments(&["--entra-groups=graph"])
        .into_iter()
        .filter(|argument| !argument.starts_with("--entra-groups-token-file"))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = programs::run("arc-agent", &arguments).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--entra-groups-token-file"));
    std::fs::remove_file(site.files.path().join("graph")).expect("it was written");
    let ended = site.refused(&["--entra-groups=graph"]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("graph"), "{}", ended.stderr);
}

#[tokio::test]
async fn redirects_are_passed_on_or_refused_as_the_flag_says() {
    let site = Site::new().await;
    let api = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = format!("http://{}", api.local_addr().expect("it is bound"));
    site.write(
        "cluster",
        &format!(
            "clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: k, context: {{cluster: c, user: u}}}}]\ncurrent-context: k\n"
        ),
    );
    let scripted = tokio::spawn(async move {
        loop {
            let (mut socket, _) = api.accept().await.expect("somebody dials");
            tokio::spawn(async move {
                let mut byte = [0];
                let mut head = Vec::new();
                while socket.read(&mut byte).await.is_ok_and(|length| length == 1) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let answer = b"HTTP/1.1 302 Found\r\nLocation: https://x.example/\r\nContent-Length: 0\r\n\r\n";
                        let _ = socket.write_all(answer).await;
                        head.clear();
                    }
                }
            });
        }
    });
    for (flag, status) in [
        ("--redirects=refuse", StatusCode::BAD_GATEWAY),
        ("--redirects=pass-on", StatusCode::FOUND),
    ] {
        let agent = site.agent(&["--allow-service-account-tokens", flag]).await;
        let answer = get_over(&site.tunnel(), ROBOT_TOKEN).await;
        assert_eq!(answer.status, status, "{flag}: {answer:?}");
        agent.terminate().await;
    }
    scripted.abort();
}

/// A shell that leaves programs few files, as most do.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_agent_may_open_as_many_files_as_the_system_lets_it() {
    let site = Site::new().await;
    let agent = programs::command("arc-agent", &[]);
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", "ulimit -S -n 128 && exec \"$0\" \"$@\""])
        .arg(agent.as_std().get_program())
        .args(site.arguments(&[]))
        .arg("--ready-file")
        .arg(site.files.path().join("ready"))
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true);
    let mut child = shell.spawn().expect("there is a shell");
    let limits = format!("/proc/{}/limits", child.id().expect("it runs"));
    let deadline = tokio::time::Instant::now() + programs::PATIENCE;
    while !site.files.path().join("ready").exists() {
        assert!(tokio::time::Instant::now() < deadline, "not ready in time");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let limits = std::fs::read_to_string(limits).expect("it runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit");
    let mut words = line["Max open files".len()..].split_whitespace();
    let soft: u64 = words.next().expect("soft").parse().expect("a number");
    let hard = words.next().expect("hard").parse().unwrap_or(u64::MAX);
    assert_eq!(soft, hard.min(65_536), "{line}");
    child.kill().await.expect("it runs");
}
