//! From the name of a context to its cluster, user and namespace.

use super::{Cluster, Kubeconfig, User};
use crate::{Error, ErrorKind, Result};

/// How many contexts an error names. A kubeconfig may hold hundreds; the first ones show what names look like.
const MAX_NAMED_CONTEXTS: usize = 20;

/// A context with what it refers to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResolvedContext<'a> {
    /// The name of the context.
    pub name: &'a str,
    /// Its cluster.
    pub cluster: &'a Cluster,
    /// Its user, if it names one.
    pub user: Option<&'a User>,
    /// Its namespace, if it names one.
    pub namespace: Option<&'a str>,
}

impl Kubeconfig {
    /// Looks up the context `context`, or the current one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no such context, none is current, or it refers to a cluster or user
    /// that is not there. The help lists the contexts that are.
    pub fn resolve<'a>(&'a self, context: Option<&str>) -> Result<ResolvedContext<'a>> {
        let wanted = context.unwrap_or(&self.current_context);
        if wanted.is_empty() {
            return Err(self.error("the kubeconfig has no current context".to_owned()));
        }
        let Some(entry) = self.contexts.iter().find(|entry| entry.name == wanted) else {
            let which = if context.is_some() { "" } else { "current " };
            return Err(self.error(format!(
                "the kubeconfig has no {which}context named '{wanted}'"
            )));
        };
        let context = &entry.context;
        let cluster = self.cluster(&context.cluster).ok_or_else(|| {
            self.error(format!(
                "context '{wanted}' refers to the cluster '{}', which the kubeconfig does not have",
                context.cluster
            ))
        })?;
        let user = match context.user.as_str() {
            "" => None,
            name => Some(self.user(name).ok_or_else(|| {
                self.error(format!(
                    "context '{wanted}' refers to the user '{name}', which the kubeconfig does not have"
                ))
            })?),
        };
        Ok(ResolvedContext {
            name: &entry.name,
            cluster,
            user,
            namespace: context.namespace.as_deref(),
        })
    }

    fn error(&self, message: String) -> Error {
        Error::new(ErrorKind::InvalidInput, message).with_help(self.contexts_there_are())
    }

    fn contexts_there_are(&self) -> String {
        if self.contexts.is_empty() {
            return "the kubeconfig has no contexts at all: check that it is the file you meant"
                .to_owned();
        }
        let names: Vec<_> = self
            .contexts
            .iter()
            .take(MAX_NAMED_CONTEXTS)
            .map(|entry| format!("'{}'", entry.name))
            .collect();
        let more = match self.contexts.len().saturating_sub(MAX_NAMED_CONTEXTS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "name one of the contexts that are there: {}{more}",
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
clusters:
- {name: home, cluster: {server: 'https://home:6443'}}
users:
- {name: me, user: {token: t}}
contexts:
- {name: me@home, context: {cluster: home, user: me, namespace: games}}
- {name: nobody, context: {cluster: home}}
- {name: astray, context: {cluster: away, user: me}}
- {name: stranger, context: {cluster: home, user: you}}
current-context: me@home
";

    fn error_of(text: &str, context: Option<&str>) -> Error {
        Kubeconfig::parse(text)
            .unwrap()
            .resolve(context)
            .expect_err("must not resolve")
    }

    #[test]
    fn the_current_context_and_a_named_one() {
        let kubeconfig = Kubeconfig::parse(TEXT).unwrap();
        let current = kubeconfig.resolve(None).unwrap();
        assert_eq!(current.name, "me@home");
        assert_eq!(current.cluster.server, "https://home:6443");
        assert_eq!(current.user.unwrap().token.as_ref().unwrap().expose(), "t");
        assert_eq!(current.namespace, Some("games"));
        let named = kubeconfig.resolve(Some("nobody")).unwrap();
        assert!(named.user.is_none());
        assert_eq!(named.namespace, None);
    }

    #[test]
    fn every_failure_lists_the_contexts() {
        for (context, text) in [
            ("gone", "no context named 'gone'"),
            ("astray", "the cluster 'away'"),
            ("stranger", "the user 'you'"),
        ] {
            let error = error_of(TEXT, Some(context));
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.help().unwrap().contains("'me@home', 'nobody'"));
        }
    }

    #[test]
    fn no_current_context() {
        let text = TEXT.replace("current-context: me@home", "current-context: ''");
        let error = error_of(&text, None);
        assert!(error.to_string().contains("no current context"));
        let text = TEXT.replace("current-context: me@home", "current-context: old");
        let error = error_of(&text, None);
        assert!(error.to_string().contains("no current context named 'old'"));
        let error = error_of("", None);
        assert!(error.help().unwrap().contains("no contexts at all"));
    }

    #[test]
    fn a_long_list_is_cut() {
        let mut kubeconfig = Kubeconfig::default();
        for index in 0..MAX_NAMED_CONTEXTS + 3 {
            kubeconfig.contexts.push(crate::kubeconfig::NamedContext {
                name: format!("c{index}"),
                ..Default::default()
            });
        }
        let error = kubeconfig.resolve(Some("x")).expect_err("no such context");
        let help = error.help().unwrap();
        assert!(help.ends_with("'c19' and 3 more"), "{help}");
    }
}
