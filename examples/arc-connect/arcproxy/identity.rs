//! [`IdentityService`]: `/identity/poppublickey` and `/identity/at` on the HTTPS port.

use std::sync::Arc;

use arc_cluster_connect::proxy::{LocalRequest, LocalService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    caller::PostedToken,
    config::Config,
    neighbour,
    register::{answer, refusal},
};
use crate::common;

const KEY_PATH: &str = "/identity/poppublickey";
const TOKEN_PATH: &str = "/identity/at";

pub struct IdentityService {
    posted: Arc<PostedToken>,
    tenant_id: Option<String>,
}

#[derive(Deserialize)]
struct Posted {
    #[serde(rename = "accessToken")]
    access_token: String,
    #[serde(rename = "tenantID", default)]
    tenant_id: Option<String>,
    kid: String,
}

impl IdentityService {
    pub fn new(posted: Arc<PostedToken>, config: &Config) -> Self {
        Self {
            posted,
            tenant_id: config.tenant_id().map(str::to_owned),
        }
    }

    fn public_key(&self) -> Response<Bytes> {
        let key = self.posted.key();
        let mut jwk = key.public_jwk();
        jwk["kid"] = Value::from(key.key_id());
        common::progress("ProxyPopPublicKeyComplete");
        answer(StatusCode::OK, &json!({ "publicKey": jwk }))
    }

    fn take(&self, body: &[u8]) -> Response<Bytes> {
        let Ok(posted) = serde_json::from_slice::<Posted>(body) else {
            return refusal(
                StatusCode::BAD_REQUEST,
                "the body is not {accessToken, serverId, tenantID, kid}",
            );
        };
        // The words and the status by which az knows that it shall fetch the key and try again.
        if posted.kid != self.posted.key().key_id() {
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, "public key expired");
        }
        let is_foreign = |ours: &String| {
            posted
                .tenant_id
                .as_ref()
                .is_some_and(|theirs| !theirs.eq_ignore_ascii_case(ours))
        };
        if self.tenant_id.as_ref().is_some_and(is_foreign) {
            return refusal(
                StatusCode::BAD_REQUEST,
                "the token is of another tenant than the one in the configuration",
            );
        }
        if let Err(error) = self.posted.post(&posted.access_token) {
            return refusal(StatusCode::BAD_REQUEST, &error.report());
        }
        common::progress("ProxyPostIdentityAccessTokenComplete");
        answer(StatusCode::OK, &json!({}))
    }
}

#[async_trait]
impl LocalService for IdentityService {
    fn takes(&self, method: &Method, path: &str) -> bool {
        (method == Method::GET && path == KEY_PATH)
            || (method == Method::POST && path == TOKEN_PATH)
    }

    async fn answer(&self, request: LocalRequest) -> Response<Bytes> {
        if let Some((peer, local)) = request.peer().zip(request.local_addr())
            && let Err(reason) = neighbour::check(peer, local)
        {
            return refusal(StatusCode::FORBIDDEN, reason);
        }
        if request.uri().path() == KEY_PATH {
            self.public_key()
        } else {
            self.take(request.body())
        }
    }
}
