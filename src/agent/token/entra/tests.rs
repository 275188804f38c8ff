//! Every rule for Entra ID's tokens, against an authority on loopback and a clock that the test sets.

mod forged;
mod overage;
mod proof;
mod rules;

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::test_issuer::{
        NOW, SigningKey, Site, Verdict, clock, reading, unix, verdict, verdict_on, with,
    },
    super::{groups::GroupResolver, jwt::SignatureAlgorithm, pop::PopPolicy},
    builder::ARC_SERVER_AUDIENCE,
    *,
};
use crate::{ErrorKind, auth::Cloud, clock::ManualClock};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT: &str = "11111111-86f1-41af-91ab-2d7cd011db47";
const OID: &str = "0ab1c2d3-0000-4000-8000-00000000abcd";
const GROUP: &str = "aaaaaaaa-0000-4000-8000-000000000001";

/// An authority, its key, and the time.
struct Bed {
    site: Site,
    key: SigningKey,
    time: ManualClock,
}

impl Bed {
    async fn new() -> Self {
        let bed = Self {
            site: Site::start().await,
            key: SigningKey::first(),
            time: clock(),
        };
        bed.publish(&[bed.key.jwk()]);
        bed
    }

    fn publish(&self, keys: &[Value]) {
        for (path, version) in [
            (format!("/{TENANT}"), TokenVersion::V1),
            (format!("/{TENANT}/v2.0"), TokenVersion::V2),
        ] {
            self.site.publish(&path, &self.issuer(version), keys);
        }
    }

    fn cloud(&self) -> Cloud {
        Cloud::custom(&self.site.base).unwrap()
    }

    fn issuer(&self, version: TokenVersion) -> String {
        self.cloud().issuer(version, TENANT)
    }

    fn builder(&self) -> EntraAuthenticatorBuilder {
        EntraAuthenticator::builder(TenantId::parse(TENANT).unwrap())
            .cloud(self.cloud())
            .connector(self.site.connector())
            .clock(reading(&self.time))
    }

    fn entra(&self) -> EntraAuthenticator {
        self.builder().build().unwrap()
    }

    /// The claims of a user's token.
    fn claims(&self, version: TokenVersion) -> Value {
        let now = unix(&self.time);
        json!({
            "ver": version.claim(),
            "iss": self.issuer(version),
            "aud": ARC_SERVER_AUDIENCE,
            "tid": TENANT,
            "oid": OID,
            "sub": "pairwise",
            "upn": "alice@contoso.com",
            "scp": "user_impersonation",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "groups": [GROUP],
        })
    }

    /// The claims of a service principal's token.
    fn app_claims(&self) -> Value {
        let changes = json!({"idtyp": "app", "sub": OID, "upn": null, "scp": null});
        with(self.claims(TokenVersion::V1), &changes)
    }

    /// A v1 user's token with some claims set, or taken away where the value is null.
    fn token(&self, changes: &Value) -> String {
        self.key
            .token(&with(self.claims(TokenVersion::V1), changes))
    }
}
