use super::*;

fn round_trip(text: &str) -> String {
    Kubeconfig::parse(text).unwrap().to_yaml().unwrap()
}

#[test]
fn what_kubectl_writes_when_there_is_nothing() {
    let text = "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n";
    let kubeconfig = Kubeconfig::parse(text).unwrap();
    assert!(kubeconfig.clusters.is_empty() && kubeconfig.current_context.is_empty());
    assert!(kubeconfig.other.contains("preferences"));
}

#[test]
fn an_empty_text_is_an_empty_kubeconfig() {
    for text in [
        "",
        "\n\n",
        "# nothing but a comment\n",
        "---\n",
        "null\n",
        "{}",
    ] {
        assert_eq!(
            Kubeconfig::parse(text).unwrap(),
            Kubeconfig::default(),
            "{text:?}"
        );
    }
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"apiVersion":"v1","clusters":[{"name":"a","cluster":{"server":"https://a","insecure-skip-tls-verify":true}}],"current-context":"x"}"#;
    let kubeconfig = Kubeconfig::parse(text).unwrap();
    assert!(kubeconfig.cluster("a").unwrap().insecure_skip_tls_verify);
    assert_eq!(kubeconfig.current_context, "x");
}

#[test]
fn what_windows_tools_write() {
    let text = "\u{feff}apiVersion: v1\r\nclusters:\r\n- cluster:\r\n    server: https://a\r\n  name: a\r\n";
    let kubeconfig = Kubeconfig::parse(text).unwrap();
    assert_eq!(kubeconfig.api_version.as_deref(), Some("v1"));
    assert_eq!(kubeconfig.cluster("a").unwrap().server, "https://a");
}

#[test]
fn unknown_members_survive_at_every_level_in_their_order() {
    let text = "\
apiVersion: v1
kind: Config
zebra: 1
extensions: [{name: e, extension: {z: yes, a: 0123, m: 1_000, n: ~, f: 1.5, t: '12:30:45', l: [x, {y: 2}]}}]
alpha: true
clusters:
- name: c
  note: hello
  cluster: {server: 'https://c', disable-compression: true, z: 1, a: 2}
users:
- name: u
  note: hello
  user:
    exec: {command: login, args: [--now], env: [{name: A, value: 'yes'}], interactiveMode: Never}
    as: somebody
contexts:
- name: x
  note: hello
  context: {cluster: c, user: u, extensions: [{name: a}]}
current-context: x
";
    let once = Kubeconfig::parse(text).unwrap();
    assert_eq!(
        once.other.names().collect::<Vec<_>>(),
        ["zebra", "extensions", "alpha"]
    );
    let cluster = once.cluster("c").unwrap();
    assert_eq!(
        cluster.other.names().collect::<Vec<_>>(),
        ["disable-compression", "z", "a"]
    );
    assert!(once.clusters[0].other.contains("note"));
    assert!(once.users[0].user.other.contains("exec"));
    assert!(once.contexts[0].context.other.contains("extensions"));

    let written = once.to_yaml().unwrap();
    assert_eq!(Kubeconfig::parse(&written).unwrap(), once);
    // Texts that look like other types stay texts, in quotes that YAML 1.1 readers understand.
    assert!(
        written.contains("z: \"yes\"") || written.contains("z: 'yes'"),
        "{written}"
    );
    assert!(
        written.contains("\"0123\"") || written.contains("'0123'"),
        "{written}"
    );
    assert!(
        written.contains("\"1_000\"") || written.contains("'1_000'"),
        "{written}"
    );
}

#[test]
fn numbers_where_texts_belong_are_taken_as_written() {
    let text = "users: [{name: 7, user: {token: 0123}}, {name: 1e3, user: {token: yes}}]";
    let kubeconfig = Kubeconfig::parse(text).unwrap();
    assert_eq!(kubeconfig.users[0].name, "7");
    let token = |name| kubeconfig.user(name).unwrap().token.clone().unwrap();
    assert_eq!(token("7").expose(), "0123");
    assert_eq!(token("1e3").expose(), "yes");
    let again = Kubeconfig::parse(&kubeconfig.to_yaml().unwrap()).unwrap();
    assert_eq!(again, kubeconfig);
}

