//! YAML with sorted keys. JSON numbers keep their digits on the way, so they are carried over by hand.

use serde::Serialize;
use serde_json::Value as Json;
use serde_yaml_ng::{Mapping, Number, Value as Yaml};

/// YAML of anything that is JSON.
pub fn text(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    serde_yaml_ng::to_string(&convert(&json)).unwrap_or_default()
}

fn convert(value: &Json) -> Yaml {
    match value {
        Json::Null => Yaml::Null,
        Json::Bool(flag) => Yaml::Bool(*flag),
        Json::Number(number) => number_of(number),
        Json::String(text) => Yaml::String(text.clone()),
        Json::Array(list) => Yaml::Sequence(list.iter().map(convert).collect()),
        Json::Object(map) => {
            let entries = map.iter().map(|(key, value)| (Yaml::String(key.clone()), convert(value)));
            Yaml::Mapping(entries.collect::<Mapping>())
        }
    }
}

fn number_of(number: &serde_json::Number) -> Yaml {
    if let Some(whole) = number.as_u64() {
        return Yaml::Number(Number::from(whole));
    }
    if let Some(whole) = number.as_i64() {
        return Yaml::Number(Number::from(whole));
    }
    match number.as_f64() {
        // A number that a float would round stays exact as text.
        Some(float) if !number.to_string().bytes().all(|byte| byte.is_ascii_digit()) => {
            Yaml::Number(float.into())
        }
        _ => Yaml::String(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn numbers_texts_and_nothing() {
        let json: Json = serde_json::from_str(
            r#"{"n":1,"neg":-2,"f":1.5,"big":12345678901234567890123,"s":"1","t":"true","none":null,"l":[1,"a"],"y":"n"}"#,
        )
        .unwrap();
        expect![[r#"
            big: '12345678901234567890123'
            f: 1.5
            l:
            - 1
            - a
            n: 1
            neg: -2
            none: null
            s: '1'
            t: 'true'
            y: n
        "#]]
        .assert_eq(&text(&json));
    }
}
