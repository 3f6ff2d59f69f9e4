//! A network's `config.json`, key by key: every key is read, allowed only one value, or known to change nothing; what
//! is left over at the end is an error, since it might ask for mathematics that is not built.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result, short, ten};

/// No network here has a dimension beyond this; a larger number in a file is a mistake, and products of several stay
/// far from overflow.
const LARGEST: usize = 1 << 20;

/// Each block but one halves or doubles the sides: more are a mistake.
const MOST_BLOCKS: usize = 16;

/// A value for all blocks, or one for each. A list is always the latter, even where the value itself may be a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

/// The keys of a configuration that have not been looked at yet.
#[derive(Debug)]
pub struct Keys<'a> {
    place: &'a str,
    left: Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// `place` is what error messages call the file.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn parse(text: &str, place: &'a str) -> Result<Self> {
        let left = serde_json::from_str(text).map_err(|e| Error::config(place, format!("not a JSON object: {e}")))?;
        Ok(Self { place, left })
    }

    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::config(self.place, what)
    }

    /// Whether a key is absent or null.
    pub fn is_null(&self, key: &str) -> bool {
        self.left.get(key).is_none_or(Value::is_null)
    }

    /// Whether a key has this value.
    pub fn is(&self, key: &str, value: &Value) -> bool {
        self.left.get(key) == Some(value)
    }

    /// The value of a key, or the default of diffusers or transformers if the file does not have it.
    ///
    /// # Errors
    /// If the value is of another type.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T> {
        let Some(value) = self.left.remove(key) else { return Ok(default) };
        T::deserialize(&value).map_err(|_| self.error(format!("{key} is {}, {}", short(&value), expected::<T>())))
    }

    /// A dimension or a number of layers: 1 and up.
    pub fn count(&mut self, key: &str, default: usize) -> Result<usize> {
        let n = self.get(key, default)?;
        self.check_count(key, n)
    }

    /// The same of a key that may be null, which is `None`.
    pub fn optional_count(&mut self, key: &str) -> Result<Option<usize>> {
        let n: Option<usize> = self.get(key, None)?;
        n.map(|n| self.check_count(key, n)).transpose()
    }

    pub fn check_count(&self, key: &str, n: usize) -> Result<usize> {
        if (1..=LARGEST).contains(&n) {
            return Ok(n);
        }
        Err(self.error(format!("{key} has {n}, expected a number from 1 to {LARGEST}")))
    }

    /// A height and a width, or one number for both, each as [`Keys::check_count`] has it; `None` if the key is
    /// absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn size(&mut self, key: &str) -> Result<Option<[usize; 2]>> {
        match self.get(key, None)? {
            None => Ok(None),
            Some(OneOrMany::One(n)) => Ok(Some([self.check_count(key, n)?; 2])),
            Some(OneOrMany::Many(list)) => match list[..] {
                [height, width] => Ok(Some([self.check_count(key, height)?, self.check_count(key, width)?])),
                _ => Err(self.error(format!("{key} is {list:?}, expected a number or height and width"))),
            },
        }
    }

    /// One number for each block of the network.
    pub fn counts(&mut self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let list = self.get(key, default.to_vec())?;
        if list.is_empty() {
            return Err(self.error(format!("{key} is empty, expected a number for each block")));
        }
        if list.len() > MOST_BLOCKS {
            return Err(self.error(format!("{key} has more than {MOST_BLOCKS} entries")));
        }
        list.into_iter().map(|n| self.check_count(key, n)).collect()
    }

    /// A value for each of `blocks` blocks, from one for all or a list of them.
    pub fn per_block<T: DeserializeOwned + Clone>(&mut self, key: &str, default: T, blocks: usize) -> Result<Vec<T>> {
        match self.get(key, OneOrMany::One(default))? {
            OneOrMany::One(value) => Ok(vec![value; blocks]),
            OneOrMany::Many(list) if list.len() == blocks => Ok(list),
            OneOrMany::Many(list) => {
                Err(self.error(format!("{key} has {} entries, expected one for each of {blocks} blocks", list.len())))
            }
        }
    }

    /// [`Keys::per_block`] for numbers of 1 and up.
    pub fn count_per_block(&mut self, key: &str, default: usize, blocks: usize) -> Result<Vec<usize>> {
        let list = self.per_block(key, default, blocks)?;
        list.into_iter().map(|n| self.check_count(key, n)).collect()
    }

    /// A name that must be one of those that are built.
    pub fn one_of(&mut self, key: &str, default: &str, supported: &[&str]) -> Result<String> {
        let name = self.get(key, default.to_string())?;
        self.check_name(key, &name, supported)?;
        Ok(name)
    }

    /// Names, one for each block, all of which must be built.
    pub fn names(&mut self, key: &str, default: &[&str], supported: &[&str]) -> Result<Vec<String>> {
        let list: Vec<String> = self.get(key, default.iter().map(|s| s.to_string()).collect())?;
        list.iter().try_for_each(|name| self.check_name(key, name, supported))?;
        Ok(list)
    }

    fn check_name(&self, key: &str, name: &str, supported: &[&str]) -> Result<()> {
        if supported.contains(&name) {
            return Ok(());
        }
        Err(self.error(format!("{key} has {}, supported: {}", short(format_args!("{name:?}")), supported.join(", "))))
    }

    /// A number that f32 holds.
    pub fn finite(&mut self, key: &str, default: f32) -> Result<f32> {
        let number = self.get(key, default)?;
        if number.is_finite() { Ok(number) } else { Err(self.error(format!("{key} is more than f32 holds"))) }
    }

    /// A small positive number that a norm adds to the variance.
    pub fn eps(&mut self, key: &str, default: f32) -> Result<f32> {
        let eps = self.get(key, default)?;
        if eps.is_finite() && eps >= 0.0 {
            return Ok(eps);
        }
        Err(self.error(format!("{key} is {eps}, expected a small positive number")))
    }

    /// Keys whose other values are not built: each must be absent, null or the value beside it.
    pub fn only(&mut self, supported: &[(&str, Value)]) -> Result<()> {
        for (key, value) in supported {
            let found = self.left.remove(*key).unwrap_or(Value::Null);
            // 1 and 1.0 are the same number.
            let same = found == *value || found.as_f64().is_some_and(|n| value.as_f64() == Some(n));
            if !found.is_null() && !same {
                return Err(self.error(format!("{key} is {}, supported: {value}", short(found))));
            }
        }
        Ok(())
    }

    /// Keys that change nothing in a forward pass.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }

    /// # Errors
    /// If a key is left that is neither null nor one of the writing program's own (`_class_name`).
    pub fn finish(self) -> Result<()> {
        let unknown = self.left.iter().filter(|(key, value)| !key.starts_with('_') && !value.is_null());
        let unknown: Vec<_> = unknown.map(|(key, value)| format!("{key} = {value}")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::config(
            self.place,
            format!("unknown keys {}; remove them if they do not change the network", ten(&unknown)),
        ))
    }
}

