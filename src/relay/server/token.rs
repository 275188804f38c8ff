//! [`Rules`]: who may do what, proven by a SAS token or one of Microsoft Entra.

mod entra;

pub use entra::EntraIssuer;

use std::time::SystemTime;

use http::StatusCode;

use super::{Refusal, Rights};
use crate::relay::sas::{SasError, SasRule, SasToken};

/// The relay's shared access rules, and the issuers that it trusts.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<(SasRule, Rights)>,
    issuers: Vec<EntraIssuer>,
}

/// What a request asks to be allowed.
pub(super) struct Claim<'a> {
    /// As in the request's `Host`.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) rights: Rights,
    pub(super) now: SystemTime,
}

impl Rules {
    pub(super) fn add(&mut self, rule: SasRule, rights: Rights) {
        self.rules.push((rule, rights));
    }

    pub(super) fn trust(&mut self, issuer: EntraIssuer) {
        self.issuers.push(issuer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.issuers.is_empty()
    }

    pub(super) fn find(&self, name: &str) -> Option<&SasRule> {
        let mut rules = self.rules.iter().map(|(rule, _)| rule);
        rules.find(|rule| rule.name() == name)
    }

    /// When the right that `token` proves ends.
    ///
    /// Rules of the same name are tried one after the other: a rule with two keys is two of them.
    pub(super) fn check(
        &self,
        token: Option<&str>,
        claim: &Claim<'_>,
    ) -> Result<SystemTime, Refusal> {
        let token = token.ok_or(Refusal::unauthorized(
            "MissingToken: The authorization header was not found.",
        ))?;
        if !self.issuers.is_empty() && entra::Token::is_meant(token) {
            return self.check_entra(token, claim);
        }
        let token = SasToken::parse(token).map_err(refusal)?;
        let mut refused = invalid_signature();
        let of_that_name = |rule: &SasRule| rule.name() == token.rule_name();
        for (rule, rights) in self.rules.iter().filter(|(rule, _)| of_that_name(rule)) {
            match token.verify(rule, claim.host, claim.path, claim.now) {
                Ok(()) if rights.contains(claim.rights) => return Ok(token.expires_at()),
                Ok(()) => {
                    refused = missing_right(claim.rights);
                }
                Err(SasError::InvalidSignature) => {}
                // The signature is good, so no other key can make it better.
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(refused)
    }

    fn check_entra(&self, token: &str, claim: &Claim<'_>) -> Result<SystemTime, Refusal> {
        let token = entra::Token::parse(token)?;
        // Several tenants may share their keys, so that another's refusal is not the last word.
        let mut refused = invalid_signature();
        for issuer in &self.issuers {
            match issuer.check(&token, claim) {
                Ok(expires_at) => return Ok(expires_at),
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }
}

fn invalid_signature() -> Refusal {
    Refusal::unauthorized("InvalidSignature: The token has an invalid signature.")
}

fn missing_right(right: Rights) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        if right == Rights::LISTEN {
            "Unauthorized access. 'Listen' claim is required to perform this operation."
        } else {
            "Unauthorized access. 'Send' claim is required to perform this operation."
        },
    )
}

/// The texts of the live service, as far as they are known.
fn refusal(error: SasError) -> Refusal {
    Refusal::unauthorized(match error {
        SasError::Malformed(_) => {
            "MalformedToken: The token is not a well-formed shared access signature."
        }
        SasError::InvalidSignature => return invalid_signature(),
        SasError::Expired => "ExpiredToken: The token is expired.",
        SasError::InvalidAudience => {
            "InvalidAudience: The authorization header contains a token with a wrong audience."
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        net::{Endpoint, Security},
        relay::HybridConnection,
    };

    const NOW: SystemTime = UNIX_EPOCH;

    fn rule(name: &str, key: &str) -> SasRule {
        SasRule::new(name, key).unwrap()
    }

    fn token(rule: &SasRule, path: &str, lifetime: Duration) -> String {
        let endpoint = Endpoint::new("127.0.0.1", 1, Security::Plain);
        let hybrid_connection = HybridConnection::new(endpoint, path).unwrap();
        rule.sign(&hybrid_connection, NOW + lifetime)
            .secret()
            .to_owned()
    }

    fn check(
        rules: &Rules,
        token: Option<&str>,
        rights: Rights,
    ) -> Result<SystemTime, (u16, String)> {
        let claim = Claim {
            host: "127.0.0.1:5555",
            path: "a/b",
            rights,
            now: NOW,
        };
        rules.check(token, &claim).map_err(|refusal| {
            let word = refusal.text().split([':', '.']).next().unwrap();
            (refusal.status().as_u16(), word.to_owned())
        })
    }

    #[test]
    fn every_outcome() {
        let minute = Duration::from_secs(60);
        let (send, listen) = (rule("send", "1"), rule("listen", "2"));
        let mut rules = Rules::default();
        rules.add(send.clone(), Rights::SEND);
        rules.add(listen.clone(), Rights::LISTEN);
        let refused = |status, word: &str| Err((status, word.to_owned()));

        let good = token(&send, "a/b", minute);
        assert_eq!(check(&rules, Some(&good), Rights::SEND), Ok(NOW + minute));
        let parent = token(&send, "a", minute);
        assert_eq!(check(&rules, Some(&parent), Rights::SEND), Ok(NOW + minute));

        assert_eq!(
            check(&rules, Some(&good), Rights::LISTEN),
            refused(403, "Unauthorized access")
        );
        assert_eq!(
            check(&rules, None, Rights::SEND),
            refused(401, "MissingToken")
        );
        assert_eq!(
            check(&rules, Some("eyJ.eyJ.x"), Rights::SEND),
            refused(401, "MalformedToken")
        );
        let expired = token(&send, "a/b", Duration::ZERO);
        assert_eq!(
            check(&rules, Some(&expired), Rights::SEND),
            refused(401, "ExpiredToken")
        );
        let elsewhere = token(&send, "a/c", minute);
        assert_eq!(
            check(&rules, Some(&elsewhere), Rights::SEND),
            refused(401, "InvalidAudience")
        );
        for forged in [rule("send", "2"), rule("other", "1")] {
            let forged = token(&forged, "a/b", minute);
            assert_eq!(
                check(&rules, Some(&forged), Rights::SEND),
                refused(401, "InvalidSignature")
            );
        }
    }

    #[test]
    fn both_keys_of_a_rule_count() {
        let (primary, secondary) = (rule("root", "1"), rule("root", "2"));
        let mut rules = Rules::default();
        rules.add(primary.clone(), Rights::SEND);
        rules.add(secondary.clone(), Rights::SEND);
        for key in [primary, secondary] {
            let token = token(&key, "a/b", Duration::from_secs(1));
            assert!(check(&rules, Some(&token), Rights::SEND).is_ok());
        }
    }
}
