//! The layers of the crate import downwards only. The table below *is* the architecture: changing it is a decision.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bottom first. Modules on one line are siblings: neither may import the other.
const LAYERS: &[&[&str]] = &[
    &["error", "telemetry", "crypto", "clock"],
    &["net"],
    &["kubeconfig"],
    &["auth"],
    &["arm"],
    &["tunnel::mux"],
    &["relay"],
    &["tunnel"],
    &["agent", "proxy"],
];

/// What a module may import when it must be possible to lift it out: nothing else of this crate.
const SELF_CONTAINED: &[(&str, &[&str])] = &[("tunnel::mux", &["error", "telemetry"])];

/// Root re-exports, by the module that they come from.
const RE_EXPORTS: &[(&str, &str)] = &[
    ("Error", "error"),
    ("ErrorKind", "error"),
    ("Result", "error"),
    ("AuthProvider", "auth"),
    ("KubeconfigBuilder", "kubeconfig"),
    ("Tunnel", "tunnel"),
    ("ClusterConnect", "tunnel"),
];

#[test]
fn imports_run_downwards_only() {
    let mut faults = Vec::new();
    for_each_source(|file, module, code| {
        let own = rank(module).unwrap_or_else(|| panic!("{module} is in no layer: add it"));
        for import in crate_paths(code) {
            let Some(target) = layer_of(&import) else {
                faults.push(format!("{file}: `crate::{import}` is in no layer"));
                continue;
            };
            if target == module {
                continue;
            }
            if rank(target).is_none_or(|rank| rank >= own) {
                faults.push(format!("{file}: {module} imports {target}"));
            }
            if let Some((_, allowed)) = SELF_CONTAINED.iter().find(|(name, _)| *name == module)
                && !allowed.contains(&target)
            {
                faults.push(format!(
                    "{file}: {module} must stand alone, but imports {target}"
                ));
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_net_names_rustls() {
    let mut faults = Vec::new();
    for_each_source(|file, module, code| {
        if module != "net" && code.contains("rustls") {
            faults.push(file.to_owned());
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_check_sees_a_fault() {
    assert_eq!(
        crate_paths("use crate::{net::Endpoint, relay::{RelayStream, SasRule}, Error};"),
        ["net::Endpoint", "relay::", "Error"]
    );
    assert_eq!(layer_of("tunnel::mux::Session"), Some("tunnel::mux"));
    assert_eq!(layer_of("tunnel::Target"), Some("tunnel"));
    assert!(rank("net") < rank("relay"));
}

/// Calls `check` with the path, the module and the code (tests and comments left out) of each source file.
fn for_each_source(mut check: impl FnMut(&str, &str, &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for path in rust_files(&root) {
        let relative = path.strip_prefix(&root).expect("below src").to_owned();
        if relative == Path::new("lib.rs") || relative.ends_with("tests.rs") {
            continue;
        }
        let module = relative
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join("::");
        let layer = layer_of(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        let text = fs::read_to_string(&path).expect("a readable source file");
        check(&relative.to_string_lossy(), layer, &code_only(&text));
        seen += 1;
    }
    assert!(seen > 20, "only {seen} source files were found");
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Unit tests may look upwards (a sender is tested against the embedded relay), and comments may name anything.
fn code_only(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Each path that follows `crate::`, with the members of a brace list one by one.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, matched) in code.match_indices("crate::") {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[start + matched.len()..];
        match rest.strip_prefix('{') {
            Some(list) => paths.extend(members(list)),
            None => paths.push(path_prefix(rest)),
        }
    }
    paths
}

fn members(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut member = String::new();
    let mut members = Vec::new();
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(std::mem::take(&mut member)),
            _ if depth == 0 && !c.is_whitespace() => member.push(c),
            _ => {}
        }
    }
    members.push(member);
    members.retain(|member| !member.is_empty());
    members
}

fn path_prefix(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
        .collect()
}

/// The layer that a path below the crate root belongs to: the longest that matches.
fn layer_of(path: &str) -> Option<&'static str> {
    let first = path.split("::").next()?;
    if let Some((_, module)) = RE_EXPORTS.iter().find(|(name, _)| *name == first) {
        return Some(module);
    }
    LAYERS
        .iter()
        .copied()
        .flatten()
        .copied()
        .filter(|layer| path == *layer || path.starts_with(&format!("{layer}::")))
        .max_by_key(|layer| layer.len())
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&layer))
}
