//! The cluster that the quickstart reaches: a real one, or the stand-in.

use std::path::Path;

use arc_cluster_connect::{Error, ErrorKind, Result, agent::ApiServer, kubeconfig::Kubeconfig};

use crate::{
    Arguments,
    api_server::{StandIn, User, random_token},
};

/// Who the stand-in takes the caller for.
const STAND_IN_USER: &str = "system:serviceaccount:default:admin-user";

pub struct Cluster {
    pub description: String,
    pub api_server: ApiServer,
    pub token: String,
    stand_in: Option<StandIn>,
}

impl Cluster {
    pub async fn find(arguments: &Arguments) -> Result<Self> {
        match &arguments.kubeconfig {
            Some(path) => Self::real(arguments, path),
            None => Self::stand_in().await,
        }
    }

    /// How the API server saw the caller of the last request.
    pub fn seen_as(&self) -> String {
        match &self.stand_in {
            Some(_) => STAND_IN_USER.to_owned(),
            None => "the owner of the token".to_owned(),
        }
    }

    pub async fn shutdown(self) {
        if let Some(stand_in) = self.stand_in {
            stand_in.shutdown().await;
        }
    }

    fn real(arguments: &Arguments, path: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read(path)?;
        let context = arguments.context.as_deref();
        let api_server = ApiServer::from_kubeconfig(
            &kubeconfig,
            context,
            path.parent().unwrap_or(Path::new(".")),
        )?;
        let token = match &arguments.token_file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| {
                Error::new(
                    ErrorKind::File,
                    format!("can not read the token file {}", file.display()),
                )
                .with_source(error)
            })?,
            None => kubeconfig
                .resolve(context)?
                .user
                .and_then(|user| user.token.as_ref())
                .map(|token| token.expose().to_owned())
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        "the kubeconfig's user has no token, and certificates do not pass through an agent",
                    )
                    .with_help(
                        "make one with `kubectl create token NAME > token` and pass --token-file token",
                    )
                })?,
        };
        Ok(Self {
            description: format!("{api_server} (from {})", path.display()),
            api_server,
            token,
            stand_in: None,
        })
    }

    async fn stand_in() -> Result<Self> {
        let token = random_token();
        let stand_in = StandIn::builder()
            .token(&token, User::service_account("default", "admin-user"))
            .pod("default", "web-0")
            .pod("default", "web-1")
            .start()
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Network, "the stand-in API server can not start")
                    .with_source(error)
            })?;
        let kubeconfig = Kubeconfig::parse(&stand_in.kubeconfig(None))?;
        let api_server = ApiServer::from_kubeconfig(&kubeconfig, None, Path::new("."))?;
        Ok(Self {
            description: format!(
                "{api_server} (an embedded stand-in; --kubeconfig takes a real one)"
            ),
            api_server,
            token,
            stand_in: Some(stand_in),
        })
    }
}
