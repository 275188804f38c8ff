//! The resource id of an Arc-enabled cluster, and the names that derive from it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use crate::{Error, ErrorKind, Result, crypto};

/// Azure's own limit for the name of a resource group.
const MAX_RESOURCE_GROUP_CHARS: usize = 90;
/// Azure's limit for any resource name. Connected clusters may have a lower one, which Azure enforces.
const MAX_NAME_CHARS: usize = 260;
/// The longest id that `new` accepts has less than 600 characters of up to 4 bytes; more is not looked at.
const MAX_ID_BYTES: usize = 4096;

/// `/subscriptions/…/resourceGroups/…/providers/Microsoft.Kubernetes/connectedClusters/…`.
///
/// Azure compares resource ids without regard to case, and so do `==` and `Hash` here. The parts keep the case in
/// which they were given.
///
/// ```
/// use arc_cluster_connect::arm::ConnectedClusterId;
///
/// let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7")?;
/// assert_eq!(id, ConnectedClusterId::parse(&id.to_string().to_uppercase())?);
/// assert!(id.hybrid_connection_name().starts_with("microsoft.kubernetes/connectedclusters/"));
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone)]
pub struct ConnectedClusterId {
    subscription: String,
    resource_group: String,
    name: String,
}

impl ConnectedClusterId {
    /// The id of the cluster `name` in `resource_group` of `subscription` (a GUID).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the part that is not valid.
    pub fn new(subscription: &str, resource_group: &str, name: &str) -> Result<Self> {
        check_subscription(subscription)?;
        check_part(
            "resource group",
            resource_group,
            MAX_RESOURCE_GROUP_CHARS,
            |c| c.is_alphanumeric() || "-_.()".contains(c),
        )?;
        check_part("cluster name", name, MAX_NAME_CHARS, |c| {
            c.is_ascii_alphanumeric() || "-_.".contains(c)
        })?;
        Ok(Self {
            subscription: subscription.to_owned(),
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads an id as Azure prints it, in any case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the segment that is missing, unexpected or not valid.
    pub fn parse(id: &str) -> Result<Self> {
        if id.len() > MAX_ID_BYTES {
            return Err(invalid(format!(
                "the cluster id is longer than {MAX_ID_BYTES} bytes"
            )));
        }
        let Some(path) = id.trim().strip_prefix('/') else {
            return Err(invalid("the cluster id does not begin with '/'"));
        };
        let mut segments = path.split('/');
        let mut values = [""; 4];
        for (value, label) in values.iter_mut().zip(LABELS) {
            *value = labelled(&mut segments, label)?;
        }
        let [subscription, resource_group, provider, name] = values;
        if !provider.eq_ignore_ascii_case(PROVIDER) {
            return Err(invalid(format!(
                "the cluster id names the provider '{provider}' instead of '{PROVIDER}'"
            )));
        }
        if let Some(extra) = segments.next() {
            return Err(invalid(format!(
                "the cluster id goes on after the cluster name: '{extra}'"
            )));
        }
        Self::new(subscription, resource_group, name)
    }

    /// The subscription, a GUID.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The resource group.
    pub fn resource_group(&self) -> &str {
        &self.resource_group
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the lower-cased id, as 64 hexadecimal digits.
    ///
    /// It is the last segment of both the hybrid connection's name and the local endpoint's path.
    pub fn digest(&self) -> String {
        crypto::hex(&crypto::sha256(self.lower_case().as_bytes()))
    }

    /// The hybrid connection on which the cluster's agent listens.
    ///
    /// The rule is not documented by Microsoft; it was derived from ids and paths in the agent's public logs.
    pub fn hybrid_connection_name(&self) -> String {
        format!("microsoft.kubernetes/connectedclusters/{}", self.digest())
    }

    fn lower_case(&self) -> String {
        self.to_string().to_lowercase()
    }
}

impl fmt::Display for ConnectedClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [subscriptions, resource_groups, providers, clusters] = LABELS;
        write!(
            f,
            "/{subscriptions}/{}/{resource_groups}/{}/{providers}/{PROVIDER}/{clusters}/{}",
            self.subscription, self.resource_group, self.name
        )
    }
}

impl fmt::Debug for ConnectedClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectedClusterId({self})")
    }
}

impl FromStr for ConnectedClusterId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        Self::parse(id)
    }
}

impl PartialEq for ConnectedClusterId {
    fn eq(&self, other: &Self) -> bool {
        self.lower_case() == other.lower_case()
    }
}

impl Eq for ConnectedClusterId {}

impl Hash for ConnectedClusterId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lower_case().hash(state);
    }
}

const LABELS: [&str; 4] = [
    "subscriptions",
    "resourceGroups",
    "providers",
    "connectedClusters",
];
const PROVIDER: &str = "Microsoft.Kubernetes";

/// Takes `label/value` off the front.
fn labelled<'a>(segments: &mut std::str::Split<'a, char>, label: &str) -> Result<&'a str> {
    match segments.next() {
        Some(found) if found.eq_ignore_ascii_case(label) => {}
        Some(found) if !found.is_empty() => {
            return Err(invalid(format!(
                "the cluster id has '{found}' where '{label}' belongs"
            )));
        }
        _ => {
            return Err(invalid(format!(
                "the cluster id lacks the segment '{label}'"
            )));
        }
    }
    match segments.next() {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(invalid(format!(
            "the cluster id has nothing after '{label}'"
        ))),
    }
}

