use super::*;

#[test]
fn the_text_is_as_prometheus_reads_it() {
    let metrics = Metrics::default();
    metrics.request_started();
    metrics.request_started();
    metrics.request_ended(
        RequestKind::Plain,
        &Method::GET,
        Some(StatusCode::OK),
        "allowed",
        Duration::from_millis(20),
    );
    metrics.malformed(StatusCode::BAD_REQUEST, "BadRequest");
    metrics.upstream_failed(ErrorKind::Network);
    metrics.relay_offline(ErrorKind::Timeout);
    metrics.bytes(Direction::ToCaller, 7);
    metrics.stalled(Direction::ToCaller, Duration::from_secs(2));
    let text = metrics.render(Surroundings {
        draining: true,
        relays_online: 1,
        relays_offline: 0,
        audit_lost: 3,
        key_refreshes: RefreshCounts::new(4, 5),
        token_refreshes: RefreshCounts::new(6, 7),
    });
    for line in [
        "# TYPE acc_requests_total counter",
        r#"acc_requests_total{method="GET",code="2xx",decision="allowed"} 1"#,
        r#"acc_requests_total{method="other",code="4xx",decision="denied"} 1"#,
        r#"acc_requests_denied_total{reason="BadRequest"} 1"#,
        "acc_requests_in_flight 1",
        r#"acc_request_duration_seconds_bucket{kind="plain",le="0.005"} 0"#,
        r#"acc_request_duration_seconds_bucket{kind="plain",le="0.025"} 1"#,
        r#"acc_request_duration_seconds_bucket{kind="plain",le="3600"} 1"#,
        r#"acc_request_duration_seconds_bucket{kind="plain",le="+Inf"} 1"#,
        r#"acc_request_duration_seconds_sum{kind="plain"} 0.02"#,
        r#"acc_request_duration_seconds_count{kind="plain"} 1"#,
        r#"acc_first_byte_duration_seconds_bucket{le="+Inf"} 0"#,
        r#"acc_bytes_total{direction="to_caller"} 7"#,
        "acc_upstream_conns 0",
        r#"acc_stream_stall_seconds_sum{direction="to_caller"} 2"#,
        r#"acc_stream_stall_seconds_count{direction="to_api_server"} 0"#,
        r#"acc_upstream_failures_total{reason="unreachable"} 1"#,
        r#"acc_relay_registrations{state="online"} 1"#,
        r#"acc_relay_reconnects_total{reason="timeout"} 1"#,
        "acc_draining 1",
        "acc_drain_remaining_streams 1",
        "acc_audit_lost_total 3",
        r#"acc_jwks_refresh_total{outcome="success"} 4"#,
        r#"acc_jwks_refresh_total{outcome="failure"} 5"#,
        r#"acc_token_refresh_total{outcome="success"} 6"#,
        r#"acc_token_refresh_total{outcome="failure"} 7"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in:\n{text}"
        );
    }
}

#[test]
fn every_metric_is_described_once_and_its_samples_follow() {
    let text = Metrics::default().render(Surroundings::default());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().expect("a name").to_owned();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
            continue;
        }
        let family = families.last().expect("help comes first");
        let rest = line.strip_prefix("# TYPE ").unwrap_or(line);
        assert!(rest.starts_with(family.as_str()), "{line} below {family}");
    }
    assert_eq!(families.len(), 22);
}
