//! Who may do what: the token of a request, where it stands and what it is held against.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, header};

use super::{
    Refusal, Rights, context::Context, entity::Entity, handshake::TOKEN_HEADER, route::Action,
    service::Relay, token::Claim,
};

impl Relay {
    /// The entity that the request is for, what follows its path, and when the token ends that allows it.
    pub(super) fn authorize<'r, 't>(
        &'r self,
        headers: &HeaderMap,
        context: &Context<'t>,
        rights: Rights,
    ) -> Result<(&'r Arc<Entity>, &'t str, SystemTime), Refusal> {
        let found = self.entities.find(context.target.path);
        if rights == Rights::SEND
            && let Some((entity, suffix)) = found
            && entity.options().are_senders_anonymous()
        {
            // A sender's token is looked at once: nothing ends with it.
            return Ok((entity, suffix, self.now()));
        }
        let claim = Claim {
            host: &context.host,
            // What was asked for, with all that follows the entity's path: Arc's tokens are for a path below that on
            // which the agent listens. And without a token for it nobody learns whether an entity exists.
            path: &context.path,
            rights,
            now: self.now(),
        };
        let in_header = headers.get(TOKEN_HEADER).map(|value| value.to_str());
        let token = match in_header {
            Some(value) => Some(value.unwrap_or_default()),
            None => context.target.token.as_deref().or_else(|| {
                (context.target.action == Action::Forward)
                    .then(|| http_token(headers))
                    .flatten()
            }),
        };
        let expires_at = self.rules.check(token, &claim)?;
        let (entity, suffix) = found.ok_or_else(Refusal::no_entity)?;
        Ok((entity, suffix, expires_at))
    }
}

/// A token where HTTP clients have theirs.
fn http_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    let value = value.to_str().unwrap_or_default();
    Some(match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token.trim_start(),
        _ => value,
    })
}
