//! Splicing entries into the text of a kubeconfig, and cutting them out.

use std::ops::Range;

use serde::Serialize;

use super::{
    Kubeconfig,
    outline::{self, Form, Member, Outline},
    rewrite::has_windows_lines,
    yaml,
};

const CURRENT_CONTEXT: &str = "current-context";

/// `text` with what makes `target` out of `base`, or `None` when its layout does not allow for it. The caller checks
/// that the result holds `target`: this looks at the layout only.
pub(super) fn splice(
    text: &str,
    base: &Kubeconfig,
    target: &Kubeconfig,
    original: Option<&str>,
) -> Option<String> {
    let ended = with_end(text);
    if outline::is_blank(&ended) {
        let lines = yaml::emit(target).ok()?;
        let start = if ended.trim_matches(['\u{feff}', ' ', '\r', '\n']).is_empty() {
            text
        } else {
            &ended
        };
        return Some(format!("{start}{}", broken_like(text, lines)));
    }
    let original = original.map(with_end);
    let mut splice = Splice {
        outline: Outline::of(&ended)?,
        earlier: original
            .as_deref()
            .and_then(|text| Some((text, Outline::of(text)?))),
        text: &ended,
        edits: Vec::new(),
        appendix: String::new(),
    };
    splice.section("clusters", &base.clusters, &target.clusters)?;
    splice.section("users", &base.users, &target.users)?;
    splice.section("contexts", &base.contexts, &target.contexts)?;
    splice.current_context(&base.current_context, &target.current_context)?;
    splice.version("apiVersion", &base.api_version, &target.api_version)?;
    splice.version("kind", &base.kind, &target.kind)?;
    let mut spliced = splice.apply()?;
    if ended.len() > text.len() {
        let end = line_break(text);
        spliced.truncate(spliced.strip_suffix(end)?.len());
    }
    Some(spliced)
}

struct Splice<'a> {
    /// Ends in a line break.
    text: &'a str,
    outline: Outline,
    /// The text from before our entries came, and its outline.
    earlier: Option<(&'a str, Outline)>,
    /// What is replaced by what, in no order; those at the same place in the order in which they are to stand.
    edits: Vec<(Range<usize>, String)>,
    /// Members that are new.
    appendix: String,
}

