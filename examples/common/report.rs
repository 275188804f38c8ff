//! Lines for people, on standard error. Colour only on a terminal.

use std::{
    error::Error as _,
    fmt::Display,
    io::{self, IsTerminal},
};

use arc_cluster_connect::Error;

/// Something is under way.
pub fn progress(text: impl Display) {
    eprintln!("{text}");
}

/// Something worth knowing.
pub fn note(text: impl Display) {
    eprintln!("{} {text}", label("note:", "36"));
}

/// Something that the user should change.
pub fn warn(text: impl Display) {
    eprintln!("{} {text}", label("warning:", "33"));
}

/// Why the program ends: what failed, its causes, what to do next.
pub fn failure(error: &Error) {
    eprintln!("{} {error}", label("error:", "31"));
    let mut shown = error.to_string();
    let mut help = error.help().map(str::to_owned);
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Wrappers such as `io::Error` repeat their cause's text.
        if !shown.ends_with(&text) {
            eprintln!("  because: {text}");
        }
        shown = text;
        if help.is_none() {
            help = cause
                .downcast_ref::<Error>()
                .and_then(|inner| inner.help().map(str::to_owned));
        }
        next = cause.source();
    }
    if let Some(tracking_id) = error.tracking_id() {
        eprintln!("  tracking id: {tracking_id}");
    }
    if let Some(help) = help {
        eprintln!("{} {help}", label("what to do:", "36"));
    }
}

fn label(text: &str, colour: &str) -> String {
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[1;{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