#[test]
fn long_values_stay_on_one_line() {
    let data = "QUJD".repeat(700);
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: s, certificate-authority-data: {data}}}}}]"
    );
    assert!(round_trip(&text).contains(&format!("certificate-authority-data: {data}\n")));
}

#[test]
fn bad_texts_give_the_place_and_never_the_content() {
    for (text, expected) in [
        ("clusters: [\n  {name: hush", "not valid YAML at line"),
        ("clusters: hush", "not a kubeconfig at line 1"),
        ("clusters: [hush]", "not a kubeconfig at line 1"),
        (
            "users:\n- name: a\n  user: {token: [hush]}\n",
            "not a kubeconfig at line 3",
        ),
        ("hush", "a text instead of a mapping"),
        ("- hush", "a list instead of a mapping"),
        ("kind: hush\nkind: hush\n", "a key is there twice"),
        // Keys that differ for the parser and are the same text for us.
        ("!one hush: 1\n!two hush: 2\n", "a key is there twice"),
        ("hush: {8080: 1, '8080': 2}\n", "a key is there twice"),
        ("hush: {null: 1, 'null': 2}\n", "a key is there twice"),
        ("a: 1\n---\nhush: 2\n", "more than one document"),
        (
            "users: [{name: a, user: {token: hush\u{7}\"\n",
            "not valid YAML",
        ),
        ("contexts: *hush", "not valid YAML at line 1"),
    ] {
        let error = Kubeconfig::parse(text).expect_err(text);
        let all = format!("{error:?} {}", error.report());
        assert!(all.contains(expected), "{text:?}: {all}");
        assert!(!all.contains("hush"), "{text:?}: {all}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn an_alias_bomb_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let one = format!("*a{},", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{one}]\n"));
    }
    assert!(Kubeconfig::parse(&bomb).is_err());
    assert!(Kubeconfig::parse(&format!("a: {}", "[".repeat(100_000))).is_err());
}

#[test]
fn aliases_repeat_up_to_the_limit() {
    let with_aliases = |count: usize| {
        let list = "x,".repeat(200);
        let aliases = "*list,".repeat(count);
        Kubeconfig::parse(&format!("a: &list [{list}]\nb: [{aliases}]\n"))
    };
    // An alias of a list of 200 repeats those and the list's two ends.
    let most = yaml::MAX_REPEATED_NODES / 202;
    assert!(with_aliases(most).is_ok());
    assert!(with_aliases(most + 1).is_err());
}

#[test]
fn a_text_above_the_limit_is_refused() {
    let text = format!("a: {}", "x".repeat(yaml::MAX_KUBECONFIG_BYTES));
    let error = Kubeconfig::parse(&text).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::LimitReached);
}

#[test]
fn debug_shows_no_secret() {
    let text = "
clusters: [{name: c, cluster: {server: s, proxy-url: 'http://me:hush@proxy'}}]
users: [{name: u, user: {token: hush, password: hush, client-key-data: hush, exec: {env: [{name: a, value: hush}]}}}]
extensions: [hush]
";
    let shown = format!("{:#?}", Kubeconfig::parse(text).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("exec"));
}

#[test]
fn unreadable_files_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nothing");
    let text = Kubeconfig::read(&missing).expect_err("missing").to_string();
    assert!(text.contains("nothing does not exist"), "{text}");
    let error = Kubeconfig::read(directory.path()).expect_err("a directory");
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("is a directory"), "{error}");
    let binary = directory.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    let error = Kubeconfig::read(&binary).expect_err("not text");
    assert!(
        error
            .to_string()
            .contains("binary is not usable: it is not UTF-8"),
        "{error}"
    );
}
