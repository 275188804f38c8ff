//! What a token says of itself. It is read, not verified: that is for whoever it is shown to.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{check::Finding, span::span};

/// The application that an Arc cluster's callers ask for tokens for.
const CLUSTER_AUDIENCE: &str = "6256c85f-0aad-4d50-b960-e6e9b21efe35";

/// Both are Azure Resource Manager's.
const MANAGER_AUDIENCES: [&str; 2] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
];

/// A token that ends sooner will end in the middle of somebody's work.
const SOON: Duration = Duration::from_secs(300);

/// The claims of a token that is a JWT.
pub struct Claims(Value);

impl Claims {
    /// `None` when it is no JWT.
    pub fn of(token: &str) -> Option<Self> {
        let outer = Self::bare(token)?;
        // A proof of possession has the token itself inside.
        match outer.text("at") {
            Some(inner) => Self::bare(inner),
            None => Some(outer),
        }
    }

    fn bare(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Value = serde_json::from_slice(&json).ok()?;
        claims.is_object().then_some(Self(claims))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0[name].as_str().filter(|text| !text.is_empty())
    }

    fn audiences(&self) -> Vec<&str> {
        match &self.0["aud"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn expires_at(&self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.0["exp"].as_u64()?);
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    fn is_of_entra(&self) -> bool {
        self.text("tid").is_some()
    }

    fn is_of_service_account(&self) -> bool {
        self.text("sub")
            .is_some_and(|subject| subject.starts_with("system:serviceaccount:"))
    }

    /// Who it is for, for people.
    fn who(&self) -> String {
        let application = || self.text("appid").or_else(|| self.text("azp"));
        if self.text("xms_mirid").is_some() || self.text("xms_az_rid").is_some() {
            return format!(
                "managed identity {}",
                self.text("oid").or_else(application).unwrap_or("?")
            );
        }
        for name in ["upn", "preferred_username", "unique_name"] {
            if let Some(user) = self.text(name) {
                return format!("user {user}");
            }
        }
        if self.text("idtyp") == Some("app") || (self.is_of_entra() && self.text("scp").is_none()) {
            let id = application().or_else(|| self.text("oid"));
            return format!("application {}", id.unwrap_or("?"));
        }
        if let Some(subject) = self.text("sub") {
            return subject.to_owned();
        }
        "somebody without a name".to_owned()
    }

    /// More groups than a token holds: whoever checks it has to ask the directory.
    fn has_too_many_groups(&self) -> bool {
        !self.0["_claim_names"]["groups"].is_null() || self.0["hasgroups"] == Value::Bool(true)
    }
}

/// A token for Azure Resource Manager. `scope` is what was asked for.
pub fn judge_azure(
    token: &str,
    scope: &str,
    tenant: Option<&str>,
    way: &str,
    now: SystemTime,
) -> Finding {
    let Some(claims) = Claims::of(token) else {
        return Finding::ok(format!(
            "signed in by {way}; the token does not say as whom"
        ));
    };
    let expected = scope.trim_end_matches("/.default").trim_end_matches('/');
    let is_for = |audience: &str| {
        let audience = audience.trim_end_matches('/');
        audience == expected
            || (MANAGER_AUDIENCES.contains(&audience) && MANAGER_AUDIENCES.contains(&expected))
    };
    let who = claims.who();
    let tid = claims.text("tid").unwrap_or("?");
    let detail = format!(
        "signed in by {way} as {who}, tenant {tid}{}",
        lifetime(&claims, now)
    );
    if let Some(finding) = ended(&claims, now, "sign in again: `az login`") {
        return finding;
    }
    if let Some(tenant) = tenant
        && tenant.contains('-')
        && !tenant.eq_ignore_ascii_case(tid)
    {
        return Finding::failed(
            format!("{detail}, and not to the tenant {tenant} that was asked for"),
            format!("sign in to it: `az login --tenant {tenant}`"),
        );
    }
    if !claims.audiences().into_iter().any(is_for) {
        return Finding::warning(
            format!(
                "{detail}; the token is for {}, not for {expected}",
                audience_text(&claims)
            ),
            "check --cloud: the token may be for another cloud's resource manager",
        );
    }
    Finding::ok(detail)
}

/// A token for the cluster.
pub fn judge_caller(token: &str, now: SystemTime) -> Finding {
    let Some(claims) = Claims::of(token) else {
        return Finding::ok("not a JWT: what it is good for only the cluster can tell");
    };
    let again = if claims.is_of_service_account() {
        "get a new one: `kubectl create token NAME --duration 1h`"
    } else {
        "sign in again, or get a new token"
    };
    if let Some(finding) = ended(&claims, now, again) {
        return finding;
    }
    let detail = format!("for {}{}", claims.who(), lifetime(&claims, now));
    if claims.is_of_entra() && !claims.audiences().into_iter().any(is_the_clusters) {
        return Finding::failed(
            format!(
                "{detail}; its audience is {}, not the cluster's",
                audience_text(&claims)
            ),
            format!(
                "get one for the cluster: `az account get-access-token --resource {CLUSTER_AUDIENCE}`"
            ),
        );
    }
    if claims.has_too_many_groups() {
        return Finding::warning(
            format!("{detail}; there are more groups than the token holds"),
            "the agent must be able to ask Microsoft Graph for them; a service principal with more than 200 groups is \
             refused by Azure's own: bind its object id instead",
        );
    }
    match claims.expires_at() {
        Some(end) if end < now + SOON => Finding::warning(
            detail,
            "it ends within minutes; with --token-file, have the file renewed: it is read again when it changes",
        ),
        None if claims.is_of_service_account() => Finding::warning(
            format!("{detail}, and without an end"),
            "whoever gets hold of it can use it for ever: prefer `kubectl create token NAME`",
        ),
        _ => Finding::ok(detail),
    }
}

fn is_the_clusters(audience: &str) -> bool {
    audience
        .trim_start_matches("api://")
        .trim_end_matches('/')
        .eq_ignore_ascii_case(CLUSTER_AUDIENCE)
}

fn ended(claims: &Claims, now: SystemTime, advice: &str) -> Option<Finding> {
    let since = now.duration_since(claims.expires_at()?).ok()?;
    Some(Finding::failed(
        format!(
            "the token for {} has expired {} ago",
            claims.who(),
            span(since)
        ),
        format!("{advice}; if it is new, check this machine's clock"),
    ))
}

fn lifetime(claims: &Claims, now: SystemTime) -> String {
    match claims.expires_at().map(|end| end.duration_since(now)) {
        Some(Ok(left)) => format!(", for another {}", span(left)),
        _ => String::new(),
    }
}

fn audience_text(claims: &Claims) -> String {
    match claims.audiences()[..] {
        [] => "nobody".to_owned(),
        ref audiences => audiences.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::check::Outcome, *};

    const TENANT: &str = "7d5a0c4e-3d0c-4f5e-9a53-0d6f0a4f2b11";
    const SCOPE: &str = "https://management.azure.com/.default";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    fn token(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims))
    }