fn check_subscription(subscription: &str) -> Result<()> {
    // `Uuid` alone would also take forms with braces or without hyphens, which Azure does not.
    if subscription.len() == 36 && uuid::Uuid::try_parse(subscription).is_ok() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::InvalidInput, "the subscription is not a GUID").with_help(
            "give the subscription's id, not its name: `az account show --query id -o tsv`",
        ),
    )
}

fn check_part(
    what: &str,
    text: &str,
    max_chars: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<()> {
    if text.is_empty() {
        return Err(invalid(format!("the {what} is empty")));
    }
    if text.chars().count() > max_chars {
        return Err(invalid(format!(
            "the {what} is longer than {max_chars} characters"
        )));
    }
    // The parts become segments of a URL's path. A full stop at the end is Azure's rule, and keeps `.` and `..` out.
    if text.ends_with('.') || !text.chars().all(allowed) {
        return Err(invalid(format!(
            "the {what} has a character that Azure does not allow there"
        )));
    }
    Ok(())
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_help(
        "it has the form /subscriptions/<GUID>/resourceGroups/<group>/providers/Microsoft.Kubernetes/connectedClusters/<name>: \
         `az connectedk8s show -n <name> -g <group> --query id -o tsv` prints it",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SUBSCRIPTION: &str = "0A1B2C3D-0000-4000-8000-00000000BEEF";
    const TEXT: &str = "/subscriptions/0A1B2C3D-0000-4000-8000-00000000BEEF/resourceGroups/Shop-RG/providers/Microsoft.Kubernetes/connectedClusters/Till-7";

    #[test]
    fn display_is_canonical_and_the_digest_is_that_of_the_lower_case() {
        let id = ConnectedClusterId::new(SUBSCRIPTION, "Shop-RG", "Till-7").unwrap();
        assert_eq!(id.to_string(), TEXT);
        // printf '%s' "$lower_cased_id" | sha256sum
        assert_eq!(
            id.digest(),
            "3a7a210b5a05bef131e7e769d393a9a8532cf54222ebf17682c78f3b19346699"
        );
        assert_eq!(
            id.hybrid_connection_name(),
            format!("microsoft.kubernetes/connectedclusters/{}", id.digest())
        );
    }

    #[test]
    fn case_does_not_matter() {
        let ids: HashSet<_> = [
            TEXT.to_owned(),
            TEXT.to_lowercase(),
            TEXT.to_uppercase(),
            format!(" {TEXT}\n"),
        ]
        .iter()
        .map(|text| ConnectedClusterId::parse(text).unwrap())
        .collect();
        assert_eq!(ids.len(), 1);
        let other = ConnectedClusterId::new(SUBSCRIPTION, "Shop-RG", "Till-8").unwrap();
        assert!(!ids.contains(&other));
    }

    #[test]
    fn the_message_names_the_segment() {
        let sub = format!("/subscriptions/{SUBSCRIPTION}");
        let cases = [
            (String::new(), "does not begin with '/'"),
            ("/".to_owned(), "lacks the segment 'subscriptions'"),
            ("/subscriptions".to_owned(), "nothing after 'subscriptions'"),
            (sub.clone(), "lacks the segment 'resourceGroups'"),
            (
                format!("{sub}/resourceGroups/"),
                "nothing after 'resourceGroups'",
            ),
            (
                format!("{sub}/groups/a"),
                "'groups' where 'resourceGroups' belongs",
            ),
            (
                format!("{sub}/resourceGroups/a"),
                "lacks the segment 'providers'",
            ),
            (
                format!(
                    "{sub}/resourceGroups/a/providers/Microsoft.ContainerService/connectedClusters/b"
                ),
                "'Microsoft.ContainerService' instead of",
            ),
            (
                format!("{sub}/resourceGroups/a/providers/Microsoft.Kubernetes"),
                "lacks the segment 'connectedClusters'",
            ),
            (format!("{TEXT}/x"), "after the cluster name: 'x'"),
            (format!("{TEXT}/"), "after the cluster name: ''"),
            (
                TEXT.replace(SUBSCRIPTION, "production"),
                "subscription is not a GUID",
            ),
            (
                TEXT.replace("Shop-RG", "a?b"),
                "resource group has a character",
            ),
            (TEXT.replace("Till-7", ".."), "cluster name has a character"),
            (
                TEXT.replace("Till-7", "a b"),
                "cluster name has a character",
            ),
            (TEXT.replace("Shop-RG", &"g".repeat(91)), "longer than 90"),
            (TEXT.replace("Till-7", &"n".repeat(261)), "longer than 260"),
            ("/".repeat(MAX_ID_BYTES + 1), "longer than 4096"),
        ];
        for (text, expected) in cases {
            let error = ConnectedClusterId::parse(&text).expect_err(&text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.help().is_some());
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses(group in "[a-zA-Z0-9_()-]{1,90}", name in "[a-zA-Z0-9_-]{1,63}") {
            let id = ConnectedClusterId::new(SUBSCRIPTION, &group, &name).unwrap();
            let again = ConnectedClusterId::parse(&id.to_string()).unwrap();
            prop_assert_eq!(again.to_string(), id.to_string());
            prop_assert_eq!(again.digest(), id.digest());
        }

        #[test]
        fn no_text_panics(text in "(/?[a-zA-Zé/.%]{0,20}){0,8}") {
            if let Ok(id) = ConnectedClusterId::parse(&text) {
                prop_assert!(text.eq_ignore_ascii_case(&id.to_string()));
            }
        }
    }
}
