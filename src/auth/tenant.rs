//! [`TenantId`]: one Entra ID tenant.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{Error, ErrorKind, Result};

/// An Entra ID tenant, by its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(Uuid);

impl TenantId {
    /// The tenant of this id, which is a UUID. Domain names are not taken: a token names its tenant by the id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub fn parse(text: &str) -> Result<Self> {
        // Only the form with hyphens, in which tokens have it.
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(id)),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "the tenant is not a UUID such as 72f988bf-86f1-41af-91ab-2d7cd011db47",
            )
            .with_help("`az account show --query tenantId` shows it")),
        }
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn a_tenant_is_a_uuid_in_lower_case() {
        let tenant = TenantId::parse(&TENANT.to_uppercase()).unwrap();
        assert_eq!(tenant.to_string(), TENANT);
        for text in [
            "common",
            "contoso.onmicrosoft.com",
            "",
            "72f988bf86f141af91ab2d7cd011db47",
            "../x",
        ] {
            assert!(TenantId::parse(text).is_err(), "{text}");
        }
    }
}
