//! Both languages by table, and arbitrary input by property.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use arca_hcl::{Body, Limits, Value, parse, parse_within};
use proptest::prelude::*;

fn show(value: &Value) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Int(number) => number.to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Null => "null".to_owned(),
        Value::Object(body) => format!("{{{}}}", show_body(body)),
        Value::Text(text) => format!("{text:?}"),
    }
}

fn show_body(body: &Body) -> String {
    let items = body.items.iter().map(|item| {
        let labels: String = item.labels.iter().map(|label| format!(" {label:?}")).collect();
        format!("{}:{}{labels}={}", item.line, item.name, show(&item.value))
    });
    items.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(text: &str, want: &str) {
    let got = parse(text).map_or_else(|err| err.to_string(), |body| show_body(&body));
    assert_eq!(got, want, "input {text:?}");
}

#[test]
fn attributes_may_share_a_line() {
    check("a = 1 b = \"x\" c = true", r#"1:a=1 1:b="x" 1:c=true"#);
    check(
        "path \"a/*\" { capabilities = [\"read\"] comment = \"x\" }",
        r#"1:path "a/*"={1:capabilities=["read"] 1:comment="x"}"#,
    );
}

#[test]
fn commas_after_items_are_optional() {
    check("a = 1, b = 2", "1:a=1 1:b=2");
    check("o = { a = 1, b = 2, }", "1:o={1:a=1 1:b=2}");
    check("a = 1,, b = 2", "line 1, column 7: expected a name, found a comma");
}

#[test]
fn lists_take_a_trailing_comma() {
    check("a = [1, \"b\", [true], {c = 1},\n]", r#"1:a=[1,"b",[true],{1:c=1}]"#);
    check("a = [1 2]", "line 1, column 8: expected a comma or ] in a list, found a number");
    check("a = [,]", "line 1, column 6: expected a value, found a comma");
}

#[test]
fn comments_are_blanks() {
    check("# x\na = 1 // y\n/* z\n*/ b = 2 # end", "2:a=1 4:b=2");
    check("a = 1 /* x", "line 1, column 7: this comment does not end");
}

#[test]
fn names_may_be_quoted_and_dotted() {
    check("\"a b\" = 1\nx.y-z = 2", "1:a b=1 2:x.y-z=2");
    check("a \"b\" \"c\" {}", r#"1:a "b" "c"={}"#);
    check("a \"b\" = 1", "line 1, column 7: expected { after a label, found =");
}

#[test]
fn numbers_come_in_all_of_hcls_forms() {
    check("a = [0, -7, 0x1F, 0755, 1.5, -2e3, .5]", "1:a=[0,-7,31,493,1.5,-2000.0,0.5]");
    for bad in ["1x", "0x", "089", "1.2.3", "1e999", "--1", "-inf", "0xZ", "99999999999999999999", "0x-1"] {
        check(&format!("a = {bad}"), "line 1, column 5: this is not a number");
    }
}

#[test]
fn strings_have_gos_escapes() {
    check(r#"a = "\n\t\"\\\x41\u00e9\U0001F600\101""#, r#"1:a="\n\t\"\\AéA""#.replace("éA", "é😀A").as_str());
    check(r#"a = "\q""#, "line 1, column 7: this escape is not one of HCL's");
    check(r#"a = "\xff""#, "line 1, column 7: this escape is not one of HCL's");
    check("a = \"x\ny\"", "line 1, column 5: this string does not end on its line");
    check(r#"a = "${f("x")} \"y\"""#, r#"1:a="${f(\"x\")} \"y\"""#);
}

#[test]
fn heredocs_end_at_their_marker() {
    check("a = <<EOF\n x\n  EOFy\nEOF\nb = 1", r#"1:a=" x\n  EOFy\n" 5:b=1"#);
    check("a = <<-EOF\n    x\n      y\n    EOF\n", r#"1:a="x\n  y\n""#);
    check("a = <<-EOF\n  x\n    EOF\n", r#"1:a="  x\n""#);
    check("a = <<EOF\nx", "line 1, column 5: this heredoc has no end marker on a line of its own");
}

#[test]
fn bare_words_are_no_values() {
    check("a = read", "line 1, column 5: a bare word is not a value, put it in quotes");
    check("a = [canary]", "line 1, column 6: a bare word is not a value, put it in quotes");
}

#[test]
fn errors_say_where_and_what_was_expected() {
    check(
        "path \"x\" {\n a = 1",
        "line 2, column 7: expected } at the end of an object, found the end of the text",
    );
    check("}", "line 1, column 1: expected a name, found }");
    check("a", "line 1, column 2: expected = or { after a name, found the end of the text");
    check("a =", "line 1, column 4: expected a value, found the end of the text");
    check("a = 1\n\u{0}", "line 2, column 1: expected a name, found an unexpected character");
}

#[test]
fn json_gives_the_same_tree() {
    check(
        "{\"path\": {\"a/*\":\n {\"capabilities\": [\"read\", 1.0, null, -2]}}}",
        r#"1:path={1:a/*={2:capabilities=["read",1.0,null,-2]}}"#,
    );
    check("{}", "");
    check(r#"{"a": "\ud83d\ude00\/\u0041"}"#, r#"1:a="😀/A""#);
    for (bad, want) in [
        ("{\"a\": 1,}", "line 1, column 9: expected a quoted name, found }"),
        ("{\"a\" 1}", "line 1, column 6: expected a colon after a name, found a number"),
        ("{\"a\": 01}", "line 1, column 7: this is not a number"),
        ("{\"a\": \"\\ud83d\"}", "line 1, column 9: this escape is not one of JSON's"),
        ("{} x", "line 1, column 4: expected nothing after the last }, found a bare word"),
        ("{\"a\": nul}", "line 1, column 7: expected a value, found a bare word"),
    ] {
        check(bad, want);
    }
}

#[track_caller]
fn check_blocks(text: &str, name: &str, labels: usize, want: &str) {
    let body = parse(text).unwrap();
    let got = body.blocks(name, labels).map_or_else(
        |err| err.to_string(),
        |blocks| {
            let shown = blocks.iter().map(|b| format!("{}{:?}", b.line, b.labels));
            shown.collect::<Vec<_>>().join(" ")
        },
    );
    assert_eq!(got, want, "input {text:?}");
}

#[test]
fn labels_may_be_written_in_either_form() {
    check_blocks("path \"a\" {}\npath \"b\" {}", "path", 1, r#"1["a"] 2["b"]"#);
    check_blocks("{\"path\": {\"a\": {},\n \"b\": {}}}", "path", 1, r#"1["a"] 2["b"]"#);
    check_blocks(
        "{\"listener\": [{\"tcp\": {}}, {\"tcp\": [{}, {}]}]}",
        "listener",
        1,
        r#"1["tcp"] 1["tcp"] 1["tcp"]"#,
    );
    check_blocks("seal = [{a = 1}]", "seal", 0, "1[]");
    check_blocks("path \"a\" \"b\" {}", "path", 1, "line 1, column 1: path takes 1 label(s) before {");
    check_blocks("path = 1", "path", 1, "line 1, column 1: path needs a label and a block, found a number");
    check_blocks("path \"a\" { x = 1 }", "other", 1, "");
}

#[test]
fn duplicates_and_unknown_names_are_found() {
    let body = parse("a = 1\nb \"x\" {}\nb \"y\" {}\na = 2\nc = 3").unwrap();
    assert_eq!(body.duplicate().unwrap().line, 4);
    assert_eq!(body.unknown(&["a", "b"]).unwrap().line, 5);
    assert_eq!(body.attribute("a").unwrap().value, Value::Int(2));
}

#[test]
fn limits_are_reached() {
    let limits = Limits { bytes: 40, depth: 3, items: 5 };
    let check = |text: &str, want: Option<&str>| {
        let got = parse_within(text, limits).err().map(|err| err.message);
        assert_eq!(got.as_deref(), want, "input {text:?}");
    };
    check("a = [[[1]]]", None);
    check("a = [[[[1]]]]", Some("more than 3 levels deep"));
    check("a=[1,2,3,4]", None);
    check("a=[1,2,3,4,5]", Some("more than 5 items"));
    check(&" ".repeat(41), Some("the text is over 40 bytes long"));
    let deep = "[".repeat(100_000);
    assert!(parse(&format!("a = {deep}")).is_err());
    assert!(parse(&format!("{{\"a\": {deep}")).is_err());
    assert!(parse(&"a {".repeat(100_000)).is_err());
}

/// Text made of the language's own pieces gets further into the parser than random characters do.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "path", "\"b\"", "\"", "{", "}", "[", "]", "=", ",", ":", "1", "-", "0x", "\\", "${", "<<EOF\n",
        "<<-X\n", "EOF", "\n", " ", "#", "/*", "*/", "//", "true", "null", "é", "\u{0}", "\\u", "d83d",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), more in pieces()) {
        for text in [text.clone(), more.clone(), format!("{{{more}"), format!("{{\"a\":{text}")] {
            if let Ok(body) = parse(&text) {
                let _seen = (body.duplicate(), body.blocks("path", 1), body.blocks("a", 0));
            }
        }
    }

    #[test]
    fn errors_never_quote_a_value(tail in "[ =\\[\\]{},:\"\\\\]{0,12}") {
        for text in [format!("a = \"canary\" {tail}"), format!("{{\"a\": \"canary\" {tail}"), format!("a = canary{tail}")] {
            if let Err(err) = parse(&text) {
                prop_assert!(!err.to_string().contains("canary"), "{err}");
            }
        }
    }

    #[test]
    fn quoted_text_comes_back(text in "[^\"\\\\\n$]{0,40}") {
        let body = parse(&format!("a = \"{text}\"")).unwrap();
        prop_assert_eq!(body.items[0].value.as_text(), Some(text.as_str()));
    }
}
