//! What a killed process leaves behind is known and taken out at the next start.

use super::*;

/// A receipt that is dropped is all that a killed process leaves.
fn killed(bed: &Bed, addition: &Kubeconfig) {
    let _ = bed.merge(addition).unwrap();
}

#[test]
fn the_next_start_of_the_same_name_brings_back_what_was() {
    let bed = Bed::new(Some(USERS));
    killed(&bed, &at_port("till", 1, "first"));
    assert_eq!(bed.file.read().unwrap().current_context, "till");
    let receipt = bed.merge(&at_port("till", 2, "second")).unwrap();
    let merged = bed.file.read().unwrap();
    assert_eq!((merged.clusters.len(), merged.contexts.len()), (2, 2));
    receipt.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn the_next_start_takes_out_other_names_that_nobody_serves() {
    let mut bed = Bed::new(Some(USERS));
    killed(&bed, &at_port("till", 1, "first"));
    killed(&bed, &at_port("shelf", 2, "second"));
    bed.file.probe = |port| port == 2;
    let receipt = bed
        .file
        .merge(&at_port("cellar", 3, "third"), CurrentContext::KeepIfSet)
        .unwrap();
    let merged = bed.file.read().unwrap();
    let names: Vec<_> = merged.contexts.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["me@home", "shelf", "cellar"]);
    assert_eq!(merged.current_context, "shelf");
    receipt.undo().unwrap();
    // The chain of earlier contexts has closed over the one that went.
    bed.file.probe = |_| false;
    assert_eq!(bed.file.repair().unwrap(), ["shelf"]);
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn at_our_own_port_another_certificate_is_dead() {
    let bed = Bed::new(Some(USERS));
    killed(&bed, &at_port("till", 1, "first"));
    // The same run may serve many clusters.
    let shelf = bed.merge(&at_port("shelf", 1, "first")).unwrap();
    assert_eq!(bed.file.read().unwrap().contexts.len(), 3);
    shelf.undo().unwrap();
    let cellar = bed.merge(&at_port("cellar", 1, "second")).unwrap();
    assert!(bed.file.read().unwrap().context("till").is_none());
    cellar.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn what_has_no_mark_or_is_needed_stays() {
    let mut bed = Bed::new(None);
    bed.file.probe = |_| false;
    // As Azure's own client writes it.
    let unmarked = at_port("theirs", 47011, "PEM").to_yaml().unwrap();
    fs::write(&bed.file.path, &unmarked).unwrap();
    assert!(bed.file.repair().unwrap().is_empty());
    assert_eq!(bed.text(), Some(unmarked));

    // A context that the user made for our cluster.
    killed(&bed, &at_port("till", 1, "first"));
    bed.edit(|kubeconfig| {
        let mut entry = kubeconfig.contexts[1].clone();
        entry.name = "mine".to_owned();
        entry.context.other = Default::default();
        kubeconfig.contexts.push(entry);
    });
    let before = bed.text();
    assert!(bed.file.repair().unwrap().is_empty());
    assert_eq!(bed.text(), before);
}

#[test]
fn nothing_to_repair() {
    let bed = Bed::new(None);
    assert!(bed.file.repair().unwrap().is_empty());
    assert!(bed.names().is_empty());
}

#[test]
fn the_operating_system_knows_who_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(dead::is_listening(port));
    drop(listener);
    assert!(!dead::is_listening(port));
}

#[test]
fn leftovers_of_an_interrupted_write_go() {
    let bed = Bed::new(Some(USERS));
    let theirs = bed.directory.path().join(".config2.arc-cluster-connect-x");
    fs::write(&theirs, "another file's").unwrap();
    fs::write(
        bed.directory.path().join(".config.arc-cluster-connect-x"),
        "half a",
    )
    .unwrap();
    let receipt = bed.merge(&ours("till", "s")).unwrap();
    receipt.undo().unwrap();
    assert_eq!(bed.names().len(), 2);
    assert!(theirs.exists());
}
