//! [`Selector`]: `labelSelector` and `fieldSelector`, as far as kubectl uses them here.

use serde_json::Value;

use super::{query::Query, status::Status};

/// Conditions that an object has to meet, all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    /// Where the value is, as a JSON pointer.
    pointer: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equals(String),
    Differs(String),
    Exists,
    Absent,
}

impl Selector {
    pub(super) fn parse(query: &Query) -> Result<Self, Status> {
        let mut conditions = Vec::new();
        for term in terms(query.first("labelSelector")) {
            let (name, test) = parse_term(term)?;
            let name = name.replace('~', "~0").replace('/', "~1");
            conditions.push(Condition {
                pointer: format!("/metadata/labels/{name}"),
                test,
            });
        }
        for term in terms(query.first("fieldSelector")) {
            let (name, test) = parse_term(term)?;
            if !matches!(
                name,
                "metadata.name" | "metadata.namespace" | "status.phase" | "spec.nodeName"
            ) || matches!(test, Test::Exists | Test::Absent)
            {
                return Err(Status::bad_request(format!(
                    "field label not supported: {name}"
                )));
            }
            conditions.push(Condition {
                pointer: format!("/{}", name.replace('.', "/")),
                test,
            });
        }
        Ok(Self(conditions))
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|condition| {
            let value = object.pointer(&condition.pointer).and_then(Value::as_str);
            match &condition.test {
                Test::Equals(wanted) => value == Some(wanted),
                Test::Differs(unwanted) => value != Some(unwanted),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

fn terms(selector: Option<&str>) -> impl Iterator<Item = &str> {
    selector
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty())
}

fn parse_term(term: &str) -> Result<(&str, Test), Status> {
    if term.contains(['(', ' ']) {
        return Err(Status::bad_request(format!(
            "the stand-in has no set-based selectors: {term}"
        )));
    }
    let owned = |value: &str| value.to_owned();
    Ok(if let Some((name, value)) = term.split_once("!=") {
        (name, Test::Differs(owned(value)))
    } else if let Some((name, value)) = term.split_once("==") {
        (name, Test::Equals(owned(value)))
    } else if let Some((name, value)) = term.split_once('=') {
        (name, Test::Equals(owned(value)))
    } else if let Some(name) = term.strip_prefix('!') {
        (name, Test::Absent)
    } else {
        (term, Test::Exists)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(query: &str) -> bool {
        let pod = json!({
            "metadata": { "name": "web", "labels": { "app": "web", "example.com/tier": "front" } },
        });
        Selector::parse(&Query::parse(query)).unwrap().matches(&pod)
    }

    #[test]
    fn labels_and_names_select() {
        assert!(matches(""));
        assert!(matches(
            "labelSelector=app%3Dweb,example.com/tier==front,!gone,app"
        ));
        assert!(matches("fieldSelector=metadata.name%3Dweb"));
        assert!(!matches("labelSelector=app!%3Dweb"));
        assert!(!matches("labelSelector=gone"));
        assert!(!matches("fieldSelector=metadata.name%3Dother"));
    }

    #[test]
    fn what_is_not_understood_is_refused_not_ignored() {
        for query in [
            "fieldSelector=spec.colour%3Dred",
            "labelSelector=app+in+(web)",
        ] {
            assert!(Selector::parse(&Query::parse(query)).is_err(), "{query}");
        }
    }
}
