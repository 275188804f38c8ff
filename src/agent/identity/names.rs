//! Which names may stand in an identity, and which belong to Kubernetes itself.

use icu_normalizer::ComposingNormalizerBorrowed;

/// What Kubernetes reserves for its own users and groups.
const SYSTEM_PREFIX: &str = "system:";
/// Domains of extra keys that the API server gives a meaning to.
const KUBERNETES_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// Why a name can not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Blank,
    TooLong,
    /// White space at an edge: HTTP/1 trims it and HTTP/2 need not, which would make two identities of one.
    EdgeWhiteSpace,
    /// Control characters, and invisible ones that make two names look the same in a log.
    Invisible,
}

impl Flaw {
    pub(super) fn of(name: &str, longest: usize) -> Option<Self> {
        if name.trim().is_empty() {
            Some(Self::Blank)
        } else if name.len() > longest {
            Some(Self::TooLong)
        } else if name.trim().len() != name.len() {
            Some(Self::EdgeWhiteSpace)
        } else if name.chars().any(is_invisible) {
            Some(Self::Invisible)
        } else {
            None
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Blank => "is blank",
            Self::TooLong => "is too long",
            Self::EdgeWhiteSpace => "begins or ends with white space",
            Self::Invisible => "has a control character or an invisible one",
        }
    }
}

/// Whether a name from an identity provider claims to be one of Kubernetes' own.
///
/// The API server compares bytes. This comparison is wider (compatibility forms such as `ｓｙｓｔｅｍ：`, any case, any
/// white space around it), because what comes later (a webhook, a person who reads a log) may not compare bytes.
pub(super) fn is_system(name: &str) -> bool {
    folded(name).starts_with(SYSTEM_PREFIX)
}

/// Whether a key of extra information has a meaning to Kubernetes: what is in its domains, or in those below them.
pub(super) fn is_kubernetes_key(key: &str) -> bool {
    let folded = folded(key);
    let domain = folded.split('/').next().unwrap_or_default();
    KUBERNETES_DOMAINS.iter().any(|reserved| {
        domain
            .strip_suffix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Compatibility composition, white space trimmed, lower case.
fn folded(name: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    let lower = normalizer.normalize(name).trim().to_lowercase();
    // Lower case may decompose: once more, so that equal names are equal.
    normalizer.normalize(&lower).trim().to_owned()
}

fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Soft hyphen; joiners and marks of direction; line separators; embeddings; invisible operators; the
            // byte order mark; tags.
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_names_are_seen_in_every_spelling() {
        for name in [
            "system:masters",
            "SYSTEM:masters",
            "System:Masters",
            " system:masters",
            "\u{a0}system:masters",
            "ｓｙｓｔｅｍ：masters",
            "ſystem:masters",
            "sʸstem:masters",
            "system:",
            "system:serviceaccount:ns:name",
            "system:node:n1",
        ] {
            assert!(is_system(name), "{name}");
        }
        for name in [
            "system",
            "systems:a",
            "my-system:a",
            "oidc:system:masters",
            "sys:a",
            "東京都:計画",
        ] {
            assert!(!is_system(name), "{name}");
        }
    }

    #[test]
    fn kubernetes_keys_are_seen_in_every_spelling() {
        for key in [
            "kubernetes.io",
            "kubernetes.io/a",
            "authentication.kubernetes.io/credential-id",
            "AUTHENTICATION.KUBERNETES.IO/pod-name",
            "k8s.io/a",
            "x.k8s.io/a",
            "authentication．kubernetes．io/a",
        ] {
            assert!(is_kubernetes_key(key), "{key}");
        }
        for key in [
            "oid",
            "arc.azure.com/tid",
            "notkubernetes.io/a",
            "a/kubernetes.io",
            "scopes",
        ] {
            assert!(!is_kubernetes_key(key), "{key}");
        }
    }

    #[test]
    fn flaws() {
        for (name, flaw) in [
            ("", Flaw::Blank),
            (" \t\u{3000}", Flaw::Blank),
            (" a", Flaw::EdgeWhiteSpace),
            ("a\u{a0}", Flaw::EdgeWhiteSpace),
            ("a\nb", Flaw::Invisible),
            ("a\0", Flaw::Invisible),
            ("a\u{202e}b", Flaw::Invisible),
            ("a\u{200b}b", Flaw::Invisible),
            ("abcdefghi", Flaw::TooLong),
        ] {
            assert_eq!(Flaw::of(name, 8), Some(flaw), "{name:?}");
        }
        for name in ["a", "a b", "é@b.c", "東京"] {
            assert_eq!(Flaw::of(name, 8), None, "{name:?}");
        }
    }
}
