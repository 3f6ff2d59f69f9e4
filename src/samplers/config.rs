//! A diffusers `scheduler_config.json`, read the way `from_config` reads it: a sampler asks for the keys that its
//! class accepts, a missing key takes that class's default, and what nobody asks for is ignored.

use serde_json::{Map, Value};

use super::sigmas::Sigmas;
use crate::error::{Error, Field, Remedy, Result, short};

/// The parsed keys of a `scheduler_config.json`. The default has none, so that every sampler takes its class's
/// defaults.
#[derive(Debug, Clone, Default)]
pub struct Config {
    place: String,
    keys: Map<String, Value>,
    /// Not of the file.
    pub(super) eta: Option<f64>,
    /// Whether [`Config::with_spacing`] gave it a spacing.
    pub(super) spaced: bool,
    /// What [`Config::with_sigmas`] gave it.
    pub(super) sigmas: Option<Sigmas>,
}

/// The key that tells how timesteps are spread over the training steps.
pub(super) const SPACING: &str = "timestep_spacing";
/// The key that tells what the network's output is.
pub(super) const PREDICTION: &str = "prediction_type";
/// The key of a noise schedule that is changed to end in pure noise.
pub(super) const ZERO_SNR: &str = "rescale_betas_zero_snr";

impl Config {
    /// Parses the text of a `scheduler_config.json`; `place` names it in error messages.
    ///
    /// Python writes infinities as bare words, which JSON does not have (`"lambda_min_clipped": -Infinity` stands in
    /// many real files), so these are taken too.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let keys = serde_json::from_str(&quote_bare_words(text))
            .map_err(|error| Error::config(place, format!("not a JSON object: {error}")))?;
        Ok(Self { place: place.to_string(), keys, eta: None, spaced: false, sigmas: None })
    }

    /// The same with another `eta` than 0, diffusers' argument of a pipeline's call: how much of a step's noise is
    /// fresh, from 0, nothing, to 1.
    ///
    /// # Errors
    /// If it does not lie between these.
    pub fn with_eta(self, eta: Option<f64>) -> Result<Self> {
        match eta.filter(|eta| !(0.0..=1.0).contains(eta)) {
            Some(eta) => Err(Error::usage(format!("{eta} does not lie from 0 to 1")).of(Field::Eta)),
            None => Ok(Self { eta, ..self }),
        }
    }

    /// The same with another `timestep_spacing` than the file's: few-step models are published with a few words on it
    /// beside the file of the model that they were distilled from.
    pub fn with_spacing(mut self, spacing: Option<&str>) -> Self {
        if let Some(spacing) = spacing {
            self.keys.insert(SPACING.into(), spacing.into());
            self.spaced = true;
        }
        self
    }

    /// The same with sigmas spread in another way than the file says.
    pub fn with_sigmas(mut self, sigmas: Option<Sigmas>) -> Self {
        if let Some(sigmas) = &sigmas {
            for key in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"] {
                self.keys.insert(key.into(), (Some(key) == sigmas.key()).into());
            }
        }
        self.sigmas = sigmas;
        self
    }

    /// The same of a network that predicts something else than the file says: `epsilon`, `v_prediction` (or `v`) or
    /// `sample`.
    pub fn with_prediction(mut self, prediction: Option<&str>) -> Self {
        if let Some(prediction) = prediction {
            let kind = if prediction == "v" { "v_prediction" } else { prediction };
            self.keys.insert(PREDICTION.into(), kind.into());
        }
        self
    }

    /// An error that names a key and its value.
    pub(super) fn refused(&self, key: &str, value: impl std::fmt::Display, why: &str) -> Error {
        self.error(format!("{key}: {} {why}", short(value)))
    }

    pub(super) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::config(if self.place.is_empty() { "scheduler" } else { &self.place }, what)
    }

    /// The same without a key.
    pub(super) fn without(&self, key: &str) -> Self {
        let mut config = self.clone();
        config.keys.remove(key);
        config
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// The diffusers class that wrote the file.
    pub(super) fn class(&self) -> Option<&str> {
        self.keys.get("_class_name").and_then(Value::as_str)
    }

    /// What `of` makes of the value of a key, or the default of one that is missing.
    fn read<'a, T>(&'a self, key: &str, default: T, wanted: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        let Some(value) = self.keys.get(key) else { return Ok(default) };
        of(value).ok_or_else(|| self.refused(key, value, &format!("is not {wanted}")))
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        self.read(key, default, "a number", number)
    }

    /// A number that may be null or missing.
    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, None, "a number", |value| if value.is_null() { Some(None) } else { number(value).map(Some) })
    }

    /// A whole number from 1 to a million: a number of timesteps, or an order.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        let count = |value: &Value| value.as_u64().filter(|n| (1..=1_000_000).contains(n)).map(|n| n as usize);
        self.read(key, default, "a whole number from 1 to 1000000", count)
    }

    pub(super) fn whole(&self, key: &str, default: i64) -> Result<i64> {
        self.read(key, default, "a whole number", |value| value.as_i64().filter(|n| n.abs() <= 1_000_000))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.read(key, default, "true or false", Value::as_bool)
    }

    /// A word, or null, which is `None`.
    pub(super) fn word<'a>(&'a self, key: &str, default: &'a str) -> Result<Option<&'a str>> {
        let word = |value: &'a Value| if value.is_null() { Some(None) } else { value.as_str().map(Some) };
        self.read(key, Some(default), "a string", word)
    }

    /// One of the words that are known for a key; any other is an error that lists them.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: &str, options: &[(&str, T)]) -> Result<T> {
        let word = self.word(key, default)?.unwrap_or("null");
        options.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = options.iter().map(|(name, _)| *name).collect();
            self.refused(key, word, &format!("is not built for this sampler; built are: {}", names.join(", ")))
        })
    }

    /// A list of numbers that may be null or missing.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let number = |value| number(value).ok_or_else(|| self.refused(key, value, "is not a number"));
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values.iter().map(number).collect::<Result<_>>().map(Some),
            Some(value) => Err(self.refused(key, value, "is not a list of numbers")),
        }
    }

    /// Whether a key is there, and neither false nor null.
    fn is_set(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
    }

    /// Whether the noise schedule is changed to end in pure noise.
    ///
    /// # Errors
    /// If the file says neither yes nor no.
    pub(super) fn zero_snr(&self) -> Result<bool> {
        self.flag(ZERO_SNR, false)
    }

    /// Refuses models that are trained with another noise than every sampler here undoes, which is that of betas:
    /// under any sampler their pictures would be wrong. `known` says whether a class is in the table of samplers.
    pub(super) fn check_noise(&self, known: impl Fn(&str) -> bool) -> Result<()> {
        let class = self.class().unwrap_or_default();
        let refuse = |key: &str, why: &str| {
            let value = self.keys.get(key).map_or_else(|| class.into(), Value::to_string);
            Err(self.refused(key, value, why))
        };
        const FLOW: &str = "is for models that flow straight from noise to picture, which are not supported";
        if !self.is_edm() && self.is_set("sigma_data") {
            let what = "is of models trained with EDM's noise levels (Playground 2.5), whose _class_name is \
                        EDMEulerScheduler or EDMDPMSolverMultistepScheduler";
            return refuse("sigma_data", what);
        } else if self.is_edm() && !known(class) {
            return refuse("_class_name", "is a way to draw with models of EDM's noise levels that is not built");
        } else if class.starts_with("FlowMatch") {
            return refuse("_class_name", FLOW);
        } else if let Some(key) = ["use_flow_sigmas", "use_dynamic_shifting"].into_iter().find(|key| self.is_set(key)) {
            return refuse(key, FLOW);
        } else if self.keys.get(PREDICTION).and_then(Value::as_str).is_some_and(|kind| kind.starts_with("flow")) {
            return refuse(PREDICTION, FLOW);
        }
        let has_betas =
            ["beta_start", "beta_end", "beta_schedule", "trained_betas"].into_iter().any(|key| self.is_set(key));
        match self.class() {
            Some(class) if !known(class) && !has_betas => {
                refuse("_class_name", "is not built, and without betas no other sampler knows the model's noise levels")
            }
            _ => Ok(()),
        }
    }

    /// An error if a key that would change the numbers, and is not built, is set: to anything but false or null.
    pub(super) fn refuse(&self, keys: &[&str]) -> Result<()> {
        let Some(key) = keys.iter().find(|key| self.is_set(key)) else { return Ok(()) };
        let error = self.refused(key, &self.keys[*key], "is not built for this sampler");
        Err(error.remedies([Remedy::Other(Field::Sampler)]))
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

/// Puts quotes around `Infinity`, `-Infinity` and `NaN` where they stand outside a string.
fn quote_bare_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, part) in split_strings(text).into_iter().enumerate() {
        if i % 2 == 1 {
            out += part;
            continue;
        }
        let quoted = part.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"");
        out += &quoted.replace("-\"Infinity\"", "\"-Infinity\"");
    }
    out
}

