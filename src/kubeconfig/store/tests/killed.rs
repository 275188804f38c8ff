//! A process that dies at any step of a write: the file is whole, and the next start needs no help.

use std::process::{Command, Stdio};

use super::*;
use crate::kubeconfig::replace::{Step, replace_step_by_step};

/// Says to the ignored test below that it is the process that dies: which file it writes, and at which step it ends.
const FILE_VARIABLE: &str = "ARC_TEST_KUBECONFIG_TO_DIE_AT";
const STEP_VARIABLE: &str = "ARC_TEST_STEP_TO_DIE_AT";

const STEPS: [&str; 5] = ["Locked", "Created", "Written", "Synced", "Replaced"];

#[test]
#[ignore = "the process that the other test starts, and that dies"]
fn writer() {
    let (Some(path), Ok(last)) = (
        std::env::var_os(FILE_VARIABLE),
        std::env::var(STEP_VARIABLE),
    ) else {
        return;
    };
    // Neither destructors nor exit handlers run: for the file system, the same as a kill.
    let die_at = |step: &str| {
        if step == last {
            std::process::abort();
        }
    };
    let file = KubeconfigFile::at(path);
    let base = file.read().unwrap();
    let addition = marked("till", "s", &base.current_context);
    let merged = merge::merge(&base, &addition, CurrentContext::Switch).unwrap();
    let _lock = Lock::take(&file.path, file.lock_limit).unwrap();
    die_at("Locked");
    let text = merged.kubeconfig.to_yaml().unwrap();
    let _ = replace_step_by_step(&file.path, text.as_bytes(), None, |step: Step| {
        die_at(&format!("{step:?}"));
        Ok(())
    });
}

#[test]
fn the_file_is_whole_and_the_next_start_repairs() {
    for step in STEPS {
        let mut bed = Bed::new(Some(USERS));
        bed.file.lock_limit = Duration::ZERO;
        bed.file.probe = |_| false;
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kubeconfig::store::tests::killed::writer",
                "--ignored",
            ])
            .env(FILE_VARIABLE, bed.file.path())
            .env(STEP_VARIABLE, step)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "{step}");

        let original = Kubeconfig::parse(USERS).unwrap();
        let left = bed.file.read().unwrap();
        if step == "Replaced" {
            assert_eq!(left.clusters[1..], marked("till", "s", "").clusters);
        } else {
            assert_eq!(bed.text().as_deref(), Some(USERS), "{step}");
        }
        // Lock and half-written file are still there, but where they can not be told from another program's.
        assert!(bed.names().len() >= 2, "{step}: {:?}", bed.names());
        if cfg!(not(unix)) {
            fs::remove_file(bed.directory.path().join("config.lock")).unwrap();
        }

        let receipt = bed.merge(&at_port("shelf", 2, "another run")).unwrap();
        let merged = bed.file.read().unwrap();
        assert!(merged.context("till").is_none(), "{step}");
        assert_eq!(merged.current_context, "shelf");
        receipt.undo().unwrap();
        assert_eq!(bed.file.read().unwrap(), original, "{step}");
        assert_eq!(bed.names().len(), 1, "{step}: {:?}", bed.names());
    }
}
