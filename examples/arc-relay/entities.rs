//! Which hybrid connections the relay offers, and what each takes.

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    relay::server::{EntityOptions, RelayServerBuilder},
};
use clap::Args;

#[derive(Args)]
pub struct EntityArguments {
    /// A hybrid connection to offer (repeatable)
    #[arg(long, value_name = "NAME", required = true)]
    hybrid_connection: Vec<String>,

    /// One of the hybrid connections whose senders need no token, as Azure has it without client authorization: who is
    /// behind its listener has to know the callers (repeatable)
    #[arg(long, value_name = "NAME")]
    anonymous_senders: Vec<String>,

    /// One of the hybrid connections that takes WebSockets only: HTTP requests are answered with 404 (repeatable)
    #[arg(long, value_name = "NAME")]
    websockets_only: Vec<String>,
}

impl EntityArguments {
    pub fn apply(&self, mut builder: RelayServerBuilder) -> Result<RelayServerBuilder> {
        for (option, names) in [
            ("--anonymous-senders", &self.anonymous_senders),
            ("--websockets-only", &self.websockets_only),
        ] {
            for name in names {
                self.check(option, name)?;
            }
        }
        for name in &self.hybrid_connection {
            let mut options = EntityOptions::new();
            if self.anonymous_senders.contains(name) {
                options = options.anonymous_senders();
            }
            if self.websockets_only.contains(name) {
                options = options.websockets_only();
            }
            builder = builder.hybrid_connection_with(name, options);
        }
        Ok(builder)
    }

    /// For a person to read.
    pub fn names(&self) -> String {
        self.hybrid_connection.join(", ")
    }

    /// A misspelt name must not leave a hybrid connection as it was not meant to be.
    fn check(&self, option: &str, name: &String) -> Result<()> {
        if self.hybrid_connection.contains(name) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{option} {name}: there is no such --hybrid-connection"),
        )
        .with_help(format!("offered are: {}", self.names())))
    }
}

#[cfg(test)]
mod tests {
    use arc_cluster_connect::relay::server::RelayServer;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        entities: EntityArguments,
    }

    fn parse(line: &str) -> EntityArguments {
        let words = std::iter::once("relay").chain(line.split(' '));
        Program::try_parse_from(words)
            .unwrap_or_else(|error| panic!("{error}"))
            .entities
    }

    #[test]
    fn options_are_for_hybrid_connections_that_are_offered() {
        for (line, complaint) in [
            (
                "--hybrid-connection one --anonymous-senders one --websockets-only one",
                None,
            ),
            (
                "--hybrid-connection one --hybrid-connection two --anonymous-senders tow",
                Some("--anonymous-senders tow: there is no such --hybrid-connection"),
            ),
            (
                "--hybrid-connection one --websockets-only two",
                Some("--websockets-only two: there is no such --hybrid-connection"),
            ),
        ] {
            let applied = parse(line).apply(RelayServer::builder());
            let found = applied.err().map(|error| error.to_string());
            match complaint {
                None => assert_eq!(found, None),
                Some(complaint) => assert!(found.unwrap().contains(complaint), "{line}"),
            }
        }
    }
}
