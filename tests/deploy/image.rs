//! The Dockerfile, as far as it can be read: that it fits the manifests, and that its build gets all that it copies.

use super::{manifest_files::embedded, manifests::Impersonation};

const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");
const CONTEXT: &str = include_str!("../../deploy/Dockerfile.dockerignore");

/// The instructions, with continued lines joined.
fn instructions() -> Vec<String> {
    let mut instructions = Vec::new();
    let mut open = String::new();
    for line in DOCKERFILE.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None if (open.clone() + line).trim().is_empty() => {}
            None => instructions.push(std::mem::take(&mut open) + line),
        }
    }
    instructions
}

fn arguments<'a>(instructions: &'a [String], name: &str) -> Vec<&'a str> {
    instructions
        .iter()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .collect()
}

#[test]
fn the_image_runs_as_the_user_of_the_manifests() {
    let instructions = instructions();
    let objects = embedded(Impersonation::Classic);
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    let security = &deployment["spec"]["template"]["spec"]["securityContext"];
    let user = format!("{}:{}", security["runAsUser"], security["runAsGroup"]);
    assert_eq!(arguments(&instructions, "USER"), [user]);
    assert_eq!(arguments(&instructions, "FROM").last(), Some(&"scratch"));
    assert_eq!(arguments(&instructions, "STOPSIGNAL"), ["SIGTERM"]);
    // The manifest's arguments follow it; a shell in between would keep SIGTERM to itself.
    assert_eq!(
        arguments(&instructions, "ENTRYPOINT"),
        [r#"["/usr/local/bin/arc-agent"]"#]
    );
}

#[test]
fn the_agent_is_built_as_it_is_locked() {
    let instructions = instructions();
    let runs = arguments(&instructions, "RUN");
    assert!(
        runs.iter()
            .any(|run| run.contains("cargo build --release --example arc-agent --locked"))
    );
    for base in arguments(&instructions, "FROM") {
        let name = base.split_whitespace().next().unwrap();
        assert!(
            name == "scratch" || name.contains(':') && !name.ends_with(":latest"),
            "{base}"
        );
    }
}

#[test]
fn the_context_holds_what_is_copied_and_nothing_by_default() {
    let allowed: Vec<&str> = CONTEXT
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(CONTEXT.lines().any(|line| line == "*"));
    let instructions = instructions();
    for copy in arguments(&instructions, "COPY") {
        if copy.starts_with("--from=") {
            continue;
        }
        let mut sources: Vec<&str> = copy.split_whitespace().collect();
        sources.pop();
        for source in sources {
            let is_allowed = allowed
                .iter()
                .any(|path| path.split('/').next() == Some(source));
            assert!(is_allowed, "{source}");
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(root.join(source).exists(), "{source}");
        }
    }
}
