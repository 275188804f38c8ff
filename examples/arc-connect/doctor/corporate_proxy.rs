//! Whether a corporate proxy is used, and whether it should be.

use arc_cluster_connect::net::{Endpoint, ProxySettings};

use super::check::Finding;

/// In the order in which they are looked at.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXEMPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What the environment says about proxies. Holds names of variables only: their values have passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub proxy: Option<&'static str>,
    pub exemptions: Option<&'static str>,
}

impl Surroundings {
    pub fn of_the_process() -> Self {
        let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            proxy: VARIABLES.iter().find(is_set).copied(),
            exemptions: EXEMPTIONS.iter().find(is_set).copied(),
        }
    }
}

/// What is dialled how: `chosen` is the command line's.
pub fn judge(
    chosen: Option<&ProxySettings>,
    around: Surroundings,
    targets: &[Endpoint],
) -> Finding {
    let Some(settings) = chosen else {
        return match around.proxy {
            Some(variable) => Finding::warning(
                format!("{variable} is set in the environment, and is not used"),
                "pass --https-proxy env if this machine reaches the internet through that proxy only",
            ),
            None => Finding::ok("none is used, and the environment names none"),
        };
    };
    let mut used = None;
    let mut straight = Vec::new();
    for target in targets.iter().filter(|target| !target.is_loopback()) {
        match settings.proxy_for(target) {
            Some(proxy) => used = Some(proxy),
            None => straight.push(target.host()),
        }
    }
    match used {
        Some(proxy) if straight.is_empty() => Finding::ok(format!("everything goes through {proxy}")),
        Some(proxy) => Finding::ok(format!("through {proxy}; straight: {}", straight.join(", "))),
        None if straight.is_empty() => Finding::ok("nothing that is dialled needs one"),
        None => Finding::warning(
            "a proxy is named, and everything is dialled straight",
            match around.exemptions {
                Some(variable) => format!("look at {variable} and --no-proxy, which exempt all hosts that are dialled"),
                None => "look at --no-proxy, which exempts all hosts that are dialled; with `env`, check that HTTPS_PROXY \
                    is set"
                    .to_owned(),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::net::Security;

    use super::{super::check::Outcome, *};

    fn targets() -> Vec<Endpoint> {
        [
            "management.azure.com",
            "relay.servicebus.windows.net",
            "localhost",
        ]
        .map(|host| Endpoint::new(host, 443, Security::Tls))
        .to_vec()
    }

    #[test]
    fn a_proxy_of_the_environment_that_is_not_used_is_told() {
        let around = Surroundings {
            proxy: Some("HTTPS_PROXY"),
            exemptions: None,
        };
        let finding = judge(None, around, &targets());
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.detail.starts_with("HTTPS_PROXY is set"));
        assert!(finding.advice.unwrap().contains("--https-proxy env"));
        let finding = judge(None, Surroundings::default(), &targets());
        assert_eq!(finding.outcome, Outcome::Ok);
    }

    #[test]
    fn what_goes_through_it_and_what_does_not_is_told_without_its_password() {
        let proxy = ProxySettings::parse("http://jane:hush@proxy.corp:3128").unwrap();
        let around = Surroundings::default();
        let finding = judge(Some(&proxy), around, &targets());
        assert_eq!(
            finding,
            Finding::ok("everything goes through proxy.corp:3128")
        );

        let some = proxy.clone().with_no_proxy(".servicebus.windows.net");
        let finding = judge(Some(&some), around, &targets());
        assert_eq!(
            finding.detail,
            "through proxy.corp:3128; straight: relay.servicebus.windows.net"
        );

        let finding = judge(Some(&proxy.with_no_proxy("*")), around, &targets());
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(!format!("{finding:?}").contains("hush"));
    }
}
