use proptest::prelude::*;

use super::*;
use crate::net::{Endpoint, Security};

const RULE: &str = "RootManageSharedAccessKey";
const KEY: &str = "dGVzdC1rZXktZm9yLWRvY3MtMzItYnl0ZXMtMDEyMzQ=";
const HOST: &str = "contoso.servicebus.windows.net";
const EXPIRY: Duration = Duration::from_secs(1_893_456_000);

const VECTOR_A: &str = "SharedAccessSignature sr=http%3A%2F%2Fcontoso.servicebus.windows.net%2Fhyco%2F&sig=gfNXjaUYnmYEtZO%2FrhlQKAtPOpFufXfngs5BIYXD8OQ%3D&se=1893456000&skn=RootManageSharedAccessKey";
const VECTOR_B: &str = "SharedAccessSignature sr=http%3A%2F%2Fcontoso.servicebus.windows.net%3A443%2Fhyco&sig=LTRxh6%2BbnLNhEn1WX6EFbu3UYeO1srUmaLIA84K1%2FGo%3D&se=1893456000&skn=RootManageSharedAccessKey";
const VECTOR_C: &str = "SharedAccessSignature sr=http%3A%2F%2Fcontoso.servicebus.windows.net%2F&sig=9qcucImz0rvTkcm7XzR83yKpBD6jJB0oGi%2F1WvZdC7g%3D&se=1893456000&skn=RootManageSharedAccessKey";
const VECTOR_D: &str = "SharedAccessSignature sr=http%3a%2f%2fcontoso.servicebus.windows.net%2fhyco%2f&sig=J%2BJ5oU83687LNzYvzQf6spcevUkwsCyBVbpIQ17Ruzk%3D&se=1893456000&skn=RootManageSharedAccessKey";

fn rule() -> SasRule {
    SasRule::new(RULE, KEY).unwrap()
}

fn expires_at() -> SystemTime {
    UNIX_EPOCH + EXPIRY
}

fn verify(token: &str, host: &str, path: &str) -> Result<(), SasError> {
    let now = expires_at() - Duration::from_secs(1);
    SasToken::parse(token)?.verify(&rule(), host, path, now)
}

/// What a verifier sees of `token`, whichever way it is written.
fn meaning(token: &str) -> Option<(String, String, Vec<u8>, String)> {
    let token = SasToken::parse(token).ok()?;
    Some((
        token.resource.to_owned(),
        token.expiry.to_owned(),
        token.signature,
        token.rule_name,
    ))
}

#[test]
fn our_own_token_is_vector_a() {
    let endpoint = Endpoint::new(HOST, 443, Security::Tls);
    let hybrid_connection = HybridConnection::new(endpoint, "hyco").unwrap();
    let token = rule().sign(&hybrid_connection, expires_at());
    assert_eq!(token.secret(), VECTOR_A);
    assert_eq!(token.expires_at(), Some(expires_at()));
}

#[test]
fn vectors_b_and_c_are_reproduced() {
    let signed = |audience: &str| rule().sign_audience(audience, expires_at());
    assert_eq!(
        signed("http://contoso.servicebus.windows.net:443/hyco").secret(),
        VECTOR_B
    );
    assert_eq!(
        signed("http://contoso.servicebus.windows.net/").secret(),
        VECTOR_C
    );
}

#[test]
fn vectors_a_to_d_verify() {
    for token in [VECTOR_A, VECTOR_B, VECTOR_C, VECTOR_D] {
        assert_eq!(verify(token, HOST, "hyco"), Ok(()), "{token}");
    }
}

#[test]
fn a_signature_under_the_decoded_key_is_refused() {
    let wrong = VECTOR_A.replace(
        "gfNXjaUYnmYEtZO%2FrhlQKAtPOpFufXfngs5BIYXD8OQ%3D",
        "9IudSQDS%2BJ9Jgyo18tn8RWXeQEWb8%2B7AGUY%2FYNC65ME%3D",
    );
    assert_eq!(
        verify(&wrong, HOST, "hyco"),
        Err(SasError::InvalidSignature)
    );
}

