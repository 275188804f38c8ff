use super::*;
use crate::kubeconfig::{KubeconfigBuilder, ProxyEndpoint, TokenKubeconfig};

const USERS: &str = "
clusters:
- {name: home, cluster: {server: 'https://home:6443'}}
users:
- {name: me, user: {token: t}}
contexts:
- {name: me@home, context: {cluster: home, user: me}}
current-context: me@home
";

fn users() -> Kubeconfig {
    Kubeconfig::parse(USERS).unwrap()
}

fn ours(name: &str, port: u16, secret: &str) -> Kubeconfig {
    let server = format!("https://127.0.0.1:{port}/proxies/ab12");
    TokenKubeconfig::new(name)
        .build(&ProxyEndpoint::new(server, "PEM", secret.into()))
        .unwrap()
}

fn merged(base: &Kubeconfig, addition: &Kubeconfig, current: CurrentContext) -> Kubeconfig {
    merge(base, addition, current).unwrap().kubeconfig
}

#[test]
fn entries_are_appended_and_the_current_context_changes_only_when_asked() {
    let addition = ours("till", 1, "s");
    let kept = merged(&users(), &addition, CurrentContext::KeepIfSet);
    assert_eq!(kept.current_context, "me@home");
    let switched = merged(&users(), &addition, CurrentContext::Switch);
    assert_eq!(switched.current_context, "till");
    for result in [kept, switched] {
        assert_eq!(result.clusters[..1], users().clusters);
        assert_eq!(result.clusters[1..], addition.clusters);
        assert_eq!(result.users[1..], addition.users);
        assert_eq!(result.contexts[1..], addition.contexts);
    }
}

#[test]
fn without_a_current_context_ours_becomes_it() {
    let result = merged(
        &Kubeconfig::default(),
        &ours("till", 1, "s"),
        CurrentContext::KeepIfSet,
    );
    assert_eq!(result, ours("till", 1, "s"));
}

#[test]
fn entries_of_an_earlier_run_are_replaced_in_their_place() {
    let base = merged(&users(), &ours("till", 1, "old"), CurrentContext::Switch);
    let base = merged(&base, &ours("shelf", 1, "x"), CurrentContext::KeepIfSet);
    let result = merge(&base, &ours("till", 2, "new"), CurrentContext::KeepIfSet).unwrap();
    assert!(result.replaced);
    let names: Vec<_> = result
        .kubeconfig
        .clusters
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["home", "till", "shelf"]);
    let token = result.kubeconfig.user("till").unwrap().token.clone();
    assert_eq!(token.unwrap().expose(), "new");
}

#[test]
fn what_is_not_ours_is_never_replaced() {
    let stranger = "https://127.0.0.1:6443";
    let cases = [
        // Somebody's cluster, context or user of that name.
        (USERS.to_owned(), "home", "cluster 'home'"),
        (USERS.to_owned(), "me@home", "context 'me@home'"),
        (USERS.to_owned(), "me", "user 'me'"),
        // A loopback cluster that is none of ours: kind, minikube, a port-forward.
        (
            USERS.replace("https://home:6443", stranger),
            "home",
            "cluster 'home'",
        ),
        (
            USERS.replace("https://home:6443", "https://127.0.0.1:6443/proxies/"),
            "home",
            "cluster 'home'",
        ),
        (
            USERS.replace("https://home:6443", "https://127.0.0.1:x/proxies/ab"),
            "home",
            "cluster 'home'",
        ),
        (
            USERS.replace(
                "https://home:6443",
                "https://127.0.0.1.evil.example/proxies/ab",
            ),
            "home",
            "cluster 'home'",
        ),
        // A user that no context refers to, and one with more than a token.
        (
            "users: [{name: till, user: {token: t}}]".to_owned(),
            "till",
            "user 'till'",
        ),
        (
            "clusters: [{name: till, cluster: {server: 'https://127.0.0.1:1/proxies/ab'}}]\n\
             users: [{name: till, user: {token: t, exec: {command: x}}}]\n\
             contexts: [{name: till, context: {cluster: till, user: till}}]"
                .to_owned(),
            "till",
            "user 'till'",
        ),
        // A context whose cluster is gone could be anybody's.
        (
            "contexts: [{name: till, context: {cluster: gone, user: till}}]".to_owned(),
            "till",
            "context 'till'",
        ),
    ];
    for (text, name, expected) in cases {
        let base = Kubeconfig::parse(&text).unwrap();
        let error = merge(&base, &ours(name, 1, "s"), CurrentContext::Switch)
            .map(|_| ())
            .expect_err(expected);
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(error.help().unwrap().contains("--kube-context"));
    }
}

#[test]
fn removing_gives_back_what_was() {
    let addition = ours("till", 1, "s");
    let present = merged(&users(), &addition, CurrentContext::Switch);
    assert_eq!(remove(&present, &addition, "me@home"), users());
}

#[test]
fn another_runs_entries_stay() {
    let first = ours("till", 47011, "first");
    let second = ours("till", 47011, "second");
    let present = merged(&users(), &first, CurrentContext::Switch);
    let present = merged(&present, &second, CurrentContext::Switch);
    assert_eq!(remove(&present, &first, "me@home"), present);
    // And when the port differs.
    let third = ours("till", 47012, "second");
    let present = merged(&present, &third, CurrentContext::Switch);
    assert_eq!(remove(&present, &second, "me@home"), present);
}

#[test]
fn the_current_context_is_put_back_only_if_it_was_ours_and_the_earlier_one_exists() {
    let addition = ours("till", 1, "s");
    let mut present = merged(&users(), &addition, CurrentContext::Switch);
    assert_eq!(remove(&present, &addition, "gone").current_context, "");
    present.current_context = "other".to_owned();
    assert_eq!(
        remove(&present, &addition, "me@home").current_context,
        "other"
    );
}

#[test]
fn what_the_user_changed_about_our_context_decides() {
    let addition = ours("till", 1, "s");
    let mut present = merged(&users(), &addition, CurrentContext::Switch);
    // A namespace, as `kubectl config set-context --current --namespace` writes it: still our context.
    present.contexts[1].context.namespace = Some("shop".to_owned());
    assert_eq!(remove(&present, &addition, "me@home").contexts.len(), 1);
    // Another cluster: the user's context now.
    present.contexts[1].context.cluster = "home".to_owned();
    let kept = remove(&present, &addition, "me@home");
    assert_eq!(kept.contexts.len(), 2);
    assert_eq!(kept.current_context, "till");
    assert_eq!(kept.clusters.len(), 1);
}

#[test]
fn parts_that_the_user_removed_are_no_obstacle() {
    let addition = ours("till", 1, "s");
    let mut present = merged(&users(), &addition, CurrentContext::Switch);
    present.clusters.truncate(1);
    let kept = remove(&present, &addition, "me@home");
    assert_eq!((kept.users.len(), kept.contexts.len()), (1, 1));
    assert_eq!(remove(&kept, &addition, "me@home"), kept);
}
