//! `arc-connect status`: what the proxies of this user are doing.

mod ask;
mod view;

use std::{
    io::{self, IsTerminal, Write},
    pin::pin,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use arc_cluster_connect::{Error, ErrorKind, Result};
use clap::Args;
use futures_util::future::join_all;
use serde_json::json;

use self::ask::Answer;
use crate::{common, running::Running};

/// How often a live view is made anew: what a person can follow.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Arguments {
    /// Print JSON: {"proxies": [{"pid", "startedAt", "address", "error", "draining", "clusters": […]}]}. With --watch,
    /// a line each second
    #[arg(long)]
    json: bool,

    /// Go on, and show it anew each second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// How what was found is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let form = if arguments.json {
        Form::Json
    } else {
        Form::Table
    };
    if arguments.watch {
        tokio::select! {
            watched = watch(form) => watched?,
            () = common::stop_requested() => {}
        }
    } else {
        let answers = ask_all().await?;
        print(&text(form, &answers))?;
        if answers.is_empty() && form == Form::Table {
            common::note(NOTHING);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// For people, when there is nothing to show.
const NOTHING: &str = "no proxy of yours is running; `arc-connect proxy` starts one, `arc-connect doctor` says what is in its way";

async fn watch(form: Form) -> Result<()> {
    let redraws = form == Form::Table && io::stdout().is_terminal();
    let mut ticks = pin!(tokio::time::interval(INTERVAL));
    loop {
        ticks.as_mut().tick().await;
        let answers = ask_all().await?;
        let mut text = text(form, &answers);
        if form == Form::Table && answers.is_empty() {
            text = format!("{NOTHING}\n");
        }
        if redraws {
            // From the top left corner, over what was there.
            text = format!("\u{1b}[H\u{1b}[2J{text}");
        }
        match print(&text) {
            // Whoever read it has seen enough.
            Err(error) if is_broken_pipe(&error) => return Ok(()),
            printed => printed?,
        }
    }
}

async fn ask_all() -> Result<Vec<Answer>> {
    let records = tokio::task::spawn_blocking(Running::list)
        .await
        .map_err(|error| {
            Error::new(ErrorKind::Other, "can not look for running proxies").with_source(error)
        })??;
    Ok(join_all(records.into_iter().map(ask::ask)).await)
}

fn text(form: Form, answers: &[Answer]) -> String {
    match form {
        Form::Table => view::table(answers, SystemTime::now()),
        Form::Json => {
            let proxies: Vec<_> = answers.iter().map(Answer::to_json).collect();
            format!("{}\n", json!({ "proxies": proxies }))
        }
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| {
            Error::new(ErrorKind::File, "can not write to standard output").with_source(error)
        })
}

fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
