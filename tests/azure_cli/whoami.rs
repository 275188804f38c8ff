//! `arc-connect whoami`: users, applications and service accounts, and how each is let in.

use serde_json::Value;

use super::{
    bed::{Bed, OBJECT, ROBOT, USER, texts},
    support::authority::TENANT,
};

async fn whoami(bed: &Bed, arguments: &[Vec<String>]) -> String {
    let mut all = vec![bed.place()];
    all.extend_from_slice(arguments);
    let ended = bed.run("whoami", &all).await;
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout
}

async fn as_json(bed: &Bed, arguments: &[Vec<String>]) -> Value {
    let mut all = arguments.to_vec();
    all.push(texts(&["--json"]));
    let text = whoami(bed, &all).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_user_is_bound_by_name() {
    let bed = Bed::start().await;
    let method = texts(&["--auth=device-code", "--tenant", TENANT]);
    let text = whoami(&bed, std::slice::from_ref(&method)).await;
    assert!(
        text.starts_with("alice@contoso.example  (user)\n"),
        "{text}"
    );
    let command = format!(
        "kubectl create clusterrolebinding alice-contoso-example-binding --clusterrole cluster-admin --user={USER}"
    );
    assert!(text.contains(&command), "{text}");

    let json = as_json(&bed, &[method, texts(&["--cluster-role=view"])]).await;
    assert_eq!(json["user"]["username"], USER);
    assert_eq!(json["kind"], "user");
    assert_eq!(json["resource"], bed.id.to_string());
    assert_eq!(
        json["grants"][0]["command"],
        command.replace("cluster-admin", "view")
    );
}

#[tokio::test]
async fn an_application_is_bound_by_its_object_id() {
    let bed = Bed::start().await;
    let json = as_json(&bed, &[bed.application()]).await;
    assert_eq!(json["kind"], "application");
    assert_eq!(
        json["grants"][0]["command"],
        format!(
            "kubectl create clusterrolebinding {OBJECT}-binding --clusterrole cluster-admin --user={OBJECT}"
        )
    );
}

#[tokio::test]
async fn a_service_account_is_bound_as_one() {
    let bed = Bed::start().await;
    let token = vec![format!("--token-file={}", bed.argument("token"))];
    let json = as_json(&bed, &[bed.application(), token]).await;
    assert_eq!(json["user"]["username"], ROBOT);
    assert_eq!(json["kind"], "service account");
    let grants = json["grants"].as_array().unwrap();
    // Its groups are those of all service accounts.
    assert_eq!(grants.len(), 1);
    assert_eq!(
        grants[0]["command"],
        "kubectl create clusterrolebinding default-admin-user-binding --clusterrole cluster-admin \
         --serviceaccount default:admin-user"
    );
}
