//! [`grants`]: what an administrator runs to give a caller a role.

use super::UserInfo;

/// Groups that are everybody's, or half the cluster's: nobody is let in by granting to them.
const SYSTEM: &str = "system:";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// A person may be in hundreds of groups: some lines show how it is done, and the groups are all listed.
const MAX_GROUPS: usize = 5;

/// What sort of caller it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    User,
    /// An application of Entra ID has no name but its object id.
    Application,
    ServiceAccount {
        namespace: &'a str,
        name: &'a str,
    },
    /// Nobody, a node, or another part of the cluster.
    System,
}

/// A command that grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// "user", "group" or "serviceaccount".
    pub to: &'static str,
    pub command: String,
}

impl<'a> Kind<'a> {
    pub fn of(user: &'a UserInfo) -> Self {
        let name = user.username.as_str();
        if let Some((namespace, name)) = name
            .strip_prefix(SERVICE_ACCOUNT)
            .and_then(|rest| rest.split_once(':'))
        {
            return Self::ServiceAccount { namespace, name };
        }
        if name.is_empty() || name.starts_with(SYSTEM) {
            return Self::System;
        }
        if uuid::Uuid::try_parse(name).is_ok() {
            return Self::Application;
        }
        Self::User
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Application => "application",
            Self::ServiceAccount { .. } => "service account",
            Self::System => "system",
        }
    }
}

/// The commands: one for the caller, and one for each group that they came by.
pub fn grants(user: &UserInfo, role: &str) -> Vec<Grant> {
    let grant = |to: &'static str, name: &str, flag: String| Grant {
        to,
        command: format!(
            "kubectl create clusterrolebinding {} --clusterrole {} {}",
            quoted(&format!("{}-binding", slug(name))),
            quoted(role),
            flag
        ),
    };
    let mut grants = Vec::new();
    let name = user.username.as_str();
    match Kind::of(user) {
        Kind::User | Kind::Application => {
            grants.push(grant("user", name, format!("--user={}", quoted(name))));
        }
        Kind::ServiceAccount { namespace, name } => {
            let full = format!("{namespace}:{name}");
            let flag = format!("--serviceaccount {}", quoted(&full));
            grants.push(grant("serviceaccount", &full, flag));
        }
        Kind::System => {}
    }
    let groups = user
        .groups
        .iter()
        .filter(|group| !group.starts_with(SYSTEM) && !group.is_empty());
    for group in groups.take(MAX_GROUPS) {
        grants.push(grant("group", group, format!("--group={}", quoted(group))));
    }
    grants
}

/// A name for the binding that says whose it is. Names of roles and bindings may have more characters than other names,
/// but these do everywhere.
fn slug(name: &str) -> String {
    let text: String = name
        .to_lowercase()
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '-'
            }
        })
        .take(200)
        .collect();
    let text = text.trim_matches('-');
    if text.is_empty() {
        "caller".to_owned()
    } else {
        text.to_owned()
    }
}

/// The text as one word of a POSIX shell. It is a peer's, and gets pasted into an administrator's.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@._:/+-".contains(&byte));
    if is_plain {
        return text.to_owned();
    }
    let text = crate::common::printable(text);
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(username: &str, groups: &[&str]) -> Vec<String> {
        let user = UserInfo {
            username: username.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..UserInfo::default()
        };
        let grants = grants(&user, "cluster-admin");
        grants.into_iter().map(|grant| grant.command).collect()
    }

    #[test]
    fn each_kind_of_caller_has_its_own_flag() {
        assert_eq!(
            commands(
                "testuser@mytenant.onmicrosoft.com",
                &["system:authenticated"]
            ),
            [
                "kubectl create clusterrolebinding testuser-mytenant-onmicrosoft-com-binding \
                 --clusterrole cluster-admin --user=testuser@mytenant.onmicrosoft.com"
            ]
        );
        let object_id = "0ab1c2d3-0000-4000-8000-00000000abcd";
        assert_eq!(
            commands(object_id, &[]),
            [format!(
                "kubectl create clusterrolebinding {object_id}-binding --clusterrole cluster-admin --user={object_id}"
            )]
        );
        assert_eq!(
            commands(
                "system:serviceaccount:default:admin-user",
                &["system:serviceaccounts", "system:serviceaccounts:default"]
            ),
            [
                "kubectl create clusterrolebinding default-admin-user-binding --clusterrole cluster-admin \
                 --serviceaccount default:admin-user"
            ]
        );
    }

    #[test]
    fn groups_that_are_somebodys_own_can_be_granted_to() {
        let all = commands(
            "a@b",
            &[
                "system:authenticated",
                "11111111-2222-4333-8444-555555555555",
            ],
        );
        assert_eq!(all.len(), 2);
        assert!(all[1].ends_with("--group=11111111-2222-4333-8444-555555555555"));
        let many: Vec<String> = (0..200).map(|number| format!("group-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(commands("a@b", &many).len(), 1 + MAX_GROUPS);
    }

    #[test]
    fn parts_of_the_cluster_are_not_granted_to() {
        for name in [
            "system:anonymous",
            "system:node:a",
            "",
            "system:serviceaccount:odd",
        ] {
            assert!(
                commands(name, &["system:unauthenticated"]).is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_can_not_break_out_of_the_line() {
        let [command] = &commands("a'; rm -rf ~ #\n$(x)", &[])[..] else {
            panic!("one command");
        };
        assert!(
            command.ends_with(r"--user='a'\''; rm -rf ~ # $(x)'"),
            "{command}"
        );
        assert!(
            command.contains(" a---rm--rf-------x-binding "),
            "{command}"
        );
    }
}
