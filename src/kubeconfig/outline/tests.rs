use super::*;

const TEXT: &str = "\
# mine
apiVersion: v1
clusters:   # all of them

# the first
- name: a
  cluster:
    notes: |
      two
      lines
    # server: https://old
# between
- {name: b}
-
  name: c
users: []  # none
\"contexts\" : null
current-context: \"a\" # for now
preferences:
  colors: true
  # indented
# the end
";

fn lines<'a>(text: &'a str, range: &Range<usize>) -> &'a str {
    &text[range.clone()]
}

#[test]
fn members_and_items_are_found() {
    let outline = Outline::of(TEXT).unwrap();
    let Form::Items {
        column,
        lines: items,
        end,
    } = &outline.member("clusters").unwrap().form
    else {
        panic!("{outline:?}");
    };
    assert_eq!((*column, items.len()), (0, 3));
    assert!(lines(TEXT, &items[0]).starts_with("- name: a\n"));
    assert!(lines(TEXT, &items[0]).ends_with("      lines\n"));
    assert_eq!(lines(TEXT, &items[1]), "- {name: b}\n");
    assert_eq!(lines(TEXT, &items[2]), "-\n  name: c\n");
    assert!(TEXT[*end..].starts_with("users:"));
    for (name, value) in [
        ("apiVersion", " v1"),
        ("users", " []"),
        ("contexts", " null"),
        ("current-context", " \"a\""),
    ] {
        let member = outline.member(name).unwrap();
        let Form::Inline { end } = member.form else {
            panic!("{member:?}");
        };
        assert_eq!(&TEXT[member.colon..end], value);
    }
    assert!(matches!(
        outline.member("preferences").unwrap().form,
        Form::Other
    ));
    assert_eq!(&TEXT[outline.end..], "# the end\n");
}

#[test]
fn comments_below_an_item_and_deeper_than_its_dash_belong_to_it() {
    let text = "  a:\n  - b: 1\n    # c: 2\n  # d\n";
    let outline = Outline::of(text).unwrap();
    let Form::Items { end, column, .. } = outline.member("a").unwrap().form else {
        panic!("{outline:?}");
    };
    assert_eq!((outline.column, column), (2, 2));
    assert_eq!(&text[end..], "  # d\n");
    assert_eq!(&text[outline.end..], "  # d\n");
}

#[test]
fn unusual_texts_have_no_outline() {
    for text in [
        "{a: b}\n",
        "&x a: b\n",
        "? a\n: b\n",
        "- a\n",
        "a: [\n",
        "a\n",
        "",
        "a: 1\n---\nb: 2\n",
    ] {
        assert!(Outline::of(text).is_none(), "{text:?}");
    }
    for text in [
        "a: &x\n- 1\n",
        "a: !!seq\n- 1\n",
        "a: [\n  1]\n",
        "b: &x 1\na: *x\n",
    ] {
        let outline = Outline::of(text).unwrap();
        assert!(
            matches!(outline.member("a").unwrap().form, Form::Other),
            "{text:?}"
        );
    }
}

#[test]
fn blank_is_what_has_no_value() {
    for text in ["", "\n", "# a\n", "---\n", "--- # a\n...\n", "\u{feff}\n"] {
        assert!(is_blank(text), "{text:?}");
    }
    for text in ["a: 1\n", "~\n", "''\n", "{}\n", "[\n"] {
        assert!(!is_blank(text), "{text:?}");
    }
}
