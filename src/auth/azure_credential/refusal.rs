//! What Entra ID, and the tools that ask it, say when they say no; and what to do about it.

use std::error::Error as StdError;

use super::{CredentialKind, own_error};
use crate::{Error, ErrorKind, auth::aad::Reported};

/// The error of a refusal. `code` is of the form `AADSTS…`, `name` an error of RFC 6749 section 5.2.
pub(super) fn refusal(
    kind: CredentialKind,
    scope: &str,
    status: Option<u16>,
    code: Option<&str>,
    name: Option<&str>,
) -> Error {
    let mut details: Vec<String> = code.or(name).map(str::to_owned).into_iter().collect();
    details.extend(status.map(|status| format!("HTTP status {status}")));
    let details = match details.as_slice() {
        [] => String::new(),
        details => format!(" ({})", details.join(", ")),
    };
    let error = if matches!(status, Some(408 | 429 | 500..)) {
        Error::new(
            ErrorKind::Refused,
            format!("Entra ID is not able to give a token for {scope} at the moment{details}"),
        )
        .with_help("try again later")
    } else {
        let help = code
            .and_then(advice)
            .unwrap_or_else(|| general_advice(kind));
        Error::new(
            ErrorKind::Unauthorized,
            format!("Entra ID refused {kind} a token for {scope}{details}"),
        )
        .with_help(help)
    };
    match status {
        Some(status) => error.with_status(status),
        None => error,
    }
}

/// What a credential of `azure_identity` reports, in our words.
pub(super) fn of_library(kind: CredentialKind, scope: &str, error: &azure_core::Error) -> Error {
    // The description names tenants and applications: for the log of whoever runs this, not for errors that travel.
    tracing::debug!(%error, scope, "the credential gave no token");
    if let Some(own) = own_error(error) {
        return again(kind, own);
    }
    let Reported {
        status,
        code,
        is_network,
    } = Reported::by(error);
    match (kind, status) {
        (CredentialKind::AzureCli | CredentialKind::AzureDeveloperCli, None) => {
            of_tool(kind, scope, code.as_deref(), &error.to_string())
        }
        (CredentialKind::ManagedIdentity, Some(400)) => Error::new(
            ErrorKind::Unauthorized,
            format!("this machine has no such managed identity for {scope} (HTTP status 400)"),
        )
        .with_status(400)
        .with_help("assign the identity to the resource (`az vm identity assign`), or correct its client id"),
        (_, None) if is_network => Error::new(ErrorKind::Network, format!("{kind} is out of reach"))
            .with_help(general_advice(kind)),
        (_, None) if code.is_none() => Error::new(
            ErrorKind::Unauthorized,
            format!("{kind} gave no token for {scope}"),
        )
        .with_help(general_advice(kind)),
        _ => refusal(kind, scope, status, code.as_deref(), None),
    }
}

/// What `az` or `azd` wrote.
fn of_tool(kind: CredentialKind, scope: &str, code: Option<&str>, text: &str) -> Error {
    let (tool, login, install) = match kind {
        CredentialKind::AzureDeveloperCli => {
            ("azd", "azd auth login", "https://aka.ms/azd-install")
        }
        _ => ("az", "az login", "https://aka.ms/install-azure-cli"),
    };
    if text.contains("not found on PATH") {
        return Error::new(ErrorKind::NotFound, format!("`{tool}` is not on the PATH")).with_help(
            format!("install it ({install}), or sign in another way: with a device code, for one"),
        );
    }
    if let Some(code) = code {
        return refusal(kind, scope, None, Some(code), None);
    }
    Error::new(
        ErrorKind::Unauthorized,
        format!("`{tool}` gave no token for {scope}"),
    )
    .with_help(format!(
        "log in with `{login}`; the debug log has what `{tool}` wrote"
    ))
}