#[test]
fn the_raw_resource_is_what_is_signed() {
    // Decoding and escaping again would turn D's resource into A's, for which A's signature is right.
    let mixed = VECTOR_A.replace("%3A%2F%2F", "%3a%2f%2f");
    assert_eq!(
        verify(&mixed, HOST, "hyco"),
        Err(SasError::InvalidSignature)
    );
}

#[test]
fn the_audience_is_compared_by_host_and_segments() {
    let check = |audience: &str, host: &str, path: &str| {
        let token = rule().sign_audience(audience, expires_at());
        verify(token.secret(), host, path)
    };
    for (audience, host, path) in [
        ("sb://HOST/A/b", "host", "a/B"),
        ("https://host:8443/a/b/", "host", "/a/b/"),
        ("http://host/$hc/a", "host:443", "a/b"),
        ("http://host/a", "host", "$hc/a"),
        ("http://host/", "host", "anything/below"),
        ("http://host", "host", "a"),
        ("host/a", "host", "a"),
        ("http://[::1]:80/a", "::1", "a"),
        ("http://127.0.0.1/a", "127.0.0.1:9000", "a"),
    ] {
        assert_eq!(
            check(audience, host, path),
            Ok(()),
            "{audience} {host} {path}"
        );
    }
    for (audience, host, path) in [
        ("http://host/a/b", "host", "a"),
        ("http://host/a", "host", "ab"),
        ("http://host/a//b", "host", "a/b"),
        ("http://host/$hcx", "host", "x"),
        ("http://other/a", "host", "a"),
        ("http://host.evil/a", "host", "a"),
        ("http://host@evil/a", "host", "a"),
        ("http://[::2]/a", "::1", "a"),
        ("", "host", "a"),
    ] {
        assert_eq!(
            check(audience, host, path),
            Err(SasError::InvalidAudience),
            "{audience} {host} {path}"
        );
    }
}

#[test]
fn a_token_ends_at_its_expiry() {
    let token = SasToken::parse(VECTOR_A).unwrap();
    assert_eq!(token.expires_at(), expires_at());
    assert_eq!(
        token.verify(&rule(), HOST, "hyco", expires_at()),
        Err(SasError::Expired)
    );
}

#[test]
fn another_rule_or_key_is_an_invalid_signature() {
    let token = SasToken::parse(VECTOR_A).unwrap();
    assert_eq!(token.rule_name, RULE);
    for other in [SasRule::new("other", KEY), SasRule::new(RULE, "other")] {
        assert_eq!(
            token.verify(&other.unwrap(), HOST, "hyco", UNIX_EPOCH),
            Err(SasError::InvalidSignature)
        );
    }
}

#[test]
fn the_signature_is_judged_before_expiry_and_audience() {
    let forged = VECTOR_A.replace("gfNX", "AAAA");
    let token = SasToken::parse(&forged).unwrap();
    let late = expires_at() + EXPIRY;
    assert_eq!(
        token.verify(&rule(), "elsewhere", "other", late),
        Err(SasError::InvalidSignature)
    );
}

#[test]
fn fields_come_in_any_order_and_with_others() {
    let (scheme, fields) = VECTOR_A.split_once(' ').unwrap();
    let reversed: Vec<_> = fields.split('&').rev().collect();
    let token = format!("{} x=1&{}", scheme.to_ascii_lowercase(), reversed.join("&"));
    assert_eq!(verify(&token, HOST, "hyco"), Ok(()));
}

