//! [`Reviews`]: may this caller act as that one? The API server knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    agent::{
        Core,
        correlation::CorrelationId,
        identity::Identity,
        impersonation::{ActAs, UidHeader},
        question,
        status::Refusal,
    },
    crypto,
};

const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// The most answers that are kept: one item of one caller each, some 50 bytes. Beyond it the API server is asked more
/// often.
const MAX_ANSWERS: usize = 4_096;
/// The most items of one wish: each costs a question, until it is known.
const MAX_ITEMS: usize = 64;
/// Questions of one request that are in flight at once.
const QUESTIONS_OF_ONE: usize = 8;
/// Questions that are in flight at once over all requests, so that `--as` never crowds the API server.
const QUESTIONS: usize = 32;

/// Asks the API server whether callers may act as others, and remembers the answers for a moment.
pub(in crate::agent) struct Reviews {
    places: Semaphore,
    answers: Mutex<HashMap<AnswerKey, Answer>>,
}

/// A digest of who asks for what.
type AnswerKey = [u8; 32];

#[derive(Clone, Copy)]
struct Answer {
    allowed: bool,
    at: Instant,
}

/// One thing to be allowed: an object of `impersonate`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item<'a> {
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'a str>,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Reviews {
    pub(in crate::agent) fn new() -> Self {
        Self {
            places: Semaphore::new(QUESTIONS),
            answers: Mutex::default(),
        }
    }

    /// The identity under which `caller` acts as somebody else, if they may.
    ///
    /// # Errors
    /// 403 when one item is not allowed; 502 or 503 when the API server can not be asked.
    pub(in crate::agent) async fn allow(
        &self,
        core: &Core,
        caller: &Arc<Identity>,
        uid: UidHeader,
        act_as: &ActAs,
        correlation: &CorrelationId,
    ) -> Result<Arc<Identity>, Refusal> {
        let items = items(act_as.identity());
        if items.len() > MAX_ITEMS {
            return Err(Refusal::forbidden(
                format!("the request asks to act as more than {MAX_ITEMS} names at once"),
                "pass fewer --as-group and --as-user-extra",
            ));
        }
        stream::iter(items.iter().map(Ok))
            .try_for_each_concurrent(QUESTIONS_OF_ONE, |item| async move {
                if self
                    .is_allowed(core, caller, uid, item, correlation)
                    .await?
                {
                    return Ok(());
                }
                Err(Refusal::forbidden(
                    format!(
                        "the caller may not impersonate one of the {} asked for",
                        item.resource
                    ),
                    "ask for a role with the verb 'impersonate' on it, or leave out --as",
                ))
            })
            .await?;
        Ok(Arc::new(act_as.identity().clone().on_behalf_of(caller)))
    }

    async fn is_allowed(
        &self,
        core: &Core,
        caller: &Arc<Identity>,
        uid: UidHeader,
        item: &Item<'_>,
        correlation: &CorrelationId,
    ) -> Result<bool, Refusal> {
        let key = key(caller, item);
        if let Some(allowed) = self.known(&key) {
            return Ok(allowed);
        }
        // Never closed.
        let _place = self.places.acquire().await;
        let question = item.question().to_string();
        let answer = question::ask(core, caller, uid, PATH, Some(question), correlation).await?;
        let allowed = allows(answer.status.is_success(), &answer.body);
        self.note(key, allowed);
        Ok(allowed)
    }

    fn known(&self, key: &AnswerKey) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .get(key)
            .filter(|answer| answer.at.elapsed() < BELIEVED)
            .map(|answer| answer.allowed)
    }

    fn note(&self, key: AnswerKey, allowed: bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, answer| answer.at.elapsed() < BELIEVED);
        }
        if answers.len() < MAX_ANSWERS {
            answers.insert(
                key,
                Answer {
                    allowed,
                    at: Instant::now(),
                },
            );
        }
    }
}

impl Item<'_> {
    fn question(&self) -> Value {
        let mut attributes = json!({
            "verb": "impersonate",
            "group": self.group,
            "resource": self.resource,
            "name": self.name,
        });
        if let Some(subresource) = self.subresource {
            attributes["subresource"] = subresource.into();
        }
        if let Some(namespace) = self.namespace {
            attributes["namespace"] = namespace.into();
        }
        json!({
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "spec": { "resourceAttributes": attributes },
        })
    }
}

/// What the API server would want to be allowed for this identity.
fn items(identity: &Identity) -> Vec<Item<'_>> {
    /// Uids and extra information are in this group, users and groups in the core group.
    const AUTHENTICATION: &str = "authentication.k8s.io";

    let core = |resource, namespace, name| Item {
        group: "",
        resource,
        subresource: None,
        namespace,
        name,
    };
    let service_account = identity
        .user()
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let mut items = vec![match service_account {
        Some((namespace, name)) => core("serviceaccounts", Some(namespace), name),
        None => core("users", None, identity.user()),
    }];
    items.extend(
        identity
            .groups()
            .iter()
            .map(|group| core("groups", None, group.as_str())),
    );
    items.extend(identity.uid().map(|uid| Item {
        group: AUTHENTICATION,
        ..core("uids", None, uid)
    }));
    for (key, values) in identity.extra() {
        items.extend(values.iter().map(|value| Item {
            group: AUTHENTICATION,
            subresource: Some(key.as_str()),
            ..core("userextras", None, value.as_str())
        }));
    }
    items
}

fn key(caller: &Identity, item: &Item<'_>) -> AnswerKey {
    // JSON keeps the parts apart, whatever is in them.
    let text = json!([
        caller.user(),
        caller.uid(),
        caller.groups(),
        caller.extra(),
        item.question(),
    ]);
    crypto::sha256(text.to_string().as_bytes())
}

/// Only an answer that says so allows: a refusal, an error and nonsense do not.
fn allows(answered: bool, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        allowed: bool,
        #[serde(default)]
        denied: bool,
    }
    answered
        && serde_json::from_slice::<Review>(body)
            .is_ok_and(|review| review.status.allowed && !review.status.denied)
}

#[cfg(test)]
mod tests;
