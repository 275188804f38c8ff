//! Text to model and back, with options under which Kubernetes and we read the same values.

use serde::Serialize;

use super::{
    Kubeconfig,
    value::{KEY_IS_THERE_TWICE, Value},
};
use crate::{Error, ErrorKind, Result};

/// More than ten thousand clusters. What is larger is not a kubeconfig, and is not read into memory.
pub(super) const MAX_KUBECONFIG_BYTES: usize = 16 * 1024 * 1024;

/// How many nodes aliases may repeat. Kubeconfigs hardly ever use aliases; an alias bomb needs millions.
pub(super) const MAX_REPEATED_NODES: usize = 10_000;

pub(super) fn parse(text: &str) -> Result<Kubeconfig> {
    if text.len() > MAX_KUBECONFIG_BYTES {
        return Err(too_large());
    }
    // `None`: an empty document, or one of comments only. kubectl reads that as an empty kubeconfig.
    match serde_saphyr::from_str_with_options::<Option<Kubeconfig>>(text, reading()) {
        Ok(kubeconfig) => Ok(kubeconfig.unwrap_or_default()),
        Err(error) => Err(explain(text, &error)),
    }
}

pub(super) fn emit<T: Serialize>(value: &T) -> Result<String> {
    // Plain one-line scalars: folded ones are correct YAML, but unreadable for line-based tools that look for a
    // certificate.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            "the kubeconfig can not be written as YAML",
        )
        .with_source(error)
    })
}

pub(super) fn too_large() -> Error {
    Error::new(
        ErrorKind::LimitReached,
        format!("it is larger than {MAX_KUBECONFIG_BYTES} bytes: that is not a kubeconfig"),
    )
}

fn reading() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Values of members that we do not know must come out as they went in: `yes` and `0123` are texts.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED_NODES },
        // Snippets would carry tokens and keys into an error.
        with_snippet: false,
    }
}

/// The parser's own texts quote the input, which holds secrets: only the place and our own words are passed on.
fn explain(text: &str, error: &serde_saphyr::Error) -> Error {
    let place = match error.location() {
        Some(location) => format!(" at line {}, column {}", location.line(), location.column()),
        None => String::new(),
    };
    let message = match serde_saphyr::from_str_with_options::<Value>(text, reading()) {
        Ok(Value::Mapping(_)) => {
            format!("it is YAML, but not a kubeconfig{place}{}", hint(error))
        }
        Ok(value) => format!(
            "it is YAML, but {} instead of a mapping with clusters, users and contexts",
            value.noun()
        ),
        Err(_) => format!("it is not valid YAML{place}{}", hint(error)),
    };
    Error::new(ErrorKind::InvalidInput, message)
        .with_help("compare it with the output of `kubectl config view`")
}

fn hint(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;

    match error.without_snippet() {
        Yaml::DuplicateMappingKey { .. } => format!(": {KEY_IS_THERE_TWICE}"),
        Yaml::Message { msg, .. } if msg == KEY_IS_THERE_TWICE => format!(": {KEY_IS_THERE_TWICE}"),
        Yaml::MultipleDocuments { .. } => ": there is more than one document".to_owned(),
        Yaml::SerdeMissingField { field, .. } => format!(": '{field}' is missing"),
        Yaml::SerdeInvalidType { expected, .. } | Yaml::SerdeInvalidValue { expected, .. } => {
            format!(": expected {expected}")
        }
        Yaml::Unexpected { expected, .. } => format!(": expected {expected}"),
        Yaml::InvalidScalar { ty, .. } => format!(": expected {ty}"),
        Yaml::InvalidBooleanStrict { .. } => ": expected true or false".to_owned(),
        _ => String::new(),
    }
}