impl Splice<'_> {
    fn section<T: Serialize + PartialEq>(
        &mut self,
        name: &str,
        base: &[T],
        target: &[T],
    ) -> Option<()> {
        if base == target {
            return Some(());
        }
        let Some(index) = self.index(name) else {
            // Not written out, but there: it came in by a merge key.
            if !base.is_empty() {
                return None;
            }
            let items = items(target, self.usual_column())?;
            let key = " ".repeat(self.outline.column);
            self.appendix.push_str(&format!("{key}{name}:\n{items}"));
            return Some(());
        };
        let member = &self.outline.members[index];
        match &member.form {
            Form::Other => return None,
            Form::Inline { end } => {
                if !base.is_empty() {
                    return None;
                }
                let behind_key = member.line.end..member.line.end;
                let value = member.colon..*end;
                let items = items(target, self.usual_column())?;
                self.edits.push((value, String::new()));
                self.edits.push((behind_key, items));
            }
            Form::Items { column, lines, end } => {
                if lines.len() != base.len() {
                    return None;
                }
                let column = *column;
                let mut rest = target;
                for (index, (entry, lines)) in base.iter().zip(lines).enumerate() {
                    match rest {
                        [first, ..] if first == entry => rest = &rest[1..],
                        // As many as were there: one in place of the other.
                        [first, ..] if rest.len() >= base.len() - index => {
                            let new = items(&[first], column)? + &comments(self.text, lines);
                            self.edits.push((lines.clone(), new));
                            rest = &rest[1..];
                        }
                        _ => self.edits.push((lines.clone(), comments(self.text, lines))),
                    }
                }
                if !rest.is_empty() {
                    self.edits.push((*end..*end, items(rest, column)?));
                }
                if target.is_empty() {
                    let member = &self.outline.members[index];
                    let edit = self.emptied(member);
                    self.edits.push(edit);
                }
            }
        }
        Some(())
    }

    /// What becomes of the key of a section that has no items any more.
    fn emptied(&self, member: &Member) -> (Range<usize>, String) {
        let behind_colon = member.colon..member.colon;
        match &self.earlier {
            Some((text, outline)) => match outline.member(&member.name) {
                Some(earlier) => match inline_value(text, earlier) {
                    Some(value) => (behind_colon, value.to_owned()),
                    None => (behind_colon, " []".to_owned()),
                },
                None if self.is_key_alone(member) => (member.line.clone(), String::new()),
                None => (behind_colon, " []".to_owned()),
            },
            None => (behind_colon, " []".to_owned()),
        }
    }

    fn current_context(&mut self, base: &str, target: &str) -> Option<()> {
        if base == target {
            return Some(());
        }
        let Some(index) = self.index(CURRENT_CONTEXT) else {
            if !base.is_empty() {
                return None;
            }
            let key = " ".repeat(self.outline.column);
            let value = scalar(target)?;
            self.appendix
                .push_str(&format!("{key}{CURRENT_CONTEXT}: {value}\n"));
            return Some(());
        };
        let member = &self.outline.members[index];
        let Form::Inline { end } = member.form else {
            return None;
        };
        let value = member.colon..end;
        let edit = match self.earlier_current_context(target) {
            Earlier::Written(written) => (value, written.to_owned()),
            Earlier::Missing if self.is_line_of(member, end) => {
                (member.line.clone(), String::new())
            }
            Earlier::Missing | Earlier::Different => {
                let written = self.text.get(value.clone())?;
                let space = &written[..written.len() - written.trim_start_matches(' ').len()];
                let space = if space.is_empty() { " " } else { space };
                (value, format!("{space}{}", scalar(target)?))
            }
        };
        self.edits.push(edit);
        Some(())
    }

    /// How `target` was written in the earlier text.
    fn earlier_current_context(&self, target: &str) -> Earlier<'_> {
        let Some((text, outline)) = &self.earlier else {
            return Earlier::Different;
        };
        match outline.member(CURRENT_CONTEXT) {
            None if target.is_empty() => Earlier::Missing,
            None => Earlier::Different,
            Some(member) => {
                let is_it =
                    yaml::parse(text).is_ok_and(|earlier| earlier.current_context == target);
                match inline_value(text, member) {
                    Some(value) if is_it => Earlier::Written(value),
                    _ => Earlier::Different,
                }
            }
        }
    }

    fn version(
        &mut self,
        name: &str,
        base: &Option<String>,
        target: &Option<String>,
    ) -> Option<()> {
        if base == target {
            return Some(());
        }
        let (None, None, Some(target)) = (self.index(name), base, target) else {
            return None;
        };
        let key = " ".repeat(self.outline.column);
        let value = scalar(target)?;
        self.appendix.push_str(&format!("{key}{name}: {value}\n"));
        Some(())
    }

    fn index(&self, name: &str) -> Option<usize> {
        let mut members = self.outline.members.iter();
        members.position(|member| member.name == name)
    }

    /// Where the dashes of other sections stand; below the keys' first letter, as kubectl does it, when there is none.
    fn usual_column(&self) -> usize {
        let mut members = self.outline.members.iter();
        members
            .find_map(|member| match member.form {
                Form::Items { column, .. } => Some(column),
                _ => None,
            })
            .unwrap_or(self.outline.column)
    }

    fn is_key_alone(&self, member: &Member) -> bool {
        self.is_line_of(member, member.colon)
    }

    /// Whether nothing follows on the line of `member` after `end`.
    fn is_line_of(&self, member: &Member, end: usize) -> bool {
        let rest = self.text.get(end..member.line.end).unwrap_or("?");
        rest == line_break(self.text)
    }

    fn apply(mut self) -> Option<String> {
        let end = self.outline.end;
        self.edits.push((end..end, self.appendix));
        // A stable sort: what goes to the same place keeps its order.
        self.edits
            .sort_by_key(|(range, _)| (range.start, range.end));
        let mut result = String::with_capacity(self.text.len());
        let mut from = 0;
        for (range, new) in self.edits {
            result.push_str(self.text.get(from..range.start)?);
            result.push_str(&broken_like(self.text, new));
            from = range.end;
        }
        result.push_str(self.text.get(from..)?);
        Some(result)
    }
}

enum Earlier<'a> {
    /// The value as it was written, with the spaces before it.
    Written(&'a str),
    /// There was no such member.
    Missing,
    Different,
}

fn inline_value<'a>(text: &'a str, member: &Member) -> Option<&'a str> {
    match member.form {
        Form::Inline { end } => text.get(member.colon..end),
        _ => None,
    }
}

/// `entries` as lines, with their dashes in `column`.
fn items<T: Serialize>(entries: &[T], column: usize) -> Option<String> {
    let indent = " ".repeat(column);
    let mut lines = String::new();
    for entry in entries {
        for (index, line) in yaml::emit(entry).ok()?.lines().enumerate() {
            let lead = if index == 0 { "- " } else { "  " };
            lines.push_str(&format!("{indent}{lead}{line}\n"));
        }
    }
    Some(lines)
}

/// The comments that somebody has put between the lines of an entry: they are not ours to take out.
fn comments(text: &str, lines: &Range<usize>) -> String {
    let lines = text.get(lines.clone()).unwrap_or_default();
    lines
        .lines()
        .filter(|line| line.trim_start().starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A text as a YAML value on one line.
fn scalar(text: &str) -> Option<String> {
    let yaml = yaml::emit(&text).ok()?;
    let line = yaml.strip_suffix('\n').unwrap_or(&yaml);
    (!line.contains('\n')).then(|| line.to_owned())
}

fn with_end(text: &str) -> String {
    if text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}{}", line_break(text))
    }
}

fn line_break(text: &str) -> &'static str {
    if has_windows_lines(text) {
        "\r\n"
    } else {
        "\n"
    }
}

/// `lines` with the line breaks of `text`.
fn broken_like(text: &str, lines: String) -> String {
    if has_windows_lines(text) {
        lines.replace('\n', "\r\n")
    } else {
        lines
    }
}
