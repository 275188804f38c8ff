//! What each step's outcome means, and what to do about it.

use std::{net::SocketAddr, time::SystemTime};

use arc_cluster_connect::{Error, Result};
use azure_core::time::parse_rfc7231;
use http::{HeaderMap, StatusCode, header};

use super::super::{
    check::{Finding, Outcome},
    endpoints::Issuer,
    peek,
};

pub fn judge_name(
    host: &str,
    found: std::io::Result<Vec<SocketAddr>>,
    ignored_proxy: Option<&str>,
) -> Finding {
    match found {
        Ok(addresses) if !addresses.is_empty() => Finding::ok(addresses[0].ip().to_string()),
        Ok(_) => with_proxy_hint(no_such_host(host, None), ignored_proxy),
        Err(error) => with_proxy_hint(no_such_host(host, Some(error)), ignored_proxy),
    }
}

fn no_such_host(host: &str, error: Option<std::io::Error>) -> Finding {
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    Finding::failed(
        format!("the name {host} does not resolve{why}"),
        "check the spelling and this machine's DNS server; it must resolve public names, or there must be a proxy that does",
    )
}

/// A proxy that is there and not used is the first suspect.
pub fn with_proxy_hint(mut finding: Finding, ignored_proxy: Option<&str>) -> Finding {
    if let (Some(variable), Some(advice)) = (ignored_proxy, &mut finding.advice)
        && finding.outcome == Outcome::Failed
    {
        advice.push_str(&format!(
            "; {variable} is set and not used: try --https-proxy env"
        ));
    }
    finding
}

pub fn judge_issuer(expected: Issuer, issuer: Option<&str>) -> Finding {
    /// Whose certificates Azure's endpoints have.
    const AZURE_ISSUERS: [&str; 2] = ["microsoft", "digicert"];

    let Some(issuer) = issuer else {
        return Finding::ok("issuer not seen");
    };
    let is_azures = || {
        let issuer = issuer.to_lowercase();
        AZURE_ISSUERS.iter().any(|known| issuer.starts_with(known))
    };
    let detail = format!("issued by {issuer}");
    match expected {
        Issuer::OfAzure if !is_azures() => Finding::warning(
            format!("{detail}, which is not an authority of Azure's"),
            "a proxy on the way opens TLS: have Azure's hosts excluded from inspection, or the agent and its relay may not work",
        ),
        _ => Finding::ok(detail),
    }
}

pub fn judge_tls_failure(error: &Error, issuer: Option<&str>) -> Finding {
    let finding = Finding::of_error(error);
    let Some(issuer) = issuer else {
        return finding;
    };
    Finding {
        detail: format!("{} (its certificate is issued by {issuer})", finding.detail),
        advice: if peek::is_untrusted(error) {
            Some(format!(
                "if {issuer} is your own or your company's authority, pass its CA file with --relay-ca FILE; if not, \
                 somebody is between you and the server"
            ))
        } else {
            finding.advice
        },
        ..finding
    }
}

/// Any answer will do. One that is none keeps nobody from TLS.
pub fn judge_http(answer: Result<StatusCode>) -> Finding {
    match answer {
        Ok(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => Finding::failed(
            "a proxy on the way wants a password (407)",
            "pass the proxy with its user and password: set HTTPS_PROXY and pass --https-proxy env",
        ),
        Ok(status) => Finding::ok(format!("answered {}", status.as_u16())),
        Err(error) => Finding::skipped(error.report()),
    }
}

/// A relay that gets an upgrade without a token refuses it with one of few statuses. Whoever strips upgrades makes
/// another answer of it.
pub fn judge_upgrade(answer: Result<StatusCode>) -> Finding {
    const ADVICE: &str = "have WebSocket upgrades to *.servicebus hosts let through by the proxy or firewall on the way, or \
        exclude these hosts from inspection";
    match answer {
        Ok(status) if matches!(status.as_u16(), 101 | 401 | 403 | 404) => {
            Finding::ok(format!("upgrades reach the relay ({})", status.as_u16()))
        }
        Ok(status) => Finding::failed(
            format!(
                "a WebSocket upgrade was answered {}, which is not how a relay answers",
                status.as_u16()
            ),
            ADVICE,
        ),
        Err(error) => Finding::failed(
            format!("no answer to a WebSocket upgrade: {}", error.report()),
            ADVICE,
        ),
    }
}

/// In seconds, by the `Date` of an answer to what was sent at `before` and answered at `after`.
pub fn clock_ahead(headers: &HeaderMap, before: SystemTime, after: SystemTime) -> Option<f64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = seconds(parse_rfc7231(date).ok()?.into())?;
    let ours = (seconds(before)? + seconds(after)?) / 2.0;
    // A `Date` is cut to whole seconds.
    Some(theirs + 0.5 - ours)
}

