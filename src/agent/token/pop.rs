//! Proof of possession: an access token inside a signed request, so that a copy of the token alone is worth nothing.
//!
//! The format is that of "Signed HTTP Requests" (draft-ietf-oauth-signed-http-request-03) as Entra ID's client
//! libraries make it: a JWT of type `pop` whose `cnf.jwk` is a key that the caller made, signed with it, around an
//! access token (`at`) whose `cnf.kid` is the key's thumbprint.

mod nonces;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use self::nonces::{Nonces, Shown};
use super::{
    claims::Claims,
    jwt::{Jwt, SignatureAlgorithm},
    keys::Key,
    rejection::Rejection,
};
use crate::{
    Error, ErrorKind, Result,
    agent::identity::{Credential, RejectReason, TunnelId},
    crypto,
};

/// How old a proof may be.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// How far in the future: one that is made in advance would outlive whoever made it.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// A nonce is 32 digits; longer ones than this are refused.
const MAX_NONCE: usize = 256;

/// What becomes of tokens with and without a proof of possession.
///
/// A token that is bound to a key (it has `cnf`) is refused without its proof under every policy.
#[derive(Clone, Debug, Default)]
pub struct PopPolicy(Mode);

#[derive(Clone, Debug, Default)]
enum Mode {
    /// No proofs are taken.
    #[default]
    Refused,
    Accepted(Terms),
    Required(Terms),
}

#[derive(Clone)]
struct Terms {
    /// What `u` has to be, in lower case.
    host: String,
    replays: Replays,
    request_binding: RequestBinding,
}

/// Where a proof may be shown again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replays {
    /// In the tunnel connection in which it was shown first, and in no other: clients make one proof for a while, as
    /// `kubelogin` does, and `kubectl` shows it with each of its requests. The agent remembers the nonces of the last
    /// six minutes, for itself: another agent behind the same relay does not know them.
    #[default]
    Refuse,
    /// Anywhere, until its five minutes are over. For callers whose requests come through several tunnel connections.
    /// Whoever gets hold of a proof can use it too.
    Allow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RequestBinding {
    /// `m` and `p` are checked where the proof has them.
    #[default]
    WherePresent,
    /// A proof must have them.
    Required,
}

impl PopPolicy {
    /// Takes no proofs: only plain bearer tokens. The default.
    pub fn refused() -> Self {
        Self(Mode::Refused)
    }

    /// Takes proofs made for `host`, and plain tokens that are bound to no key. For Arc-enabled clusters `host` is
    /// the cluster's resource id; its case makes no difference.
    pub fn accepted(host: impl AsRef<str>) -> Self {
        Self(Mode::Accepted(Terms::new(host.as_ref())))
    }

    /// Takes nothing but proofs made for `host`.
    pub fn required(host: impl AsRef<str>) -> Self {
        Self(Mode::Required(Terms::new(host.as_ref())))
    }

    /// Sets where a proof may be shown again: in one tunnel connection only, unless this is called.
    #[must_use]
    pub fn replays(mut self, replays: Replays) -> Self {
        if let Mode::Accepted(terms) | Mode::Required(terms) = &mut self.0 {
            terms.replays = replays;
        }
        self
    }

    /// Insists on proofs that name the request's method and path. They are checked in any case where they are named.
    #[must_use]
    pub fn bound_to_request(mut self) -> Self {
        if let Mode::Accepted(terms) | Mode::Required(terms) = &mut self.0 {
            terms.request_binding = RequestBinding::Required;
        }
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.terms() {
            Some(terms) if terms.host.is_empty() => Err(Error::new(
                ErrorKind::InvalidInput,
                "the host of proofs of possession is empty",
            )
            .with_help("give the cluster's resource id")),
            _ => Ok(()),
        }
    }

    /// Whether a token without a proof is taken, given whether it is bound to a key.
    pub(super) fn check_bare(&self, is_bound: bool) -> Result<(), Rejection> {
        if is_bound || matches!(self.0, Mode::Required(_)) {
            return Err(Rejection::new(
                RejectReason::ProofRequired,
                "the token comes without the proof that it needs",
            ));
        }
        Ok(())
    }

    fn terms(&self) -> Option<&Terms> {
        match &self.0 {
            Mode::Refused => None,
            Mode::Accepted(terms) | Mode::Required(terms) => Some(terms),
        }
    }
}

impl Terms {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_ascii_lowercase(),
            replays: Replays::default(),
            request_binding: RequestBinding::default(),
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("host", &self.host)
            .field("replays", &self.replays)
            .field("request_binding", &self.request_binding)
            .finish()
    }
}

/// Checks proofs under one [`PopPolicy`].
pub(super) struct ProofVerifier {
    policy: PopPolicy,
    algorithms: Vec<SignatureAlgorithm>,
    nonces: Mutex<Nonces>,
}

