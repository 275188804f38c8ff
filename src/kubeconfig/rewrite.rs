//! [`rewrite`]: a change of the model, made in the user's own text.

use serde::Serialize;

use super::{Kubeconfig, splice, yaml};
use crate::{Error, ErrorKind, Result};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// `text`, which holds `base`, so that it holds `target`.
///
/// What differs is spliced in and cut out, line by line: comments, order, quoting and layout of everything else stay
/// as they are. `original` is an earlier text of the same file, from before entries were added: what becomes empty
/// gets back the form that it had there. The result is read again before it is handed out; where it does not hold
/// exactly `target`, the whole text is written anew, as kubectl always does it. JSON stays JSON.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when neither way gives a text that holds `target`.
pub(super) fn rewrite(
    text: &str,
    base: &Kubeconfig,
    target: &Kubeconfig,
    original: Option<&str>,
) -> Result<String> {
    if base == target {
        return Ok(text.to_owned());
    }
    if let Some(indent) = json_indent(text)
        && let Some(json) = to_json(target, &indent)
    {
        let json = in_the_style_of(text, json);
        if holds(&json, target) {
            return Ok(json);
        }
    }
    if let Some(spliced) = splice::splice(text, base, target, original)
        && holds(&spliced, target)
    {
        return Ok(spliced);
    }
    tracing::debug!(
        "the kubeconfig is laid out in an unusual way: it is written anew, without its comments"
    );
    let anew = in_the_style_of(text, yaml::emit(target)?);
    if holds(&anew, target) {
        return Ok(anew);
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        "the kubeconfig can not be written again with all that is in it",
    )
    .with_help("give another file with -f"))
}

fn holds(text: &str, target: &Kubeconfig) -> bool {
    yaml::parse(text).is_ok_and(|kubeconfig| kubeconfig == *target)
}

/// How a JSON text is indented; `None` when it is no JSON.
fn json_indent(text: &str) -> Option<String> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim();
    if !text.starts_with('{') || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return None;
    }
    let second_line = text.lines().nth(1).unwrap_or_default();
    let indent = second_line.len() - second_line.trim_start().len();
    Some(second_line[..indent].to_owned())
}

fn to_json(kubeconfig: &Kubeconfig, indent: &str) -> Option<String> {
    if indent.is_empty() {
        return serde_json::to_string(kubeconfig).ok();
    }
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    kubeconfig.serialize(&mut serializer).ok()?;
    String::from_utf8(bytes).ok()
}

/// `new` with the byte order mark, the line breaks and the end of `old`.
fn in_the_style_of(old: &str, new: String) -> String {
    let mut new = new.trim_end_matches('\n').to_owned();
    if old.is_empty() || old.ends_with('\n') {
        new.push('\n');
    }
    if has_windows_lines(old) {
        new = new.replace('\n', "\r\n");
    }
    if old.starts_with(BYTE_ORDER_MARK) {
        new.insert(0, BYTE_ORDER_MARK);
    }
    new
}

/// Whether the first line ends as lines of Windows do.
pub(super) fn has_windows_lines(text: &str) -> bool {
    text.split_once('\n')
        .is_some_and(|(line, _)| line.ends_with('\r'))
}

#[cfg(test)]
mod tests;