/// The pieces of a JSON text: outside a string, a string with its quotes, outside, and so on.
fn split_strings(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut inside, mut escaped) = (Vec::new(), 0, false, false);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => {
                let end = i + usize::from(inside);
                parts.push(&text[start..end]);
                (start, inside) = (end, !inside);
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_infinities_are_numbers() {
        let config = Config::from_json(r#"{"a": -Infinity, "b": "-Infinity \" NaN", "c": Infinity}"#, "x").unwrap();
        assert_eq!(config.number("a", 0.0).unwrap(), f64::NEG_INFINITY);
        assert_eq!(config.number("c", 0.0).unwrap(), f64::INFINITY);
        assert_eq!(config.word("b", "").unwrap(), Some("-Infinity \" NaN"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_an_error_that_names_it() {
        let config = Config::from_json(r#"{"steps_offset": "one"}"#, "scheduler_config.json").unwrap();
        let error = config.whole("steps_offset", 0).unwrap_err().to_string();
        assert_eq!(error, r#"scheduler_config.json: steps_offset: "one" is not a whole number"#);
    }

    #[test]
    fn text_that_is_no_object_is_an_error() {
        assert!(Config::from_json("[1]", "x").is_err());
        assert!(Config::from_json("{", "x").is_err());
    }

    #[test]
    fn a_key_that_is_not_built_may_be_off() {
        let config = Config::from_json(r#"{"a": false, "b": null, "c": true}"#, "x").unwrap();
        assert!(config.refuse(&["a", "b", "missing"]).is_ok());
        assert!(config.refuse(&["c"]).is_err());
    }
}