/// A proof whose signature, time and binding hold. Its inner token is still to be verified.
#[derive(Debug)]
pub(super) struct Proof {
    access_token: String,
    thumbprint: String,
    made_at: SystemTime,
    /// Where proofs must not move from one tunnel connection to another.
    nonce: Option<String>,
    tunnel: Option<TunnelId>,
}

impl ProofVerifier {
    pub(super) fn new(policy: PopPolicy, algorithms: Vec<SignatureAlgorithm>) -> Self {
        Self {
            policy,
            algorithms,
            nonces: Mutex::default(),
        }
    }

    pub(super) fn policy(&self) -> &PopPolicy {
        &self.policy
    }

    /// The first half: all that the proof itself says.
    pub(super) fn verify(
        &self,
        proof: Jwt<'_>,
        credential: &Credential,
        now: SystemTime,
    ) -> Result<Proof, Rejection> {
        let Some(terms) = self.policy.terms() else {
            return Err(Rejection::new(
                RejectReason::NotAccepted,
                "this agent takes no proofs of possession",
            ));
        };
        let key = proof
            .unverified("cnf")
            .and_then(|confirmation| confirmation.get("jwk"))
            .and_then(Value::as_object)
            .ok_or_else(|| invalid("the proof has no `cnf.jwk`"))?;
        let named = key.get("kid").cloned();
        let key =
            Key::parse(key).map_err(|reason| invalid(format!("the proof's key: {reason}")))?;
        let thumbprint = key.thumbprint();
        if proof.key_id() != Some(&thumbprint) {
            return Err(invalid("the proof's `kid` is not its key's thumbprint"));
        }
        if named.is_some_and(|named| named != Value::String(thumbprint.clone())) {
            return Err(invalid("the key's own `kid` is not its thumbprint"));
        }
        let claims = proof.verify(&[&key], &self.algorithms)?;
        let made_at = made_at(&claims, now)?;
        terms.check_binding(&claims, credential)?;
        let nonce = match terms.replays {
            Replays::Allow => None,
            Replays::Refuse => Some(
                claims
                    .string("nonce")?
                    .filter(|nonce| !nonce.is_empty() && nonce.len() <= MAX_NONCE)
                    .ok_or_else(|| invalid("the proof has no usable `nonce`"))?
                    .to_owned(),
            ),
        };
        Ok(Proof {
            access_token: claims.required("at")?.to_owned(),
            thumbprint,
            made_at,
            nonce,
            tunnel: credential.tunnel(),
        })
    }

    /// The second half: that the proof and its inner token, now verified and bound to the key `bound_to`, belong
    /// together, and that the proof was not shown in another tunnel connection. Only here is a nonce remembered, so that nobody
    /// without a valid token can fill the memory.
    pub(super) fn complete(
        &self,
        proof: &Proof,
        bound_to: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        if bound_to != Some(&proof.thumbprint) {
            return Err(invalid("the token is not bound to the proof's key"));
        }
        let Some(nonce) = &proof.nonce else {
            return Ok(());
        };
        let digest = crypto::sha256(format!("{}.{nonce}", proof.thumbprint).as_bytes());
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = Shown {
            made_at: proof.made_at,
            tunnel: proof.tunnel,
        };
        if nonces.admits(digest, shown, now) {
            Ok(())
        } else {
            Err(Rejection::new(
                RejectReason::Replayed,
                "the proof's nonce was used in another tunnel connection, or the proof is older than what can be told",
            ))
        }
    }
}

impl Proof {
    pub(super) fn access_token(&self) -> &str {
        &self.access_token
    }
}

impl Terms {
    fn check_binding(&self, claims: &Claims, credential: &Credential) -> Result<(), Rejection> {
        if !claims.required("u")?.eq_ignore_ascii_case(&self.host) {
            return Err(invalid("the proof is for another host"));
        }
        for (name, actual) in [
            ("m", credential.method().as_str()),
            ("p", credential.target().path()),
        ] {
            match claims.string(name)? {
                Some(value) if value == actual => {}
                None if self.request_binding == RequestBinding::WherePresent => {}
                _ => {
                    return Err(invalid(format!(
                        "the proof's `{name}` is not the request's"
                    )));
                }
            }
        }
        // Digests over parts of the request that may have changed on the way. What can not be checked does not hold.
        for name in ["q", "h", "b"] {
            if claims.get(name).is_some() {
                return Err(invalid(format!("the proof's `{name}` can not be checked")));
            }
        }
        Ok(())
    }
}

/// The time of `ts`, which must be of now.
fn made_at(claims: &Claims, now: SystemTime) -> Result<SystemTime, Rejection> {
    let seconds = claims
        .get("ts")
        .and_then(Value::as_u64)
        .ok_or_else(|| invalid("the proof has no `ts` in whole seconds"))?;
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .filter(|&at| at <= now + MAX_AHEAD && now <= at + MAX_AGE)
        .ok_or_else(|| Rejection::new(RejectReason::ProofTime, "the proof's `ts` is not of now"))
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::new(RejectReason::Proof, detail)
}
