//! Proof of possession, both ends together: our keys and tokens, and our agent's verifier.

use std::{sync::Arc, time::SystemTime};

use arc_cluster_connect::{
    AuthProvider, ErrorKind,
    agent::{
        Authentication, Authenticator, Credential, EntraAuthenticator, PopPolicy, RejectReason,
        Replays, SignatureAlgorithm,
    },
    auth::{
        AadAuth, AccessToken, AzureCredential, ClientId, Cloud, PopAuth, ProofKey, TokenRequest,
    },
    net::{Connector, TrustRoots},
};
use http::{Method, Uri};

use crate::{
    authority::AUDIENCE,
    bed::{Bed, SECRET, claims, tenant},
};

const HOST: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/c";
const RSA_KEY: &str = include_str!("../support/authority/keys/rsa-3.pem");

/// An agent's authenticator that insists on proofs.
fn agent(bed: &Bed, replays: Replays) -> EntraAuthenticator {
    let roots = TrustRoots::only_pem(bed.authority.ca_pem().as_bytes()).unwrap();
    EntraAuthenticator::builder(tenant())
        .cloud(Cloud::custom(bed.authority.url()).unwrap())
        .connector(Connector::new(roots).unwrap())
        .algorithms([SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256])
        .pop(PopPolicy::required(HOST).replays(replays))
        .build()
        .unwrap()
}

/// The user that the agent takes the caller for.
async fn user(agent: &EntraAuthenticator, token: &AccessToken) -> Result<String, RejectReason> {
    let target = Uri::from_static("/api/v1/pods");
    let credential = Credential::new(token.secret(), Method::GET, target).unwrap();
    match agent.authenticate(&credential).await {
        Ok(Authentication::Identity(known)) => Ok(known.identity().user().to_owned()),
        Ok(_) => panic!("not a token of this authority"),
        Err(error) => Err(error.reason().expect("the agent can tell")),
    }
}

/// The kinds of keys: what the provider makes, and RSA from outside.
fn keys() -> [ProofKey; 2] {
    [
        ProofKey::generate().unwrap(),
        ProofKey::from_pem(RSA_KEY).unwrap(),
    ]
}

#[tokio::test]
async fn the_agent_takes_our_proofs_once_each() {
    let bed = Bed::new().await;
    let agent = agent(&bed, Replays::Refuse);
    for key in keys() {
        let auth = PopAuth::new(&bed.secret(SECRET), key, HOST.to_uppercase()).unwrap();
        for _ in 0..3 {
            let proof = auth.token(&TokenRequest::new()).await.unwrap();
            assert!(proof.expires_at().unwrap() > SystemTime::now());
            user(&agent, &proof).await.unwrap();
            assert_eq!(user(&agent, &proof).await, Err(RejectReason::Replayed));
        }
    }
    // One bound token for each key; the proofs around it are our own.
    assert_eq!(bed.requests().len(), 2);
}

#[tokio::test]
async fn a_person_who_signed_in_with_a_code_can_prove_it_too() {
    let bed = Bed::new().await;
    let credential = AzureCredential::device_code(&bed.settings(), ClientId::azure_cli(), |_| {})
        .await
        .unwrap();
    let auth = PopAuth::new(&credential, ProofKey::generate().unwrap(), HOST).unwrap();
    let proof = auth.token(&TokenRequest::new()).await.unwrap();
    let agent = agent(&bed, Replays::Allow);
    let user = user(&agent, &proof).await.unwrap();
    assert_eq!(user, "alice@contoso.example");
    let asked = bed.requests().pop().unwrap();
    assert_eq!(asked.form["token_type"], "pop");
    let inner = claims(claims(proof.secret())["at"].as_str().unwrap());
    assert_eq!(inner["aud"], AUDIENCE);
    assert_eq!(inner["cnf"]["xms_ksl"], "sw");
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing() {
    let bed = Bed::new().await;
    let agent = agent(&bed, Replays::Allow);
    let key = ProofKey::generate().unwrap();
    let auth = PopAuth::new(&bed.secret(SECRET), key.clone(), HOST).unwrap();
    let proof = auth.token(&TokenRequest::new()).await.unwrap();
    let inner = claims(proof.secret())["at"].as_str().unwrap().to_owned();
    let stolen = AccessToken::new(inner, None);
    assert_eq!(
        user(&agent, &stolen).await,
        Err(RejectReason::ProofRequired)
    );

    let now = SystemTime::now();
    let thief = ProofKey::generate()
        .unwrap()
        .sign(&stolen, HOST, now)
        .unwrap();
    assert_eq!(user(&agent, &thief).await, Err(RejectReason::Proof));
    let elsewhere = key.sign(&stolen, "/another/cluster", now).unwrap();
    assert_eq!(user(&agent, &elsewhere).await, Err(RejectReason::Proof));
    let early = now - std::time::Duration::from_secs(301);
    let old = key.sign(&stolen, HOST, early).unwrap();
    assert_eq!(user(&agent, &old).await, Err(RejectReason::ProofTime));
    // The holder's own, for comparison.
    user(&agent, &key.sign(&stolen, HOST, now).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_can_not_be_bound_is_refused() {
    let bed = Bed::new().await;
    let key = ProofKey::generate().unwrap();
    let cli = AzureCredential::azure_cli(&bed.settings()).unwrap();
    let error = PopAuth::new(&cli, key.clone(), HOST).expect_err("az binds nothing");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.help().unwrap().contains("device code"));
    assert!(PopAuth::new(&bed.secret(SECRET), key.clone(), "").is_err());

    // An authority that forgets to bind must not go unnoticed: the token would be worth something to a thief.
    bed.authority
        .token_endpoint(|endpoint| endpoint.ignores_binding = true);
    let auth = PopAuth::new(&bed.secret(SECRET), key, HOST).unwrap();
    let error = auth
        .token(&TokenRequest::new())
        .await
        .expect_err("not bound");
    assert_eq!(error.kind(), ErrorKind::Protocol);

    // And a plain token is not taken where proofs are required.
    let plain = AadAuth::new(Arc::new(bed.secret(SECRET)));
    let plain = plain.token(&TokenRequest::new()).await.unwrap();
    let agent = agent(&bed, Replays::Refuse);
    assert_eq!(user(&agent, &plain).await, Err(RejectReason::ProofRequired));
}
