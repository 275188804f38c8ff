//! The agent's own identity at Entra ID, as its flags give it: towards the directory of groups, and towards the relay.

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    bed::{GROUP, STRANGER, STRANGER_ID, get_over},
    program::{CLUSTER, Site},
    support::{
        authority::{AUDIENCE, Asked},
        programs::{self, Program},
    },
};

const APPLICATION_ID: &str = "b2b1c1f7-7d3f-4d7c-8ff2-6f5ec3f1b1aa";

/// The flags of an agent that is an application itself.
fn identity_of(site: &Site) -> Vec<String> {
    site.authority
        .token_endpoint(|endpoint| endpoint.application(APPLICATION_ID, "hush~secret"));
    site.write("secret", "hush~secret\n");
    let file = site.files.path().join("secret");
    vec![
        "--identity=client-secret".to_owned(),
        format!("--identity-client-id={APPLICATION_ID}"),
        format!("--identity-secret-file={}", file.display()),
    ]
}

/// The scopes for which the agent has asked for tokens.
fn asked_scopes(site: &Site) -> Vec<String> {
    let asked = site
        .authority
        .token_endpoint(|endpoint| endpoint.requests());
    let scope = |asked: &Asked| asked.form["scope"].clone();
    asked.iter().map(scope).collect()
}

#[tokio::test]
async fn groups_are_looked_up_under_the_agents_own_identity() {
    let site = Site::new().await;
    let groups = vec![GROUP.to_owned()];
    let member = site
        .authority
        .user(STRANGER, STRANGER_ID)
        .group_overage("https://x.example/")
        .sign();
    site.authority.directory(|all| {
        all.user(STRANGER_ID, &groups);
        all.on_behalf_of(&member, &groups);
    });
    let graph = format!("{}/.default", site.authority.url());
    for (flags, scope) in [
        (vec!["--entra-groups=graph".to_owned()], graph),
        (
            vec![
                "--entra-groups=arc".to_owned(),
                format!("--entra-groups-endpoint={}", site.authority.url()),
                format!("--cluster-resource-id={CLUSTER}"),
            ],
            format!("{AUDIENCE}/.default"),
        ),
    ] {
        let mut arguments = site.arguments(&["--entra-object-id=none"]);
        arguments.retain(|argument| !argument.starts_with("--entra-groups-token-file"));
        arguments.extend(identity_of(&site));
        arguments.extend(flags);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let agent = Program::start("arc-agent", site.files.path(), &arguments).await;
        let answer = get_over(&site.tunnel(), &member).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(asked_scopes(&site).last(), Some(&scope));
        let ended = agent.terminate().await;
        assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
    }
}

/// The first request of whoever dials `listener`, with its answer still to be given.
async fn request_head(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.expect("somebody dials");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a whole head"));
    }
    (socket, String::from_utf8(head).expect("text"))
}

#[tokio::test]
async fn a_relay_is_shown_the_agents_own_identity() {
    let site = Site::new().await;
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut arguments = site.arguments(&[
        &format!("--relay=ws://{}", relay.local_addr().expect("it is bound")),
        "--hybrid-connection=edge",
    ]);
    arguments.retain(|argument| !argument.starts_with("--connection-string-file"));
    arguments.extend(identity_of(&site));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let agent = programs::run("arc-agent", &arguments);
    let scripted = async {
        let (mut socket, head) = request_head(&relay).await;
        let refusal = b"HTTP/1.1 401 InvalidToken. TrackingId:id_G1\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(refusal).await.expect("it is read");
        head
    };
    let (ended, head) = tokio::join!(agent, scripted);
    assert!(
        head.starts_with("GET /$hc/edge?sb-hc-action=listen"),
        "{head}"
    );
    let shown = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("ServiceBusAuthorization")
                .then_some(value)
        })
        .expect("the token");
    // Bare, and one that the authority gave for relays.
    assert_eq!(shown.split('.').count(), 3, "{shown}");
    assert!(shown.starts_with("eyJ"), "{shown}");
    assert_eq!(asked_scopes(&site), ["https://relay.azure.net/.default"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("id_G1"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(shown), "{}", ended.stderr);
}

#[tokio::test]
async fn an_identity_that_is_not_complete_is_one_clear_message() {
    let site = Site::new().await;
    let nowhere = format!("{}/none", site.files.path().display());
    let mut cases = vec![
        (
            vec!["--identity=client-secret".to_owned()],
            "--identity-secret-file",
        ),
        (
            vec!["--identity=client-certificate".to_owned()],
            "--identity-certificate-file",
        ),
        (
            vec![
                "--identity=client-secret".to_owned(),
                format!("--identity-secret-file={nowhere}"),
            ],
            "none",
        ),
        (
            vec![
                "--identity=managed-identity".to_owned(),
                format!("--identity-secret-file={nowhere}"),
            ],
            "of no use",
        ),
        (
            vec!["--identity=workload-identity".to_owned()],
            "workload identity can not be used",
        ),
    ];
    let mut without_client = identity_of(&site);
    without_client.remove(1);
    cases.push((without_client, "--identity-client-id"));
    for (flags, part) in cases {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ended = site.refused(&flags).await;
        let said = &ended.stderr;
        assert_eq!(ended.status.code(), Some(1), "{flags:?}: {said}");
        assert!(said.contains(part), "no '{part}' for {flags:?}: {said}");
        assert!(said.contains("what to do: "), "{flags:?}: {said}");
    }
    for flags in [
        &["--relay=x.example", "--hybrid-connection=y"][..],
        &["--identity-client-id=z"],
    ] {
        let ended = programs::run("arc-agent", flags).await;
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("--identity"), "{}", ended.stderr);
    }
}
