//! Lines for people, on standard error. Colour only on a terminal.

use std::{
    error::Error as _,
    fmt::Display,
    io::{self, IsTerminal},
    pin::pin,
    time::Duration,
};

use arc_cluster_connect::Error;

/// After this long without a word people think that a program hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something is under way.
pub fn progress(text: impl Display) {
    eprintln!("{}", printable(text));
}

/// Does something, and says so once it has taken long enough for somebody to wonder.
pub async fn with_patience<T>(text: impl Display, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        result = &mut work => return result,
        () = tokio::time::sleep(PATIENCE) => progress(text),
    }
    work.await
}

/// Something worth knowing.
pub fn note(text: impl Display) {
    eprintln!("{} {}", label("note:", "36"), printable(text));
}

/// Something that the user should change.
pub fn warn(text: impl Display) {
    eprintln!("{} {}", label("warning:", "33"), printable(text));
}

/// Why the program ends: what failed, its causes, what to do next.
pub fn failure(error: &Error) {
    eprintln!("{} {}", label("error:", "31"), printable(error));
    let mut shown = error.to_string();
    let mut help = error.help().map(str::to_owned);
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Wrappers such as `io::Error` repeat their cause's text.
        if !shown.ends_with(&text) {
            eprintln!("  because: {}", printable(&text));
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
        eprintln!("  tracking id: {}", printable(tracking_id));
    }
    if let Some(help) = help {
        eprintln!("{} {}", label("what to do:", "36"), printable(help));
    }
}

/// Errors repeat what peers say, and a terminal obeys its control characters.
pub fn printable(text: impl Display) -> String {
    text.to_string()
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

fn label(text: &str, colour: &str) -> String {
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[1;{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
