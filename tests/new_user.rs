//! Somebody's first hour: the package as it would be published, an empty project, the README's `[dependencies]` and its
//! program. It compiles, and lists pods.
//!
//! The dependencies are compiled once more, with no more features than the README asks for, so this runs under `CI=true`
//! only.

#![cfg(all(feature = "agent", feature = "relay-server"))]

#[path = "examples/bed.rs"]
mod bed;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use bed::Bed;
use tokio::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_program_runs_with_the_packaged_crate() {
    if std::env::var_os("CI").is_none_or(|value| value != "true") {
        eprintln!("skipped: it compiles all dependencies again; CI=true runs it");
        return;
    }
    let place = Path::new(ROOT).join("target/new-user");
    let package = unpacked(&place).await;
    let program = built(&place, &package).await;

    let bed = Bed::start(1).await;
    fs::rename(bed.file("edge.txt"), bed.file("send.txt")).unwrap();
    let mut command = Command::new(program);
    let ended = succeeded(command.current_dir(bed.directory())).await;
    assert!(ended.contains(r#""name":"web-0""#), "{ended}");
}

/// The package, unpacked where nothing of the repository is around it.
async fn unpacked(place: &Path) -> PathBuf {
    let package = concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"));
    let target = place.join("packaging");
    let mut cargo = cargo();
    cargo
        .args([
            "package",
            "--no-verify",
            "--allow-dirty",
            "--quiet",
            "--package",
        ])
        .arg(env!("CARGO_PKG_NAME"))
        .arg("--target-dir")
        .arg(&target)
        .current_dir(ROOT);
    succeeded(&mut cargo).await;
    let unpacked = place.join(package);
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).unwrap();
    }
    let file = target.join("package").join(format!("{package}.crate"));
    succeeded(Command::new("tar").arg("-xzf").arg(file).current_dir(place)).await;
    unpacked
}

/// The README's project, built; the path of its program.
async fn built(place: &Path, package: &Path) -> PathBuf {
    let project = place.join("project");
    fs::create_dir_all(project.join("src")).unwrap();
    let readme = fs::read_to_string(package.join("README.md")).unwrap();
    let dependencies = block(&readme, "toml");
    let path = format!("path = {:?}", package.to_str().unwrap());
    let published = r#"version = "0.1""#;
    // The first one is ours; that there is one at all shows that the README names this version.
    let dependencies = dependencies.replacen(published, &path, 1);
    assert!(dependencies.contains(&path), "{dependencies}");
    let manifest = format!(
        "[package]\nname = \"first-hour\"\nedition = \"2024\"\n\n[workspace]\n\n{dependencies}"
    );
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    fs::write(project.join("src/main.rs"), block(&readme, "rust")).unwrap();
    // The versions that everything else was tested with.
    fs::copy(
        Path::new(ROOT).join("Cargo.lock"),
        project.join("Cargo.lock"),
    )
    .unwrap();
    let target = place.join("target");
    let mut cargo = cargo();
    cargo
        .args(["build", "--quiet", "--target-dir"])
        .arg(&target);
    succeeded(cargo.current_dir(&project)).await;
    target.join("debug/first-hour")
}

/// What a command prints that has to succeed. Without a limit of time: it may compile everything.
async fn succeeded(command: &mut Command) -> String {
    let output = command.kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// A cargo that takes nothing over from the one that runs this test.
fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// The first block of code in `language`.
fn block<'a>(readme: &'a str, language: &str) -> &'a str {
    let start = readme
        .find(&format!("```{language}"))
        .expect("there is one");
    let (_, rest) = readme[start..].split_once('\n').expect("a line");
    rest.split_once("```").expect("it ends").0
}
