use std::time::SystemTime;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const GOOD: &str = "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0=;EntityPath=a/b";

fn token(parsed: &ConnectionString) -> String {
    let hybrid_connection = parsed.hybrid_connection().unwrap();
    let now = SystemTime::UNIX_EPOCH;
    let grant = parsed
        .credential()
        .grant(&hybrid_connection, now)
        .now_or_never();
    let grant = grant.expect("nobody is asked").unwrap();
    grant.token().secret().to_owned()
}

#[test]
fn azures_form_is_read() {
    let parsed = ConnectionString::parse(GOOD).unwrap();
    let endpoint = Endpoint::new("contoso.servicebus.windows.net", 443, Security::Tls);
    assert_eq!(parsed.endpoint(), &endpoint);
    assert_eq!(parsed.entity_path(), Some("a/b"));

    let hybrid_connection = parsed.hybrid_connection().unwrap();
    let rule = SasRule::new("listen", "c2VjcmV0=").unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let expected = rule.sign(&hybrid_connection, SystemTime::UNIX_EPOCH + hour);
    assert_eq!(token(&parsed), expected.secret());
}

#[test]
fn how_it_is_wrapped_does_not_matter() {
    let expected = token(&ConnectionString::parse(GOOD).unwrap());
    for text in [
        format!("\u{feff}  {GOOD}\r\n"),
        format!("\"{GOOD}\"\n"),
        format!("' {GOOD}; '"),
        GOOD.replace(';', " ; ")
            .replace("SharedAccessKeyName", "sharedACCESSkeyname"),
        format!("OperationTimeout=00:01:00;{GOOD}"),
    ] {
        assert_eq!(token(&ConnectionString::parse(&text).unwrap()), expected);
    }
}

#[test]
fn schemes_and_ports() {
    for (url, host, port, security) in [
        ("sb://h", "h", 443, Security::Tls),
        ("wss://h/", "h", 443, Security::Tls),
        ("https://h:8443/", "h", 8443, Security::Tls),
        ("sb://127.0.0.1:9000/", "127.0.0.1", 9000, Security::Tls),
        ("ws://127.0.0.1:9000/", "127.0.0.1", 9000, Security::Plain),
        ("ws://localhost", "localhost", 80, Security::Plain),
        ("ws://[::1]:7/", "::1", 7, Security::Plain),
    ] {
        let text = GOOD.replace("sb://contoso.servicebus.windows.net/", url);
        let parsed = ConnectionString::parse(&text).unwrap();
        assert_eq!(parsed.endpoint(), &Endpoint::new(host, port, security));
    }
}

#[test]
fn a_finished_token_stands_in_for_name_and_key() {
    let hybrid_connection = ConnectionString::parse(GOOD)
        .unwrap()
        .hybrid_connection()
        .unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let finished = SasRule::new("send", "key")
        .unwrap()
        .sign(&hybrid_connection, SystemTime::UNIX_EPOCH + hour);
    let text = format!(
        "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessSignature={};EntityPath=a/b",
        finished.secret()
    );
    assert_eq!(
        token(&ConnectionString::parse(&text).unwrap()),
        finished.secret()
    );
}

#[test]
fn a_whole_namespace_has_no_hybrid_connection() {
    let parsed = ConnectionString::parse(GOOD.trim_end_matches("EntityPath=a/b")).unwrap();
    assert_eq!(parsed.entity_path(), None);
    let error = parsed.hybrid_connection().unwrap_err();
    assert!(error.to_string().contains("EntityPath is missing"));
}

#[test]
fn each_fault_names_its_part_and_never_the_key() {
    let without = |part: &str| {
        let kept: Vec<_> = GOOD.split(';').filter(|p| !p.starts_with(part)).collect();
        kept.join(";")
    };
    let replaced = |from: &str, to: &str| GOOD.replace(from, to);
    let long = format!("{GOOD};X={}", "x".repeat(MAX_LENGTH));
    for (text, named) in [
        (String::new(), "is empty"),
        ("  \n".to_owned(), "is empty"),
        ("\"\"".to_owned(), "is empty"),
        ("c2VjcmV0".to_owned(), "no '='"),
        ("c2VjcmV0=".to_owned(), "Endpoint is missing"),
        (long, "longer than 16 KiB"),
        (without("Endpoint"), "Endpoint is missing"),
        (
            without("SharedAccessKeyName"),
            "SharedAccessKeyName is missing",
        ),
        (without("SharedAccessKey="), "SharedAccessKey is missing"),
        (without("SharedAccessKey"), "SharedAccessKey is missing"),
        (replaced("listen", ""), "SharedAccessKeyName is empty"),
        (replaced("c2VjcmV0=", ""), "SharedAccessKey is empty"),
        (replaced("a/b", ""), "EntityPath is empty"),
        (replaced("a/b", "a?b"), "EntityPath is not usable"),
        (format!("{GOOD};EntityPath=c"), "EntityPath is there twice"),
        (replaced("sb://", ""), "Endpoint is not usable"),
        (replaced("sb://", "ftp://"), "Endpoint is not usable"),
        (replaced(".net/", ".net:port/"), "Endpoint is not usable"),
        (replaced(".net/", ".net/path"), "Endpoint is not usable"),
        (replaced("/;", "/"), "Endpoint is not usable"),
        (replaced("sb://", "ws://"), "loopback only"),
        (
            format!("{GOOD};SharedAccessSignature=c2VjcmV0"),
            "both a SharedAccessSignature",
        ),
        (
            replaced(
                "SharedAccessKeyName=listen;SharedAccessKey",
                "SharedAccessSignature",
            ),
            "SharedAccessSignature is not usable",
        ),
    ] {
        let error = ConnectionString::parse(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{text}: {error}");
        assert!(error.help().is_some());
        let printed = format!("{error:?} {}", error.report());
        assert!(!printed.contains("c2VjcmV0"), "{printed}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let printed = format!("{:?}", ConnectionString::parse(GOOD).unwrap());
    assert!(printed.contains("contoso") && !printed.contains("c2VjcmV0"));
}

#[test]
fn a_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("connection-string");
    std::fs::write(&path, format!("{GOOD}\n")).unwrap();
    let parsed = ConnectionString::read_file(&path).unwrap();
    assert_eq!(parsed.entity_path(), Some("a/b"));
}

#[test]
fn an_unusable_file_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    for (path, kind) in [
        (folder.path().join("missing"), ErrorKind::File),
        (folder.path().to_owned(), ErrorKind::File),
        (file("binary", b"\xff\xfe"), ErrorKind::File),
        (file("empty", b""), ErrorKind::InvalidInput),
        (
            file("huge", &vec![b'x'; MAX_LENGTH * 2]),
            ErrorKind::InvalidInput,
        ),
    ] {
        let error = ConnectionString::read_file(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()));
        assert!(error.help().is_some());
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in "(Endpoint=|sb://|;|=|EntityPath|SharedAccessSignature=|.){0,60}") {
        let _ = ConnectionString::parse(&text);
    }
}
