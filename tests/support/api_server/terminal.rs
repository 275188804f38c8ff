//! [`LineDiscipline`]: what a terminal does between keys and a program that reads lines. In process, because a real
//! pseudo-terminal needs unsafe code or a helper program.

use std::mem;

/// The longest line that is edited, as on Linux; keys beyond it are dropped.
const MAX_LINE: usize = 4_096;

/// The input side of a terminal in its usual ("cooked") mode.
#[derive(Debug, Default)]
pub(super) struct LineDiscipline {
    line: Vec<u8>,
}

/// What a piece of input leads to, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Show this.
    Echo(Vec<u8>),
    /// Give this to the program.
    Input(Vec<u8>),
    /// The program has no more input.
    EndOfInput,
    /// The program is interrupted.
    Interrupt,
}

impl LineDiscipline {
    pub(super) fn keys(&mut self, keys: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut echo = Vec::new();
        for &key in keys {
            match key {
                b'\r' | b'\n' => {
                    echo.extend_from_slice(b"\r\n");
                    effects.push(Effect::Echo(mem::take(&mut echo)));
                    self.line.push(b'\n');
                    effects.push(Effect::Input(mem::take(&mut self.line)));
                }
                BACKSPACE | DELETE => {
                    let erased = self.line.pop();
                    echo.extend(erased.iter().flat_map(|_| b"\x08 \x08"));
                }
                CONTROL_C => {
                    echo.extend_from_slice(b"^C\r\n");
                    self.line.clear();
                    effects.push(Effect::Echo(mem::take(&mut echo)));
                    effects.push(Effect::Interrupt);
                }
                CONTROL_D if self.line.is_empty() => effects.push(Effect::EndOfInput),
                CONTROL_D => effects.push(Effect::Input(mem::take(&mut self.line))),
                key if self.line.len() < MAX_LINE => {
                    self.line.push(key);
                    echo.push(key);
                }
                _ => {}
            }
        }
        if !echo.is_empty() {
            effects.push(Effect::Echo(echo));
        }
        effects
    }
}

/// A program's output as a terminal shows it.
pub(super) fn output(text: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len() + 16);
    for &byte in text {
        if byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(byte);
    }
    shown
}

const CONTROL_C: u8 = 0x03;
const CONTROL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(text: &str) -> Effect {
        Effect::Echo(text.as_bytes().to_vec())
    }

    fn input(text: &str) -> Effect {
        Effect::Input(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_is_echoed_edited_and_given_whole() {
        let mut terminal = LineDiscipline::default();
        assert_eq!(terminal.keys(b"lx"), [echo("lx")]);
        assert_eq!(
            terminal.keys(b"\x7fs\r"),
            [echo("\x08 \x08s\r\n"), input("ls\n")]
        );
        assert_eq!(output(b"a\nb\n"), b"a\r\nb\r\n");
    }

    #[test]
    fn control_keys_end_and_interrupt() {
        let mut terminal = LineDiscipline::default();
        assert_eq!(terminal.keys(b"\x04"), [Effect::EndOfInput]);
        assert_eq!(terminal.keys(b"ab\x04"), [input("ab"), echo("ab")]);
        assert_eq!(
            terminal.keys(b"x\x03"),
            [echo("x^C\r\n"), Effect::Interrupt]
        );
        assert_eq!(terminal.keys(b"\r"), [echo("\r\n"), input("\n")]);
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut terminal = LineDiscipline::default();
        terminal.keys(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(terminal.line.len(), MAX_LINE);
    }
}
