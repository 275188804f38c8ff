//! This machine: the port and the kubeconfig that `arc-connect proxy` needs.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use arc_cluster_connect::kubeconfig::KubeconfigFile;

use super::check::Finding;
use crate::running::Running;

/// Whether the loopback port can be taken.
pub fn port(port: u16) -> Finding {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = TcpListener::bind(address).map(drop);
    let ours = Running::list().unwrap_or_default();
    let ours = ours.iter().find(|running| running.address == address);
    judge_port(port, bound, ours.map(|running| running.pid))
}

fn judge_port(port: u16, bound: io::Result<()>, ours: Option<u32>) -> Finding {
    let error = match bound {
        Ok(()) if port == 0 => return Finding::ok("any free port will do"),
        Ok(()) => return Finding::ok(format!("127.0.0.1:{port} is free")),
        Err(error) => error,
    };
    if let Some(pid) = ours {
        return Finding::warning(
            format!("127.0.0.1:{port} is taken by your own `arc-connect proxy`, process {pid}"),
            "use that one (`arc-connect status`), or start another on any free port: --port 0",
        );
    }
    if error.kind() == io::ErrorKind::AddrInUse {
        return Finding::failed(
            format!("127.0.0.1:{port} is taken by another program"),
            "start the proxy on any free port: --port 0, or end the program that has it (`ss -ltnp`); the Azure CLI calls \
             this AZK8S0801 ClientProxyPortInUse",
        );
    }
    Finding::failed(
        format!("127.0.0.1:{port} can not be listened on: {error}"),
        "start the proxy on another port: --port 0",
    )
}

/// Whether a context can be merged into the kubeconfig.
pub fn kubeconfig(path: Option<&Path>) -> Finding {
    let file = match path {
        Some(path) => KubeconfigFile::at(path),
        None => match KubeconfigFile::default_location() {
            Ok(file) => file,
            Err(error) => return Finding::of_error(&error),
        },
    };
    let path = file.path();
    if path.exists()
        && let Err(error) = file.read()
    {
        let finding = Finding::of_error(&error);
        let advice = finding.advice.unwrap_or_default();
        return Finding::failed(
            finding.detail,
            format!(
                "{advice}; repair the file, or use another with -f; the Azure CLI calls this AZK8S0208 \
                 KubernetesConfigurationLoadFailed"
            ),
        );
    }
    match writable(path) {
        Ok(()) => Finding::ok(format!("{} can be written", path.display())),
        Err(error) => Finding::failed(
            format!("{} can not be written: {error}", path.display()),
            "check the owner and mode of the file and its directory, or use another file with -f (- prints it)",
        ),
    }
}

/// As a merge does it: another file in the same directory takes its place.
fn writable(path: &Path) -> io::Result<()> {
    // Where a link leads is what is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if path.exists() {
        fs::OpenOptions::new().append(true).open(&path)?;
    }
    let mut directory = path.parent().unwrap_or(Path::new("."));
    // What is not there yet is made.
    while !directory.as_os_str().is_empty() && !directory.exists() {
        directory = directory.parent().unwrap_or(Path::new("."));
    }
    if directory.as_os_str().is_empty() {
        directory = Path::new(".");
    }
    tempfile::NamedTempFile::new_in(directory).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{super::check::Outcome, *};

    #[test]
    fn a_taken_port_says_by_whom() {
        let taken = || Err(io::ErrorKind::AddrInUse.into());
        assert_eq!(judge_port(7, Ok(()), None).outcome, Outcome::Ok);
        let other = judge_port(7, taken(), None);
        assert_eq!(other.outcome, Outcome::Failed);
        assert!(other.advice.unwrap().contains("AZK8S0801"));
        let ours = judge_port(7, taken(), Some(4711));
        assert_eq!(ours.outcome, Outcome::Warning);
        assert!(ours.detail.contains("process 4711"));
        let denied = judge_port(7, Err(io::ErrorKind::PermissionDenied.into()), None);
        assert_eq!(denied.outcome, Outcome::Failed);
    }

    #[test]
    fn a_kubeconfig_is_read_and_its_directory_tried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("config");
        assert_eq!(kubeconfig(Some(&path)).outcome, Outcome::Ok);
        assert!(!path.parent().unwrap().exists(), "nothing is made");

        let path = directory.path().join("config");
        fs::write(&path, "contexts: [").unwrap();
        let broken = kubeconfig(Some(&path));
        assert_eq!(broken.outcome, Outcome::Failed);
        assert!(broken.advice.unwrap().contains("AZK8S0208"));
        fs::write(&path, "apiVersion: v1\nkind: Config\n").unwrap();
        assert_eq!(kubeconfig(Some(&path)).outcome, Outcome::Ok);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        // Where a directory should be is a file.
        let finding = kubeconfig(Some(&path.join("config")));
        assert_eq!(finding.outcome, Outcome::Failed);
    }
}