fn seconds(time: SystemTime) -> Option<f64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arc_cluster_connect::ErrorKind;

    use super::*;

    #[test]
    fn a_certificate_of_a_stranger_for_azures_host_is_a_proxy() {
        let azure = |issuer| judge_issuer(Issuer::OfAzure, Some(issuer)).outcome;
        assert_eq!(
            azure("Microsoft Corporation, Microsoft Azure RSA TLS Issuing CA 03"),
            Outcome::Ok
        );
        assert_eq!(azure("DigiCert Inc, DigiCert Global G2"), Outcome::Ok);
        assert_eq!(azure("Zscaler Inc., Zscaler Root CA"), Outcome::Warning);
        assert_eq!(azure("Not Microsoft"), Outcome::Warning);
        let own = judge_issuer(Issuer::Any, Some("Our CA"));
        assert_eq!(own, Finding::ok("issued by Our CA"));
        assert!(judge_issuer(Issuer::OfAzure, None).is_ok());
    }

    #[test]
    fn an_authority_that_is_not_trusted_is_named() {
        let problem = rustls::CertificateError::UnknownIssuer;
        let cause = std::io::Error::other(rustls::Error::InvalidCertificate(problem));
        let error = Error::new(ErrorKind::Tls, "the TLS handshake failed").with_source(cause);
        let finding = judge_tls_failure(&error, Some("Corp CA"));
        assert!(finding.detail.contains("issued by Corp CA"), "{finding:?}");
        let advice = finding.advice.unwrap();
        assert!(advice.contains("--relay-ca FILE"), "{advice}");
        assert!(advice.contains("Corp CA"), "{advice}");
    }

    #[test]
    fn only_a_relays_answers_show_that_upgrades_pass() {
        for status in [101, 401, 403, 404] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(judge_upgrade(Ok(status)).is_ok(), "{status}");
        }
        for status in [200, 302, 400, 407, 426, 502] {
            let finding = judge_upgrade(Ok(StatusCode::from_u16(status).unwrap()));
            assert_eq!(finding.outcome, Outcome::Failed, "{status}");
            assert!(finding.advice.unwrap().contains("WebSocket"));
        }
    }

    #[test]
    fn a_proxy_that_is_not_used_is_the_first_suspect() {
        let error = std::io::Error::other("not found");
        let finding = judge_name("a.example", Err(error), Some("HTTPS_PROXY"));
        assert_eq!(finding.outcome, Outcome::Failed);
        assert!(finding.advice.unwrap().ends_with("try --https-proxy env"));
        let finding = judge_name("a.example", Ok(Vec::new()), None);
        assert!(!finding.advice.unwrap().contains("--https-proxy"));
    }

    #[test]
    fn a_date_tells_how_far_a_clock_is_ahead() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let with = |date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, date.parse().unwrap());
            clock_ahead(&headers, now, now + Duration::from_secs(1))
        };
        assert_eq!(with("Thu, 01 Jan 2026 00:00:00 GMT"), Some(0.0));
        assert_eq!(with("Thu, 01 Jan 2026 01:00:00 GMT"), Some(3_600.0));
        assert_eq!(with("yesterday"), None);
        assert_eq!(clock_ahead(&HeaderMap::new(), now, now), None);
    }
}