    fn user(audience: &str, seconds_left: i64) -> Value {
        json!({ "tid": TENANT, "upn": "jane@contoso.com", "aud": audience, "exp": 1_767_225_600 + seconds_left })
    }

    #[test]
    fn who_is_signed_in_and_for_how_long() {
        let azure = |claims: &Value, tenant| {
            judge_azure(&token(claims), SCOPE, tenant, "the Azure CLI", now())
        };
        let good = user("https://management.core.windows.net/", 3_600);
        let finding = azure(&good, None);
        assert_eq!(
            finding,
            Finding::ok(format!(
                "signed in by the Azure CLI as user jane@contoso.com, tenant {TENANT}, for another 60 min"
            ))
        );
        assert_eq!(azure(&good, Some(TENANT)).outcome, Outcome::Ok);
        assert_eq!(azure(&good, Some("contoso.com")).outcome, Outcome::Ok);
        let other = azure(&good, Some("00000000-0000-0000-0000-000000000009"));
        assert_eq!(other.outcome, Outcome::Failed);
        assert!(other.advice.unwrap().contains("az login --tenant"));

        assert_eq!(azure(&user(SCOPE, -60), None).outcome, Outcome::Failed);
        let wrong = azure(&user("https://graph.microsoft.com", 3_600), None);
        assert_eq!(wrong.outcome, Outcome::Warning);
        let opaque = judge_azure("secret", SCOPE, None, "azd", now());
        assert!(opaque.is_ok() && !opaque.detail.contains("secret"));
    }

    #[test]
    fn kinds_of_identities_are_told_apart() {
        let who = |claims: Value| Claims(claims).who();
        assert_eq!(
            who(json!({ "tid": TENANT, "appid": "a-1", "idtyp": "app" })),
            "application a-1"
        );
        assert_eq!(
            who(json!({ "tid": TENANT, "oid": "o-1", "xms_mirid": "/subscriptions/x" })),
            "managed identity o-1"
        );
        assert_eq!(
            who(json!({ "sub": "system:serviceaccount:default:admin" })),
            "system:serviceaccount:default:admin"
        );
        assert_eq!(who(json!({})), "somebody without a name");
    }

    #[test]
    fn a_token_for_another_application_is_not_for_the_cluster() {
        let finding = judge_caller(&token(&user("https://management.azure.com", 3_600)), now());
        assert_eq!(finding.outcome, Outcome::Failed);
        assert!(finding.detail.contains("not the cluster's"), "{finding:?}");
        assert!(finding.advice.unwrap().contains(CLUSTER_AUDIENCE));
        for audience in [
            CLUSTER_AUDIENCE.to_owned(),
            format!("api://{CLUSTER_AUDIENCE}"),
        ] {
            let finding = judge_caller(&token(&user(&audience, 3_600)), now());
            assert_eq!(finding.outcome, Outcome::Ok, "{finding:?}");
        }
    }

    #[test]
    fn ends_and_overflowing_groups_are_seen() {
        let account = |exp: Value| json!({ "sub": "system:serviceaccount:default:admin", "aud": ["https://kubernetes"], "exp": exp });
        let judged = |claims: &Value| judge_caller(&token(claims), now());
        let expired = judged(&account(json!(1_767_225_600 - 7_300)));
        assert_eq!(expired.outcome, Outcome::Failed);
        assert!(
            expired.detail.ends_with("has expired 2 h ago"),
            "{expired:?}"
        );
        assert!(expired.advice.unwrap().contains("kubectl create token"));
        assert_eq!(
            judged(&account(json!(1_767_225_600 + 60))).outcome,
            Outcome::Warning
        );
        assert_eq!(judged(&account(Value::Null)).outcome, Outcome::Warning);
        assert_eq!(
            judged(&account(json!(1_767_225_600 + 3_600))).outcome,
            Outcome::Ok
        );

        let mut many = user(CLUSTER_AUDIENCE, 3_600);
        many["_claim_names"] = json!({ "groups": "src1" });
        assert_eq!(judged(&many).outcome, Outcome::Warning);
        assert_eq!(judge_caller("opaque", now()).outcome, Outcome::Ok);
        assert_eq!(judge_caller("a.%%%.c", now()).outcome, Outcome::Ok);
    }
}
