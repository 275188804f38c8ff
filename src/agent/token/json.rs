//! Strict JSON: bounded in depth and number of values, and no member of an object named twice.
//!
//! Two parsers that pick different ones of two equal names see two different tokens (RFC 8725 section 2.6).

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Claims are flat: the deepest that is known, `cnf.jwk`, has three levels.
const MAX_DEPTH: usize = 12;

/// A token of 32 KiB with the shortest possible values has some 12 000; one with 200 groups, 250.
const MAX_VALUES: usize = 5_000;

/// The object in `text`, or a reason why there is none. The reason shows nothing of the text.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let left = Cell::new(MAX_VALUES);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = Strict {
        depth: MAX_DEPTH,
        left: &left,
    }
    .deserialize(&mut parser)
    .map_err(|_| "it is not strict JSON")?;
    parser.end().map_err(|_| "something follows the JSON")?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err("it is not a JSON object"),
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or(E::custom("too deep"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| D::Error::custom("too many values"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is named twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,2.5,true,null,"é"],"b":{"c":{}}}"#;
        assert_eq!(
            Value::Object(object(text.as_bytes()).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_at_any_level() {
        for text in [
            r#"{"aud":"a","aud":"b"}"#,
            // The same name, once with an escape.
            r#"{"aud":"a","\u0061ud":"a"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested =
            |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_err());
        assert!(object(nested(100_000).as_bytes()).is_err());
        // The object and the array count too.
        let values = |count: usize| format!(r#"{{"a":[{}]}}"#, vec!["1"; count - 2].join(","));
        assert!(object(values(MAX_VALUES).as_bytes()).is_ok());
        assert!(object(values(MAX_VALUES + 1).as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        for text in [
            "",
            "1",
            "[]",
            "null",
            "{}{}",
            "{} x",
            "{",
            "{a:1}",
            r#"{"a":01}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"\u{1}\"}",
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
        assert!(object(b"\xef\xbb\xbf{}").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<Vec<u8>>()) {
            let _ = object(&text);
        }
    }
}
