//! No secret of a run is in anything that the program writes or shows, however much it is asked to tell.

use percent_encoding::percent_decode_str;

use super::{
    bed::{Bed, CLIENT, POD, SECRET, texts},
    support::{authority::TENANT, kubectl},
};

/// Everything that opens something, whole and in the part that is worth most.
fn secrets(bed: &Bed, run_secret: &str) -> Vec<(String, String)> {
    let mut all = vec![
        ("the client secret".to_owned(), SECRET.to_owned()),
        ("the secret of the run".to_owned(), run_secret.to_owned()),
        (
            "the service account's token".to_owned(),
            bed.robot_token.clone(),
        ),
    ];
    // As it stands in a form.
    let encoded: String = SECRET
        .bytes()
        .map(|byte| match byte {
            b'+' | b'/' | b'&' | b'=' => format!("%{byte:02X}"),
            _ => char::from(byte).to_string(),
        })
        .collect();
    all.push(("the client secret in a form".to_owned(), encoded));
    let relay = bed.arm.relay_tokens();
    assert!(!relay.is_empty());
    for token in relay {
        let signature = token
            .split('&')
            .find_map(|part| part.split_once("sig="))
            .map(|(_, signature)| signature.to_owned())
            .expect("a signature");
        let decoded = percent_decode_str(&signature).decode_utf8().unwrap();
        all.push(("the relay's token".to_owned(), decoded.into_owned()));
        all.push(("the relay's token, encoded".to_owned(), signature));
    }
    let (tokens, asked) = bed
        .authority
        .token_endpoint(|endpoint| (endpoint.access_tokens(), endpoint.requests()));
    assert!(!tokens.is_empty());
    for token in tokens {
        let mut parts = token.split('.').skip(1);
        let (claims, signature) = (parts.next().unwrap(), parts.next().unwrap());
        all.push(("an access token's claims".to_owned(), claims.to_owned()));
        all.push((
            "an access token's signature".to_owned(),
            signature.to_owned(),
        ));
    }
    for form in asked.into_iter().map(|asked| asked.form) {
        if let Some(token) = form.get("refresh_token") {
            all.push(("a refresh token".to_owned(), token.clone()));
        }
    }
    all
}

fn assert_hides(secrets: &[(String, String)], place: &str, text: &str) {
    for (what, secret) in secrets {
        assert!(secret.len() >= 8, "{what} is too short to look for");
        if let Some(at) = text.find(secret.as_str()) {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            panic!("{what} is in {place}: {}", &text[line..at]);
        }
    }
    // Of tokens that are made here, as proofs are, nobody else knows: a JSON object in base64 begins like this.
    let is_encoded = |word: &str| {
        let digits = word
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        digits.count() >= 16
    };
    for (at, _) in text.match_indices("eyJ") {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        assert!(
            !is_encoded(&text[at..]),
            "a token is in {place}: {}",
            &text[line..at]
        );
    }
}

/// Runs a proxy that tells everything, with a kubectl, and looks at all that can be seen of it.
async fn nothing_shows(caller: impl Fn(&Bed) -> Vec<String>) {
    let bed = Bed::start().await;
    let more = texts(&["-vvv", "--request-log", &bed.argument("requests")]);
    let proxy = bed.proxy(&[bed.place(), caller(&bed), more]).await;
    let run_secret = bed.run_secret();
    #[cfg(target_os = "linux")]
    let command_line = std::fs::read(format!("/proc/{}/cmdline", proxy.id())).unwrap();
    let kubectl = bed.kubectl();
    let listed = kubectl.run(&["get", "pods", "-o", "name"]).await;
    assert_eq!(listed.succeeded().text().trim(), format!("pod/{POD}"));
    let echoed = kubectl
        .run_with_input(
            &["exec", "-i", POD, "--", "cat"],
            b"over an upgraded stream",
        )
        .await;
    echoed.succeeded();
    let ready = proxy.ready().to_string();
    let ended = proxy.terminate().await;
    assert!(ended.status.success(), "{ended:?}");

    let secrets = secrets(&bed, &run_secret);
    assert!(ended.stderr.contains("TRACE"), "it did not tell everything");
    assert_hides(&secrets, "the log", &ended.stderr);
    assert_hides(&secrets, "the output", &ended.stdout);
    assert_hides(&secrets, "the ready file", &ready);
    assert_hides(&secrets, "the request log", &bed.read("requests"));
    #[cfg(target_os = "linux")]
    assert_hides(
        &secrets,
        "the command line",
        &String::from_utf8_lossy(&command_line),
    );
}

#[tokio::test]
async fn an_applications_run_tells_no_secret() {
    if !kubectl::is_installed("an_applications_run_tells_no_secret") {
        return;
    }
    nothing_shows(Bed::application).await;
}

#[tokio::test]
async fn a_persons_run_with_a_code_tells_no_secret() {
    if !kubectl::is_installed("a_persons_run_with_a_code_tells_no_secret") {
        return;
    }
    nothing_shows(|_| texts(&["--auth=device-code", "--tenant", TENANT])).await;
}

#[tokio::test]
async fn a_run_with_a_token_of_the_clusters_tells_no_secret() {
    if !kubectl::is_installed("a_run_with_a_token_of_the_clusters_tells_no_secret") {
        return;
    }
    nothing_shows(|bed| {
        let mut caller = bed.application();
        caller.push(format!("--token-file={}", bed.argument("token")));
        caller
    })
    .await;
}

#[tokio::test]
async fn a_run_with_proofs_tells_no_secret() {
    if !kubectl::is_installed("a_run_with_proofs_tells_no_secret") {
        return;
    }
    nothing_shows(Bed::proving_application).await;
}

/// A secret that is wrong is one of somebody's all the same.
#[tokio::test]
async fn a_refused_secret_is_not_repeated() {
    let bed = Bed::start().await;
    bed.authority
        .token_endpoint(|endpoint| endpoint.application(CLIENT, "another"));
    let more = texts(&["-vvv", "--port=0", "--file=-"]);
    let ended = bed
        .run("proxy", &[bed.place(), bed.application(), more])
        .await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("AADSTS7000215"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}
