//! [`Outline`]: where the members and entries of a kubeconfig stand in its text.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, StructureStyle};

/// The layout of a kubeconfig's text. Offsets are bytes; a line's range includes its line break.
#[derive(Debug)]
pub(super) struct Outline {
    /// Spaces before each top-level key.
    pub(super) column: usize,
    pub(super) members: Vec<Member>,
    /// Behind the last line of the top-level mapping, where a new member can go.
    pub(super) end: usize,
}

/// A top-level member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// The line of the key.
    pub(super) line: Range<usize>,
    /// Behind the colon.
    pub(super) colon: usize,
    pub(super) form: Form,
}

/// How the value of a member is written.
#[derive(Debug)]
pub(super) enum Form {
    /// Nothing, or something that begins and ends on the line of its key.
    Inline {
        /// Behind the value; the value begins somewhere after the colon.
        end: usize,
    },
    /// One item below the other.
    Items {
        /// Spaces before each dash.
        column: usize,
        /// The lines of each item.
        lines: Vec<Range<usize>>,
        /// Behind the last item and the indented comments that follow it.
        end: usize,
    },
    /// Anything else.
    Other,
}

impl Outline {
    /// The outline of `text`, which ends in a line break. `None` when it is no mapping in block style, or is written
    /// in a way that nobody can be expected to write a kubeconfig in.
    pub(super) fn of(text: &str) -> Option<Self> {
        Walk::new(text).run()
    }

    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// Whether `text` holds no value at all: nothing, comments, or an empty document.
pub(super) fn is_blank(text: &str) -> bool {
    events(text).all(|event| match event {
        Ok((Event::Scalar(_, ScalarStyle::Plain, 0, None), span)) => span.is_empty(),
        Ok((event, _)) => !event.is_node(),
        Err(_) => false,
    })
}

fn events(text: &str) -> Parser<'_, impl serde_saphyr::granit_parser::BorrowedInput<'_>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    Parser::new_from_str_with_options(text, options)
}

/// The state of a walk over the text's events.
struct Walk<'a> {
    text: &'a str,
    /// Collections that are open.
    depth: usize,
    column: usize,
    members: Vec<Member>,
    /// The member whose value comes next or is not over yet.
    open: Option<OpenMember>,
    /// Behind the last thing that was written out.
    last: usize,
}

