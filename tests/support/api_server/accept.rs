//! Content negotiation: which shape of answer a client prefers among those that exist here.

use http::{HeaderMap, header};

use super::status::Status;

/// A shape that a resource can be answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The objects themselves.
    Plain,
    /// `meta.k8s.io/v1` `Table`: what `kubectl get` prints.
    Table,
    /// `apidiscovery.k8s.io/v2`: all groups in one answer.
    AggregatedDiscovery,
}

/// The first media type in `Accept` that can be served; plain JSON when nothing is asked for.
pub(super) fn preferred(headers: &HeaderMap, offered: &[Shape]) -> Result<Shape, Status> {
    let mut asked = false;
    for value in headers.get_all(header::ACCEPT) {
        for media_type in value.to_str().unwrap_or_default().split(',') {
            asked = true;
            if let Some(shape) = shape(media_type)
                && (shape == Shape::Plain || offered.contains(&shape))
            {
                return Ok(shape);
            }
        }
    }
    if asked {
        Err(Status::not_acceptable())
    } else {
        Ok(Shape::Plain)
    }
}

fn shape(media_type: &str) -> Option<Shape> {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next()?;
    if !matches!(essence, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut version, mut group) = (None, None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => kind = Some(value),
            Some(("v", value)) => version = Some(value),
            Some(("g", value)) => group = Some(value),
            _ => {}
        }
    }
    match (kind, version, group) {
        (None, _, _) => Some(Shape::Plain),
        (Some("Table"), Some("v1"), Some("meta.k8s.io")) => Some(Shape::Table),
        (Some("APIGroupDiscoveryList"), Some("v2"), Some("apidiscovery.k8s.io")) => {
            Some(Shape::AggregatedDiscovery)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn preferred_of(accept: &'static str, offered: &[Shape]) -> Result<Shape, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        preferred(&headers, offered).map_err(|status| status.code().as_u16())
    }

    #[test]
    fn the_first_shape_that_exists_wins() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(preferred_of(kubectl_get, &[Shape::Table]), Ok(Shape::Table));
        assert_eq!(preferred_of(kubectl_get, &[]), Ok(Shape::Plain));
        assert_eq!(
            preferred_of("application/vnd.kubernetes.protobuf, */*", &[]),
            Ok(Shape::Plain)
        );
    }

    #[test]
    fn what_does_not_exist_here_is_refused() {
        assert_eq!(
            preferred_of("application/vnd.kubernetes.protobuf", &[Shape::Table]),
            Err(406)
        );
    }
}
