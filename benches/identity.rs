//! What it costs the agent to know a caller of Entra ID: a token that it has not seen, one that it has, and one that comes
//! inside a proof of possession. Compare the ratios; the absolute figures are the machine's.
//!
//! ```console
//! $ cargo bench --bench identity
//! ```

#[path = "../tests/support/authority/mod.rs"]
mod authority;

use std::time::{Duration, Instant};

use arc_cluster_connect::{
    agent::{
        Authentication, Authenticator, Cloud, Credential, EntraAuthenticator, PopPolicy, TenantId,
        TunnelId,
    },
    net::{Connector, TrustRoots},
};
use authority::{Authority, SigningKey, TENANT};
use http::{Method, Uri};

const USER: &str = "testuser@mytenant.onmicrosoft.com";
const USER_ID: &str = "0b3f0c0e-6f0a-4a8e-9c55-1e1b7a7f0001";
const CLUSTER: &str = "/subscriptions/b1d3d3f8-9e4b-4f7c-9a39-000000000001/resourceGroups/rg/providers/Microsoft.Kubernetes/connectedClusters/edge";
const ROUNDS: usize = 7;
const CHECKS: usize = 200;
/// What a member of many groups has: a token of some 8 KiB.
const GROUPS: usize = 150;

/// One kind of request.
struct Kind {
    name: &'static str,
    rounds: Vec<Duration>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let authority = Authority::start().await.expect("a free port");
    let roots = TrustRoots::only_pem(authority.ca_pem().as_bytes()).expect("a certificate");
    let entra = EntraAuthenticator::builder(TenantId::parse(TENANT).expect("a tenant"))
        .cloud(Cloud::custom(authority.url()).expect("a URL"))
        .connector(Connector::new(roots).expect("the roots are usable"))
        .pop(PopPolicy::accepted(CLUSTER))
        .build()
        .expect("it is well configured");
    // What is measured is the agent, not the issuer.
    entra.preload().await.expect("the authority answers");

    let tunnel = TunnelId::generate();
    let credential = |token: &str| {
        Credential::new(token, Method::GET, Uri::from_static("/api/v1/pods"))
            .expect("a token")
            .with_tunnel(tunnel)
    };
    let groups: Vec<String> = (0..GROUPS)
        .map(|number| format!("0b3f0c0e-6f0a-4a8e-9c55-{number:012}"))
        .collect();
    let user = || {
        authority
            .user(USER, USER_ID)
            .groups(&groups.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let key = SigningKey::rsa(1);
    let mut kinds = ["a new token", "a known token", "a known token in a proof"].map(|name| Kind {
        name,
        rounds: Vec::new(),
    });
    let known = user().sign();
    let proof = user().bound_to(&key).proof(&key, CLUSTER).sign();
    let mut number = 0;
    // In turns, so that a noisy moment of the machine meets all of them.
    for _ in 0..ROUNDS {
        let new: Vec<Credential> = (0..CHECKS)
            .map(|_| {
                number += 1;
                credential(&user().claim("n", number).sign())
            })
            .collect();
        kinds[0].rounds.push(time(&entra, &new).await);
        for (kind, token) in [(1, &known), (2, &proof)] {
            let same: Vec<Credential> = (0..CHECKS).map(|_| credential(token)).collect();
            check(&entra, &same[0]).await;
            kinds[kind].rounds.push(time(&entra, &same).await);
        }
    }
    println!(
        "a token of {} bytes, a proof of {}",
        known.len(),
        proof.len()
    );
    let base = kinds[1].median();
    for kind in &kinds {
        let median = kind.median();
        println!(
            "{:<26} {:>8.1} µs   {:>5.1} times a known token",
            kind.name,
            median.as_secs_f64() * 1e6,
            median.as_secs_f64() / base.as_secs_f64()
        );
    }
}

/// How long one check takes, on average.
async fn time(entra: &EntraAuthenticator, credentials: &[Credential]) -> Duration {
    let start = Instant::now();
    for credential in credentials {
        check(entra, credential).await;
    }
    start.elapsed() / u32::try_from(credentials.len()).expect("a few hundred")
}

async fn check(entra: &EntraAuthenticator, credential: &Credential) {
    match entra.authenticate(credential).await {
        Ok(Authentication::Identity(known)) => assert_eq!(known.identity().user(), USER),
        other => panic!("the token is good: {other:?}"),
    }
}

impl Kind {
    fn median(&self) -> Duration {
        let mut rounds = self.rounds.clone();
        rounds.sort();
        rounds[rounds.len() / 2]
    }
}
