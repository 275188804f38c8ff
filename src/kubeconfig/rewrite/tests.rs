mod properties;

use super::*;
use crate::kubeconfig::{
    CurrentContext, KubeconfigBuilder, ProxyEndpoint, TokenKubeconfig, marker, merge,
};

fn ours(name: &str) -> Kubeconfig {
    let endpoint = ProxyEndpoint::new("https://127.0.0.1:1/proxies/ab12", "PEM", "s".into());
    TokenKubeconfig::new(name).build(&endpoint).unwrap()
}

struct Merged {
    text: String,
    model: Kubeconfig,
    addition: Kubeconfig,
    earlier: String,
}

fn merged(text: &str, name: &str) -> Merged {
    let base = Kubeconfig::parse(text).unwrap();
    let earlier = merge::earlier_context(&base, &ours(name)).to_owned();
    let addition = marker::marked(&ours(name), &earlier);
    let model = merge::merge(&base, &addition, CurrentContext::Switch)
        .unwrap()
        .kubeconfig;
    let new = rewrite(text, &base, &model, None).unwrap();
    assert_eq!(Kubeconfig::parse(&new).unwrap(), model, "{new}");
    Merged {
        text: new,
        model,
        addition,
        earlier,
    }
}

fn removed(merged: &Merged, original: Option<&str>) -> String {
    let kept = merge::remove(&merged.model, &merged.addition, &merged.earlier);
    let new = rewrite(&merged.text, &merged.model, &kept, original).unwrap();
    assert_eq!(Kubeconfig::parse(&new).unwrap(), kept, "{new}");
    new
}

const OURS_IN_KUBECTLS_FORM: &str = "\
apiVersion: v1
# production: take care
clusters:
- cluster: &home   # an anchor
    server: 'https://home:6443'
  name: home
- name: till
  cluster:
    server: https://127.0.0.1:1/proxies/ab12
    certificate-authority-data: UEVN
    extensions:
    - name: arc-cluster-connect
      extension:
        provider: arc-cluster-connect

contexts:
- {name: me@home, context: {cluster: home, user: me}}
- name: till
  context:
    cluster: till
    user: till
    extensions:
    - name: arc-cluster-connect
      extension:
        provider: arc-cluster-connect
        earlier-context: me@home
current-context: till # for now
users:
- {name: me, user: {token: t}}
- name: till
  user:
    token: s
    extensions:
    - name: arc-cluster-connect
      extension:
        provider: arc-cluster-connect
# the end
";

#[test]
fn entries_are_spliced_in_and_cut_out() {
    let original = "\
apiVersion: v1
# production: take care
clusters:
- cluster: &home   # an anchor
    server: 'https://home:6443'
  name: home

contexts:
- {name: me@home, context: {cluster: home, user: me}}
current-context: me@home # for now
users:
- {name: me, user: {token: t}}
# the end
";
    let merged = merged(original, "till");
    assert_eq!(merged.text, OURS_IN_KUBECTLS_FORM);
    assert_eq!(removed(&merged, None), original);
}

#[test]
fn an_entry_of_ours_is_replaced_where_it_stands() {
    let base = Kubeconfig::parse(OURS_IN_KUBECTLS_FORM).unwrap();
    let mut target = base.clone();
    target.users[1].user.token = Some("new".into());
    let new = rewrite(OURS_IN_KUBECTLS_FORM, &base, &target, None).unwrap();
    assert_eq!(new, OURS_IN_KUBECTLS_FORM.replace("token: s", "token: new"));
}

#[test]
fn comments_within_our_entries_are_not_ours() {
    let merged = merged("clusters: []\r\nx-note: yes\r\n", "till");
    let commented = merged
        .text
        .replace("    token: s", "    # look\r\n    token: s");
    let kept = merge::remove(&merged.model, &merged.addition, &merged.earlier);
    let new = rewrite(&commented, &merged.model, &kept, None).unwrap();
    assert!(new.contains("\r\n    # look\r\n"), "{new}");
    assert!(!new.contains("till"), "{new}");
}

#[test]
fn texts_with_nothing_in_them_are_added_to() {
    for original in [
        "",
        "# notes\n",
        "# notes",
        "---\n# notes\n",
        "\u{feff}# notes\r\n",
    ] {
        let merged = merged(original, "till");
        assert!(merged.text.starts_with(original), "{:?}", merged.text);
    }
}

#[test]
fn json_stays_json() {
    for original in [
        "{\"clusters\":[],\"x-note\":1e3}",
        "{\n    \"clusters\": null,\n    \"x-note\": [true]\n}\n",
        "\u{feff}{\r\n\t\"clusters\": []\r\n}\r\n",
    ] {
        let merged = merged(original, "till");
        let json = merged.text.trim_start_matches(BYTE_ORDER_MARK);
        serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(json.ends_with('\n'), original.ends_with('\n'));
        assert_eq!(json.contains('\n'), original.contains('\n'));
        assert_eq!(json.contains("\r\n"), original.contains("\r\n"));
        assert_eq!(
            merged.text.starts_with(BYTE_ORDER_MARK),
            original.starts_with(BYTE_ORDER_MARK)
        );
        assert!(!json.contains("\n    \"") || original.contains("\n    \""));
    }
}

#[test]
fn unusual_layouts_are_written_anew() {
    for original in [
        "clusters: [{name: home}]\nx-note: yes\n",
        "clusters: &all\n- name: home\nx-all: *all\n",
        "{clusters: [{name: home}], x-note: yes}\r\n",
        "\u{feff}clusters: [\r\n  {name: home}]\r\n",
        "x-base: &base\n  clusters:\n  - name: home\n<<: *base\n",
        "? clusters\n: - name: home\n",
    ] {
        let merged = merged(original, "till");
        assert_eq!(merged.model.clusters.len(), 2);
        assert_eq!(merged.text.contains("\r\n"), original.contains("\r\n"));
        assert_eq!(
            merged.text.starts_with(BYTE_ORDER_MARK),
            original.starts_with(BYTE_ORDER_MARK)
        );
        removed(&merged, Some(original));
    }
}

/// The value of a block scalar changes when a line break comes to its end, so nothing can be put behind it.
#[test]
fn a_block_scalar_that_is_cut_off_keeps_its_value() {
    for end in ["|", "|+", ">", "|-"] {
        let original = format!("clusters: []\nusers: []\nx-note: {end}\n  text");
        let merged = merged(&original, "till");
        removed(&merged, Some(&original));
    }
}