/// What a value of this type should have been, in words.
fn expected<T>() -> String {
    let name = std::any::type_name::<T>();
    let many = if name.contains("Vec<") || name.contains("OneOrMany<") { "or a list of them" } else { "" };
    let what = match name {
        _ if name.contains("bool") => "true or false",
        _ if name.contains("usize") => "a whole number",
        _ if name.contains("f32") => "a number",
        _ => "a name",
    };
    format!("expected {what} {many}").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(text: &str) -> Keys<'_> {
        Keys::parse(text, "config.json").unwrap()
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let error = keys(r#"{"layers": "two"}"#).get("layers", 1usize).unwrap_err();
        assert_eq!(error.to_string(), r#"config.json: layers is "two", expected a whole number"#);
    }

    #[test]
    fn one_number_stands_for_all_blocks() {
        assert_eq!(keys(r#"{"n": 3}"#).count_per_block("n", 1, 2).unwrap(), [3, 3]);
        assert_eq!(keys(r#"{"n": [3, 4]}"#).count_per_block("n", 1, 2).unwrap(), [3, 4]);
        let error = keys(r#"{"n": [3]}"#).count_per_block("n", 1, 2).unwrap_err();
        assert_eq!(error.to_string(), "config.json: n has 1 entries, expected one for each of 2 blocks");
    }

    #[test]
    fn zero_and_absurd_counts_are_refused() {
        assert!(keys(r#"{"n": 0}"#).count("n", 1).is_err());
        assert!(keys(r#"{"n": 18446744073709551615}"#).count("n", 1).is_err());
        assert!(keys(r#"{"n": []}"#).counts("n", &[1]).is_err());
        assert!(keys(r#"{"n": 0}"#).optional_count("n").is_err());
        assert_eq!(keys(r#"{"n": null}"#).optional_count("n").unwrap(), None);
    }

    #[test]
    fn more_blocks_than_sides_can_be_halved_are_refused() {
        let counts = |n: usize| keys(&format!(r#"{{"n": {:?}}}"#, vec![1; n])).counts("n", &[1]).map(|list| list.len());
        assert_eq!(counts(16).unwrap(), 16);
        assert_eq!(counts(17).unwrap_err().to_string(), "config.json: n has more than 16 entries");
    }

    #[test]
    fn a_value_that_is_not_built_is_refused_and_null_is_not() {
        let only = |text| keys(text).only(&[("scale", json!(1))]);
        assert!(only(r#"{"scale": 1.0}"#).is_ok());
        assert!(only(r#"{"scale": null}"#).is_ok());
        assert_eq!(only(r#"{"scale": 0.7}"#).unwrap_err().to_string(), "config.json: scale is 0.7, supported: 1");
    }

    #[test]
    fn an_unknown_key_is_an_error_unless_it_is_null_or_private() {
        assert!(keys(r#"{"_class_name": "X", "later": null}"#).finish().is_ok());
        let error = keys(r#"{"later": "new"}"#).finish().unwrap_err();
        assert!(error.to_string().contains(r#"later = "new""#), "{error}");
    }
}