struct OpenMember {
    name: String,
    line: Range<usize>,
    colon: usize,
    kind: ValueKind,
    /// Begin and end of each item.
    items: Vec<Range<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum ValueKind {
    BlockSequence,
    /// Without anchor and tag, which would have to stay when the value goes.
    Bare,
    Other,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            depth: 0,
            column: 0,
            members: Vec::new(),
            open: None,
            last: 0,
        }
    }

    fn run(mut self) -> Option<Outline> {
        let mut roots = 0;
        for event in events(self.text) {
            let (event, span) = event.ok()?;
            let range = span.byte_range()?;
            let written = self.text.get(range.clone())?;
            // The ends of block collections, and empty values, have no place of their own: their marks are at what
            // follows.
            let is_written = match event {
                Event::Scalar(..) | Event::Alias(_) => !written.is_empty(),
                Event::SequenceEnd => written == "]",
                Event::MappingEnd => written == "}",
                _ => false,
            };
            if is_written {
                // A block scalar ends within the indentation of the line after it.
                let written = match written.trim_end_matches(' ').strip_suffix('\n') {
                    Some(lines) => lines,
                    None => written,
                };
                self.last = self.last.max(range.start + written.len());
            }
            match (event.is_node(), self.depth) {
                (true, 0) => {
                    let Event::MappingStart(StructureStyle::Block, 0, None) = event else {
                        return None;
                    };
                    roots += 1;
                    self.column = span.start.col();
                }
                (true, 1) if self.open.is_none() => {
                    self.open = Some(self.key(&event, range)?);
                    continue;
                }
                (true, depth) => self.begin(&event, depth, range.start),
                (false, _) => {}
            }
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => self.depth += 1,
                Event::SequenceEnd | Event::MappingEnd => {
                    self.depth = self.depth.checked_sub(1)?;
                    self.end()?;
                }
                Event::Scalar(..) | Event::Alias(_) => self.end()?,
                _ => {}
            }
        }
        if roots != 1 || self.open.is_some() {
            return None;
        }
        let end = behind_comments(self.text, line_end(self.text, self.last), self.column);
        Some(Outline {
            column: self.column,
            members: self.members,
            end,
        })
    }

    fn key(&mut self, event: &Event<'_>, range: Range<usize>) -> Option<OpenMember> {
        let Event::Scalar(name, _, 0, None) = event else {
            return None;
        };
        let rest = self.text.get(range.end..)?;
        let colon = range.end + rest.len() - rest.trim_start_matches(' ').len();
        let line = line_start(self.text, range.start)..line_end(self.text, range.end);
        let indent = self.text.get(line.start..range.start)?;
        let is_alone = indent
            .trim_start_matches('\u{feff}')
            .trim_matches(' ')
            .is_empty();
        if !is_alone || !self.text.get(colon..)?.starts_with(':') {
            return None;
        }
        self.last = self.last.max(colon + 1);
        Some(OpenMember {
            name: name.clone().into_owned(),
            line,
            colon: colon + 1,
            kind: ValueKind::Other,
            items: Vec::new(),
        })
    }

    /// A node begins within the top-level mapping's values.
    fn begin(&mut self, event: &Event<'_>, depth: usize, start: usize) {
        let Some(open) = &mut self.open else {
            return;
        };
        if depth == 1 {
            let is_bare = event.anchor_id().is_none() && event.tag().is_none() && !event.is_alias();
            open.kind = match event {
                _ if !is_bare => ValueKind::Other,
                Event::SequenceStart(StructureStyle::Block, ..) => ValueKind::BlockSequence,
                _ => ValueKind::Bare,
            };
        } else if depth == 2 && open.kind == ValueKind::BlockSequence {
            open.items.push(start..start);
        }
    }

    /// A node is over, and `depth` is that of its siblings.
    fn end(&mut self) -> Option<()> {
        match (self.depth, &mut self.open) {
            (2, Some(open)) => {
                if let Some(item) = open.items.last_mut() {
                    item.end = self.last;
                }
            }
            (1, Some(_)) => {
                let open = self.open.take()?;
                let form = self.form(&open)?;
                self.members.push(Member {
                    name: open.name,
                    line: open.line,
                    colon: open.colon,
                    form,
                });
            }
            _ => {}
        }
        Some(())
    }

    fn form(&self, open: &OpenMember) -> Option<Form> {
        match open.kind {
            ValueKind::BlockSequence => self.items(open),
            ValueKind::Bare if self.last <= open.line.end => Some(Form::Inline {
                end: self.last.max(open.colon),
            }),
            ValueKind::Bare | ValueKind::Other => Some(Form::Other),
        }
    }

    fn items(&self, open: &OpenMember) -> Option<Form> {
        let mut lines: Vec<Range<usize>> = Vec::with_capacity(open.items.len());
        let mut column = None;
        let mut from = open.line.end;
        for item in &open.items {
            let indent = self.dash(from)?;
            if *column.get_or_insert(indent.len()) != indent.len() {
                return None;
            }
            // A lone dash may be all that there is of an item.
            let end = line_end(self.text, item.end.max(indent.end + 1));
            lines.push(indent.start..end);
            from = end;
        }
        let column = column?;
        Some(Form::Items {
            column,
            lines,
            end: behind_comments(self.text, from, column),
        })
    }

    /// The indentation before the first dash at or below the line that begins at `from`.
    fn dash(&self, mut from: usize) -> Option<Range<usize>> {
        loop {
            let end = line_end(self.text, from);
            let line = self.text.get(from..end)?;
            let content = line.trim_start_matches(' ');
            if content.starts_with('-') {
                return Some(from..end - content.len());
            }
            let is_filler = content.starts_with('#') || content.trim().is_empty();
            if !is_filler || end == from {
                return None;
            }
            from = end;
        }
    }
}

/// Behind the comment lines that follow `from` and are indented more than `column`: they belong to what is above them.
fn behind_comments(text: &str, mut from: usize, column: usize) -> usize {
    loop {
        let end = line_end(text, from);
        let line = text.get(from..end).unwrap_or_default();
        let content = line.trim_start_matches(' ');
        if !content.starts_with('#') || line.len() - content.len() <= column {
            return from;
        }
        from = end;
    }
}

fn line_start(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default();
    before.rfind('\n').map_or(0, |line_break| line_break + 1)
}

/// Behind the line break at or after `offset`.
pub(super) fn line_end(text: &str, offset: usize) -> usize {
    let rest = text.get(offset..).unwrap_or_default();
    rest.find('\n')
        .map_or(text.len(), |line_break| offset + line_break + 1)
}

#[cfg(test)]
mod tests;
