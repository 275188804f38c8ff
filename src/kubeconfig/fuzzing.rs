//! Entry points of the fuzz targets. Not part of the API.

use super::{
    CurrentContext, Kubeconfig, KubeconfigBuilder, ProxyEndpoint, TokenKubeconfig, marker, merge,
    rewrite,
};

/// Takes `input` for a user's kubeconfig, merges ours into its text and takes it out again. Each text must hold what
/// the same change of the model gives.
///
/// # Panics
/// When it does not.
pub fn merge(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(base) = Kubeconfig::parse(text) else {
        return;
    };
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", "s".into());
    let built = TokenKubeconfig::new("till").build(&endpoint);
    let built = built.expect("the name is a usual one");
    let earlier = merge::earlier_context(&base, &built).to_owned();
    let addition = marker::marked(&built, &earlier);
    let Ok(merged) = merge::merge(&base, &addition, CurrentContext::Switch) else {
        return;
    };
    let merged = merged.kubeconfig;
    let with_ours = change(text, &base, &merged, None);
    let kept = merge::remove(&merged, &addition, &earlier);
    change(&with_ours, &merged, &kept, Some(text));
    change(&with_ours, &merged, &kept, None);
}

fn change(text: &str, base: &Kubeconfig, target: &Kubeconfig, original: Option<&str>) -> String {
    let new = rewrite::rewrite(text, base, target, original).expect("it was readable");
    let read = Kubeconfig::parse(&new).expect("what we write can be read");
    assert!(read == *target, "the text holds something else");
    new
}