/// A failure on the way to `place`, without the URL: its path names the tenant.
pub(super) fn on_the_way(error: &Error, place: &str) -> Error {
    let mut text = format!("no answer from {place}");
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    let help = error.help().unwrap_or(
        "check the network, and that proxies and firewalls let this program reach the place",
    );
    Error::new(error.kind(), text).with_help(help.to_owned())
}

fn again(kind: CredentialKind, error: &Error) -> Error {
    let again = Error::new(error.kind(), format!("{kind}: {}", error.report()));
    match error.help() {
        Some(help) => again.with_help(help.to_owned()),
        None => again.with_help(general_advice(kind)),
    }
}

fn general_advice(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::AzureCli => "log in again with `az login`",
        CredentialKind::AzureDeveloperCli => "log in again with `azd auth login`",
        CredentialKind::DeviceCode => "sign in again",
        CredentialKind::ManagedIdentity => {
            "check that this machine has a managed identity, and that 169.254.169.254 can be reached from here"
        }
        CredentialKind::ArcServer => "check the agent with `azcmagent show`",
        CredentialKind::WorkloadIdentity => {
            "check the federated credential of the application: issuer, subject and audience"
        }
        _ => "look up the AADSTS code at https://login.microsoftonline.com/error",
    }
}

/// What to do about the codes that people meet. Source: Microsoft's "Microsoft Entra authentication and authorization
/// error codes".
fn advice(code: &str) -> Option<&'static str> {
    let number = code.strip_prefix("AADSTS")?;
    let advice = match number {
        "7000215" => "the client secret is wrong: give its value, not its id",
        "7000222" => {
            "the client secret has expired: make a new one (`az ad app credential reset --id CLIENT_ID`)"
        }
        "7000216" => "give the client secret, or a certificate",
        "700016" => "this tenant has no such application: check client id, tenant and cloud",
        "700027" | "700030" | "700036" => {
            "the certificate is not registered with the application, or has expired: upload it (`az ad app credential reset --id CLIENT_ID --cert @FILE`)"
        }
        "7000112" => "the application is disabled in this tenant: ask its administrator",
        "90002" | "900021" | "900023" => {
            "there is no such tenant in this cloud: check tenant and cloud"
        }
        "500011" | "650052" | "650057" => {
            "the tenant does not know what the token is for: check the scope and the cloud, and that Azure Arc is registered (`az provider register -n Microsoft.Kubernetes`)"
        }
        "50020" | "50177" | "90072" => {
            "the account is not of this tenant: log in to the cluster's tenant (`az login --tenant TENANT_ID`)"
        }
        "50034" | "50057" | "50126" => {
            "check the account: it is unknown, disabled, or its password is wrong"
        }
        "50055" | "50144" => "the password has expired: change it, then log in again",
        "50076" | "50079" | "50078" | "50158" => {
            "more than a password is asked for: log in again (`az login --tenant TENANT_ID`), and confirm"
        }
        "50173" | "70043" | "700082" | "700084" | "700081" | "50089" | "50132" => {
            "the sign-in has ended: log in again (`az login`)"
        }
        "53000" | "53001" | "53002" | "53003" | "530003" | "530033" | "50005" => {
            "Conditional Access forbids this sign-in: use another device, network or way to sign in, or ask the tenant's administrator"
        }
        "65001" | "90094" | "65004" => {
            "the application lacks consent: ask the tenant's administrator"
        }
        "700211" | "700212" | "700213" | "700021" | "70021" | "700024" | "7002138" | "7000272" => {
            "the federated token does not match: compare issuer, subject and audience with the application's federated credential, and check this machine's clock"
        }
        "70016" => "the sign-in is not complete yet",
        "70019" | "70020" => "the code has expired: start again",
        "7000218" => {
            "the application is not a public client: allow public client flows, or give its secret"
        }
        "50196" => "the same request was repeated too often: stop the program and find out why",
        _ => return None,
    };
    Some(advice)
}