#[test]
fn malformed_tokens_are_refused() {
    let long = format!("{VECTOR_A}&x={}", "x".repeat(MAX_TOKEN_LENGTH));
    let long_name = VECTOR_A.replace(RULE, &"n".repeat(MAX_PART_LENGTH + 1));
    for token in [
        "",
        "SharedAccessSignature",
        "SharedAccessSignature ",
        "Bearer sr=a&sig=AAAA&se=1&skn=a",
        "SharedAccessSignature sr",
        "SharedAccessSignature sr=a&sig=AAAA&se=1",
        "SharedAccessSignature sr=a&sig=AAAA&skn=a",
        "SharedAccessSignature sr=a&se=1&skn=a",
        "SharedAccessSignature sig=AAAA&se=1&skn=a",
        "SharedAccessSignature sr=a&sr=b&sig=AAAA&se=1&skn=a",
        "SharedAccessSignature sr=a&sig=%%&se=1&skn=a",
        "SharedAccessSignature sr=a&sig=AAAA&se=&skn=a",
        "SharedAccessSignature sr=a&sig=AAAA&se=+1&skn=a",
        "SharedAccessSignature sr=a&sig=AAAA&se=99999999999999999999&skn=a",
        "SharedAccessSignature sr=a&sig=AAAA&se=18446744073709551615&skn=a",
        "SharedAccessSignature sr=a&sig=AAAA&se=1&skn=",
        "SharedAccessSignature sr=a&sig=AAAA&se=1&skn=%ff",
        &long,
        &long_name,
    ] {
        let refused = SasToken::parse(token).map(|_| ()).unwrap_err();
        assert!(matches!(refused, SasError::Malformed(_)), "{token}");
    }
}

#[test]
fn a_rule_has_bounds() {
    let at_limit = "k".repeat(MAX_PART_LENGTH);
    SasRule::new(at_limit.clone(), at_limit.clone()).unwrap();
    for (name, key) in [
        ("", "key"),
        ("name", ""),
        ("na\nme", "key"),
        ("name", "ke\0y"),
        (&*format!("{at_limit}k"), "key"),
        ("name", &*format!("{at_limit}k")),
    ] {
        let error = SasRule::new(name, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        name in "[^\\p{C}]{1,40}",
        key in "[^\\p{C}]{1,80}",
        path in "[a-zA-Z0-9._~é-]{1,20}x(/[a-z0-9]{1,10}){0,3}",
        life in 1..4_000_000_000_u64,
    ) {
        let endpoint = Endpoint::new("relay.example", 8080, Security::Plain);
        let hybrid_connection = HybridConnection::new(endpoint, &path).unwrap();
        let rule = SasRule::new(name, key).unwrap();
        let token = rule.sign(&hybrid_connection, UNIX_EPOCH + Duration::from_secs(life));
        let parsed = SasToken::parse(token.secret()).unwrap();
        prop_assert_eq!(parsed.rule_name.as_str(), rule.name());
        let now = UNIX_EPOCH + Duration::from_secs(life - 1);
        prop_assert_eq!(parsed.verify(&rule, "RELAY.example:1", &path, now), Ok(()));
        prop_assert_eq!(
            parsed.verify(&rule, "relay.example", "elsewhere", now),
            Err(SasError::InvalidAudience)
        );
    }

    #[test]
    fn a_changed_token_never_verifies(at in 0..VECTOR_A.len(), to in 0x20..0x7f_u8) {
        let mut bytes = VECTOR_A.as_bytes().to_vec();
        bytes[at] = to;
        let changed = String::from_utf8(bytes).unwrap();
        // Another writing of the same token (letter case of the scheme word or of an escape) is no change.
        if meaning(&changed) != meaning(VECTOR_A) {
            prop_assert!(verify(&changed, HOST, "hyco").is_err(), "{}", changed);
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in ".{0,200}") {
        let _ = SasToken::parse(&text);
        if let Ok(token) = SasToken::parse(&format!("SharedAccessSignature {text}")) {
            let _ = token.verify(&rule(), &text, &text, UNIX_EPOCH);
        }
    }
}
