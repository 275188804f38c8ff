//! [`Query`]: the parameters behind the `?`.

use percent_encoding::percent_decode_str;

/// A decoded query, in the order sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let parameters = text
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                (decode(name), decode(value))
            });
        Self(parameters.collect())
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set, as Go's `ParseBool` reads it.
    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(
            self.first(name),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True")
        )
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.first(name)?.parse().ok()
    }
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_escaped_parameters_keep_order_and_bytes() {
        let query =
            Query::parse("&command=sh&command=-c&command=echo+a%26b&stdin=true&tty=&tail=3");
        assert_eq!(
            query.all("command").collect::<Vec<_>>(),
            ["sh", "-c", "echo a&b"]
        );
        assert!(query.is_set("stdin"));
        assert!(!query.is_set("tty") && !query.is_set("stdout"));
        assert_eq!(query.number("tail"), Some(3));
    }
}
